"""Whether a pod is injected. The order of rules is Istio's: the pod's own label or annotation, then the installation's
selectors, then its policy."""

from __future__ import annotations

from collections.abc import Mapping

from lateen.api.reading import INJECT as INJECT
from lateen.api.reading import opted
from lateen.inject.settings import Settings
from lateen.kit import selectors
from lateen.kit.jsons import Json, dig

SKIPPED_NAMESPACES = ("kube-system", "kube-public", "kube-node-lease", "local-path-storage")


def wanted(pod: Json, namespace: str, settings: Settings | None = None) -> bool:
    """The decision for a pod that was selected by a webhook's selector, or by kube-inject."""
    settings = settings or Settings()
    if dig(pod, "spec", "hostNetwork") or namespace in SKIPPED_NAMESPACES:
        return False
    labels = dig(pod, "metadata", "labels", default={})
    said = opted(labels, dig(pod, "metadata", "annotations", default={}))
    if said is not None:
        inject = said
    elif any(_selects(s, labels) for s in settings.never_inject):
        inject = False
    elif any(_selects(s, labels) for s in settings.always_inject):
        inject = True
    else:
        inject = settings.policy == "enabled"
    return inject and settings.policy in ("enabled", "disabled")


def _selects(selector: Json, labels: Mapping[str, str]) -> bool:
    """Match a LabelSelector; one without terms selects nothing here, as in Istio."""
    return bool(selector.get("matchLabels") or selector.get("matchExpressions")) and selectors.matches(selector, labels)
