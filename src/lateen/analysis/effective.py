"""Effective settings of workloads, computed by the mesh model, for callers that have objects as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lateen.api import kinds
from lateen.api.config import DecodeError, decode
from lateen.api.decoding import resource
from lateen.api.security import PeerAuthentication
from lateen.kit.jsons import Json
from lateen.mesh.model import Mesh
from lateen.mesh.objects import Objects
from lateen.mesh.settings import MeshConfig


class PeerModes:
    """The mutual TLS modes that result from PeerAuthentications, as the mesh interprets them."""

    def __init__(self, policies: Iterable[Json], root_namespace: str) -> None:
        """Policies that the mesh cannot decode are ignored."""
        found = {}
        for obj in policies:
            meta = obj["metadata"]
            key = (str(meta.get("namespace", "")), str(meta["name"]))
            try:
                spec = decode(PeerAuthentication, obj.get("spec") or {})
            except DecodeError:
                continue
            found[key] = resource(kinds.PEER_AUTHENTICATION.ref(*key), obj, spec)
        objects = Objects(MeshConfig(root_namespace=root_namespace))
        self._mesh = Mesh(objects.replaced(kinds.PEER_AUTHENTICATION, found))

    def of(self, namespace: str, labels: Mapping[str, str]) -> tuple[str, dict[int, str], str]:
        """For a workload: STRICT, PERMISSIVE or DISABLE; the ports with other modes; and ``namespace/name`` of the
        policy that decides, empty if there is none."""
        mode, ports, ref = self._mesh.mtls(namespace, labels)
        return mode, dict(ports), f"{ref.namespace}/{ref.name}" if ref else ""
