"""Outgoing traffic of the application: captured on 15001 and handed to the listener for its destination.

A listener is for one address and port, or for a port at every address. Requests are routed by host, connections by SNI
or by destination address. Unmatched connections are forwarded to their destination, or blocked (outboundTrafficPolicy).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.config.listener.v3 import listener_pb2

from lateen.kit.derived import Shared, derived, held
from lateen.mesh.observability import Side
from lateen.mesh.outbound_view import Bind, HostSpace, HostView, OutboundView, Spaces
from lateen.mesh.policy import merged, originates
from lateen.mesh.protocols import HTTP, REQUESTS
from lateen.mesh.scope import reached
from lateen.mesh.settings import OutboundPolicy
from lateen.mesh.workloads import ALONE, Seat
from lateen.wire import names, ports
from lateen.wire.resource import Resource
from lateen.xds import origins, pb
from lateen.xds.filters.chain import Requests
from lateen.xds.listeners import http, tcp
from lateen.xds.listeners.chains import Taken, everything
from lateen.xds.routes import connections

ANYWHERE = "0.0.0.0"


def _looks_like_http(seen: Side) -> lc.FilterChainMatch:
    """TLS may announce HTTP in its ALPN; only plain text can be routed as HTTP here."""
    known = [*(["http/1.0"] if seen.handling.http10 else []), "http/1.1", "h2c"]
    return lc.FilterChainMatch(transport_protocol="raw_buffer", application_protocols=known)


def unknown(policy: OutboundPolicy) -> str:
    """The cluster for destinations that the mesh does not know."""
    if policy.egress_proxy:
        return policy.egress_proxy
    return names.PASSTHROUGH if policy.open else names.BLACK_HOLE


@held
def _virtual(seen: Side, policy: OutboundPolicy, seat: Seat) -> Resource:
    hole = lc.FilterChain(
        name="virtualOutbound-blackhole",
        filters=tcp.proxy(seen, names.BLACK_HOLE),
        filter_chain_match=lc.FilterChainMatch(destination_port=pb.u32(ports.OUTBOUND)),
    )
    rest = lc.FilterChain(name="virtualOutbound-catchall-tcp", filters=tcp.proxy(seen, unknown(policy)))
    out = listener_pb2.Listener(
        name=names.of_workload(names.VIRTUAL_OUTBOUND, seen.workload),
        address=pb.address(ANYWHERE, ports.OUTBOUND, seat.network_namespace),
        use_original_dst=pb.boolean(True),
        max_connections_to_accept_per_socket_event=pb.u32(tcp.ACCEPTED_AT_ONCE),
        filter_chains=[hole, rest],
        per_connection_buffer_limit_bytes=tcp.buffered(seen),
        traffic_direction="OUTBOUND",
    )
    return pb.resource(out.name, pb.also(out, seat.ipv6), seen.origins)


class Chain(NamedTuple):
    """Connections that a rule or a service matches."""

    sni: tuple[str, ...]
    ranges: tuple[str, ...]
    filters: list[Any]
    metadata: Any = None
    """The rule that it comes from."""

    def made(self, match: Any = None) -> Any:
        return lc.FilterChain(filter_chain_match=match, filters=self.filters, metadata=self.metadata)


def _chains(seen: Side, host: HostView, port: int, anywhere: bool, named: bool) -> tuple[list[Chain], tuple[str, ...]]:
    """Of one service's port. ``anywhere``: the listener is for every address; ``named``: its TLS connections must ask
    for the service's name, since others share the listener. Returns also the user's objects that these come from."""

    called = next(p for p in host.ports if p.number == port)
    kind = called.spoken
    ranges = tuple(a for a in host.addresses if "/" in a) if anywhere else ()
    routed = host.routed(port)
    by_name = [r for r in routed.by_name if connections.clusters(r)]
    by_place = [r for r in routed.by_place if connections.clusters(r)]
    options = tcp.options(host, port)
    redis = host.transport.redis
    out = [
        Chain(
            r.sni,
            r.subnets or ranges,
            tcp.to(seen, connections.clusters(r), kind, options, redis=redis, bytes_on_http=r.bytes_on_http),
            origins.metadata(r.rule),
        )
        for r in (*by_name, *by_place)
    ]
    if all(r.sni or r.subnets for r in (*by_name, *by_place)) and not (named and by_name):
        sni = host.server_names if named and kind == "tls" and host.host != "*" else ()
        own = ((names.outbound(host.host, port), 100),)
        resolved = (host.lookup, port) if host.resolution == "DYNAMIC_DNS" else None
        marked = called.protocol in HTTP and not originates(merged(host.rules, "", port).tls)
        filters = tcp.to(seen, own, kind, options, redis=redis, resolved=resolved, bytes_on_http=marked)
        out.append(Chain(sni, ranges, filters))
    causes = dict.fromkeys([*(str(r.rule) for r in (*by_name, *by_place)), *host.origins])
    causes |= dict.fromkeys(str(dr.ref) for _, _, found in host.onward for dr in found)
    return out, tuple(causes)


def _listener(
    seen: Side,
    policy: OutboundPolicy,
    place: Place,
    requests: Requests | None,
    hosts: tuple[HostView, ...],
    own: str,
    seat: Seat,
    detection_s: float | None,
) -> Resource:
    """``requests``: where HTTP is routed; ``hosts``: those that match connections; ``own``: the route configuration of
    the host that all requests belong to, empty where they are for the host that they name."""
    address, port = place
    anywhere = address == ANYWHERE
    name = f"{address}_{port}"
    chains: list[Any] = []
    rest: Any = None
    taken = Taken()
    causes: dict[str, None] = {}
    if requests:
        routed = http.filters(seen, requests, f"outbound_{name}", rds=own or str(port))
        chains.append(lc.FilterChain(filter_chain_match=_looks_like_http(seen), filters=routed))
    for host in hosts:
        found, mine = _chains(seen, host, port, anywhere, anywhere or len(hosts) > 1)
        causes |= dict.fromkeys(mine)
        for chain in found:
            for match in taken.left(chain.sni, chain.ranges):
                if everything(match):
                    rest = chain.made()
                else:
                    chains.append(chain.made(match))
    if rest is None:
        rest = lc.FilterChain(name="PassthroughFilterChain", filters=tcp.proxy(seen, unknown(policy)))
    by_name = any(c.filter_chain_match.server_names for c in chains)
    out = listener_pb2.Listener(
        name=names.of_workload(name, seen.workload),
        address=pb.address(address, port, seat.network_namespace),
        bind_to_port=pb.boolean(False),
        filter_chains=chains,
        default_filter_chain=rest,
        listener_filters=[*([tcp.tls_inspector()] if by_name else []), *([tcp.http_inspector()] if requests else [])],
        per_connection_buffer_limit_bytes=tcp.buffered(seen),
        traffic_direction="OUTBOUND",
        continue_on_listener_filters_timeout=True,
        listener_filters_timeout=tcp.detection(detection_s if requests or by_name else 0),
    )
    if not chains:  # Envoy requires a chain besides the default one
        out.filter_chains.append(out.default_filter_chain)
        out.ClearField("default_filter_chain")
    return pb.resource(out.name, pb.also(out, seat.ipv6), (*causes, *seen.origins))


def _dynamic(policy: OutboundPolicy, hosts: tuple[HostView, ...]) -> str:
    """See ``Requests.dynamic``; it is the same for all of one proxy."""
    return policy.lookup or next((h.lookup for h in hosts if h.resolution == "DYNAMIC_DNS"), "")


def _bound(
    seen: Side, bind: Bind, policy: OutboundPolicy, paths: str, seat: Seat, detection_s: float | None
) -> Resource:
    """A Sidecar's egress listener with an address of its own."""
    name = f"{bind.address}_{bind.port}"
    out = listener_pb2.Listener(
        name=names.of_workload(name, seen.workload),
        address=pb.address(bind.address, bind.port, seat.network_namespace),
        bind_to_port=pb.boolean(not bind.captured),
        max_connections_to_accept_per_socket_event=pb.u32(tcp.ACCEPTED_AT_ONCE),
        per_connection_buffer_limit_bytes=tcp.buffered(seen),
        traffic_direction="OUTBOUND",
    )
    if bind.address.startswith("unix://"):
        out.address.pipe.path = bind.address.removeprefix("unix://")
    asked = Requests("outbound", dynamic=_dynamic(policy, bind.hosts), paths=paths)
    if bind.protocol in REQUESTS:
        out.filter_chains.add(filters=http.filters(seen, asked, f"outbound_{name}", rds=bind.routes))
    if bind.protocol == "auto":
        out.filter_chains[0].filter_chain_match.CopyFrom(_looks_like_http(seen))
    causes = _bound_connections(seen, bind, out) if bind.protocol not in HTTP else ()
    if any(c.filter_chain_match.server_names for c in out.filter_chains):
        out.listener_filters.append(tcp.tls_inspector())
    if bind.protocol == "auto":
        out.listener_filters.append(tcp.http_inspector())
    if out.listener_filters:
        out.continue_on_listener_filters_timeout = True
        out.listener_filters_timeout.CopyFrom(tcp.detection(detection_s))
    if not out.filter_chains:
        if out.HasField("default_filter_chain"):
            out.filter_chains.append(out.default_filter_chain)
            out.ClearField("default_filter_chain")
        else:
            out.filter_chains.add(filters=tcp.proxy(seen, names.BLACK_HOLE))
    return pb.resource(out.name, out, (*causes, *seen.origins))


def _bound_connections(seen: Side, bind: Bind, out: Any) -> tuple[str, ...]:
    """Adds the chains of connections to a listener; returns the user's objects that these come from. Services with the
    listener's port precede those that have another one only."""
    causes: dict[str, None] = {}
    taken = Taken()
    hosts = [h for h in bind.hosts if any(p.number == bind.port for p in h.ports)] or bind.hosts
    for host in hosts:
        number = reached([p.number for p in host.ports], bind.port)
        if number is None:
            continue
        found, mine = _chains(seen, host, number, False, len(hosts) > 1)
        causes |= dict.fromkeys(mine)
        for chain in found:
            for match in taken.left(chain.sni, chain.ranges):
                if everything(match):
                    out.default_filter_chain.CopyFrom(chain.made())
                else:
                    out.filter_chains.append(chain.made(match))
    return tuple(causes)


Place = tuple[str, int]
"""(address, port) of a listener"""


@dataclass(frozen=True)
class Listening:
    """What one namespace's hosts contribute to listeners; the same object for as long as it is equal."""

    requests: frozenset[Place]
    """Where requests are routed by their host."""
    takers: tuple[tuple[Place, HostView], ...]
    """Which clusters connections are forwarded to."""
    owned: tuple[tuple[Place, str], ...]
    """Addresses whose requests belong to one host, with the name of its route configuration."""
    sniffed: tuple[tuple[Place, str], ...]
    """Addresses of ports of unknown protocol, likewise, where nobody else has them."""


@dataclass(frozen=True)
class Plan:
    """Which outbound listeners a client has, independent of what they report."""

    policy: OutboundPolicy
    paths: str
    """How paths are normalized."""
    detection_s: float | None
    """See ``Transport``."""
    parts: tuple[Listening, ...]
    """Empty where nothing is redirected."""
    captured: bool
    binds: tuple[Bind, ...]

    __hash__ = object.__hash__  # equal plans are one object


_shared = Shared()


@derived
def _listening(part: HostSpace) -> Listening:
    requests: set[Place] = set()
    takers: list[tuple[Place, HostView]] = []
    owned: list[tuple[Place, str]] = []
    sniffed: list[tuple[Place, str]] = []
    for host in part.members:
        if host.resolution == "RULES" or not host.called:
            continue
        own = [a for a in host.addresses if "/" not in a]
        ranges = len(own) < len(host.addresses)
        for port in host.called_ports:
            mine = host.by_address(port.number) if port.spoken in REQUESTS else ()
            owned += [((a, port.number), names.at_address(host.host, port.number)) for a in mine]
            sniffed += [((a, port.number), names.at_address(host.host, port.number)) for a in host.sniffed(port)]
            if port.spoken in HTTP:
                requests.add((ANYWHERE, port.number))
                continue
            places = own
            if host.resolution == "HEADLESS":
                places = [address for number, address in host.instances if number == port.number]
            elif not own or ranges:
                places = [*own, ANYWHERE]
            for address in places:
                takers.append(((address, port.number), host))
                if port.spoken == "auto":
                    requests.add((address, port.number))
    made = (frozenset(requests), tuple(takers), tuple(owned), tuple(sniffed))
    return _shared(("listening", made), lambda: Listening(*made))


@derived
def _parts(spaces: Spaces[HostSpace]) -> tuple[Listening, ...]:
    return tuple(dict.fromkeys(map(_listening, spaces.parts)))


@derived
def plan(view: OutboundView) -> Plan:
    """The same object for all views whose listeners are the same, whatever else differs."""
    parts = _parts(view.host_spaces) if view.captured else ()
    key = (view.policy, view.paths, view.detection_s, parts, view.captured, view.binds)
    return _shared(("plan", key), lambda: Plan(*key))


def resources(plan: Plan, seen: Side, seat: Seat = ALONE) -> tuple[Resource, ...]:
    """One listener for each port where requests are routed, one for each address and port of other services. A proxy
    without IPv6 has none for IPv6 addresses: where the kernel does not know them, Envoy rejects them."""
    requests = {place for part in plan.parts for place in part.requests}
    takers: dict[Place, list[HostView]] = {}
    for place, host in sorted((t for part in plan.parts for t in part.takers), key=lambda t: t[1].seniority):
        takers.setdefault(place, []).append(host)
    owned = {place: name for part in reversed(plan.parts) for place, name in part.owned}
    requests |= owned.keys()
    alone = {place for place, found in takers.items() if len(found) == 1} - owned.keys()
    owned |= {place: name for part in plan.parts for place, name in part.sniffed if place in alone}
    out = [_virtual(seen.at(), plan.policy, seat)] if plan.captured else []
    for place in sorted(requests | takers.keys()):
        if ":" in place[0] and not seat.ipv6:
            continue
        hosts = tuple(takers.get(place, ()))
        resolved = _dynamic(plan.policy, hosts)
        routed = Requests("outbound", dynamic=resolved, paths=plan.paths) if place in requests else None
        key = (seen.at(place[1]), plan.policy, place, routed, hosts, owned.get(place, ""), seat, plan.detection_s)
        out.append(_shared(("listener", key), lambda key=key: _listener(*key)))  # type: ignore[misc]
    bound = [_bound(seen.at(b.port), b, plan.policy, plan.paths, seat, plan.detection_s) for b in plan.binds]
    known = {b.name for b in bound}
    return (*(r for r in out if r.name not in known), *bound)
