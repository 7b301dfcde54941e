"""What Istio's validator refuses, in sentences with the field's path. Pure.

The structure (types, enums, unknown fields) is the CRD schema's business; here are the rules between fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import re2

from lateen.api import networking as n
from lateen.api.config import Config, DecodeError, decode
from lateen.api.crds import BY_KIND
from lateen.kit.jsons import Json

Problem = tuple[str, str]
MAX_REGEX = 1024
REDIRECT_CODES = (301, 302, 303, 307, 308)


def problems(obj: Json) -> list[Problem]:
    """(path, sentence) for everything wrong with a mesh object; kinds that are not the mesh's have none."""
    definition = BY_KIND.get(str(obj.get("kind")))
    if definition is None:
        return []
    try:
        spec = decode(definition.spec, obj.get("spec") or {})
    except DecodeError as e:
        return [(e.path, e.says)]
    match spec:
        case n.VirtualService():
            return list(_virtual_service(spec))
        case n.DestinationRule():
            return list(_destination_rule(spec))
        case n.Gateway():
            return list(_gateway(spec))
    return []


def _host(host: str, path: str) -> Iterator[Problem]:
    if not host:
        yield path, "must not be empty"
    elif len(host) > 253 or any(c in host for c in " /:\t\n") or host.startswith(".") or host.endswith("-"):
        yield path, f'"{host[:80]}" is not a host name'
    elif "*" in host and host != "*" and (not host.startswith("*.") or "*" in host[1:]):
        yield path, f'"{host}": a wildcard is allowed only as the whole name or as its first part ("*.example.com")'


def _regex(text: str, path: str) -> Iterator[Problem]:
    if len(text) > MAX_REGEX:
        yield path, f"the regular expression has {len(text)} characters; the limit is {MAX_REGEX}"
        return
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(text, options)
    except re2.error as e:
        yield path, f'"{text[:80]}" is not a regular expression of RE2: {e}'


def _string_matches(value: Any, path: str) -> Iterator[Problem]:
    """Every StringMatch below a value."""
    if isinstance(value, n.StringMatch):
        given = [k for k in ("exact", "prefix", "regex") if getattr(value, k) is not None]
        if len(given) > 1:
            yield path, f"has {' and '.join(given)}; give only one"
        if value.regex not in (None, "*"):
            yield from _regex(str(value.regex), f"{path}.regex")
    elif isinstance(value, Config):
        for f in value.__struct_fields__:
            name = value.__struct_encode_fields__[value.__struct_fields__.index(f)]
            yield from _string_matches(getattr(value, f), f"{path}.{name}")
    elif isinstance(value, tuple):
        for i, v in enumerate(value):
            yield from _string_matches(v, f"{path}[{i}]")
    elif isinstance(value, dict):
        for k, v in value.items():
            yield from _string_matches(v, f"{path}[{k}]")


def _virtual_service(vs: n.VirtualService) -> Iterator[Problem]:
    if not vs.hosts and any(g for g in vs.gateways):
        yield "spec.hosts", "a VirtualService without hosts is a delegate and must not have gateways"
    if not (vs.http or vs.tls or vs.tcp):
        yield "spec", "has no routes; give at least one of http, tls, tcp"
    for i, host in enumerate(vs.hosts):
        yield from _host(host, f"spec.hosts[{i}]")
    for i, http in enumerate(vs.http):
        yield from _http(http, f"spec.http[{i}]")


def _http(http: n.HTTPRoute, at: str) -> Iterator[Problem]:
    kinds = [
        k
        for k, v in (
            ("route", http.route),
            ("redirect", http.redirect),
            ("directResponse", http.direct_response),
            ("delegate", http.delegate),
        )
        if v
    ]
    if not kinds:
        yield at, "does nothing; give one of route, redirect, directResponse, delegate"
    elif len(kinds) > 1 and "delegate" not in kinds:
        yield at, f"has {' and '.join(kinds)}; give only one"
    if http.route and len(http.route) > 1 and not sum(r.weight or 0 for r in http.route):
        yield f"{at}.route", "the weights of several destinations add up to 0"
    for j, r in enumerate(http.route):
        if r.weight is not None and r.weight < 0:
            yield f"{at}.route[{j}].weight", f"must not be negative, is {r.weight}"
        yield from _destination(r.destination, f"{at}.route[{j}].destination")
    for j, m in enumerate(http.mirrors):
        yield from _destination(m.destination, f"{at}.mirrors[{j}].destination")
    if http.redirect and http.redirect.redirect_code not in (None, *REDIRECT_CODES):
        yield f"{at}.redirect.redirectCode", f"{http.redirect.redirect_code} is not one of {REDIRECT_CODES}"
    if http.direct_response and not 200 <= http.direct_response.status <= 599:
        yield f"{at}.directResponse.status", f"{http.direct_response.status} is not an HTTP status of 200 to 599"
    if http.timeout and http.timeout.nanoseconds < 0:
        yield f"{at}.timeout", "must not be negative"
    if http.retries and http.retries.attempts is not None and http.retries.attempts < 0:
        yield f"{at}.retries.attempts", "must not be negative"
    yield from _fault(http.fault, at)
    yield from _string_matches(http.match, f"{at}.match")
    if http.cors_policy:
        yield from _string_matches(http.cors_policy.allow_origins, f"{at}.corsPolicy.allowOrigins")
    if http.rewrite and http.rewrite.uri_regex_rewrite:
        yield from _regex(http.rewrite.uri_regex_rewrite.match, f"{at}.rewrite.uriRegexRewrite.match")


def _fault(fault: n.HTTPFaultInjection | None, at: str) -> Iterator[Problem]:
    for name, part in (("delay", fault.delay if fault else None), ("abort", fault.abort if fault else None)):
        if part and part.percentage and not 0 <= part.percentage.value <= 100:
            yield f"{at}.fault.{name}.percentage.value", f"{part.percentage.value} is not between 0 and 100"
    if fault and fault.abort and fault.abort.http_status is not None and not 200 <= fault.abort.http_status <= 599:
        yield f"{at}.fault.abort.httpStatus", f"{fault.abort.http_status} is not an HTTP status of 200 to 599"
    if fault and not fault.delay and not fault.abort:
        yield f"{at}.fault", "does nothing; give delay or abort"


def _destination(d: n.Destination, at: str) -> Iterator[Problem]:
    yield from _host(d.host, f"{at}.host")
    if d.host == "*" or d.host.startswith("*."):
        yield f"{at}.host", "a destination cannot be a wildcard"
    if d.port is not None and not 1 <= d.port.number <= 65535:
        yield f"{at}.port.number", f"{d.port.number} is not between 1 and 65535"


def _destination_rule(dr: n.DestinationRule) -> Iterator[Problem]:
    yield from _host(dr.host, "spec.host")
    seen: set[str] = set()
    for i, s in enumerate(dr.subsets):
        if not s.name:
            yield f"spec.subsets[{i}].name", "must not be empty"
        if s.name in seen:
            yield f"spec.subsets[{i}].name", f'"{s.name}" is given twice'
        seen.add(s.name)


def _gateway(gw: n.Gateway) -> Iterator[Problem]:
    if not gw.servers:
        yield "spec.servers", "must have at least one server"
    for i, s in enumerate(gw.servers):
        if not 1 <= s.port.number <= 65535:
            yield f"spec.servers[{i}].port.number", f"{s.port.number} is not between 1 and 65535"
        if not s.hosts:
            yield f"spec.servers[{i}].hosts", "must have at least one host"
        for j, host in enumerate(s.hosts):
            yield from _host(host.rpartition("/")[2], f"spec.servers[{i}].hosts[{j}]")
