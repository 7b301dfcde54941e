"""Conditions that keep somebody out: as in ``matchers``, but met by whatever servers treat like the written value.

Istio compares all as written, so that another spelling gets past a DENY policy.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator

from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.route.v3 import route_components_pb2 as rc
from envoy.type.matcher.v3 import number_pb2, path_pb2, value_pb2

from lateen.xds import claims, predicates
from lateen.xds.authz import matchers
from lateen.xds.authz.matchers import ANYTHING, STAR, one_of_list, quoted, regex, string

_HOSTS = (":authority", "host")
"""The names of the header with a request's host"""
MOST = 4
"""The number of dashes of a name that are written otherwise independently of each other"""
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,300})(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?")


def path(value: str) -> rbac_pb2.Permission:
    """The stars of a template stand for whatever characters come. Envoy's own templates know only some of those that
    RFC 3986 has for paths (no ``=``), so that ``/users/a=b`` would be no path of ``/users/{*}``. Where a path is not
    valid UTF-8, a star may take slashes, too: rather that than a byte with which nothing matches."""
    if not STAR.search(value):
        return matchers.path(value)
    exact = rbac_pb2.Permission(url_path=path_pb2.PathMatcher(path=regex(template(value, "[^/]+"))))
    if "{*}" not in value:
        return exact
    loose = rbac_pb2.Permission(url_path=path_pb2.PathMatcher(path=regex(template(value, ANYTHING))))
    valid = rbac_pb2.Permission(url_path=path_pb2.PathMatcher(path=regex("(?s).*")))
    both = [loose, rbac_pb2.Permission(not_rule=valid)]
    either = [exact, rbac_pb2.Permission(and_rules=rbac_pb2.Permission.Set(rules=both))]
    return rbac_pb2.Permission(or_rules=rbac_pb2.Permission.Set(rules=either))


def template(value: str, segment: str) -> str:
    """The regular expression of a path's template. ``segment``: that of ``{*}``; ``{**}`` is whatever comes."""
    stars = iter(STAR.findall(value))
    first, *rest = map(quoted, STAR.split(value))
    return first + "".join(
        (r"\C*" if star == "{**}" else segment) + text for star, text in zip(stars, rest, strict=True)
    )


def host(value: str) -> rbac_pb2.Permission:
    """A host with any port, trailing dot and user information: ``admin.test`` also matches ``admin.test:8080``,
    ``ADMIN.TEST.`` and ``x@admin.test``, which servers treat as the same host. A host with a ``%`` is any host: some
    servers decode ``%61dmin.test``, and then fold what Unicode has instead of letters (WHATWG URL, 3.5)."""
    if value == "*":
        return matchers.host(value)
    return rbac_pb2.Permission(header=_host(":authority", value))


def _host(where: str, value: str) -> rc.HeaderMatcher:
    """``where``: the name of the header."""
    return rc.HeaderMatcher(name=where, string_match=regex(predicates.host_pattern(value, _glob)))


def _glob(text: str) -> str:
    """A regular expression equivalent to ``matchers.string``."""
    if text.startswith("*"):
        return rf"\C*{quoted(text[1:])}"
    return rf"{quoted(text[:-1])}\C*" if text.endswith("*") else quoted(text)


def sni(value: str) -> rbac_pb2.Permission:
    """A name in any case (Envoy compares those of clients in lower case), and with dots at its end, which some servers
    take away."""
    if value == "*":
        return matchers.sni(value)
    return rbac_pb2.Permission(requested_server_name=regex(rf"(?i){_glob(value)}\.*"))


def header(name: str, value: str) -> rbac_pb2.Principal:
    """A header with this value, or with a list containing it: servers may treat ``ok,evil`` on one line like two lines,
    which Envoy compares separately. The other items may have any bytes. The name may have underscores for dashes."""
    if name.lower() in _HOSTS and value != "*":
        return rbac_pb2.Principal(header=_host(name, value))
    if name == ":path":  # with or without a query
        found = [
            matchers.request_header(name, value),
            rbac_pb2.Principal(url_path=path_pb2.PathMatcher(path=string(value))),
        ]
        return rbac_pb2.Principal(or_ids=rbac_pb2.Principal.Set(ids=found))
    item = r"\C*".join(quoted(part) for part in value.split("*"))
    return _alike(name, lambda n: matchers.request_header(n, value) if value == "*" else one_of_list(n, item))


def header_with(name: str, value: str) -> rbac_pb2.Principal:
    """Like ``header``, but a star in the text is literal."""
    return _alike(name, lambda n: one_of_list(n, quoted(value)))


def _alike(name: str, one: Callable[[str], rbac_pb2.Principal]) -> rbac_pb2.Principal:
    found = [one(n) for n in names_alike(name)]
    return found[0] if len(found) == 1 else rbac_pb2.Principal(or_ids=rbac_pb2.Principal.Set(ids=found))


def names_alike(name: str) -> Iterator[str]:
    """The names of a header with each dash as an underscore or not (beyond the first few, all or none), which CGI, WSGI
    and PHP do not tell apart (RFC 3875, 4.1.18)."""
    first, *rest = name.replace("_", "-").split("-")
    free, last = rest[:MOST], rest[MOST:]
    for signs in itertools.product("-_", repeat=len(free)):
        made = first + "".join(sign + part for sign, part in zip(signs, free, strict=True))
        yield from (made + sign + sign.join(last) for sign in "-_") if last else (made,)


def listed_header(name: str, value: str) -> rbac_pb2.Principal:
    """In a header that is not valid UTF-8, a star in between takes whatever is there, commas, too: rather that than a
    byte with which nothing matches."""
    exact = matchers.listed_header(name, value)
    if "*" not in value.strip("*"):
        return exact
    valid = rc.HeaderMatcher(name=name, string_match=regex("(?s).*"), invert_match=True)
    loose = [one_of_list(name, matchers.listed(value, r"\C*")), rbac_pb2.Principal(header=valid)]
    both = rbac_pb2.Principal(and_ids=rbac_pb2.Principal.Set(ids=loose))
    return rbac_pb2.Principal(or_ids=rbac_pb2.Principal.Set(ids=[exact, both]))


def claim(keys: Iterable[str], values: Iterable[str]) -> rbac_pb2.Principal:
    """Numbers and booleans are what they are written as: who keeps out ``email_verified: "false"`` means the boolean
    that issuers put there. ``*`` is whatever there is."""
    given = tuple(values)
    others = [found for value in given if (found := _no_text(value)) is not None]
    return rbac_pb2.Principal(metadata=claims.one_of(keys, map(string, given), others=others))


def _no_text(value: str) -> value_pb2.ValueMatcher | None:
    if value == "*":
        return value_pb2.ValueMatcher(present_match=True)
    if value in ("true", "false"):
        return value_pb2.ValueMatcher(bool_match=value == "true")
    if _NUMBER.fullmatch(value):
        return value_pb2.ValueMatcher(double_match=number_pb2.DoubleMatcher(exact=float(value)))
    return None
