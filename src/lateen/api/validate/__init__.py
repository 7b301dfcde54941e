"""What Istio's validator refuses and warns about, in sentences with the field's path. Pure.

The structure (types, enums, unknown fields) is the CRD schema's business; here are the rules between fields. The
facts of the rules are Istio's (pkg/config/validation and the CEL rules of its CRDs); ``validate``, ``analyze`` and
the admission webhook all ask here. Which function has the rules of a kind is said by its row in ``api.kinds``.
"""

from __future__ import annotations

from lateen.api import kinds
from lateen.api.config import DecodeError, Defaulted, complete, decode
from lateen.api.validate.findings import Finding
from lateen.api.validate.limits import limited
from lateen.api.validate.shapes import shapes
from lateen.kit.jsons import Json

__all__ = ["Finding", "findings", "problems", "warnings"]


def findings(obj: Json) -> list[Finding]:
    """Everything to say about a mesh object, errors first; kinds that are not the mesh's have none."""
    kind = kinds.of(obj)
    if kind is None or not kind.owned or kind.spec is None:
        return []
    spec = obj.get("spec") or {}
    if not isinstance(spec, dict):
        return [Finding("spec", f"expected a mapping, got {type(spec).__name__}")]
    try:
        typed = decode(kind.spec, complete(kind.spec, spec))
    except DecodeError as e:
        return [Finding(e.path, e.says)]
    meta = obj.get("metadata") or {}
    found = [*shapes(kind, spec, meta), *(kind.rules(typed, meta) if kind.rules else ())]
    if issubclass(kind.spec, Defaulted):
        found += limited(kind.spec, spec)
    return sorted(found, key=lambda f: f.warning)


def problems(obj: Json) -> list[tuple[str, str]]:
    """(path, sentence) for everything that the object is refused for."""
    return [(f.path, f.says) for f in findings(obj) if not f.warning]


def warnings(obj: Json) -> list[tuple[str, str]]:
    """(path, sentence) for what is accepted but not as its author may think."""
    return [(f.path, f.says) for f in findings(obj) if f.warning]
