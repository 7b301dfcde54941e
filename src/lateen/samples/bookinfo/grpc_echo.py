"""A gRPC service that reports which pod answers, and its client; for tests.

``python -m lateen.samples.bookinfo.grpc_echo`` serves on port 7070;
``python -m lateen.samples.bookinfo.grpc_echo call TARGET [TIMES]`` calls it. TARGET may be
``xds:///host:port``; GRPC_XDS_BOOTSTRAP then names the bootstrap file.
"""

from __future__ import annotations

import socket
import sys
from concurrent import futures

import grpc

METHOD, HEALTH = "/echo.Echo/Say", "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"


class _Echo(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method == HEALTH:
            return grpc.unary_unary_rpc_method_handler(lambda _, __: SERVING)
        if details.method != METHOD:
            return None
        return grpc.unary_unary_rpc_method_handler(lambda raw, _: raw + b" from " + socket.gethostname().encode())


def serve() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(_Echo(),))
    server.add_insecure_port("0.0.0.0:7070")
    server.start()
    server.wait_for_termination()


def call(target: str, times: int) -> None:
    with grpc.insecure_channel(target) as channel:
        say = channel.unary_unary(METHOD)
        for _ in range(times):
            print(say(b"hello", timeout=20, wait_for_ready=True).decode(), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["call"]:
        call(sys.argv[2], int((sys.argv[3:] or ["1"])[0]))
    else:
        serve()
