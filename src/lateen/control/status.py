"""Writes the status of the mesh's objects, once a change has settled: only of the objects that it affects, and only if
the status differs.

Only the leader writes. The analysis runs in a process of its own (``control/analyst``); writing waits for it only at
the first start, so that the objects of a large cluster are not written twice. A status is at most 5 s old: a change
waits for ``QUIET_S``, and if the leader dies, another istiod gets the lease after ``leadership.TAKEOVER_S``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

from lateen.api import kinds
from lateen.control.analyst import Analyst
from lateen.control.findings import Child, Found
from lateen.control.leadership import NAME, Leadership
from lateen.control.statuses import Statuses
from lateen.control.world import World
from lateen.kit import tasks
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError
from lateen.kube.informer import Informer, Key

log = logging.getLogger("lateen.control.status")

QUIET_S = 0.3
"""Seconds without changes before anything is written."""
FIRST_S = 4.0
"""Seconds that the first statuses wait for the first findings."""
AGAIN_S = 2.0
"""Seconds until a failed write is retried."""


class StatusWriter:
    """``changed`` and ``pushed`` report changes to it; ``run`` writes."""

    def __init__(
        self,
        client: Client,
        world: World,
        statuses: Statuses,
        root: str,
        me: str,
        secrets: Callable[[], dict[str, Informer]],
        analysis: Child | None = None,
    ) -> None:
        """``secrets``: the informers of readable Secrets, by namespace. ``analysis``: the analysis process, if it is
        already running."""
        self._client, self._world, self._secrets, self._root = client, world, secrets, root
        self.statuses = statuses
        self._dirty, self._stale, self._analyzed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._analyst = Analyst(
            root,
            self._everything,
            lambda: self._secrets(),
            statuses.validated,
            analysis,
            self._services_elsewhere,
            world.revision.name,
        )
        self._told: dict[str, dict[Key, Json]] = {}
        """Cluster -> its Services that the analysis knows."""
        self.leadership = Leadership(client, root, me, self.lives, world.revision.of(NAME))
        self.leadership.gained.append(self._gained)
        self._stale.set()

    def lives(self, istiod: str) -> bool:
        """Whether there is an istiod of that name."""
        return (self._root, istiod) in self._world.objects.pods

    def _gained(self) -> None:
        self._analyst.stop()
        self._analyzed.clear()
        self.statuses.start_over()
        self._stale.set()
        self._dirty.set()

    def gateway(self, key: Key) -> None:
        """Called when the deployment of a Gateway's proxies has made progress or failed."""
        self.statuses.due.mark([(kinds.KUBERNETES_GATEWAY, key)])
        self._dirty.set()

    def moved(self, namespaces: frozenset[str]) -> None:
        """Called with namespaces that have joined or left the mesh: there are no events for their objects."""
        self.statuses.due.mark(
            (i.kind, key) for i in self.statuses.informers if i.kind.owned for key in i.objects if key[0] in namespaces
        )
        self.statuses.ingresses_due = True
        self._dirty.set()

    def pushed(self) -> None:
        """Called after proxies have been offered another mesh."""
        self.statuses.ingresses_due = True
        self._dirty.set()

    def changed(self, kind: kinds.Kind, key: Key, old: Json | None, new: Json | None) -> None:
        """Handle an informer's event."""
        if old is not None and new is not None and _substance(kind, old) == _substance(kind, new):
            if kind.owned and self.statuses.written.pop((kind, key), None) != (new.get("status") or {}):
                self.statuses.due.mark([(kind, key)])  # somebody else has written the status
                self._dirty.set()
            return
        obj = new or old
        if kind is not kinds.ENDPOINT_SLICE and obj is not None and self.leadership.held:
            self._analyst.changed(kind.typed(obj), gone=new is None)
            self._stale.set()
        if kind.owned:
            self.statuses.written.pop((kind, key), None)
            self.statuses.due.mark([(kind, key)])
            self._dirty.set()
        elif kind in (kinds.SERVICE, kinds.INGRESS, kinds.INGRESS_CLASS):
            if kind is kinds.SERVICE:
                self.statuses.due.mark_gateways()
            self.statuses.ingresses_due = True
            self._dirty.set()

    def elsewhere(self, cluster: str, kind: kinds.Kind = kinds.SERVICE, *_: object) -> None:
        """Called when Services of another cluster have changed, with a cluster that has been read, and with one that
        has left the mesh: their hosts exist in this one, too."""
        if kind is not kinds.SERVICE or not self.leadership.held:
            return
        now, before = self._services_of(cluster), self._told.get(cluster, {})
        self._told[cluster] = now
        changes = [(now[key], False) for key in now if now[key] is not before.get(key)]
        changes += [(before[key], True) for key in before.keys() - now.keys()]
        for obj, gone in changes:
            self._analyst.changed(kind.typed(obj), gone, cluster)
            self._stale.set()

    def _services_elsewhere(self) -> Iterator[tuple[str, Json]]:
        self._told = {name: self._services_of(name) for name in self._world.clusters.others}
        for name, found in self._told.items():
            yield from ((name, kinds.SERVICE.typed(obj)) for obj in found.values())

    def _services_of(self, cluster: str) -> dict[Key, Json]:
        """The Services of another cluster, as far as they belong to the mesh."""
        other = self._world.clusters.others.get(cluster)
        return other.read.services() if other and other.read else {}

    async def run(self) -> None:
        """Never returns."""
        analysing = tasks.spawn(tasks.forever(self._analyse, "analysis"), "analysis")
        leading = tasks.spawn(tasks.forever(self.leadership.run, "lease"), "lease")
        try:
            await self._write_on()
        finally:
            await tasks.cancel(analysing, leading)

    async def close(self) -> None:
        """Stop the analysis and release the lease, so that another istiod can write."""
        self._analyst.close()
        await self.leadership.release()

    async def _write_on(self) -> None:
        while True:
            await self._dirty.wait()
            await asyncio.sleep(QUIET_S)
            self._dirty.clear()
            if not self.leadership.held:
                continue  # a new leader looks at everything
            if not self._analyzed.is_set() and self._is_first_start():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._analyzed.wait(), FIRST_S)
            await self.write()

    def _is_first_start(self) -> bool:
        """Whether most objects have no status yet; GatewayClasses get theirs as soon as they are created."""
        objects = [o for i in self.statuses.informers if i.kind.owned for o in i.objects.values()]
        return 2 * sum(bool(o.get("status")) for o in objects) < len(objects)

    async def _analyse(self) -> None:
        while True:
            await self._stale.wait()
            await asyncio.sleep(QUIET_S)
            self._stale.clear()
            if not self.leadership.held:
                continue
            try:
                report = await self._analyst.ask()
            except BaseException:
                self._stale.set()
                raise
            self.analyzed(report)

    def analyzed(self, report: dict[str, list[Found]]) -> None:
        """Set changed findings, by object."""
        self.statuses.analyzed(report)
        self._analyzed.set()
        self._dirty.set()

    def answered(self) -> None:
        """Called when a proxy has acknowledged or rejected something."""
        self._dirty.set()

    def _everything(self) -> Iterator[Json]:
        for informer in (*self.statuses.informers, *self._secrets().values()):
            if informer.kind is not kinds.ENDPOINT_SLICE:
                yield from (informer.kind.typed(obj) for obj in informer.objects.values())

    async def write(self) -> None:
        """Write the statuses of all objects that are due."""
        changes = self.statuses.wanted()
        for c in changes:
            if c.kind.owned:
                self.statuses.written[c.kind, (c.namespace, c.name)] = c.body["status"]
        # A process that was stopped in the middle may have a successor when it goes on.
        failed = await self._client.patch_all(changes, "status", lambda: self.leadership.held)
        for c, e in failed:
            where = (c.kind, (c.namespace, c.name))
            self.statuses.written.pop(where, None)
            if isinstance(e, KubeError) and e.code in (404, 409):
                continue  # the object is gone, or an informer will report the change
            log.warning("status of %s %s/%s: %s", c.kind.kind, c.namespace, c.name, e)
            self.statuses.due.mark([where])
            self.statuses.ingresses_due |= c.kind is kinds.INGRESS
            asyncio.get_running_loop().call_later(AGAIN_S, self._dirty.set)


def _substance(kind: kinds.Kind, obj: Json) -> Any:
    """The parts of an object that the analysis and the status depend on."""
    meta = obj["metadata"]
    common = meta.get("labels"), meta.get("annotations"), meta.get("deletionTimestamp")
    if kind is kinds.POD:
        return *common, dig(obj, "status", "phase"), dig(obj, "spec", "nodeName")
    if kind is kinds.NODE:
        return common
    load_balancer = dig(obj, "status", "loadBalancer") if kind is kinds.SERVICE else None
    return *common, obj.get("spec"), obj.get("data"), load_balancer
