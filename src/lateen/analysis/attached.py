"""Where an object of the mesh is attached: the gateways and hosts of a rule, the workloads that a policy selects, and
references to places that do not exist. For routes of the Gateway API it is what their statuses say
(``mesh/standings``). ``lateen x describe object`` and the console show it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lateen.analysis.bindings import MESH, gateway_name, served
from lateen.analysis.hosts import Hosts
from lateen.analysis.model import model
from lateen.analysis.snapshot import Snapshot, Source, selects
from lateen.api import kinds
from lateen.api.decoding import owner
from lateen.api.kinds import Kind
from lateen.api.reading import has_proxy, is_finished
from lateen.kit.jsons import Json, dig
from lateen.mesh.outcomes import ListenerSetStanding, PolicyStanding, RouteStanding

SELECTING = (
    kinds.AUTHORIZATION_POLICY,
    kinds.PEER_AUTHENTICATION,
    kinds.REQUEST_AUTHENTICATION,
    kinds.TELEMETRY,
    kinds.PROXY_CONFIG,
    kinds.SIDECAR,
    kinds.ENVOY_FILTER,
)
"""Policies: kinds that apply to the workloads that they select, otherwise to a namespace, otherwise to the mesh."""


class Place(NamedTuple):
    """One place where an object is attached, or should be."""

    kind: str
    """``Gateway``, ``Host``, ``Subset``, ``Workload``, ``Namespace``, ``Mesh`` or another kind of the API"""
    name: str
    """``namespace/name`` of an object, or a full host"""
    detail: str = ""
    """Details such as ``port 80 for shop.example.com``, ``3 pods``"""
    missing: str = ""
    """Why the object is not attached there; empty if it is."""


def places(snapshot: Snapshot, source: Source) -> list[Place]:
    """The places of an object; empty for kinds that are attached to nothing."""
    kind = kinds.of(source.obj)
    match kind:
        case kinds.VIRTUAL_SERVICE:
            return [*_of_rule(snapshot, source)]
        case kinds.DESTINATION_RULE:
            return [*_of_traffic(snapshot, source)]
        case kinds.GATEWAY:
            return _workloads(snapshot, source.spec.get("selector") or {}, "", {})
        case kinds.SERVICE_ENTRY:
            return [Place("Host", snapshot.full_host(h, source.namespace)) for h in source.spec.get("hosts") or []]
        case kinds.LISTENER_SET:
            return [_parent(snapshot, source)]
        case kinds.BACKEND_TLS_POLICY | kinds.X_BACKEND_TRAFFIC_POLICY:
            return [*_of_backend_policy(snapshot, source)]
        case kinds.BACKEND_TRAFFIC_POLICY:
            return _of_policy(snapshot, source)
        case _:
            if kind in SELECTING:
                return _of_policy(snapshot, source)
            return [*_of_route(snapshot, source)] if kind is not None else []


# --- rules of traffic ------------------------------------------------------------------------------------------------


def _of_rule(snapshot: Snapshot, vs: Source) -> Iterator[Place]:
    if not vs.spec.get("hosts"):
        yield from _delegating(snapshot, vs)
        return
    bound = list(served(snapshot, vs))
    for name in vs.spec.get("gateways") or [MESH]:
        if name == MESH:
            yield from _hosts(snapshot, vs)
            continue
        where = gateway_name(vs, str(name))
        full = "/".join(filter(None, where))
        if snapshot.get(kinds.GATEWAY, *where) is None:
            other = snapshot.get(kinds.KUBERNETES_GATEWAY, *where)
            says = "" if other else "there is no such Gateway"
            yield Place(str((kinds.KUBERNETES_GATEWAY if other else kinds.GATEWAY).id), full, missing=says)
            continue
        mine = [s for s in bound if (s.gateway.namespace, s.gateway.name) == where]
        for s in mine:
            yield Place("Gateway", full, f"port {s.port} for {', '.join(s.hosts)}")
        if not mine:
            yield Place("Gateway", full, missing="none of its servers has a host of this VirtualService")


def _hosts(snapshot: Snapshot, vs: Source) -> Iterator[Place]:
    """The hosts that sidecars route according to a rule."""
    readers = snapshot.visible(vs, vs.spec.get("exportTo") or [])
    known = Hosts.of(snapshot)
    for given in vs.spec.get("hosts") or []:
        full = snapshot.full_host(given, vs.namespace)
        there = known.entry(str(given), vs.namespace)
        where = "" if "*" in readers else f"for clients in {', '.join(sorted(readers))}"
        yield Place("Host", full, where, "" if there else "no service has this host")


def _delegating(snapshot: Snapshot, vs: Source) -> Iterator[Place]:
    """The VirtualServices that include the routes of one without hosts."""
    for other in snapshot.all(kinds.VIRTUAL_SERVICE):
        for route in other.spec.get("http") or []:
            to = dig(route, "delegate", default={})
            if (str(to.get("namespace") or other.namespace), to.get("name")) == (vs.namespace, vs.name):
                yield Place("VirtualService", other.full, str(route.get("name") or ""))


def _of_traffic(snapshot: Snapshot, dr: Source) -> Iterator[Place]:
    host = snapshot.full_host(dr.spec.get("host"), dr.namespace)
    entry = Hosts.of(snapshot).entry(str(dr.spec.get("host") or ""), dr.namespace)
    yield Place("Host", host, missing="" if entry else "no service has this host")
    if entry is None or entry.id != kinds.SERVICE.id or snapshot.in_other_clusters(entry):
        return  # the endpoints of a ServiceEntry may be found by DNS, so their labels are unknown
    pods = _running(snapshot.pods(entry.spec["selector"], entry.namespace)) if entry.spec.get("selector") else []
    for subset in dr.spec.get("subsets") or []:
        count = sum(selects(subset.get("labels"), p.labels) for p in pods)
        says = "" if count else "no pod of the service has its labels"
        yield Place("Subset", str(subset.get("name")), _count(count) if count else "", says)


# --- policies --------------------------------------------------------------------------------------------------------


def _of_policy(snapshot: Snapshot, policy: Source) -> list[Place]:
    spec = policy.spec
    targets = [*(spec.get("targetRefs") or []), *([spec["targetRef"]] if spec.get("targetRef") else [])]
    if targets:
        return [_target(snapshot, policy, t) for t in targets]
    selector = dig(spec, "selector", "matchLabels") or dig(spec, "workloadSelector", "labels") or {}
    root = policy.namespace == snapshot.root
    if not selector:
        return [Place("Mesh", "all workloads") if root else Place("Namespace", policy.namespace)]
    return _workloads(snapshot, selector, "" if root else policy.namespace, {"proxied": True})


def _target(snapshot: Snapshot, policy: Source, target: Json) -> Place:
    group = str(target.get("group") or "")
    kind = kinds.find("" if group == "core" else group, str(target.get("kind") or ""))
    name = f"{policy.namespace}/{target.get('name')}"
    if kind is None:
        return Place(str(target.get("kind")), name, missing="the mesh does not know this kind")
    there = snapshot.get(kind, policy.namespace, str(target.get("name"))) is not None
    return Place(str(kind.id), name, missing="" if there else "it does not exist")


def _workloads(snapshot: Snapshot, selector: Json, namespace: str, only: Json) -> list[Place]:
    """The workloads whose pods a selector selects; ``only``: with ``proxied``, of those that have a proxy."""
    found: dict[str, list[Source]] = {}
    for pod in _running(snapshot.pods(selector, namespace)):
        found.setdefault(f"{pod.namespace}/{owner(pod.obj)}", []).append(pod)
    if not found:
        labels = ", ".join(f"{k}={v}" for k, v in sorted(selector.items()))
        return [Place("Workload", labels or "all", missing="it selects no pod")]
    out = []
    for name, pods in sorted(found.items()):
        bare = only.get("proxied") and not any(has_proxy(p.obj) for p in pods)
        out.append(Place("Workload", name, _count(len(pods)), "its pods have no proxy" if bare else ""))
    return out


def _running(pods: Iterable[Source]) -> list[Source]:
    return [p for p in pods if not is_finished(p.obj)]


def _count(pods: int) -> str:
    return "1 pod" if pods == 1 else f"{pods} pods"


# --- the Gateway API -------------------------------------------------------------------------------------------------


def _of_route(snapshot: Snapshot, route: Source) -> Iterator[Place]:
    ref = kinds.Ref(*route.id, route.namespace, route.name)
    standing = model(snapshot).standings().get(ref)
    if not isinstance(standing, RouteStanding):
        return
    for parent in standing.parents:
        given = dig(route.spec, "parentRefs", parent.position, default={})
        group = given.get("group", kinds.GATEWAY_API)
        kind = kinds.find("" if group == "core" else group, str(given.get("kind") or "Gateway"))
        name = f"{given.get('namespace') or route.namespace}/{given.get('name')}"
        detail = " ".join(f"{k} {given[k]}" for k in ("sectionName", "port") if k in given)
        says = next((c.says for c in parent.conditions if c.type == "Accepted" and not c.true), "")
        yield Place(_spelled(kind, given), name, detail.replace("sectionName", "listener"), says)


def _parent(snapshot: Snapshot, source: Source) -> Place:
    """The Gateway of a ListenerSet."""
    given = source.spec.get("parentRef") or {}
    name = f"{given.get('namespace') or source.namespace}/{given.get('name')}"
    standing = model(snapshot).standings().get(kinds.Ref(*source.id, source.namespace, source.name))
    says = "there is no such Gateway of a class of the mesh"
    if isinstance(standing, ListenerSetStanding):
        says = next((c.says for c in standing.conditions if c.type == "Accepted" and not c.true), "")
    listeners = ", ".join(str(li.get("name")) for li in source.spec.get("listeners") or [])
    return Place(str(kinds.KUBERNETES_GATEWAY.id), name, f"listeners {listeners}", says)


def _of_backend_policy(snapshot: Snapshot, source: Source) -> Iterator[Place]:
    """The targets of a policy for backends, and the Gateways that its status names."""
    standing = model(snapshot).standings().get(kinds.Ref(*source.id, source.namespace, source.name))
    ancestors = standing.ancestors if isinstance(standing, PolicyStanding) else ()
    said = {
        a.ancestor: next((c.says for c in a.conditions if c.type == "Accepted" and not c.true), "") for a in ancestors
    }
    for t in source.spec.get("targetRefs") or []:
        place = _target(snapshot, source, t)
        ref = kinds.SERVICE.ref(source.namespace, str(t.get("name")))
        port = f"port {t['sectionName']}" if t.get("sectionName") else ""
        yield place._replace(detail=port, missing=place.missing or said.pop(ref, ""))
    for ref, says in said.items():
        if ref.group_kind == kinds.KUBERNETES_GATEWAY.id:
            yield Place(str(ref.group_kind), f"{ref.namespace}/{ref.name}", "by its routes", says)


def _spelled(kind: Kind | None, given: Json) -> str:
    return str(kind.id) if kind is not None else str(given.get("kind"))
