"""The rules of VirtualService between its fields."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.api import networking as n
from lateen.api.validate import scalars as s
from lateen.api.validate.common import destination
from lateen.api.validate.findings import Finding, Findings, no, warn
from lateen.api.validate.unreachable import unreachable
from lateen.kit.jsons import Json

MESH = "mesh"
METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
RETRY_ON = {
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
}
MAX_BODY = 1 << 20


def virtual_service(vs: n.VirtualService, meta: Json) -> Findings:
    delegate = not vs.hosts
    if delegate and vs.gateways:
        yield no("spec.gateways", "delegate virtual service must have no gateways specified")
    if delegate and (vs.tls or vs.tcp):
        yield no("spec", "delegate virtual service can only have http routes")
    mesh = not vs.gateways or MESH in vs.gateways
    yield from _gateways(vs.gateways, "spec.gateways")
    yield from _hosts(vs.hosts, mesh)
    if not (vs.http or vs.tls or vs.tcp):
        yield no("spec", "http, tcp or tls must be provided in virtual service")
    for i, http in enumerate(vs.http):
        yield from http_route(
            http, f"spec.http[{i}]", delegate, mesh and not delegate and MESH in (vs.gateways or (MESH,))
        )
    gateway_only = bool(vs.gateways) and MESH not in vs.gateways
    for i, tls in enumerate(vs.tls):
        yield from _tls(tls, f"spec.tls[{i}]", vs.hosts, gateway_only)
    for i, tcp in enumerate(vs.tcp):
        yield from _tcp(tcp, f"spec.tcp[{i}]")
    yield from s.export_to(str(meta.get("namespace") or ""), vs.export_to, service_entry=False)
    for rule, reason in unreachable(vs).unused:
        yield warn(rule, reason)


def _hosts(hosts: tuple[str, ...], mesh: bool) -> Findings:
    seen: set[str] = set()
    for i, host in enumerate(hosts):
        at = f"spec.hosts[{i}]"
        if host == "*" and mesh:
            yield no(at, "wildcard host * is not allowed for virtual services bound to the mesh gateway")
        if not s.is_ip(host):
            yield from s.wildcard_domain(host, at)
        if host in seen:
            yield no(at, f'duplicate host in virtual service: "{host}"')
        seen.add(host)
    for i, host in enumerate(hosts):
        wider = [w for w in seen if w != host and w.startswith("*") and w != "*" and host.endswith(w[1:])]
        if wider:
            yield no(f"spec.hosts[{i}]", f'duplicate host in virtual service: "{host}" is covered by "{wider[0]}"')


def _gateways(gateways: tuple[str, ...], path: str) -> Findings:
    for i, name in enumerate(gateways):
        at = f"{path}[{i}]"
        parts = name.split("/")
        if len(parts) == 1:
            found = list(s.fqdn(name, at))
            yield from found
            if not found and "." in name:
                yield warn(at, f'"{name}": using a legacy FQDN for a gateway; write namespace/name')
        elif len(parts) != 2:
            yield no(at, f'"{name}" must be written as namespace/name')
        else:
            namespace, gateway = parts
            if not s._LABEL.fullmatch(namespace):
                yield no(at, f'"{namespace}" is not a namespace')
            if not gateway or any(not s._LABEL.fullmatch(p) for p in gateway.split(".")):
                yield no(at, f'"{gateway}" is not the name of a gateway')


def http_route(http: n.HTTPRoute, at: str, delegate: bool, mesh: bool) -> Findings:
    if http.delegate is not None:
        yield from _root(http, at, delegate)
    else:
        yield from _action(http, at)
    for i, m in enumerate(http.match):
        yield from _match(m, f"{at}.match[{i}]", mesh)
        if delegate:
            yield from _delegate_match(m, f"{at}.match[{i}]")
    yield from _headers(http.headers, f"{at}.headers")
    yield from _cors(http.cors_policy, f"{at}.corsPolicy")
    yield from _fault(http.fault, f"{at}.fault")
    yield from _mirrors(http, at)
    yield from s.duration(http.timeout if http.timeout and http.timeout.nanoseconds else None, f"{at}.timeout")
    yield from _retries(http.retries, f"{at}.retries")
    yield from _rewrite(http, at)
    yield from _destinations(http, at)
    yield from _authorities(http, at)


def _root(http: n.HTTPRoute, at: str, delegate: bool) -> Findings:
    if delegate:
        yield no(f"{at}.delegate", "a delegate cannot delegate")
    if http.delegate and not http.delegate.name:
        yield no(f"{at}.delegate.name", "must be specified")
    for field, value in (
        ("route", http.route),
        ("redirect", http.redirect),
        ("directResponse", http.direct_response),
    ):
        if value:
            yield no(f"{at}.{field}", f"root HTTP route must not specify {field}: its delegate does")


def _delegate_match(m: n.HTTPMatchRequest, at: str) -> Findings:
    if m.gateways:
        yield no(f"{at}.gateways", "a delegate must not match on gateways")


def _action(http: n.HTTPRoute, at: str) -> Findings:
    given = [
        k
        for k, v in (("route", http.route), ("redirect", http.redirect), ("directResponse", http.direct_response))
        if v
    ]
    if not given:
        yield no(at, "HTTP route, redirect or direct_response is required")
    elif len(given) > 1:
        yield no(at, f"HTTP route cannot contain both {' and '.join(given)}")
    for name, value in (("redirect", http.redirect), ("directResponse", http.direct_response)):
        if value and http.fault:
            yield no(f"{at}.fault", f"HTTP route cannot contain both fault and {name}")
        if value and http.rewrite:
            yield no(f"{at}.rewrite", f"HTTP route rule cannot contain both rewrite and {name}")
    if r := http.redirect:
        yield from _redirect(r, http, f"{at}.redirect")
    if d := http.direct_response:
        yield from s.status(d.status, f"{at}.directResponse.status")
        if d.status == 600:
            yield no(f"{at}.directResponse.status", "HTTP status 600 is not in the range 200..599")
        body = (d.body.string or d.body.bytes or "") if d.body else ""
        if len(body.encode()) > MAX_BODY:
            yield no(f"{at}.directResponse.body", f"response body size {len(body)} exceeds limit {MAX_BODY}")
        elif len(body) > 100 * 1024:
            yield warn(f"{at}.directResponse.body", "large response bodies can impact proxy performance")


def _redirect(r: n.HTTPRedirect, http: n.HTTPRoute, at: str) -> Findings:
    if not any((r.uri, r.authority, r.port, r.scheme, r.derive_port, r.prefix_rewrite)):
        yield no(at, "redirect must specify URI, authority, scheme, port or prefix_rewrite")
    if r.uri and r.prefix_rewrite:
        yield no(at, "uri and prefix_rewrite are mutually exclusive in redirect")
    if r.prefix_rewrite and any(m.uri and m.uri.prefix is None for m in http.match):
        yield no(f"{at}.prefixRewrite", "prefix_rewrite requires a match on a URI prefix")
    if r.redirect_code and not 300 <= r.redirect_code <= 399:
        yield no(f"{at}.redirectCode", f"{r.redirect_code} is not a redirect code of 300 to 399")
    if r.scheme and r.scheme not in ("http", "https"):
        yield no(f"{at}.scheme", f'"{r.scheme}" is not http or https')
    if r.port is not None:
        yield from s.port(r.port, f"{at}.port")


def _destinations(http: n.HTTPRoute, at: str) -> Findings:
    total = 0
    for i, r in enumerate(http.route):
        where = f"{at}.route[{i}]"
        yield from destination(r.destination, f"{where}.destination")
        yield from _headers(r.headers, f"{where}.headers")
        if (r.weight or 0) < 0:
            yield no(f"{where}.weight", "weight must not be negative")
        total += r.weight or 0
    if len(http.route) > 1 and not total:
        yield no(f"{at}.route", "total destination weight = 0")
    if len(http.route) == 1 and http.route[0].weight == 0:
        yield warn(f"{at}.route[0].weight", "a single destination with weight 0 gets all requests")


def _headers(headers: n.Headers | None, at: str) -> Findings:
    for side, ops in (("request", headers.request), ("response", headers.response)) if headers else ():
        for field, pairs in (("set", ops.set), ("add", ops.add)) if ops else ():
            for name, value in pairs.items():
                yield from _operated(name, f"{at}.{side}.{field}[{name}]", authority=side == "request")
                yield from s.header_value(value, f"{at}.{side}.{field}[{name}]")
        for i, name in enumerate(ops.remove if ops else ()):
            yield from _operated(name, f"{at}.{side}.remove[{i}]", authority=False)


def _is_authority(name: str) -> bool:
    return name.lower() in (":authority", "host")


def _operated(name: str, at: str, authority: bool) -> Findings:
    """The name of a header that is set, added or removed; only ``authority`` may be changed of those that route."""
    if not name:
        yield no(at, "header name cannot be empty")
    elif authority and _is_authority(name):
        return
    elif name.startswith(":") or name.lower() == "host":
        yield no(at, f'header "{name}" cannot be changed: names with ":" in front and "host" belong to the proxy')
    elif any(c.isspace() or ord(c) < 32 for c in name):
        yield no(at, f'header name "{name}" is not a valid header name')


def _authorities(http: n.HTTPRoute, at: str) -> Findings:
    """The authority can be changed only once."""
    for i, r in enumerate(http.route or (None,)):
        given = [http.rewrite.authority] if http.rewrite and http.rewrite.authority else []
        for headers in (http.headers, r.headers if r else None):
            if headers and headers.request:
                given += [v for k, v in headers.request.set.items() if _is_authority(k)]
        if len(given) > 1:
            yield no(
                f"{at}.route[{i}]", f"authority header cannot be set multiple times: {', '.join(map(repr, given))}"
            )


def _string_match(m: n.StringMatch | None, at: str, prefix: bool = True) -> Findings:
    """``prefix``: whether an empty prefix, which matches everything, is allowed."""
    if m is None:
        return
    given = [k for k in ("exact", "prefix", "regex") if getattr(m, k) is not None]
    if len(given) > 1:
        yield no(at, f"has {' and '.join(given)}; give only one")
    if m.regex == "":
        yield no(f"{at}.regex", "regex string match should not be empty")
    if m.prefix == "" and not prefix:
        yield no(f"{at}.prefix", "prefix string match should not be empty")
    if m.regex and m.regex != "*":
        yield from s.regex(m.regex, f"{at}.regex")


def _match(m: n.HTTPMatchRequest, at: str, mesh: bool) -> Findings:
    for where, given in ((f"{at}.headers", m.headers), (f"{at}.withoutHeaders", m.without_headers)):
        for name, match in given.items():
            yield from _match_header(name, f"{where}[{name}]", mesh)
            yield from _string_match(match, f"{where}[{name}]", prefix=False)
    for name, match in m.query_params.items():
        if not name:
            yield no(f"{at}.queryParams", "a query parameter's name must not be empty")
        yield from _string_match(match, f"{at}.queryParams[{name}]")
    for field in ("uri", "scheme", "method", "authority"):
        yield from _string_match(getattr(m, field), f"{at}.{field}")
    if m.port is not None and m.port:
        yield from s.port(m.port, f"{at}.port")
    yield from s.labels(m.source_labels, f"{at}.sourceLabels")
    yield from _gateways(m.gateways, f"{at}.gateways")
    if m.source_namespace:
        yield from s.fqdn(m.source_namespace, f"{at}.sourceNamespace")


def _match_header(name: str, at: str, mesh: bool) -> Findings:
    if name.startswith(s.JWT_CLAIM):
        if mesh:
            yield no(at, "JWT claim based routing is only supported for gateways; name them in spec.gateways")
    elif not name:
        yield no(at, "header name cannot be empty")
    elif not name.strip(":") or ":" in name[1:]:
        yield no(at, f'header name "{name}" is not a valid header name')


def _cors(cors: n.CorsPolicy | None, at: str) -> Findings:
    if cors is None:
        return
    for i, origin in enumerate(cors.allow_origins):
        yield from _string_match(origin, f"{at}.allowOrigins[{i}]", prefix=False)
        if origin.exact is None and origin.prefix is None and origin.regex is None:
            yield no(f"{at}.allowOrigins[{i}]", "give one of exact, prefix, regex")
        if origin.exact == "":
            yield no(f"{at}.allowOrigins[{i}].exact", "must not be empty")
    for i, method in enumerate(cors.allow_methods):
        if method not in METHODS and method != "*":
            yield no(f"{at}.allowMethods[{i}]", f'"{method}" is not a supported HTTP method')
    for field, names in (("allowHeaders", cors.allow_headers), ("exposeHeaders", cors.expose_headers)):
        for i, name in enumerate(names):
            if name != "*":
                yield from s.header_name(name, f"{at}.{field}[{i}]")
    if cors.max_age:
        yield from s.duration(cors.max_age if cors.max_age.nanoseconds else None, f"{at}.maxAge")
        if cors.max_age.nanoseconds % 10**9:
            yield no(f"{at}.maxAge", "max_age duration is accurate only to seconds precision")


def _fault(fault: n.HTTPFaultInjection | None, at: str) -> Findings:
    if fault is None:
        return
    if not fault.delay and not fault.abort:
        yield no(at, "HTTP fault injection must have an abort and/or a delay")
    if a := fault.abort:
        yield from _percentage(a.percentage, f"{at}.abort.percentage")
        given = [k for k in ("httpStatus", "grpcStatus", "http2Error") if getattr(a, _SNAKE[k]) is not None]
        if not given:
            yield no(f"{at}.abort", "give one of httpStatus, grpcStatus")
        if a.http_status is not None:
            yield from s.status(a.http_status, f"{at}.abort.httpStatus")
        if a.grpc_status is not None and a.grpc_status not in n.GRPC_STATUS:
            yield no(f"{at}.abort.grpcStatus", f'"{a.grpc_status}" is not a supported gRPC status')
        if a.http2_error is not None:
            yield no(f"{at}.abort.http2Error", "HTTP/2 abort fault injection is not supported")
    if d := fault.delay:
        yield from _percentage(d.percentage, f"{at}.delay.percentage")
        if d.percent is not None:
            yield from s.percent(d.percent, f"{at}.delay.percent")
            yield warn(f"{at}.delay.percent", "percent is deprecated, use percentage")
        if d.exponential_delay is not None:
            yield no(f"{at}.delay.exponentialDelay", "exponential delay is not supported")
        if d.fixed_delay is None and d.exponential_delay is None:
            yield no(f"{at}.delay", "a delay needs fixedDelay")
        yield from s.duration(d.fixed_delay, f"{at}.delay.fixedDelay")


_SNAKE = {"httpStatus": "http_status", "grpcStatus": "grpc_status", "http2Error": "http2_error"}


def _percentage(p: n.Percent | None, at: str) -> Findings:
    if p is None:
        return
    if not 0 <= p.value <= 100:
        yield no(f"{at}.value", f"percentage {p.value:g} is not in the range 0..100")
    elif 0 < p.value < 0.0001:
        yield no(f"{at}.value", f"percentage {p.value:g} is less than the smallest possible, 0.0001")


def _mirrors(http: n.HTTPRoute, at: str) -> Findings:
    if http.mirror and http.mirrors:
        yield no(at, "HTTP route cannot contain both mirror and mirrors")
    if http.mirror:
        yield from destination(http.mirror, f"{at}.mirror")
    old = http.mirror_percent if http.mirror_percent is not None else http.mirror_percent_old
    if old is not None:
        if old > 100:
            yield no(f"{at}.mirrorPercent", f"mirror percentage must be at most 100, is {old}")
        yield warn(f"{at}.mirrorPercent", "using deprecated setting mirrorPercent, use mirrorPercentage instead")
    yield from _percentage(http.mirror_percentage, f"{at}.mirrorPercentage")
    for i, m in enumerate(http.mirrors):
        yield from destination(m.destination, f"{at}.mirrors[{i}].destination")
        yield from _percentage(m.percentage, f"{at}.mirrors[{i}].percentage")


def _retries(r: n.HTTPRetry | None, at: str) -> Findings:
    if r is None:
        return
    attempts = r.attempts or 0
    if attempts < 0:
        yield no(f"{at}.attempts", "attempts cannot be negative")
    if attempts == 0 and (r.per_try_timeout is not None or r.retry_on or r.retry_remote_localities is not None):
        yield no(at, "http retry policy configured when attempts are set to 0 (disabled)")
    yield from s.duration(
        r.per_try_timeout if r.per_try_timeout and r.per_try_timeout.nanoseconds else None, f"{at}.perTryTimeout"
    )
    yield from s.duration(r.backoff, f"{at}.backoff")
    for part in filter(None, (p.strip() for p in r.retry_on.split(","))):
        if part not in RETRY_ON and not (part.isdigit() and 100 <= int(part) <= 600):
            yield no(f"{at}.retryOn", f'"{part}" is not a valid retryOn policy')


def _rewrite(http: n.HTTPRoute, route: str) -> Findings:
    w, at = http.rewrite, f"{route}.rewrite"
    if w is None:
        return
    if not w.uri and not w.uri_regex_rewrite and not w.authority:
        yield no(at, "rewrite must specify at least one of URI, uriRegexRewrite or authority")
    if w.uri and w.uri_regex_rewrite:
        yield no(at, "rewrite may only contain one of URI or uriRegexRewrite")
    if r := w.uri_regex_rewrite:
        if not r.match or not r.rewrite:
            yield no(f"{at}.uriRegexRewrite", "requires both match and rewrite")
        yield from s.regex(r.match, f"{at}.uriRegexRewrite.match")


def _tls(tls: n.TLSRoute, at: str, hosts: tuple[str, ...], gateway_only: bool) -> Findings:
    if not tls.match:
        yield no(f"{at}.match", "TLS match must have at least one match condition")
    for i, m in enumerate(tls.match):
        where = f"{at}.match[{i}]"
        if not m.sni_hosts:
            yield no(f"{where}.sniHosts", "TLS match must have at least one SNI host")
        for j, sni in enumerate(m.sni_hosts):
            yield from _sni(sni, f"{where}.sniHosts[{j}]", hosts, gateway_only)
        yield from _l4(m, where)
    if not tls.route:
        yield no(f"{at}.route", "TLS route is required")
    yield from _weights(tls.route, f"{at}.route")


def _sni(sni: str, at: str, hosts: tuple[str, ...], gateway_only: bool) -> Findings:
    found: list[Finding] = []
    if not (gateway_only and sni.startswith("outbound_.")):
        found = list(s.wildcard_domain(sni, at))
    yield from found
    if not found and not any(_covers(h, sni) for h in hosts):
        yield no(
            at, f'SNI host "{sni}" is not a compatible subset of any of the virtual service hosts: {", ".join(hosts)}'
        )


def _covers(host: str, sni: str) -> bool:
    return host == "*" or host == sni or (host.startswith("*") and sni.removeprefix("*").endswith(host[1:]))


def _l4(m: n.TLSMatchAttributes | n.L4MatchAttributes, at: str) -> Findings:
    for i, subnet in enumerate(m.destination_subnets):
        yield from s.cidr(subnet, f"{at}.destinationSubnets[{i}]")
    if m.port:
        yield from s.port(m.port, f"{at}.port")
    yield from s.labels(m.source_labels, f"{at}.sourceLabels")
    yield from _gateways(m.gateways, f"{at}.gateways")
    if isinstance(m, n.L4MatchAttributes) and m.source_subnet:
        yield from s.cidr(m.source_subnet, f"{at}.sourceSubnet")


def _tcp(tcp: n.TCPRoute, at: str) -> Findings:
    for i, m in enumerate(tcp.match):
        yield from _l4(m, f"{at}.match[{i}]")
    if not tcp.route:
        yield no(f"{at}.route", "TCP route is required")
    yield from _weights(tcp.route, f"{at}.route")


def _weights(routes: tuple[n.RouteDestination, ...], at: str) -> Iterator[Finding]:
    for i, r in enumerate(routes):
        yield from destination(r.destination, f"{at}[{i}].destination")
        if (r.weight or 0) < 0:
            yield no(f"{at}[{i}].weight", "weight must not be negative")
    if len(routes) > 1 and not sum(r.weight or 0 for r in routes):
        yield no(at, "total destination weight = 0")
