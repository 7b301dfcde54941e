"""The scheduler: with one node, scheduling means assigning it, or reporting why it does not fit.

Pending pods are reconsidered whenever a pod is added or removed, when the node or a claim changes, and periodically;
those of a higher priority come first. Nothing is preempted: pods wait only for room among the node's most pods.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.kubelet.events import Recorder
from lateen.cluster.kubelet.sandbox import Node
from lateen.cluster.rules import amounts, fitting, storage
from lateen.kit import times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import KubeError
from lateen.kube.informer import Informer, Key

log = logging.getLogger("lateen.kubelet")

SCHEDULER = "default-scheduler"
"""Pods that name another one wait until that has bound them."""
MAX_PODS = 250
RESCHEDULE_S = 10.0
TOLD_S = 300.0
"""Seconds after which a pod that does not fit, for the same reason as before, is told so again."""
GROUP = 16
"""Pods that are bound at the same moment."""


class Scheduler:
    """``newest``: the latest object of a pod; ``there``: the pods on the node that have not ended; ``count``: their
    number, with those that are being removed."""

    def __init__(
        self,
        node: Node,
        newest: Callable[[Key], Json | None],
        there: Callable[[], list[Json]],
        count: Callable[[], int],
    ) -> None:
        self._node, self._newest, self._there, self._count = node, newest, there, count
        self._events = Recorder(node.client, SCHEDULER)
        self._pending: dict[str, Json] = {}
        self._assumed: dict[str, Json] = {}
        """By uid: pods that have been bound, until their latest objects say so."""
        self._told: dict[str, tuple[str, float]] = {}
        """By uid: why a pod does not fit, and when it was told so."""
        self._soon = asyncio.Event()
        self._nodes = Informer(node.client, kinds.NODE, self._changed)
        self._claims = Informer(node.client, kinds.PERSISTENT_VOLUME_CLAIM, self._changed)

    def add(self, uid: str, pod: Json) -> None:
        self._pending[uid] = pod
        self._soon.set()

    def wake(self) -> None:
        self._soon.set()

    def _changed(self, kind: Kind, _: Key, old: Json | None, new: Json | None) -> None:
        if kind != kinds.NODE or (old or {}).get("spec") != (new or {}).get("spec") or _labels(old) != _labels(new):
            self._soon.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._nodes.run(), name="scheduler's nodes")
            group.create_task(self._claims.run(), name="scheduler's claims")
            await asyncio.gather(self._nodes.synced.wait(), self._claims.synced.wait())
            while True:
                self._soon.clear()
                await self._round()
                try:
                    async with asyncio.timeout(RESCHEDULE_S if self._pending else None):
                        await self._soon.wait()
                except TimeoutError:
                    continue

    async def _round(self) -> None:
        waiting, self._pending = self._pending, {}
        self._assumed = {uid: pod for uid, pod in self._assumed.items() if self._unbound(uid, pod)}
        fit: list[Json] = []
        for uid, pod in sorted(waiting.items(), key=lambda item: -int(item[1]["spec"].get("priority") or 0)):
            newest = self._unbound(uid, pod)
            if newest is None or uid in self._assumed or newest["spec"].get("schedulingGates"):
                continue
            if why := self._unfit(newest, [*self._assumed.values(), *fit]):
                self._tell(newest, why)
                await self._unschedulable(newest, why)
                self._pending[uid] = newest
            else:
                fit.append(newest)
        self._told = {uid: told for uid, told in self._told.items() if uid in self._pending}
        for i in range(0, len(fit), GROUP):
            await asyncio.gather(*(self._bind(p) for p in fit[i : i + GROUP]))

    def _unbound(self, uid: str, pod: Json) -> Json | None:
        """Its latest object, if it still has no node and is not being deleted."""
        newest = self._newest((str(pod["metadata"]["namespace"]), str(pod["metadata"]["name"])))
        if newest is None or newest["metadata"]["uid"] != uid or dig(newest, "spec", "nodeName"):
            return None
        return None if newest["metadata"].get("deletionTimestamp") else newest

    def _tell(self, pod: Json, why: str) -> None:
        uid, now = str(pod["metadata"]["uid"]), asyncio.get_running_loop().time()
        before, at = self._told.get(uid, ("", now))
        if before != why or now - at >= TOLD_S:
            self._told[uid] = why, now
            self._events.event(pod, "Warning", "FailedScheduling", why)

    def _unfit(self, pod: Json, more: list[Json]) -> str:
        """Why the node does not fit, in kube-scheduler's words; empty if it does. ``more``: pods that it is about to
        get."""
        node = self._nodes.objects.get(("", self._node.name))
        if node is None:
            return "0/0 nodes are available: no nodes available to schedule pods."
        if self._count() + len(more) >= MAX_PODS:
            return "0/1 nodes are available: 1 Too many pods."
        counts = any(map(fitting.is_extended, amounts.of_pod(pod["spec"], "requests")))
        others = [*self._there(), *more] if counts else []
        taken = amounts.total(amounts.of_pod(p["spec"], "requests") for p in others)
        return fitting.unfit(pod, node, taken) or self._unclaimed(pod)

    def _unclaimed(self, pod: Json) -> str:
        """Which claim the pod still waits for."""
        for name in storage.claims_of(pod).values():
            claim = self._claims.objects.get((pod["metadata"]["namespace"], name))
            if claim is None:
                return f'0/1 nodes are available: persistentvolumeclaim "{name}" not found.'
            if claim["metadata"].get("deletionTimestamp"):
                return f'0/1 nodes are available: persistentvolumeclaim "{name}" is being deleted.'
            if dig(claim, "status", "phase") != "Bound":
                return "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
        return ""

    async def _unschedulable(self, pod: Json, why: str) -> None:
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": why,
            "lastTransitionTime": times.stamp(),
        }
        before = next((c for c in dig(pod, "status", "conditions", default=[]) if c["type"] == "PodScheduled"), None)
        if before and before.get("message") == why:
            return
        meta = pod["metadata"]
        status = {"status": {"phase": "Pending", "conditions": [condition]}}
        try:
            await self._node.client.patch(kinds.POD, meta["namespace"], meta["name"], status, "status")
        except (KubeError, OSError) as e:
            log.debug("status of %s/%s: %s", meta["namespace"], meta["name"], e)

    async def _bind(self, pod: Json) -> None:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        try:
            target = {"apiVersion": "v1", "kind": "Node", "name": self._node.name}
            binding = {"apiVersion": "v1", "kind": "Binding", "target": target}
            meta = {"name": name, "namespace": namespace, "uid": pod["metadata"]["uid"]}
            await self._node.client.request(kinds.POD, namespace, name, "binding", {**binding, "metadata": meta})
            self._assumed[meta["uid"]] = pod
            said = f"Successfully assigned {namespace}/{name} to {self._node.name}"
            self._events.event(pod, "Normal", "Scheduled", said)
        except KubeError as e:
            if e.code not in (404, 409):
                self._pending[str(pod["metadata"]["uid"])] = pod
                log.warning("scheduling %s/%s: %s", namespace, name, e)


def _labels(node: Json | None) -> Json:
    found: Json = dig(node or {}, "metadata", "labels", default={})
    return found
