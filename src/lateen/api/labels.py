"""Istio's labels that have no effect, and why; the injection webhook warns about those of pods. Pure.

Source: https://istio.io/latest/docs/reference/config/labels/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_AMBIENT = "ambient mode is not implemented"
LABELS: dict[str, str] = {
    **dict.fromkeys(
        (
            "istio.io/ingress-use-waypoint",
            "istio.io/use-waypoint",
            "istio.io/use-waypoint-namespace",
            "istio.io/waypoint-for",
            "networking.istio.io/tunnel",
        ),
        _AMBIENT,
    ),
    "istio.io/global": "it is for ambient mode; a Service of several clusters is one host without it",
}
"""Label -> why it has no effect."""
AMBIENT = "istio.io/dataplane-mode"


def ineffective(labels: Mapping[str, Any]) -> list[str]:
    """A sentence for each label without an effect."""
    found = {name: why for name, why in LABELS.items() if name in labels}
    if labels.get(AMBIENT) == "ambient":
        found[AMBIENT] = _AMBIENT
    return [f"label {name}: it has no effect in this version of Lateen: {why}" for name, why in found.items()]
