"""Runs the analysis in its own process (``control/findings``), so that neither pushes nor istiod's exit wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Iterable

from lateen.control.findings import Found
from lateen.kit import jsons
from lateen.kit.jsons import Json, dig

log = logging.getLogger("lateen.control.analyst")

BATCH = 500
"""Objects per line, at most."""
Report = dict[str, list[Found]]
"""Object (``Kind namespace/name``) -> its present findings."""


def trimmed(obj: Json) -> Json:
    """The kinds that analyzers look at."""
    meta = obj.get("metadata") or {}
    out: Json = {k: obj[k] for k in ("apiVersion", "kind", "spec", "data") if k in obj}
    wanted = ("name", "namespace", "labels", "annotations", "creationTimestamp", "deletionTimestamp")
    out["metadata"] = {k: meta[k] for k in wanted if k in meta}
    if phase := dig(obj, "status", "phase"):
        out["status"] = {"phase": phase}
    return out


class Analyst:
    """The parent's side. Collects changes; ``ask`` sends them and returns the findings that differ from before."""

    def __init__(
        self, root: str, everything: Callable[[], Iterable[Json]], secrets: Callable[[], Iterable[str]]
    ) -> None:
        """``everything``: all present objects, for a process that has just started; ``secrets``: the namespaces whose
        Secrets are among them."""
        self._root, self._everything, self._secrets = root, everything, secrets
        self._process: asyncio.subprocess.Process | None = None
        self._changes: dict[tuple[str, str, str], tuple[str, Json]] = {}

    def changed(self, obj: Json, gone: bool) -> None:
        meta = obj["metadata"]
        key = (f"{obj['apiVersion']} {obj['kind']}", str(meta.get("namespace", "")), str(meta["name"]))
        self._changes[key] = ("drop" if gone else "put", obj)

    async def ask(self) -> Report:
        """Raises OSError if the process has died; the next call starts another one."""
        try:
            return await self._ask()
        except BaseException:
            self.stop()  # in the middle of an exchange
            raise

    async def _ask(self) -> Report:
        if self._process is None or self._process.returncode is not None:
            await self._start()
        batches, self._changes = list(self._changes.values()), {}
        report: Report = {}
        for at in range(0, max(len(batches), 1), BATCH):
            lines: dict[str, list[Json]] = {"put": [], "drop": []}
            for what, obj in batches[at : at + BATCH]:
                lines[what].append(trimmed(obj))
            last = at + BATCH >= len(batches)
            await self._send({**lines, "secrets": sorted(self._secrets()), "more": not last})
        for ref, found in jsons.loads(await self._receive()).items():
            report[ref] = [Found(*f) for f in found]
        return report

    async def _start(self) -> None:
        command = (sys.executable, "-m", "lateen.control.findings", self._root)
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=64 << 20)
        self._changes = {}
        for obj in self._everything():
            self.changed(obj, gone=False)

    async def _send(self, message: Json) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(jsons.dumps(message) + b"\n")
        await self._process.stdin.drain()

    async def _receive(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            code = await self._process.wait()
            raise OSError(f"the analysis process exited with code {code}")
        return line

    async def close(self) -> None:
        """Kill the process and wait for it."""
        process = self._process
        self.stop()
        if process is not None:
            await process.wait()

    def stop(self) -> None:
        """Kill the process, whatever it is doing; the next request starts another one."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        self._process = None
