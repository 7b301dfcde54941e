"""A preview of what configuration would change at proxies: both states of the mesh are translated as in the control
plane, without a proxy. Pure.

Workloads stand for their pods' proxies. The console may not read Secrets, so gateways' certificates are assumed to
exist; keys of token issuers are left out on both sides.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format

from lateen.analysis import Snapshot, Source
from lateen.analysis import model as reading
from lateen.analysis.snapshot import Key
from lateen.api import decoding, kinds
from lateen.api import objects as o
from lateen.api.reading import has_proxy, is_finished, is_terminating
from lateen.console import shapes
from lateen.inject.workload import of_pod
from lateen.kit import jsons, yamldoc
from lateen.kit.jsons import Json, dig
from lateen.mesh.model import Mesh
from lateen.mesh.objects import Objects, Slice
from lateen.mesh.views import Views
from lateen.mesh.workloads import container_port
from lateen.wire import connections, names
from lateen.wire.node import ROUTER, SIDECAR
from lateen.wire.resource import Resource
from lateen.xds.generate import generate
from lateen.xds.patches.apply import apply
from lateen.xds.patches.operations import parsed

TITLES = {
    names.CDS: "cluster",
    names.EDS: "endpoints",
    names.SDS: "secret",
    names.ECDS: "filter",
    names.LDS: "listener",
    names.RDS: "routes",
    names.VHDS: "virtual host",
}
MOST = 200
MOST_LINES = 400
What = Literal["added", "changed", "removed"]


@dataclass(frozen=True)
class _Proxy:
    """The first pod of a workload, and the number of its pods."""

    workload: str
    kind: str
    pod: o.Pod
    pods: int


@dataclass
class _Change:
    before: Resource | None
    after: Resource | None
    workloads: list[str] = field(default_factory=list)


Owned = Mapping[tuple[str, str], Resource]
"""By type and name."""


def effect(live: Iterable[Source], changes: Mapping[Key, Source | None], root: str) -> shapes.Effect:
    """``changes``: objects that would be written, or (None) deleted. It takes a while where there are many
    workloads."""
    now = Snapshot(live, root=root)
    then = now.replaced(changes)
    pods = [s.obj for s in now.all(kinds.POD) if not is_terminating(s.obj) and not is_finished(s.obj)]
    proxies = list(_proxies(pods))
    views = Views(Mesh(_objects(now, pods)))
    before = {p: _owned(views, p) for p in proxies}
    views.advance(_objects(then, pods))
    made: dict[tuple[str, str, str, str], _Change] = {}
    touched = 0
    for p in proxies:
        found = list(_changed(before[p], _owned(views, p)))
        touched += p.pods if found else 0
        for (type_url, name), old, new in found:
            key = type_url, name, old.version if old else "", new.version if new else ""
            made.setdefault(key, _Change(old, new)).workloads.append(p.workload)
    order = sorted(made.items(), key=lambda item: (names.ORDER.index(item[0][0]), item[0]))
    return {
        "proxies": sum(p.pods for p in proxies),
        "touched": touched,
        "changes": [_told(type_url, name, change) for (type_url, name, *_), change in order[:MOST]],
        "left": max(0, len(order) - MOST),
    }


def resources(snapshot: Snapshot, pod: str) -> list[tuple[str, Json]]:
    """(type URL, message) of all resources of a pod's proxy."""
    pods = [s.obj for s in snapshot.all(kinds.POD)]
    proxy = next(p for p in _proxies(pods) if p.pod.name == pod)
    found = _owned(Views(Mesh(_objects(snapshot, pods))), proxy)
    return [(type_url, _message(r)) for (type_url, _), r in found.items()]


# --- the mesh of a snapshot ----------------------------------------------------------------------------------------


def _objects(snapshot: Snapshot, pods: Iterable[Json]) -> Objects:
    wanted = [k for k in kinds.TABLE.values() if k.spec is not None or k in (kinds.SERVICE, kinds.NAMESPACE)]
    objects = reading.read(snapshot, wanted)
    found = [decoding.pod(p) for p in pods if dig(p, "status", "podIP")]
    objects = objects.replaced(kinds.POD, {(p.namespace, p.name): p for p in found})
    slices = {(s.namespace, s.name): _slice(s, found) for s in objects.services.values()}
    objects = objects.replaced(kinds.ENDPOINT_SLICE, slices)
    wanted_secrets = {
        (namespace, name)
        for gateway in snapshot.all(kinds.GATEWAY)
        for server in gateway.spec.get("servers") or []
        if (name := dig(server, "tls", "credentialName", default=""))
        for namespace in {p.namespace for p in found}
    }
    secrets = {key: o.Credential(*key, chain="certificate", key="key", ca="authorities") for key in wanted_secrets}
    return objects.replaced(kinds.SECRET, secrets)


def _slice(service: o.Service, pods: Iterable[o.Pod]) -> Slice:
    """The EndpointSlice that the cluster's controller would create for a Service."""
    selected = [p for p in pods if p.ready and p.namespace == service.namespace and service.selector]
    selected = [p for p in selected if set(service.selector) <= set(p.labels)]
    ports = {
        port.name: tuple(o.Endpoint(p.address, at, p.name) for p in selected if (at := container_port(p, port)))
        for port in service.ports
    }
    return service.name, ports


def _proxies(pods: Iterable[Json]) -> Iterator[_Proxy]:
    """One of each workload."""
    by_workload: dict[tuple[str, str, str], list[Json]] = {}
    for p in pods:
        if has_proxy(p) and dig(p, "status", "podIP"):
            w = of_pod(p, p["metadata"]["namespace"])
            by_workload.setdefault((w.namespace, w.name, w.kind), []).append(p)
    for (namespace, name, _), found in sorted(by_workload.items()):
        kind = ROUTER if any(_is_gateway(c) for c in found[0]["spec"]["containers"]) else SIDECAR
        yield _Proxy(f"{namespace}/{name}", kind, decoding.pod(found[0]), len(found))


def _is_gateway(container: Json) -> bool:
    return bool(container["name"] == "istio-proxy" and ROUTER in (container.get("args") or []))


# --- resources -----------------------------------------------------------------------------------------------------


def _owned(views: Views, proxy: _Proxy) -> Owned:
    view = views.of(proxy.pod, proxy.kind, {connections.METADATA: "true"})
    sets = generate(view)
    patches = tuple(p for p in view.patches if not isinstance(parsed(p), str))
    found = apply(sets, patches, view.gateway is not None).sets if patches else sets
    return {
        (type_url, name): r for type_url, several in found.items() for s in several for name, r in s.resources.items()
    }


def _changed(before: Owned, after: Owned) -> Iterator[tuple[tuple[str, str], Resource | None, Resource | None]]:
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        if old is not new and (old is None or new is None or old.version != new.version):
            yield key, old, new


def _told(type_url: str, name: str, change: _Change) -> shapes.ResourceChange:
    what: What = "added" if change.before is None else "removed" if change.after is None else "changed"
    lines = list(difflib.unified_diff(_text(change.before), _text(change.after), lineterm="", n=3))[2:]
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], f"… and {len(lines) - MOST_LINES} more lines"]
    return {
        "type": TITLES.get(type_url, type_url),
        "name": names.plain_host(name),
        "what": what,
        "workloads": change.workloads,
        "diff": lines,
    }


def _text(resource: Resource | None) -> list[str]:
    return [] if resource is None else yamldoc.dump(_message(resource)).splitlines()


def _message(resource: Resource) -> Json:
    wrapper = discovery_pb2.Resource.FromString(resource.wrapped)
    found: Json = jsons.loads(json_format.MessageToJson(wrapper.resource, preserving_proto_field_name=True))
    return found
