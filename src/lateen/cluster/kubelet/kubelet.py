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
from lateen.cluster.kubelet import limits, names
from lateen.cluster.kubelet.pod import Pod
from lateen.cluster.kubelet.sandbox import Node
from lateen.cluster.kubelet.scheduler import MAX_PODS, Scheduler
from lateen.cluster.network import links, plan
from lateen.kit import tasks, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import KubeError
from lateen.kube.informer import Informer, Key

log = logging.getLogger("lateen.kubelet")


class Kubelet:
    def __init__(self, node: Node) -> None:
        self.node = node
        self.pods: dict[str, Pod] = {}
        self._adopted: dict[str, dict[str, Json]] = {}
        self._informer = Informer(node.client, kinds.POD, self._changed)
        self._scheduler = Scheduler(node, self._informer.objects.get, self._count)
        self._refused: set[str] = set()

    async def run(self) -> None:
        await self._adopt()
        await self._register()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._informer.run(), name="kubelet informer")
            group.create_task(self._scheduler.run(), name="scheduler")

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
        memory = f"{limits.machine_memory() // 1024}Ki"
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
                },
                limits.condition(self.node.groups, now),
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
            self._scheduler.add(uid, new)
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
            self._scheduler.wake()

    def _count(self) -> int:
        """Pods with a worker, and those that are assigned to this node but have none yet."""
        return len(self.pods) + sum(
            1
            for p in self._informer.objects.values()
            if dig(p, "spec", "nodeName") and str(p["metadata"]["uid"]) not in self.pods
        )

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
