"""Effective settings of workloads, computed by the mesh model, for callers that have objects as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lateen.api import kinds
from lateen.kit.jsons import Json
from lateen.mesh.reading import mesh_of


class PeerModes:
    """The mutual TLS modes that result from PeerAuthentications, as the mesh interprets them."""

    def __init__(self, policies: Iterable[Json], root_namespace: str) -> None:
        """Policies that the mesh cannot decode are ignored."""
        self._mesh = mesh_of(((kinds.PEER_AUTHENTICATION, p) for p in policies), root_namespace)

    def of(self, namespace: str, labels: Mapping[str, str]) -> tuple[str, dict[int, str], str]:
        """For a workload: STRICT, PERMISSIVE or DISABLE; the ports with other modes; and ``namespace/name`` of the
        policy that decides, empty if there is none."""
        mode, ports, ref = self._mesh.mtls(namespace, labels)
        return mode, dict(ports), f"{ref.namespace}/{ref.name}" if ref else ""
