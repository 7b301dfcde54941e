"""Servers of gateways that cannot be there, because an older Gateway uses their port otherwise."""

from __future__ import annotations

from lateen.api import objects as o
from lateen.mesh.gateways import family
from lateen.mesh.model import Mesh


def gateway_conflicts(mesh: Mesh) -> dict[str, list[str]]:
    """Gateway -> a sentence for each of its servers whose port an older one of the same workloads uses otherwise."""
    out: dict[str, list[str]] = {}
    first: dict[tuple[tuple[tuple[str, str], ...], str, int], tuple[str, o.Ref]] = {}
    for gw in sorted(mesh.objects.gateways.values(), key=lambda g: g.age_order):
        chosen = tuple(sorted(gw.spec.selector.items()))
        for s in gw.spec.servers:
            key = (chosen, s.bind, s.port.number)
            kind, owner = first.setdefault(key, (family(s), gw.ref))
            if kind != family(s):
                text = f"port {s.port.number} is {kind.upper()} by the older {owner}; the server of {family(s).upper()}"
                out.setdefault(str(gw.ref), []).append(f"{text} is left out")
    return out
