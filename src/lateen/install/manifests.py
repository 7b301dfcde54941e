"""The objects of an installation: plain Kubernetes objects, in the order in which they are applied. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lateen.install import cni, control_plane, core, gateways, remote, webhooks
from lateen.install.objects import NAMESPACE, PILOT_IMAGE, PROXY_IMAGE, image
from lateen.install.operator import Operator, enabled
from lateen.kit.jsons import Json, dig

__all__ = ["NAMESPACE", "PILOT_IMAGE", "PROXY_IMAGE", "Part", "render"]
from lateen.wire.revision import part_of


@dataclass(frozen=True)
class Part:
    """Objects that are applied together, followed by waiting for their deployments."""

    title: str
    objects: tuple[Json, ...]
    deployments: tuple[tuple[str, str], ...] = ()
    """(namespace, name)"""
    daemons: tuple[tuple[str, str], ...] = ()
    """The DaemonSets to wait for."""


def render(operator: Operator) -> list[Part]:
    spec, revision = operator.spec, operator.revision
    base = core.shared(core.is_experimental(spec), dig(spec, "values", "global", "network", default=""))
    if remote.wanted(spec):
        record = core.recorded(operator)
        elsewhere = labelled((*remote.objects(spec, revision), record), "IstiodRemote")
        out = [Part("Istio core", (*base,)), Part("Istiod remote", elsewhere)]
    elif not dig(spec, "components", "pilot", "enabled"):
        out = [Part("Istio core", (*base,))]
    else:
        settings = core.settings(operator)
        own = (*core.permissions(revision, core.deploys_gateways(spec), core.signers(spec)), *settings)
        out = [Part("Istio core", (*base, *labelled(own, "Pilot")))]
        istiod = (*control_plane.objects(spec, revision), *webhooks.objects(revision))
        out.append(Part("Istiod", labelled(istiod, "Pilot"), ((NAMESPACE, revision.istiod),)))
    if dig(spec, "components", "cni", "enabled"):
        plugin = labelled(cni.objects(spec, revision), "Cni")
        out.append(Part("CNI", plugin, daemons=((NAMESPACE, cni.NAME),)))
    for kind, title in (("egressGateways", "Egress gateways"), ("ingressGateways", "Ingress gateways")):
        wanted = enabled(spec, kind)
        if wanted:
            values = spec.get("values") or {}
            ingress, proxy = kind == "ingressGateways", image(spec, "proxyv2")
            objects = tuple(o for g in wanted for o in gateways.objects(g, ingress, revision, proxy, values))
            deployments = tuple((gateways.namespace_of(g), str(g["name"])) for g in wanted)
            out.append(Part(title, labelled(objects, kind[0].upper() + kind[1:]), deployments))
    return out


def labelled(objects: Iterable[Json], component: str) -> tuple[Json, ...]:
    """The objects with labels that name Istio's component."""
    return tuple(
        {**o, "metadata": {**o["metadata"], "labels": o["metadata"].get("labels", {}) | part_of(component, NAMESPACE)}}
        for o in objects
    )
