"""From a fork to a container: namespaces, a root of its own, limits of privilege, then exec or a Python entry.

Runs in a freshly forked, single-threaded child of the runtime; everything here is plain system calls.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = (
    0x20000,
    0x4000000,
    0x8000000,
    0x20000000,
    0x40000000,
)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = (
    1,
    2,
    4,
    32,
    4096,
    16384,
    1 << 18,
    2,
)
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_NAME = 24, 38, 15

# The capabilities that Docker gives a container by default, plus what a pod's own network may need on request.
DEFAULT_CAPABILITIES = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}
CAPABILITIES = {"NET_ADMIN": 12, "NET_RAW": 13, "SYS_PTRACE": 19, "SYS_ADMIN": 21, "NET_BIND_SERVICE": 10}
LAST_CAPABILITY = 40

HOST_DIRS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
ETC_FILES = (
    "passwd",
    "group",
    "nsswitch.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "ssl",
    "alternatives",
    "services",
    "protocols",
    "mime.types",
    "ca-certificates",
    "inputrc",
    "bash.bashrc",
    "profile",
    "terminfo",
    "python3",
    "python3.11",
    "chromium.d",
    "fonts",
    "java-17-openjdk",
)
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    _check(
        _libc.mount(
            source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
        ),
        f"mount {source} on {target}",
    )


def bind(source: str, target: str, read_only: bool = False) -> None:
    """Bind a file or a directory; the target is made."""
    if Path(source).is_dir():
        Path(target).mkdir(parents=True, exist_ok=True)
    else:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).touch()
    mount(source, target, "", MS_BIND | MS_REC)
    if read_only:
        with contextlib.suppress(OSError):  # flags locked by an outer user namespace cannot be changed
            mount("none", target, "", MS_BIND | MS_REMOUNT | MS_RDONLY)


def setns(path: str, kind: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(fd, kind), f"setns {path}")
    finally:
        os.close(fd)


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def build_root(spec: dict[str, Any]) -> None:
    """A new root on a tmpfs: the host's programs read-only, everything else the pod's own; then pivot into it."""
    root = spec["root"]
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=512m")
    for name in HOST_DIRS:
        host = Path("/") / name
        if host.is_symlink():
            (Path(root) / name).symlink_to(host.readlink())
        elif host.is_dir():
            bind(str(host), f"{root}/{name}", read_only=True)
    for name, mode in (
        ("tmp", 0o1777),
        ("run", 0o755),
        ("var", 0o755),
        ("proc", 0o555),
        ("dev", 0o755),
        ("etc", 0o755),
        ("root", 0o755),
        ("home", 0o755),
        ("opt", 0o755),
        ("run/secrets", 0o755),
        ("sys", 0o555),
    ):
        path = Path(root) / name
        path.mkdir(exist_ok=True)
        path.chmod(mode)
    (Path(root) / "var/run").symlink_to("../run")
    for name in ("tmp", "lib", "log", "cache"):
        (Path(root) / "var" / name).mkdir(mode=0o1777 if name == "tmp" else 0o755)
    for name in ETC_FILES:
        if (Path("/etc") / name).exists():
            bind(str((Path("/etc") / name).resolve()), f"{root}/etc/{name}", read_only=True)
    for name, text in spec["etc"].items():
        (Path(root) / "etc" / name).write_text(text)
    for name in DEVICES:
        bind(f"/dev/{name}", f"{root}/dev/{name}")
    for name, target in (
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ):
        (Path(root) / "dev" / name).symlink_to(target)
    (Path(root) / "dev/pts").mkdir()
    (Path(root) / "dev/shm").mkdir(mode=0o1777)
    mount("devpts", f"{root}/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666")
    for source, target, read_only in spec["mounts"]:
        inside = f"{root}{target}" if not target.startswith("/var/run/") else f"{root}/run/{target[9:]}"
        bind(source, inside, read_only)
    mount("proc", f"{root}/proc", "proc")
    os.chdir(root)
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "umount old root")
    os.chdir("/")


def drop(spec: dict[str, Any]) -> None:
    """Bounding set, user and group, no new privileges."""
    keep = DEFAULT_CAPABILITIES | {CAPABILITIES[c] for c in spec["capabilities"] if c in CAPABILITIES}
    if spec["privileged"]:
        keep = set(range(LAST_CAPABILITY + 1))
    for capability in range(LAST_CAPABILITY + 1):
        if capability not in keep:
            _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if spec["gid"] is not None:
        os.setgroups([])
        os.setgid(spec["gid"])
    if spec["uid"] is not None:
        os.setuid(spec["uid"])


def reset_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def become(spec: dict[str, Any], entries: dict[str, Callable[[], None]], report: int) -> None:
    """Replace this process by the container's command; never returns. A failure is written to ``report``."""
    os.chdir(spec["cwd"])
    argv: list[str] = spec["argv"]
    entry = entries.get(argv[0])
    if entry is None:
        path = (
            next(
                (
                    p
                    for d in spec["env"].get("PATH", "/usr/bin").split(":")
                    if os.access(p := f"{d}/{argv[0]}", os.X_OK)
                ),
                argv[0],
            )
            if "/" not in argv[0]
            else argv[0]
        )
        try:
            os.execve(path, argv, spec["env"])
        except OSError as e:
            raise OSError(e.errno, f'exec "{argv[0]}": {e.strerror}') from e
    os.close(report)
    os.environ.clear()
    os.environ.update(spec["env"])
    sys.argv = argv
    _libc.prctl(PR_SET_NAME, os.path.basename(argv[0]).encode()[:15], 0, 0, 0)
    code = 1
    try:
        reset_signals()
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(n, m, buffering=1, closefd=False) for n, m in ((0, "r"), (1, "w"), (2, "w"))
        )
        entry()
        code = 0
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
        if isinstance(e.code, str):
            print(e.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - the last frame of a process: print it and leave
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
