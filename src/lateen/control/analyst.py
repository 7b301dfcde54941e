"""istiod's side of the analysis, which runs in a process of its own (``control/findings``)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from typing import NamedTuple

from lateen.api.validate import Finding
from lateen.control import findings
from lateen.control.findings import Child, Found
from lateen.kit import jsons
from lateen.kit.jsons import Json, dig

log = logging.getLogger("lateen.control.analyst")

BATCH = 500
"""Objects per line, at most."""
MAX_LINE = 64 << 20
"""The maximum size of a response in bytes."""
Report = dict[str, list[Found]]
"""Object (``Kind namespace/name``) -> its current findings."""
Validated = Callable[[Json], list[Finding] | None]
"""The findings of validation about an object, if it has been validated already."""
_KEPT = ("name", "namespace", "labels", "annotations", "creationTimestamp", "deletionTimestamp")


def trimmed(obj: Json) -> Json:
    """The parts of an object that analyzers read."""
    meta = obj.get("metadata") or {}
    out: Json = {k: obj[k] for k in ("apiVersion", "kind", "spec", "data") if k in obj}
    out["metadata"] = {k: meta[k] for k in _KEPT if k in meta}
    if phase := dig(obj, "status", "phase"):
        out["status"] = {"phase": phase}
    return out


class Change(NamedTuple):
    obj: Json
    gone: bool
    cluster: str
    """Empty for istiod's own."""


class Analyst:
    """Collects changes; ``ask`` sends them and returns the findings that differ from before."""

    def __init__(
        self,
        root: str,
        everything: Callable[[], Iterable[Json]],
        secrets: Callable[[], Iterable[str]],
        validated: Validated = lambda _: None,
        child: Child | None = None,
        elsewhere: Callable[[], Iterable[tuple[str, Json]]] = lambda: (),
        revision: str = "",
    ) -> None:
        """``everything``: all current objects, for a process that has just started; ``secrets``: the namespaces whose
        Secrets are among them; ``child``: a process that waits for the first request; ``elsewhere``: the Services of
        other clusters, each with its cluster; ``revision``: see ``Snapshot``."""
        self._revision = revision
        self._root, self._everything, self._secrets, self._validated = root, everything, secrets, validated
        self._waiting, self._elsewhere = child, elsewhere
        self._child: Child | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._changes: dict[tuple[str, str, str, str], Change] = {}

    def changed(self, obj: Json, gone: bool, cluster: str = "") -> None:
        """``cluster``: another cluster that it is in."""
        meta = obj["metadata"]
        key = (f"{obj['apiVersion']} {obj['kind']}", str(meta.get("namespace", "")), str(meta["name"]), cluster)
        self._changes[key] = Change(obj, gone, cluster)

    async def ask(self) -> Report:
        """The findings that have changed. Raises OSError if the process dies before it answers; the next call starts
        another."""
        try:
            return await self._ask()
        except BaseException:
            self.stop()  # in the middle of an exchange
            raise

    async def _ask(self) -> Report:
        if self._reader is None or self._reader.at_eof():
            self.stop()
            await self._start()
        changes, self._changes = list(self._changes.values()), {}
        for at in range(0, max(len(changes), 1), BATCH):
            await self._send(changes[at : at + BATCH], more=at + BATCH < len(changes))
        answer = jsons.loads(await self._receive())
        return {ref: [Found(*f) for f in found] for ref, found in answer.items()}

    async def _start(self) -> None:
        self._child, self._waiting = self._waiting or _spawn(), None
        self._reader, self._writer = await asyncio.open_connection(sock=self._child.connection, limit=MAX_LINE)
        self._changes = {}
        for obj in self._everything():
            self.changed(obj, gone=False)
        for cluster, obj in self._elsewhere():
            self.changed(obj, gone=False, cluster=cluster)

    async def _send(self, changes: list[Change], more: bool) -> None:
        assert self._writer is not None
        message = {
            "root": self._root,
            "revision": self._revision,
            "put": [(trimmed(c.obj), self._said(c), c.cluster) for c in changes if not c.gone],
            "drop": [(trimmed(c.obj), c.cluster) for c in changes if c.gone],
            "secrets": sorted(self._secrets()),
            "more": more,
        }
        self._writer.write(jsons.dumps(message) + b"\n")
        await self._writer.drain()

    def _said(self, c: Change) -> list[tuple[object, ...]] | None:
        """The findings of validation, as JSON has them: the encoder takes plain tuples only."""
        found = None if c.cluster else self._validated(c.obj)
        return None if found is None else [tuple(f) for f in found]

    async def _receive(self) -> bytes:
        assert self._reader is not None
        line = await self._reader.readline()
        if not line:
            raise OSError("the analysis process has exited")
        return line

    def stop(self) -> None:
        """Kill the process, whatever it is doing; the next request starts another one."""
        if self._writer is not None:
            self._writer.transport.abort()
        _kill(self._child)
        self._child = self._reader = self._writer = None

    def close(self) -> None:
        """Also kill a process that has not been used yet."""
        self.stop()
        _kill(self._waiting)
        self._waiting = None


def _kill(child: Child | None) -> None:
    if child is not None:
        child.connection.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)


def _spawn() -> Child:
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", findings.__name__]
        actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)]
        return Child(os.posix_spawn(sys.executable, command, os.environ, file_actions=actions), ours)
