"""The effective mesh configuration: the ConfigMap's, or its last valid version.

An invalid configuration is not used in part: a misspelt REGISTRY_ONLY would let everything out. The last valid one is
stored in a ConfigMap of its own, so that a restart of istiod does not lose it; if there is none yet, unknown hosts are
blocked until the mistake is corrected.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from lateen.api import kinds
from lateen.api.mesh.reading import Invalid, mesh_config, mesh_networks
from lateen.kit import faults
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError
from lateen.mesh.configuration import settings
from lateen.mesh.settings import Cluster, MeshConfig, OutboundPolicy
from lateen.wire.revision import Revision, part_of

log = logging.getLogger("lateen.control.meshconfig")

RETRY_S = 5.0
NETWORKS = "meshNetworks"
"""The key of MeshNetworks, alongside ``mesh``."""


class MeshConfigSource:
    """``settings`` are in effect; ``problem`` is the error in the current ConfigMap, if any."""

    def __init__(self, root_namespace: str, revision: Revision, cluster: Cluster) -> None:
        self._root, self._revision, self._cluster = root_namespace, revision, cluster
        self._networks = ""
        """The text of MeshNetworks that ``settings`` were parsed from."""
        self.settings = self._default()
        self.problem = ""
        self._missing = True
        self.accepted: str | None = None
        """The text that ``settings`` were parsed from."""
        self.stored: str | None = None
        """The text in the ConfigMap of the last valid configuration."""
        self._stored_networks = ""
        self.taken = asyncio.Event()
        """Set whenever ``accepted`` changes."""

    def changed(self, key: tuple[str, str], new: Json | None) -> bool:
        """Handle an event of a ConfigMap; returns whether ``settings`` or ``problem`` may have changed."""
        namespace, name = key
        if namespace != self._root:
            return False
        text: str | None = dig(new, "data", "mesh", default="") if new else None
        networks = str(dig(new, "data", NETWORKS, default="") if new else "")
        if name == self._revision.accepted_config_map:
            self.stored, self._stored_networks = text, networks
            if self.accepted is None and (self.problem or self._missing) and text is not None:
                self._fall_back()
                return True
        elif name == self._revision.config_map:
            self._missing = text is None
            if text is None:
                self.problem = "the ConfigMap has been deleted; its last content stays in effect"
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
            self.taken.set()

    def _default(self) -> MeshConfig:
        return settings(mesh_config("{}"), self._root, self._cluster)

    def _fall_back(self) -> None:
        """Fall back to what an earlier istiod used."""
        if self.stored is None:
            self.settings = replace(self._default(), outbound=OutboundPolicy("REGISTRY_ONLY"))
            return
        try:
            networks = mesh_networks(self._stored_networks)
            self.settings = settings(mesh_config(self.stored), self._root, self._cluster, networks)
            self.accepted, self._networks = self.stored, self._stored_networks
        except Exception as e:  # noqa: BLE001 - written by another version of istiod
            says = str(e) if isinstance(e, Invalid) else faults.sentence(e)
            log.error("the last valid mesh configuration can no longer be used: %s", says)

    async def keep(self, client: Client) -> None:
        """Store each configuration that comes into effect. Never returns."""
        while True:
            await self.taken.wait()
            self.taken.clear()
            text = self.accepted
            if text is None or (text, self._networks) == (self.stored, self._stored_networks):
                continue
            data = {"mesh": text} | ({NETWORKS: self._networks} if self._networks else {})
            name = self._revision.accepted_config_map
            labels = {"app": "istiod", **self._revision.label, **part_of("Pilot", self._root)}
            meta = {"name": name, "namespace": self._root, "labels": labels}
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}
            try:
                if self.stored is None and await client.get(kinds.CONFIG_MAP, self._root, name) is None:
                    await client.create(kinds.CONFIG_MAP, body)
                else:
                    await client.patch(kinds.CONFIG_MAP, self._root, name, {"data": {NETWORKS: None, **data}})
            except (KubeError, OSError) as e:
                log.warning("the mesh configuration in use could not be stored yet: %s", e)
                await asyncio.sleep(RETRY_S)
                self.taken.set()
