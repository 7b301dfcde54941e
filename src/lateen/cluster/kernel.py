"""System calls that Python's standard library does not have (before 3.12), and their constants."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x20000,
    0x4000000,
    0x8000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MS_RELATIME = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
    1 << 21,
)
MNT_DETACH = 2
PR_SET_DUMPABLE, PR_SET_NAME, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 15, 24, 38
_ST_RELATIME = 4096
_M_ARENA_MAX = -8
"""malloc.h of glibc."""
_CAPABILITY_VERSION_3 = 0x20080522

INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "", shown: str = "") -> None:
    """Raises OSError; ``shown`` replaces the source and target in its message."""
    _check(
        _libc.mount(
            source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
        ),
        f"mount {shown or f'{source} on {target}'}",
    )


def restrict(target: str, flags: int, shown: str = "") -> None:
    """Add flags (read-only, no devices, …) to an existing mount. Its present flags are repeated, because an outer user
    namespace may have locked them."""
    have = os.statvfs(target).f_flag
    kept = have & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME)
    kept |= MS_RELATIME if have & _ST_RELATIME else 0
    mount("none", target, "", MS_BIND | MS_REMOUNT | kept | flags, shown=shown)


def pivot_root(root: str) -> None:
    """Make ``root``, a mount point, this process's root directory and unmount the old one."""
    os.chdir(root)
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def unmount(target: str) -> None:
    """Unmount at once (lazily), even if it is still in use."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"umount of {target}")


def setns(fd: int, kind: int = 0) -> None:
    _check(_libc.setns(fd, kind), "setns")


def enter_network(path: str) -> None:
    """Move the calling thread to the network namespace at ``path``."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, CLONE_NEWNET)
    finally:
        os.close(fd)


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, value, 0, 0, 0), f"prctl {option}")


def set_name(name: str) -> None:
    """Set the name that ``ps`` shows for this process."""
    _libc.prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def capset(capabilities: set[int]) -> None:
    """Set exactly these capabilities, none of them inheritable."""
    low, high = (sum(1 << c - base for c in capabilities if base <= c < base + 32) for base in (0, 32))
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    data = struct.pack("=6I", low, low, 0, high, high, 0)  # effective, permitted, inheritable: two words each
    _check(_libc.capset(header, data), "capset")


def sync(path: Path) -> None:
    """Wait until the disk has all that was written to the file system of a directory. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check(_libc.syncfs(fd), f"sync of {path}")
    finally:
        os.close(fd)


def share_arena() -> None:
    """Let all threads of this process, and of its forks, allocate from one heap: what a thread leaves in an arena of
    its own (0.3 MB) is never used again. Nothing happens where the C library is not glibc."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, 1)


def allow_watches(wanted: int, setting: Path = INOTIFY) -> str:
    """Raise how many inotify instances a user may have: each Envoy has three, for its certificates, and aborts where
    there is none left, so that the kernel's default of 128 is enough for 42 proxies. It is never lowered, and stays
    raised when the cluster ends. Returns what to do where that is not allowed, else an empty text."""
    try:
        if int(setting.read_text()) < wanted:
            setting.write_text(f"{wanted}\n")
    except (OSError, ValueError):
        return f"more than 40 proxies need: sudo sysctl fs.inotify.max_user_instances={wanted}"
    return ""
