"""httpbin, as far as Istio's tasks use it: /get /post /anything /headers /ip /user-agent /status/N /delay/S /bytes/N
/base64/TEXT.

Run as ``python -m lateen.samples.bookinfo.httpbin PORT``; with ``--lists``, headers and arguments are lists, as in
go-httpbin.
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import sys

from lateen.samples.bookinfo.http import Request, Response, as_json, digits, segments, serve

LISTS = "--lists" in sys.argv


def listed(values: dict[str, str]) -> dict[str, object]:
    return {k: [v] if LISTS else v for k, v in values.items()}


def seen(request: Request) -> dict[str, object]:
    headers = listed({k.title(): v for k, v in request.headers.items()})
    return {
        "args": listed(request.query),
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
            return Response(int(code), b"I'm a teapot!" if code == "418" else b"", "text/plain")
        case ["base64", text]:
            return Response(200, _decoded(text), "text/plain")
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


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, altchars=b"-_")
    except ValueError:
        return b"not base64"


if __name__ == "__main__":
    serve(handle)
