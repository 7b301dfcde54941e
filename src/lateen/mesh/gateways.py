"""What a gateway workload serves: its servers by port, with the rules that are bound there.

Facts: https://istio.io/latest/docs/reference/config/networking/gateway/.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lateen.api import objects as o
from lateen.api.networking import Gateway, Server
from lateen.kit.derived import Shared
from lateen.mesh import credentials, proxies, source
from lateen.mesh.base import GATEWAY_SERVICE
from lateen.mesh.dialects import istio
from lateen.mesh.model import Mesh
from lateen.mesh.routing import ConnectionRoute
from lateen.mesh.scope import covers
from lateen.mesh.view import ENDS_TLS, HTTP_SERVERS, Bound, GatewayHost, GatewayServer, GatewayView

Place = tuple[str, int]
"""(address, port) of a listener"""


def container_port(pod: o.Pod, port: o.ServicePort) -> int:
    if isinstance(port.target, int):
        return port.target
    return next((n for name, n, _ in pod.ports if name == port.target), 0)


def view(mesh: Mesh, pod: o.Pod, shared: Shared) -> tuple[GatewayView, list[o.Credential]]:
    """What it serves, and the secrets that it needs for that. Plain HTTP servers of one listener share their routes;
    all others stand for themselves."""
    plain: dict[Place, list[Bound]] = {}
    rest: list[tuple[Place, Bound]] = []
    kinds: dict[Place, str] = {}
    for gw in mesh.gateways_for(pod):
        for s in gw.spec.servers:
            target = _listen_port(mesh, pod, gw, s.port.number)
            if not target:
                continue
            place = (s.bind or "0.0.0.0", target)
            # The oldest gateway decides what a port is; the other one's object has a finding about it.
            if kinds.setdefault(place, family(s)) != family(s):
                continue
            if s.port.protocol.upper() in HTTP_SERVERS:
                plain.setdefault(place, []).append((gw, s))
            else:
                rest.append((place, (gw, s)))
    servers = [_server(mesh, pod, place, f"http.{place[1]}", bound, shared) for place, bound in sorted(plain.items())]
    used: list[o.Credential] = []
    for place, (gw, s) in rest:
        found = credentials.of_server(mesh, pod.namespace, s.tls)
        if found is not None:
            used += found
            servers.append(_server(mesh, pod, place, _route_name(gw, s, place[1]), [(gw, s)], shared))
    where = proxies.place(mesh.proxy_defaults, pod)
    key = (pod, where, *servers)
    values = {"pod": pod, "place": where, "servers": tuple(servers)}
    made = shared(("gateway", key), lambda: GatewayView(key, **values))  # type: ignore[arg-type]
    return made, used


def family(server: Server) -> str:
    name = server.port.protocol.upper()
    return "http" if name in HTTP_SERVERS else "tls" if name in ("HTTPS", "TLS") else "tcp"


def _server(mesh: Mesh, pod: o.Pod, place: Place, route: str, bound: list[Bound], shared: Shared) -> GatewayServer:
    bindings = _bindings(mesh, pod, bound)

    def find(host: str, namespace: str) -> tuple[str, tuple[int, ...]]:
        return mesh.destination(host, namespace, pod.namespace)

    tls = bound[0][1].tls
    secure = bound[0][1].port.protocol.upper() in ("HTTPS", "TLS")
    ends = secure and tls is not None and tls.mode in ENDS_TLS
    passes = secure and (tls is None or tls.mode in ("PASSTHROUGH", "AUTO_PASSTHROUGH"))
    automatic = secure and tls is not None and tls.mode == "AUTO_PASSTHROUGH"
    hosts = tuple(dict.fromkeys(h.rpartition("/")[2] for _, s in bound for h in s.hosts))
    redirects = [
        (h.rpartition("/")[2], s.port.number)
        for _, s in bound
        if s.tls and s.tls.https_redirect and s.port.protocol.upper() in HTTP_SERVERS
        for h in s.hosts
    ]
    values: dict[str, Any] = {
        "trust_domain": mesh.transport.trust_domain,
        "port": bound[0][1].port.number,
        "target": place[1],
        "bind": place[0],
        "name": "+".join(s.name for _, s in bound if s.name),
        "route": route,
        "tls": tls if ends else None,
        "passthrough": passes,
        "automatic": automatic,
        "sni": tuple(h for h in hosts if h != "*") if secure and "*" not in hosts else (),
        "redirects": tuple(dict.fromkeys(redirects)),
        "hosts": hosts,
        "origins": tuple(dict.fromkeys(str(g.ref) for g, _ in bound)),
        "requests": _requests(bindings, "https" if ends else "http", find) if route else (),
        "connections": () if route or automatic else _connections(bindings, bound[0][1].port.number, passes, find),
        "authorization": mesh.access(pod.namespace, pod.label_map),
    }
    key = tuple(values.values())
    return shared(("server", key), lambda: GatewayServer(key, **values))


@dataclass(frozen=True)
class _Binding:
    """A VirtualService at a gateway's servers."""

    rule: istio.Rule
    domains: tuple[tuple[str, int], ...]
    """(host, port of the server) where it applies"""
    gateways: tuple[str, ...]
    """Spellings of the gateways by which it is bound."""


def _bindings(mesh: Mesh, pod: o.Pod, bound: list[Bound]) -> list[_Binding]:
    out: dict[o.Ref, _Binding] = {}
    for gw, server in bound:
        for found in mesh.gateway_rules((gw.ref.namespace, gw.ref.name), pod.namespace):
            vs = source.narrowed(found, pod.namespace, pod.label_map)
            shared = [(h, server.port.number) for h in _shared_hosts(server, gw, vs)]
            if shared:
                names = (gw.ref.name, f"{gw.ref.namespace}/{gw.ref.name}")
                before = out.get(vs.ref, _Binding(vs, (), ()))
                domains = tuple(dict.fromkeys((*before.domains, *shared)))
                out[vs.ref] = _Binding(vs, domains, before.gateways + names)
    return sorted(out.values(), key=lambda b: b.rule.age_order)


def _requests(bindings: list[_Binding], scheme: str, find: istio.Find) -> tuple[GatewayHost, ...]:
    out = []
    for b in bindings:
        made = {
            port: tuple(istio.requests(b.rule, istio.At(b.gateways, port, scheme), find))
            for port in dict.fromkeys(port for _, port in b.domains)
        }
        out += [GatewayHost(host, port, made[port]) for host, port in b.domains]
    return tuple(out)


def _connections(bindings: list[_Binding], port: int, by_name: bool, find: istio.Find) -> tuple[ConnectionRoute, ...]:
    choose = istio.by_name if by_name else istio.by_place
    return tuple(choose([(b.rule, b.gateways) for b in bindings], port, find))


def _listen_port(mesh: Mesh, pod: o.Pod, gateway: o.Resource[Gateway], port: int) -> int:
    """The port inside the pod: the gateway's own service maps 80 to 8080. 0 where a Gateway that names its services
    has a port that none of them has."""
    named = dict(gateway.notes).get(GATEWAY_SERVICE, "")
    wanted = [h.strip() for h in named.split(",") if h.strip()]
    for service in mesh.services_of(pod):
        for p in service.ports:
            if p.port == port and (not wanted or service.host in wanted):
                return container_port(pod, p) or port
    for service, p, target in mesh.entries_of(pod):
        if p.port == port and (not wanted or service.host in wanted):
            return target
    return 0 if wanted else port


def _route_name(gw: o.Resource[Gateway], server: Server, target: int) -> str:
    """Of a server with requests of its own; empty for one that forwards connections."""
    ends = server.tls is not None and server.tls.mode in ENDS_TLS
    if server.port.protocol.upper() != "HTTPS" or not ends:
        return ""
    return f"https.{target}.{server.port.name}.{gw.ref.name}.{gw.ref.namespace}"


def _shared_hosts(server: Server, gw: o.Resource[Gateway], vs: o.Resource[Any]) -> list[str]:
    """Where a server's ``hosts`` (``ns/host``, ``./host``, ``*``) and a rule's hosts meet: the narrower of each two."""
    out: dict[str, None] = {}
    for entry in server.hosts:
        namespace, slash, pattern = entry.rpartition("/")
        own = namespace == "." and vs.ref.namespace == gw.ref.namespace
        if slash and namespace not in ("*", vs.ref.namespace) and not own:
            continue
        for host in vs.spec.hosts:
            if covers(pattern, host):
                out[host] = None
            elif covers(host, pattern):
                out[pattern] = None
    return list(out)
