"""Rules that never get a request, and servers of gateways that cannot be there, because of an older object.

Istio leaves every rule but the oldest out without a word; Lateen asks the rules of a host one after the other, so that
a later one is only out of reach behind one that takes everything.
"""

from __future__ import annotations

from lateen.api import objects as o
from lateen.api.networking import HTTPMatchRequest, VirtualService
from lateen.mesh.gateways import family
from lateen.mesh.model import Mesh


def _everything(m: HTTPMatchRequest) -> bool:
    narrow = (m.scheme, m.method, m.authority, m.headers, m.without_headers, m.query_params, m.port)
    narrow_too = (m.source_labels, m.source_namespace)
    return not any((*narrow, *narrow_too)) and (m.uri is None or m.uri.prefix == "/")


def takes_everything(spec: VirtualService) -> bool:
    return any(not r.match or any(_everything(m) for m in r.match) for r in spec.http)


def shadowed(mesh: Mesh) -> dict[str, list[tuple[str, o.Ref]]]:
    """Rule -> (host, the rule that has all of its requests) for each of its hosts where it is out of reach."""
    out: dict[str, list[tuple[str, o.Ref]]] = {}
    for host, rules in mesh.rules_by_host().items():
        first = None
        for vs in rules:
            if first is not None and vs.spec.http and vs.ref != first.ref:
                out.setdefault(str(vs.ref), []).append((host, first.ref))
            everybody = not vs.spec.export_to or "*" in vs.spec.export_to
            if first is None and everybody and takes_everything(vs.spec):
                first = vs
    return out


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
