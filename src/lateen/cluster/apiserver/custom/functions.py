"""Functions that Kubernetes adds to CEL, for the rules of custom resources.

Source: https://kubernetes.io/docs/reference/using-api/cel/ (lists, strings, regular expressions, IP addresses, CIDR,
URLs, quantities). A method's receiver is the function's first argument. Values that CEL has no type for (a quantity, an
address, a URL) are maps with one key that no user's object has.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

from lateen.cluster.apiserver.custom import macros, optionals
from lateen.cluster.apiserver.custom.formats import parses
from lateen.cluster.rules import amounts
from lateen.kit import regex

QUANTITY, IP, CIDR, URL = "@quantity", "@ip", "@cidr", "@url"


def _ordered(items: list[Any]) -> bool:
    return all(a <= b for a, b in pairwise(items))


def _index(where: Any, what: Any, start: int = 0) -> int:
    if isinstance(where, str):
        return where.find(what, start)
    return where.index(what) if what in where else -1


def _last_index(where: Any, what: Any) -> int:
    if isinstance(where, str):
        return where.rfind(what)
    return len(where) - 1 - where[::-1].index(what) if what in where else -1


def _ascii(change: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: "".join(change(ch) if ch.isascii() else ch for ch in text)


def _char_at(text: str, at: int) -> str:
    if not 0 <= at <= len(text):
        raise ValueError(f"index out of range: {at}")
    return text[at : at + 1]


def _substring(text: str, start: int, end: int | None = None) -> str:
    end = len(text) if end is None else end
    if not 0 <= start <= end <= len(text):
        raise ValueError(f"invalid substring range. start: {start}, end: {end}")
    return text[start:end]


def _split(text: str, by: str, limit: int = -1) -> list[str]:
    if limit == 0:
        return []
    if not by:
        return list(text)
    return text.split(by, limit - 1) if limit > 0 else text.split(by)


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found = [m.group(0) for m in regex.compiled(pattern).finditer(text)]
    return found if limit < 0 else found[:limit]


def _find(text: str, pattern: str) -> str:
    found = regex.compiled(pattern).search(text)
    return str(found.group(0)) if found else ""


def _format(text: str, values: list[Any]) -> str:
    """``%s`` and ``%d``; anything else is an error, which is then the rule's."""
    left = list(values)

    def one(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        value = left.pop(0)
        return ("true" if value else "false") if isinstance(value, bool) else str(value)

    out = re.sub(r"%[%sd]", one, text)
    if left or re.search(r"%[a-ce-rt-z]", text.replace("%%", "")):
        raise ValueError("only %s and %d can be formatted here, once for each value")
    return out


# --- quantities ------------------------------------------------------------------------------------------------------


def _amount(q: Any) -> Decimal:
    return Decimal(q[QUANTITY] if isinstance(q, dict) else q)


def _quantity(text: str) -> dict[str, str]:
    return _made(amounts.parse(text))


def _made(value: Decimal) -> dict[str, str]:
    return {QUANTITY: format(value.normalize(), "f")}


# --- addresses -------------------------------------------------------------------------------------------------------


def _network(text: str) -> Any:
    if "/" not in text:
        raise ValueError(f"{text} is not a CIDR")
    return ipaddress.ip_network(text, strict=False)


def _address(value: Any) -> Any:
    return ipaddress.ip_address(value[IP] if isinstance(value, dict) else value)


def _net(value: Any) -> Any:
    return _network(value[CIDR] if isinstance(value, dict) else value)


def _family(value: Any) -> int:
    return int((_address(value) if IP in value else _net(value)).version)


def _within(outer: Any, inner: Any) -> bool:
    a, b = _net(outer), _net(inner)
    return a.version == b.version and bool(b.subnet_of(a))


def _url(text: str) -> dict[str, str]:
    found = urlsplit(text)
    if not (found.scheme and found.netloc) and not text.startswith("/"):
        raise ValueError(f"{text} is not an absolute URL")
    return {URL: text}


def _part(get: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda url: get(urlsplit(url[URL]))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **macros.FUNCTIONS,
    "matches": lambda text, pattern: regex.compiled(pattern).search(text) is not None,
    "optSelect": optionals.select,
    "optIndex": optionals.select,
    "isSorted": _ordered,
    "sum": lambda items: sum(items) if items else 0,
    "min": lambda *items: min(items[0] if len(items) == 1 else items),
    "max": lambda *items: max(items[0] if len(items) == 1 else items),
    "indexOf": _index,
    "lastIndexOf": _last_index,
    "slice": lambda items, start, end: items[start:end],
    "distinct": lambda items: [x for i, x in enumerate(items) if x not in items[:i]],
    "sort": sorted,
    "reverse": lambda items: items[::-1],
    "charAt": _char_at,
    "lowerAscii": _ascii(str.lower),
    "upperAscii": _ascii(str.upper),
    "replace": lambda text, old, new, count=-1: text.replace(old, new, count),
    "split": _split,
    "join": lambda items, by="": by.join(items),
    "substring": _substring,
    "trim": lambda text: text.strip(),
    "find": _find,
    "findAll": _find_all,
    "format": _format,
    "quantity": _quantity,
    "isQuantity": parses(amounts.parse),
    "compareTo": lambda a, b: (_amount(a) > _amount(b)) - (_amount(a) < _amount(b)),
    "isGreaterThan": lambda a, b: _amount(a) > _amount(b),
    "isLessThan": lambda a, b: _amount(a) < _amount(b),
    "add": lambda a, b: _made(_amount(a) + _amount(b)),
    "sub": lambda a, b: _made(_amount(a) - _amount(b)),
    "sign": lambda q: (_amount(q) > 0) - (_amount(q) < 0),
    "isInteger": lambda q: _amount(q) == _amount(q).to_integral_value(),
    "asInteger": lambda q: int(_amount(q)),
    "asApproximateFloat": lambda q: float(_amount(q)),
    "isIP": parses(ipaddress.ip_address),
    "ip": lambda value: {IP: str(ipaddress.ip_address(value))} if isinstance(value, str) else {IP: str(_net(value)[0])},
    "isCIDR": parses(_network),
    "cidr": lambda text: {CIDR: str(_network(text))},
    "family": _family,
    "isLoopback": lambda a: _address(a).is_loopback,
    "isUnspecified": lambda a: _address(a).is_unspecified,
    "prefixLength": lambda n: _net(n).prefixlen,
    "containsIP": lambda n, a: _address(a) in _net(n),
    "containsCIDR": _within,
    "url": _url,
    "isURL": parses(_url),
    "getScheme": _part(lambda u: u.scheme),
    "getHost": _part(lambda u: u.netloc.rpartition("@")[2]),
    "getHostname": _part(lambda u: u.hostname or ""),
    "getPort": _part(lambda u: str(u.port or "")),
    "getEscapedPath": _part(lambda u: u.path),
    "getQuery": _part(lambda u: parse_qs(u.query)),
}
