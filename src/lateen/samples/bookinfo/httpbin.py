"""httpbin, as far as Istio's tasks use it: /get /post /anything /headers /ip /user-agent /status/N /delay/S /bytes/N.

Run as ``python -m lateen.samples.bookinfo.httpbin PORT``.
"""

from __future__ import annotations

import asyncio
import os
import socket

from lateen.samples.bookinfo.http import Request, Response, as_json, digits, segments, serve


def seen(request: Request) -> dict[str, object]:
    headers = {k.title(): v for k, v in request.headers.items()}
    return {
        "args": request.query,
        "data": request.body.decode(errors="replace")[:4096],
        "headers": headers,
        "hostname": socket.gethostname(),
        "method": request.method,
        "origin": request.headers.get("x-forwarded-for", ""),
        "url": f"http://{request.headers.get('host', '')}{request.path}",
        "version": os.environ.get("SERVICE_VERSION", ""),
    }


async def handle(request: Request) -> Response:
    match segments(request.path):
        case ["status", code] if digits(code):
            return Response(int(code), b"", "text/plain")
        case ["delay", seconds]:
            await asyncio.sleep(min(float(seconds), 10))
        case ["bytes", size] if digits(size):
            return Response(200, b"x" * min(int(size), 1 << 20), "application/octet-stream")
        case ["headers"]:
            return as_json({"headers": seen(request)["headers"]})
        case ["ip"]:
            return as_json({"origin": seen(request)["origin"]})
        case ["user-agent"]:
            return as_json({"user-agent": request.headers.get("user-agent", "")})
        case ["get"] | ["post"] | ["put"] | ["anything", *_] | []:
            pass
        case _:
            return as_json({"error": "no such path"}, 404)
    return as_json(seen(request))


if __name__ == "__main__":
    serve(handle)
