"""The inbound view of one workload: the ports that it serves; and the policies that apply to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from msgspec import structs

from lateen.api import objects as o
from lateen.api.networking import IstioIngressListener, Sidecar
from lateen.api.networking.traffic_policy import ConnectionPool
from lateen.kit.derived import Shared
from lateen.kit.digits import digits
from lateen.mesh import policy
from lateen.mesh.inbound_view import Checks, InboundPort, InboundView
from lateen.mesh.model import Mesh
from lateen.mesh.outbound_view import Port
from lateen.mesh.protocols import of_listener, protocol
from lateen.mesh.workloads import Seat, container_port, identity


def inbound(mesh: Mesh, pod: o.Pod, seat: Seat, interception: str, shared: Shared) -> InboundView:
    sidecar = mesh.sidecar(pod.namespace, pod.label_map)
    pool = sidecar.spec.inbound_connection_pool if sidecar else None
    # without redirection, the application itself listens at the ports of services
    captured = [] if interception == "NONE" else _captured(mesh, pod, pool)
    if sidecar and sidecar.spec.ingress:
        found = [
            _with_policies(mesh, pod, _ingress(i, pod, mesh, pool, interception != "NONE"))
            for i in sidecar.spec.ingress
        ]
        # others pass through, but not past what is asked for at their services
        taken = {i.port.number for i in found}
        found += [i for i in captured if i.port.number not in taken and (i.limits or i.secured)]
    else:
        found = captured
    mode, single, chosen = mesh.mtls(pod.namespace, pod.label_map)
    values: dict[str, Any] = {
        "transport": mesh.transport,
        "pod": pod,
        "seat": seat,
        "identity": identity(pod, mesh.transport.trust_domain),
        "interception": interception,
        "mtls": mode,
        "mtls_ports": single,
        "policy": chosen,
        "ports": tuple(sorted(found, key=lambda i: i.port.number)),
        "origins": (str(sidecar.ref),) if sidecar else (),
    }
    version = sidecar.version if sidecar and (sidecar.spec.ingress or pool) else ""
    key = (*values.values(), version)
    return shared(("inbound", key), lambda: InboundView(key, **values))


def _captured(mesh: Mesh, pod: o.Pod, pool: ConnectionPool | None) -> list[InboundPort]:
    """The ports of services."""
    loopback = "[::1]" if ":" in pod.address else "127.0.0.1"
    target = f"{loopback}:{{}}" if mesh.transport.localhost else ""
    made = (
        _with_pool(mesh, pod, InboundPort(port, service, target.format(port.number), pool=pool), number)
        for port, service, number in _served(mesh, pod)
    )
    return [_with_policies(mesh, pod, i) for i in made]


def _with_policies(mesh: Mesh, pod: o.Pod, i: InboundPort) -> InboundPort:
    """With what is asked for at the services that lead to it."""
    return replace(i, limits=mesh.limits_of_port(pod, i.port.number), secured=mesh.secured_of_port(pod, i.port.number))


def checks(mesh: Mesh, pod: o.Pod, shared: Shared) -> Checks:
    """The same object for all workloads with the same policies."""
    values: dict[str, Any] = {
        "authentication": mesh.authentication(pod.namespace, pod.label_map),
        "authorization": mesh.access(pod.namespace, pod.label_map),
        "plugins": mesh.plugins(pod.namespace, pod.label_map),
    }
    key = tuple(values.values())
    return shared(("checks", key), lambda: Checks(key, **values))


def _served(mesh: Mesh, pod: o.Pod) -> list[tuple[Port, o.Service, int]]:
    """The pod's ports that services and entries lead to, each with the first of them and its port there."""
    out: dict[int, tuple[Port, o.Service, int]] = {}
    found = [(s, p, container_port(pod, p)) for s in mesh.services_of(pod) for p in s.ports] + mesh.entries_of(pod)
    for service, p, number in found:
        kind = protocol(p)
        known = out.get(number)
        # a service with an explicit protocol takes precedence
        if number and kind != "udp" and (known is None or (known[0].protocol == "auto" and kind != "auto")):
            out[number] = (Port(number, p.name, kind), service, p.port)
    return list(out.values())


def application_ports(mesh: Mesh, pod: o.Pod, sidecar: o.Resource[Sidecar] | None) -> frozenset[int]:
    """Where the application of a workload listens, as far as anything says so: the ports that it declares, those that
    services lead to, and those to which a Sidecar's ``ingress`` leads, which the proxy has instead of the application.
    """
    found = {*(n for _, n, kind in pod.ports if kind != "UDP"), *(p.number for p, _, _ in _served(mesh, pod))}
    taken = [i for i in sidecar.spec.ingress if i.port] if sidecar else []
    found.difference_update(i.port.number for i in taken if i.port)
    ends = [i.default_endpoint.rpartition(":")[2] or str(i.port.number) for i in taken if i.port]
    return frozenset(found.union(int(port) for port in ends if digits(port)))


def _ingress(i: IstioIngressListener, pod: o.Pod, mesh: Mesh, pool: Any, captured: bool) -> InboundPort:
    """``captured``: see ``Client``."""
    assert i.port is not None
    service, number = next(
        (
            (s, p.port)
            for s in mesh.services_of(pod)
            for p in s.ports
            if p.port == i.port.number or container_port(pod, p) == i.port.number
        ),
        (None, 0),
    )
    # if the proxy terminates HTTPS, policies and metrics see HTTP requests
    spoken = "http" if i.tls and i.port.protocol.upper() == "HTTPS" else of_listener(i.port)
    port = Port(i.port.number, i.port.name, spoken)
    bind = (i.bind or pod.address) if i.capture_mode == "NONE" or not captured else ""
    own = i.connection_pool or pool
    made = InboundPort(port, service, i.default_endpoint, i.tls, pool=own, bind=bind, scoped=True)
    return _with_pool(mesh, pod, made, number)


def _with_pool(mesh: Mesh, pod: o.Pod, made: InboundPort, number: int) -> InboundPort:
    """With the connection pool of the DestinationRule for the service's port ``number``, unless a Sidecar has one. It
    does not upgrade requests to HTTP/2, which only says what servers of the mesh are spoken to.
    Source: https://istio.io/latest/docs/reference/config/networking/sidecar/#Sidecar-inbound_connection_pool"""
    if made.pool is not None or made.service is None:
        return made
    rules = mesh.destination_rule(made.service.host, pod.namespace)
    pool = policy.merged(rules, "", number).connection_pool
    if pool is None:
        return made
    if pool.http and pool.http.h2_upgrade_policy:
        pool = structs.replace(pool, http=structs.replace(pool.http, h2_upgrade_policy=None))
    return replace(made, pool=pool, origins=tuple(str(dr.ref) for dr in rules))
