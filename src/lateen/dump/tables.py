"""Rows of istioctl's tables. Each function yields (row, the resource that it shows)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from lateen.dump.config import ConfigDump
from lateen.kit.digits import digits
from lateen.kit.jsons import Json, dig
from lateen.wire import names

CLUSTER = ["SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"]
LISTENER = ["ADDRESSES", "PORT", "MATCH", "DESTINATION"]
ROUTE = ["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"]
ENDPOINT = ["ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"]
ENDPOINT_CONFIG = ["NAME", "STATUS", "LOCALITY", "CLUSTER"]
SECRET = ["RESOURCE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"]
EXTENSION = ["ECDS NAME", "TYPE"]

HCM = "envoy.filters.network.http_connection_manager"
TCP = "envoy.filters.network.tcp_proxy"
_CONFIG = re.compile(r"/namespaces/([^/]+)/([^/]+)/([^/]+)$")
UDP = "envoy.filters.udp_listener.udp_proxy"
ROUTES = {f"{kind}route": f"{kind.upper()}Route" for kind in ("http", "grpc", "tls", "tcp", "udp")}
"""Routes of the Gateway API, which are shown with their rules, by the names of their kinds in metadata."""


class Cluster(NamedTuple):
    """The parts of a cluster's name: ``outbound|9080|v1|reviews.default.svc.cluster.local``."""

    direction: str
    port: str
    subset: str
    host: str


def cluster_name(name: str) -> Cluster:
    parts = name.split("|")
    if len(parts) == 4 and parts[0] in ("outbound", "inbound"):
        return Cluster(*parts)
    return Cluster("", "", "", name)


def config_name(resource: Json) -> str:
    """``name.namespace`` of the user's object that shaped a resource, if the resource names one; of the Gateway API's
    routes also the kind and the rule."""
    found = _CONFIG.search(str(dig(resource, "metadata", "filter_metadata", "istio", "config", default="")))
    if not found:
        return ""
    kind, name = ROUTES.get(found[2]), f"{found[3]}.{found[1]}"
    return f"{kind} {name}{rule_of(resource, found[1], found[3])}" if kind else name


def rule_of(route: Json, namespace: str, name: str) -> str:
    """The rule of a Gateway API route behind an Envoy route or filter chain: `` rule 2``, or the rule's own name."""
    said = str(dig(route, "metadata", "filter_metadata", "istio", "rule") or route.get("name") or "")
    number = said.removeprefix(f"{namespace}.{name}.")
    if number != said and digits(number):
        return f" rule {int(number) + 1}"
    return f' rule "{said}"' if said else ""


def clusters(dump: ConfigDump) -> list[tuple[list[str], Json]]:
    out = []
    for c in dump.clusters():
        name = cluster_name(str(c.get("name", "")))
        kind = c.get("type") or dig(c, "cluster_type", "name", default="STATIC")
        row = [name.host, name.port or "-", name.subset or "-", name.direction or "-", str(kind), config_name(c)]
        out.append((row, c))
    return sorted(out, key=lambda r: (r[0][0], int(r[0][1]) if digits(r[0][1]) else 0, r[0][2], r[0][3]))


# --- listeners ---------------------------------------------------------------------------------------------------


def listeners(dump: ConfigDump) -> list[tuple[list[str], Json]]:
    out = []
    for listener in dump.listeners():
        address, port = address_of(listener)
        for match, destination in _chains(listener):
            out.append(([address, port, match, destination], listener))
    return sorted(out, key=lambda r: (int(r[0][1]) if digits(r[0][1]) else 0, r[0][0]))


def address_of(listener: Json) -> tuple[str, str]:
    socket = dig(listener, "address", "socket_address", default={})
    if socket:
        return str(socket.get("address", "")), str(socket.get("port_value", 0))
    return str(dig(listener, "address", "pipe", "path", default="")), "0"


def kind_of(listener: Json) -> str:
    """HTTP, TCP, HTTP+TCP or UDP, for ``--type``."""
    chains = _all_chains(listener)
    http = any(f.get("name") == HCM for c in chains for f in c.get("filters") or [])
    tcp = any(f.get("name") == TCP for c in chains for f in c.get("filters") or [])
    if any(f.get("name") == UDP for f in listener.get("listener_filters") or []):
        return "UDP"
    return "HTTP+TCP" if http and tcp else "HTTP" if http else "TCP" if tcp else "UNKNOWN"


def _all_chains(listener: Json) -> list[Json]:
    default = listener.get("default_filter_chain")
    return [*(listener.get("filter_chains") or []), *([default] if default else [])]


def _chains(listener: Json) -> Iterator[tuple[str, str]]:
    for chain in listener.get("filter_chains") or []:
        yield _match(chain.get("filter_chain_match") or {}), _destination(chain) + _ruled(chain)
    if default := listener.get("default_filter_chain"):
        yield "ALL", _destination(default) + _ruled(default)
    for f in listener.get("listener_filters") or []:
        if f.get("name") == UDP:
            cluster = dig(f, "typed_config", "matcher", "on_no_match", "action", "typed_config", "cluster", default="")
            yield "UDP", f"Cluster: {cluster}{_ruled(listener)}"


def _ruled(part: Json) -> str:
    """The Gateway API route of a filter chain, shown instead of a route configuration's name."""
    found = config_name(part)
    return f" ({found})" if found.startswith(tuple(ROUTES.values())) else ""


def _match(match: Json) -> str:
    parts = []
    if sni := match.get("server_names"):
        parts.append(f"SNI: {','.join(sni)}")
    if transport := match.get("transport_protocol"):
        parts.append(f"Trans: {transport}")
    if protocols := match.get("application_protocols"):
        parts.append(f"App: {','.join(_istio_tls(protocols))}")
    if ranges := match.get("prefix_ranges"):
        parts.append("Addr: " + ",".join(f"{r.get('address_prefix')}/{r.get('prefix_len')}" for r in ranges))
    if port := match.get("destination_port"):
        parts.append(f"Addr: *:{port}")
    return "; ".join(parts) or "ALL"


def _istio_tls(protocols: list[str]) -> list[str]:
    """Istio's names for HTTP and TCP over mutual TLS, as one word each."""
    mesh = [p for p in protocols if p.startswith("istio")]
    rest = [p for p in protocols if not p.startswith("istio")]
    return ([*mesh] if len(mesh) < 4 else ["istio TLS"]) + rest


def _destination(chain: Json) -> str:
    for f in chain.get("filters") or []:
        config = f.get("typed_config") or {}
        if f.get("name") == HCM:
            if name := dig(config, "rds", "route_config_name"):
                return f"Route: {name}"
            return _inline(config.get("route_config") or {})
        if f.get("name") == TCP:
            return _tcp(config)
    filters = [str(f.get("name")) for f in chain.get("filters") or []]
    return f"Non-HTTP/Non-TCP: {', '.join(filters)}" if filters else "Non-HTTP/Non-TCP"


def _tcp(config: Json) -> str:
    if cluster := config.get("cluster"):
        return str(cluster) if "|" not in cluster else f"Cluster: {cluster}"
    weighted = dig(config, "weighted_clusters", "clusters", default=[])
    return "Clusters: " + ", ".join(f"{w.get('name')} ({w.get('weight', 0)})" for w in weighted)


def _inline(config: Json) -> str:
    targets = {
        str(dig(r, "route", "cluster", default=""))
        for v in config.get("virtual_hosts") or []
        for r in v.get("routes") or []
    } - {""}
    if len(targets) == 1 and "|" in (only := next(iter(targets))):
        return f"Cluster: {only}"
    matches = [
        _route_match(r.get("match") or {}) for v in config.get("virtual_hosts") or [] for r in v.get("routes") or []
    ]
    return "Inline Route: " + ", ".join(matches)


# --- routes ------------------------------------------------------------------------------------------------------


def routes(dump: ConfigDump) -> list[tuple[list[str], Json]]:
    out = []
    for config in dump.routes():
        name = str(config.get("name", ""))
        for host in config.get("virtual_hosts") or []:
            domains = _domains(host.get("domains") or [])
            if not host.get("routes"):  # as istioctl shows routes that answer 404
                out.append(([name, names.plain_host(str(host.get("name", ""))), domains, "/*", "404"], config))
            for route in host.get("routes") or []:
                row = [
                    name,
                    names.plain_host(str(host.get("name", ""))),
                    domains,
                    _route_match(route.get("match") or {}),
                    config_name(route),
                ]
                out.append((row, config))
    return sorted(out, key=lambda r: (not digits(r[0][0]), r[0][0].zfill(6), r[0][1]))


def _domains(domains: list[str]) -> str:
    plain = [d for d in domains if ":" not in d or d.startswith("[")] or domains
    shown = ", ".join(plain[:2])
    return shown if len(plain) <= 2 else f"{shown} + {len(plain) - 2} more..."


def _route_match(match: Json) -> str:
    out = "/*"
    if "prefix" in match:
        out = f"{match['prefix']}*"
    elif "path_separated_prefix" in match:
        out = f"PathPrefix:{match['path_separated_prefix']}"
    elif "path" in match:
        out = str(match["path"])
    elif "safe_regex" in match:
        out = f"regex {dig(match, 'safe_regex', 'regex', default='')}"
    for header in match.get("headers") or []:
        value = dig(header, "string_match", "exact") or dig(header, "string_match", "prefix") or ""
        out += f" {header.get('name')}{'=' + value if value else ''}"
    return out


# --- endpoints ---------------------------------------------------------------------------------------------------


def endpoints(statuses: Any) -> list[tuple[list[str], Json]]:
    """From ``GET /clusters?format=json``: the current state of each endpoint in Envoy."""
    out = []
    for cluster in dig(statuses, "cluster_statuses", default=[]):
        for host in cluster.get("host_statuses") or []:
            health = host.get("health_status") or {}
            status = str(health.get("eds_health_status", "HEALTHY"))
            outlier = "FAILED" if health.get("failed_outlier_check") else "OK"
            out.append(([endpoint_address(host.get("address") or {}), status, outlier, str(cluster.get("name"))], host))
    return sorted(out, key=lambda r: (r[0][3], r[0][0]))


def endpoint_configs(dump: ConfigDump) -> list[tuple[list[str], Json]]:
    """From a config dump: the endpoints sent by the control plane."""
    out = []
    for assignment in dump.endpoints():
        for group in assignment.get("endpoints") or []:
            place = "/".join(
                filter(None, ((group.get("locality") or {}).get(k) for k in ("region", "zone", "sub_zone")))
            )
            for e in group.get("lb_endpoints") or []:
                name = endpoint_address(dig(e, "endpoint", "address", default={}))
                row = [name, str(e.get("health_status", "HEALTHY")), place, str(assignment.get("cluster_name"))]
                out.append((row, assignment))
    return sorted(out, key=lambda r: (r[0][3], r[0][0]))


def endpoint_address(address: Json) -> str:
    if socket := address.get("socket_address"):
        return f"{socket.get('address')}:{socket.get('port_value', 0)}"
    if internal := address.get("envoy_internal_address"):
        return f"envoy://{internal.get('server_listener_name')}/{internal.get('endpoint_id', '')}"
    return "unix://" + str(dig(address, "pipe", "path", default=""))


def extensions(dump: ConfigDump) -> list[tuple[list[str], Json]]:
    out = []
    for e in dump.extensions():
        out.append(([str(e.get("name")), str(dig(e, "typed_config", "@type", default="")).rpartition("/")[2]], e))
    return out
