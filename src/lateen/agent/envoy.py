"""Running Envoy: bootstrap and environment, restarts, readiness, graceful shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lateen.agent import bootstrap, ending, statistics
from lateen.agent.connections import Connections
from lateen.agent.istiod import FAILURES, Istiod
from lateen.agent.metrics import Metrics
from lateen.agent.options import Options
from lateen.agent.requests import Requests
from lateen.kit import http
from lateen.kit.files import write_atomic
from lateen.kit.jsons import Json
from lateen.wire import ports, tap
from lateen.wire import requests as wire

log = logging.getLogger("lateen.agent.envoy")

DIRECTORY = Path(bootstrap.DIRECTORY)
DRAIN_S, TERMINATION_S = 45.0, 5.0
"""Istio's defaults of ``drainDuration`` and ``terminationDrainDuration``, used if istiod sends none."""
OVERRIDE = "ISTIO_BOOTSTRAP_OVERRIDE"
"""The variable with the path of a partial bootstrap that Envoy merges into its own."""
SINKS = "stats_sinks"
"""The part of a bootstrap that says where Envoy sends its statistics to."""


class Envoy:
    def __init__(
        self,
        options: Options,
        istiod: Istiod,
        metrics: Metrics,
        connections: Connections,
        requests: Requests,
        known: Path,
    ) -> None:
        """``known``: the directory of the certificate by which istiod knows the proxy. Raises ValueError."""
        self._known = known
        self._options, self._istiod, self._metrics = options, istiod, metrics
        self._connections, self._requests = connections, requests
        self._process: asyncio.subprocess.Process | None = None
        self._draining = self._configured = self._stopping = False
        self._drain_s, self._termination_s = DRAIN_S, TERMINATION_S
        self._ending = ending.ending(options.env)

    async def _bootstrap(self) -> dict[str, Any]:
        """The bootstrap with the patches of its EnvoyFilters; without patches if istiod does not answer."""
        o = self._options
        ipv4 = any("." in a for a in o.addresses)
        plain = bootstrap.bootstrap(
            bootstrap.Proxy(
                o.node,
                o.metadata,
                o.service_cluster,
                o.control_plane,
                concurrency=o.concurrency,
                mark=o.mark,
                outlier_log=o.outlier_log,
                agent_port=o.status_port or ports.MERGED_METRICS,
                statistics=await statistics.located(o.statistics, ipv4=ipv4),
                runtime=o.runtime,
                ipv4=ipv4,
                ipv6=o.ipv6,
                most_connections=o.most_connections,
                known=str(self._known),
            )
        )
        try:
            found = await self._istiod.ask("/bootstrap", {"node": str(o.node), "bootstrap": plain})
            patched: dict[str, Any] = found["bootstrap"] or plain
            self._drain_s, self._termination_s = map(float, found["drain"])
            return patched
        except FAILURES as e:
            log.warning("the bootstrap is used without patches: %s", str(e) or "timeout")
            return plain

    def _override(self) -> str:
        path = self._options.env.get(OVERRIDE)
        return Path(path).read_text() if path else ""

    def _arguments(self, config: Path, override: str) -> list[str]:
        o = self._options
        out = ["-c", str(config), "--concurrency", str(o.concurrency), "--log-level", o.log_level]
        if o.component_log_level:
            out += ["--component-log-level", o.component_log_level]
        out += ["--disable-hot-restart", "--drain-time-s", str(round(self._drain_s)), "--drain-strategy", "immediate"]
        out += ["--file-flush-interval-msec", str(round(1000 * o.flush_s))]
        out += ["--file-flush-min-size-kb", str(o.flush_kb)] if o.flush_kb else []
        out += ["--log-format", "%Y-%m-%dT%T.%fZ\t%l\tenvoy %n\t%v"]
        if override:
            out += ["--config-yaml", override]
        return out

    async def run(self) -> None:
        """Start Envoy, and restart it when it dies, with back-off."""
        override = self._override()
        path = DIRECTORY / "envoy-rev.json"
        write_atomic(Path(tap.FILE), "", 0o600)  # Envoy would create it world-readable
        self._connections.open()
        self._requests.open()
        wait = 0.1
        used: Options | None = None
        while True:
            while used is not self._options:
                used = self._options
                write_atomic(path, json.dumps(complete(await self._bootstrap(), override)), 0o600)
            started = time.monotonic()
            self._configured = False
            self._process = await asyncio.create_subprocess_exec(
                shutil.which("envoy") or "envoy",
                *self._arguments(path, override),
                # as in Istio: tags, formats and headers of exporters may name variables
                env={**self._options.env, wire.MARK: self._requests.mark},
            )
            self._metrics.own.envoy = self._process.pid
            if used is not self._options:  # since before it was started
                self._process.terminate()
            code = await self._process.wait()
            if self._stopping:
                return
            self._metrics.ended()
            if used is not self._options:
                continue
            wait = 0.1 if time.monotonic() - started > 30 else min(wait * 2, 10.0)
            why = no_watches() if code == -signal.SIGABRT else ""
            log.error("Envoy exited with %s%s; restarting it in %.1f s", code, why and f" ({why})", wait)
            await asyncio.sleep(wait)

    async def ready(self) -> str | None:
        """None if Envoy serves configuration from istiod, otherwise what is missing."""
        if self._draining:
            return "draining"
        try:
            answer = await http.fetch("127.0.0.1", ports.ADMIN, "/ready", timeout=2)
            if answer.status != 200:
                return f"Envoy is {answer.body.decode(errors='replace').strip() or answer.status}"
        except (OSError, TimeoutError):
            return "Envoy's admin interface does not answer"
        if not self._configured:
            self._configured = await accepted_listeners()
        return None if self._configured else "Envoy has not accepted listeners from istiod yet"

    async def drain(self) -> None:
        """Drain: tell clients to reconnect elsewhere, and give requests in flight time to finish."""
        if self._draining:
            return
        self._draining = True
        with contextlib.suppress(OSError, TimeoutError):
            await http.fetch("127.0.0.1", ports.ADMIN, "/drain_listeners?graceful&skip_exit", method="POST", timeout=5)
        if self._ending.when_empty:  # whoever ends the pod says how long it may take
            await asyncio.sleep(self._ending.least_s)
            while await ending.connections():
                await asyncio.sleep(ending.PAUSE_S)
            return
        given = self._options.env.get("TERMINATION_DRAIN_DURATION_SECONDS")
        await asyncio.sleep(float(given) if given else self._termination_s)

    async def restart(self, options: Options) -> None:
        """Start Envoy again with other options; its connections are closed."""
        if self._draining:
            return
        self._options = options
        await self._end()

    async def stop(self) -> None:
        await self.drain()
        self._stopping = True
        await self._end()

    async def _end(self) -> None:
        if self._process and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(5):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()


def complete(config: Json, override: str) -> Json:
    """The bootstrap of an Envoy that counts requests itself if it sends its statistics anywhere, where those that the
    agent counts would be missing. ``override``: what Envoy merges into it, as text."""
    if SINKS not in config and SINKS not in override:
        return config
    node = config["node"]
    kept = {key: value for key, value in node["metadata"].items() if key != wire.METADATA}
    return {**config, "node": {**node, "metadata": kept}}


async def accepted_listeners() -> bool:
    """Whether Envoy has ever accepted clusters and listeners: before that, no traffic passes although it is running."""
    wanted = "/stats?filter=%5E(cluster_manager%5C.cds%7Clistener_manager%5C.lds)%5C.update_success%24"
    try:
        return updated((await http.fetch("127.0.0.1", ports.ADMIN, wanted, timeout=2)).body)
    except (OSError, TimeoutError):
        return False


def updated(counters: bytes) -> bool:
    """Whether Envoy's ``update_success`` counters of both clusters and listeners are above zero."""
    counts = [line.rpartition(b":")[2].strip() for line in counters.splitlines() if line.strip()]
    return len(counts) == 2 and all(c != b"0" for c in counts)


def _inotify() -> int:
    import ctypes  # imported only on failure, to save memory

    found: int = ctypes.CDLL(None).inotify_init1(0)
    return found


def no_watches(new: Callable[[], int] = _inotify) -> str:
    """A sentence if Envoy aborts because the machine has no inotify instances left, with which it watches files;
    otherwise empty. Envoy's own message is unreadable then."""
    found = new()
    if found >= 0:
        os.close(found)
        return ""
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    now = limit.read_text().strip() if limit.exists() else "too low"
    return f"the machine has no inotify instances left: fs.inotify.max_user_instances is {now}; raise it with sysctl"
