"""The kinds that users define."""

from __future__ import annotations

from lateen.api.kinds import Kind
from lateen.kit.jsons import Json, dig


def custom(crd: Json) -> Kind | None:
    """The kind that a CustomResourceDefinition declares; None if it serves no version."""
    spec = crd["spec"]
    version = next((v["name"] for v in spec.get("versions") or [] if v.get("served", True)), None)
    if version is None:
        return None
    namespaced = spec.get("scope") == "Namespaced"
    return Kind(spec["group"], version, dig(spec, "names", "plural"), dig(spec, "names", "kind"), namespaced)
