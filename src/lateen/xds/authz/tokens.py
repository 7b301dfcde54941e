"""Requests with what an application may take for a verified token, or for a claim of one, and Envoy's JWT filter does
not see: it reads the places that a rule names exactly as they are written there, and of several values the first.

RFC 9110, section 11.1 (schemes have no case); RFC 3875, section 4.1.18 (CGI, and so WSGI and PHP, has one variable for
``x-user`` and ``x_user``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.route.v3 import route_components_pb2 as rc
from envoy.type.matcher.v3 import string_pb2
from google.protobuf import json_format

from lateen.api.security import JWTRule
from lateen.wire import names
from lateen.xds import predicates
from lateen.xds.authz.matchers import quoted, regex
from lateen.xds.authz.spellings import names_alike

DEFAULT = (("authorization", "Bearer "),), ("access_token",)
"""Headers with their prefixes, and parameters, where a rule names no places"""
COMPARED = 14
"""The bytes at either end of a cookie's name that are compared, if it is longer than both together"""


class Places(NamedTuple):
    """Where the rules of a workload look for tokens, and where it is written who asks."""

    written: tuple[str, ...] = ()
    """Headers with claims and payloads, and those of authorization services"""
    headers: tuple[tuple[str, str], ...] = ()
    """(name, prefix)"""
    parameters: tuple[str, ...] = ()
    cookies: tuple[str, ...] = ()

    def and_written(self, names: Iterable[str]) -> Places:
        """With further headers that are written."""
        return self._replace(written=tuple(dict.fromkeys((*self.written, *(n.lower() for n in names if n)))))


def places(rules: Iterable[JWTRule]) -> Places:
    written: dict[str, None] = {}
    headers: dict[tuple[str, str], None] = {}
    parameters: dict[str, None] = {}
    cookies: dict[str, None] = {}
    for rule in rules:
        outputs = (*(c.header for c in rule.output_claim_to_headers), rule.output_payload_to_header)
        written |= dict.fromkeys(name.lower() for name in outputs if name)
        given = tuple((h.name.lower(), h.prefix) for h in rule.from_headers), rule.from_params
        if not (any(given) or rule.from_cookies):
            given = DEFAULT
        headers |= dict.fromkeys(given[0])
        parameters |= dict.fromkeys(given[1])
        cookies |= dict.fromkeys(rule.from_cookies)
    return Places(tuple(written), tuple(headers), tuple(parameters), tuple(cookies))


def unverified(given: Places) -> Iterator[tuple[str, rbac_pb2.Policy]]:
    """(name, policy) of what denies such requests; nothing where there are no tokens."""
    found = [*_alike(given), *_schemes(given.headers), *map(_parameter, given.parameters)]
    if found:
        yield names.UNVERIFIED, _policy(found)
    if given.cookies:
        # Envoy's RBAC compares each line of a header by itself, but expressions have all of them, with commas.
        of_header = predicates.entry(predicates.field("request", "headers"), "cookie")
        out = _policy([rbac_pb2.Permission(header=rc.HeaderMatcher(name="cookie", present_match=True))])
        each = [predicates.called("matches", of_header, _cookie(name)) for name in given.cookies]
        json_format.ParseDict(predicates.whole(predicates.either(each)), out.condition)
        yield names.UNVERIFIED_COOKIES, out


def _policy(permissions: Sequence[rbac_pb2.Permission]) -> rbac_pb2.Policy:
    out = rbac_pb2.Policy(permissions=permissions)
    out.principals.add(any=True)
    return out


def _alike(given: Places) -> Iterator[rbac_pb2.Permission]:
    """Headers whose names servers do not tell from those of verified claims."""
    own = {*given.written, *(name for name, _ in given.headers)}
    for name in given.written:
        for other in names_alike(name):
            if other not in own:
                yield rbac_pb2.Permission(header=rc.HeaderMatcher(name=other, present_match=True))


def _header(name: str, matcher: string_pb2.StringMatcher) -> rbac_pb2.Permission:
    return rbac_pb2.Permission(header=rc.HeaderMatcher(name=name, string_match=matcher))


def _any(*given: rbac_pb2.Permission) -> rbac_pb2.Permission:
    return rbac_pb2.Permission(or_rules=rbac_pb2.Permission.Set(rules=given))


def _every(*given: rbac_pb2.Permission) -> rbac_pb2.Permission:
    return rbac_pb2.Permission(and_rules=rbac_pb2.Permission.Set(rules=given))


def _schemes(headers: Iterable[tuple[str, str]]) -> Iterator[rbac_pb2.Permission]:
    """``bearer TOKEN`` where the prefix is ``Bearer ``, unless another rule has it so; and several schemes, of which
    only one may be the prefix."""
    known: dict[tuple[str, str], list[str]] = {}
    for name, prefix in headers:
        word = prefix.strip()
        if word and word + " " == prefix:
            known.setdefault((name, word.lower()), []).append(word)
    for (name, word), spellings in known.items():
        start = r"(?:\C*,)?[ \t]*"
        known_so = "|".join(map(quoted, spellings))
        other = [rf"(?:{known_so})\t", *(rf"{one}[ \t]" for one in _other_cases(spellings))]
        # What nearly all requests have, a prefix and one token, is let pass before an expression runs over the token.
        exact = _any(*(_header(name, string_pb2.StringMatcher(prefix=f"{one} ")) for one in spellings))
        several = _header(name, string_pb2.StringMatcher(contains=","))
        yield _every(
            _any(rbac_pb2.Permission(not_rule=exact), several),
            _any(
                _header(name, regex(rf"{start}(?:{'|'.join(other)})\C*")),
                _header(name, regex(rf"{start}(?:{known_so}) \C*,[ \t]*(?i:{quoted(word)})[ \t]\C*")),
            ),
        )


def _other_cases(words: Sequence[str]) -> Iterator[str]:
    """Regular expressions of all spellings of words in other cases; ``words`` differ only in these."""
    for i in range(len(words[0])):
        for start in sorted({word[:i] for word in words}):
            following = {word[i] for word in words if word.startswith(start)}
            rest = quoted(words[0][i + 1 :])
            for c in sorted({c for f in following for c in (f.lower(), f.upper())} - following):
                yield rf"{quoted(start)}{quoted(c)}(?i:{rest})"


def _cookie(name: str) -> str:
    """A cookie that is there twice, or with a space before the ``=``, which servers take away.

    Envoy refuses an expression with a regular expression of more than 100 instructions, so that of a long name only the
    ends are compared.
    """
    spelled, size = quoted(name), len(name.encode())
    if size > 2 * COMPARED:
        most = COMPARED * len(name) // size
        spelled = rf"{quoted(name[:most])}[^=;,]*{quoted(name[-most:])}"
    return rf"(?:^|[;,])[ \t]*{spelled}(?:[ \t]+=|=(?:\C*[;,])[ \t]*{spelled}[ \t]*=)"


def _parameter(name: str) -> rbac_pb2.Permission:
    """A parameter that is there twice, or after a semicolon, which some servers take for an ampersand."""
    spelled = "".join(f"(?:{quoted(c)}|%(?i:{ord(c):02x}))" if c.isascii() else quoted(c) for c in name)
    return _every(
        _any(*(_header(":path", string_pb2.StringMatcher(contains=part)) for part in (name, "%"))),
        _header(":path", regex(rf"\C*\?(?:\C*;|(?:\C*&)?{spelled}=\C*[&;]){spelled}=\C*")),
    )
