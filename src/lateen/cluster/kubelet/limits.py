"""A container's limits, as its control group enforces them."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

from lateen.cluster.rules import amounts
from lateen.cluster.runtime.cgroups import PIDS, Groups, Limits
from lateen.kit.jsons import Json, dig

CONDITION = "LimitsEnforced"


def of(container: Json) -> Limits:
    """A limit that is not below what the machine has is left out: it would only cost time. Fractions of bytes are
    rounded up."""
    given = amounts.of(dig(container, "resources", "limits", default={}))
    memory, cpu = math.ceil(given.get("memory", 0)), float(given.get("cpu", 0))
    return Limits(memory if memory < machine_memory() else 0, cpu if cpu < (os.cpu_count() or 1) else 0, PIDS)


def machine_memory() -> int:
    """Bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def capacity() -> dict[str, str]:
    """What a node has for its pods."""
    return {"cpu": str(os.cpu_count() or 1), "memory": f"{machine_memory() // 1024}Ki"}


def disk(path: Path) -> str:
    """The size of the file system that holds a directory, which is a node's capacity of ``ephemeral-storage``. Raises
    OSError."""
    return f"{shutil.disk_usage(path).total // 1024}Ki"


def infeasible(spec: Json) -> str:
    """Why a pod that runs cannot get what it asks for, in the kubelet's words; empty if it can."""
    asks, has = amounts.of_pod(spec, "requests"), amounts.of(capacity())
    for name, unit in (("memory", 1), ("cpu", 1000)):
        if asks.get(name, 0) > has[name]:
            numbers = f"requested: {math.ceil(asks[name] * unit)}, capacity: {math.ceil(has[name] * unit)}"
            return f"Node didn't have enough capacity: {name}, {numbers}"
    return ""


def group(key: str) -> str:
    """The name of the group of one run of a container: ``key`` is what the runtime knows it by."""
    return key.replace("/", "_")


def condition(groups: Groups, now: str) -> Json:
    """The node condition that tells whether limits are enforced."""
    made = {"type": CONDITION, "lastHeartbeatTime": now, "lastTransitionTime": now}
    if not groups.missing:
        versions = "; ".join(f"{', '.join(b.controllers)}: cgroup version {b.version}" for b in groups.bases)
        return {**made, "status": "True", "reason": "ControlGroups", "message": f"limits are enforced ({versions})"}
    listed = "; ".join(f"{controller}: {why}" for controller, why in groups.missing.items())
    says = (
        f"containers are not confined to their limits of {listed}. Run the cluster as root, or in a group of your own: "
        "systemd-run --user --scope -p Delegate=yes lateen cluster start"
    )
    return {**made, "status": "False", "reason": "NoControlGroups", "message": says}
