"""HTTPRoute, GRPCRoute, TLSRoute, TCPRoute and UDPRoute."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lateen.api.gateway_api import common, connections
from lateen.api.gateway_api import requests as g
from lateen.api.validate import scalars as s
from lateen.api.validate.findings import Findings, no
from lateen.api.validate.gateway_api import sessions
from lateen.kit.jsons import Json

MOST_MATCHES = 128
REDIRECT, REWRITE = "RequestRedirect", "URLRewrite"
FIELDS = {
    "RequestHeaderModifier": "request_header_modifier",
    "ResponseHeaderModifier": "response_header_modifier",
    "RequestMirror": "request_mirror",
    "RequestRedirect": "request_redirect",
    "URLRewrite": "url_rewrite",
    "CORS": "cors",
    "ExtensionRef": "extension_ref",
}
"""Type of a filter -> the field that has its settings."""
REPEATABLE = ("RequestMirror", "ExtensionRef")
_PATH = re.compile(r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+", re.ASCII)
_SERVICE = re.compile(r"\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*", re.ASCII | re.IGNORECASE)
_METHOD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*", re.ASCII)
AnyFilter = g.RouteFilter | g.GRPCRouteFilter


def http_route(route: g.HTTPRoute, _: Json) -> Findings:
    yield from _parents(route.parent_refs)
    yield from _number_of_matches(len(r.matches) for r in route.rules)
    yield from _names(route.rules)
    for i, rule in enumerate(route.rules):
        yield from _http_rule(rule, f"spec.rules[{i}]")


def grpc_route(route: g.GRPCRoute, _: Json) -> Findings:
    yield from _parents(route.parent_refs)
    yield from _number_of_matches(len(r.matches) for r in route.rules)
    yield from _names(route.rules)
    for i, rule in enumerate(route.rules):
        at = f"spec.rules[{i}]"
        for j, m in enumerate(rule.matches):
            if m.method:
                yield from _grpc_method(m.method, f"{at}.matches[{j}].method")
            yield from _regexes(m.headers, f"{at}.matches[{j}].headers")
        yield from _filters(rule.filters, f"{at}.filters")
        for j, b in enumerate(rule.backend_refs):
            yield from _backend(b, f"{at}.backendRefs[{j}]")
            yield from _filters(b.filters, f"{at}.backendRefs[{j}].filters")
        yield from sessions.persistence(rule.session_persistence, f"{at}.sessionPersistence")


def tls_route(route: connections.TLSRoute, meta: Json) -> Findings:
    yield from plain_route(route, meta)
    for i, host in enumerate(route.hostnames):
        if s.is_ip(host):
            yield no(f"spec.hostnames[{i}]", f"Hostnames cannot contain an IP: {host} is one")


def plain_route(route: connections.TCPRoute | connections.UDPRoute | connections.TLSRoute, _: Json) -> Findings:
    yield from _parents(route.parent_refs)
    for i, rule in enumerate(route.rules):
        for j, b in enumerate(rule.backend_refs):
            yield from _backend(b, f"spec.rules[{i}].backendRefs[{j}]")


# --- parents ---------------------------------------------------------------------------------------------------


def _parents(parents: Sequence[common.ParentReference]) -> Findings:
    """References to the same parent must differ in port or section."""
    seen: dict[tuple[str, str, str | None, str], list[tuple[str | None, int | None]]] = {}
    for i, p in enumerate(parents):
        others = seen.setdefault((p.group, p.kind, p.namespace, p.name), [])
        own = (p.section_name, p.port)
        if own in others:
            says = "sectionName or port must be unique when parentRefs includes 2 or more references to the same parent"
            yield no(f"spec.parentRefs[{i}]", says)
        elif others and (None, None) in (own, *others):
            says = (
                "sectionName or port must be specified when parentRefs includes 2 or more references to the same parent"
            )
            yield no(f"spec.parentRefs[{i}]", says)
        others.append(own)


# --- rules -----------------------------------------------------------------------------------------------------


def _number_of_matches(each: Iterable[int]) -> Findings:
    if (total := sum(each)) > MOST_MATCHES:
        yield no(
            "spec.rules", f"the total number of matches across all rules must be at most {MOST_MATCHES}, is {total}"
        )


def _names(rules: Sequence[g.HTTPRouteRule | g.GRPCRouteRule]) -> Findings:
    seen = set()
    for i, rule in enumerate(rules):
        if rule.name in seen:
            yield no(
                f"spec.rules[{i}].name", f'Rule name must be unique within the route: "{rule.name}" is there twice'
            )
        if rule.name:
            seen.add(rule.name)


def _http_rule(rule: g.HTTPRouteRule, at: str) -> Findings:
    for i, m in enumerate(rule.matches):
        yield from _path(m.path, f"{at}.matches[{i}].path")
        yield from _regexes(m.headers, f"{at}.matches[{i}].headers")
        yield from _regexes(m.query_params, f"{at}.matches[{i}].queryParams")
    yield from _filters(rule.filters, f"{at}.filters")
    if rule.backend_refs and any(f.request_redirect for f in rule.filters):
        yield no(f"{at}.backendRefs", "RequestRedirect filter must not be used together with backendRefs")
    yield from _prefix_replaced(rule, rule.filters, f"{at}.filters")
    for i, b in enumerate(rule.backend_refs):
        where = f"{at}.backendRefs[{i}]"
        yield from _backend(b, where)
        yield from _filters(b.filters, f"{where}.filters")
        yield from _prefix_replaced(rule, b.filters, f"{where}.filters")
    yield from _timeouts(rule.timeouts, f"{at}.timeouts")
    yield from _retry(rule.retry, f"{at}.retry")
    yield from sessions.persistence(rule.session_persistence, f"{at}.sessionPersistence")


def _path(m: g.PathMatch, at: str) -> Findings:
    path = m.value
    if m.type == "RegularExpression":
        yield from s.regex(path, f"{at}.value")
        return
    of = "when type one of ['Exact', 'PathPrefix']"
    if not path.startswith("/"):
        yield no(f"{at}.value", f"value must be an absolute path and start with '/' {of}")
    for part in ("//", "/./", "/../", "%2f", "%2F", "#"):
        if part in path:
            yield no(f"{at}.value", f"must not contain '{part}' {of}")
    for end in ("/..", "/."):
        if path.endswith(end):
            yield no(f"{at}.value", f"must not end with '{end}' {of}")
    if not _PATH.fullmatch(path):
        yield no(
            f"{at}.value", f"must only contain characters of a path for types ['Exact', 'PathPrefix']: \"{path[:80]}\""
        )


def _regexes(matches: Sequence[g.HeaderMatch | g.QueryParamMatch], at: str) -> Findings:
    seen = set()
    for i, m in enumerate(matches):
        if m.type == "RegularExpression":
            yield from s.regex(m.value, f"{at}[{i}].value")
        if m.name in seen:
            yield no(f"{at}[{i}].name", f'"{m.name}" is there twice')
        seen.add(m.name)


def _grpc_method(m: g.GRPCMethodMatch, at: str) -> Findings:
    if not m.service and not m.method:
        yield no(at, "One or both of 'service' or 'method' must be specified")
    for field, value, allowed in (("service", m.service, _SERVICE), ("method", m.method, _METHOD)):
        if not value:
            continue
        if m.type == "RegularExpression":
            yield from s.regex(value, f"{at}.{field}")
        elif not allowed.fullmatch(value):
            yield no(f"{at}.{field}", f'{field} must only contain valid characters: "{value[:80]}" is not a gRPC name')


# --- filters ---------------------------------------------------------------------------------------------------


def _filters(filters: Sequence[AnyFilter], at: str) -> Findings:
    types = [f.type for f in filters]
    if REDIRECT in types and REWRITE in types:
        yield no(at, "May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not both")
    for kind in dict.fromkeys(types):
        if kind not in REPEATABLE and types.count(kind) > 1:
            yield no(at, f"{kind} filter cannot be repeated")
    for i, f in enumerate(filters):
        yield from _filter(f, f"{at}[{i}]")


def _filter(f: AnyFilter, at: str) -> Findings:
    for kind, field in FIELDS.items():
        there = getattr(f, field, None) is not None
        name = _camel(field)
        if there and kind != f.type:
            yield no(f"{at}.{name}", f"filter.{name} must be nil if the filter.type is not {kind}")
        if not there and kind == f.type:
            yield no(f"{at}.{name}", f"filter.{name} must be specified for {kind} filter.type")
    for headers, name in (
        (f.request_header_modifier, "requestHeaderModifier"),
        (f.response_header_modifier, "responseHeaderModifier"),
    ):
        if headers:
            yield from _headers(headers, f"{at}.{name}")
    if f.request_mirror:
        yield from _mirror(f.request_mirror, f"{at}.requestMirror")
    if isinstance(f, g.RouteFilter):
        if f.request_redirect and f.request_redirect.path:
            yield from _modifier(f.request_redirect.path, f"{at}.requestRedirect.path")
        if f.url_rewrite and f.url_rewrite.path:
            yield from _modifier(f.url_rewrite.path, f"{at}.urlRewrite.path")
        if f.cors:
            yield from _cors(f.cors, f"{at}.cors")


def _camel(field: str) -> str:
    head, *rest = field.split("_")
    return head + "".join(r.capitalize() for r in rest)


def _headers(headers: g.HeaderFilter, at: str) -> Findings:
    for field, given in (("set", headers.set), ("add", headers.add)):
        names = [h.name.lower() for h in given]
        for i, h in enumerate(given):
            if names.index(h.name.lower()) < i:
                yield no(f"{at}.{field}[{i}].name", f'"{h.name}" is there twice')
            yield from s.header_value(h.value, f"{at}.{field}[{i}].value")
    for i, name in enumerate(headers.remove):
        yield from s.header_name(name, f"{at}.remove[{i}]")


def _mirror(mirror: g.MirrorFilter, at: str) -> Findings:
    if mirror.percent is not None and mirror.fraction is not None:
        yield no(at, "Only one of percent or fraction may be specified in HTTPRequestMirrorFilter")
    if mirror.fraction and mirror.fraction.numerator > mirror.fraction.denominator:
        yield no(f"{at}.fraction", "numerator must be less than or equal to denominator")
    yield from _backend(mirror.backend_ref, f"{at}.backendRef")


def _modifier(path: g.PathModifier, at: str) -> Findings:
    for kind, field, value in (
        ("ReplaceFullPath", "replaceFullPath", path.replace_full_path),
        ("ReplacePrefixMatch", "replacePrefixMatch", path.replace_prefix_match),
    ):
        if path.type == kind and value is None:
            yield no(f"{at}.{field}", f"{field} must be specified when type is set to '{kind}'")
        if path.type != kind and value is not None:
            yield no(f"{at}.type", f"type must be '{kind}' when {field} is set")


def _cors(cors: g.CORSFilter, at: str) -> Findings:
    for field, given in (
        ("allowOrigins", cors.allow_origins),
        ("allowMethods", cors.allow_methods),
        ("allowHeaders", cors.allow_headers),
        ("exposeHeaders", cors.expose_headers),
    ):
        if field != "exposeHeaders" and "*" in given and len(given) > 1:
            yield no(f"{at}.{field}", f"{field[0].upper()}{field[1:]} cannot contain '*' alongside other values")
        if len(set(given)) < len(given):
            yield no(f"{at}.{field}", "it contains a value twice")


def _prefix_replaced(rule: g.HTTPRouteRule, filters: Sequence[g.RouteFilter], at: str) -> Findings:
    for i, f in enumerate(filters):
        path = (f.request_redirect or f.url_rewrite or g.RewriteFilter()).path
        replaced = path is not None and path.replace_prefix_match is not None
        if replaced and (len(rule.matches) != 1 or rule.matches[0].path.type != "PathPrefix"):
            says = "with path.replacePrefixMatch, exactly one PathPrefix match must be specified"
            yield no(f"{at}[{i}]", f"When using {f.type} filter {says}")


# --- further fields of a rule ----------------------------------------------------------------------------------------


def _backend(b: common.BackendObjectReference, at: str) -> Findings:
    if b.group in ("", "core") and b.kind == "Service" and b.port is None:
        yield no(f"{at}.port", "Must have port for Service reference")


def _timeouts(timeouts: g.RouteTimeouts | None, at: str) -> Findings:
    if timeouts is None or timeouts.request is None or timeouts.backend_request is None:
        return
    whole = timeouts.request.nanoseconds
    if whole and timeouts.backend_request.nanoseconds > whole:
        yield no(f"{at}.backendRequest", "backendRequest timeout cannot be longer than request timeout")


def _retry(retry: g.RouteRetry | None, at: str) -> Findings:
    if retry and retry.backoff and not retry.backoff.nanoseconds:
        yield no(f"{at}.backoff", "the backoff between attempts must be longer than 0s")
