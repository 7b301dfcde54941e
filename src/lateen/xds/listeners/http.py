"""Filter chains that route requests: the HTTP connection manager and what comes before it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from envoy.config.core.v3 import protocol_pb2
from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2

from lateen.mesh.observability import Side
from lateen.mesh.proxies import Place
from lateen.xds import pb, tap, telemetry, tracing
from lateen.xds.filters import order, plugins, workload
from lateen.xds.filters.chain import Requests
from lateen.xds.listeners import handling

_HTTP2 = protocol_pb2.Http2ProtocolOptions(
    allow_connect=True, override_stream_error_on_invalid_http_message=pb.boolean(True)
)
"""Callers share an HTTP/2 connection between proxies. An invalid header of one of them (an authority such as x@host,
which HTTP/1.1 allows) resets its own stream; Envoy's default ends the connection and every other request on it."""


def filters(
    seen: Side,
    chain: Requests,
    stat_prefix: str,
    *,
    rds: str = "",
    route: Any = None,
    server: telemetry.Server | None = None,
    place: Place | None = None,
) -> list[lc.Filter]:
    """The network filters of a chain that routes requests. Routes come by name (``rds``) or inline (``route``);
    ``server``: at an inbound chain; ``place``: at a gateway."""
    messages = chain.messages and seen.metrics is not None and seen.metrics.of_messages
    out = hcm.HttpConnectionManager(
        stat_prefix=stat_prefix,
        http_filters=order.http(
            replace(
                chain,
                hooks=seen.hooks,
                messages=messages,
                envoy_headers=seen.handling.envoy_headers,
            )
        ),
        access_log=[*telemetry.loggers(seen, True, server, messages), tap.logger(server is not None)],
        stream_idle_timeout=pb.duration(0),
        upgrade_configs=[hcm.HttpConnectionManager.UpgradeConfig(upgrade_type="websocket")],
        use_remote_address=pb.boolean(chain.kind == "gateway"),
        http2_protocol_options=_HTTP2,
        proxy_100_continue=True,
    )
    _paths(out, chain.paths)
    _without(out, chain.claimed)
    # No internal_address_config: since 1.33, Envoy then trusts no address to set x-envoy headers (Istio's bulletin
    # 2024-006). An empty one would trust all private addresses.
    if seen.trace:
        out.tracing.CopyFrom(tracing.of(seen.trace))
        if not seen.trace.by_request_id:
            out.request_id_extension.CopyFrom(tracing.request_id())
    if rds:
        out.rds.config_source.CopyFrom(pb.ads())
        out.rds.route_config_name = rds
    else:
        out.route_config.CopyFrom(route)
    handling.apply(out, seen.handling)
    if server:
        handling.client_certificate(out, seen.handling, seen.handling.client_certificate)
    elif place:
        handling.client_certificate(out, seen.handling, place.client_certificate)
        # with trusted proxies Envoy also accepts their X-Forwarded-Proto, so that httpsRedirect does not loop
        out.xff_num_trusted_hops = place.trusted_proxies
    manager = lc.Filter(name="envoy.filters.network.http_connection_manager", typed_config=pb.any_of(out))
    return [
        *_whose(seen, chain, server),
        *plugins.network(seen.hooks, seen.workload, ("AUTHN", "AUTHZ", "STATS", "")),
        manager,
    ]


def _whose(seen: Side, chain: Requests, server: telemetry.Server | None) -> list[lc.Filter]:
    """The filter that knows whose a connection is."""
    if chain.kind != "inbound":
        return [workload.slot(seen.workload)]
    certified = server is not None and server.security == "mutual_tls"
    return [workload.caller()] if certified and seen.metrics and seen.metrics.requests else []


def _paths(out: Any, wanted: str) -> None:
    """Source: https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#MeshConfig-ProxyPathNormalization."""
    out.normalize_path.value = wanted != "NONE"
    out.merge_slashes = wanted in ("MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES")
    if wanted == "DECODE_AND_MERGE_SLASHES":
        out.path_with_escaped_slashes_action = hcm.HttpConnectionManager.UNESCAPE_AND_FORWARD


def _without(out: Any, headers: tuple[str, ...]) -> None:
    """Remove these headers before a route is chosen."""
    if headers:
        made = header_mutation_pb2.HeaderMutation()
        for name in headers:
            made.mutations.add(remove=name)
        out.early_header_mutation_extensions.add(name="lateen.claims", typed_config=pb.any_of(made))
