"""A container process's user, groups and capabilities. The kubelet decides; this module applies them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lateen.cluster import kernel

_NAMES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
CAPABILITIES = {name: number for number, name in enumerate(_NAMES.split())}
"""Names without ``CAP_`` -> the kernel's numbers (linux/capability.h)."""


def _last() -> int:
    try:
        return int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    except (OSError, ValueError):
        return max(CAPABILITIES.values())


LAST = _last()  # read by the runtime before it forks, so that a container's /proc is never consulted


def apply(spec: dict[str, Any], user_namespace: int = -1) -> None:
    """Apply the bounding set, groups, user and capabilities of ``spec``.

    ``nested`` (only without root): the uid does not exist in the node's user namespace, which maps a single user, so a
    user namespace of the container's own maps that same user to the wanted uid. ``user_namespace`` is a descriptor of
    the one to join, if the container has already created it.
    """
    keep = {CAPABILITIES[c] for c in spec["capabilities"] if CAPABILITIES[c] <= LAST}
    if spec["nested"]:
        _own_user_namespace(spec["uid"], spec["gid"], user_namespace)
    for capability in range(LAST + 1):
        if capability not in keep:
            kernel.prctl(kernel.PR_CAPBSET_DROP, capability)
    if not spec["nested"]:
        if spec["groups"] is not None:
            os.setgroups(spec["groups"])
        os.setgid(spec["gid"])
        os.setuid(spec["uid"])
    # Any user but root has lost all capabilities by now; a nested one has them only in its own namespace.
    kernel.capset(keep if spec["uid"] == 0 else set())
    if spec["noNewPrivileges"]:
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def _own_user_namespace(uid: int, gid: int, join: int) -> None:
    if join >= 0:
        kernel.setns(join, kernel.CLONE_NEWUSER)
        return
    kernel.unshare(kernel.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} 0 1")
    Path("/proc/self/gid_map").write_text(f"{gid} 0 1")
