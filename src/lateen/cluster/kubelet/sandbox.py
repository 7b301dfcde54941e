"""What the containers of a pod share: the node, the network, the volumes, the directory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lateen.api import kinds
from lateen.cluster.kubelet import etc_files, shared_processes, volumes
from lateen.cluster.kubelet.catalogue import Catalogue
from lateen.cluster.kubelet.chained import Plugins
from lateen.cluster.kubelet.container import Container, Role
from lateen.cluster.kubelet.events import Recorder
from lateen.cluster.kubelet.network_policies import Policies
from lateen.cluster.kubelet.shared_processes import SharedProcesses
from lateen.cluster.network import links, plan
from lateen.cluster.runtime import cgroups
from lateen.cluster.runtime.client import RuntimeClient
from lateen.kit import beneath
from lateen.kit.digits import digits
from lateen.kit.jsons import Json, dig
from lateen.kit.rounds import Rounds
from lateen.kube.client import Client

log = logging.getLogger("lateen.kubelet")

MESSAGE_LIMIT, LOG_TAIL = 4096, 2048
"""Bytes of a termination message, and of the log output that replaces it (Kubernetes' limits)."""
_FIELDS = {Role.MAIN: "containers", Role.EPHEMERAL: "ephemeralContainers"}
STATUS_S = 0.02
"""Seconds in which the states that a pod passes through are reported as one."""


@dataclass
class Node:
    """What all pods share. ``root`` has a directory for each pod, ``folders`` one for each volume that is claimed."""

    client: Client
    runtime: RuntimeClient
    images: Catalogue
    addresses: links.Addresses
    events: Recorder
    root: Path
    folders: Path
    rootless: bool
    name: str
    policies: Policies
    groups: cgroups.Groups
    plugins: Plugins
    statuses: Rounds = field(default_factory=lambda: Rounds(STATUS_S))
    """Batches the status writes of pods, so that other work gets its turn."""
    exec_count: int = 0

    def next_exec(self) -> int:
        self.exec_count += 1
        return self.exec_count


class Sandbox:
    """``pod`` is the latest object; ``hurry`` is set once the grace period is used up. ``adopted``: containers of it
    that have outlived a node daemon, which may have ended before it could report the pod's address."""

    def __init__(self, node: Node, pod: Json, adopted: Mapping[str, Json]) -> None:
        self.node, self.pod, self._kept = node, pod, bool(adopted)
        self.uid = str(pod["metadata"]["uid"])
        self.key = (str(pod["metadata"]["namespace"]), str(pod["metadata"]["name"]))
        self.directory = node.root / self.uid
        self.volumes = volumes.Volumes(node.client, self.directory, node.folders, node.rootless, node.plugins.seen)
        self.address = ""
        self._services: list[Json] | None = None
        self.hurry = asyncio.Event()
        self._processes = SharedProcesses(node.runtime, self.uid, adopted.get(shared_processes.NAME))

    @property
    def policy(self) -> str:
        return str(self.pod["spec"].get("restartPolicy") or "Always")

    def update(self, pod: Json) -> None:
        """Take a newer object; the address in its status is ours to set, not the API's."""
        known = {"podIP": self.address, "hostIP": plan.NODE_IP} if self.address else {}
        self.pod = {**pod, "status": {**(pod.get("status") or {}), **known}}

    async def beside(self) -> str:
        """The container whose processes every container of the pod sees; empty if each sees its own. Raises OSError."""
        if not self.pod["spec"].get("shareProcessNamespace"):
            return ""
        name = etc_files.hostname(self.pod)
        return await self._processes.first(links.path(self.uid), self.directory, name, self.node.rootless)

    async def services(self) -> list[Json]:
        """Those that the containers' environment names: of the pod's namespace, as they are when the first container
        starts. Raises KubeError, OSError."""
        if self._services is None:
            wanted = self.pod["spec"].get("enableServiceLinks") is not False
            self._services = (await self.node.client.list(kinds.SERVICE, self.key[0]))[0] if wanted else []
        return self._services

    def event(self, type_: str, reason: str, message: str, c: Container | None = None) -> None:
        path = ""
        if c is not None:
            path = f"spec.{_FIELDS.get(c.role, 'initContainers')}{{{c.name}}}"
        self.node.events.event(self.pod, type_, reason, message, path)

    # --- network ---------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """The pod's network namespace and address; an existing one is kept. Raises OSError."""
        existing = self._kept or dig(self.pod, "status", "podIP", default="")
        if existing and (found := await links.address_of(self.uid)):
            self.node.addresses.keep(found)
            self.address = found
            self.node.policies.adopted(self.pod, self.address)
        elif not self.address:
            await links.remove_pod(self.uid)
            address = self.node.addresses.take()
            try:
                await links.add_pod(self.uid, address)
                await self.node.plugins.add(self.pod, self.uid, address)
            except BaseException:
                await links.remove_pod(self.uid)
                self.node.addresses.free(address)
                raise
            self.address = address
            await self.node.policies.connected(self.pod, address)
        self.update(self.pod)

    async def disconnect(self) -> None:
        """End the processes that are left, and release the network; only the status keeps the address."""
        await self._processes.end()
        # One that is deleted while the node daemon starts has never been connected by this one.
        address = self.address or (self._kept and await links.address_of(self.uid)) or ""
        try:
            await self.node.plugins.remove(self.pod, self.uid)
        except OSError as e:  # what plugins keep for a pod may remain, but the pod must go
            log.warning("%s/%s: %s", *self.key, e)
        await links.remove_pod(self.uid)
        self.node.policies.disconnected(self.uid)
        if address:
            self.node.addresses.free(address)
            self.address = ""

    # --- files -----------------------------------------------------------------------------------------------

    def open_message(self, c: Container) -> Path:
        """Create an empty file for the container's termination message."""
        path = f"termination/{c.name}"
        with beneath.Directory.open(self.directory) as own:
            own.write(path, b"", 0o666)
        return self.directory / path

    def message(self, c: Container, attempt: int, failed: bool) -> str:
        """The container's termination message, or the end of its log if its terminationMessagePolicy falls back to
        that."""
        try:
            with beneath.Directory.open(self.directory) as own:
                found = own.read(f"termination/{c.name}", MESSAGE_LIMIT) or b""
                if not found and failed and c.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
                    found = own.read(f"logs/{c.name}/{attempt}.log", -LOG_TAIL) or b""
                    found = b"".join(line.partition(b" ")[2] for line in found.splitlines(keepends=True)[-80:])
        except OSError:
            return ""
        return found.decode(errors="replace")

    def drop_logs(self, c: Container, before: int) -> None:
        """Remove the logs of attempts that can no longer be requested."""
        try:
            with beneath.Directory.open(self.directory) as own, own.directory(f"logs/{c.name}") as logs:
                for name in list(logs.files()):
                    number = name.partition(".")[0]
                    if digits(number) and int(number) < before:
                        logs.unlink(name)
        except FileNotFoundError:
            return
