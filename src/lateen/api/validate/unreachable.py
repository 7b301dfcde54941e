"""Rules of a VirtualService that no request can reach, because an earlier rule matches all that they match.

The facts are those of Istio's messages IST0130 and IST0131: a rule without a match catches everything after it; a
match equal to an earlier one, or whose path lies below an earlier prefix under the same other conditions, is never
the first to match.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from lateen.api import networking as n
from lateen.api.config import Config


class Ineffective(NamedTuple):
    """One match of several that an earlier rule takes."""

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


LAST, SHADOWED = "only the last rule can have no matches", "all matches used by prior rules"
AFTER = "route without matches defined before"


_SAYS = "virtualService rule {} match {} is not used (duplicate/overlapping match in rule {})"


def unreachable(vs: n.VirtualService) -> Unreachable:
    out = Unreachable([], [], [])
    _walk("http", vs.http, out)
    _walk("tls", vs.tls, out)
    _walk("tcp", vs.tcp, out)
    out.unused.extend((p, f"virtualService rule {name} not used ({reason})") for p, name, reason in out.rules)
    out.unused.extend(
        (
            m.path,
            _SAYS.format(m.rule, m.match, m.earlier),
        )
        for m in out.matches
    )
    return out


def _called(rule: Config, at: int) -> str:
    name = getattr(rule, "name", "")
    return f'"{name}"' if name else f"#{at}"


def _key(match: Config) -> bytes:
    """Equal for matches that match the same; their names do not count."""
    plain = msgspec.to_builtins(match)
    plain.pop("name", None)
    return msgspec.json.encode(plain, order="sorted")


def _walk(kind: str, rules: Sequence[n.HTTPRoute | n.TLSRoute | n.TCPRoute], out: Unreachable) -> None:
    seen: dict[bytes, int] = {}
    catch_all: int | None = None
    prefixes: list[tuple[bytes, str, int]] = []
    for i, rule in enumerate(rules):
        path, name = f"spec.{kind}[{i}]", _called(rule, i)
        if not rule.match:
            if catch_all is not None:
                out.rules.append((path, name, LAST))
            catch_all = i if catch_all is None else catch_all
            continue
        if catch_all is not None:
            out.rules.append((path, name, AFTER))
            continue
        taken: list[tuple[int, str, int]] = []
        for j, match in enumerate(rule.match):
            key = _key(match)
            earlier = seen.get(key)
            if earlier is None and isinstance(match, n.HTTPMatchRequest):
                earlier = _below(match, prefixes)
            if earlier is not None and (earlier != i or key in seen):
                called = f'"{match.name}"' if isinstance(match, n.HTTPMatchRequest) and match.name else f"#{j}"
                taken.append((j, called, earlier))
            seen.setdefault(key, i)
        for match in rule.match:
            if isinstance(match, n.HTTPMatchRequest) and match.uri and match.uri.prefix:
                prefixes.append((_rest(match), match.uri.prefix, i))
        if taken and len(taken) == len(rule.match):
            out.rules.append((path, name, SHADOWED))
        else:
            for j, called, before in taken:
                out.matches.append(Ineffective(f"{path}.match[{j}]", name, called, _called(rules[before], before)))


def _rest(match: n.HTTPMatchRequest) -> bytes:
    plain = msgspec.to_builtins(match)
    plain.pop("name", None)
    plain.pop("uri", None)
    return msgspec.json.encode(plain, order="sorted")


def _below(match: n.HTTPMatchRequest, prefixes: list[tuple[bytes, str, int]]) -> int | None:
    if not match.uri:
        return None
    text = match.uri.exact if match.uri.exact is not None else match.uri.prefix
    if text is None:
        return None
    rest = _rest(match)
    return next((rule for other, prefix, rule in prefixes if other == rest and text.startswith(prefix)), None)
