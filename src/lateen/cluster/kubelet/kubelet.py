"""The kubelet: every Pod of this node gets a worker; pods that are gone are ended; the node reports itself."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import shutil

from lateen import __version__
from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.kubelet.events import Recorder
from lateen.cluster.kubelet.pods import Node, Pod
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
        self._scheduler = Recorder(node.client, "default-scheduler")

    async def run(self) -> None:
        await self._adopt()
        await self._register()
        await self._informer.run()

    async def _adopt(self) -> None:
        """Containers that outlived a previous node daemon, by pod and container name; the newest attempt counts."""
        found = (await self.node.runtime.call("list"))["containers"]
        for state in sorted(found, key=lambda c: int(str(c["id"]).rpartition("/")[2]) if "/" in c["id"] else 0):
            if str(state["id"]).startswith("exec/"):
                continue
            uid, name, _ = str(state["id"]).split("/")
            self._adopted.setdefault(uid, {})[name] = state

    async def _register(self) -> None:
        """The Node object, with this machine's facts."""
        memory = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 1024}Ki"
        capacity = {"cpu": str(os.cpu_count() or 1), "memory": memory, "pods": "250"}
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
        pod = new or old
        assert pod is not None
        uid = str(pod["metadata"]["uid"])
        if new is None:
            if worker := self.pods.get(uid):
                worker.grace = 0
                worker.deleting.set()
            return
        if not dig(new, "spec", "nodeName"):
            tasks.spawn(self._schedule(new), f"schedule {key[1]}")
            return
        worker = self.pods.get(uid)
        if worker is None:
            if dig(new, "status", "phase") in ("Succeeded", "Failed"):
                return
            worker = self.pods[uid] = Pod(self.node, new, self._adopted.pop(uid, {}))
            tasks.spawn(self._work(uid, worker), f"pod {key[0]}/{key[1]}")
        else:
            worker.pod = {
                **new,
                "status": {**(new.get("status") or {}), **({"podIP": worker.address} if worker.address else {})},
            }
        if new["metadata"].get("deletionTimestamp"):
            worker.grace = int(new["metadata"].get("deletionGracePeriodSeconds") or 0)
            worker.deleting.set()

    async def _work(self, uid: str, worker: Pod) -> None:
        try:
            await worker.run()
        finally:
            self.pods.pop(uid, None)

    async def _schedule(self, pod: Json) -> None:
        """There is one node, so scheduling is naming it."""
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        try:
            await self.node.client.patch(kinds.POD, namespace, name, {"spec": {"nodeName": self.node.name}})
            self._scheduler.event(
                pod, "Normal", "Scheduled", f"Successfully assigned {namespace}/{name} to {self.node.name}"
            )
        except KubeError as e:
            if e.code != 404:
                raise

    async def collect(self) -> None:
        """End what is left of pods that are not in the API any more (after a crash)."""
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
