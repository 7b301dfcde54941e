"""The effective mesh configuration: the ConfigMap's, or its last valid version.

An invalid configuration is not used in part: a misspelt REGISTRY_ONLY would let everything out. The last valid one is
kept (``accepted``); if there is none yet, unknown hosts are blocked until the mistake is corrected.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from lateen.api.mesh.reading import Invalid, mesh_config, mesh_networks
from lateen.control.accepted import Accepted
from lateen.kit import faults
from lateen.kit.jsons import Json, dig
from lateen.mesh.configuration import settings
from lateen.mesh.settings import Cluster, MeshConfig, OutboundPolicy
from lateen.wire.revision import Revision

log = logging.getLogger("lateen.control.meshconfig")

MESH, NETWORKS = "mesh", "meshNetworks"
"""The keys of the mesh configuration and of MeshNetworks."""
_DELETED = "the ConfigMap has been deleted; its last content stays in effect"


class MeshConfigSource:
    """``settings`` are in effect; ``problem`` is the error in the current ConfigMap, if any."""

    def __init__(self, root_namespace: str, revision: Revision, cluster: Cluster, kept: Accepted) -> None:
        self._root, self._revision, self._cluster, self._kept = root_namespace, revision, cluster, kept
        self._networks = ""
        """The text of MeshNetworks that ``settings`` were parsed from."""
        self.settings = self._default()
        self.problem = ""
        self._missing = True
        self.accepted: str | None = None
        """The text that ``settings`` were parsed from."""

    def changed(self, key: tuple[str, str], new: Json | None) -> bool:
        """Handle an event of a ConfigMap; returns whether ``settings`` or ``problem`` may have changed."""
        namespace, name = key
        if namespace != self._root:
            return False
        text: str | None = dig(new, "data", MESH, default="") if new else None
        networks = str(dig(new, "data", NETWORKS, default="") if new else "")
        if self._kept.changed(key, new):
            if self.accepted is None and (self.problem or self._missing) and MESH in (self._kept.stored or {}):
                self._fall_back()
                self.problem = self.problem or _DELETED
                return True
        elif name == self._revision.config_map:
            self._missing = text is None
            if text is None:
                self.problem = _DELETED
                log.error("ConfigMap %s: %s", name, self.problem)
            else:
                self._take(text, networks)
            return True
        return False

    def _take(self, text: str, networks: str) -> None:
        try:
            made = settings(mesh_config(text), self._root, self._cluster, mesh_networks(networks))
        except Exception as e:  # noqa: BLE001 - also a fault in reading it must not end istiod
            self.problem = str(e) if isinstance(e, Invalid) else faults.sentence(e)
            if self.accepted is None:
                self._fall_back()
            name = self._revision.config_map
            log.error("the mesh configuration (ConfigMap %s) is not used: %s", name, self.problem)
            return
        self.problem, self.settings = "", made
        if (text, networks) != (self.accepted, self._networks):
            self.accepted, self._networks = text, networks
            self._kept.take(**{MESH: text, NETWORKS: networks or None})

    def _default(self) -> MeshConfig:
        return settings(mesh_config("{}"), self._root, self._cluster)

    def _fall_back(self) -> None:
        """Fall back to what an earlier istiod used."""
        stored = self._kept.stored or {}
        if MESH not in stored:
            self.settings = replace(self._default(), outbound=OutboundPolicy("REGISTRY_ONLY"))
            return
        try:
            text, networks = stored[MESH], stored.get(NETWORKS, "")
            self.settings = settings(mesh_config(text), self._root, self._cluster, mesh_networks(networks))
            self.accepted, self._networks = text, networks
        except Exception as e:  # noqa: BLE001 - written by another version of istiod
            says = str(e) if isinstance(e, Invalid) else faults.sentence(e)
            log.error("the last valid mesh configuration can no longer be used: %s", says)
