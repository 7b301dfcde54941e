"""Probes one running container: when, how often, and what follows. How a check is made is in ``probes``."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from lateen.cluster.kubelet import commands, probes
from lateen.cluster.kubelet.container import Container
from lateen.cluster.kubelet.sandbox import Sandbox
from lateen.kit.jsons import Json

log = logging.getLogger("lateen.kubelet")

EAGER_S = 1.0
"""Seconds between readiness probes until the first success; the kubelet probes at once on each change of state."""


class Prober:
    """``failed``: told the probe and its kind (``startup`` or ``liveness``) when the container must be killed."""

    def __init__(self, sandbox: Sandbox, c: Container, failed: Callable[[Json, str], None]) -> None:
        self._sandbox, self._c, self._failed = sandbox, c, failed

    async def watch(self) -> None:
        """Probe the container while it runs: first until it has started, then for its life and readiness."""
        spec = self._c.spec
        if (startup := spec.get("startupProbe")) and not self._c.started and not await self._startup(startup):
            return
        self._c.has_started()
        live, ready = spec.get("livenessProbe"), spec.get("readinessProbe")
        if not ready:
            self._c.is_ready(True)
        async with asyncio.TaskGroup() as group:
            if live:
                group.create_task(self._liveness(live))
            if ready:
                group.create_task(self._readiness(ready))

    async def _startup(self, probe: Json) -> bool:
        verdict = await self._until_verdict(probe, "Startup")
        if not verdict:
            self._failed(probe, "startup")
        return verdict

    async def _liveness(self, probe: Json) -> None:
        thresholds = probes.Threshold(probe)
        await asyncio.sleep(self._delay_s(probe))
        while self._c.running:
            if await self._verdict(probe, "Liveness", thresholds) is False:
                self._failed(probe, "liveness")
                return
            await asyncio.sleep(_period(probe))

    async def _readiness(self, probe: Json) -> None:
        thresholds = probes.Threshold(probe)
        await asyncio.sleep(self._delay_s(probe))
        been = False
        while self._c.running:
            verdict = await self._verdict(probe, "Readiness", thresholds)
            if verdict is not None:
                self._c.is_ready(verdict)
            been = been or self._c.ready
            await asyncio.sleep(_period(probe) if been else min(_period(probe), EAGER_S))

    async def _until_verdict(self, probe: Json, kind: str) -> bool:
        thresholds = probes.Threshold(probe)
        await asyncio.sleep(self._delay_s(probe))
        while True:
            verdict = await self._verdict(probe, kind, thresholds)
            if verdict is not None:
                return verdict
            await asyncio.sleep(_period(probe))

    def _delay_s(self, probe: Json) -> float:
        """What is left of the initial delay, which counts from the start of the container, also of one that took long
        to pass its startup probe, or has outlived a node daemon. After the clock was turned back, it is never longer
        than the whole delay."""
        running = self._c.running
        passed = time.time() - running.started_at if running else 0.0
        return max(0.0, float(probe.get("initialDelaySeconds") or 0) - max(0.0, passed))

    async def _verdict(self, probe: Json, kind: str, thresholds: probes.Threshold) -> bool | None:
        """After one more check; None while undecided. One that goes wrong itself does not count, as in Kubernetes, and
        the next one comes as usual."""
        try:
            failure = await self.check(probe)
        except Exception as e:
            log.exception("%s probe of container %s", kind.lower(), self._c.name)
            self._unhealthy(f"{kind} probe errored: {type(e).__name__}: {e}")
            return None
        if failure is not None:
            self._unhealthy(f"{kind} probe failed: {failure}")
        return thresholds.add(failure is None)

    async def check(self, probe: Json) -> str | None:
        """One check of a probe, or one call of a hook; None if it went well, else what failed."""

        async def run(command: list[str], timeout: float) -> tuple[int, str]:
            return await commands.execute(self._sandbox, self._c, command, timeout)

        return await probes.check(probe, self._c.spec, self._sandbox.address, run)

    def _unhealthy(self, message: str) -> None:
        self._sandbox.event("Warning", "Unhealthy", message, self._c)


def _period(probe: Json) -> float:
    return float(probe.get("periodSeconds") or 10)
