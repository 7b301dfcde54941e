"""The inbound view of one workload: the ports that it serves, and the policies that apply to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lateen.api import objects as o
from lateen.api.networking import IstioIngressListener
from lateen.kit.derived import Shared
from lateen.mesh.model import Mesh
from lateen.mesh.outbound import as_port
from lateen.mesh.protocols import protocol
from lateen.mesh.view import InboundPort, InboundView, Port
from lateen.mesh.workloads import Seat, container_port, identity


def inbound(mesh: Mesh, pod: o.Pod, seat: Seat, interception: str, shared: Shared) -> InboundView:
    sidecar = mesh.sidecar(pod.namespace, pod.label_map)
    pool = sidecar.spec.inbound_connection_pool if sidecar else None
    if sidecar and sidecar.spec.ingress:
        found = [_ingress(i, pod, mesh, pool, interception != "NONE") for i in sidecar.spec.ingress]
    elif interception == "NONE":
        found = []  # the application itself listens at these ports
    else:
        target = "127.0.0.1:{}" if mesh.transport.localhost else ""
        served = _served(mesh, pod)
        found = [InboundPort(port, service, target.format(port.number), pool=pool) for port, service in served]
    found = [
        replace(i, limits=mesh.limits_of_port(pod, i.port.number), secured=mesh.secured_of_port(pod, i.port.number))
        for i in found
    ]
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
        "authentication": mesh.authentication(pod.namespace, pod.label_map),
        "authorization": mesh.access(pod.namespace, pod.label_map),
        "plugins": mesh.plugins(pod.namespace, pod.label_map),
        "ports": tuple(sorted(found, key=lambda i: i.port.number)),
        "origins": (str(sidecar.ref),) if sidecar else (),
    }
    version = sidecar.version if sidecar and (sidecar.spec.ingress or pool) else ""
    key = (*values.values(), version)
    return shared(("inbound", key), lambda: InboundView(key, **values))


def _served(mesh: Mesh, pod: o.Pod) -> list[tuple[Port, o.Service]]:
    """The pod's ports that services and ServiceEntries target, each with the first of those services."""
    out: dict[int, tuple[Port, o.Service]] = {}
    found = [(s, p, container_port(pod, p)) for s in mesh.services_of(pod) for p in s.ports] + mesh.entries_of(pod)
    for service, p, number in found:
        kind = protocol(p)
        known = out.get(number)
        # a service with an explicit protocol takes precedence
        if number and kind != "udp" and (known is None or (known[0].protocol == "auto" and kind != "auto")):
            out[number] = (Port(number, p.name, kind), service)
    return list(out.values())


def _ingress(i: IstioIngressListener, pod: o.Pod, mesh: Mesh, pool: Any, captured: bool) -> InboundPort:
    """``captured``: see ``Client``."""
    assert i.port is not None
    service = next(
        (
            s
            for s in mesh.services_of(pod)
            for p in s.ports
            if p.port == i.port.number or container_port(pod, p) == i.port.number
        ),
        None,
    )
    # if the proxy terminates HTTPS, policies and metrics see HTTP requests
    spoken = "http" if i.tls and i.port.protocol.upper() == "HTTPS" else protocol(as_port(i.port))
    port = Port(i.port.number, i.port.name, spoken)
    bind = (i.bind or pod.address) if i.capture_mode == "NONE" or not captured else ""
    return InboundPort(port, service, i.default_endpoint, i.tls, pool=i.connection_pool or pool, bind=bind, scoped=True)
