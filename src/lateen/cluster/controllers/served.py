"""The kinds that users define."""

from __future__ import annotations

from lateen.api.kinds import Kind
from lateen.kit.jsons import Json, dig


def custom(crd: Json) -> Kind | None:
    """The kind that a CustomResourceDefinition declares, in the version that is stored if that is served: reading it
    needs no webhook. None if no version is served."""
    spec = crd["spec"]
    served = [v for v in spec.get("versions") or [] if v.get("served", True)]
    if not served:
        return None
    version = next((v["name"] for v in served if v.get("storage")), served[0]["name"])
    namespaced = spec.get("scope") == "Namespaced"
    return Kind(spec["group"], version, dig(spec, "names", "plural"), dig(spec, "names", "kind"), namespaced)
