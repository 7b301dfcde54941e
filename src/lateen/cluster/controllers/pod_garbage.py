"""Pods that nobody else would remove: those of nodes that there are not, and the oldest of many that have ended.

As Kubernetes' pod garbage collector.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.api.reading import is_finished
from lateen.cluster.controllers import conditions
from lateen.cluster.controllers.loop import Key, Loop
from lateen.kit import times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client

PAUSE_S = 40.0
"""Seconds that a node has to be missing for: a pod may be seen before its node."""

ENDED = 500
"""Pods that have ended of which the latest stay (kube-controller-manager's --terminated-pod-gc-threshold, 12500)."""


class PodGarbage:
    name = "pod-garbage"
    watches = (kinds.POD, kinds.NODE)

    def __init__(self, client: Client, loop: Loop) -> None:
        self._client, self._loop = client, loop
        self._missing: dict[str, float] = {}

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:
        if kind == kinds.NODE:
            name = (new or old or {})["metadata"]["name"]
            if new is not None:
                self._missing.pop(name, None)
            pods = self._loop.objects(kinds.POD) if new is None or old is None else []
            yield from (_key(p) for p in pods if dig(p, "spec", "nodeName") == name)
        elif new is not None and _node(new) != _node(old):
            yield _key(new)
        elif new is None and old is not None and _node(old) in self._missing:
            yield _key(old)

    async def reconcile(self, key: Key) -> float | None:
        pod = await self._client.get(kinds.POD, *key)
        if pod is None:
            self._forget()
            return None
        if not (node := _node(pod)):
            return None
        if await self._client.get(kinds.NODE, "", node) is not None:
            self._missing.pop(node, None)
            return None
        left = self._missing.setdefault(node, time.monotonic()) + PAUSE_S - time.monotonic()
        if left > 0:
            return left
        await self._remove(pod)
        return None

    def _forget(self) -> None:
        """The time of a node begins anew when a pod names it that none has named before."""
        if self._missing:
            named = {_node(p) for p in self._loop.objects(kinds.POD)}
            self._missing = {node: since for node, since in self._missing.items() if node in named}

    async def _remove(self, pod: Json) -> None:
        meta = pod["metadata"]
        if not is_finished(pod):
            mark = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}
            mark |= {"message": "PodGC: node no longer exists", "lastTransitionTime": times.stamp()}
            found = conditions.replace(dig(pod, "status", "conditions", default=[]), mark)
            status = {"status": {"phase": "Failed", "conditions": found}}
            await self._client.patch(kinds.POD, meta["namespace"], meta["name"], status, "status")
        await self._client.delete(kinds.POD, meta["namespace"], meta["name"], grace=0, uid=meta["uid"])


def _node(pod: Json | None) -> str:
    return str(dig(pod or {}, "spec", "nodeName", default=""))


def _key(pod: Json) -> Key:
    return pod["metadata"]["namespace"], pod["metadata"]["name"]


class EndedPods:
    """Has one key. What becomes of a Job does not depend on its pods: it has counted them before they go."""

    name = "ended-pods"
    watches = (kinds.POD,)

    def __init__(self, client: Client, loop: Loop) -> None:
        self._client, self._loop = client, loop

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:  # noqa: ARG002
        if new is not None and is_finished(new) and not is_finished(old or {}):
            yield ()

    async def reconcile(self, key: Key) -> None:  # noqa: ARG002
        ended = [p for p in self._loop.objects(kinds.POD) if is_finished(p) and not _is_going(p)]
        ended.sort(key=lambda p: (p["metadata"]["creationTimestamp"], p["metadata"]["name"]))
        for pod in ended[: max(0, len(ended) - ENDED)]:
            meta = pod["metadata"]
            await self._client.delete(kinds.POD, meta["namespace"], meta["name"], grace=0, uid=meta["uid"])


def _is_going(pod: Json) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))
