"""The sample authorizer of Istio's task "External Authorization": ``x-ext-authz: allow`` lets a request pass.

``python -m lateen.samples.bookinfo.ext_authz 8000`` is asked over HTTP at this port and over gRPC at port 9000
(https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/auth/v3/external_auth.proto).
"""

from __future__ import annotations

from concurrent import futures

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.auth.v3 import external_auth_pb2 as auth
from envoy.type.v3 import http_status_pb2

from lateen.samples.bookinfo.http import Request, Response, serve

HEADER, RESULT = "x-ext-authz", "x-ext-authz-check-result"
METHOD = "/envoy.service.auth.v3.Authorization/Check"
DENIED = f"denied by ext_authz for not found header `{HEADER}: allow` in the request"
PERMISSION_DENIED, FORBIDDEN = 7, 403
"""As google.rpc.Code, and as the status of a response over HTTP."""


async def over_http(request: Request) -> Response:
    allowed = request.headers.get(HEADER) == "allow"
    print(f"[HTTP][{_word(allowed)}]: {request.method} {request.headers.get('host', '')}{request.path}", flush=True)
    body, status = ("", 200) if allowed else (DENIED, FORBIDDEN)
    return Response(status, body.encode(), "text/plain", {RESULT: _word(allowed)})


def over_grpc(raw: bytes, _: grpc.ServicerContext) -> bytes:
    http = auth.CheckRequest.FromString(raw).attributes.request.http
    allowed = http.headers.get(HEADER) == "allow"
    print(f"[gRPCv3][{_word(allowed)}]: {http.method} {http.host}{http.path}", flush=True)
    header = base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=RESULT, value=_word(allowed)))
    out = auth.CheckResponse()
    if allowed:
        out.ok_response.headers.append(header)
    else:
        out.status.code = PERMISSION_DENIED
        out.denied_response.status.code = http_status_pb2.StatusCode.Value("Forbidden")
        out.denied_response.body = DENIED
        out.denied_response.headers.append(header)
    return bytes(out.SerializeToString())


def _word(allowed: bool) -> str:
    return "allowed" if allowed else "denied"


class _Authorizer(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return grpc.unary_unary_rpc_method_handler(over_grpc) if details.method == METHOD else None


if __name__ == "__main__":
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(_Authorizer(),))
    server.add_insecure_port("[::]:9000")
    server.start()
    print("Starting gRPC server at [::]:9000", flush=True)
    serve(over_http)
