"""Envoy's matching, replayed over the resources that Lateen makes: which listener, chain, route and cluster a call
gets.

Rules: https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/listener/v3/listener_components.proto
(FilterChainMatch: destination port, then address, then server name, transport protocol, application protocols; no way
back once one level has matched) and .../intro/arch_overview/http/http_routing.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from lateen.wire import names

MESH_ALPN = {"http": "istio-http/1.1", "http2": "istio-h2", "tcp": "istio"}
PLAIN_ALPN = {"http": "http/1.1", "http2": "h2c", "tcp": ""}
TLS_ALPN = {"http": "http/1.1", "http2": "h2", "tcp": ""}
ROUTES = "envoy.filters.network.http_connection_manager"
BY_SNI = "envoy.filters.network.sni_cluster"


@dataclass
class Call:
    address: str = ""
    port: int = 0
    path: str = "/"
    protocol: str = "http"
    tls: str = "plaintext"
    alpn: str = ""
    host: str = ""
    sni: str = ""
    mode: str = ""
    """empty: through 15001; inbound: through 15006; gateway: to a bound listener"""
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "GET"
    source: str = ""


@dataclass
class Outcome:
    listenerMatched: str = ""  # noqa: N815 - the cases' own names
    filterChainMatched: str = ""  # noqa: N815
    routeMatched: str = ""  # noqa: N815
    routeConfigMatched: str = ""  # noqa: N815
    virtualHostMatched: str = ""  # noqa: N815
    clusterMatched: str = ""  # noqa: N815
    error: str = ""


class Simulator:
    """``found``: type -> name -> message, as ``judge.messages`` gives them."""

    def __init__(self, found: dict, own_address: str = "1.1.1.1") -> None:
        self._found, self._own = found, own_address
        self.listeners: dict[str, listener_pb2.Listener] = found[names.LDS]

    def run(self, call: Call) -> Outcome:
        out = Outcome()
        listener = self._listener(call)
        if listener is None:
            out.error = "no listener matched"
            return out
        out.listenerMatched = listener.name
        chains = self._chains(listener, call)
        if not chains:
            out.error = "no filter chains matched"
            return out
        if len(chains) > 1:
            out.error = "multiple filter chains matched"
            return out
        chain = chains[0]
        out.filterChainMatched = chain.name
        out.error = self._transport(chain, call)
        if not out.error:
            self._filters(chain, call, out)
        return out

    # --- listeners -------------------------------------------------------------------------------------------

    def _listener(self, call: Call):
        if call.mode == "inbound":
            return self.listeners.get(names.VIRTUAL_INBOUND)
        if call.mode == "gateway":
            exact = self._at(call.address, call.port, True) if call.address else None
            return exact or self._at("0.0.0.0", call.port, True)
        if call.port == 15006:
            return self.listeners.get(names.VIRTUAL_INBOUND)
        exact = self._at(call.address, call.port, None) if call.address else None
        return exact or self._at("0.0.0.0", call.port, None) or self.listeners.get(names.VIRTUAL_OUTBOUND)

    def _at(self, address: str, port: int, bound: bool | None):
        for listener in self.listeners.values():
            at = listener.address.socket_address
            binds = listener.bind_to_port.value if listener.HasField("bind_to_port") else True
            if listener.name in (names.VIRTUAL_INBOUND, names.VIRTUAL_OUTBOUND):
                continue
            if (at.address, at.port_value) == (address, port) and (bound is None or binds == bound):
                return listener
        return None

    # --- filter chains ---------------------------------------------------------------------------------------

    def _chains(self, listener, call: Call) -> list:
        port = call.port
        inspected = {f.name for f in listener.listener_filters if not _disabled(f, port)}
        sees_tls = "envoy.filters.listener.tls_inspector" in inspected
        sees_http = "envoy.filters.listener.http_inspector" in inspected
        secure = call.tls != "plaintext"
        transport = "tls" if secure and sees_tls else "raw_buffer"
        sni = call.sni or (call.host if secure else "")
        if secure:
            alpn = [call.alpn or (MESH_ALPN if call.tls == "mtls" else TLS_ALPN)[call.protocol]] if sees_tls else []
        else:
            alpn = [call.alpn or PLAIN_ALPN[call.protocol]] if sees_http else []
        left = [(c, c.filter_chain_match) for c in listener.filter_chains]
        by_port = [p for p in left if p[1].destination_port.value == port]
        left = by_port or [p for p in left if not p[1].HasField("destination_port")]
        left = _most_specific(left, lambda m: _prefix(m, call.address or self._own))
        left = _most_specific(left, lambda m: _name(m, sni))
        by_transport = [p for p in left if p[1].transport_protocol == transport]
        left = by_transport or [p for p in left if not p[1].transport_protocol]
        by_alpn = [p for p in left if set(p[1].application_protocols) & {a for a in alpn if a}]
        left = by_alpn or [p for p in left if not p[1].application_protocols]
        if not left and listener.HasField("default_filter_chain"):
            return [listener.default_filter_chain]
        return [c for c, _ in left]

    def _transport(self, chain, call: Call) -> str:
        """What TLS itself would say."""
        if not chain.HasField("transport_socket") or not chain.transport_socket.name.endswith("tls"):
            is_http = any(f.name == ROUTES for f in chain.filters)
            return "protocol error" if is_http and call.tls != "plaintext" else ""
        context = tls_pb2.DownstreamTlsContext()
        chain.transport_socket.typed_config.Unpack(context)
        common = context.common_tls_context
        mesh = any(s.name == "default" for s in common.tls_certificate_sds_secret_configs)
        if call.tls == "plaintext":
            return "invalid TLS"
        if context.require_client_certificate.value:
            # A certificate of the mesh is one that only the mesh's own servers know; a server's own authorities
            # know only what the caller says it has.
            if call.tls != "mtls" or mesh == bool(call.source):
                return "invalid mTLS"
        elif call.tls == "mtls":
            return "invalid mTLS"
        return ""

    # --- filters ---------------------------------------------------------------------------------------------

    def _filters(self, chain, call: Call, out: Outcome) -> None:
        last = chain.filters[-1]
        if last.name == ROUTES:
            if call.protocol == "tcp":
                out.error = "protocol error"
                return
            manager = hcm.HttpConnectionManager()
            last.typed_config.Unpack(manager)
            self._requests(manager, call, out)
            return
        if any(f.name == BY_SNI for f in chain.filters):
            out.clusterMatched = call.sni or call.host
            if out.clusterMatched not in self._found[names.CDS]:
                out.clusterMatched, out.filterChainMatched, out.error = "", "", "no filter chains matched"
            return
        proxy = tcp_proxy_pb2.TcpProxy()
        last.typed_config.Unpack(proxy)
        out.clusterMatched = proxy.cluster or proxy.weighted_clusters.clusters[0].name

    def routes(self, name: str):
        """A route configuration with its virtual hosts inside; None where there is none."""
        found = self._found.get(names.RDS, {}).get(name)
        if found is None:
            return None
        out = route_pb2.RouteConfiguration()
        out.CopyFrom(found)
        hosts = [h for n, h in self._found.get(names.VHDS, {}).items() if n.partition("/")[0] == name]
        out.virtual_hosts.extend(hosts)
        return out

    def _requests(self, manager, call: Call, out: Outcome) -> None:
        routes = self.routes(manager.rds.route_config_name) if manager.HasField("rds") else manager.route_config
        if routes is None:
            out.error = "no route matched"
            return
        out.routeConfigMatched = routes.name
        host = virtual_host(routes, call.host, call.port)
        if host is None:
            out.error = "no virtual host matched"
            return
        out.virtualHostMatched = names.plain_host(host.name)
        if host.require_tls and call.tls == "plaintext":
            out.error = "tls required, sending 301"
            return
        route = next((r for r in host.routes if matches(r.match, call)), None)
        if route is None:
            out.error = "no route matched"
            return
        out.routeMatched = route.name
        action = route.route
        out.clusterMatched = action.cluster or (
            action.weighted_clusters.clusters[0].name if action.weighted_clusters.clusters else ""
        )


def _disabled(f, port: int) -> bool:
    def holds(rule) -> bool:
        kind = rule.WhichOneof("rule")
        if kind == "or_match":
            return any(holds(r) for r in rule.or_match.rules)
        return kind == "destination_port_range" and (
            rule.destination_port_range.start <= port < rule.destination_port_range.end
        )

    return f.HasField("filter_disabled") and holds(f.filter_disabled)


def _most_specific(left: list, rank) -> list:
    """Those that match best; none where every chain asks for something else."""
    ranked = [(rank(m), c, m) for c, m in left]
    best = max((r for r, _, _ in ranked if r is not None), default=None)
    return [] if best is None else [(c, m) for r, c, m in ranked if r == best]


def _prefix(m, address: str):
    """The length of the longest range with the address; -1 where any will do."""
    if not m.prefix_ranges:
        return -1
    at = ipaddress.ip_address(address)
    fits = [
        r.prefix_len.value
        for r in m.prefix_ranges
        if at in ipaddress.ip_network(f"{r.address_prefix}/{r.prefix_len.value}", strict=False)
    ]
    return max(fits, default=None)


def _name(m, sni: str):
    if not m.server_names:
        return -1
    fits = [len(n) + 1000 for n in m.server_names if n == sni]
    fits += [len(n) for n in m.server_names if n.startswith("*.") and sni.endswith(n[1:])]
    return max(fits, default=None)


def virtual_host(routes, host: str, port: int):
    """Exact, then the longest wildcard before the name, then the longest behind it, then everything."""
    bare = host.rsplit(":", 1)[0] if routes.ignore_port_in_host_matching and ":" in host else host
    best, chosen = (-1, -1), None
    for candidate in routes.virtual_hosts:
        for domain in candidate.domains:
            rank = None
            if domain in (host, bare, f"{bare}:{port}"):
                rank = (4, len(domain))
            elif domain == "*":
                rank = (0, 0)
            elif domain.startswith("*") and bare.endswith(domain[1:]):
                rank = (2, len(domain))
            elif domain.endswith("*") and bare.startswith(domain[:-1]):
                rank = (1, len(domain))
            if rank is not None and rank > best:
                best, chosen = rank, candidate
    return chosen


def _text(m, value: str) -> bool:
    kind = m.WhichOneof("match_pattern")
    want = getattr(m, kind) if kind and kind != "safe_regex" else ""
    if m.ignore_case:
        value, want = value.lower(), want.lower()
    return {
        "exact": lambda: value == want,
        "prefix": lambda: value.startswith(want),
        "suffix": lambda: value.endswith(want),
        "contains": lambda: want in value,
        "safe_regex": lambda: re.fullmatch(m.safe_regex.regex, value) is not None,
    }[kind]()


def matches(m, call: Call) -> bool:
    path, _, query = call.path.partition("?")
    fold = (lambda s: s.lower()) if m.HasField("case_sensitive") and not m.case_sensitive.value else (lambda s: s)
    kind = m.WhichOneof("path_specifier")
    fits = {
        "prefix": lambda: fold(path).startswith(fold(m.prefix)),
        "path": lambda: fold(path) == fold(m.path),
        "safe_regex": lambda: re.fullmatch(m.safe_regex.regex, path) is not None,
        "path_separated_prefix": lambda: (
            fold(path) == fold(m.path_separated_prefix) or fold(path).startswith(fold(m.path_separated_prefix) + "/")
        ),
    }
    if kind and not fits[kind]():
        return False
    headers = {k.lower(): v for k, v in call.headers.items()}
    headers |= {":method": call.method, ":authority": call.host, ":scheme": "http", ":path": call.path}
    for h in m.headers:
        value = headers.get(h.name.lower())
        which = h.WhichOneof("header_match_specifier")
        if which in (None, "present_match"):
            hit = value is not None
        else:
            hit = value is not None and _text(h.string_match, value)
        if hit == h.invert_match:
            return False
    parameters = dict(p.partition("=")[::2] for p in query.split("&") if p)
    for q in m.query_parameters:
        value = parameters.get(q.name)
        if value is None or (q.HasField("string_match") and not _text(q.string_match, value)):
            return False
    return True
