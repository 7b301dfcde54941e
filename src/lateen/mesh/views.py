"""The views of all proxies of one mesh: queries over it, so that a change recomputes only what it affects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from lateen.api import objects as o
from lateen.api import proxy_ports
from lateen.api.decoding import HOSTNAME
from lateen.api.networking import EnvoyFilter, ProxyMatch
from lateen.api.validate.envoy_filter import MAX_VERSION
from lateen.kit import jsons
from lateen.kit.derived import Shared
from lateen.kit.queries import query
from lateen.kit.regex import compiled
from lateen.mesh import credentials, gateways, plugins, proxies, reporting, telemetry, workload_view
from lateen.mesh.binds import binds_all
from lateen.mesh.clients import Client
from lateen.mesh.gateway_view import GatewayView
from lateen.mesh.inbound_view import Checks, InboundView
from lateen.mesh.model import Mesh
from lateen.mesh.objects import Objects
from lateen.mesh.observability import Observability
from lateen.mesh.outbound import Outbound, serves
from lateen.mesh.outbound_view import OutboundView
from lateen.mesh.spelling import spellings
from lateen.mesh.view import Callers, Own, Patch, View
from lateen.mesh.workloads import ALONE, BOTH, IPV6, Proxy, Seat
from lateen.wire import names
from lateen.wire.node import ROUTER, Abilities, abilities


@dataclass(frozen=True)
class Viewer:
    """A proxy, and the reported properties that its view depends on."""

    proxy: Proxy
    dns: bool
    """Whether its agent answers DNS queries."""
    interception: str
    """Its interception mode: REDIRECT, TPROXY, NONE, or empty."""
    abilities: Abilities
    unprivileged: bool = False
    """Whether it cannot bind ports below 1024."""
    proxy_port: int | None = None
    """Its own port for applications' HTTP proxy, instead of the mesh's."""

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.proxy, self.dns, self.interception, self.abilities, self.proxy_port))


def viewer(proxy: Proxy, metadata: Mapping[str, str]) -> Viewer:
    """``metadata``: what the proxy reports about itself."""
    dns = metadata.get("DNS_CAPTURE") == "true"
    unprivileged = metadata.get("UNPRIVILEGED_POD") == "true"
    addresses = metadata.get("INSTANCE_IPS", "")
    if not proxy.network_namespaces and ":" in addresses:
        proxy = replace(proxy, families=BOTH if "." in addresses else IPV6)
    own = proxy_ports.chosen(metadata)
    return Viewer(proxy, dns, metadata.get("INTERCEPTION_MODE", ""), abilities(metadata), unprivileged, own)


class Views(Outbound):
    def __init__(self, mesh: Mesh) -> None:
        self.mesh, self.queries, self.shared = mesh, mesh.queries, Shared()

    def advance(self, objects: Objects) -> None:
        """See ``Mesh.advance``."""
        self.mesh.advance(objects)

    def of(self, pod: o.Pod, kind: str, metadata: Mapping[str, str] | None = None) -> View:
        """The view of a proxy that serves one workload."""
        return self.of_proxy(Proxy(kind, (pod,)), metadata)

    def of_proxy(self, proxy: Proxy, metadata: Mapping[str, str] | None = None) -> View:
        """``metadata``: what the proxy reports about itself. Raises ValueError as ``seen_by``."""
        about = metadata or {}
        return self.seen_by(viewer(proxy, about), about)

    def seen_by(self, viewer: Viewer, metadata: Mapping[str, str], before: View | None = None) -> View:
        """The view of a proxy; the earlier view ``before`` is returned if nothing has changed. Raises ValueError for
        several workloads that see different destinations or have different EnvoyFilters: these apply to the whole
        proxy."""
        clients, own = self._own(viewer)
        first, workload = clients[0]
        out, filters = self.outbound_view(first), self._patches(workload, metadata)
        if len(clients) > 1 and any(
            (self.outbound_view(c), self._patches(w, metadata)) != (out, filters) for c, w in clients[1:]
        ):
            each = " and ".join(f"{w.namespace}/{w.name}" for _, w in clients)
            raise ValueError(f"one proxy cannot serve {each}: they see different destinations or EnvoyFilters")
        if before is not None and before.outbound is out and before.own is own and before.patches == filters:
            return before
        return View(out, own, filters)

    def _patches(self, workload: o.Pod, metadata: Mapping[str, str]) -> tuple[Patch, ...]:
        if not self.mesh.objects.envoy_filters:
            return ()
        chosen = self.mesh.envoy_filters(workload.namespace, workload.label_map)
        return patches(chosen, metadata) if chosen else ()

    @query
    def _own(self, viewer: Viewer) -> tuple[tuple[tuple[Client, o.Pod], ...], Own]:
        """The part of the view that is independent of destinations, and the client that each of its workloads is."""
        proxy, interception = viewer.proxy, viewer.interception
        gateway = proxy.kind == ROUTER
        clients = tuple((self._client(w, viewer), w) for w in proxy.workloads)
        used = [c for w in proxy.workloads for c in self._rule_credentials(w, gateway)]
        served: GatewayView | None = None
        inbound: tuple[InboundView, ...] = ()
        if gateway:
            served, own = self._served(proxy.workloads[0], proxy.ipv6)
            used = [*own, *self._backend_credentials(proxy.workloads[0]), *used]
        else:
            inbound = tuple(self._inbound(w, seat, interception) for w, seat in proxy.seats)
        reports = tuple(
            self._observability(w, seat.name, client, viewer.abilities)
            for (w, seat), (client, _) in zip(proxy.seats, clients, strict=True)
        )
        sides = tuple((seen.client, seat) for seen, (_, seat) in zip(reports, proxy.seats, strict=True))
        callers = self.shared(("callers", sides), lambda: Callers(sides, sides=sides))
        values: dict[str, Any] = {
            "inbound": inbound,
            "gateway": served,
            "checks": tuple(map(self._checks, proxy.workloads)),
            "credentials": _by_name(used),
            "reports": reports,
            "callers": callers,
        }
        key = tuple(values.values())
        return clients, self.shared(("own", key), lambda: Own(key, **values))

    @query
    def _client(self, pod: o.Pod, viewer: Viewer) -> Client:
        gateway = viewer.proxy.kind == ROUTER
        labels = {HOSTNAME: pod.node} | pod.label_map if pod.node else pod.label_map
        sidecar = None if gateway else self.mesh.sidecar(pod.namespace, labels)
        asked = self.mesh.asked_labels()
        chosen = tuple((k, labels[k]) for k in sorted(labels.keys() & asked))
        shown = self.mesh.shown_certificate(pod) if gateway else ""
        ref = sidecar.ref if sidecar else None
        network = self.mesh.network(pod.network, pod.address)
        taken = viewer.interception != "NONE" or gateway
        port = self.mesh.transport.proxy_port if viewer.proxy_port is None else viewer.proxy_port
        closed = frozenset[int]()
        if binds_all(sidecar.spec.egress if sidecar else (), taken):
            low = range(1, 1024 if viewer.unprivileged else 1)
            closed = proxy_ports.OWN.union(low, [port], workload_view.application_ports(self.mesh, pod, sidecar))
        place = (pod.namespace, chosen, ref, pod.locality)
        port, families = 0 if gateway else port, viewer.proxy.families
        return Client(*place, viewer.dns, gateway, network, shown, taken, closed, port, families)

    def outbound(self, namespace: str) -> OutboundView:
        """The outbound view of clients in a namespace without other known properties."""
        sidecar = self.mesh.sidecar(namespace, {})
        return self.outbound_view(Client(namespace, sidecar=sidecar.ref if sidecar else None))

    def served(self, pod: o.Pod) -> tuple[InboundView, Checks]:
        """What a workload without a proxy serves."""
        return self._inbound(pod, ALONE, ""), self._checks(pod)

    @query
    def _rule_credentials(self, pod: o.Pod, gateway: bool) -> tuple[o.Credential, ...]:
        return tuple(credentials.of_rules(self.mesh, pod.namespace, pod.label_map, gateway))

    @query
    def _backend_credentials(self, pod: o.Pod) -> tuple[o.Credential, ...]:
        return tuple(credentials.of_backends(self.mesh, pod))

    @query
    def _observability(self, pod: o.Pod, seat: str, client: Client, agent: Abilities) -> Observability:
        """``client``: the proxy as a client, because sending reports needs a cluster. ``agent``: its."""
        levels = self.mesh.telemetries(pod.namespace, pod.label_map)
        reporter = reporting.reporter(self.mesh, pod, seat, agent)

        def cluster(service: str, port: int) -> str | None:
            spelled = service.rpartition("/")[2]
            host = self.mesh.resolve(spelled, self.mesh.root_namespace)
            return names.outbound(host, port) if self._calls(client, host, port) else None

        found = telemetry.observability(self.mesh.reporting, levels, reporter, cluster)
        own = self.mesh.plugins(pod.namespace, pod.label_map)
        manner = proxies.handling(self.mesh.proxy_defaults, pod)
        if agent.http10 or self.mesh.cluster.http10:
            manner = replace(manner, http10=True)
        return Observability(
            replace(found.client, hooks=plugins.hooks(own, "CLIENT"), handling=manner),
            replace(found.server, hooks=plugins.hooks(own, "SERVER"), handling=manner),
        )

    @query
    def _calls(self, client: Client, host: str, port: int) -> bool:
        return serves(self.outbound_view(client), host, port)

    @query
    def _served(self, pod: o.Pod, ipv6: bool) -> tuple[GatewayView, tuple[o.Credential, ...]]:
        view, used = gateways.view(self.mesh, pod, ipv6, self.shared)
        return view, tuple(used)

    @query
    def _inbound(self, pod: o.Pod, seat: Seat, interception: str) -> InboundView:
        return workload_view.inbound(self.mesh, pod, seat, interception, self.shared)

    @query
    def _checks(self, pod: o.Pod) -> Checks:
        return workload_view.checks(self.mesh, pod, self.shared)

    def names(self, namespace: str, families: str, outside: bool = False) -> dict[str, list[str]]:
        """Hosts of ServiceEntries visible to clients in a namespace, with the addresses that the agent's DNS proxy
        answers; ``families``: those (``Proxy``, or empty) whose automatic addresses lead to the proxy. ``outside``: and
        Kubernetes' Services, for machines, which have no DNS of a cluster."""
        own = self._names(namespace, families)
        return {**self._services_names(namespace), **own} if outside else dict(own)

    @query
    def versioned_names(self, namespace: str, families: str, outside: bool) -> tuple[str, dict[str, list[str]]]:
        """``names``, with what changes when they do; worked out once for all agents that wait for a change."""
        found = self.names(namespace, families, outside)
        return hashlib.blake2b(jsons.dumps(found), digest_size=8).hexdigest(), found

    @query
    def _services_names(self, namespace: str) -> dict[str, list[str]]:
        out = {}
        for s in self.mesh.visible(namespace):
            if not s.resolution and (found := [a for a in s.all_addresses if "/" not in a]):
                named = {name.rstrip(".").lower() for name in spellings(s.host, s.namespace, s.name, s.domain)}
                others = set() if s.namespace == namespace else {s.name}  # bare names are the own namespace's
                out.update(dict.fromkeys(sorted(named - others), found))
        return out

    @query
    def _names(self, namespace: str, families: str) -> dict[str, list[str]]:
        out = {}
        for s in self.mesh.visible(namespace):
            if s.resolution:
                found = [a for a in self.mesh.addresses(s, families) if "/" not in a]
                if found:
                    out[s.host.lower()] = found
        return out


def _by_name(found: Iterable[o.Credential]) -> tuple[o.Credential, ...]:
    """The credentials without duplicates, in a fixed order; a server's take precedence over a rule's."""
    named = {c.name: c for c in reversed(list(found))}
    return tuple(named[n] for n in sorted(named))


def patches(found: tuple[o.Resource[EnvoyFilter], ...], metadata: Mapping[str, str]) -> tuple[Patch, ...]:
    """The patches that apply to a proxy with this version and metadata."""
    return tuple(
        Patch(f.ref, f.version, i, spec)
        for f in found
        for i, spec in enumerate(f.spec.config_patches)
        if _for_proxy(spec.match.proxy if spec.match else None, metadata)
    )


def _for_proxy(wanted: ProxyMatch | None, metadata: Mapping[str, str]) -> bool:
    if wanted is None:
        return True
    version = wanted.proxy_version if len(wanted.proxy_version) <= MAX_VERSION else ""  # ``apply`` warns about it
    if version and compiled(version).search(metadata.get("ISTIO_VERSION", "")) is None:
        return False
    return all(metadata.get(k) == v for k, v in wanted.metadata.items())
