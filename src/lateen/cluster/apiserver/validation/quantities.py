"""Kubernetes' quantities: amounts of resources."""

from __future__ import annotations

from decimal import Decimal

from lateen.cluster.apiserver.validation import names
from lateen.cluster.apiserver.validation.fields import Causes, bad, missing
from lateen.cluster.rules.amounts import parse
from lateen.kit.jsons import Json


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
