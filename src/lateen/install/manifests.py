"""The objects of an installation: plain Kubernetes objects, in the order in which they are applied. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lateen.install import cni, control_plane, core, gateways, k8s, overlays, remote, webhooks
from lateen.install.objects import NAMESPACE, PILOT_IMAGE, PROXY_IMAGE, image
from lateen.install.operator import Operator, OperatorError, enabled
from lateen.kit.jsons import Json, dig

__all__ = ["NAMESPACE", "PILOT_IMAGE", "PROXY_IMAGE", "Part", "render"]
from lateen.wire.revision import Revision, part_of


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
    """Raises OperatorError about overlays that do not fit the objects."""
    spec, revision = operator.spec, operator.revision
    base = core.shared(core.is_experimental(spec), dig(spec, "values", "global", "network", default=""))
    if dig(spec, "components", "base", "enabled") is False:
        base = [o for o in base if o["kind"] == "Namespace"]
    base = _overlaid(spec, "base", base)
    if remote.wanted(spec):
        elsewhere = labelled((*remote.objects(spec, revision), core.recorded(operator)), "IstiodRemote")
        out = [Part("Istio core", (*base,)), Part("Istiod remote", (*_overlaid(spec, "istiodRemote", elsewhere),))]
    elif not dig(spec, "components", "pilot", "enabled"):
        out = [Part("Istio core", (*base,))]
    else:
        first, second = _control_plane(operator)
        out = [Part("Istio core", (*base, *first)), Part("Istiod", second, ((NAMESPACE, revision.istiod),))]
    if dig(spec, "components", "cni", "enabled"):
        plugin = _overlaid(spec, "cni", labelled(cni.objects(spec, revision), "Cni"))
        out.append(Part("CNI", (*plugin,), daemons=((cni.namespace_of(spec), cni.NAME),)))
    for kind, title in (("egressGateways", "Egress gateways"), ("ingressGateways", "Ingress gateways")):
        wanted = enabled(spec, kind)
        if wanted:
            objects = tuple(o for g in wanted for o in _gateway(spec, g, kind, revision))
            deployments = tuple((gateways.namespace_of(g), str(g["name"])) for g in wanted)
            out.append(Part(title, objects, deployments))
    return out


def _control_plane(operator: Operator) -> tuple[tuple[Json, ...], tuple[Json, ...]]:
    """istiod's permissions and settings, and istiod."""
    spec, revision = operator.spec, operator.revision
    rights = core.permissions(revision, core.deploys_gateways(spec), core.signers(spec))
    own = [*k8s.applied(rights, control_plane.pod_options(spec)), *core.settings(operator)]
    istiod = (*control_plane.objects(spec, revision), *webhooks.objects(revision))
    found = _overlaid(spec, "pilot", labelled((*own, *istiod), "Pilot"))
    return tuple(found[: len(own)]), tuple(found[len(own) :])


def _gateway(spec: Json, gateway: Json, kind: str, revision: Revision) -> list[Json]:
    ingress, proxy = kind == "ingressGateways", image(spec, "proxyv2", gateway)
    objects = gateways.objects(gateway, ingress, revision, proxy, spec.get("values") or {})
    return _patched(labelled(objects, kind[0].upper() + kind[1:]), gateway, f"{kind}[name:{gateway['name']}]")


def _overlaid(spec: Json, component: str, objects: Iterable[Json]) -> list[Json]:
    return _patched(objects, dig(spec, "components", component, default={}), component)


def _patched(objects: Iterable[Json], component: Json, name: str) -> list[Json]:
    given = dig(component, "k8s", "overlays", default=[])
    try:
        return overlays.applied(list(objects), given, f"spec.components.{name}.k8s.overlays")
    except ValueError as e:
        raise OperatorError(str(e)) from None


def labelled(objects: Iterable[Json], component: str) -> tuple[Json, ...]:
    """The objects with labels that name Istio's component."""
    return tuple(
        {**o, "metadata": {**o["metadata"], "labels": o["metadata"].get("labels", {}) | part_of(component, NAMESPACE)}}
        for o in objects
    )
