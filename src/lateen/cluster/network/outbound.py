"""The way out of the machine, where the user has allowed it: Debian's ``slirp4netns``, a program of the host that opens
the pods' connections to the outside as its own.

It needs no root, changes nothing in the host's network (no link, no rule, no setting), and ends with the portal. Its
own confinement is on: it sees no files, may make few system calls and none as root, and passes nothing on to the
host's loopback interface (https://github.com/rootless-containers/slirp4netns/blob/master/slirp4netns.1.md).
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from lateen.cluster.network import plan

PROGRAM, PACKAGE = "slirp4netns", "slirp4netns"
READY_S = 15.0
_AGAIN_S = 1.0


class Closed(Exception):
    """There is no way out; the message says why."""


def available() -> bool:
    return shutil.which(PROGRAM) is not None


def hold_open(pid: int) -> None:
    """Give the network namespace of a process, which may still be about to make it, a way out for as long as this
    process lives. Raises Closed."""
    _await_namespace(pid)
    alive, ours = os.pipe()  # its other end is open until this process ends
    first = _start(pid, alive)
    threading.Thread(target=_watch, args=(first, pid, alive, ours), daemon=True, name="way out").start()


def _await_namespace(pid: int) -> None:
    own, deadline = os.readlink("/proc/self/ns/net"), time.monotonic() + READY_S
    while os.readlink(f"/proc/{pid}/ns/net") == own:
        if time.monotonic() > deadline:
            raise Closed("the cluster's network namespace was not created in time")
        time.sleep(0.01)


def _start(pid: int, alive: int) -> subprocess.Popen[bytes]:
    """Returns when the link is there. Raises Closed."""
    ready, theirs = os.pipe()
    options = ["--configure", f"--cidr={plan.WAY_OUT_NET}", f"--mtu={plan.WAY_OUT_MTU}", "--disable-host-loopback"]
    options += ["--enable-sandbox", "--enable-seccomp", f"--exit-fd={alive}", f"--ready-fd={theirs}"]
    if os.geteuid() != 0:
        options.append(f"--userns-path=/proc/{pid}/ns/user")
    where = ["--netns-type=path", f"/proc/{pid}/ns/net", plan.WAY_OUT]
    try:
        made = subprocess.Popen(
            [PROGRAM, *options, *where],
            pass_fds=(alive, theirs),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # it logs a line for each connection that fails
            stderr=subprocess.PIPE,
        )
    except OSError as e:
        os.close(ready)
        raise Closed(f"{PROGRAM} cannot be run: {e.strerror}; install it with: apt-get install {PACKAGE}") from e
    finally:
        os.close(theirs)
    with os.fdopen(ready, "rb") as answer:
        if select.select([answer], [], [], READY_S)[0] and answer.read(1):
            threading.Thread(target=_drain, args=(made,), daemon=True, name="way out's messages").start()
            return made
    made.kill()
    _, said = made.communicate()
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    raise Closed(f"{PROGRAM} has failed: {lines[-1] if lines else 'it said nothing'}")


def _drain(running: subprocess.Popen[bytes]) -> None:
    assert running.stderr is not None
    for _ in running.stderr:
        pass


def _watch(running: subprocess.Popen[bytes], pid: int, alive: int, _ours: int) -> None:
    """Open the way again when the program has ended."""
    while Path(f"/proc/{pid}").exists():
        code = running.wait()
        print(f"outbound access was interrupted ({PROGRAM} has ended with {code}); it is restarted", file=sys.stderr)
        while True:
            time.sleep(_AGAIN_S)
            try:
                running = _start(pid, alive)
                break
            except (Closed, OSError) as e:
                print(e, file=sys.stderr)
