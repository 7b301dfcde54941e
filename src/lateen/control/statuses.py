"""What the statuses of the mesh's objects should be, of those that a change affects.

A status follows from the object, from the sessions of proxies (``reach``), from findings and patches, from the mesh
(Gateway API) and from what the leader has deployed and issued.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lateen.ads.server import AdsServer
from lateen.api import kinds
from lateen.api.objects import Ref
from lateen.api.validate import Finding
from lateen.control import conditions, gateway_status, ingress_status
from lateen.control.due import Due, Place
from lateen.control.findings import Found
from lateen.control.issuing_status import State
from lateen.control.patching import Patching
from lateen.control.reach import Reach, reach, refused, served
from lateen.control.world import World
from lateen.kit import times
from lateen.kit.jsons import Json, dig
from lateen.kube.bulk import Change
from lateen.kube.informer import Informer, Key
from lateen.mesh.model import Mesh
from lateen.mesh.objects import Objects
from lateen.mesh.registry import in_families
from lateen.mesh.workloads import BOTH


class Statuses:
    """``due`` says which have to be looked at; ``wanted`` what to write."""

    def __init__(
        self,
        world: World,
        ads: AdsServer,
        patching: Patching,
        mesh: Callable[[], Mesh],
        offered: Callable[[], Objects],
        unfetched: Callable[[Any], list[str] | None] = lambda _: None,
    ) -> None:
        """``offered``: the objects that proxies have been offered. ``unfetched``: problems of the documents that istiod
        fetches for an object, if any."""
        self._world, self._ads, self._patching = world, ads, patching
        self._mesh, self._offered, self._unfetched = mesh, offered, unfetched
        self._first = ""
        self.informers: list[Informer] = []
        self.due, self.ingresses_due = Due(), True
        self.written: dict[Place, Json] = {}
        """Statuses that the informers have not reported back yet."""
        self.found: dict[str, list[Found]] | None = None
        """Findings by object; None before the first analysis."""
        self.undeployed: Mapping[Key, tuple[str, str]] = {}
        """Why proxies of Gateways could not be deployed: (reason, in a sentence)."""
        self.issued: Mapping[Ref, State] = {}
        """The states of issuers and certificates."""

    def start_over(self) -> None:
        """As a new leader: nothing was tracked while another istiod held the lease."""
        self.found, self.written = None, {}
        self.mark_all()

    def mark_all(self) -> None:
        self.due.mark((i.kind, key) for i in self.informers if i.kind.owned for key in i.objects)
        self.ingresses_due = True

    def analyzed(self, report: dict[str, list[Found]]) -> None:
        """Set changed findings, by object."""
        if self.found is None:
            self.found = {}
            self.mark_all()
        for ref, found in report.items():
            self.found.pop(ref, None)
            if found:
                self.found[ref] = found
        self.due.mark_refs(report)

    def having(self, code: str) -> int:
        """The number of objects with a finding, if this istiod is the leader."""
        return sum(any(f.code == code for f in found) for found in (self.found or {}).values())

    def validated(self, obj: Json) -> list[Finding] | None:
        """What validation has found in an object; None: it has not been read yet."""
        meta = obj["metadata"]
        ref = Ref(*kinds.group_kind(obj), str(meta.get("namespace") or ""), str(meta["name"]))
        return self._world.validated.get(ref)

    def wanted(self) -> list[Change]:
        """The due statuses that differ from the written ones."""
        mesh, connections = self._mesh(), self._ads.connections
        if self._world.first_revision() != self._first:
            self._first = self._world.first_revision()
            self.mark_all()
        self.due.sessions(refused(connections), served(connections))
        self.due.conditions(_extras(mesh, self._patching.report(connections), self._unfetched, self.issued))
        self.due.standings(mesh.standings())
        addresses = mesh.automatic()
        self.due.addresses(addresses, mesh.objects.service_entries)
        due = self.due.take()
        refs = {(kind, key): kind.ref(*key) for kind, key in due}
        wanted = {str(ref) for ref in refs.values()} | _fronts(mesh, refs.values())
        far = reach(connections, wanted) if due else {}
        objects = {i.kind: i.objects for i in self.informers}
        now = times.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        out: list[Change] = []
        for kind, key in due:
            obj = objects.get(kind, {}).get(key)
            if obj is None or kind in self._world.foreign or not self._world.writes(obj):
                self.due.settle((kind, key), True)
            elif self._ahead(mesh, kind, key):
                self.due.mark([(kind, key)])  # its status is written after the push that contains it
            else:
                obj = {**obj, "status": self.written.get((kind, key), obj.get("status"))}
                ref = refs[kind, key]
                if kind.group in kinds.GATEWAY_APIS:
                    status, settled = self._of_gateway_api(mesh, ref, obj, far, objects, now)
                else:
                    facts = self._facts(kind, ref, obj, far, addresses)
                    status, settled = conditions.outcome(kind, obj, facts, now)
                self.due.settle((kind, key), settled)
                if status is not None:
                    out.append(Change(kind, *key, {"status": status}))
        if self.ingresses_due:
            self.ingresses_due = False
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
        extras = self.due.extras.get(ref, ())
        hosts = dig(obj, "spec", "hosts", default=[]) if kind is kinds.SERVICE_ENTRY else []
        return conditions.Facts(
            self._world.bad.get(identity, ""),
            far.get(ref, Reach()),
            None if self.found is None else self.found.get(ref, []),
            (*extras, conditions.patched([])) if kind is kinds.ENVOY_FILTER and not extras else extras,
            [
                {"host": h, "value": ip}
                for h in hosts
                if (own := addresses.get((identity.namespace, h)))
                for ip in in_families(own, BOTH)
            ],
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
