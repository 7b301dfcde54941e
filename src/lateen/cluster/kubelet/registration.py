"""The Node object: this machine and its capacity; and the Lease with its heartbeats."""

from __future__ import annotations

import asyncio
import logging
import platform
from pathlib import Path

from lateen import __version__
from lateen.api import kinds
from lateen.cluster.kubelet import limits
from lateen.cluster.kubelet.sandbox import Node
from lateen.cluster.kubelet.scheduler import MAX_PODS
from lateen.cluster.network import plan
from lateen.kit import times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import KubeError

log = logging.getLogger("lateen.kubelet")

LEASE_NAMESPACE, LEASE_S, RENEWAL = "kube-node-lease", 40, 0.25
"""As kubelets have them (nodeLeaseDurationSeconds, and the share of it after which they renew it)."""
ALONE_S = 3600
"""Where nothing depends on the Lease: the disk may rest."""
PORT = 10250
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


async def register(node: Node, alone: bool) -> None:
    """Have the Node object, with this machine's data. ``alone``: this is the control plane's node, too. Raises
    KubeError, OSError."""
    arch, own = _architecture(), {"kubernetes.io/hostname": node.name}
    for prefix in ("", "beta."):  # charts still select nodes by the older names, and kubelets still set them
        own |= {f"{prefix}kubernetes.io/os": "linux", f"{prefix}kubernetes.io/arch": arch}
    first = {"topology.kubernetes.io/region": "local", "topology.kubernetes.io/zone": "local"}
    if alone:  # in other clusters nodes may not set this themselves (NodeRestriction)
        first["node-role.kubernetes.io/control-plane"] = ""
    if (found := await node.client.get(kinds.NODE, "", node.name)) is None:
        meta = {"name": node.name, "labels": own | first}
        await node.client.create(kinds.NODE, {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {}})
    elif own != {k: v for k, v in dig(found, "metadata", "labels", default={}).items() if k in own}:
        await node.client.patch(kinds.NODE, "", node.name, {"metadata": {"labels": own}})
    await node.client.patch(kinds.NODE, "", node.name, {"status": _status(node, alone)}, "status")


async def stay(node: Node, alone: bool) -> None:
    """Renew the node's Lease, by which a control plane knows that it is alive; after an outage, during which it was
    taken for dead, say that it is ready. Never returns."""
    lasts = ALONE_S if alone else LEASE_S
    while True:
        try:
            await _renew(node, lasts)
            found = await node.client.get(kinds.NODE, "", node.name)
            if found is None or not _is_ready(found):
                await register(node, alone)
        except (KubeError, OSError) as e:
            log.warning("the node's Lease: %s", e)
        await asyncio.sleep(lasts * RENEWAL)


async def _renew(node: Node, lasts: int) -> None:
    spec = {"holderIdentity": node.name, "leaseDurationSeconds": lasts, "renewTime": times.stamp_micro()}
    if await node.client.get(kinds.LEASE, LEASE_NAMESPACE, node.name) is not None:
        await node.client.patch(kinds.LEASE, LEASE_NAMESPACE, node.name, {"spec": spec})
        return
    meta = {"name": node.name, "namespace": LEASE_NAMESPACE}
    made = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
    await node.client.create(kinds.LEASE, made)


def _is_ready(node: Json) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in dig(node, "status", "conditions", default=[]))


def _architecture() -> str:
    return MACHINES.get(platform.machine(), platform.machine())


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME") or "Linux"
    except OSError:
        return "Linux"


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _status(node: Node, alone: bool) -> Json:
    capacity = {**limits.capacity(), "ephemeral-storage": limits.disk(node.root), "pods": str(MAX_PODS)}
    now = times.stamp()
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "ready",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }
    out = {
        "addresses": [
            {"type": "InternalIP", "address": plan.NODE_IP},
            {"type": "Hostname", "address": node.name},
        ],
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [ready, limits.condition(node.groups, now)],
        "nodeInfo": {
            "kubeletVersion": f"v1.32.0+lateen-{__version__}",
            "kernelVersion": platform.release(),
            "osImage": _system(),
            "containerRuntimeVersion": f"lateen://{__version__}",
            "operatingSystem": "linux",
            "architecture": _architecture(),
            "machineID": _read("/etc/machine-id"),
            "systemUUID": _read("/sys/class/dmi/id/product_uuid") or _read("/etc/machine-id"),
            "bootID": _read("/proc/sys/kernel/random/boot_id"),
            "kubeProxyVersion": "",
        },
    }
    return out if alone else out | {"daemonEndpoints": {"kubeletEndpoint": {"Port": PORT}}}
