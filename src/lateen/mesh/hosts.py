"""The view of one host for some clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lateen.api import objects as o
from lateen.api.networking import DestinationRule
from lateen.kit.derived import Shared
from lateen.mesh import credentials, places, policy, registry
from lateen.mesh.clients import Client
from lateen.mesh.model import Mesh
from lateen.mesh.outbound_view import EndpointsView, HostView, Locality, Name, Port, Security
from lateen.mesh.protocols import HTTP, protocol
from lateen.mesh.routing import PortRoutes
from lateen.mesh.rules import Rule, Seen
from lateen.mesh.scope import Shown
from lateen.mesh.spelling import spellings
from lateen.mesh.workloads import IPV6, Instance, Instances, Workload

INTERCEPTION = "sidecar.istio.io/interceptionMode"
"""The annotation in which injection records the interception mode."""
LOOKUP, LOOKUP_V6 = "V4_PREFERRED", "V6_ONLY"
"""Envoy's names for the families of the addresses that proxies look up."""
Made = tuple[HostView, tuple[EndpointsView, ...]]
Traffic = tuple[o.Resource[DestinationRule], ...]


def lookup(client: Client) -> str:
    """For names that the client's proxy resolves: without IPv4, an address of the other family leads nowhere."""
    return LOOKUP_V6 if client.families == IPV6 else LOOKUP


def of_service(mesh: Mesh, shared: Shared, client: Client, service: o.Service, only: Shown, seen: Seen) -> Made:
    """The host of a service, with its endpoints. ``only``: its visible ports."""
    rules = _traffic(mesh, service.host, client)
    virtual = mesh.mesh_rules(service.host, client.namespace, seen)
    ports = [p for p in service.ports if only.ports is None or p.port in only.ports]
    if service.elsewhere and not client.gateway:
        # it has no address here, so that only requests identify their destination
        ports = [p for p in ports if only.protocol(p) in HTTP]
    behind = [mesh.endpoints(service, p) for p in ports]
    originated = mesh.backend_tls(service) if client.gateway else ()
    sending = mesh.sending_to(service)
    plain = frozenset(number for number, _ in originated)
    shown, security, endpoints, weighted = _clusters(mesh, shared, client, service, only, rules, ports, behind, plain)
    asked = {p.number: p.spoken for p in shown}
    routes = mesh.routes_of(service.host, virtual, asked, client.namespace, client.labels)
    aliases = ((a, _routed(mesh, client, a.host, asked, seen)) for a in mesh.aliases(service.host))
    called = [(service, frozenset[int]()), *((a, routed) for a, routed in aliases if not routed.issuperset(asked))]
    # connections to a gateway have no original destination, so it balances them, as in Istio
    headless = service.headless and not client.gateway
    named = service.resolution in registry.KNOWN_BY_NAME
    instances = [
        (p.port, a)
        for p, found in zip(ports, behind, strict=True)
        if headless and only.protocol(p) not in HTTP
        for i in found
        for a in (i.address, *i.more)
        if i.network in ("", client.network) and not (service.elsewhere or (i.cluster and not i.network))
    ]
    values: dict[str, Any] = {
        "transport": mesh.transport,
        "host": service.host,
        "namespace": service.namespace,
        "name": service.name,
        "created": service.created,
        "addresses": mesh.addresses(service, client.families if client.dns else ""),
        "ports": shown,
        "silent": tuple(p.number for p in shown if only.called is not None and p.number not in only.called),
        "resolution": "HEADLESS" if headless else service.resolution,
        "lookup": lookup(client) if named else LOOKUP,
        "external": service.external,
        "sans": service.sans,
        "names": tuple(
            Name(s.namespace, spellings(s.host, s.namespace, s.name, s.domain), routed) for s, routed in called
        ),
        "security": security,
        "routes": routes,
        "tls": originated,
        "certificate": client.certificate if originated else "",
        "sending": sending,
        "rules": rules,
        "onward": _onward(mesh, client, routes),
        "inline": endpoints if named else (),
        "forwarded": client.gateway and any(p.protocol == "auto" for p in shown),
        "instances": tuple(dict.fromkeys(instances)),
        "weighted": weighted,
        "origins": (
            *map(str, service.entries),
            *dict.fromkeys(str(found.source) for _, found in originated),
            *([str(sending.source)] if sending else ()),
        ),
    }
    by_eds = not named and not headless and service.resolution != "NONE"
    return _shared(shared, values), endpoints if by_eds else ()


def _routed(mesh: Mesh, client: Client, host: str, ports: dict[int, str], seen: Seen) -> frozenset[int]:
    """The ports where rules that name an alias route these clients' requests; at others it is another name of its
    service."""
    rules = mesh.visible_rules(host, client.namespace, seen)
    found = mesh.routes_of(host, rules, ports, client.namespace, client.labels) if rules else ()
    return frozenset(r.port for r in found if r.requests)


def of_rules(
    mesh: Mesh,
    shared: Shared,
    client: Client,
    host: str,
    found: tuple[Rule, ...],
    ports: tuple[Port, ...],
    alias: o.Service | None,
) -> HostView:
    """A host that rules name although no service is visible, or an alias, at the ports where they route these clients'
    requests."""
    namespace, name = (alias.namespace, alias.name) if alias else (found[0].ref.namespace, host)
    routes = mesh.routes_of(host, found, {p.number: p.spoken for p in ports}, client.namespace, client.labels)
    routed = {r.port for r in routes if r.requests}
    kept = tuple(p for p in ports if p.number in routed)
    values: dict[str, Any] = {
        "transport": mesh.transport,
        "host": host,
        "namespace": namespace,
        "name": name,
        "created": "",
        "addresses": (),
        "ports": kept,
        "silent": (),
        "resolution": "RULES",
        "lookup": LOOKUP,
        "external": True,
        "sans": (),
        "names": (Name(namespace, spellings(host, namespace, name, mesh.cluster.domain)),),
        "security": (),
        "routes": tuple(r for r in routes if r.port in {p.number for p in kept}),
        "tls": (),
        "certificate": "",
        "sending": None,
        "rules": (),
        "onward": (),
        "inline": (),
        "forwarded": False,
        "instances": (),
        "weighted": False,
        "origins": (),
    }
    return _shared(shared, values)


def _shared(shared: Shared, values: dict[str, Any]) -> HostView:
    key = tuple(values.values())
    return shared(("host", key), lambda: HostView(key, **values))


def _traffic(mesh: Mesh, host: str, client: Client) -> Traffic:
    """The DestinationRules for a host. Secrets are removed for sidecars, unless the rule selects their workloads."""
    rules = tuple(map(credentials.qualified, mesh.destination_rule(host, client.namespace, client.labels)))
    return rules if client.gateway else tuple(map(credentials.for_sidecars, rules))


def _clusters(
    mesh: Mesh,
    shared: Shared,
    client: Client,
    service: o.Service,
    only: Shown,
    rules: Traffic,
    ports: Sequence[o.ServicePort],
    behind: Sequence[Instances],
    foreign: frozenset[int],
) -> tuple[tuple[Port, ...], tuple[Security, ...], tuple[EndpointsView, ...], bool]:
    """``foreign``: ports with a BackendTLSPolicy. Returns the ports, the security of each cluster's servers, their
    endpoints, and whether localities matter."""
    names = dict.fromkeys(s.name for dr in rules for s in dr.spec.subsets)
    subsets: dict[str, Mapping[str, str]] = {"": {}} | {
        name: own.labels for name in names if (own := policy.subset_of(rules, name))
    }
    shown, security, endpoints = [], [], []
    weighted = False
    for p, found in zip(ports, behind, strict=True):
        kind = protocol(p)
        if kind == "udp":
            continue
        shown.append(Port(p.port, p.name, kind, _kept(service, p), dict(only.spoken).get(p.port, "")))
        for subset, wanted in subsets.items():
            chosen = _select(found, wanted)
            settings = policy.merged(rules, subset, p.port)
            asked = settings.tls.mode == "ISTIO_MUTUAL" if settings.tls is not None else mesh.transport.automatic
            disabled = p.port in foreign or not asked
            meshed = "none" if disabled or service.external else _meshed(chosen, service, mesh)
            accounts = tuple(sorted({(i.workload.namespace, i.workload.service_account) for i in chosen if i.workload}))
            security.append(Security(p.port, subset, meshed, () if service.external else accounts))
            place = places.place(client, settings, service, mesh)
            weighted = weighted or (place is not None and place.weighted)
            secure = not disabled and not service.external
            reached = mesh.reached(chosen, client.network, lambda i: secure and _is_secured(i, mesh))  # noqa: B023
            if meshed == "some":
                reached = tuple(_told_apart(i, mesh) for i in reached)
            key = (f"outbound|{p.port}|{subset}|{service.host}", reached, secure, place)
            endpoints.append(_endpoints(shared, key))
    return tuple(shown), tuple(security), tuple(endpoints), weighted


def _kept(service: o.Service, port: o.ServicePort) -> int:
    """The target port of an entry without resolution, whose connections keep their address."""
    target = port.target if isinstance(port.target, int) else port.port
    return target if service.resolution == "NONE" and target != port.port else 0


def _endpoints(shared: Shared, key: tuple[str, Instances, bool, Locality | None]) -> EndpointsView:
    cluster, chosen, secure, place = key
    return shared(
        ("endpoints", key),
        lambda: EndpointsView(key, cluster=cluster, endpoints=chosen, mtls=secure, locality=place),
    )


def _select(found: Instances, labels: Mapping[str, str]) -> Instances:
    if not labels:
        return found
    wanted = labels.items()
    return tuple(i for i in found if i.workload and all(i.labels.get(k) == v for k, v in wanted))


def _meshed(instances: Instances, service: o.Service, mesh: Mesh) -> str:
    """Whether all, some or none of the instances are meshed. A Kubernetes service without endpoints counts as meshed,
    because its first endpoints most likely will be."""
    modes = {_is_secured(i, mesh) for i in instances}
    if not modes:
        return "none" if service.resolution else "all"
    return "some" if len(modes) == 2 else "none" if modes == {False} else "all"


def _is_secured(i: Instance, mesh: Mesh) -> bool:
    w = i.workload
    if w is None or not w.meshed or mesh.mtls_mode(w.namespace, i.labels, i.port) == "DISABLE":
        return False
    return (INTERCEPTION, "NONE") not in w.notes or _listens(i, w, mesh)


def _listens(i: Instance, w: Workload, mesh: Mesh) -> bool:
    """Whether a proxy without traffic redirection serves the port, that is, has an ingress listener of a Sidecar for
    it."""
    sidecar = mesh.sidecar(w.namespace, i.labels)
    return sidecar is not None and any(li.port and li.port.number == i.port for li in sidecar.spec.ingress)


def _told_apart(i: Instance, mesh: Mesh) -> Instance:
    """In a mixed cluster, each endpoint states whether it accepts mutual TLS. A gateway to another network has only
    workloads behind it that do."""
    if i.onward:
        return i
    has_proxy = i.workload is not None and i.workload.meshed
    return replace(i, plain=True) if has_proxy and not _is_secured(i, mesh) else i


def _onward(
    mesh: Mesh, client: Client, routes: tuple[PortRoutes, ...]
) -> tuple[tuple[str, tuple[int, ...], Traffic], ...]:
    """(host, ports, DestinationRules) of the hosts that connections are routed to."""
    found = {b.host for p in routes for r in (*p.by_name, *p.by_place) for b in r.backends if not b.broken}
    out = []
    for host in sorted(found):
        ports = mesh.destination(host, "", client.namespace).ports
        rules = mesh.destination_rule(host, client.namespace, client.labels)
        if rules:
            out.append((host, ports, rules))
    return tuple(out)
