"""Kubernetes' quantities: amounts of resources."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any

from lateen.cluster.apiserver.validation import names
from lateen.cluster.apiserver.validation.fields import Causes, bad, missing
from lateen.kit.jsons import Json

_NUMBER = r"[+-]?[0-9]{1,40}(?:\.[0-9]{0,40})?|[+-]?\.[0-9]{1,40}"
_QUANTITY = re.compile(rf"({_NUMBER})(?:([eE][+-]?[0-9]{{1,3}})|([numkMGTPE]|[KMGTPE]i)?)")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
PATTERN_SAYS = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


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


def requirements(value: Json, path: str, claims: set[str]) -> Causes:
    """ResourceRequirements: names, amounts, and requests within their limits."""
    out: Causes = []
    found: dict[str, dict[str, Decimal]] = {"limits": {}, "requests": {}}
    for part, amounts in found.items():
        for name, amount in (value.get(part) or {}).items():
            at = f"{path}.{part}"
            out += [bad(at, name, s) for s in names.qualified(name)]
            try:
                amounts[name] = parse(amount)
                if amounts[name] < 0:
                    out.append(bad(f"{at}[{name}]", str(amount), "must be greater than or equal to 0"))
            except ValueError as e:
                out.append(bad(f"{at}[{name}]", amount, str(e)))
    for name, amount in found["requests"].items():
        limit = found["limits"].get(name)
        if limit is not None and amount > limit:
            given = value["requests"][name]
            out.append(
                bad(f"{path}.requests", given, f"must be less than or equal to {name} limit of {value['limits'][name]}")
            )
    for i, claim in enumerate(value.get("claims") or []):
        if claim.get("name") not in claims:
            out.append(missing(f"{path}.claims[{i}].name", claim.get("name") or ""))
    return out
