"""Every kind that the cluster stores: its own, and those of CustomResourceDefinitions."""

from __future__ import annotations

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.kit.jsons import Json, dig

LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")
BUILT_IN = (*kinds.BUILT_IN, LEASE)


def custom(crd: Json) -> Kind | None:
    """The kind that a CustomResourceDefinition declares; None where it serves no version."""
    spec = crd["spec"]
    version = next((v["name"] for v in spec.get("versions") or [] if v.get("served", True)), None)
    if version is None:
        return None
    namespaced = spec.get("scope") == "Namespaced"
    return Kind(spec["group"], version, dig(spec, "names", "plural"), dig(spec, "names", "kind"), namespaced)
