"""Writes the status of the mesh's objects: after every change has settled, and only what differs from what is written.

Only the istiod that holds the lease writes. The analysis runs in a process of its own (``control/analyst``); what is
written never waits for it but once, at the start, so that a cluster with many objects is not written twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

from lateen.ads.server import AdsServer
from lateen.api import kinds
from lateen.control import conditions
from lateen.control.analyst import Analyst, Found
from lateen.control.leadership import NAME, Leadership
from lateen.control.patching import Patching
from lateen.control.reach import Reach, reach
from lateen.control.world import World
from lateen.kit import tasks, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError, Unreachable
from lateen.kube.informer import Informer, Key
from lateen.mesh.model import Mesh
from lateen.mesh.objects import Objects

log = logging.getLogger("lateen.control.status")

QUIET_S = 0.3
"""Nothing is written before this long after a change."""
FIRST_S = 4.0
"""How long the first statuses wait for the first findings."""
AT_ONCE = 8


class StatusWriter:
    """Marks itself dirty by ``changed`` and ``pushed``; ``run`` writes."""

    def __init__(
        self,
        client: Client,
        world: World,
        ads: AdsServer,
        patching: Patching,
        mesh: Callable[[], Mesh],
        offered: Callable[[], Objects],
        root: str,
        me: str,
        secrets: Callable[[], dict[str, Informer]],
    ) -> None:
        """``offered``: the objects that proxies have been offered. ``secrets``: the informers of Secrets by namespace,
        of those that are read."""
        self._client, self._world, self._ads, self._patching = client, world, ads, patching
        self._mesh, self._offered, self._secrets, self._root = mesh, offered, secrets, root
        self._dirty, self._stale = asyncio.Event(), asyncio.Event()
        self._found: dict[str, list[Found]] = {}
        self._analyzed = asyncio.Event()
        self._analyst = Analyst(root, self._everything, lambda: self._secrets())
        self.leadership = Leadership(client, root, me, self._lives, world.revision.of(NAME))
        self.leadership.gained = self._gained
        self._stale.set()
        self.informers: list[Informer] = []
        ads.answered = self._dirty.set

    def _lives(self, istiod: str) -> bool:
        return (self._root, istiod) in self._world.objects.pods

    def _gained(self) -> None:
        self._analyst.stop()  # it has not heard of changes while another istiod had the lease
        self._stale.set()
        self._dirty.set()

    def pushed(self) -> None:
        """Proxies have been offered another mesh."""
        self._dirty.set()

    def changed(self, kind: kinds.Kind, _: Key, old: Json | None, new: Json | None) -> None:
        """An informer's report; changes of a status are not changes."""
        if old is not None and new is not None and _substance(kind, old) == _substance(kind, new):
            return
        obj = new or old
        if kind is not kinds.ENDPOINT_SLICE and obj is not None and self.leadership.held:
            self._analyst.changed(_typed(kind, obj), gone=new is None)
            self._stale.set()
        if kind.owned or kind in (kinds.SERVICE, kinds.INGRESS):
            self._dirty.set()

    async def run(self) -> None:
        """Never returns."""
        analysing = tasks.spawn(tasks.forever(self._analyse, "analysis"), "analysis")
        leading = tasks.spawn(tasks.forever(self.leadership.run, "lease"), "lease")
        try:
            await self._write_on()
        finally:
            await tasks.cancel(analysing, leading)

    async def close(self) -> None:
        """Let others write; nothing waits for the analysis."""
        await asyncio.gather(self._analyst.close(), self.leadership.release())

    async def _write_on(self) -> None:
        while True:
            await self._dirty.wait()
            await asyncio.sleep(QUIET_S)
            if not self.leadership.held:
                self._dirty.clear()  # whoever becomes the leader looks at everything
                continue
            if not self._analyzed.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._analyzed.wait(), FIRST_S)
            self._dirty.clear()
            await self._write()

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
            for ref, found in report.items():
                self._found.pop(ref, None)
                if found:
                    self._found[ref] = found
            self._analyzed.set()
            if report:
                self._dirty.set()

    def _everything(self) -> Iterator[Json]:
        for informer in (*self.informers, *self._secrets().values()):
            if informer.kind is not kinds.ENDPOINT_SLICE:
                yield from (_typed(informer.kind, obj) for obj in informer.objects.values())

    async def _write(self) -> None:
        wanted = self._wanted()
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(kind: kinds.Kind, obj: Json, status: Json) -> None:
            meta = obj["metadata"]
            async with gate:
                try:
                    await self._client.patch(kind, meta["namespace"], meta["name"], {"status": status}, "status")
                except (KubeError, Unreachable) as e:
                    if not isinstance(e, KubeError) or e.code not in (404, 409):
                        log.warning("status of %s %s/%s: %s", kind.kind, meta["namespace"], meta["name"], e)

        await asyncio.gather(*(one(*w) for w in wanted))

    def _wanted(self) -> list[tuple[kinds.Kind, Json, Json]]:
        """(kind, object, its status) of each whose status is not written yet."""
        far = reach(self._ads.connections)
        mesh = self._mesh()
        extras = _extras(mesh, self._patching.report(self._ads.connections))
        addresses, ours = mesh.automatic(), self._world.writes()
        out: list[tuple[kinds.Kind, Json, Json]] = []
        for informer in self.informers:
            if not informer.kind.owned:
                continue
            for key, obj in informer.objects.items():
                if not ours(obj) or self._ahead(informer.kind, key):
                    continue  # the push that brings it to proxies has its status written, too
                status = self._status(informer.kind, obj, far, extras, addresses)
                if status is not None:
                    out.append((informer.kind, obj, status))
        return out + self._ingresses(mesh)

    def _ahead(self, kind: kinds.Kind, key: Key) -> bool:
        """Whether the object is another one than what proxies have been offered."""
        known, pushed = self._world.objects, self._offered()
        return known is not pushed and known.of(kind).get(key) is not pushed.of(kind).get(key)

    def _ingresses(self, mesh: Mesh) -> list[tuple[kinds.Kind, Json, Json]]:
        """An Ingress is reached where its gateway is."""
        objects = {i.kind: i.objects for i in self.informers}
        ours = {(i.ref.namespace, i.ref.name) for i in mesh.ingresses()}
        found = [
            s
            for s in objects[kinds.SERVICE].values()
            if s["metadata"]["namespace"] == mesh.root_namespace
            and dig(s, "spec", "selector", "istio") == mesh.ingress.selector
        ]
        at: list[Json] = [{"ip": i["ip"]} if "ip" in i else i for s in found for i in _addresses(s)]
        out: list[tuple[kinds.Kind, Json, Json]] = []
        for obj in objects[kinds.INGRESS].values():
            mine = (obj["metadata"]["namespace"], obj["metadata"]["name"]) in ours  # others are other controllers'
            if mine and dig(obj, "status", "loadBalancer", "ingress", default=[]) != at:
                out.append((kinds.INGRESS, obj, {"loadBalancer": {"ingress": at}}))
        return out

    def _status(
        self,
        kind: kinds.Kind,
        obj: Json,
        far: dict[str, Reach],
        extras: dict[str, list[Json]],
        addresses: dict[Key, str],
    ) -> Json | None:
        """What to write; None where it is written already."""
        meta = obj["metadata"]
        identity = kind.ref(meta["namespace"], meta["name"])
        ref = str(identity)
        generation, found = meta.get("generation"), self._found.get(ref, [])
        status: Json = dig(obj, "status", default={})
        old = status.get("conditions") or []
        done = any(
            c.get("type") == "Reconciled" and c.get("status") == "True" and c.get("observedGeneration") == generation
            for c in old
        )
        new = [
            conditions.accepted(kind, self._world.bad.get(identity, "")),
            conditions.analyzed(found),
            conditions.reconciled(kind, far.get(ref, Reach()), done),
            *conditions.shadowed(found),
            *extras.get(ref, ()),
        ]
        if kind is kinds.ENVOY_FILTER and ref not in extras:
            new.append(conditions.patched([]))
        new = [c | {"observedGeneration": generation} for c in new]
        new += [_bare(c) for c in old if c.get("type") == "Healthy"]  # the probe's, not ours
        messages = conditions.validation_messages(found)
        given = [
            {"host": h, "value": ip}
            for h in (dig(obj, "spec", "hosts", default=[]) if kind is kinds.SERVICE_ENTRY else [])
            if (ip := addresses.get((meta["namespace"], h)))
        ]
        same = (status.get("validationMessages") or []) == messages and (status.get("addresses") or []) == given
        if same and [_bare(c) for c in old] == new:
            return None
        now = times.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "conditions": conditions.merged(old, new, now),
            "observedGeneration": generation,
            "validationMessages": messages,
            **({"addresses": given} if given or status.get("addresses") else {}),
        }


def _bare(c: Json) -> Json:
    return {k: v for k, v in c.items() if k != "lastTransitionTime"}


def _extras(mesh: Mesh, patches: dict[str, list[str]]) -> dict[str, list[Json]]:
    """Conditions that only some objects have, by object."""
    out: dict[str, list[Json]] = {}
    for outcome in mesh.outcomes():
        if outcome.of.group_kind == kinds.GATEWAY.id:
            says = [problem.says for problem in outcome.problems]
            out.setdefault(str(outcome.of), []).append(conditions.conflicted(says))
    for ref, says in patches.items():
        out.setdefault(ref, []).append(conditions.patched(says))
    return out


def _addresses(service: Json) -> list[Json]:
    found: list[Json] = dig(service, "status", "loadBalancer", "ingress", default=[])
    return found


def _typed(kind: kinds.Kind, obj: Json) -> Json:
    return {"apiVersion": kind.api_version, "kind": kind.kind, **obj}


def _substance(kind: kinds.Kind, obj: Json) -> Any:
    """What the analysis and the status depend on in an object of the cluster."""
    meta = obj["metadata"]
    common = meta.get("labels"), meta.get("annotations"), meta.get("deletionTimestamp")
    if kind is kinds.POD:
        return *common, dig(obj, "status", "phase"), dig(obj, "spec", "nodeName")
    if kind is kinds.NODE:
        return common
    load_balancer = dig(obj, "status", "loadBalancer") if kind is kinds.SERVICE else None
    return *common, obj.get("spec"), obj.get("data"), load_balancer
