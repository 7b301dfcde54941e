"""Rules of a VirtualService that no request can reach, because an earlier rule matches everything that they match.

The facts are those of Istio's messages IST0130 and IST0131 (``pkg/config/validation``, analyzeUnreachableHTTPRules): a
rule without a match catches everything after it, a match that is equal to an earlier one is never the first to match,
and the prefix of a path covers longer ones where the other conditions are alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from lateen.api import networking as n
from lateen.api.config import Config


class Ineffective(NamedTuple):
    """One of several matches of a rule, which an earlier rule shadows."""

    path: str
    rule: str
    match: str
    earlier: str


class Unreachable(NamedTuple):
    unused: list[tuple[str, str]]
    """(path of the rule, sentence)"""
    rules: list[tuple[str, str, str]]
    """(path, how messages name the rule, reason)"""
    matches: list[Ineffective]


class _Prefix(NamedTuple):
    """A match of a path's prefix; its other conditions are kept as text."""

    path: str
    rule: str
    match: str
    prefix: str
    port: int
    method: str
    authority: str
    others: tuple[Mapping[str, str], ...]
    """Of headers, of query parameters, and of headers that must be absent."""


LAST, SHADOWED = "only the last rule can have no matches", "all matches used by prior rules"
AFTER = "route without matches defined before"
GET = "exact:GET"
"""What Istio takes a match for that says nothing about methods."""
_SAYS = "virtualService rule {} match {} is not used (duplicate/overlapping match in rule {})"


def unreachable(vs: n.VirtualService) -> Unreachable:
    out = Unreachable([], [], [])
    _walk("http", vs.http, out)
    _walk("tls", vs.tls, out)
    _walk("tcp", vs.tcp, out)
    out.unused.extend((p, f"virtualService rule {name} not used ({reason})") for p, name, reason in out.rules)
    out.unused.extend((m.path, _SAYS.format(m.rule, m.match, m.earlier)) for m in out.matches)
    return out


def _called(named: Config, at: int) -> str:
    name = getattr(named, "name", "")
    return f'"{name}"' if name else f"#{at}"


def _key(match: Config) -> bytes:
    """Equal for matches of the same requests, whatever their names."""
    plain = msgspec.to_builtins(match)
    plain.pop("name", None)
    return msgspec.json.encode(plain, order="sorted")


def _walk(kind: str, rules: Sequence[n.HTTPRoute | n.TLSRoute | n.TCPRoute], out: Unreachable) -> None:
    seen: dict[bytes, int] = {}
    catch_all = False
    prefixes: list[_Prefix] = []
    for i, rule in enumerate(rules):
        path, name = f"spec.{kind}[{i}]", _called(rule, i)
        if catch_all or not rule.match:
            if catch_all:
                out.rules.append((path, name, AFTER if rule.match else LAST))
            catch_all = True
            continue
        duplicates = 0
        for j, match in enumerate(rule.match):
            where, called = f"{path}.match[{j}]", _called(match, j)
            earlier = seen.setdefault(key := _key(match), i)
            if earlier != i or key in _before(rule.match, j):
                duplicates += 1
                out.matches.append(Ineffective(where, name, called, _called(rules[earlier], earlier)))
            elif isinstance(match, n.HTTPMatchRequest) and match.uri and match.uri.prefix:
                prefixes.append(_prefix(match, match.uri.prefix, where, name, called))
        if duplicates == len(rule.match):
            out.rules.append((path, name, SHADOWED))
    _overlaps(prefixes, out)


def _before(matches: Sequence[Config], j: int) -> set[bytes]:
    """The keys of a rule's earlier matches."""
    return {_key(m) for m in matches[:j]}


def _prefix(m: n.HTTPMatchRequest, prefix: str, where: str, rule: str, called: str) -> _Prefix:
    others = tuple({k: _text(v) for k, v in given.items()} for given in (m.headers, m.query_params, m.without_headers))
    return _Prefix(where, rule, called, prefix, m.port or 0, _text(m.method) or GET, _text(m.authority), others)


def _text(m: n.StringMatch | None) -> str:
    """Regular expressions are not compared."""
    if m is None:
        return ""
    return f"exact:{m.exact}" if m.exact else f"prefix:{m.prefix}" if m.prefix else ""


def _overlaps(prefixes: Sequence[_Prefix], out: Unreachable) -> None:
    for i, first in enumerate(prefixes):
        for later in prefixes[i + 1 :]:
            if later.prefix != first.prefix and _covers(first, later):
                match = f"{later.match} of prefix {later.prefix}"
                earlier = f"{first.match} of prefix {first.prefix} on {first.rule}"
                out.matches.append(Ineffective(later.path, later.rule, match, earlier))


def _covers(first: _Prefix, later: _Prefix) -> bool:
    return (
        later.prefix.startswith(first.prefix)
        and later.port == first.port
        and first.method.startswith(later.method)
        and first.authority.startswith(later.authority)
        and all(
            a.keys() == b.keys() and all(a[k].startswith(b[k]) for k in a)
            for a, b in zip(first.others, later.others, strict=True)
        )
    )
