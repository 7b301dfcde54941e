"""The kubelet: a worker for every Pod of this node; deleted pods are stopped; the node's status is reported."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import shutil

from lateen import __version__
from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.kubelet import names
from lateen.cluster.kubelet.events import Recorder
from lateen.cluster.kubelet.pod import Pod
from lateen.cluster.kubelet.sandbox import Node
from lateen.cluster.network import links, plan
from lateen.kit import tasks, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import KubeError
from lateen.kube.informer import Informer, Key

log = logging.getLogger("lateen.kubelet")

MAX_PODS = 250
RESCHEDULE_S = 10.0


class Kubelet:
    def __init__(self, node: Node) -> None:
        self.node = node
        self.pods: dict[str, Pod] = {}
        self._adopted: dict[str, dict[str, Json]] = {}
        self._informer = Informer(node.client, kinds.POD, self._changed)
        self._scheduler = Recorder(node.client, "default-scheduler")
        self._refused: set[str] = set()
        self._pending: dict[str, Json] = {}
        self._schedule_soon = asyncio.Event()

    async def run(self) -> None:
        await self._adopt()
        await self._register()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._informer.run(), name="kubelet informer")
            group.create_task(self._schedule_pending(), name="scheduler")

    async def _adopt(self) -> None:
        """Containers that have outlived a previous node daemon, by pod and container name; the latest attempt of
        each."""
        found = (await self.node.runtime.call("list"))["containers"]
        for state in sorted(found, key=lambda c: int(str(c["id"]).rpartition("/")[2]) if "/" in c["id"] else 0):
            if str(state["id"]).startswith("exec/"):
                continue
            uid, name, _ = str(state["id"]).split("/")
            if state["code"] is None:
                self._adopted.setdefault(uid, {})[name] = state
            else:
                await self.node.runtime.call("forget", id=state["id"])

    async def _register(self) -> None:
        """The Node object, with this machine's data."""
        memory = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 1024}Ki"
        capacity = {"cpu": str(os.cpu_count() or 1), "memory": memory, "pods": str(MAX_PODS)}
        now = times.stamp()
        status = {
            "addresses": [
                {"type": "InternalIP", "address": plan.NODE_IP},
                {"type": "Hostname", "address": self.node.name},
            ],
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "KubeletReady",
                    "message": "ready",
                    "lastHeartbeatTime": now,
                    "lastTransitionTime": now,
                }
            ],
            "nodeInfo": {
                "kubeletVersion": f"v1.32.0+lateen-{__version__}",
                "kernelVersion": platform.release(),
                "osImage": "host",
                "containerRuntimeVersion": f"lateen://{__version__}",
                "operatingSystem": "linux",
                "architecture": "amd64",
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
                "kubeProxyVersion": "",
            },
        }
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self.node.name,
                "labels": {
                    "kubernetes.io/hostname": self.node.name,
                    "kubernetes.io/os": "linux",
                    "node-role.kubernetes.io/control-plane": "",
                    "topology.kubernetes.io/region": "local",
                    "topology.kubernetes.io/zone": "local",
                },
            },
            "spec": {},
            "status": status,
        }
        if await self.node.client.get(kinds.NODE, "", self.node.name) is None:
            await self.node.client.create(kinds.NODE, node)
        await self.node.client.patch(kinds.NODE, "", self.node.name, {"status": status}, "status")

    def _changed(self, _: Kind, key: Key, old: Json | None, new: Json | None) -> None:
        uid = str((new or old or {})["metadata"]["uid"])
        worker = self.pods.get(uid)
        if new is None:
            self._refused.discard(uid)
            if worker:
                worker.end(0)
        elif not dig(new, "spec", "nodeName"):
            self._pending[uid] = new
            self._schedule_soon.set()
        elif worker:
            worker.update(new)
        else:
            self._begin(uid, key, new)

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
                await self.node.client.delete(kinds.POD, namespace, name, grace=0)
                return
            self.node.events.event(pod, "Warning", "InvalidPod", why)
            status = {"phase": "Failed", "reason": "InvalidPod", "message": why}
            await self.node.client.patch(kinds.POD, namespace, name, {"status": status}, "status")
        except (KubeError, OSError) as e:
            log.warning("refusing %s/%s: %s", namespace, name, e)

    async def _work(self, uid: str, worker: Pod) -> None:
        try:
            await worker.run()
        finally:
            self.pods.pop(uid, None)
            self._schedule_soon.set()

    # --- the scheduler ---------------------------------------------------------------------------------------

    async def _schedule_pending(self) -> None:
        """With one node, scheduling means to name it or to say why it does not fit. Pending pods are tried again
        whenever a pod comes or goes, and periodically."""
        while True:
            self._schedule_soon.clear()
            waiting, self._pending = self._pending, {}
            for uid, pod in waiting.items():
                key = (str(pod["metadata"]["namespace"]), str(pod["metadata"]["name"]))
                newest = self._informer.objects.get(key)
                if newest is None or newest["metadata"]["uid"] != uid or dig(newest, "spec", "nodeName"):
                    continue
                if why := await self._unfit(newest):
                    self._scheduler.event(newest, "Warning", "FailedScheduling", why)
                    await self._unschedulable(newest, why)
                    self._pending[uid] = newest
                else:
                    await self._schedule(newest)
            try:
                async with asyncio.timeout(RESCHEDULE_S if self._pending else None):
                    await self._schedule_soon.wait()
            except TimeoutError:
                continue

    async def _unfit(self, pod: Json) -> str:
        """Why the node does not fit, in kube-scheduler's words; empty if it does."""
        node = await self.node.client.get(kinds.NODE, "", self.node.name) or {}
        labels = dig(node, "metadata", "labels", default={})
        wanted = dig(pod, "spec", "nodeSelector", default={}) or {}
        if len(self.pods) + self._scheduled_now() >= MAX_PODS:
            return "0/1 nodes are available: 1 Too many pods."
        if dig(node, "spec", "unschedulable"):
            return "0/1 nodes are available: 1 node(s) were unschedulable."
        if any(labels.get(k) != v for k, v in wanted.items()):
            return "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
        return ""

    def _scheduled_now(self) -> int:
        """Pods that are assigned to this node but have no worker yet."""
        return sum(
            1
            for p in self._informer.objects.values()
            if dig(p, "spec", "nodeName") and str(p["metadata"]["uid"]) not in self.pods
        )

    async def _unschedulable(self, pod: Json, why: str) -> None:
        now = times.stamp()
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": why,
            "lastTransitionTime": now,
        }
        before = next((c for c in dig(pod, "status", "conditions", default=[]) if c["type"] == "PodScheduled"), None)
        if before and before.get("message") == why:
            return
        meta = pod["metadata"]
        status = {"status": {"phase": "Pending", "conditions": [condition]}}
        try:
            await self.node.client.patch(kinds.POD, meta["namespace"], meta["name"], status, "status")
        except (KubeError, OSError) as e:
            log.debug("status of %s/%s: %s", meta["namespace"], meta["name"], e)

    async def _schedule(self, pod: Json) -> None:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        try:
            await self.node.client.patch(kinds.POD, namespace, name, {"spec": {"nodeName": self.node.name}})
            self._scheduler.event(
                pod, "Normal", "Scheduled", f"Successfully assigned {namespace}/{name} to {self.node.name}"
            )
        except KubeError as e:
            if e.code not in (404, 409):
                self._pending[str(pod["metadata"]["uid"])] = pod
                log.warning("scheduling %s/%s: %s", namespace, name, e)

    async def collect(self) -> None:
        """Stop what is left of pods that no longer exist in the API (after a crash)."""
        await self._informer.synced.wait()
        known = {str(p["metadata"]["uid"]) for p in self._informer.objects.values()}
        for uid, states in self._adopted.items():
            if uid not in known:
                for state in states.values():
                    await self.node.runtime.call("kill", id=state["id"], signal=9)
                await links.remove_pod(uid)
        for directory in self.node.root.iterdir():
            if directory.name not in known:
                await asyncio.to_thread(shutil.rmtree, directory, True)
