"""What a gateway workload serves: its servers by port, with the rules that are bound there.

Facts: https://istio.io/latest/docs/reference/config/networking/gateway/.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lateen.api import objects as o
from lateen.api.networking import Gateway, Server
from lateen.mesh import credentials, proxies, source
from lateen.mesh.model import Mesh
from lateen.mesh.scope import covers, destinations
from lateen.mesh.view import ENDS_TLS, HTTP_SERVERS, Bound, GatewayServer, GatewayView, Routed

SERVED_BY = "internal.istio.io/gateway-service"
"""A Gateway that names its services serves only their ports."""
Place = tuple[str, int]
"""(address, port) of a listener"""


def container_port(pod: o.Pod, port: o.ServicePort) -> int:
    if isinstance(port.target, int):
        return port.target
    return next((n for name, n, _ in pod.ports if name == port.target), 0)


def view(mesh: Mesh, pod: o.Pod, intern: Callable[[Any], Any]) -> tuple[GatewayView, list[o.Credential]]:
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
    servers = [_server(mesh, pod, place, f"http.{place[1]}", bound, intern) for place, bound in sorted(plain.items())]
    used: list[o.Credential] = []
    for place, (gw, s) in rest:
        found = credentials.of_server(mesh, pod.namespace, s.tls)
        if found is not None:
            used += found
            servers.append(_server(mesh, pod, place, _route_name(gw, s, place[1]), [(gw, s)], intern))
    where = proxies.place(mesh.config, pod)
    key = (mesh.config, pod, where, *servers)
    made = intern(GatewayView(key, config=mesh.config, pod=pod, place=where, servers=tuple(servers)))
    assert isinstance(made, GatewayView)
    return made, used


def family(server: Server) -> str:
    name = server.port.protocol.upper()
    return "http" if name in HTTP_SERVERS else "tls" if name in ("HTTPS", "TLS") else "tcp"


def _server(
    mesh: Mesh, pod: o.Pod, place: Place, route: str, bound: list[Bound], intern: Callable[[Any], Any]
) -> GatewayServer:
    virtual: dict[o.Ref, Routed] = {}
    for gw, server in bound:
        for found in mesh.gateway_rules(gw.ref, pod.namespace):
            vs = source.narrowed(found, pod.namespace, pod.label_map)
            shared = [(h, server.port.number) for h in _shared_hosts(server, gw, vs)]
            if shared:
                names = (gw.ref.name, f"{gw.ref.namespace}/{gw.ref.name}")
                before = virtual.get(vs.ref, Routed(vs, (), ()))
                domains = tuple(dict.fromkeys((*before.domains, *shared)))
                virtual[vs.ref] = Routed(vs, domains, before.gateways + names)
    chosen = tuple(sorted(virtual.values(), key=lambda v: v.rule.age_order))
    tls = bound[0][1].tls
    secure = bound[0][1].port.protocol.upper() in ("HTTPS", "TLS")
    hosts = tuple(dict.fromkeys(h.rpartition("/")[2] for _, s in bound for h in s.hosts))
    redirects = [
        (h.rpartition("/")[2], s.port.number)
        for _, s in bound
        if s.tls and s.tls.https_redirect and s.port.protocol.upper() in HTTP_SERVERS
        for h in s.hosts
    ]
    values: dict[str, Any] = {
        "config": mesh.config,
        "port": bound[0][1].port.number,
        "target": place[1],
        "bind": place[0],
        "name": "+".join(s.name for _, s in bound if s.name),
        "route": route,
        "tls": tls if secure and tls and tls.mode in ENDS_TLS else None,
        "passthrough": secure and (tls is None or tls.mode in ("PASSTHROUGH", "AUTO_PASSTHROUGH")),
        "automatic": secure and tls is not None and tls.mode == "AUTO_PASSTHROUGH",
        "sni": tuple(h for h in hosts if h != "*") if secure and "*" not in hosts else (),
        "redirects": tuple(dict.fromkeys(redirects)),
        "hosts": hosts,
        "origins": tuple(dict.fromkeys(str(g.ref) for g, _ in bound)),
        "virtual_services": chosen,
        "destinations": destinations(mesh, tuple(v.rule for v in chosen)),
        "authorization": mesh.authorization(pod.namespace, pod.label_map),
    }
    made = intern(GatewayServer(tuple(values.values()), **values))
    assert isinstance(made, GatewayServer)
    return made


def _listen_port(mesh: Mesh, pod: o.Pod, gateway: o.Resource[Gateway], port: int) -> int:
    """The port inside the pod: the gateway's own service maps 80 to 8080. 0 where a Gateway that names its services
    has a port that none of them has."""
    named = dict(gateway.notes).get(SERVED_BY, "")
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
