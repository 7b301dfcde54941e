"""Kubernetes' quantities: amounts of resources."""

from __future__ import annotations

from decimal import Decimal

from lateen.cluster.apiserver.validation import names
from lateen.cluster.apiserver.validation.fields import Causes, bad, denied, missing, required
from lateen.cluster.rules.amounts import parse
from lateen.kit.jsons import Json

_STANDARD = ("cpu", "memory", "ephemeral-storage")


def _named(name: str) -> list[str]:
    """Which resource a container may ask for: a standard one, or one of a domain."""
    if wrong := names.qualified(name):
        return wrong
    if "/" in name or name in _STANDARD or name.startswith("hugepages-"):
        return []
    return ["must be a standard resource type or fully qualified", "must be a standard resource for containers"]


def requirements(value: Json, path: str, claims: set[str]) -> Causes:
    """ResourceRequirements: names, amounts, and requests within their limits."""
    out: Causes = []
    found: dict[str, dict[str, Decimal]] = {"limits": {}, "requests": {}}
    for part, amounts in found.items():
        for name, amount in (value.get(part) or {}).items():
            at = f"{path}.{part}"
            out += [bad(f"{at}[{name}]", name, s) for s in _named(name)]
            try:
                amounts[name] = parse(amount)
                if "/" in name and amounts[name] != amounts[name].to_integral_value():
                    out.append(bad(f"{at}[{name}]", str(amount), "must be an integer"))
                if amounts[name] < 0:
                    out.append(bad(f"{at}[{name}]", str(amount), "must be greater than or equal to 0"))
            except ValueError as e:
                out.append(bad(f"{at}[{name}]", amount, str(e)))
    asked = {*found["limits"], *found["requests"]}
    if any(name.startswith("hugepages-") for name in asked) and not asked & {"cpu", "memory"}:
        out.append(denied(path, "HugePages require cpu or memory"))
    for name, amount in found["requests"].items():
        limit = found["limits"].get(name)
        if limit is None and "/" in name:
            out.append(required(f"{path}.limits", "Limit must be set for non overcommitable resources"))
        if limit is not None and amount > limit:
            given = value["requests"][name]
            out.append(
                bad(f"{path}.requests", given, f"must be less than or equal to {name} limit of {value['limits'][name]}")
            )
    for i, claim in enumerate(value.get("claims") or []):
        if claim.get("name") not in claims:
            out.append(missing(f"{path}.claims[{i}].name", claim.get("name") or ""))
    return out
