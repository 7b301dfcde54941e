"""Patterns of policies and routes that are accepted and match nothing, because something is written that is not a part
of what is compared: a scheme, a query, a wildcard where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lateen.api import networking as n
from lateen.api import security as sec
from lateen.api.validate.findings import Findings, hint

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")
IN_POLICIES = ("principals", "requestPrincipals", "hosts", "methods", "paths")
"""Fields where ``*`` is a wildcard at one end only; in namespaces it is one anywhere."""
CONDITIONS = {
    "source.principal": "principals",
    "request.auth.principal": "requestPrincipals",
    "connection.sni": "hosts",
}
_WILDCARD = 'is taken literally and matches nothing: "*" is a wildcard only at the beginning or the end, and only once'


def in_rule(rule: sec.Rule, at: str) -> Findings:
    """Of a rule of an AuthorizationPolicy: patterns are exact, ``prefix*``, ``*suffix`` or ``*``."""
    for what, path, pattern in _patterns(rule, at):
        if says := _nothing(what, pattern) or _stars(pattern):
            yield hint(path, says)


def _patterns(rule: sec.Rule, at: str) -> Iterator[tuple[str, str, str]]:
    """(kind, path, pattern)"""
    places: list[tuple[str, Any]] = [
        *((f"{at}.from[{i}].source", f.source) for i, f in enumerate(rule.from_ or ())),
        *((f"{at}.to[{i}].operation", t.operation) for i, t in enumerate(rule.to or ())),
    ]
    for where, given in places:
        for what in IN_POLICIES if given is not None else ():
            for field in (what, f"not{what[0].upper()}{what[1:]}"):
                for i, pattern in enumerate(_field(given, field)):
                    yield what, f"{where}.{field}[{i}]", pattern
    for i, condition in enumerate(rule.when):
        what = CONDITIONS.get(condition.key, "headers" if condition.key.startswith("request.headers[") else "")
        for field, values in (("values", condition.values), ("notValues", condition.not_values)):
            for j, pattern in enumerate(values if what else ()):
                yield what, f"{at}.when[{i}].{field}[{j}]", pattern


def _field(value: Any, wire: str) -> tuple[str, ...]:
    names = dict(zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True))
    return (getattr(value, names[wire]) or ()) if wire in names else ()


def _stars(pattern: str) -> str:
    if "*" in pattern[1:-1] and "{" not in pattern:
        return f'"{pattern}" {_WILDCARD}'
    if len(pattern) > 1 and pattern.startswith("*") and pattern.endswith("*"):
        return f'"{pattern}": only the "*" at the beginning is a wildcard; the last one is text'
    return ""


def _nothing(what: str, pattern: str) -> str:
    """Why a pattern of a policy or a route cannot match; empty if it can."""
    match what:
        case "principals" if pattern.startswith("spiffe://"):
            return f'"{pattern}" matches nothing: write it without spiffe://, as in {pattern[9:]}'
        case "principals" if pattern and not {"*", "/"} & set(pattern):
            return f'"{pattern}" matches nothing: write it as TRUST-DOMAIN/ns/NAMESPACE/sa/{pattern}'
        case "hosts" if "/" in pattern:
            host = pattern.partition("://")[2] or pattern
            return (
                f'"{pattern}" matches nothing: a host has neither a scheme nor a path; write {host.partition("/")[0]}'
            )
        case "methods" if (upper := pattern.strip("*").upper()) in METHODS and upper not in pattern:
            return f'"{pattern}" matches nothing: methods are case-sensitive; write {upper}'
        case "paths" if pattern and not pattern.startswith(("/", "*", "{")):
            return f'"{pattern}" matches nothing: paths begin with a slash; write /{pattern}'
        case "paths" if {"?", "#"} & set(pattern):
            plain = pattern.partition("?")[0].partition("#")[0]
            return f'"{pattern}" matches nothing: a path is compared without its query; write {plain}'
    return ""


def in_match(match: n.HTTPMatchRequest, at: str) -> Findings:
    """Of a match of a VirtualService, where ``exact`` and ``prefix`` know no wildcards."""
    for field, what in (("uri", "paths"), ("authority", "hosts"), ("method", "methods")):
        given = getattr(match, field)
        for kind in ("exact", "prefix") if given else ():
            pattern = getattr(given, kind) or ""
            says = _nothing(what, pattern) if kind == "exact" or "?" not in pattern else ""
            if "*" in pattern and pattern != "*":
                instead = f"write prefix: {pattern[:-1]}" if pattern.find("*") == len(pattern) - 1 else "write a regex"
                says = f'"{pattern}" matches nothing: {kind} knows no wildcard; {instead}'
            if says:
                yield hint(f"{at}.{field}.{kind}", says)
