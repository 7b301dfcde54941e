"""Istio's annotations: whether they are known, on the right kind of object, and have valid values.

Invalid values are reported with the text of the injection webhook (``api/annotations``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Path, Snapshot, Source, message
from lateen.api import kinds
from lateen.api.annotations import ANY, KNOWN, is_istio, problems
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
KINDS = (kinds.NAMESPACE, kinds.SERVICE, kinds.POD, kinds.DEPLOYMENT)


@analyzer("annotations.K8sAnalyzer", "Checks for misplaced and invalid Istio annotations in Kubernetes resources")
def known_and_placed(snapshot: Snapshot) -> Iterator[Message]:
    for s in snapshot.all(*KINDS):
        if s.annotations:
            yield from _placed(s)
            if s.id == kinds.POD.id:
                yield from _values(s, s.annotations, ("metadata", "annotations"))
        if s.id == kinds.DEPLOYMENT.id:
            template = dig(s.spec, "template", "metadata", "annotations", default={})
            yield from _template(s, template)


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


def _values(s: Source, given: Mapping[str, str], at: Path) -> Iterator[Message]:
    """Invalid values of known annotations on a pod or a pod template."""
    for p in problems({k: v for k, v in given.items() if k in KNOWN and "Pod" in KNOWN[k].on}):
        path = (*at, p.annotation)
        if p.error:
            yield message("IST0125", s, p.annotation, p.says, path=path)
        else:
            yield message("LAT0110", s, p.annotation, p.says, path=path)


def _template(s: Source, given: Mapping[str, str]) -> Iterator[Message]:
    """The webhook's findings for a Deployment's pods; Istio examines only existing pods."""
    for p in problems(given):
        yield message(
            "LAT0110", s, p.annotation, p.says, path=("spec", "template", "metadata", "annotations", p.annotation)
        )


@analyzer("annotations.AlphaAnalyzer", "Checks for alpha Istio annotations in Kubernetes resources", on_demand=True)
def alpha(snapshot: Snapshot) -> Iterator[Message]:
    for s in snapshot.all(*KINDS):
        for name in s.annotations:
            known = KNOWN.get(name)
            if known and known.alpha and name not in WRITTEN and not (name in ALSO_WITHOUT_INIT and _without_init(s)):
                yield message("IST0136", s, name, path=("metadata", "annotations", name))


def _without_init(s: Source) -> bool:
    return s.id == kinds.POD.id and not any(c.get("name") == "istio-init" for c in containers(s.spec))
