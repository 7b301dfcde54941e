"""What clients may call besides services: hosts that only rules name, and hosts that the mesh does not know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lateen.api import objects as o
from lateen.api.networking import Sidecar
from lateen.mesh.clients import Client
from lateen.mesh.model import Mesh
from lateen.mesh.outbound_view import Port
from lateen.mesh.patterns import covers
from lateen.mesh.protocols import HTTP, REQUESTS
from lateen.mesh.rules import Rule
from lateen.mesh.scope import Shown
from lateen.mesh.settings import OutboundPolicy

RULES_ONLY = (Port(80, "http", "http"),)
"""The port for hosts that only rules name, as in Istio."""
Known = Mapping[str, Shown]
"""The hosts of services that a client sees, with their visible ports."""


def ports_beside(mesh: Mesh, rules: tuple[Rule, ...], client: Client, known: Known) -> tuple[Port, ...]:
    """Where a host without a service is called: at the ports for requests of the services that its rule is for, too; at
    port 80 if these have none, as in Istio. Ports of unknown protocol count, but have no listener where the named host
    decides."""
    out: dict[int, Port] = {}
    for vs in rules:
        beside = [r for host in _hosts_of(mesh, vs, known) for r in _requested(mesh, host, client, known[host])]
        out |= {number: Port(number, "http", "http") for number, kind in beside if kind in HTTP}
        out |= {} if beside else {p.number: p for p in RULES_ONLY}
    return tuple(out[number] for number in sorted(out))


def _hosts_of(mesh: Mesh, vs: Rule, known: Known) -> Iterator[str]:
    """The hosts of services that a rule is for."""
    for host in (mesh.resolve(written, vs.ref.namespace) for written in vs.spec.hosts):
        if host.startswith("*"):
            yield from (name for name in known if covers(host, name))
        elif host in known:
            yield host


def _requested(mesh: Mesh, host: str, client: Client, only: Shown) -> Iterator[tuple[int, str]]:
    """(number, protocol) of a service's visible ports that are, or may be, for requests."""
    service = mesh.service(host, client.namespace)
    for p in service.ports if service else ():
        kind = only.protocol(p)
        if kind in REQUESTS and (only.called is None or p.port in only.called):
            yield p.port, kind


def policy(mesh: Mesh, sidecar: o.Resource[Sidecar] | None, namespace: str) -> OutboundPolicy:
    found = sidecar.spec.outbound_traffic_policy if sidecar else None
    if found is None:
        return mesh.outbound_policy
    proxy = ""
    if found.egress_proxy:
        host = mesh.resolve(found.egress_proxy.host, namespace)
        port = found.egress_proxy.port.number if found.egress_proxy.port else 0
        proxy = f"outbound|{port}|{found.egress_proxy.subset}|{host}"
    return OutboundPolicy(found.mode, proxy)
