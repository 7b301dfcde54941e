"""How far ServiceEntries can be exported (``serviceEntryVisibility`` of the mesh configuration): it narrows their
``exportTo``, and never widens it.

Source: https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#ServiceEntryVisibility and
``ServiceEntryVisibilityMatcher`` in pilot/pkg/model of istio.io/istio.
"""

from __future__ import annotations

from collections.abc import Mapping

from lateen.api.mesh.config import LabelSelector, ServiceEntryVisibility
from lateen.kit import selectors

NOBODY = ("~",)


def limited(
    limits: ServiceEntryVisibility, labels: Mapping[str, str], owner: str, export_to: tuple[str, ...]
) -> tuple[str, ...]:
    """The ``exportTo`` that is in effect. ``labels``: those of the entry's namespace, ``owner``."""
    match _level(limits, labels):
        case "NONE":
            return NOBODY
        case "NAMESPACE":
            return (".",) if not export_to or {"*", ".", owner} & set(export_to) else NOBODY
    return export_to


def _level(limits: ServiceEntryVisibility, labels: Mapping[str, str]) -> str | None:
    """Of the first policy whose rules all match, else the default. A rule without a selector matches nothing."""
    for policy in limits.policies:
        chosen = (rule.namespace_selector for rule in policy.matching_rules)
        if all(s is not None and _selects(s, labels) for s in chosen):
            return policy.visibility
    return limits.default_visibility


def _selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    expressions = [{"key": e.key, "operator": e.operator, "values": e.values} for e in selector.match_expressions]
    return selectors.matches({"matchLabels": selector.match_labels, "matchExpressions": expressions}, labels)
