"""One pod's life cycle: network, volumes, init containers and sidecars in order, main containers, termination."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from lateen.api import kinds
from lateen.cluster.kubelet import limits, pod_status, removal, scratch, security, volumes
from lateen.cluster.kubelet.container import Container, Role, Terminated
from lateen.cluster.kubelet.keeper import Keeper
from lateen.cluster.kubelet.restoring import Before
from lateen.cluster.kubelet.sandbox import Node, Sandbox
from lateen.cluster.network import plan
from lateen.cluster.rules import amounts
from lateen.kit import tasks, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import KubeError

log = logging.getLogger("lateen.kubelet")

REFRESH_S = 15.0
EVICTION_S = 1.0
"""The grace period of a pod that uses more than it may, as in Kubernetes."""
LAST_TRIES = 5
"""How often a terminating pod tries to report its last status: a control plane that refuses it must not keep the
pod."""
FIRST_STATUS_S = 0.25
"""Seconds after which a pod without containers reports what it waits for; most have started by then."""
SIDECAR_GRACE_S = 2.0
"""Seconds that sidecars get at least to stop when the application has used up the pod's grace period."""


class _Evicted(Exception):
    """The pod uses more than it may; the message says of what."""


class Pod:
    """Runs as one task; ``end`` stops it gracefully. ``adopted``: containers that outlived a node daemon, by name."""

    def __init__(self, node: Node, pod: Json, adopted: dict[str, Json]) -> None:
        self.sandbox = Sandbox(node, pod, adopted)
        self.uid, self.key = self.sandbox.uid, self.sandbox.key
        self.init = [
            Container(c, Role.SIDECAR if c.get("restartPolicy") == "Always" else Role.INIT, self._changed)
            for c in pod["spec"].get("initContainers") or []
        ]
        self.main = [Container(c, Role.MAIN, self._changed) for c in pod["spec"]["containers"]]
        self.ephemeral: list[Container] = []
        self.grace = float(dig(pod, "spec", "terminationGracePeriodSeconds", default=30))
        self._keepers = {c.name: Keeper(self.sandbox, c, lambda: self.grace) for c in [*self.init, *self.main]}
        self._prepared = False
        self._add_ephemeral(pod)
        before = Before(self.sandbox, adopted)
        self._resumed, self._over = before.initialized, before.over
        self._infeasible = ""
        self._failure: tuple[str, str] | None = None
        if self._over and dig(pod, "status", "reason"):
            self._failure = (pod["status"]["reason"], str(pod["status"].get("message") or ""))
        self._deleting, self._dirty = asyncio.Event(), asyncio.Event()
        self._term: asyncio.Timeout | None = None
        """Ends the pod at its deadline, while it runs."""
        self._tasks: list[asyncio.Task[Any]] = []
        self._published: Json = {}
        self._initialized = not self.init or self._over
        self._started_at = dig(pod, "status", "startTime") or times.stamp()
        every = [*self.init, *self.main, *self.ephemeral]
        before.restore(every)
        for c in every:
            if found := before.running(c.name):
                self._keepers[c.name].adopt(found)

    def container(self, name: str) -> Container | None:
        return next((c for c in [*self.main, *self.init, *self.ephemeral] if c.name == name), None)

    def _add_ephemeral(self, pod: Json) -> list[Container]:
        """The containers that have been added to the pod since the last time."""
        known = {c.name for c in self.ephemeral}
        added = [
            Container(spec, Role.EPHEMERAL, self._changed)
            for spec in pod["spec"].get("ephemeralContainers") or []
            if spec["name"] not in known
        ]
        self.ephemeral += added
        for c in added:
            self._keepers[c.name] = Keeper(
                self.sandbox,
                c,
                lambda: self.grace,
                partial(self.container, str(c.spec.get("targetContainerName") or "")),
            )
        return added

    def update(self, pod: Json) -> None:
        """A newer version of the object."""
        if self._published and pod_status.is_disowned(pod) and not pod_status.is_disowned({"status": self._published}):
            self._published = {}
            self._dirty.set()
        self.sandbox.update(pod)
        if pod["spec"].get("readinessGates"):
            self._dirty.set()  # somebody else may have opened one
        for c in self._add_ephemeral(pod):
            if self._prepared:
                self._keep(c)
        self._resize(pod["spec"])
        if self._term and not self._term.expired() and (left := self._deadline()) is not None:
            self._term.reschedule(asyncio.get_running_loop().time() + left)
        if pod["metadata"].get("deletionTimestamp"):
            self.end(float(pod["metadata"].get("deletionGracePeriodSeconds") or 0))

    def _resize(self, wanted: Json) -> None:
        """Containers keep the resources that they have where the node has not got those that the pod asks for."""
        others = [
            (self._keepers[c.name], spec)
            for spec in amounts.containers(wanted)
            if (c := self.container(str(spec["name"])))
            and (c.spec.get("resources") or {}) != (spec.get("resources") or {})
        ]
        before, self._infeasible = self._infeasible, limits.infeasible(wanted) if others else ""
        if before != self._infeasible:
            self._dirty.set()
        for keeper, spec in others if not self._infeasible else ():
            keeper.resize(spec)

    def end(self, grace: float) -> None:
        """Stop the pod gracefully; another call with a shorter grace period speeds it up."""
        sooner = self._deleting.is_set() and grace < self.grace
        self.grace = grace
        self._deleting.set()
        if grace <= 0:
            self.sandbox.hurry.set()
        elif sooner:
            asyncio.get_running_loop().call_later(grace, self.sandbox.hurry.set)

    def _changed(self) -> None:
        self._dirty.set()

    # --- the life --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        publisher = tasks.spawn(self._publish_loop(), f"status of {self.key[1]}")
        life = tasks.spawn(self._live(), f"pod {self.key[1]}")
        try:
            await self._deleting.wait()
            await tasks.cancel(life, *self._tasks)
            await self._stop_all()
            await tasks.cancel(publisher)
            await self._publish_end()
            await self._remove()
        finally:
            await tasks.cancel(publisher, life, *self._tasks)

    async def _live(self) -> None:
        if self._over:
            await self._stop_all()  # of a pod that was being stopped when the node daemon was restarted
            return
        asyncio.get_running_loop().call_later(FIRST_STATUS_S, self._changed)
        try:
            async with asyncio.timeout(self._deadline()) as self._term:
                try:
                    await self._contain()
                finally:
                    self._term = None
        except TimeoutError:
            await self._fail("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
        except _Evicted as e:
            self.grace = min(self.grace, EVICTION_S)
            await self._fail(pod_status.EVICTED, str(e))
        else:
            self._prepared = False
            await self._stop([*self._sidecars(), *self.ephemeral])
        self._dirty.set()
        await self.sandbox.disconnect()

    async def _fail(self, reason: str, message: str) -> None:
        self.sandbox.event("Warning", reason, message)
        self._failure = (reason, message)
        self._dirty.set()
        await tasks.cancel(*self._tasks)
        await self._stop_all()

    def _deadline(self) -> float | None:
        limit = self.sandbox.pod["spec"].get("activeDeadlineSeconds")
        if not limit:
            return None
        return max(times.parse(self._started_at).timestamp() + float(limit) - time.time(), 0.0)

    async def _contain(self) -> None:
        """Everything from the sandbox until the last container has exited. Raises _Evicted."""
        if says := security.unsupported(self.sandbox.pod):
            self.sandbox.event("Warning", "NotSupported", says)
        await self._until_done(self.sandbox.connect, "FailedCreatePodSandBox")
        await self._until_done(lambda: self.sandbox.volumes.prepare(self.sandbox.pod), "FailedMount")
        refreshing = tasks.spawn(self._refresh_volumes(), f"volumes of {self.key[1]}")
        self._prepared = True
        running = tasks.spawn(self._run_containers(), f"containers of {self.key[1]}")
        try:
            await asyncio.wait((running, refreshing), return_when=asyncio.FIRST_COMPLETED)
            if not running.done() and refreshing.exception() is None:
                raise _Evicted(refreshing.result())
            await running
        finally:
            await tasks.cancel(running, refreshing)

    async def _run_containers(self) -> None:
        """Until the last one has exited, or the failure of an init container fails the pod."""
        for c in self.ephemeral:
            if not isinstance(c.state, Terminated):
                self._keep(c)
        for c in self.init:
            if not await self._initialize(c):
                return
        self._initialized = True
        self._dirty.set()
        policy = self.sandbox.policy
        for c in self.main:
            if not c.is_final(c.state, policy):
                self._keep(c)
                await self._keepers[c.name].launched.wait()
        for c in self.main:
            await c.until(lambda c: isinstance(c.state, Terminated) and not c.restarts(policy))

    async def _initialize(self, c: Container) -> bool:
        """False if its failure fails the pod. A sidecar counts as done when it has started."""
        if c.role is Role.SIDECAR:
            self._keep(c)
            await c.until(lambda c: c.started)
            return True
        if self._resumed:
            return True
        self._keep(c)
        policy = self.sandbox.policy
        await c.until(lambda c: isinstance(c.state, Terminated) and not c.restarts(policy))
        return c.succeeded

    def _keep(self, c: Container) -> None:
        self._tasks.append(tasks.spawn(self._keepers[c.name].keep(), f"container {self.key[1]}/{c.name}"))

    async def _until_done(self, step: Callable[[], Awaitable[None]], reason: str) -> None:
        wait = 0.2
        while True:
            try:
                await step()
                return
            except (volumes.NotReady, OSError, KubeError, TimeoutError) as e:
                text = (e.strerror if isinstance(e, OSError) else None) or str(e) or type(e).__name__
                self.sandbox.event("Warning", reason, text)
                await asyncio.sleep(wait)
                wait = min(wait * 2, 5.0)

    async def _refresh_volumes(self) -> str:
        """Returns which volume is larger than it may be, once one is."""
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                pod, seen = self.sandbox.pod, self.sandbox.volumes
                if scratch.limited(pod) and (says := await asyncio.to_thread(seen.exceeded, pod)):
                    return says
                await self.sandbox.volumes.prepare(self.sandbox.pod)
            except (volumes.NotReady, OSError, KubeError) as e:
                log.warning("volumes of %s/%s: %s", *self.key, e)

    # --- the end ---------------------------------------------------------------------------------------------

    def _sidecars(self) -> list[Container]:
        return [c for c in self.init if c.role is Role.SIDECAR]

    async def _stop_all(self) -> None:
        """Stop the main containers together, then sidecars in reverse order: they serve the application until it
        exits."""
        deadline = asyncio.get_running_loop().time() + self.grace
        first = [*self.main, *self.ephemeral, *(c for c in self.init if c.role is Role.INIT)]
        await self._kill(first, self.grace)
        left = deadline - asyncio.get_running_loop().time()
        await self._stop(self._sidecars(), max(left, min(SIDECAR_GRACE_S, self.grace)))

    async def _stop(self, sidecars: list[Container], grace: float | None = None) -> None:
        keeping = [t for t in self._tasks if t.get_name().startswith("container ")]
        await tasks.cancel(*keeping)  # nothing is restarted
        for c in reversed(sidecars):
            await self._kill([c], self.grace if grace is None else grace)

    async def _kill(self, containers: list[Container], grace: float) -> None:
        kills = (self._keepers[c.name].kill(grace, f"Stopping container {c.name}") for c in containers)
        for failure in await asyncio.gather(*kills, return_exceptions=True):
            if isinstance(failure, Exception):
                log.warning("stopping %s/%s: %s", *self.key, str(failure) or type(failure).__name__)

    async def _remove(self) -> None:
        await self.sandbox.disconnect()
        await asyncio.to_thread(self.sandbox.volumes.remove)
        remove = partial(removal.remove, self.sandbox.node.client, self.sandbox.pod)
        await tasks.until_done(remove, f"deletion of {self.key[0]}/{self.key[1]}")

    # --- status ----------------------------------------------------------------------------------------------

    async def _publish_loop(self) -> None:
        while True:
            await self._dirty.wait()
            await self.sandbox.node.statuses.turn()
            self._dirty.clear()
            status = self._status()
            if status != self._published and not await self._publish(status):
                return

    async def _publish_end(self) -> None:
        """Say how the pod has ended before its object is removed, without waiting for a turn: a finalizer may keep the
        object, and whoever has set it (a Job's controller, for example) waits for a terminal phase."""
        if self._over:
            return  # which the object's status has already
        self._over = True
        status = self._status()
        for _ in range(LAST_TRIES):
            if status == self._published or not await self._publish(status):
                return
        log.warning("%s/%s is removed without a last status, which the API did not take", *self.key)

    def _status(self) -> Json:
        facts = pod_status.Facts(
            self.sandbox.policy,
            self._started_at,
            self.sandbox.address or dig(self.sandbox.pod, "status", "podIP", default=""),
            plan.NODE_IP,
            self._initialized,
            self._failure,
            self._over,
            self._infeasible,
        )
        status = pod_status.status(self.sandbox.pod, self.init, self.main, facts, times.stamp())
        if self.ephemeral:
            shown = (pod_status.container_status(c, self._initialized) for c in self.ephemeral)
            status["ephemeralContainerStatuses"] = list(shown)
        return status

    async def _publish(self, status: Json) -> bool:
        """False when the pod no longer exists. The UID makes it a conflict (409) if another pod has its name by now."""
        meta = {"uid": self.uid}
        if self.sandbox.pod["spec"].get("readinessGates"):  # whose conditions are in the same list
            meta["resourceVersion"] = self.sandbox.pod["metadata"]["resourceVersion"]
        change = {"metadata": meta, "status": status}
        try:
            await self.sandbox.node.client.patch(kinds.POD, *self.key, change, "status")
            self._published = status
        except (KubeError, OSError) as e:
            if isinstance(e, KubeError) and e.code == 404:
                return False
            self._dirty.set()
            await asyncio.sleep(0.5)
        return True
