"""Warnings about an injected pod: annotations and labels without effect, and missing features of the cluster."""

from __future__ import annotations

from lateen.api.annotations import problems, telling
from lateen.api.labels import ineffective
from lateen.api.reading import INJECT
from lateen.inject.environment import BOOTSTRAP
from lateen.inject.pods import chosen
from lateen.inject.settings import Settings
from lateen.kit.jsons import Json, dig

NATIVE = "sidecar.istio.io/nativeSidecar"


def notes(pod: Json, settings: Settings) -> list[str]:
    """One sentence each. Raises ValueError, which names the annotation, for values with which the pod is rejected."""
    given = dig(pod, "metadata", "annotations", default={})
    found = problems(given)
    if errors := [str(p) for p in found if p.error]:
        raise ValueError("; ".join(errors))
    labels = dig(pod, "metadata", "labels", default={})
    out = [*(str(p) for p in found), *ineffective(labels)]
    templates = chosen(pod, settings)
    if BOOTSTRAP in given and not {"sidecar", *settings.templates} & set(templates):
        out.append(f"annotation {BOOTSTRAP}: it has no effect with the template {', '.join(templates)}, as in Istio")
    if said := telling(INJECT, str(labels.get(INJECT, ""))):
        out.append(f"label {INJECT}: {said}")
    if str(given.get(NATIVE)).lower() == "true" and not settings.native_supported:
        out.append(
            f"annotation {NATIVE}: the proxy is an ordinary container, because not every node has Kubernetes 1.29"
        )
    return out
