"""Parts of Istio's MeshConfig that are objects of their own: providers of external authorization."""

from __future__ import annotations

from lateen.api.config import Config, Duration


class RequestBody(Config):
    max_request_bytes: int = 0
    allow_partial_message: bool = False
    pack_as_bytes: bool = False


class ExtAuthzGrpc(Config):
    service: str
    port: int
    timeout: Duration | None = None
    fail_open: bool = False
    clear_route_cache: bool = False
    status_on_error: str = ""
    include_request_body_in_check: RequestBody | None = None


class ExtAuthzHttp(Config):
    service: str
    port: int
    timeout: Duration | None = None
    path_prefix: str = ""
    fail_open: bool = False
    clear_route_cache: bool = False
    status_on_error: str = ""
    include_headers_in_check: tuple[str, ...] = ()
    include_request_headers_in_check: tuple[str, ...] = ()
    include_additional_headers_in_check: dict[str, str] = {}
    include_request_body_in_check: RequestBody | None = None
    headers_to_upstream_on_allow: tuple[str, ...] = ()
    headers_to_downstream_on_deny: tuple[str, ...] = ()
    headers_to_downstream_on_allow: tuple[str, ...] = ()


class ExtensionProvider(Config):
    name: str
    envoy_ext_authz_grpc: ExtAuthzGrpc | None = None
    envoy_ext_authz_http: ExtAuthzHttp | None = None
