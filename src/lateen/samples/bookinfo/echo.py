"""echo: answers with the request that it got, for tests. Run as ``python -m lateen.samples.bookinfo.echo PORT``."""

from __future__ import annotations

import asyncio
import os
import socket

from lateen.samples.bookinfo.http import Request, Response, as_json, digits, segments, serve


async def handle(request: Request) -> Response:
    match segments(request.path):
        case ["status", code] if digits(code):
            return as_json({"status": int(code)}, int(code))
        case ["delay", seconds]:
            await asyncio.sleep(min(float(seconds), 10))
    return as_json(
        {
            "method": request.method,
            "path": request.path,
            "headers": request.headers,
            "host": socket.gethostname(),
            "version": os.environ.get("SERVICE_VERSION", ""),
            "body": request.body.decode(errors="replace")[:4096],
        }
    )


if __name__ == "__main__":
    serve(handle)
