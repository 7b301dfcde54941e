"""Namespaces: what each contains from the start, and its removal once it is empty."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers import served
from lateen.cluster.controllers.loop import Key
from lateen.kit.jsons import Json
from lateen.kube.client import Client, KubeError

ROOT_CA = "kube-root-ca.crt"
AGAIN_S = 0.2
AT_ONCE = 32
"""Deletions that become durable together."""


class Namespaces:
    name = "namespace"
    watches = (kinds.NAMESPACE, kinds.SERVICE_ACCOUNT, kinds.CONFIG_MAP)

    def __init__(self, client: Client, root_ca: str) -> None:
        self._client, self._root_ca = client, root_ca

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:
        obj = new or old
        if obj is None:
            return
        if kind == kinds.NAMESPACE:
            yield (obj["metadata"]["name"],)
        elif new is None and obj["metadata"]["name"] in ("default", ROOT_CA):
            yield (obj["metadata"]["namespace"],)

    async def reconcile(self, key: Key) -> float | None:
        (name,) = key
        ns = await self._client.get(kinds.NAMESPACE, "", name)
        if ns is None:
            return None
        if ns["metadata"].get("deletionTimestamp"):
            return await self._empty(name)
        await self._have(kinds.SERVICE_ACCOUNT, name, "default", {})
        await self._have(kinds.CONFIG_MAP, name, ROOT_CA, {"data": {"ca.crt": self._root_ca}})
        return None

    async def _have(self, kind: Kind, namespace: str, name: str, content: Json) -> None:
        if await self._client.get(kind, namespace, name) is None:
            meta = {"name": name, "namespace": namespace}
            await self._client.create(
                kind, {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta} | content
            )

    async def _empty(self, name: str) -> float | None:
        """Delete everything in a namespace, pods after what would make others; remove it when nothing is left."""
        left, failures = 0, list[KubeError]()
        for kind in sorted(await self._namespaced(), key=lambda k: k is kinds.POD):
            items, _ = await self._client.list(kind, name)
            left += len(items)
            names = [i["metadata"]["name"] for i in items if not i["metadata"].get("deletionTimestamp")]
            for at in range(0, len(names), AT_ONCE):
                deletions = (self._client.delete(kind, name, n) for n in names[at : at + AT_ONCE])
                for result in await asyncio.gather(*deletions, return_exceptions=True):
                    if isinstance(result, KubeError):
                        failures.append(result)
                    elif isinstance(result, BaseException):
                        raise result
        if failures:
            raise failures[0]
        if left:
            return AGAIN_S
        ns = await self._client.get(kinds.NAMESPACE, "", name)
        if ns is not None:
            ns = {**ns, "spec": {**(ns.get("spec") or {}), "finalizers": []}}
            await self._client.update(kinds.NAMESPACE, ns, "finalize")
        return None

    async def _namespaced(self) -> list[Kind]:
        crds, _ = await self._client.list(kinds.CRD)
        found = [*kinds.BUILT_IN, *(k for c in crds if (k := served.custom(c)))]
        return [k for k in found if k.namespaced]
