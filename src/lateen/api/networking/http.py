"""Matches and actions for HTTP requests, independent of the kind of route.

Names and meanings are those of https://istio.io/latest/docs/reference/config/networking/virtual-service/.
"""

from __future__ import annotations

from typing import Literal

from lateen.api.config import Config, Duration


class StringMatch(Config):
    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None


class HeaderOperations(Config):
    set: dict[str, str] = {}
    add: dict[str, str] = {}
    remove: tuple[str, ...] = ()


class Headers(Config):
    request: HeaderOperations | None = None
    response: HeaderOperations | None = None


class RequestMatch(Config):
    """Conditions on a request; all of them must hold."""

    uri: StringMatch | None = None
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: dict[str, StringMatch] = {}
    without_headers: dict[str, StringMatch] = {}
    query_params: dict[str, StringMatch] = {}
    ignore_uri_case: bool = False
    stat_prefix: str = ""


class HTTPRedirect(Config):
    uri: str | None = None
    authority: str | None = None
    port: int | None = None
    derive_port: Literal["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"] | None = None
    scheme: str | None = None
    redirect_code: int | None = None
    prefix_rewrite: str | None = None


class HTTPBody(Config):
    string: str | None = None
    bytes: str | None = None


class HTTPDirectResponse(Config):
    status: int
    body: HTTPBody | None = None


class RegexRewrite(Config):
    match: str
    rewrite: str


class HTTPRewrite(Config):
    uri: str | None = None
    authority: str | None = None
    uri_regex_rewrite: RegexRewrite | None = None


class HTTPRetry(Config):
    attempts: int | None = None
    per_try_timeout: Duration | None = None
    retry_on: str = ""
    retry_remote_localities: bool | None = None
    retry_ignore_previous_hosts: bool | None = None
    backoff: Duration | None = None


class Percent(Config):
    value: float = 0.0


class FaultDelay(Config):
    percentage: Percent | None = None
    percent: int | None = None
    fixed_delay: Duration | None = None
    exponential_delay: Duration | None = None


GRPC_STATUS = {
    "OK": 0,
    "CANCELLED": 1,
    "UNKNOWN": 2,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "ABORTED": 10,
    "OUT_OF_RANGE": 11,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "DATA_LOSS": 15,
    "UNAUTHENTICATED": 16,
}
"""https://grpc.github.io/grpc/core/md_doc_statuscodes.html"""


class FaultAbort(Config):
    percentage: Percent | None = None
    http_status: int | None = None
    grpc_status: str | None = None
    http2_error: str | None = None


class HTTPFaultInjection(Config):
    delay: FaultDelay | None = None
    abort: FaultAbort | None = None


class CorsPolicy(Config):
    allow_origin: tuple[str, ...] = ()
    allow_origins: tuple[StringMatch, ...] = ()
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: Duration | None = None
    allow_credentials: bool | None = None
    unmatched_preflights: Literal["UNSPECIFIED", "FORWARD", "IGNORE"] | None = None


class RouteSettings(Config):
    """What happens to requests, apart from their destination."""

    redirect: HTTPRedirect | None = None
    direct_response: HTTPDirectResponse | None = None
    rewrite: HTTPRewrite | None = None
    timeout: Duration | None = None
    retries: HTTPRetry | None = None
    fault: HTTPFaultInjection | None = None
    cors_policy: CorsPolicy | None = None
    headers: Headers | None = None
