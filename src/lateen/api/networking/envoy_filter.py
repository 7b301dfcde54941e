"""EnvoyFilter: https://istio.io/latest/docs/reference/config/networking/envoy-filter/"""

from __future__ import annotations

from typing import Any, Literal

from lateen.api.config import Config, one_of, rules
from lateen.api.networking.common import LabelSelector, PolicyTargetReference


class NamedFilter(Config):
    name: str = ""


class FilterMatch(Config):
    name: str = ""
    sub_filter: NamedFilter | None = None


class FilterChainMatch(Config):
    name: str = ""
    sni: str = ""
    transport_protocol: str = ""
    application_protocols: str = ""
    destination_port: int | None = None
    transport_socket: str = ""
    filter: FilterMatch | None = None


class ListenerMatch(Config):
    port_number: int | None = None
    port_name: str = ""
    name: str = ""
    filter_chain: FilterChainMatch | None = None
    listener_filter: str = ""


class RouteMatch(Config):
    name: str = ""
    action: Literal["ANY", "ROUTE", "REDIRECT", "DIRECT_RESPONSE"] = "ANY"


class VirtualHostMatch(Config):
    name: str = ""
    domain_name: str = ""
    route: RouteMatch | None = None


class RouteConfigurationMatch(Config):
    port_number: int | None = None
    port_name: str = ""
    gateway: str = ""
    name: str = ""
    vhost: VirtualHostMatch | None = None


class ClusterMatch(Config):
    port_number: int | None = None
    service: str = ""
    subset: str = ""
    name: str = ""


class WaypointMatch(Config):
    port_number: int | None = None
    filter: FilterMatch | None = None
    route: NamedFilter | None = None


class ProxyMatch(Config):
    proxy_version: str = ""
    metadata: dict[str, str] = {}


class EnvoyConfigObjectMatch(Config):
    context: Literal["ANY", "SIDECAR_INBOUND", "SIDECAR_OUTBOUND", "GATEWAY", "WAYPOINT"] = "ANY"
    proxy: ProxyMatch | None = None
    listener: ListenerMatch | None = None
    route_configuration: RouteConfigurationMatch | None = None
    cluster: ClusterMatch | None = None
    waypoint: WaypointMatch | None = None


class Patch(Config):
    operation: Literal[
        "INVALID",
        "MERGE",
        "ADD",
        "REMOVE",
        "INSERT_BEFORE",
        "INSERT_AFTER",
        "INSERT_FIRST",
        "REPLACE",
        "MERGE_AND_REPLACE_LIST",
    ] = "INVALID"
    value: dict[str, Any] | None = None
    filter_class: Literal["UNSPECIFIED", "AUTHN", "AUTHZ", "STATS"] = "UNSPECIFIED"


class EnvoyConfigObjectPatch(Config):
    apply_to: Literal[
        "INVALID",
        "LISTENER",
        "FILTER_CHAIN",
        "NETWORK_FILTER",
        "HTTP_FILTER",
        "ROUTE_CONFIGURATION",
        "VIRTUAL_HOST",
        "HTTP_ROUTE",
        "CLUSTER",
        "EXTENSION_CONFIG",
        "BOOTSTRAP",
        "LISTENER_FILTER",
    ] = "INVALID"
    match: EnvoyConfigObjectMatch | None = None
    patch: Patch | None = None


class EnvoyFilter(Config):
    RULES = rules(one_of("only one of targetRefs or workloadSelector can be set", "workloadSelector", "targetRefs"))

    workload_selector: LabelSelector | None = None
    target_refs: tuple[PolicyTargetReference, ...] = ()
    config_patches: tuple[EnvoyConfigObjectPatch, ...] = ()
    priority: int = 0
