"""The rules of a VirtualService's HTTP routes between their fields.

Source: istio.io/istio ``pkg/config/validation/virtualservice.go`` and ``validation.go``. What Envoy would refuse is
refused beyond that.
"""

from __future__ import annotations

import base64
import binascii

from lateen.api import networking as n
from lateen.api.validate import scalars as s
from lateen.api.validate.common import destination
from lateen.api.validate.findings import Findings, hint, no, warn
from lateen.api.validate.http_match import request_match
from lateen.api.validate.http_settings import cors_policy, fault_injection, retries

LARGE_BODY, MAX_BODY = 100 * 1024, 1 << 20
REDIRECTS = (301, 302, 303, 307, 308)


def http_route(http: n.HTTPRoute, at: str, delegate: bool, mesh: tuple[str, ...] | None) -> Findings:
    """``delegate``: the route is lent to other VirtualServices. ``mesh``: as for ``request_match``."""
    if http.delegate is not None and not delegate:
        yield from _root(http, http.delegate, at)
    else:
        if http.delegate is not None:
            yield no(f"{at}.delegate", "delegate HTTP route cannot contain delegate")
        yield from _action(http, at)
    for i, m in enumerate(http.match):
        yield from request_match(m, f"{at}.match[{i}]", mesh)
    yield from _headers(http.headers, f"{at}.headers")
    yield from cors_policy(http.cors_policy, f"{at}.corsPolicy")
    yield from fault_injection(http.fault, f"{at}.fault")
    yield from _mirrors(http, at)
    yield from s.duration(http.timeout, f"{at}.timeout")
    yield from retries(http.retries, f"{at}.retries")
    yield from _rewrite(http, at)
    yield from _destinations(http, at)
    yield from _authorities(http, at)


# --- what happens to requests ----------------------------------------------------------------------------------------


def _root(http: n.HTTPRoute, delegate: n.Delegate, at: str) -> Findings:
    if not delegate.name:
        yield no(f"{at}.delegate.name", "must be specified")
    name = f" {http.name}" if http.name else ""
    for field, value in (("route", http.route), ("redirect", http.redirect)):
        if value:
            yield no(f"{at}.{field}", f"root HTTP route{name} must not specify {field}: its delegate does")
    if http.direct_response:
        yield hint(f"{at}.directResponse", "it has no effect beside delegate, which says what happens to requests")


def _action(http: n.HTTPRoute, at: str) -> Findings:
    actions = (("route", http.route), ("redirect", http.redirect), ("direct_response", http.direct_response))
    given = [name for name, value in actions if value]
    if not given:
        yield no(at, "HTTP route, redirect or direct_response is required")
    elif len(given) > 1:
        kind = "route" if "route" in given else "route rule"
        first, second = given[:2] if "route" in given else ("direct_response", "redirect")
        yield no(at, f"HTTP {kind} cannot contain both {first} and {second}")
    for name, value in actions[1:]:
        if value and http.fault:
            yield no(f"{at}.fault", f"HTTP route cannot contain both fault and {name}")
        if value and http.rewrite:
            yield no(f"{at}.rewrite", f"HTTP route rule cannot contain both rewrite and {name}")
    if r := http.redirect:
        yield from _redirect(r, http, f"{at}.redirect")
    if d := http.direct_response:
        yield from s.status(d.status, f"{at}.directResponse.status")
        yield from _body(d.body, f"{at}.directResponse.body")


def _body(body: n.HTTPBody | None, at: str) -> Findings:
    if body is None:
        return
    if body.string is not None and body.bytes is not None:
        yield no(at, "has string and bytes; give only one")
    try:
        raw = (body.string or "").encode() or base64.b64decode(body.bytes or "", validate=True)
    except binascii.Error:
        yield no(f"{at}.bytes", "it is not Base64")
        return
    if len(raw) > MAX_BODY:
        yield no(at, "large direct_responses may impact control plane performance, must be less than 1MB")
    elif len(raw) > LARGE_BODY:
        yield warn(at, "large direct_responses may impact control plane performance")


def _redirect(r: n.HTTPRedirect, http: n.HTTPRoute, at: str) -> Findings:
    if not any((r.uri, r.authority, r.port is not None, r.scheme, r.derive_port, r.prefix_rewrite)):
        yield no(at, "redirect must specify URI, authority, scheme, or port")
    if r.port is not None and r.derive_port is not None:
        yield no(at, "has port and derivePort; give only one")
    if r.uri and r.prefix_rewrite:
        yield no(at, "redirect may only specify one of uri or prefix_rewrite")
    if r.prefix_rewrite and any(m.uri and m.uri.prefix is None for m in http.match):
        yield no(f"{at}.prefixRewrite", "redirect prefix_rewrite requires all URI matches to use prefix match type")
    if r.redirect_code and not 300 <= r.redirect_code <= 399:
        yield no(f"{at}.redirectCode", f"{r.redirect_code} is not a valid redirect code, must be 3xx")
    elif r.redirect_code and r.redirect_code not in REDIRECTS:
        known = ", ".join(map(str, REDIRECTS))
        yield hint(f"{at}.redirectCode", f"Envoy redirects with 301 instead of {r.redirect_code}; it knows {known}")
    if r.scheme and r.scheme not in ("http", "https"):
        yield no(f"{at}.scheme", f'invalid redirect scheme, must be "http" or "https", is "{r.scheme}"')
    if r.port:
        yield from s.port(r.port, f"{at}.port")


def _rewrite(http: n.HTTPRoute, route: str) -> Findings:
    w, at = http.rewrite, f"{route}.rewrite"
    if w is None:
        return
    if not w.uri and not w.uri_regex_rewrite and not w.authority:
        says = (
            "rewrite must specify at least one of URI, UriRegexRewrite, or authority. Only one of URI or "
            "UriRegexRewrite may be specified"
        )
        yield no(at, says)
    if w.uri and w.uri_regex_rewrite:
        yield no(at, "rewrite may only contain one of URI or UriRegexRewrite")
    if r := w.uri_regex_rewrite:
        if not r.match or not r.rewrite:
            says = "UriRegexRewrite requires both Rewrite and Match fields to be specified"
            yield no(f"{at}.uriRegexRewrite", says)
        yield from s.regex(r.match, f"{at}.uriRegexRewrite.match")


def _destinations(http: n.HTTPRoute, at: str) -> Findings:
    for i, r in enumerate(http.route):
        where = f"{at}.route[{i}]"
        yield from destination(r.destination, f"{where}.destination")
        yield from _headers(r.headers, f"{where}.headers")
    if len(http.route) > 1 and not sum(r.weight or 0 for r in http.route):
        yield no(f"{at}.route", "total destination weight = 0")
    if len(http.route) == 1 and http.route[0].weight == 0:
        yield hint(f"{at}.route[0].weight", "a single destination with weight 0 gets all requests")


def _mirrors(http: n.HTTPRoute, at: str) -> Findings:
    if http.mirror and http.mirrors:
        yield no(at, "HTTP route cannot contain both mirror and mirrors")
    if http.mirror:
        yield from destination(http.mirror, f"{at}.mirror")
    old = http.mirror_percent if http.mirror_percent is not None else http.mirror_percent_old
    if old is not None:
        if old > 100:
            yield no(f"{at}.mirrorPercent", f"mirror_percent must have a max value of 100 (it has {old})")
        says = 'using deprecated setting "mirrorPercent", use "mirrorPercentage" instead'
        yield warn(f"{at}.mirrorPercent", says)
    yield from _share(http.mirror_percentage, "mirror_percentage", f"{at}.mirrorPercentage")
    for i, m in enumerate(http.mirrors):
        if m.destination.host:
            yield from destination(m.destination, f"{at}.mirrors[{i}].destination")
        else:
            yield no(
                f"{at}.mirrors[{i}].destination", "destination is required for mirrors: give the host of a service"
            )
        yield from _share(m.percentage, "mirror percentage", f"{at}.mirrors[{i}].percentage")


def _share(p: n.Percent | None, what: str, at: str) -> Findings:
    if p and p.value > 100:
        yield no(f"{at}.value", f"{what} must have a max value of 100 (it has {p.value:g})")
    elif p and p.value < 0:
        yield no(f"{at}.value", f"{what} must have a min value of 0 (it has {p.value:g})")


# --- headers ---------------------------------------------------------------------------------------------------------


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
    elif name.lower() == "host":
        yield no(at, f'invalid header "{name}": cannot set Host header')
    elif name.startswith(":"):
        yield no(at, f'invalid header "{name}": header cannot have ":" prefix')
    elif any(c.isspace() or ord(c) < 32 for c in name):
        yield no(at, f"header name {name} is not a valid header name")


def _authorities(http: n.HTTPRoute, at: str) -> Findings:
    """What a destination sets is stronger than what its route sets; at one place it can be set only once."""
    for where, headers, rewrite in (
        (at, http.headers, http.rewrite),
        *((f"{at}.route[{i}]", r.headers, None) for i, r in enumerate(http.route)),
    ):
        given = [rewrite.authority] if rewrite and rewrite.authority else []
        if headers and headers.request:
            both = (*headers.request.set.items(), *headers.request.add.items())
            given += [v for k, v in both if _is_authority(k)]
        if len(given) > 1:
            says = f'authority header cannot be set multiple times: have "{given[0]}", attempting to set "{given[1]}"'
            yield no(where, says)
