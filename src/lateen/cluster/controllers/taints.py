"""Pods leave a node whose NoExecute taints they do not tolerate, or tolerate for a time only."""

from __future__ import annotations

import time
from collections.abc import Iterable

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers.loop import Events, Key, Loop
from lateen.cluster.controllers.ownership import is_active
from lateen.cluster.rules import fitting
from lateen.kit import times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client

TARGET = "DisruptionTarget"


class TaintEviction:
    """A pod's tolerationSeconds start when we first see the pod and the taint together."""

    name = "taint-eviction"
    watches = (kinds.NODE, kinds.POD)

    def __init__(self, client: Client, loop: Loop, events: Events) -> None:
        self._client, self._loop, self._events = client, loop, events
        self._since: dict[str, float] = {}

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:
        if kind == kinds.POD:
            if new is None and old is not None:
                self._since.pop(str(old["metadata"]["uid"]), None)
            elif new is not None and dig(new, "spec", "nodeName") != dig(old or {}, "spec", "nodeName"):
                yield new["metadata"]["namespace"], new["metadata"]["name"]
        elif new is not None and dig(new, "spec", "taints") != dig(old or {}, "spec", "taints"):
            for pod in self._loop.objects(kinds.POD):
                if dig(pod, "spec", "nodeName") == new["metadata"]["name"]:
                    yield pod["metadata"]["namespace"], pod["metadata"]["name"]

    async def reconcile(self, key: Key) -> float | None:
        pod = await self._client.get(kinds.POD, *key)
        if pod is None or not is_active(pod) or not dig(pod, "spec", "nodeName"):
            return None
        node = await self._client.get(kinds.NODE, "", pod["spec"]["nodeName"])
        limit = tolerated_s(pod, node or {})
        uid = str(pod["metadata"]["uid"])
        if limit is None:
            self._since.pop(uid, None)
            return None
        left = self._since.setdefault(uid, time.monotonic()) + limit - time.monotonic()
        if left > 0:
            return left
        await self._evict(pod)
        return None

    async def _evict(self, pod: Json) -> None:
        meta = pod["metadata"]
        said = f"Marking for deletion Pod {meta['namespace']}/{meta['name']}"
        self._events.event(pod, "Normal", "TaintManagerEviction", said)
        others = [c for c in dig(pod, "status", "conditions", default=[]) if c["type"] != TARGET]
        says = "Taint manager: deleting due to NoExecute taint"
        mark = {"type": TARGET, "status": "True", "reason": "DeletionByTaintManager", "message": says}
        status = {"status": {"conditions": [*others, mark | {"lastTransitionTime": times.stamp()}]}}
        await self._client.patch(kinds.POD, meta["namespace"], meta["name"], status, "status")
        await self._client.delete(kinds.POD, meta["namespace"], meta["name"])


def tolerated_s(pod: Json, node: Json) -> float | None:
    """Seconds that the pod may stay; None for no limit."""
    tolerations = dig(pod, "spec", "tolerations", default=[])
    shortest: float | None = None
    for taint in fitting.taints(node):
        if taint.get("effect") != "NoExecute":
            continue
        matching = [t for t in tolerations if fitting.tolerates(t, taint)]
        if not matching:
            return 0.0
        limits = [float(t["tolerationSeconds"]) for t in matching if t.get("tolerationSeconds") is not None]
        for limit in limits:
            shortest = max(limit, 0.0) if shortest is None else min(max(limit, 0.0), shortest)
    return shortest
