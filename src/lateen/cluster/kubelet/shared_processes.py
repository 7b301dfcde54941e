"""One process namespace for all containers of a pod (``shareProcessNamespace``).

A namespace ends with its first process, so that is one of ours (``runtime.pause``): a container of the runtime that the
pod's object does not have.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from lateen.cluster.kubelet.security import Privileges
from lateen.cluster.runtime import pause
from lateen.cluster.runtime.client import RuntimeClient
from lateen.kit import tasks
from lateen.kit.jsons import Json

log = logging.getLogger("lateen.kubelet")

NAME = "@pause"
"""Beside the names of the pod's containers, none of which can be this."""


class SharedProcesses:
    """``adopted``: the process of an earlier node daemon."""

    def __init__(self, runtime: RuntimeClient, uid: str, adopted: Json | None) -> None:
        self._runtime, self._uid = runtime, uid
        self._key, self._attempt = "", 0
        self._starting = asyncio.Lock()
        if adopted and adopted["code"] is None:
            self._attempt = int(str(adopted["id"]).rpartition("/")[2])
            self._runs(str(adopted["id"]))

    def _runs(self, key: str) -> None:
        self._key = key
        self._runtime.on_exit[key] = lambda _: self._ended(key)

    def _ended(self, key: str) -> None:
        self._key = "" if self._key == key else self._key
        tasks.spawn(self._runtime.call("forget", id=key), f"forget {key}")

    async def first(self, network: str, directory: Path, hostname: str, rootless: bool) -> str:
        """The runtime's name for the first process, which is started unless it runs. Raises OSError."""
        async with self._starting:
            if not self._key:
                self._attempt += 1
                key = f"{self._uid}/{NAME}/{self._attempt}"
                self._runs(key)
                try:
                    await self._runtime.call("start", id=key, spec=_spec(network, directory, hostname, rootless))
                except Exception:  # where the pod ends, the runtime starts it all the same, for ``end`` to kill
                    self._key = ""
                    self._runtime.on_exit.pop(key, None)
                    raise
            return self._key

    async def end(self) -> None:
        """Kill it, and with it every process that is left."""
        if self._key:
            try:
                await self._runtime.call("kill", id=self._key, signal=9)
            except (OSError, TimeoutError) as e:
                log.warning("the processes of pod %s: %s", self._uid, e)


def _spec(network: str, directory: Path, hostname: str, rootless: bool) -> Json:
    own = {"build": True, "rootfs": "", "argv": [pause.NAME], "env": {}, "cwd": "/", "etc": {}, "mounts": []}
    own |= {"stdin": False, "stdinOnce": False, "tty": False}
    place = {"netns": network, "directory": str(directory), "hostname": hostname, "sysctls": {}, "rootless": rootless}
    nobody = Privileges(groups=None if rootless else (), no_new_privileges=True, read_only_root=True).spec()
    return {**own, **place, **nobody, "log": f"logs/{NAME}/0.log", "cgroups": []}
