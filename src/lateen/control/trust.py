"""Tells proxies which roots are trusted, by a ConfigMap in each namespace, and the API server, in the webhooks."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable

from lateen.api import kinds
from lateen.ca.authority import ROOT_CONFIG_MAP
from lateen.control.measures import Measures
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError
from lateen.kube.informer import Key
from lateen.wire.revision import LABEL, Revision

log = logging.getLogger("lateen.control.trust")

AT_ONCE = 16
"""ConfigMaps that are written at the same time."""
LABELS = {"istio.io/config": "true"}


class Trust:
    def __init__(
        self, client: Client, revision: Revision, roots: Callable[[], str], measures: Measures | None = None
    ) -> None:
        self._measures = measures or Measures()
        self._client, self._revision, self._roots = client, revision, roots
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def everywhere(self, namespaces: list[Json]) -> None:
        """Tell all proxies and the API server. Raises KubeError, OSError for the latter."""
        await self.namespaces(namespaces)
        await self.webhooks()

    async def namespaces(self, namespaces: list[Json]) -> None:
        await asyncio.gather(*(self.namespace(n) for n in namespaces))

    async def namespace(self, namespace: Json) -> None:
        """Write the roots to a namespace, for its proxies."""
        name = namespace["metadata"]["name"]
        if namespace["metadata"].get("deletionTimestamp"):
            return
        data = {"root-cert.pem": self._roots()}
        meta = {"name": ROOT_CONFIG_MAP, "namespace": name, "labels": LABELS}
        try:
            async with self._gate:
                found = await self._client.get(kinds.CONFIG_MAP, name, ROOT_CONFIG_MAP)
                if found is None:
                    body = {"apiVersion": "v1", "kind": "ConfigMap", "data": data, "metadata": meta}
                    await self._client.create(kinds.CONFIG_MAP, body)
                elif found.get("data") != data:
                    await self._client.patch(kinds.CONFIG_MAP, name, ROOT_CONFIG_MAP, {"data": data})
        except (KubeError, OSError) as e:
            if not isinstance(e, KubeError) or e.code not in (403, 404, 409):
                log.warning("root certificates for namespace %s: %s", name, e)

    def altered(self, key: Key, new: Json | None) -> bool:
        """Whether somebody else has changed or deleted the roots of a namespace."""
        return key[1] == ROOT_CONFIG_MAP and dig(new or {}, "data", "root-cert.pem", default="") != self._roots()

    async def webhooks(self) -> None:
        """Set the webhooks' CA bundle, so that the API server trusts them. Raises KubeError, OSError."""
        bundle = base64.b64encode(self._roots().encode()).decode()
        for kind in (kinds.MUTATING_WEBHOOK, kinds.VALIDATING_WEBHOOK):
            found, _ = await self._client.list(
                kind, labels=f"{LABEL}={self._revision.name},app in (sidecar-injector,istiod)"
            )
            for config in found:
                hooks = [{**h, "clientConfig": {**h["clientConfig"], "caBundle": bundle}} for h in config["webhooks"]]
                if hooks != config["webhooks"]:
                    self._measures.patches.add(config["metadata"]["name"])
                    await self._client.patch(kind, "", config["metadata"]["name"], {"webhooks": hooks})
