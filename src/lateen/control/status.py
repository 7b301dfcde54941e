"""Writes the status of the mesh's objects, once a change has settled: only of the objects that it affects, and only if
the status differs.

Only the leader writes. The analysis runs in a process of its own (``control/analyst``); writing waits for it only at
the first start, so that the objects of a large cluster are not written twice. A status is at most 5 s old: a change
waits for ``QUIET_S``, and if the leader dies, another istiod gets the lease after ``leadership.TAKEOVER_S``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from lateen.ads.server import AdsServer
from lateen.api import kinds
from lateen.api.objects import Ref
from lateen.api.validate import Finding
from lateen.control import conditions, gateway_status, ingress_status
from lateen.control.analyst import Analyst
from lateen.control.due import Due, Place
from lateen.control.findings import Child, Found
from lateen.control.issuing_status import State
from lateen.control.leadership import NAME, Leadership
from lateen.control.patching import Patching
from lateen.control.reach import Reach, reach, refused, served
from lateen.control.world import World
from lateen.kit import tasks, times
from lateen.kit.jsons import Json, dig
from lateen.kube.bulk import Change
from lateen.kube.client import Client, KubeError
from lateen.kube.informer import Informer, Key
from lateen.mesh.model import Mesh
from lateen.mesh.objects import Objects

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
        ads: AdsServer,
        patching: Patching,
        mesh: Callable[[], Mesh],
        offered: Callable[[], Objects],
        root: str,
        me: str,
        secrets: Callable[[], dict[str, Informer]],
        unfetched: Callable[[Any], list[str] | None] = lambda _: None,
        analysis: Child | None = None,
    ) -> None:
        """``offered``: the objects that proxies have been offered. ``secrets``: the informers of readable Secrets, by
        namespace. ``unfetched``: problems of the documents that istiod fetches for an object, if
        any. ``analysis``: the analysis process, if it is already running."""
        self._client, self._world, self._ads, self._patching = client, world, ads, patching
        self._mesh, self._offered, self._secrets, self._root = mesh, offered, secrets, root
        self._unfetched = unfetched
        self._dirty, self._stale = asyncio.Event(), asyncio.Event()
        self._due = Due()
        self._ingresses_due, self._first = True, ""
        self._written: dict[Place, Json] = {}
        """Statuses that the informers have not reported back yet."""
        self._found: dict[str, list[Found]] = {}
        self._analyzed = asyncio.Event()
        self._analyst = Analyst(root, self._everything, lambda: self._secrets(), self._validated, analysis)
        self.leadership = Leadership(client, root, me, self.lives, world.revision.of(NAME))
        self.leadership.gained.append(self._gained)
        self._stale.set()
        self.informers: list[Informer] = []
        self.undeployed: Mapping[Key, tuple[str, str]] = {}
        """Why proxies of Gateways could not be deployed: (reason, in a sentence)."""
        self.issued: Mapping[Ref, State] = {}
        """The states of issuers and certificates."""
        ads.answered = self._dirty.set

    def lives(self, istiod: str) -> bool:
        """Whether there is an istiod of that name."""
        return (self._root, istiod) in self._world.objects.pods

    def _gained(self) -> None:
        """Start over as the leader: nothing was tracked while another istiod held the lease."""
        self._analyst.stop()
        self._analyzed.clear()
        self._found, self._written = {}, {}
        self._mark_all()
        self._stale.set()
        self._dirty.set()

    def _mark_all(self) -> None:
        self._due.mark((i.kind, key) for i in self.informers if i.kind.owned for key in i.objects)
        self._ingresses_due = True

    def gateway(self, key: Key) -> None:
        """Called when the deployment of a Gateway's proxies has made progress or failed."""
        self._due.mark([(kinds.KUBERNETES_GATEWAY, key)])
        self._dirty.set()

    def moved(self, namespaces: frozenset[str]) -> None:
        """Called with namespaces that have joined or left the mesh: there are no events for their objects."""
        self._due.mark(
            (i.kind, key) for i in self.informers if i.kind.owned for key in i.objects if key[0] in namespaces
        )
        self._ingresses_due = True
        self._dirty.set()

    def pushed(self) -> None:
        """Called after proxies have been offered another mesh."""
        self._ingresses_due = True
        self._dirty.set()

    def changed(self, kind: kinds.Kind, key: Key, old: Json | None, new: Json | None) -> None:
        """Handle an informer's event."""
        if old is not None and new is not None and _substance(kind, old) == _substance(kind, new):
            if kind.owned and self._written.pop((kind, key), None) != (new.get("status") or {}):
                self._due.mark([(kind, key)])  # somebody else has written the status
                self._dirty.set()
            return
        obj = new or old
        if kind is not kinds.ENDPOINT_SLICE and obj is not None and self.leadership.held:
            self._analyst.changed(_typed(kind, obj), gone=new is None)
            self._stale.set()
        if kind.owned:
            self._written.pop((kind, key), None)
            self._due.mark([(kind, key)])
            self._dirty.set()
        elif kind in (kinds.SERVICE, kinds.INGRESS, kinds.INGRESS_CLASS):
            if kind is kinds.SERVICE:
                self._due.mark_gateways()
            self._ingresses_due = True
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
        objects = [o for i in self.informers if i.kind.owned for o in i.objects.values()]
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
        for ref, found in report.items():
            self._found.pop(ref, None)
            if found:
                self._found[ref] = found
        self._due.mark_refs(report)
        if not self._analyzed.is_set():
            self._analyzed.set()
            self._mark_all()
        self._dirty.set()

    def having(self, code: str) -> int:
        """The number of objects with a finding, if this istiod is the leader."""
        return sum(any(f.code == code for f in found) for found in self._found.values())

    def _everything(self) -> Iterator[Json]:
        for informer in (*self.informers, *self._secrets().values()):
            if informer.kind is not kinds.ENDPOINT_SLICE:
                yield from (_typed(informer.kind, obj) for obj in informer.objects.values())

    def _validated(self, obj: Json) -> list[Finding] | None:
        meta = obj["metadata"]
        ref = Ref(*kinds.group_kind(obj), str(meta.get("namespace") or ""), str(meta["name"]))
        return self._world.validated.get(ref)

    async def write(self) -> None:
        """Write the statuses of all objects that are due."""
        changes = self._wanted()
        for c in changes:
            if c.kind.owned:
                self._written[c.kind, (c.namespace, c.name)] = c.body["status"]
        failed = await self._client.patch_all(changes, "status")
        for c, e in failed:
            where = (c.kind, (c.namespace, c.name))
            self._written.pop(where, None)
            if isinstance(e, KubeError) and e.code in (404, 409):
                continue  # the object is gone, or an informer will report the change
            log.warning("status of %s %s/%s: %s", c.kind.kind, c.namespace, c.name, e)
            self._due.mark([where])
            self._ingresses_due |= c.kind is kinds.INGRESS
            asyncio.get_running_loop().call_later(AGAIN_S, self._dirty.set)

    def _wanted(self) -> list[Change]:
        """The due statuses that differ from the written ones."""
        mesh, connections = self._mesh(), self._ads.connections
        if self._world.first_revision() != self._first:
            self._first = self._world.first_revision()
            self._mark_all()
        self._due.sessions(refused(connections), served(connections))
        self._due.conditions(_extras(mesh, self._patching.report(connections), self._unfetched, self.issued))
        self._due.standings(mesh.standings())
        addresses = mesh.automatic()
        self._due.addresses(addresses, mesh.objects.service_entries)
        due = self._due.take()
        refs = {(kind, key): kind.ref(*key) for kind, key in due}
        wanted = {str(ref) for ref in refs.values()} | _fronts(mesh, refs.values())
        far = reach(connections, wanted) if due else {}
        objects = {i.kind: i.objects for i in self.informers}
        now = times.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        out: list[Change] = []
        for kind, key in due:
            obj = objects.get(kind, {}).get(key)
            if obj is None or kind in self._world.foreign or not self._world.writes(obj):
                self._due.settle((kind, key), True)
            elif self._ahead(mesh, kind, key):
                self._due.mark([(kind, key)])  # its status is written after the push that contains it
            else:
                obj = {**obj, "status": self._written.get((kind, key), obj.get("status"))}
                ref = refs[kind, key]
                if kind.group in kinds.GATEWAY_APIS:
                    status, settled = self._of_gateway_api(mesh, ref, obj, far, objects, now)
                else:
                    facts = self._facts(kind, ref, obj, far, addresses)
                    status, settled = conditions.outcome(kind, obj, facts, now)
                self._due.settle((kind, key), settled)
                if status is not None:
                    out.append(Change(kind, *key, {"status": status}))
        if self._ingresses_due:
            self._ingresses_due = False
            out += ingress_status.changes(mesh, objects[kinds.SERVICE], objects[kinds.INGRESS])
        return out

    def _of_gateway_api(
        self,
        mesh: Mesh,
        ref: Ref,
        obj: Json,
        far: dict[str, Reach],
        objects: dict[kinds.Kind, dict[Key, Json]],
        now: str,
    ) -> conditions.Outcome:
        standing = mesh.standings().get(ref)
        if standing is None:
            return conditions.Outcome(None, True)
        front, of = None, gateway_status.gateway_of(ref, standing)
        if of is not None:
            found = (mesh.service(host) for host in gateway_status.services_of(standing))
            services = [objects[kinds.SERVICE].get((s.namespace, s.name), {}) for s in found if s is not None]
            addresses = [a for s in services for a in gateway_status.addresses(s, mesh.cluster.domain)]
            key = (of.namespace, of.name)
            gateway = obj if of == ref else objects[kinds.KUBERNETES_GATEWAY].get(key, {})
            reached = far.get(str(of), Reach())
            front = gateway_status.Front(gateway, reached, addresses, self.undeployed.get(key))
        return gateway_status.outcome(obj, standing, front, now)

    def _facts(
        self, kind: kinds.Kind, identity: Ref, obj: Json, far: dict[str, Reach], addresses: dict[Key, str]
    ) -> conditions.Facts:
        ref = str(identity)
        extras = self._due.extras.get(ref, ())
        hosts = dig(obj, "spec", "hosts", default=[]) if kind is kinds.SERVICE_ENTRY else []
        return conditions.Facts(
            self._world.bad.get(identity, ""),
            far.get(ref, Reach()),
            self._found.get(ref, []) if self._analyzed.is_set() else None,
            (*extras, conditions.patched([])) if kind is kinds.ENVOY_FILTER and not extras else extras,
            [{"host": h, "value": ip} for h in hosts if (ip := addresses.get((identity.namespace, h)))],
            self._issued(identity) if kind.group == kinds.CERT_MANAGER else {},
        )

    def _issued(self, identity: Ref) -> Json | None:
        state = self.issued.get(identity)
        return state.fields if state is not None else None

    def _ahead(self, mesh: Mesh, kind: kinds.Kind, key: Key) -> bool:
        """Whether the object is newer than the basis of its status: the offered mesh, or (for objects that do not
        depend on proxies, whose statuses need not wait for a push) the current mesh."""
        of_mesh = kind.group in kinds.GATEWAY_APIS and not gateway_status.by_proxies(kind)
        known, seen = self._world.objects, mesh.instant if of_mesh else self._offered()
        return known is not seen and known.of(kind).get(key) is not seen.of(kind).get(key)


def _fronts(mesh: Mesh, refs: Iterable[Ref]) -> set[str]:
    """The Gateways whose proxies determine the statuses of objects."""
    found = ((ref, mesh.standings().get(ref)) for ref in refs)
    return {str(of) for ref, s in found if s is not None and (of := gateway_status.gateway_of(ref, s)) is not None}


def _extras(
    mesh: Mesh,
    patches: dict[str, list[str]],
    unfetched: Callable[[Any], list[str] | None],
    issued: Mapping[Ref, State],
) -> dict[str, list[Json]]:
    """Conditions that only some objects have, by object."""
    out: dict[str, list[Json]] = {}
    for outcome in mesh.outcomes():
        if outcome.of.group_kind == kinds.GATEWAY.id:
            says = [problem.says for problem in outcome.problems]
            out.setdefault(str(outcome.of), []).append(conditions.conflicted(says))
    for key, securing in mesh.objects.security_policies.items():
        out.setdefault(str(securing.ref), []).append(conditions.enforced(mesh.broken(*key)))
    for at, state in issued.items():
        out[str(at)] = list(itertools.starmap(conditions.condition, state.conditions))
    for ref, says in patches.items():
        out.setdefault(ref, []).append(conditions.patched(says))
    for kind, what in conditions.FETCHED.items():
        for found in mesh.objects.of(kind).values():
            if (missing := unfetched(found)) is not None:
                out.setdefault(str(found.ref), []).append(conditions.fetched(what, missing))
    return out


def _typed(kind: kinds.Kind, obj: Json) -> Json:
    return {"apiVersion": kind.api_version, "kind": kind.kind, **obj}


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
