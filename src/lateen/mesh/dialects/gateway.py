"""Istio's Gateway as listeners, and the VirtualServices that are attached to them.

Facts: https://istio.io/latest/docs/reference/config/networking/gateway/.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lateen.api import objects as o
from lateen.api.networking import Gateway, Server
from lateen.mesh.dialects import istio
from lateen.mesh.patterns import meet
from lateen.mesh.routing import Attached, ConnectionRoute, HostRoutes, Listener

SERVICE = "internal.istio.io/gateway-service"
"""The annotation with which a Gateway names its services; it then serves only their ports."""
HTTP = ("HTTP", "HTTP_PROXY", "HTTP2", "GRPC", "GRPC-WEB")
TLS = ("HTTPS", "TLS")
TERMINATES = ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL")


def listeners(gateway: o.Resource[Gateway]) -> Iterator[Listener]:
    named = dict(gateway.notes).get(SERVICE, "")
    services = tuple(h.strip() for h in named.split(",") if h.strip())
    for server in gateway.spec.servers:
        yield _listener(gateway, server, services)


def _listener(gateway: o.Resource[Gateway], server: Server, services: tuple[str, ...]) -> Listener:
    protocol, tls = server.port.protocol.upper(), server.tls
    secure = protocol in TLS
    terminates = secure and tls is not None and tls.mode in TERMINATES
    return Listener(
        source=gateway.ref,
        age=gateway.age_order,
        port=server.port.number,
        label=f"{server.port.name}.{gateway.ref.name}.{gateway.ref.namespace}",
        hosts=server.hosts,
        bind=server.bind,
        name=server.name,
        requests=protocol in HTTP or (protocol == "HTTPS" and terminates),
        secure=secure,
        tls=tls if terminates else None,
        automatic=secure and tls is not None and tls.mode == "AUTO_PASSTHROUGH",
        redirects=protocol in HTTP and tls is not None and tls.https_redirect,
        services=services,
    )


Bound = Sequence[tuple[Listener, Sequence[istio.Rule]]]
"""(a listener, the VirtualServices that are bound to its Gateway)"""


def requests(bound: Bound, find: istio.Find) -> Iterator[Attached]:
    """The routes of VirtualServices at listeners of one port."""
    for vs, found in _attached(bound):
        gateways = tuple(name for listener in found for name in _spellings(listener))
        domains: dict[tuple[str, int, str], dict[tuple[o.Ref, str], None]] = {}
        for li in found:
            for h in _shared_hosts(li, vs):
                places = domains.setdefault((h, li.port, "https" if li.secure else "http"), {})
                places[li.source, li.name] = None
        made = {
            (port, scheme): tuple(istio.requests(vs, istio.At(gateways, port, scheme), find))
            for port, scheme in dict.fromkeys((port, scheme) for _, port, scheme in domains)
        }
        # a rule without routes for these clients leaves the host to wildcards, as in Istio
        yield Attached(
            vs.age_order,
            tuple(
                HostRoutes(h, port, routes, tuple(places))
                for (h, port, scheme), places in domains.items()
                if (routes := made[port, scheme])
            ),
        )


def connections(listener: Listener, rules: Sequence[istio.Rule], find: istio.Find) -> tuple[ConnectionRoute, ...]:
    """The routes of connections: by server name for TLS passthrough, otherwise by destination."""
    choose = istio.by_name if listener.secure and listener.tls is None else istio.by_place
    bound = [(vs, _spellings(listener)) for vs, _ in _attached([(listener, rules)])]
    return tuple(choose(bound, listener.port, find))


def _attached(bound: Bound) -> list[tuple[istio.Rule, list[Listener]]]:
    """The rules that share hosts with some listener, the oldest first, with these listeners."""
    out: dict[o.Ref, tuple[istio.Rule, list[Listener]]] = {}
    for listener, rules in bound:
        for vs in rules:
            if _shared_hosts(listener, vs):
                out.setdefault(vs.ref, (vs, []))[1].append(listener)
    return sorted(out.values(), key=lambda found: found[0].age_order)


def _spellings(listener: Listener) -> tuple[str, str]:
    """The ways in which rules may name the listener's Gateway."""
    return (listener.source.name, f"{listener.source.namespace}/{listener.source.name}")


def _shared_hosts(listener: Listener, vs: istio.Rule) -> list[str]:
    """The intersection of a server's ``hosts`` (``ns/host``, ``./host``, ``*``) and a rule's hosts, in lower case,
    because proxies compare hosts without regard to case and refuse to have one twice."""
    out: dict[str, None] = {}
    for entry in listener.hosts:
        namespace, slash, pattern = entry.rpartition("/")
        own = namespace == "." and vs.ref.namespace == listener.source.namespace
        if slash and namespace not in ("*", vs.ref.namespace) and not own:
            continue
        out |= dict.fromkeys(h for host in vs.spec.hosts if (h := meet(pattern.lower(), host.lower())))
    return list(out)
