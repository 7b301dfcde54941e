"""Kubernetes' quantities, and how much a pod asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from lateen.kit.jsons import Json

_NUMBER = r"[+-]?[0-9]{1,40}(?:\.[0-9]{0,40})?|[+-]?\.[0-9]{1,40}"
_QUANTITY = re.compile(rf"({_NUMBER})(?:([eE][+-]?[0-9]{{1,3}})|([numkMGTPE]|[KMGTPE]i)?)")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
PATTERN_SAYS = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"

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
            return number.scaleb(int(exponent[1:]))
        return number * 1024 ** _BINARY[suffix] if suffix in _BINARY else number.scaleb(_DECIMAL[suffix])
    except InvalidOperation:
        raise ValueError(PATTERN_SAYS) from None


def of(values: Json | None) -> Amounts:
    """The amounts of a list that has been validated."""
    return {name: parse(value) for name, value in (values or {}).items()}


def text(amount: Decimal, binary: bool = False) -> str:
    """The canonical spelling: thousandths as ``m``; with ``binary`` in the largest unit of 1024 that leaves no rest."""
    if amount != amount.to_integral_value():
        return f"{(amount * 1000).to_integral_value(rounding='ROUND_CEILING')}m"
    whole, suffix = int(amount), ""
    units = ("Ki", "Mi", "Gi", "Ti", "Pi") if binary else ("k", "M", "G", "T", "P")
    for unit in units if whole else ():
        if whole % (1024 if binary else 1000):
            break
        whole, suffix = whole // (1024 if binary else 1000), unit
    return f"{whole}{suffix}"


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
