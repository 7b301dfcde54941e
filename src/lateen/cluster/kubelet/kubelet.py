"""The kubelet: a worker for every Pod of this node; deleted pods are stopped."""

from __future__ import annotations

import asyncio
import logging
import shutil
from functools import partial

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.api.reading import is_finished
from lateen.cluster.kubelet import names, registration, removal, scratch
from lateen.cluster.kubelet.pod import Pod
from lateen.cluster.kubelet.sandbox import Node
from lateen.cluster.kubelet.scheduler import SCHEDULER, Scheduler
from lateen.cluster.network import links
from lateen.kit import tasks
from lateen.kit.jsons import Json, dig
from lateen.kube.client import KubeError
from lateen.kube.informer import Informer, Key

log = logging.getLogger("lateen.kubelet")


class Kubelet:
    def __init__(self, node: Node, schedules: bool = True) -> None:
        """``schedules``: nobody else assigns pods to nodes. Otherwise only those of this node can be seen."""
        self.node = node
        self.pods: dict[str, Pod] = {}
        self._adopted: dict[str, dict[str, Json]] = {}
        mine = "" if schedules else f"spec.nodeName={node.name}"
        self._informer = Informer(node.client, kinds.POD, self._changed, fields=mine)
        newest = self._informer.objects.get
        self._scheduler = Scheduler(node, newest, self._there, self._count) if schedules else None
        self._refused: set[str] = set()

    async def run(self) -> None:
        await self._adopt()
        await tasks.until_done(partial(registration.register, self.node, self._scheduler is not None), "registration")
        async with asyncio.TaskGroup() as group:
            group.create_task(self._informer.run(), name="kubelet informer")
            if self._scheduler:
                group.create_task(self._scheduler.run(), name="scheduler")
            group.create_task(registration.stay(self.node, self._scheduler is not None), name="heartbeat")

    async def _adopt(self) -> None:
        """Containers that have outlived a previous node daemon, or have ended after it, by pod and container name; the
        latest attempt of each."""
        for address in (await links.in_use()).values():  # before anybody takes one
            self.node.addresses.keep(address)
        found = (await self.node.runtime.call("list"))["containers"]
        for state in sorted(found, key=lambda c: int(str(c["id"]).rpartition("/")[2]) if "/" in c["id"] else 0):
            if str(state["id"]).startswith("exec/"):
                continue
            uid, name, _ = str(state["id"]).split("/")
            self._adopted.setdefault(uid, {})[name] = state
            # Its keeper is told of its end as soon as there is one, which is when the pod's object has been read.
            self.node.runtime.on_exit[state["id"]] = partial(self._ended, state)
        for state in [s for states in self._adopted.values() for s in states.values() if s["code"] is not None]:
            self._ended(state, {})

    def _ended(self, state: Json, message: Json) -> None:
        """A container that nobody looks after yet, or any more."""
        state.update(message)
        self.node.runtime.on_exit.pop(state["id"], None)
        tasks.spawn(self.node.runtime.call("forget", id=state["id"]), "forget")

    def _changed(self, _: Kind, key: Key, old: Json | None, new: Json | None) -> None:
        uid = str((new or old or {})["metadata"]["uid"])
        worker = self.pods.get(uid)
        if self._scheduler and new and old and is_finished(new) and not is_finished(old):
            self._scheduler.wake()  # there is room for another one
        if new is None:
            self._refused.discard(uid)
            if worker:
                worker.end(0)
        elif not dig(new, "spec", "nodeName"):
            if self._scheduler and dig(new, "spec", "schedulerName") in (None, "", SCHEDULER):
                self._scheduler.add(uid, new)
        elif worker:
            worker.update(new)
        elif self._mine(new):
            self._begin(uid, key, new)

    def _mine(self, pod: Json) -> bool:
        return bool(dig(pod, "spec", "nodeName") == self.node.name)

    def _begin(self, uid: str, key: Key, pod: Json) -> None:
        try:
            names.check(pod)
        except names.Refused as e:
            if uid not in self._refused or pod["metadata"].get("deletionTimestamp"):
                self._refused.add(uid)
                tasks.spawn(self._refuse(pod, str(e)), f"refusal of {key[0]}/{key[1]}")
            return
        worker = self.pods[uid] = Pod(self.node, pod, self._adopted.pop(uid, {}))
        worker.update(pod)
        tasks.spawn(self._work(uid, worker), f"pod {key[0]}/{key[1]}")

    async def _refuse(self, pod: Json, why: str) -> None:
        """Fail a pod that cannot be run; nothing has been created for it, so deleting it only removes the object."""
        namespace, name = str(pod["metadata"].get("namespace")), str(pod["metadata"]["name"])
        try:
            if pod["metadata"].get("deletionTimestamp"):
                await removal.remove(self.node.client, pod)
                return
            self.node.events.event(pod, "Warning", "InvalidPod", why)
            status = {"phase": "Failed", "reason": "InvalidPod", "message": why}
            change = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}
            await self.node.client.patch(kinds.POD, namespace, name, change, "status")
        except (KubeError, OSError) as e:
            log.warning("refusing %s/%s: %s", namespace, name, e)

    async def _work(self, uid: str, worker: Pod) -> None:
        try:
            await worker.run()
        finally:
            self.pods.pop(uid, None)
            if self._scheduler:
                self._scheduler.wake()

    def _there(self) -> list[Json]:
        """Pods of this node that have not ended."""
        return [p for p in self._informer.objects.values() if self._mine(p) and not is_finished(p)]

    def _count(self) -> int:
        """Pods of this node that have not ended, and those that are still being removed."""
        alive, over = set(self.pods), set[str]()
        for pod in self._informer.objects.values():
            if self._mine(pod):
                (over if is_finished(pod) else alive).add(str(pod["metadata"]["uid"]))
        return len(alive - over)

    async def collect(self) -> None:
        """Stop what is left of pods that no longer exist in the API (after a crash)."""
        await self._informer.synced.wait()
        known = {str(p["metadata"]["uid"]) for p in self._informer.objects.values()}
        for uid, states in self._adopted.items():
            if uid not in known:
                for state in states.values():
                    await self.node.runtime.call("kill", id=state["id"], signal=9)
                address = await links.address_of(uid)
                await links.remove_pod(uid)
                self.node.addresses.free(address)
        for directory in self.node.root.iterdir():
            if directory.name not in known:
                scratch.release(directory)
                await asyncio.to_thread(shutil.rmtree, directory, True)
