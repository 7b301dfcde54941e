"""Kubernetes' quantities, and how much a pod asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from decimal import Context, Decimal, InvalidOperation
from typing import Any

from lateen.kit.jsons import Json, dig

_NUMBER = r"[+-]?[0-9]{1,40}(?:\.[0-9]{0,40})?|[+-]?\.[0-9]{1,40}"
_SMALL = r"[+-]?[0-9]{41,49}(?=[num])"
"""As ``canonical`` writes the longest numbers with a fraction: in thousandths, millionths or billionths."""
_QUANTITY = re.compile(rf"({_SMALL}|{_NUMBER})(?:([eE][+-]?[0-9]{{1,3}})|([numkMGTPE]|[KMGTPE]i)?)")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
PATTERN_SAYS = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"

_EXACT = Context(prec=200)
"""Precise enough for any quantity."""
ZERO = Decimal(0)
Amounts = dict[str, Decimal]
"""By the name of the resource."""


def parse(value: Any) -> Decimal:
    """Raises ValueError."""
    m = _QUANTITY.fullmatch(str(value))
    if m is None:
        raise ValueError(PATTERN_SAYS)
    number, exponent, suffix = Decimal(m[1]), m[2], m[3] or ""
    try:
        if exponent:
            return number.scaleb(int(exponent[1:]), _EXACT)
        if suffix in _BINARY:
            return _EXACT.multiply(number, 1024 ** _BINARY[suffix])
        return number.scaleb(_DECIMAL[suffix], _EXACT)
    except InvalidOperation:
        raise ValueError(PATTERN_SAYS) from None


def of(values: Json | None) -> Amounts:
    """The amounts of a list that has been validated."""
    return {name: parse(value) for name, value in (values or {}).items()}


def text(amount: Decimal, binary: bool = False) -> str:
    """The canonical spelling: thousandths as ``m``; with ``binary`` in the largest unit of 1024 that leaves no rest."""
    if amount != amount.to_integral_value():
        return f"{int(_thousandths(amount).to_integral_value(rounding='ROUND_CEILING'))}m"
    whole, suffix = int(amount), ""
    units = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei") if binary else ("k", "M", "G", "T", "P", "E")
    for unit in units if whole else ():
        if whole % (1024 if binary else 1000):
            break
        whole, suffix = whole // (1024 if binary else 1000), unit
    return f"{whole}{suffix}"


def canonical(given: str | float) -> str:
    """A quantity as Kubernetes writes it back: the largest unit without a fraction, else thousandths; with an exponent,
    or finer than thousandths, as it is given. So is what is no quantity."""
    m = _QUANTITY.fullmatch(str(given))
    if m is None or m[2] or m[3] in ("n", "u"):
        return str(given)
    amount = parse(given)
    fine = _thousandths(amount)
    return text(amount, binary=(m[3] or "").endswith("i")) if fine == fine.to_integral_value() else str(given)


def _thousandths(amount: Decimal) -> Decimal:
    return _EXACT.multiply(amount, 1000)


def add(into: Amounts, more: Amounts) -> None:
    for name, amount in more.items():
        into[name] = into.get(name, ZERO) + amount


def _largest(into: Amounts, other: Amounts) -> None:
    for name, amount in other.items():
        into[name] = max(into.get(name, ZERO), amount)


def of_pod(spec: Json, part: str) -> Amounts:
    """``part``: requests or limits. All containers and sidecars together, or the largest init container with the
    sidecars before it, whichever is more (as kube-scheduler, ``PodRequests``); a limit stands for a missing request."""
    together: Amounts = {}
    for container in spec.get("containers") or []:
        add(together, _container(container, part))
    sidecars: Amounts = {}
    starting: Amounts = {}
    for container in spec.get("initContainers") or []:
        own = _container(container, part)
        if container.get("restartPolicy") == "Always":
            add(together, own)
            add(sidecars, own)
            own = {}
        now = dict(sidecars)
        add(now, own)
        _largest(starting, now)
    _largest(together, starting)
    add(together, of(spec.get("overhead")))
    return together


def _container(container: Json, part: str) -> Amounts:
    resources = container.get("resources") or {}
    found = of(resources.get("limits")) if part == "requests" else {}
    return found | of(resources.get(part))


def containers(spec: Json) -> Iterator[Json]:
    """Init containers and containers."""
    yield from spec.get("initContainers") or []
    yield from spec.get("containers") or []


def total(parts: Iterable[Amounts]) -> Amounts:
    out: Amounts = {}
    for part in parts:
        add(out, part)
    return out


def qos(spec: Json) -> str:
    """Guaranteed: cpu and memory limits everywhere, with requests equal to them; BestEffort: neither anywhere."""
    some, all_limited = False, True
    for c in containers(spec):
        limits, requests = (of(dig(c, "resources", part)) for part in ("limits", "requests"))
        for what in ("cpu", "memory"):
            limit, request = limits.get(what, ZERO), requests.get(what, ZERO)
            some = some or bool(limit or request)
            all_limited = all_limited and bool(limit) and request in (ZERO, limit)
    return "Guaranteed" if all_limited else "Burstable" if some else "BestEffort"


def changed(old: Json, new: Json) -> tuple[str, ...]:
    """What of cpu and memory differs between a container's ``resources`` before and after."""
    parts = [(of(old.get(part)), of(new.get(part))) for part in ("requests", "limits")]
    return tuple(n for n in ("cpu", "memory") if any(was.get(n) != now.get(n) for was, now in parts))


RESTARTS = "RestartContainer"


def restarts(container: Json, changed: tuple[str, ...]) -> bool:
    """Whether a container has to be started again when these resources of it have changed."""
    rules = container.get("resizePolicy") or []
    return any(r.get("resourceName") in changed and r.get("restartPolicy") == RESTARTS for r in rules)
