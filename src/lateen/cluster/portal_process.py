"""The only process of the cluster in the host's network namespace: it holds the cluster's lock, starts the namespaces,
and answers the node daemon's requests for sockets of the host.

What it does not need before the namespaces exist is imported afterwards: the start of everything else waits for it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from lateen.cluster.home import Home
from lateen.kit.files import write_atomic

CHANGE_S = 5.0
"""Seconds that the cluster's lock may be held by somebody who is not, or not any more, the running cluster."""


def identity(pid: int) -> str:
    """The process's start time, which tells it apart from a later process with the same PID; empty if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]  # a zombie is not a running process
    except (OSError, IndexError):
        return ""


def running(home: Home) -> int | None:
    """The portal's PID."""
    try:
        pid, known = home.pid.read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if identity(int(pid)) == known else None


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Whether nobody else has the lock; with ``wait``, when nobody else has it any more."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as e:
            if e.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            yield False
            return
        yield True


@contextlib.contextmanager
def alone(home: Home) -> Iterator[bool]:
    """True, with the cluster's lock, where no cluster runs; false where one does. One that has the lock but no PID is
    about to run, or about to be gone: it is waited for."""
    deadline = time.monotonic() + CHANGE_S
    while True:
        with locked(home.lock, wait=False) as free:
            if free or running(home) or time.monotonic() > deadline:
                yield free
                return
        time.sleep(0.02)


def unshare() -> list[str]:
    """The command that makes the private namespaces, without what runs in them."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *user, "--mount", "--net", "--pid", "--ipc", "--fork", "--kill-child=SIGKILL", "--mount-proc"]


def main() -> None:
    """``python -m lateen.cluster.portal_process``, started by ``lifecycle.start``."""
    home = Home.default()
    with alone(home) as free:
        if not free:
            sys.exit(f"another cluster of this user is already running from {home.root}")
        _run(home)


def _run(home: Home) -> None:
    write_atomic(home.pid, f"{os.getpid()} {identity(os.getpid())}", 0o600, durable=False)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    life_read, life_write = os.pipe()
    environment = os.environ | ({} if os.geteuid() == 0 else {"LATEEN_ROOTLESS": "1"})
    environment["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    program = "worker" if home.control_plane.exists() else "node"
    inside = [sys.executable, "-m", "lateen.cluster.inside", program, str(life_read), str(theirs.fileno())]
    child = subprocess.Popen([*unshare(), *inside], pass_fds=(life_read, theirs.fileno()), env=environment)
    theirs.close()
    os.close(life_read)

    def end(*_: object) -> None:
        os.close(life_write)  # the runtime notices and takes everything with it
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(5)
        child.kill()
        home.pid.unlink(missing_ok=True)
        os._exit(0)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    signal.signal(signal.SIGCHLD, lambda *_: os._exit(1) if child.poll() is not None else None)
    if child.poll() is not None:  # before anybody listened
        os._exit(1)

    from lateen.cluster.network import outbound, portal

    if home.outbound.exists():
        try:
            outbound.hold_open(child.pid)
        except (outbound.Closed, OSError) as e:
            sys.exit(f"pods would have no outbound access: {e} (start without it: lateen cluster start --no-outbound)")
    while portal.serve_request(ours):
        pass
    end()


if __name__ == "__main__":
    main()
