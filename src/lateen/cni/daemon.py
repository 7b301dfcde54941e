"""The daemon of each node: keeps the plugin, its kubeconfig and its chain entry installed, and repairs pods that
started without redirection. Uninstalls everything when it ends, so that pods start without the plugin."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import shlex
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from lateen.api import kinds
from lateen.cni import chain, protocol
from lateen.kit import jsons, log, servers, tasks, yamldoc
from lateen.kit.files import write_atomic
from lateen.kit.jsons import Json, dig
from lateen.kube import kubeconfig
from lateen.kube.client import Client, KubeError
from lateen.kube.informer import Informer, Key
from lateen.wire import cni

logger = logging.getLogger("lateen.cni")

LOOK_S = 2.0
KUBECONFIG = "ZZZ-istio-cni-kubeconfig"
VALIDATION, PORT = "istio-validation", 8000
SOURCE = Path(__file__).parents[2]


@dataclass(frozen=True)
class Node:
    """``conf`` and ``bin``: where the node's directories are in this container; ``at``: where the first is there."""

    conf: Path
    bin: Path
    at: str
    name: str
    excluded: tuple[str, ...]
    repairs: bool

    @property
    def entry(self) -> Json:
        kubernetes = {"kubeconfig": f"{self.at}/{KUBECONFIG}", "excludeNamespaces": list(self.excluded)}
        return {"type": chain.TYPE, "name": chain.TYPE, "kubernetes": kubernetes}


def of_environment() -> Node:
    env = os.environ
    excluded = tuple(n for n in env.get("EXCLUDE_NAMESPACES", "").split(",") if n)
    return Node(
        Path(env.get("MOUNTED_CNI_NET_DIR", "/host/etc/cni/net.d")),
        Path(env.get("MOUNTED_CNI_BIN_DIR", "/host/opt/cni/bin")),
        env.get("CNI_NET_DIR", "/etc/cni/net.d"),
        env.get("KUBERNETES_NODE_NAME", ""),
        excluded,
        env.get("REPAIR_ENABLED", "true") == "true",
    )


def program(pid: int, source: Path = SOURCE) -> str:
    """The plugin as a program of the node: Python where the node has ours (in ``source``), else what is in this
    container, which is that of the process ``pid``. Raises OSError where there is no such process.

    The program outlives the daemon, and the kernel gives its PID to others. Therefore the program opens the mount
    namespace first and compares the process's start time after that: what it has open is the daemon's, or it fails."""
    python, there, proc = shlex.quote(sys.executable), shlex.quote(str(source)), Path(f"/proc/{pid}")
    # After the name, which may contain anything, comes field 3; the start time is field 22 (proc(5)).
    started = proc.joinpath("stat").read_text().rpartition(") ")[2].split()[19]
    mounts = proc.joinpath("ns/mnt").readlink()
    gone = jsons.dumps(cni.error(protocol.NOT_AVAILABLE, "the daemon that installed this plugin has ended")).decode()
    lost = "the pod's network namespace (CNI_NETNS) cannot be opened"
    nowhere = jsons.dumps(cni.error(protocol.INVALID_ENVIRONMENT, lost)).decode()
    return f"""#!/bin/sh
# Written by the daemon of this node; see the documentation of the CNI plugin.
# The rules go with the pod's network namespace, which may be gone already.
case "$CNI_COMMAND" in DEL | GC) exit 0 ;; esac
fail() {{
    printf '%s' "$1"
    exit 1
}}
if [ -n "$CNI_NETNS" ]; then
    command exec 9<"$CNI_NETNS" || fail {shlex.quote(nowhere)}
    CNI_NETNS=/proc/self/fd/9
fi
if [ -f {there}/lateen/cni/plugin.py ]; then exec env PYTHONDONTWRITEBYTECODE=1 {python} -m lateen.cni; fi
gone={shlex.quote(gone)}
command exec 8<{proc}/ns/mnt || fail "$gone"
stat=$(cat {proc}/stat) || fail "$gone"
set -- ${{stat##*") "}}
[ "${{20}}" = {started} ] || fail "$gone"
[ "$(readlink /proc/self/fd/8)" = '{mounts}' ] || fail "$gone"
exec nsenter --mount=/proc/self/fd/8 -- {python} -m lateen.cni
"""


def credentials(token: bytes, ca: bytes, server: str) -> str:
    """The plugin's kubeconfig."""
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(ca).decode()}
    return yamldoc.dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "istio-cni",
            "clusters": [{"name": "local", "cluster": cluster}],
            "users": [{"name": "istio-cni", "user": {"token": token.decode()}}],
            "contexts": [{"name": "istio-cni", "context": {"cluster": "local", "user": "istio-cni"}}],
        }
    )


def install(node: Node, given: str) -> str:
    """Write whatever is missing or differs. Returns what is still missing; empty if everything is installed. Raises
    OSError."""
    _have(node.bin / chain.TYPE, program(os.getpid()), 0o755)
    _have(node.conf / KUBECONFIG, given, 0o600)
    name = cni.chosen([p.name for p in node.conf.iterdir()])
    if not name:
        return f"there is no network configuration in {node.at} yet"
    text = (node.conf / name).read_bytes()
    if chain.has_plugin(name, text, node.entry):
        return ""
    try:
        listed, wanted = chain.with_plugin(name, text, node.entry)
    except ValueError as e:
        return str(e)
    write_atomic(node.conf / listed, wanted, 0o644)
    if listed != name:
        (node.conf / name).unlink()
    logger.info("the plugin is in the chain of %s", listed)
    return ""


def remove(node: Node) -> None:
    """Remove the chain entry first: the plugin is needed as long as the chain names it."""
    for path in node.conf.glob("*.conflist"):
        with contextlib.suppress(OSError, ValueError):
            text = path.read_bytes()
            if (without := chain.without_plugin(path.name, text)) != jsons.dumps(jsons.loads(text)):
                write_atomic(path, without, 0o644)
    for path in (node.conf / KUBECONFIG, node.bin / chain.TYPE):
        path.unlink(missing_ok=True)


class Installation:
    """What threads do with the node's files, one at a time; after ``remove`` nothing is written any more. (Cancelling
    a task does not stop the thread that it waits for.)"""

    def __init__(self, node: Node) -> None:
        self._node, self._lock, self._closed = node, threading.Lock(), False

    def install(self, given: str) -> str:
        """As ``install``."""
        with self._lock:
            return "the daemon ends" if self._closed else install(self._node, given)

    def remove(self) -> None:
        with self._lock:
            self._closed = True
            remove(self._node)


def _have(path: Path, text: str, mode: int) -> None:
    if not path.exists() or path.read_text() != text:
        write_atomic(path, text, mode)


def is_broken(pod: Json) -> bool:
    """Whether a pod's check has found that its traffic is not redirected: it started while the plugin was missing."""
    for status in dig(pod, "status", "initContainerStatuses", default=[]):
        ended = dig(status, "state", "terminated") or dig(status, "lastState", "terminated")
        if status.get("name") == VALIDATION and ended and ended.get("exitCode"):
            return True
    return False


class Daemon:
    def __init__(self, node: Node, client: Client) -> None:
        self._node, self._client = node, client
        self._installation = Installation(node)
        self._waits = "it has not checked yet"
        self._repaired: set[str] = set()
        """The UIDs of broken pods for which everything is done that can be."""
        self._pods = Informer(client, kinds.POD, self._changed, fields=f"spec.nodeName={node.name}")

    async def run(self) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        app = web.Application()
        app.add_routes([web.get("/readyz", self._ready), web.get("/healthz", self._alive)])
        runner = servers.runner(app)
        await runner.setup()
        await web.TCPSite(runner, None, PORT).start()
        running = [tasks.spawn(tasks.forever(self._keep, "installation"), "installation")]
        if self._node.repairs and self._node.name:
            running.append(tasks.spawn(self._pods.run(), "repair"))
        await stop.wait()
        await tasks.cancel(*running)
        await asyncio.to_thread(self._installation.remove)

    async def _keep(self) -> None:
        server = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ.get('KUBERNETES_SERVICE_PORT', '443')}"
        while True:
            token = await asyncio.to_thread((kubeconfig.TOKEN_DIR / "token").read_bytes)  # the token is renewed
            ca = await asyncio.to_thread((kubeconfig.TOKEN_DIR / "ca.crt").read_bytes)
            self.installed(await asyncio.to_thread(self._installation.install, credentials(token, ca, server)))
            await asyncio.sleep(LOOK_S)

    def installed(self, waits: str) -> None:
        """``waits``: what the installation still waits for. While it waits for something, the successor of a broken pod
        would be broken, too, and a pod that has failed for good causes no event later; so all are looked at again."""
        self._waits = waits
        self._repaired &= {str(pod["metadata"]["uid"]) for pod in self._pods.objects.values()}
        for key, pod in list(self._pods.objects.items()):
            self._look(key, pod)

    async def _ready(self, _: web.Request) -> web.Response:
        return web.Response(text=self._waits or "ok", status=503 if self._waits else 200)

    async def _alive(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    def _changed(self, _: kinds.Kind, key: Key, __: Json | None, pod: Json | None) -> None:
        if pod is not None:
            self._look(key, pod)

    def _look(self, key: Key, pod: Json) -> None:
        uid = str(pod["metadata"]["uid"])
        done = self._waits or not self._node.repairs or uid in self._repaired
        if not done and is_broken(pod) and not pod["metadata"].get("deletionTimestamp"):
            self._repaired.add(uid)
            tasks.spawn(self._repair(key, pod, uid), f"repair of {key[0]}/{key[1]}")

    async def _repair(self, key: Key, pod: Json, uid: str) -> None:
        if not await replace(self._client, key, pod):
            self._repaired.discard(uid)


async def replace(client: Client, key: Key, pod: Json) -> bool:
    """Delete a pod, so that its owner makes another one. A StatefulSet's has the same name, so the UID says which pod
    is meant. A pod without an owner is named in the log. Returns whether nothing is left to do."""
    if not pod["metadata"].get("ownerReferences"):
        logger.warning("%s/%s is not redirected and has no owner that would replace it: recreate it", *key)
        return True
    logger.info("%s/%s is not redirected: deleting it, so that its owner replaces it", *key)
    try:
        await client.delete(kinds.POD, *key, uid=pod["metadata"]["uid"])
    except (KubeError, OSError) as e:
        logger.warning("%s/%s: %s", *key, e)
        return isinstance(e, KubeError) and e.code in (404, 409)  # it is gone, or another one has its name
    return True


def main() -> None:
    """``python -m lateen.cni.daemon``."""
    log.setup()

    async def run() -> None:
        async with kubeconfig.in_cluster() as client:
            await Daemon(of_environment(), client).run()

    try:
        asyncio.run(run())
    except kubeconfig.ConfigError as e:
        sys.exit(str(e))


if __name__ == "__main__":
    main()
