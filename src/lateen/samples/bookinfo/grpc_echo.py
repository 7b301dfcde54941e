"""A gRPC service that reports which pod answers and who asks, and its client; for tests.

``python -m lateen.samples.bookinfo.grpc_echo`` serves on port 7070, and as the mesh says where GRPC_XDS_BOOTSTRAP names
a bootstrap file; ``python -m lateen.samples.bookinfo.grpc_echo call TARGET [TIMES]`` calls it; ``who TARGET`` prints
the identity of the caller that it sees. TARGET may be ``xds:///host:port``, for which a bootstrap file is needed.
"""

from __future__ import annotations

import os
import socket
import sys
from concurrent import futures

import grpc
from grpc import experimental

METHOD, WHO, HEALTH = "/echo.Echo/Say", "/echo.Echo/Who", "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"


class _Echo(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method == HEALTH:
            return grpc.unary_unary_rpc_method_handler(lambda _, __: SERVING)
        if details.method == WHO:
            return grpc.unary_unary_rpc_method_handler(lambda _, context: _caller(context))
        if details.method != METHOD:
            return None
        return grpc.unary_unary_rpc_method_handler(lambda raw, _: raw + b" from " + socket.gethostname().encode())


def _caller(context: grpc.ServicerContext) -> bytes:
    """The caller's identity, by its certificate or what the sidecar says of that; empty without one."""
    said = dict(context.invocation_metadata()).get("x-forwarded-client-cert", "")
    shown = [i for i in context.peer_identities() or () if i.startswith(b"spiffe://")]
    return bytes(shown[0]) if shown else str(said).encode()


def serve() -> None:
    meshed = "GRPC_XDS_BOOTSTRAP" in os.environ
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(_Echo(),), xds=meshed)
    if meshed:
        server.add_secure_port("0.0.0.0:7070", grpc.xds_server_credentials(grpc.insecure_server_credentials()))
    else:
        server.add_insecure_port("0.0.0.0:7070")
    server.start()
    server.wait_for_termination()


def _channel(target: str) -> grpc.Channel:
    if not target.startswith("xds:"):
        return grpc.insecure_channel(target)
    fallback = experimental.insecure_channel_credentials()
    return grpc.secure_channel(target, grpc.xds_channel_credentials(fallback))


def call(target: str, times: int, method: str = METHOD) -> None:
    with _channel(target) as channel:
        ask = channel.unary_unary(method)
        for _ in range(times):
            print(ask(b"hello", timeout=20, wait_for_ready=True).decode(), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["call", target, *times]:
            call(target, int((times or ["1"])[0]))
        case ["who", target]:
            call(target, 1, WHO)
        case _:
            serve()
