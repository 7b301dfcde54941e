"""A gateway workload's view: its listeners by port, with the routes attached to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lateen.api import objects as o
from lateen.kit.derived import Shared
from lateen.mesh import credentials, demands, proxies
from lateen.mesh.challenges import HTTPS_PORT, Challenges
from lateen.mesh.gateway_view import Datagrams, GatewayServer, GatewayView
from lateen.mesh.model import Mesh
from lateen.mesh.protocols import protocol
from lateen.mesh.routing import Backend, Listener
from lateen.mesh.workloads import Instances, container_port, identity

Place = tuple[str, int]
"""(address, port) of a socket"""


def view(mesh: Mesh, pod: o.Pod, ipv6: bool, shared: Shared) -> tuple[GatewayView, list[o.Credential]]:
    """The gateway's view, and the secrets that it needs. Plain HTTP listeners of one socket share their routes; all
    others are independent. ``ipv6``: see ``Seat``."""
    plain: dict[Place, list[Listener]] = {}
    rest: list[tuple[Place, Listener]] = []
    first: dict[tuple[Place, bool], Listener] = {}
    for listener in mesh.listeners_of(pod):
        for target in _targets(mesh, pod, listener):
            place = (listener.address, target)
            # the oldest object decides the port's protocol; the other one gets an outcome
            if not listener.beside(first.setdefault((place, listener.datagrams), listener)):
                continue
            if listener.plain:
                plain.setdefault(place, []).append(listener)
            else:
                rest.append((place, listener))
    servers = [
        _server(mesh, pod, place, f"http.{place[1]}{_at(found[0])}", found, shared)
        for place, found in sorted(plain.items())
    ]
    used: list[o.Credential] = []
    for place, listener in rest:
        needed = credentials.of_server(mesh, pod.namespace, listener.tls)
        if needed is not None:
            used += needed
            route = f"https.{listener.port}.{listener.label}{_at(listener)}" if listener.requests else ""
            refused = demands.elsewhere(listener, (li for at, li in rest if at == place and li is not listener))
            servers.append(_server(mesh, pod, place, route, [listener], shared, refused))
    where = proxies.place(mesh.proxy_defaults, pod)
    who = identity(pod, mesh.transport.trust_domain)
    plugins = mesh.plugins(pod.namespace, pod.label_map)
    asked = _challenges(mesh, pod)
    filtered = mesh.cluster.filtered and not plugins and not any(s.automatic for s in servers)
    key = (pod, ipv6, who, where, asked, filtered, *servers)
    values: dict[str, Any] = {
        "pod": pod,
        "ipv6": ipv6,
        "identity": who,
        "place": where,
        "servers": tuple(servers),
        "challenges": asked,
        "filtered": filtered,
    }
    made = shared(("gateway", key), lambda: GatewayView(key, **values))
    return made, used


def _challenges(mesh: Mesh, pod: o.Pod) -> Challenges | None:
    found = mesh.challenges()
    if found is None or not found.shown:
        return found
    secure = [li for li in mesh.asked_listeners_of(pod) if li.port == HTTPS_PORT and li.secure and not li.datagrams]
    places = {(li.address, target) for li in secure for target in _targets(mesh, pod, li)}
    return replace(found, places=tuple(sorted(places)))


def _server(
    mesh: Mesh,
    pod: o.Pod,
    place: Place,
    route: str,
    listeners: Sequence[Listener],
    shared: Shared,
    refused: demands.Refused = (),
) -> GatewayServer:
    first = listeners[0]
    hosts = tuple(dict.fromkeys(_name(h) for li in listeners for h in li.hosts))
    requests = tuple(h for a in mesh.requests_at(listeners, pod, refused) for h in a.hosts) if route else ()
    values: dict[str, Any] = {
        "transport": mesh.transport,
        "port": first.port,
        "target": place[1],
        "bind": place[0],
        "name": "+".join(li.name for li in listeners if li.name),
        "route": route,
        "tls": first.tls,
        "passthrough": first.secure and first.tls is None,
        "automatic": first.automatic,
        "sni": hosts if first.secure and "*" not in hosts else (),
        "redirects": tuple(dict.fromkeys(r for li in listeners if li.redirects for r in _redirects(mesh, li, pod))),
        "hosts": hosts,
        "origins": tuple(dict.fromkeys(str(li.source) for li in listeners)),
        "requests": requests,
        "connections": () if route or first.automatic or first.datagrams else mesh.connections_at(first, pod),
        "datagrams": _datagrams(mesh, first, pod) if first.datagrams else None,
        "limits": mesh.limits_at(
            [*(of for h in requests for of, _ in h.places), *(r.rule for h in requests for r in h.routes)]
        ),
        "secured": mesh.secured_at(requests),
    }
    key = tuple(values.values())
    return shared(("server", key), lambda: GatewayServer(key, **values))


def _at(listener: Listener) -> str:
    """The suffix of the names of route configurations if a server has its own bind address, as in Istio."""
    return f".{listener.bind}" if listener.bind else ""


def _redirects(mesh: Mesh, listener: Listener, pod: o.Pod) -> list[tuple[str, int]]:
    """(host, port) that are redirected to HTTPS at a server with httpsRedirect."""
    routed = [h.host for a in mesh.requests_at([listener], pod) for h in a.hosts]
    return [(name, listener.port) for name in (*map(_name, listener.hosts), *routed)]


def _datagrams(mesh: Mesh, listener: Listener, pod: o.Pod) -> Datagrams:
    """The oldest route gets all datagrams of the port, because there is nothing to distinguish them by."""
    route = next(iter(mesh.datagrams_at(listener)), None)
    if route is None:
        return Datagrams((), None)
    return Datagrams(tuple((b.weight, _behind(mesh, b, pod.namespace)) for b in route.backends), route)


def _behind(mesh: Mesh, backend: Backend, viewer: str) -> Instances:
    service = None if backend.broken else mesh.service(backend.host, viewer)
    port = (
        next((p for p in service.ports if p.port == backend.port and protocol(p) == "udp"), None) if service else None
    )
    return mesh.endpoints(service, port) if service and port else ()


def _name(host: str) -> str:
    """The host without its namespace prefix, in lower case."""
    return host.rpartition("/")[2].lower()


def _targets(mesh: Mesh, pod: o.Pod, listener: Listener) -> list[int]:
    """The listener's ports inside the pod: the gateway's own service maps 80 to 8080. As in Istio, a listener that
    names its services gets the target ports of all of them, any other that of the first service with its port."""
    wanted = listener.services
    ports = [(s, p, container_port(pod, p) or listener.port) for s in mesh.services_of(pod) for p in s.ports]
    found = [
        target
        for service, p, target in (*ports, *mesh.entries_of(pod))
        if p.port == listener.port and (service.host in wanted if wanted else not service.literal_ports)
    ]
    return sorted(set(found)) if wanted else found[:1] or [listener.port]
