"""The last valid configuration of istiod in a ConfigMap of its own, so that a restart does not lose it."""

from __future__ import annotations

import asyncio
import logging

from lateen.api import kinds
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError
from lateen.wire.revision import Revision, part_of

log = logging.getLogger("lateen.control.accepted")

RETRY_S = 5.0

Data = dict[str, str]


class Accepted:
    """Several sources share the ConfigMap, each with keys of its own."""

    def __init__(self, root_namespace: str, revision: Revision) -> None:
        self._root, self._revision = root_namespace, revision
        self.stored: Data | None = None
        """Its content; None before it is known, and if there is none."""
        self.wanted: dict[str, str | None] = {}
        """What is in effect; None: without this key."""
        self._changed = asyncio.Event()

    def changed(self, key: tuple[str, str], new: Json | None) -> bool:
        """Handle an event of a ConfigMap, once or for each source; returns whether it is this one."""
        if key != (self._root, self._revision.accepted_config_map):
            return False
        self.stored = dict(dig(new, "data", default={})) if new else None
        return True

    def take(self, **data: str | None) -> None:
        """Something has come into effect. None removes a key."""
        self.wanted |= data
        self._changed.set()

    async def keep(self, client: Client) -> None:
        """Store what comes into effect. Never returns."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            stored = self.stored or {}
            if all(stored.get(key) == value for key, value in self.wanted.items()):
                continue
            try:
                await self._store(client)
            except (KubeError, OSError) as e:
                log.warning("the configuration in use could not be stored yet: %s", e)
                await asyncio.sleep(RETRY_S)
                self._changed.set()

    async def _store(self, client: Client) -> None:
        name = self._revision.accepted_config_map
        if self.stored is None and await client.get(kinds.CONFIG_MAP, self._root, name) is None:
            labels = {"app": "istiod", **self._revision.label, **part_of("Pilot", self._root)}
            owners = await self._owners(client)
            meta = {"name": name, "namespace": self._root, "labels": labels, "ownerReferences": owners}
            data = {key: value for key, value in self.wanted.items() if value is not None}
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}
            await client.create(kinds.CONFIG_MAP, body)
        else:
            await client.patch(kinds.CONFIG_MAP, self._root, name, {"data": dict(self.wanted)})

    async def _owners(self, client: Client) -> list[Json]:
        """istiod's Deployment, with which the ConfigMap goes: Helm does not know it. None where istiod may not look, as
        with the rights of an earlier installation."""
        kind = kinds.DEPLOYMENT
        try:
            found = await client.get(kind, self._root, self._revision.istiod)
        except KubeError as e:
            log.info("the ConfigMap of the configuration in use stays when istiod is removed: %s", e)
            return []
        if found is None:
            return []
        uid = found["metadata"]["uid"]
        return [{"apiVersion": kind.api_version, "kind": kind.kind, "name": self._revision.istiod, "uid": uid}]
