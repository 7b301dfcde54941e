"""The status of ResourceQuotas: what is used of what they allow. The API server enforces them by itself."""

from __future__ import annotations

from collections.abc import Iterable

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers import served
from lateen.cluster.controllers.loop import Key, Loop, collection_of
from lateen.cluster.rules import quotas
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError

AGAIN_S = 10.0
"""Seconds between counts of objects whose kinds are not watched here."""
COUNTED = tuple(k for k in kinds.BUILT_IN if k.namespaced and k not in (kinds.EVENT, kinds.LEASE))


class Quotas:
    name = "quota"
    watches = COUNTED

    def __init__(self, client: Client, loop: Loop) -> None:
        self._client, self._loop = client, loop

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:
        """Quotas about which something may have changed; what a change of a status leaves as it was is not counted."""
        obj = new or old
        if obj is None:
            return
        for quota in self._loop.objects(kinds.RESOURCE_QUOTA, obj["metadata"]["namespace"]):
            about = collection_of(kind)
            if quota is obj or _count(quota, about, old) != _count(quota, about, new):
                yield quota["metadata"]["namespace"], quota["metadata"]["name"]

    async def reconcile(self, key: Key) -> float | None:
        namespace, name = key
        quota = await self._client.get(kinds.RESOURCE_QUOTA, namespace, name)
        if quota is None:
            return None
        hard = dig(quota, "spec", "hard", default={})
        before = quota.get("status") or {}
        totals, failures = dict[str, str](), list[KubeError]()
        known, others = {collection_of(k): k for k in COUNTED}, await self._custom(hard)
        for about in {quotas.collection_of(k) for k in hard}:
            kind = known.get(about) or others.get(about)
            mine = [k for k in hard if quotas.collection_of(k) == about]
            try:
                objects = (await self._client.list(kind, namespace))[0] if kind else []
            except KubeError as e:  # what was counted before stays, and others are counted all the same
                failures.append(e)
                totals |= {k: v for k, v in (before.get("used") or {}).items() if k in mine}
                continue
            found = quotas.used(quota, about, objects)
            totals |= {k: quotas.text(k, found.get(k, quotas.ZERO)) for k in mine}
        status = {"hard": hard, "used": totals}
        if any(before.get(k) != v for k, v in status.items()):
            change = {k: {**dict.fromkeys(before.get(k) or {}), **v} for k, v in status.items()}
            await self._client.patch(kinds.RESOURCE_QUOTA, namespace, name, {"status": change}, "status")
        if failures:
            raise failures[0]
        return AGAIN_S if others else None

    async def _custom(self, hard: Json) -> dict[str, Kind]:
        wanted = {quotas.collection_of(k) for k in hard} - {collection_of(k) for k in COUNTED}
        if not wanted:
            return {}
        crds, _ = await self._client.list(kinds.CRD)
        found = (k for c in crds if (k := served.custom(c)))
        return {collection_of(k): k for k in found if collection_of(k) in wanted}


def _count(quota: Json, collection: str, obj: Json | None) -> object:
    return quotas.measured(quota, collection, obj) if obj is not None else None
