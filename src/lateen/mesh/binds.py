"""The egress listeners that applications connect to by an address of their own: those of a Sidecar with a bind address
or ``captureMode: NONE``, and where nothing is redirected all of them.

Source: istio.io/istio ``pilot/pkg/networking/core/listener.go``, buildSidecarOutboundListeners.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from lateen.api import objects as o
from lateen.api.networking import IstioEgressListener
from lateen.mesh.clients import Client
from lateen.mesh.outbound_view import Bind, HostView
from lateen.mesh.protocols import HTTP, REQUESTS, of_listener, protocol
from lateen.mesh.scope import Bound, has_address, is_proxy
from lateen.mesh.workloads import IPV6
from lateen.wire import names

View = Callable[[o.Service], HostView | None]
"""How the clients see a service."""


def loopback(client: Client) -> str:
    """Where listeners without an address of their own are bound, as in Istio."""
    return "::1" if client.families == IPV6 else "127.0.0.1"


def binds(found: Iterable[Bound], client: Client, view: View, ruled: Iterable[HostView]) -> tuple[Bind, ...]:
    """``ruled``: the hosts without a service that rules name."""
    out: list[Bind] = []
    for one in found:
        listener = one.listener
        if listener.port is None:
            taken = {(b.address, b.port) for b in out}
            out += [b for b in _every(one, client, view) if (b.address, b.port) not in taken]
        else:
            hosts = [h for s in one.services if (h := view(s)) is not None]
            if proxy := is_proxy(listener) or not listener.port.number:
                hosts += [h for h in ruled if one.imports.shows(h.namespace, h.host)]
            spoken = "http" if is_proxy(listener) else of_listener(listener.port)
            place = (listener.port.number, listener.bind or loopback(client), _captured(listener, client))
            out.append(Bind(*place, spoken, tuple(hosts), client.namespace, proxy))
    return tuple(out)


def _captured(listener: IstioEgressListener, client: Client) -> bool:
    return client.captured and listener.capture_mode != "NONE" and not listener.bind.startswith("unix://")


def _every(one: Bound, client: Client, view: View) -> Iterator[Bind]:
    """A listener for each port of the services, which share it. Envoy binds none where something else in the pod
    listens (``Client.closed``): either of the two would fail."""
    captured = _captured(one.listener, client)
    at: dict[int, list[tuple[o.Service, str]]] = {}
    for s in one.services:
        for p in s.ports if not s.external_name else ():
            if protocol(p) != "udp" and (captured or p.port not in client.closed):
                at.setdefault(p.port, []).append((s, protocol(p)))
    for number, found in sorted(at.items()):
        spoken = {kind for _, kind in found}
        taken = [h for s, kind in found if kind not in HTTP and (h := view(s)) is not None]
        kind = "http" if spoken.issubset(HTTP) else "tcp" if spoken.isdisjoint(REQUESTS) else "auto"
        place = (number, one.listener.bind or loopback(client), captured)
        yield Bind(*place, kind, tuple(taken), client.namespace, own=_own(taken, number) if len(found) == 1 else "")


def _own(hosts: list[HostView], number: int) -> str:
    """The route configuration of the only host of a listener, where requests need not name it."""
    for h in hosts:
        if any(h.sniffed(p) for p in h.ports if p.number == number):
            return names.at_address(h.host, number)
    return ""


def binds_all(egress: Iterable[IstioEgressListener], captured: bool) -> bool:
    """Whether Envoy binds the ports of services, which may be those where the application listens."""
    return not captured or any(e.port is None and e.capture_mode == "NONE" for e in egress)


def binds_some(egress: Iterable[IstioEgressListener], captured: bool) -> bool:
    """Whether requests come to addresses of the proxy's own, where only the host that they name says who is meant."""
    return not captured or any(e.port or has_address(e) for e in egress)
