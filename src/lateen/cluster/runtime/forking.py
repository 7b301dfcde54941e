"""From the runtime to a container's process: fork, enter namespaces, set up streams and privileges.

Everything after the first fork runs in the child; ``shim`` takes the last step.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import termios
from collections.abc import Callable
from typing import Any

from lateen.cluster import kernel
from lateen.cluster.runtime import cgroups, privileges, root, shim
from lateen.kit.digits import digits

TIOCSPTLCK, TIOCGPTPEER = 0x40045431, 0x5441
"""Unlock a terminal's slave, and open it without a path (asm-generic/ioctls.h)."""
Entries = dict[str, Callable[[], None]]
"""Python programs that run in the fork itself, by the name that stands for them in ``argv[0]``."""


def fork(
    spec: dict[str, Any],
    streams: tuple[int, int, int],
    enter: Callable[[], None],
    entries: Entries,
    groups: list[str],
    user_namespace: int = -1,
) -> int:
    """Start a container's process; returns its PID in this namespace.

    Forks twice, because entering a PID namespace only affects children; the outer process reports the PID of the
    inner one. ``groups``: the control groups that it is in. Raises OSError, and NotStarted if it is the command that
    cannot be run.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    outer = os.fork()
    if outer == 0:
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            shim.reset_signals()
            cgroups.enter(groups)
            enter()
            inner = os.fork()
            if inner != 0:
                os.write(write, f"{inner}\n".encode())
                os._exit(0)
            _inside(spec, streams, entries, write, user_namespace)
        except BaseException as e:  # noqa: BLE001 - reported to the parent before the process exits
            with contextlib.suppress(OSError):
                os.write(write, _report(e))
        finally:
            os._exit(127)
    os.close(write)
    answer = b""
    while part := os.read(read, 4096):
        answer += part
    os.close(read)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(outer, 0)
    return _pid(answer)


def _report(e: BaseException) -> bytes:
    number = e.errno or 0 if isinstance(e, OSError) else 0
    text = e.args[1] if isinstance(e, OSError) and len(e.args) > 1 else str(e) or type(e).__name__
    if isinstance(e, OSError) and e.filename:
        text = f"{text}: {e.filename}"
    kind = "command" if isinstance(e, shim.NotStarted) else "container"
    return f"!{kind} {number} {text}"[:4000].encode()


def _pid(answer: bytes) -> int:
    """What the children have written: the inner process's PID, an error, or one after the other."""
    pid, bang, error = answer.partition(b"!")
    if not bang and digits(pid.strip()):
        return int(pid)
    if digits(pid.strip()):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(int(pid), 0)
    kind, code, says = [*error.decode(errors="replace").split(" ", 2), "0", ""][:3]
    failure = shim.NotStarted if kind == "command" else OSError
    raise failure(int(code) if digits(code) else 0, says or "the container could not be forked")


def enter_new(spec: dict[str, Any], beside: int = 0) -> None:
    """The pod's network namespace, its sysctls, and new mount, UTS, IPC and PID namespaces; ``beside``: the process
    whose PID namespace it shares instead."""
    kernel.enter_network(spec["netns"])
    for name, value in spec["sysctls"].items():
        with open(f"/proc/sys/{name}", "w") as f:
            f.write(value)
    if beside:
        processes = os.open(f"/proc/{beside}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # as in enter_existing
        kernel.setns(processes)
    kernel.unshare(
        kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | (0 if beside else kernel.CLONE_NEWPID)
    )
    socket.sethostname(spec["hostname"])


def mounts_of(pid: int) -> int:
    """A descriptor of a process's mount namespace, which stays itself while it is open; -1 if the process has ended."""
    try:
        return os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


ROUNDS = 5
"""Processes may start others while they are being looked for."""


def end_all(mounts: int) -> None:
    """Kill every process in a mount namespace."""
    wanted, told = os.fstat(mounts), set[int]()
    for _ in range(ROUNDS):
        found = {pid for pid in map(int, filter(digits, os.listdir("/proc"))) if _is_in(pid, wanted)} - told
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        told |= found


def _is_in(pid: int, mounts: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(f"/proc/{pid}/ns/mnt"), mounts)
    except OSError:
        return False


def enter_existing(pid: int) -> None:
    """The namespaces of the running process ``pid``."""
    fds = [os.open(f"/proc/{pid}/ns/{n}", os.O_RDONLY | os.O_CLOEXEC) for n in ("net", "uts", "ipc", "pid", "mnt")]
    # Until it executes the command this process is a copy of the runtime: root in the container must not be able to
    # reach its memory through /proc.
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    for fd in fds:
        kernel.setns(fd)
    os.chdir("/")


def _inside(
    spec: dict[str, Any], streams: tuple[int, int, int], entries: Entries, report: int, user_namespace: int
) -> None:
    if spec["build"]:
        root.build(spec)
    if spec.get("tty"):
        streams = _terminal(streams[0], spec["uid"] if not spec["nested"] else 0)
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
    if spec.get("tty"):
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    keep = sorted(fd for fd in (report, user_namespace) if fd >= 0)
    for first, last in zip([2, *keep], [*keep, 1 << 20], strict=True):
        os.closerange(first + 1, last)
    privileges.apply(spec, user_namespace)
    if user_namespace >= 0:
        os.close(user_namespace)
    shim.become(spec, entries, report)


def _terminal(connection: int, uid: int) -> tuple[int, int, int]:
    """Allocate a terminal in the container's own /dev/pts, so that its name resolves in there. The master is sent to
    the other end of ``connection``."""
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if os.major(os.fstat(master).st_rdev) != 5:  # a container may have replaced it
        raise OSError(0, "/dev/pts/ptmx is not a terminal device")
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
    with contextlib.suppress(OSError):
        os.fchown(slave, uid, -1)
    with socket.socket(fileno=os.dup(connection)) as peer:
        socket.send_fds(peer, [b"t"], [master])
    return slave, slave, slave
