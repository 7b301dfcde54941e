"""A mesh of objects as JSON, for callers that ask single questions. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lateen.api import decoding, kinds
from lateen.api.config import DecodeError, decode
from lateen.api.domain import CLUSTER_DOMAIN
from lateen.kit.jsons import Json
from lateen.mesh.model import Mesh
from lateen.mesh.objects import Objects
from lateen.mesh.settings import MeshConfig


def mesh_of(objects: Iterable[tuple[kinds.Kind, Json]], root_namespace: str) -> Mesh:
    """Objects that the mesh cannot decode are ignored."""
    found: dict[kinds.Kind, dict[tuple[str, str], Any]] = {}
    for kind, obj in objects:
        meta = obj["metadata"]
        key = (str(meta.get("namespace", "")), str(meta["name"]))
        try:
            made = _decoded(kind, key, obj)
        except DecodeError:
            continue
        found.setdefault(kind, {})[key] = made
    out = Objects(MeshConfig(root_namespace=root_namespace))
    for kind, some in found.items():
        out = out.replaced(kind, some)
    return Mesh(out)


def _decoded(kind: kinds.Kind, key: tuple[str, str], obj: Json) -> Any:
    """Raises DecodeError."""
    if kind is kinds.SERVICE:
        return decoding.service(obj, CLUSTER_DOMAIN)
    assert kind.spec is not None
    return decoding.resource(kind.ref(*key), obj, decode(kind.spec, obj.get("spec") or {}))
