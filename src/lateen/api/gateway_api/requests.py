"""Routes for requests: https://gateway-api.sigs.k8s.io/reference/spec/#httproute and #grpcroute"""

from __future__ import annotations

from typing import Annotated, Literal

from lateen.api.config import Config, Defaulted, Duration, Limits
from lateen.api.gateway_api.common import (
    BackendObjectReference,
    BackendRef,
    CommonRouteSpec,
    Experimental,
    HeaderName,
    Hostname,
    LocalObjectReference,
    PortNumber,
    PreciseHostname,
    SectionName,
)

Interval = Annotated[
    Duration, Limits(pattern="^([0-9]{1,5}(h|m|s|ms)){1,4}$", says="a duration of whole numbers, like 10s or 1m30s")
]
Text = Annotated[str, Limits(max_length=1024)]
HeaderValue = Annotated[str, Limits(min_length=1, max_length=4096)]
Method = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]


class PathMatch(Defaulted, kw_only=True):
    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: Text = "/"


class HeaderMatch(Defaulted, kw_only=True):
    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: HeaderName
    value: HeaderValue


class QueryParamMatch(Defaulted, kw_only=True):
    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: HeaderName
    value: Annotated[str, Limits(min_length=1, max_length=1024)]


class HTTPRouteMatch(Defaulted, kw_only=True):
    path: PathMatch = PathMatch()
    headers: Annotated[tuple[HeaderMatch, ...], Limits(max_items=16)] = ()
    query_params: Annotated[tuple[QueryParamMatch, ...], Limits(max_items=16)] = ()
    method: Method | None = None


class HTTPHeader(Config):
    name: HeaderName
    value: HeaderValue


class HeaderFilter(Defaulted, kw_only=True):
    set: Annotated[tuple[HTTPHeader, ...], Limits(max_items=16)] = ()
    add: Annotated[tuple[HTTPHeader, ...], Limits(max_items=16)] = ()
    remove: Annotated[tuple[str, ...], Limits(max_items=16)] = ()


class PathModifier(Defaulted, kw_only=True):
    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    replace_full_path: Text | None = None
    replace_prefix_match: Text | None = None


class RedirectFilter(Defaulted, kw_only=True):
    scheme: Literal["http", "https"] | None = None
    hostname: PreciseHostname | None = None
    path: PathModifier | None = None
    port: PortNumber | None = None
    status_code: Literal[301, 302, 303, 307, 308] = 302


class RewriteFilter(Defaulted, kw_only=True):
    hostname: PreciseHostname | None = None
    path: PathModifier | None = None


class Fraction(Defaulted, kw_only=True):
    numerator: Annotated[int, Limits(minimum=0)]
    denominator: Annotated[int, Limits(minimum=1)] = 100


class MirrorFilter(Defaulted, kw_only=True):
    backend_ref: BackendObjectReference
    percent: Annotated[int, Limits(minimum=0, maximum=100)] | None = None
    fraction: Fraction | None = None


Origin = Annotated[
    str,
    Limits(
        pattern=r"(^\*$)|(^(http(s)?):\/\/(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)(:([0-9]{1,5}))?)$)",
        min_length=1,
        max_length=253,
        says="*, or scheme://host with an optional port, where the host may begin with a wildcard",
    ),
]


class CORSFilter(Defaulted, kw_only=True):
    allow_origins: Annotated[tuple[Origin, ...], Limits(max_items=64)] = ()
    allow_credentials: bool | None = None
    allow_methods: Annotated[tuple[Literal[Method, "*"], ...], Limits(max_items=9)] = ()
    allow_headers: Annotated[tuple[HeaderName, ...], Limits(max_items=64)] = ()
    expose_headers: Annotated[tuple[HeaderName, ...], Limits(max_items=64)] = ()
    max_age: Annotated[int, Limits(minimum=1)] = 5


class RouteFilter(Defaulted, kw_only=True):
    """``type`` says which of the fields is set."""

    type: Literal[
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestMirror",
        "RequestRedirect",
        "URLRewrite",
        "ExtensionRef",
        "CORS",
    ]
    request_header_modifier: HeaderFilter | None = None
    response_header_modifier: HeaderFilter | None = None
    request_mirror: MirrorFilter | None = None
    request_redirect: RedirectFilter | None = None
    url_rewrite: RewriteFilter | None = None
    cors: CORSFilter | None = None
    extension_ref: LocalObjectReference | None = None


class GRPCRouteFilter(Defaulted, kw_only=True):
    type: Literal["ResponseHeaderModifier", "RequestHeaderModifier", "RequestMirror", "ExtensionRef"]
    request_header_modifier: HeaderFilter | None = None
    response_header_modifier: HeaderFilter | None = None
    request_mirror: MirrorFilter | None = None
    extension_ref: LocalObjectReference | None = None


Filters = Annotated[tuple[RouteFilter, ...], Limits(max_items=16)]
GRPCFilters = Annotated[tuple[GRPCRouteFilter, ...], Limits(max_items=16)]


class HTTPBackendRef(BackendRef, kw_only=True):
    filters: Filters = ()


class GRPCBackendRef(BackendRef, kw_only=True):
    filters: GRPCFilters = ()


class RouteTimeouts(Defaulted, kw_only=True):
    request: Interval | None = None
    backend_request: Interval | None = None


class RouteRetry(Defaulted, kw_only=True):
    codes: tuple[Annotated[int, Limits(minimum=400, maximum=599)], ...] = ()
    attempts: Annotated[int, Limits(minimum=1)] | None = None
    backoff: Interval | None = None


class CookieConfig(Defaulted, kw_only=True):
    lifetime_type: Literal["Permanent", "Session"] = "Session"


class SessionPersistence(Defaulted, kw_only=True):
    session_name: Annotated[str, Limits(max_length=128)] | None = None
    absolute_timeout: Interval | None = None
    type: Literal["Cookie", "Header"] = "Cookie"
    cookie_config: CookieConfig | None = None


class HTTPRouteRule(Defaulted, kw_only=True):
    name: SectionName | None = None
    matches: Annotated[tuple[HTTPRouteMatch, ...], Limits(max_items=64)] = (HTTPRouteMatch(),)
    filters: Filters = ()
    backend_refs: Annotated[tuple[HTTPBackendRef, ...], Limits(max_items=16)] = ()
    timeouts: RouteTimeouts | None = None
    retry: Annotated[RouteRetry | None, Experimental] = None
    session_persistence: Annotated[SessionPersistence | None, Experimental] = None


class HTTPRoute(CommonRouteSpec, kw_only=True):
    hostnames: Annotated[tuple[Hostname, ...], Limits(max_items=16)] = ()
    rules: Annotated[tuple[HTTPRouteRule, ...], Limits(min_items=1, max_items=16)] = (HTTPRouteRule(),)


class GRPCMethodMatch(Defaulted, kw_only=True):
    type: Literal["Exact", "RegularExpression"] = "Exact"
    service: Text | None = None
    method: Text | None = None


class GRPCRouteMatch(Defaulted, kw_only=True):
    method: GRPCMethodMatch | None = None
    headers: Annotated[tuple[HeaderMatch, ...], Limits(max_items=16)] = ()


class GRPCRouteRule(Defaulted, kw_only=True):
    name: SectionName | None = None
    matches: Annotated[tuple[GRPCRouteMatch, ...], Limits(max_items=64)] = ()
    filters: GRPCFilters = ()
    backend_refs: Annotated[tuple[GRPCBackendRef, ...], Limits(max_items=16)] = ()
    session_persistence: Annotated[SessionPersistence | None, Experimental] = None


class GRPCRoute(CommonRouteSpec, kw_only=True):
    hostnames: Annotated[tuple[Hostname, ...], Limits(max_items=16)] = ()
    rules: Annotated[tuple[GRPCRouteRule, ...], Limits(max_items=16)] = ()
