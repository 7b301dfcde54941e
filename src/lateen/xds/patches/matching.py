"""Which objects a patch applies to.

Source: https://istio.io/latest/docs/reference/config/networking/envoy-filter/ (EnvoyConfigObjectMatch).
"""

from __future__ import annotations

from typing import Any

from lateen.api.networking import envoy_filter as api
from lateen.wire import names

HCM = ("envoy.filters.network.http_connection_manager", "envoy.http_connection_manager")


def context(wanted: str, have: str) -> bool:
    return wanted in ("ANY", have)


def cluster(m: api.ClusterMatch | None, name: str) -> bool:
    if m is None:
        return True
    if m.name:
        return m.name == name
    parts = name.split("|")
    if len(parts) != 4:
        return not (m.service or m.subset or m.port_number)
    _, port, subset, host = parts
    if m.port_number and str(m.port_number) != port:
        return False
    return (not m.subset or m.subset == subset) and (not m.service or m.service == host)


def listener(m: api.ListenerMatch | None, found: Any) -> bool:
    """An inbound port is a filter chain of the one inbound listener."""
    if m is None:
        return True
    if m.name and m.name != found.name:
        return False
    if not m.port_number or found.address.socket_address.port_value == m.port_number:
        return True
    return found.name == names.VIRTUAL_INBOUND and any(
        c.filter_chain_match.destination_port.value == m.port_number for c in found.filter_chains
    )


def chain(m: api.ListenerMatch | None, owner: Any, found: Any) -> bool:
    if m is None:
        return True
    match = found.filter_chain_match
    if m.port_number and owner.name == names.VIRTUAL_INBOUND and match.destination_port.value != m.port_number:
        return False
    c = m.filter_chain
    if c is None:
        return True
    if c.name and c.name != found.name:
        return False
    if c.sni and c.sni not in match.server_names:
        return False
    if c.transport_protocol and c.transport_protocol != match.transport_protocol:
        return False
    if c.transport_socket and c.transport_socket != found.transport_socket.name:
        return False
    if c.destination_port and c.destination_port != match.destination_port.value:
        return False
    if c.application_protocols:
        wanted = {a.strip() for a in c.application_protocols.split(",")}
        if not wanted <= set(match.application_protocols):
            return False
    return c.filter is None or any(network_filter(m, f) for f in found.filters)


def network_filter(m: api.ListenerMatch | None, found: Any) -> bool:
    wanted = m.filter_chain.filter.name if m and m.filter_chain and m.filter_chain.filter else ""
    return not wanted or wanted == found.name or (wanted in HCM and found.name in HCM)


def http_filter(m: api.ListenerMatch | None) -> str:
    """The HTTP filter that a patch names; empty where it names none."""
    f = m.filter_chain.filter if m and m.filter_chain else None
    return f.sub_filter.name if f and f.sub_filter else ""


def routes(m: api.RouteConfigurationMatch | None, name: str) -> bool:
    """By the name of a route configuration (``8080``, ``http.8080``, ``https.443.port.gateway.ns``)."""
    if m is None:
        return True
    if m.name and m.name != name:
        return False
    parts = name.split(".")
    if m.port_number:
        number = (
            parts[1] if parts[0] in ("http", "https") and len(parts) > 1 else name.split("|")[1 if "|" in name else 0]
        )
        if number != str(m.port_number):
            return False
    if m.port_name and not (parts[0] == "https" and len(parts) > 2 and parts[2] == m.port_name):
        return False
    if m.gateway:
        namespace, _, gateway = m.gateway.rpartition("/")
        if parts[0] != "https" or len(parts) < 5 or parts[3] != gateway or namespace not in ("", parts[4]):
            return parts[0] == "http"  # plain servers of several gateways share one
    return True


def virtual_host(m: api.RouteConfigurationMatch | None, found: Any) -> bool:
    v = m.vhost if m else None
    if v is None:
        return True
    return (not v.name or v.name in (found.name, names.plain_host(found.name))) and (
        not v.domain_name or v.domain_name in found.domains
    )


def route(m: api.RouteConfigurationMatch | None, found: Any) -> bool:
    r = m.vhost.route if m and m.vhost else None
    if r is None:
        return True
    action = {"route": "ROUTE", "redirect": "REDIRECT", "direct_response": "DIRECT_RESPONSE"}
    if r.name and r.name != found.name:
        return False
    return r.action == "ANY" or action.get(found.WhichOneof("action") or "") == r.action
