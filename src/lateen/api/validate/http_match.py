"""The rules of what a VirtualService's HTTP routes match.

Source: istio.io/istio ``pkg/config/validation/virtualservice.go`` and ``validation.go``.
"""

from __future__ import annotations

from lateen.api import claims
from lateen.api import networking as n
from lateen.api.validate import dead_patterns
from lateen.api.validate import scalars as s
from lateen.api.validate.findings import Findings, no
from lateen.api.validate.names import gateways


def string_match(m: n.StringMatch | None, at: str, prefix: bool = False, present: bool = False) -> Findings:
    """``prefix``: whether an empty prefix, which matches everything, is allowed. ``present``: whether ``*`` in place
    of a regular expression asks for presence."""
    if m is None:
        return
    given = [k for k in ("exact", "prefix", "regex") if getattr(m, k) is not None]
    if len(given) > 1:
        yield no(at, f"has {' and '.join(given)}; give only one")
    if m.prefix == "" and not prefix:
        yield no(f"{at}.prefix", "prefix string match should not be empty")
    if m.regex == "":
        yield no(f"{at}.regex", "regex string match should not be empty")
    elif m.regex and not (present and m.regex == "*"):
        yield from s.regex(m.regex, f"{at}.regex")


def request_match(m: n.HTTPMatchRequest, at: str, mesh: tuple[str, ...] | None) -> Findings:
    """``mesh``: the gateways that the rule names, if it is for sidecars, too; otherwise None."""
    for field, given in (("headers", m.headers), ("withoutHeaders", m.without_headers)):
        for name, match in given.items():
            where = f"{at}.{field}[{name}]"
            if mesh is not None and claims.routed(name):
                named = " ".join(mesh)
                says = (
                    f"JWT claim based routing (key: {name}) is only supported for gateway, found no gateways: [{named}]"
                )
                yield no(where, f"{says}; name them in spec.gateways, without mesh")
            yield from s.matched_header(name, where)
            yield from string_match(match, where, present=field == "withoutHeaders")
    for name, match in m.query_params.items():
        if not name:
            yield no(f"{at}.queryParams", "a query parameter's name must not be empty")
        yield from string_match(match, f"{at}.queryParams[{name}]")
    for field in ("uri", "scheme", "method", "authority"):
        yield from string_match(getattr(m, field), f"{at}.{field}", prefix=field == "uri")
    yield from dead_patterns.in_match(m, at)
    if m.port:
        yield from s.port(m.port, f"{at}.port")
    yield from s.labels(m.source_labels, f"{at}.sourceLabels")
    yield from gateways(m.gateways, f"{at}.gateways")
    if m.source_namespace and not s.is_label(m.source_namespace):
        says = f"sourceNamespace match {m.source_namespace[:80]} is invalid: it is not the name of a namespace"
        yield no(f"{at}.sourceNamespace", says)
