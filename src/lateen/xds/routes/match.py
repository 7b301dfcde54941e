"""Matches of requests as Envoy's."""

from __future__ import annotations

from typing import Any

from envoy.config.route.v3 import route_components_pb2 as rc
from envoy.type.matcher.v3 import regex_pb2, string_pb2

from lateen.api.claims import routed
from lateen.api.networking import http as api
from lateen.xds import claims


def string(m: api.StringMatch, ignore_case: bool = False) -> Any:
    if m.exact is not None:
        return string_pb2.StringMatcher(exact=m.exact, ignore_case=ignore_case)
    if m.prefix is not None:
        return string_pb2.StringMatcher(prefix=m.prefix, ignore_case=ignore_case)
    return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=m.regex or ".*"))


_ANYTHING = api.StringMatch(regex=".+")


def _present(m: api.StringMatch) -> bool:
    return (m.exact is None and m.prefix is None and m.regex is None) or m.regex == "*"


def _header(name: str, m: api.StringMatch, invert: bool = False) -> Any:
    """A match without a value, or with the regular expression ``*``, tests for presence."""
    if _present(m):
        return rc.HeaderMatcher(name=name, present_match=True, invert_match=invert)
    # To Envoy a missing header never matches, inverted or not; without it the rule must apply, as in Istio.
    return rc.HeaderMatcher(
        name=name, string_match=string(m), invert_match=invert, treat_missing_header_as_empty=invert
    )


def _claim(path: tuple[str, ...], m: api.StringMatch, invert: bool) -> Any:
    """A claim of a verified token; gateways choose the route again once they have verified it."""
    out = claims.one_of(filter(None, path), [string(_ANYTHING if _present(m) else m)])
    out.invert = invert
    return out


def route_match(m: api.RequestMatch | None, below: str = "") -> Any:
    """``below``: a path that is taken by whole elements, instead of the match's own."""
    out = rc.RouteMatch()
    uri = m.uri if m else None
    if below:
        out.path_separated_prefix = below
    elif uri is None:
        out.prefix = "/"
    elif uri.exact is not None:
        out.path = uri.exact
    elif uri.prefix is not None:
        out.prefix = uri.prefix
    else:
        out.safe_regex.regex = uri.regex or ".*"  # whose case counts even with ignoreUriCase, as documented
    if m is None:
        return out
    if m.ignore_uri_case and uri is not None and uri.regex is None:
        out.case_sensitive.value = False
    for pseudo, found in ((":method", m.method), (":authority", m.authority), (":scheme", m.scheme)):
        if found is not None:
            out.headers.append(_header(pseudo, found))
    for given, invert in ((m.headers, False), (m.without_headers, True)):
        for name, found in sorted(given.items()):
            if path := routed(name):
                out.dynamic_metadata.append(_claim(path, found, invert))
            else:
                out.headers.append(_header(name, found, invert))
    for name, found in sorted(m.query_params.items()):
        out.query_parameters.append(rc.QueryParameterMatcher(name=name, string_match=string(found)))
    return out
