"""The objects of an installation: plain Kubernetes objects, in the order in which they are applied. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lateen.install import control_plane, core, gateways, webhooks
from lateen.install.objects import NAMESPACE, PILOT_IMAGE, PROXY_IMAGE, image
from lateen.install.operator import Operator, enabled
from lateen.kit.jsons import Json, dig

__all__ = ["NAMESPACE", "PILOT_IMAGE", "PROXY_IMAGE", "Part", "render"]


@dataclass(frozen=True)
class Part:
    """Objects that are applied together, and whose deployments are waited for."""

    title: str
    objects: tuple[Json, ...]
    deployments: tuple[tuple[str, str], ...] = ()
    """(namespace, name)"""


def render(operator: Operator) -> list[Part]:
    spec, revision = operator.spec, operator.revision
    base = core.shared()
    if not dig(spec, "components", "pilot", "enabled"):
        out = [Part("Istio core", (*base,))]
    else:
        settings = core.settings(operator)
        out = [Part("Istio core", (*base, *core.permissions(revision, core.deploys_gateways(spec)), *settings))]
        istiod = (*control_plane.objects(spec, revision), *webhooks.objects(revision))
        out.append(Part("Istiod", istiod, ((NAMESPACE, revision.istiod),)))
    for kind, title in (("egressGateways", "Egress gateways"), ("ingressGateways", "Ingress gateways")):
        wanted = enabled(spec, kind)
        if wanted:
            values = spec.get("values") or {}
            ingress, proxy = kind == "ingressGateways", image(spec, "proxyv2")
            objects = tuple(o for g in wanted for o in gateways.objects(g, ingress, revision, proxy, values))
            deployments = tuple((gateways.namespace_of(g), str(g["name"])) for g in wanted)
            out.append(Part(title, objects, deployments))
    return out
