"""Istio's labels: which exist, which have no effect, and why; the injection webhook warns about those of pods. Pure.

Source: https://istio.io/latest/docs/reference/config/labels/
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

_AMBIENT = "ambient mode is not implemented"
LABELS: dict[str, str] = {
    **dict.fromkeys(
        (
            "istio.io/ingress-use-waypoint",
            "istio.io/use-waypoint",
            "istio.io/use-waypoint-canary",
            "istio.io/use-waypoint-canary-namespace",
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
KNOWN = frozenset(
    (
        *LABELS,
        AMBIENT,
        "gateway.istio.io/managed",
        "istio.io/rev",
        "istio.io/tag",
        "networking.istio.io/enable-autoallocate-ip",
        "networking.istio.io/gatewayPort",
        "security.istio.io/tlsMode",
        "service.istio.io/canonical-name",
        "service.istio.io/canonical-revision",
        "service.istio.io/workload-name",
        "sidecar.istio.io/inject",
        "topology.istio.io/cluster",
        "topology.istio.io/locality",
        "topology.istio.io/network",
        "topology.istio.io/subzone",
    )
)
"""Every label of a domain of ``istio.io``, those of Istio's operator apart."""
_NEAR = {"istio.io/inject": "sidecar.istio.io/inject", "istio.io/revision": "istio.io/rev"}
"""Misspelt labels that are not alike enough."""


def ineffective(labels: Mapping[str, Any]) -> list[str]:
    """A sentence for each label without an effect."""
    found = {name: why for name, why in LABELS.items() if name in labels}
    if labels.get(AMBIENT) == "ambient":
        found[AMBIENT] = _AMBIENT
    out = [f"label {name}: it has no effect in this version of Lateen: {why}" for name, why in found.items()]
    for name in labels:
        domain = name.partition("/")[0]
        if name not in KNOWN and (domain == "istio.io" or domain.endswith(".istio.io")) and "operator." not in domain:
            near = [_NEAR[name]] if name in _NEAR else difflib.get_close_matches(name, sorted(KNOWN), 1, 0.75)
            out.append(f"label {name}: Istio has no such label" + (f'; did you mean "{near[0]}"?' if near else ""))
    return out
