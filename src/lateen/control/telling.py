"""Publishes the trusted roots in one cluster: to proxies in a ConfigMap in each namespace, and to the API server in the
webhook configurations."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass

from lateen.api import kinds
from lateen.ca import revocation
from lateen.ca.authority import ROOT_CONFIG_MAP, Told
from lateen.control.measures import Measures
from lateen.kit import certs
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError
from lateen.kube.informer import Key
from lateen.wire.revision import LABEL, TAG_LABEL, Revision

AT_ONCE = 16
"""The number of ConfigMaps that are written concurrently."""
LABELS = {"istio.io/config": "true"}
_PASSING = (401, 404, 408, 409, 429)
"""Status codes after which the same request may succeed later."""


Round = tuple[list[str], list[str]]
"""(problems, refusals): where publishing failed, as in ``Reached``."""


@dataclass(frozen=True)
class Reached:
    """``problem``: where the roots are not published yet, and why. ``refused``: namespaces whose ConfigMap cannot be
    written until its owners change something (an immutable ConfigMap, a quota); rotation does not wait for these."""

    problem: str = ""
    refused: str = ""


HOOKS = (kinds.MUTATING_WEBHOOK, kinds.VALIDATING_WEBHOOK)


def hooks_of(revision: Revision) -> str:
    """The selector of the webhook configurations that lead to a revision's istiod, by its name or by a tag."""
    return f"{LABEL}={revision.name},app in (sidecar-injector,istiod)"


class Teller:
    def __init__(
        self,
        client: Client,
        revision: Revision,
        trusted: Callable[[], Told],
        missed: Callable[[], None],
        measures: Measures,
        own: str,
        running: Callable[[], tuple[str, ...]],
        cluster: str = "",
    ) -> None:
        """``missed``: called when publishing to a namespace failed. ``own``: istiod's namespace. ``running``: the
        running revisions, the first one first. ``cluster``: its name; empty for istiod's own."""
        self._measures, self._own, self._missed, self._running = measures, own, missed, running
        self._client, self._revision, self._trusted = client, revision, trusted
        self.where = f"cluster {cluster}: " if cluster else ""
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def everywhere(self, namespaces: list[Json]) -> Round:
        """Publish to all namespaces and to the API server; returns the failures, as in ``Reached``."""
        found = await asyncio.gather(*map(self.namespace, namespaces))
        failures, refused = [r.problem for r in found if r.problem], [r.refused for r in found if r.refused]
        try:
            await self.webhooks()
        except (KubeError, OSError) as e:
            failures.append(f"{self.where}the API server (webhooks): {e}")
        return failures, refused

    async def namespace(self, namespace: Json) -> Reached:
        """Write the roots to a namespace, for its proxies."""
        name = namespace["metadata"]["name"]
        if namespace["metadata"].get("deletionTimestamp"):
            return Reached()
        trusted = self._trusted()
        try:
            async with self._gate:
                if teller := await self._another(namespace):
                    return await self._left_to(teller, name, trusted)
                for config_map, data in trusted.maps.items():
                    await self._write(name, config_map, data)
        except (KubeError, OSError) as e:
            if await self._ends(name):
                return Reached()
            says = f"{self.where}namespace {name}: {e}"
            if isinstance(e, KubeError) and e.code < 500 and e.code not in _PASSING and name != self._own:
                return Reached(refused=says)
            self._missed()  # left to the leader
            return Reached(says)
        return Reached()

    async def _another(self, namespace: Json) -> str:
        """The other revision responsible for a namespace; empty if this one is. Raises KubeError, OSError."""
        running = self._running()
        if len(running) == 1:
            return ""
        label = str(dig(namespace, "metadata", "labels", LABEL, default=""))
        if label and label not in running:
            tags, _ = await self._client.list(kinds.MUTATING_WEBHOOK, labels=f"{TAG_LABEL}={label}")
            label = next((str(dig(t, "metadata", "labels", LABEL, default="")) for t in tags), "")
        teller = label if label in running else running[0]
        return "" if teller == self._revision.name else teller

    async def _left_to(self, teller: str, name: str, trusted: Told) -> Reached:
        """Whether a namespace of another revision has the roots common to all revisions. Rotation does not wait for it
        if the other revision cannot write them either. Raises KubeError, OSError."""
        found = await self._client.get(kinds.CONFIG_MAP, name, ROOT_CONFIG_MAP)
        known = str(dig(found or {}, "data", "root-cert.pem", default=""))
        if all(root in known for root in certs.split(trusted.own)):
            return Reached()
        if dig(found or {}, "immutable") is True:
            return Reached(
                refused=f"{self.where}namespace {name}: the ConfigMap {ROOT_CONFIG_MAP} is immutable, so the "
                f"revision {teller} cannot change it; delete it"
            )
        return Reached(f"{self.where}namespace {name}: the revision {teller} has not told it yet")

    async def _write(self, namespace: str, name: str, data: dict[str, str]) -> None:
        found = await self._client.get(kinds.CONFIG_MAP, namespace, name)
        before = (found or {}).get("data") or {}
        if found is None and data:
            meta = {"name": name, "namespace": namespace, "labels": LABELS}
            body = {"apiVersion": "v1", "kind": "ConfigMap", "data": data, "metadata": meta}
            await self._client.create(kinds.CONFIG_MAP, body)
        elif before != data:
            change = {**dict.fromkeys(before), **data}
            await self._client.patch(kinds.CONFIG_MAP, namespace, name, {"data": change})

    async def _ends(self, name: str) -> bool:
        """Whether a namespace is being deleted, or gone."""
        try:
            found = await self._client.get(kinds.NAMESPACE, "", name)
        except (KubeError, OSError):
            return False
        return found is None or bool(found["metadata"].get("deletionTimestamp"))

    def altered(self, key: Key, new: Json | None) -> bool:
        """Whether somebody else has changed or deleted the published roots of a namespace."""
        if key[1] not in (ROOT_CONFIG_MAP, revocation.CONFIG_MAP):
            return False
        return bool(dig(new or {}, "data", default={}) != self._trusted().maps[key[1]])

    def unannounced(self, config: Json | None) -> bool:
        """Whether a webhook configuration of this revision has another CA bundle."""
        mine = dig(config or {}, "metadata", "labels", LABEL, default="") == self._revision.name
        return mine and any(
            dig(h, "clientConfig", "caBundle", default="") != self._bundle() for h in (config or {})["webhooks"]
        )

    def _bundle(self) -> str:
        return base64.b64encode(self._trusted().root.encode()).decode()

    async def webhooks(self) -> None:
        """Set the webhooks' CA bundle, so that the API server trusts istiod. Raises KubeError, OSError."""
        bundle = self._bundle()
        for kind in HOOKS:
            found, _ = await self._client.list(kind, labels=hooks_of(self._revision))
            for config in found:
                hooks = [{**h, "clientConfig": {**h["clientConfig"], "caBundle": bundle}} for h in config["webhooks"]]
                if hooks != config["webhooks"]:
                    name = config["metadata"]["name"]
                    self._measures.patches.add(name)
                    try:
                        await self._client.patch(kind, "", name, {"webhooks": hooks})
                    except (KubeError, OSError) as e:
                        self._measures.failed_patches.add(name, type(e).__name__)
                        raise
