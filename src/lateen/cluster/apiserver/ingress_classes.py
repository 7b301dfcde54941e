"""The class of new Ingresses that name none (the admission plugin DefaultIngressClass)."""

from __future__ import annotations

from lateen.cluster.store.objects import Store
from lateen.kit.jsons import Json, dig

CLASSES = "ingressclasses.networking.k8s.io"
DEFAULT = "ingressclass.kubernetes.io/is-default-class"
OLD = "kubernetes.io/ingress.class"
"""The annotation that named the class before there was a field."""


def complete(ingress: Json, store: Store) -> None:
    """Fill in, in place: of several default classes the newest one."""
    spec = ingress.setdefault("spec", {})
    if spec.get("ingressClassName") is not None or OLD in (ingress["metadata"].get("annotations") or {}):
        return
    found = [e for e in store.list(CLASSES) if dig(e.obj, "metadata", "annotations", DEFAULT) == "true"]
    found.sort(key=lambda e: str(e.obj["metadata"].get("creationTimestamp")), reverse=True)
    if found:
        spec["ingressClassName"] = found[0].name
