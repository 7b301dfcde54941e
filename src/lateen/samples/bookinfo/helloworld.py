"""helloworld of Istio's samples. Run as ``python -m lateen.samples.bookinfo.helloworld PORT``."""

from __future__ import annotations

import os
import socket

from lateen.samples.bookinfo.http import Request, Response, segments, serve


async def handle(request: Request) -> Response:
    if segments(request.path) == ["hello"]:
        version = os.environ.get("SERVICE_VERSION", "v1")
        text = f"Hello version: {version}, instance: {socket.gethostname()}\n"
        return Response(200, text.encode(), "text/plain")
    return Response(200 if segments(request.path) == ["health"] else 404)


if __name__ == "__main__":
    serve(handle)
