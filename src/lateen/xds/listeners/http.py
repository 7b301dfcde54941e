"""The HTTP connection manager and its filters, in one order with a reason per row."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from envoy.config.core.v3 import protocol_pb2
from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.dynamic_forward_proxy.v3 import dynamic_forward_proxy_pb2 as forward_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.http.set_filter_state.v3 import set_filter_state_pb2 as state_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from lateen.mesh.objects import MeshConfig
from lateen.xds import discovery, pb, telemetry
from lateen.xds.routes import action

SERVER_NAME = "istio-envoy"
"""The ``server`` header of answers that leave the mesh's proxies."""


def _filter(name: str, config: Any, disabled: bool = False) -> Any:
    return hcm.HttpFilter(name=name, typed_config=pb.any_of(config), disabled=disabled)


@lru_cache(maxsize=8)
def _filters(kind: str, dynamic: bool) -> tuple[Any, ...]:
    out = []
    if dynamic:
        found = forward_pb2.FilterConfig(dns_cache_config=discovery.dns_cache())
        out.append(_filter("envoy.filters.http.dynamic_forward_proxy", found, disabled=True))
    if kind in ("outbound", "gateway"):
        # What requests on ports of unknown protocol tell the server's sidecar; off for all others.
        out.append(_filter(action.STATE, state_pb2.Config(), disabled=True))
        # Off until a route has settings for them: an idle filter costs CPU on every request.
        out.append(_filter("envoy.filters.http.fault", fault_pb2.HTTPFault(), disabled=True))
        out.append(_filter("envoy.filters.http.cors", cors_pb2.Cors(), disabled=True))
    # Its own statistics are Envoy's old ones, which the bootstrap leaves out anyway; Istio's come from the logger.
    out.append(_filter("envoy.filters.http.router", router_pb2.Router(dynamic_stats=pb.boolean(False))))
    return tuple(out)


def manager(
    config: MeshConfig,
    kind: str,
    stat_prefix: str,
    *,
    rds: str = "",
    route: Any = None,
    server: telemetry.Server | None = None,
    authorization: tuple[Any, ...] = (),
    dynamic: bool = False,
) -> Any:
    """A network filter. ``kind``: outbound, inbound or gateway; routes by name or inline.
    ``authorization``: filters that come before all others; ``dynamic``: routes may lead to whatever name is asked
    for."""
    out = hcm.HttpConnectionManager(
        stat_prefix=stat_prefix,
        http_filters=[*authorization, *_filters(kind, dynamic)],
        normalize_path=pb.boolean(True),
        access_log=telemetry.loggers(config, True, server),
        stream_idle_timeout=pb.duration(0),
        upgrade_configs=[hcm.HttpConnectionManager.UpgradeConfig(upgrade_type="websocket")],
        use_remote_address=pb.boolean(kind == "gateway"),
        http2_protocol_options=protocol_pb2.Http2ProtocolOptions(allow_connect=True),
        proxy_100_continue=True,
    )
    # Private addresses are not trusted to set x-envoy headers (Istio's bulletin 2024-006).
    out.internal_address_config.SetInParent()
    if rds:
        out.rds.config_source.CopyFrom(pb.ads())
        out.rds.route_config_name = rds
    else:
        out.route_config.CopyFrom(route)
    if kind != "outbound":
        out.server_name = SERVER_NAME
        mode = hcm.HttpConnectionManager.APPEND_FORWARD if server else hcm.HttpConnectionManager.SANITIZE_SET
        out.forward_client_cert_details = mode
        details = out.set_current_client_cert_details
        details.subject.value = details.uri = details.dns = True
        details.cert = kind == "gateway"
    return lc.Filter(name="envoy.filters.network.http_connection_manager", typed_config=pb.any_of(out))
