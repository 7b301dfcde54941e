"""Istio's annotations: whether they are known, on the right kind of object, and have valid values.

Invalid values are reported with the text of the injection webhook (``api/annotations``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Path, Snapshot, Source, message
from lateen.api import kinds
from lateen.api.annotations import ANY, KNOWN, Problem, is_istio, problems
from lateen.api.reading import INJECT, containers
from lateen.kit.jsons import dig

INSTEAD = {INJECT: ' in favor of the "sidecar.istio.io/inject" label'}
WRITTEN = {"sidecar.istio.io/status", "gateway.istio.io/controller-version", "istio.io/rev"}
"""Written by istiod, and copied with the objects that have them: not reported on any object."""
ALSO_WITHOUT_INIT = {
    "sidecar.istio.io/interceptionMode",
    "traffic.sidecar.istio.io/includeInboundPorts",
    "traffic.sidecar.istio.io/excludeInboundPorts",
    "traffic.sidecar.istio.io/includeOutboundIPRanges",
}
"""Written by the injector if the CNI plugin, not a container, redirects the pod's connections."""
OF_PODS = ("metadata", "annotations")
KINDS = (kinds.NAMESPACE, kinds.SERVICE, kinds.POD, kinds.DEPLOYMENT)


@analyzer("annotations.K8sAnalyzer", "Checks for misplaced and invalid Istio annotations in Kubernetes resources")
def known_and_placed(snapshot: Snapshot) -> Iterator[Message]:
    for s in snapshot.all(*KINDS):
        if s.annotations:
            yield from _placed(s)
            if s.id == kinds.POD.id:
                for p in _problems(s):
                    if p.error:
                        yield message("IST0125", s, p.annotation, p.says, path=(*OF_PODS, p.annotation))


def _placed(s: Source) -> Iterator[Message]:
    for name in s.annotations:
        if not is_istio(name) or name in WRITTEN:
            continue
        path: Path = ("metadata", "annotations", name)
        known = KNOWN.get(name)
        if known is None:
            yield message("IST0108", s, name, path=path)
            continue
        if known.deprecated and not (
            name == INJECT and INJECT in s.labels
        ):  # with both, the user is aware of the label
            yield message("IST0135", s, name, INSTEAD.get(name, ""), path=path)
        if ANY not in known.on and s.kind not in known.on:
            yield message("IST0107", s, name, ", ".join(known.on), path=path)


def _problems(pod: Source) -> Iterable[Problem]:
    """Of the pod's known annotations."""
    return problems({k: v for k, v in pod.annotations.items() if k in KNOWN and "Pod" in KNOWN[k].on})


@analyzer("annotations.EffectAnalyzer", "Checks for annotations without effect, and for those of Deployments' pods")
def effects(snapshot: Snapshot) -> Iterator[Message]:
    """What the injection webhook says. Istio examines only existing pods."""
    for pod in snapshot.all(kinds.POD):
        for p in _problems(pod):
            if not p.error:
                yield message("LAT0110", pod, p.annotation, p.says, path=(*OF_PODS, p.annotation))
    for deployment in snapshot.all(kinds.DEPLOYMENT):
        path = ("spec", "template", *OF_PODS)
        for p in problems(dig(deployment.obj, *path, default={})):
            yield message("LAT0110", deployment, p.annotation, p.says, path=(*path, p.annotation))


@analyzer("annotations.AlphaAnalyzer", "Checks for alpha Istio annotations in Kubernetes resources", on_demand=True)
def alpha(snapshot: Snapshot) -> Iterator[Message]:
    for s in snapshot.all(*KINDS):
        for name in s.annotations:
            known = KNOWN.get(name)
            if known and known.alpha and name not in WRITTEN and not (name in ALSO_WITHOUT_INIT and _without_init(s)):
                yield message("IST0136", s, name, path=("metadata", "annotations", name))


def _without_init(s: Source) -> bool:
    return s.id == kinds.POD.id and not any(c.get("name") == "istio-init" for c in containers(s.spec))
