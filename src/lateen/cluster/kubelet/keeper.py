"""Runs one container: starts it (with back-off), has it probed, restarts it, and stops it gracefully."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable

from lateen.cluster.kubelet import limits, recipe, security, volumes
from lateen.cluster.kubelet.container import Container, Role, Terminated
from lateen.cluster.kubelet.images import UnknownImage
from lateen.cluster.kubelet.prober import Prober
from lateen.cluster.kubelet.sandbox import Sandbox
from lateen.cluster.rules import amounts
from lateen.cluster.runtime.client import NotStarted
from lateen.kit import tasks
from lateen.kit.jsons import Json, dig
from lateen.kube.client import KubeError

log = logging.getLogger("lateen.kubelet")

BACKOFF = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
STEADY_S = 600.0
"""Seconds that a container must run for its back-off to be reset."""
RETRY = (2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds to wait after an unknown image or a container that could not be created."""
HOOK_LIMIT_S = 600.0


class Keeper:
    """``launched``: the first start has been attempted, including its postStart hook; the next container may start.

    ``beside``: the container among whose processes it runs, if there is one that it must see (``targetContainerName``).
    """

    def __init__(
        self,
        sandbox: Sandbox,
        c: Container,
        grace: Callable[[], float],
        beside: Callable[[], Container | None] = lambda: None,
    ) -> None:
        self._sandbox, self._c, self._grace, self._beside = sandbox, c, grace, beside
        self._runtime, self._groups = sandbox.node.runtime, sandbox.node.groups
        self._prober = Prober(sandbox, c, self._kill_failed)
        self._crashes = 0
        self._resized = asyncio.Event()
        """Whether it has other resources since its last start, or is being restarted for them: that is no crash."""
        self.launched = asyncio.Event()

    async def keep(self) -> None:
        """Run until the container has exited for good."""
        c = self._c
        while True:
            if not c.running:  # it may have been adopted
                await self._start()
            if c.running and c.role is Role.INIT:
                await c.until(lambda c: not c.running)
            elif c.running:
                watching = tasks.spawn(self._prober.watch(), f"probes {self._sandbox.key[1]}/{c.name}")
                try:
                    await c.until(lambda c: not c.running)
                finally:
                    await tasks.cancel(watching)
            self.launched.set()
            if not c.restarts(self._sandbox.policy):
                return

    # --- starting --------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        if isinstance(self._c.state, Terminated) and not self._resized.is_set():
            await self._back_off(self._c.state)
        tries = 0
        while True:
            try:
                await self._launch()
                return
            except UnknownImage as e:
                self._event("Warning", "Failed", f'Failed to pull image "{self._c.spec["image"]}": {e.args[0]}')
                if tries:
                    self._event("Normal", "BackOff", f'Back-off pulling image "{self._c.spec["image"]}"')
                self._c.waits("ImagePullBackOff" if tries else "ErrImagePull", str(e.args[0]))
            except (volumes.NotReady, security.Misconfigured) as e:
                self._event("Warning", "Failed", f"Error: {e}")
                self._c.waits("CreateContainerConfigError", str(e))
            except Exception as e:  # noqa: BLE001 - whatever it is, other containers do not wait for this one
                text = _said(e)
                self._event("Warning", "Failed", f"Error: {text}")
                if self._c.running:  # what came after its start has failed
                    self.launched.set()
                    return
                self._c.waits("CreateContainerError", text)
            self.launched.set()
            await asyncio.sleep(RETRY[min(tries, len(RETRY) - 1)])
            tries += 1

    async def _back_off(self, ended: Terminated) -> None:
        if ended.finished_at - ended.started_at > STEADY_S and ended.started_at:
            self._crashes = 0
        delay = BACKOFF[min(self._crashes, len(BACKOFF) - 1)]
        self._crashes += 1
        if not delay:
            return
        (namespace, name), uid = self._sandbox.key, self._sandbox.uid
        what = f"{self._c.name} in pod {name}_{namespace}({uid})"
        self._event("Warning", "BackOff", f"Back-off restarting failed container {what}")
        says = f"back-off {delay:.0f}s restarting failed container={self._c.name} pod={name}_{namespace}({uid})"
        self._c.waits("CrashLoopBackOff", says)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._resized.wait()

    async def _launch(self) -> None:
        c = self._c
        if replaced := await self._sandbox.node.images.provide(str(c.spec["image"])):
            self._event("Warning", "ImageReplaced", replaced)
        if c.attempt < 0:
            for note in recipe.notes(self._sandbox, c):
                self._event("Warning", "SecurityContext", note)
        attempt = c.attempt + 1
        self._resized.clear()
        given = c.spec
        spec = await recipe.of_start(self._sandbox, c, attempt)
        if target := self._beside():
            if target.running is None:
                raise OSError(f'target container "{target.name}" is not running')
            spec["beside"] = target.running.id
        key = f"{self._sandbox.uid}/{c.name}/{attempt}"
        self._runtime.on_exit[key] = lambda message: self._ended(attempt, message)
        self._event("Normal", "Pulled", f'Container image "{c.spec["image"]}" already present on machine')
        try:
            spec["cgroups"] = self._groups.make(limits.group(key), limits.of(given))
            answer = await self._runtime.call("start", id=key, spec=spec)
        except NotStarted as e:
            self._forget(key)
            says = f"failed to start container: unable to start container process: {e.strerror}"
            self._event("Warning", "Failed", f"Error: {says}")
            c.fails_to_start(attempt, time.time(), says)
            return
        except Exception:
            self._forget(key)
            raise
        except asyncio.CancelledError:  # the pod ends; the runtime starts the container all the same
            tasks.spawn(self._runtime.call("kill", id=key, signal=9), f"end of {key}")
            raise
        c.starts(attempt, key, answer["started"], given.get("resources") or {})
        self._resized.clear()
        self._event("Normal", "Created", f"Created container: {c.name}")
        self._event("Normal", "Started", f"Started container {c.name}")
        self._sandbox.drop_logs(c, attempt - 1)
        await self._fit()  # if it has been resized meanwhile
        if c.role is not Role.INIT and c.running:
            await self._post_start()
        self.launched.set()

    def _forget(self, key: str) -> None:
        self._runtime.on_exit.pop(key, None)
        self._groups.remove(limits.group(key))

    def adopt(self, found: Json) -> None:
        """Take over a container that has outlived the node daemon which started it, at once: it may end at any time, or
        be stopped before anything else is known of its pod."""
        key = str(found["id"])
        attempt = int(key.rpartition("/")[2])
        self._runtime.on_exit[key] = lambda message: self._ended(attempt, message)
        self._c.starts(attempt, key, found["started"], self._c.spec.get("resources") or {})
        self._c.has_started()
        self._confine()
        self.launched.set()

    def resize(self, spec: Json) -> None:
        """Take the resources of a newer version of the pod. As in Kubernetes, crashes with others no longer count."""
        c = self._c
        c.spec = {**c.spec, "resources": spec.get("resources") or {}, "resizePolicy": spec.get("resizePolicy") or []}
        self._crashes = 0
        if c.running:
            tasks.spawn(self._fit(), f"resize of {c.name}")
        else:
            self._resized.set()

    async def _fit(self) -> None:
        """Give what runs the resources of the spec: at once, or by a restart where the container asks for one."""
        c = self._c
        changed = amounts.changed(c.resources, c.spec.get("resources") or {})
        if not c.running or c.again or not changed:
            return
        if not amounts.restarts(c.spec, changed):
            self._confine()
            return
        key, c.again = c.running.id, True
        self._resized.set()
        try:
            await self.kill(self._grace(), f"Container {c.name} resize requires restart")
        finally:
            if (now := self._c.running) and now.id == key:  # it could not be stopped
                c.again = False
                self._resized.clear()

    def _confine(self) -> None:
        """The limits of the container's present spec, for the processes that run."""
        c = self._c
        if c.running is None:
            return
        try:
            self._groups.change(limits.group(c.running.id), limits.of(c.spec))
        except OSError as e:
            self._event("Warning", "ResizeError", f"the limits of {c.name} could not be changed: {e.strerror or e}")
            return
        c.is_confined()

    def _ended(self, attempt: int, message: Json) -> None:
        code = int(message["code"])
        group = limits.group(str(message["id"]))
        killed = self._groups.killed(group) > 0
        self._c.ends(code, message["finished"], self._sandbox.message(self._c, attempt, code != 0), killed)
        self._groups.remove(group)
        tasks.spawn(self._runtime.call("forget", id=message["id"]), "forget")

    async def _post_start(self) -> None:
        hook = dig(self._c.spec, "lifecycle", "postStart")
        if hook and (failure := await self._hook(hook, HOOK_LIMIT_S)):
            self._event("Warning", "FailedPostStartHook", f"PostStartHook failed: {failure}")
            await self.kill(self._grace(), "FailedPostStartHook")

    # --- hooks, and probes that have failed --------------------------------------------------------------------

    async def _hook(self, hook: Json, timeout: float) -> str | None:
        if "sleep" in hook:
            await asyncio.sleep(min(float(dig(hook, "sleep", "seconds", default=0)), timeout))
            return None
        return await self._prober.check({**hook, "timeoutSeconds": timeout})

    def _kill_failed(self, probe: Json, kind: str) -> None:
        grace = probe.get("terminationGracePeriodSeconds")
        self._c.again = self._c.role is Role.SIDECAR or self._sandbox.policy != "Never"
        message = f"Container {self._c.name} failed {kind} probe" + (", will be restarted" if self._c.again else "")
        # The probes do not await this, because they end together with the container.
        tasks.spawn(self.kill(float(grace) if grace is not None else self._grace(), message), f"kill after {kind}")

    # --- the end ---------------------------------------------------------------------------------------------

    async def kill(self, grace: float, why: str) -> None:
        """preStop, SIGTERM, and SIGKILL after ``grace`` seconds, or sooner when the pod's own grace period is used
        up."""
        c = self._c
        if not c.running:
            return
        self._event("Normal", "Killing", why)
        key, loop = c.running.id, asyncio.get_running_loop()
        deadline = loop.time() + grace
        hook = dig(c.spec, "lifecycle", "preStop")
        if hook and grace > 0 and c.role is not Role.INIT and (failure := await self._hook(hook, grace)):
            self._event("Warning", "FailedPreStopHook", f"PreStopHook failed: {failure}")
        await self._runtime.call("kill", id=key, signal=self._stop_signal())
        gone = tasks.spawn(c.until(lambda c: not c.running or c.running.id != key), "container's end")
        hurry = tasks.spawn(self._sandbox.hurry.wait(), "end of grace")
        try:
            left = max(deadline - loop.time(), 0.1)
            await asyncio.wait((gone, hurry), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not gone.done():
                await self._runtime.call("kill", id=key, signal=9)
                async with asyncio.timeout(10):
                    await gone
        finally:
            await tasks.cancel(gone, hurry)

    def _stop_signal(self) -> int:
        try:
            return self._sandbox.node.images.find(str(self._c.spec["image"])).stop
        except UnknownImage:
            return signal.SIGTERM

    def _event(self, type_: str, reason: str, message: str) -> None:
        self._sandbox.event(type_, reason, message, self._c)


def _said(error: Exception) -> str:
    if not isinstance(error, (OSError, TimeoutError, KubeError)):
        log.error("a container could not be started: %s", error, exc_info=error)
        return f"{type(error).__name__}: {error}"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
