"""emptyDir volumes: those in memory, and limits of size.

Sources: https://kubernetes.io/docs/concepts/storage/volumes/#emptydir; Kubernetes' pkg/volume/emptydir (how large a
volume in memory is) and pkg/kubelet/eviction (what happens to a pod whose volume exceeds its limit).
"""

from __future__ import annotations

import logging
import math
import os
import re
from pathlib import Path

from lateen.cluster import kernel
from lateen.cluster.kubelet import limits
from lateen.cluster.rules import amounts
from lateen.kit.jsons import Json, dig

log = logging.getLogger("lateen.kubelet")

MEMORY = "Memory"
MAX_ENTRIES = 200_000
"""Files and directories whose sizes are added up; a volume with more of them is taken as it is then."""


def in_memory(volume: Json) -> bool:
    return bool(dig(volume, "emptyDir", "medium") == MEMORY)


def limit(volume: Json) -> int:
    """Bytes; 0 where there is none."""
    return math.ceil(amounts.parse(dig(volume, "emptyDir", "sizeLimit", default="0") or "0"))


def mount(fd: int, pod: Json, volume: Json) -> None:
    """A file system in memory at an open directory: no larger than the pod's memory, or the machine's. Raises
    OSError."""
    sizes = [limits.machine_memory(), limit(volume), _memory(pod)]
    options = f"mode=777,size={min(s for s in sizes if s)}"
    kernel.mount("tmpfs", f"/proc/self/fd/{fd}", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options, "of memory")


def _memory(pod: Json) -> int:
    """What all containers together may use; 0 if one of them has no limit."""
    found = [amounts.of(dig(c, "resources", "limits")).get("memory") for c in pod["spec"]["containers"]]
    return math.ceil(sum(m for m in found if m)) if all(found) else 0


def limited(pod: Json) -> bool:
    """Whether a volume on the disk has a limit."""
    return any(limit(v) and not in_memory(v) for v in pod["spec"].get("volumes") or [])


def exceeded(pod: Json, root: Path) -> str:
    """Which volume below ``root`` is larger than its limit, in the kubelet's words; empty if none is. It reads the disk
    for as long as that takes."""
    for volume in pod["spec"].get("volumes") or []:
        most = limit(volume)
        if most and not in_memory(volume) and _used(root / volume["name"], most) > most:
            shown = volume["emptyDir"]["sizeLimit"]
            return f'Usage of EmptyDir volume "{volume["name"]}" exceeds the limit "{shown}". '
    return ""


def _used(path: Path, most: int) -> int:
    """Bytes on the disk, at least as far as the limit. Containers may change what is read; links are not followed."""
    used, todo, entries = 0, [str(path)], 0
    while todo and used <= most and entries < MAX_ENTRIES:
        try:
            with os.scandir(todo.pop()) as found:
                for entry in found:
                    entries += 1
                    used += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
        except OSError:
            continue
    return used


def release(root: Path, mounts: Path = Path("/proc/self/mountinfo")) -> None:
    """Unmount what is mounted below a directory, so that it can be removed."""
    below = os.fsencode(f"{os.path.realpath(root)}/")
    for line in mounts.read_bytes().splitlines():
        at = _OCTAL.sub(lambda m: bytes((int(m[1], 8),)), line.split(b" ")[4])
        if at.startswith(below):
            try:
                kernel.unmount(os.fsdecode(at))
            except OSError as e:  # the pod must go all the same
                log.warning("%s", e)


_OCTAL = re.compile(rb"\\([0-7]{3})")
"""How the kernel writes spaces and line ends in paths."""
