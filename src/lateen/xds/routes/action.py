"""The action of a route as Envoy's."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2 as rc
from envoy.extensions.filters.common.fault.v3 import fault_pb2 as common_fault_pb2
from envoy.extensions.filters.common.set_filter_state.v3 import value_pb2 as state_value_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.set_filter_state.v3 import set_filter_state_pb2 as state_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2 as hosts_pb2
from envoy.extensions.retry.priority.previous_priorities.v3 import previous_priorities_config_pb2 as priorities_pb2
from envoy.type.matcher.v3 import regex_pb2

from lateen.api.networking import http as api
from lateen.kit.digits import digits
from lateen.mesh.routing import Route
from lateen.xds import pb
from lateen.xds.routes import sessions
from lateen.xds.routes.match import string
from lateen.xds.standard_metrics import GRPC_FILTER

DEFAULT_RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled"
"""Istio's default; nothing in it repeats a request that the application may have seen."""
DEFAULT_ATTEMPTS = 2

STATE = "envoy.filters.http.set_filter_state"


@cache
def as_requests() -> Any:
    """For requests on a port of unknown protocol: mesh TLS then announces HTTP, of whatever version. Everything else on
    such a port is a plain connection, which the cluster's own ALPN announces."""
    value = state_value_pb2.FilterStateValue(object_key="envoy.network.application_protocols")
    value.format_string.text_format_source.inline_string = "istio-http/1.1,istio"
    value.shared_with_upstream = state_value_pb2.FilterStateValue.ONCE
    return pb.any_of(state_pb2.Config(on_request_headers=[value]))


@cache
def _on() -> Any:
    found = rc.FilterConfig()
    found.config.SetInParent()
    return pb.any_of(found)


def count_messages(host: Any, protocol: str) -> None:
    """Count the messages of gRPC. ``host``: a virtual host; ``protocol``: of its port, whose requests are none of gRPC
    if it says HTTP/1."""
    if protocol != "http":
        host.typed_per_filter_config[GRPC_FILTER].CopyFrom(_on())


def announce(target: Any, sniffed: bool) -> None:
    """``target``: a route, or a backend of one; ``sniffed``: see ``Backend``."""
    if sniffed:
        target.typed_per_filter_config[STATE].CopyFrom(as_requests())


def retry_policy(r: api.HTTPRetry | None, hashed: bool) -> Any:
    """The retry policy; None if requests are not retried. ``hashed``: whether a consistent hash chooses the endpoint:
    then a repeated request goes there, too, unless the user wants another one, as in Istio."""
    if r is not None and not r.attempts:
        return None  # even if not given: 0 is their default
    out = rc.RetryPolicy(
        retry_on=DEFAULT_RETRY_ON, num_retries=pb.u32(DEFAULT_ATTEMPTS), host_selection_retry_max_attempts=5
    )
    elsewhere = r.retry_ignore_previous_hosts if r else None
    if elsewhere or (elsewhere is None and not hashed):
        out.retry_host_predicate.add(
            name="envoy.retry_host_predicates.previous_hosts",
            typed_config=pb.any_of(hosts_pb2.PreviousHostsPredicate()),
        )
    if r is not None and r.retry_remote_localities:
        # After two attempts, endpoints of another locality.
        config = priorities_pb2.PreviousPrioritiesConfig(update_frequency=2)
        out.retry_priority.name = "envoy.retry_priorities.previous_priorities"
        out.retry_priority.typed_config.CopyFrom(pb.any_of(config))
    if r is None:
        return out
    out.num_retries.value = r.attempts or 0
    if r.retry_on:
        words = [w.strip() for w in r.retry_on.split(",")]
        out.retriable_status_codes.extend(int(w) for w in words if digits(w))
        kept = [w for w in words if w and not digits(w)]
        out.retry_on = ",".join(kept + (["retriable-status-codes"] if out.retriable_status_codes else []))
    if r.per_try_timeout:
        out.per_try_timeout.CopyFrom(pb.duration(r.per_try_timeout.seconds))
    if r.backoff:
        out.retry_back_off.base_interval.CopyFrom(pb.duration(r.backoff.seconds))
    return out


def _mirrors(route: Route) -> list[Any]:
    out = []
    for m in route.mirrors:
        mirror = rc.RouteAction.RequestMirrorPolicy(cluster=m.backend.cluster)
        mirror.runtime_fraction.default_value.CopyFrom(pb.percent(m.share.value if m.share else 100))
        # as in Istio: servers get the original host (Envoy would add "-shadow"), and traces do not show copies
        mirror.disable_shadow_host_suffix_append = True
        mirror.trace_sampled.value = False
        out.append(mirror)
    return out


def set_timeout(action: Any, seconds: float) -> None:
    """0 means no timeout, as in Istio; Envoy's own default would be 15 s.

    ``max_grpc_timeout`` makes Envoy respect the deadline of a gRPC client (``grpc-timeout``), up to the route's
    timeout. Without a route timeout, the newer ``max_stream_duration`` does the same; where both are set, only the
    latter applies. Istio sets them in this way (``setTimeout`` in pilot/pkg/networking/core/route/route.go)."""
    action.timeout.CopyFrom(pb.duration(seconds))
    action.max_grpc_timeout.CopyFrom(pb.duration(seconds))
    if not seconds:
        unlimited = action.max_stream_duration
        unlimited.max_stream_duration.CopyFrom(pb.duration(0))
        unlimited.grpc_timeout_header_max.CopyFrom(pb.duration(0))


def route_action(route: Route, retries: api.HTTPRetry | None) -> Any:
    """The action for requests that are forwarded to existing backends. ``retries``: the mesh's."""
    settings = route.settings
    out = rc.RouteAction()
    set_timeout(out, settings.timeout.seconds if settings.timeout else 0)
    hashed = any(b.hashed for b in route.there)
    if policy := retry_policy(retries if settings.retries is None else settings.retries, hashed):
        out.retry_policy.CopyFrom(policy)
    if len(route.there) == 1:
        out.cluster = route.there[0].cluster
    else:
        for b in route.there:
            entry = out.weighted_clusters.clusters.add(name=b.cluster, weight=pb.u32(b.weight))
            header_operations(entry, b.headers)
            announce(entry, b.sniffed)
            sessions.tell(entry, route, b)
            if route.session is None:
                sessions.keep(entry, b.session)
    if settings.rewrite:
        _rewrite(out, settings.rewrite, route)
    out.request_mirror_policies.extend(_mirrors(route))
    return out


def _rewrite(out: Any, rewrite: api.HTTPRewrite, route: Route) -> None:
    m = route.match
    if rewrite.authority:
        out.host_rewrite_literal = rewrite.authority
    if rewrite.uri_regex_rewrite:
        out.regex_rewrite.pattern.regex = rewrite.uri_regex_rewrite.match
        out.regex_rewrite.substitution = rewrite.uri_regex_rewrite.rewrite
    elif rewrite.uri is not None:
        if m and m.uri and m.uri.regex is not None:
            out.regex_rewrite.pattern.CopyFrom(regex_pb2.RegexMatcher(regex=".*"))
            out.regex_rewrite.substitution = rewrite.uri
        else:
            _set_prefix(out, rewrite.uri, route.below)


def _set_prefix(out: Any, prefix: str, below: str) -> None:
    """In the place of the prefix that has matched. One that matches whole elements leaves the slash after it, so that
    without an element in its place only a regular expression can take it away."""
    if below and not prefix.rstrip("/"):
        out.regex_rewrite.pattern.regex = f"^{re.escape(below)}/*"
        out.regex_rewrite.substitution = "/"
    else:
        out.prefix_rewrite = prefix.rstrip("/") if below else prefix


_DEFAULT_PORTS = {"http": 80, "https": 443}


def redirect_action(r: api.HTTPRedirect, route: Route) -> Any:
    """A port that is the scheme's own is not written; FROM_PROTOCOL_DEFAULT is what Envoy does anyway."""
    codes = {
        301: "MOVED_PERMANENTLY",
        302: "FOUND",
        303: "SEE_OTHER",
        307: "TEMPORARY_REDIRECT",
        308: "PERMANENT_REDIRECT",
    }
    out = rc.RedirectAction(response_code=codes.get(r.redirect_code or 301, codes[301]))
    if r.uri is not None:
        out.path_redirect = r.uri
    elif r.prefix_rewrite is not None:
        _set_prefix(out, r.prefix_rewrite, route.below)
    if r.authority:
        out.host_redirect = r.authority
    if r.scheme:
        out.scheme_redirect = r.scheme
    wanted = r.port or (route.port if r.derive_port == "FROM_REQUEST_PORT" else 0)
    if wanted != _DEFAULT_PORTS.get(r.scheme or route.scheme):
        out.port_redirect = wanted
    return out


def direct_response(r: api.HTTPDirectResponse) -> Any:
    out = rc.DirectResponseAction(status=r.status)
    if r.body and r.body.string is not None:
        out.body.inline_string = r.body.string
    elif r.body and r.body.bytes is not None:
        import base64

        out.body.inline_bytes = base64.b64decode(r.body.bytes)
    return out


def header_operations(target: Any, headers: api.Headers | None) -> None:
    """Onto a route or a weighted cluster. The host is rewritten by a field of its own."""
    for prefix, found in (
        ("request", headers.request if headers else None),
        ("response", headers.response if headers else None),
    ):
        if found is None:
            continue
        into = getattr(target, f"{prefix}_headers_to_add")
        for values, action in ((found.set, "OVERWRITE_IF_EXISTS_OR_ADD"), (found.add, "APPEND_IF_EXISTS_OR_ADD")):
            for name, value in sorted(values.items()):
                if prefix == "request" and name.lower() in (":authority", "host"):
                    _set_host(target, value)
                    continue
                into.append(
                    base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=name, value=value), append_action=action)
                )
        getattr(target, f"{prefix}_headers_to_remove").extend(found.remove)


def _set_host(target: Any, value: str) -> None:
    """Only for requests that are forwarded. A route's rewrite precedes its headers, and these those of its only
    backend."""
    action = target if isinstance(target, rc.WeightedCluster.ClusterWeight) else target.route
    wanted = action is target or target.HasField("route")
    if wanted and not action.host_rewrite_literal:
        action.host_rewrite_literal = value


def filters(route: api.RouteSettings, target: Any) -> None:
    """Fault injection and CORS are filters' settings on the route."""
    if route.fault:
        fault = fault_pb2.HTTPFault()
        if (delay := route.fault.delay) and delay.fixed_delay:
            fault.delay.CopyFrom(
                common_fault_pb2.FaultDelay(
                    fixed_delay=pb.duration(delay.fixed_delay.seconds),
                    percentage=pb.percent(
                        delay.percentage.value if delay.percentage else 100 if delay.percent is None else delay.percent
                    ),
                )
            )
        if (abort := route.fault.abort) and (abort.http_status or abort.grpc_status):
            found = fault_pb2.FaultAbort(percentage=pb.percent(abort.percentage.value if abort.percentage else 100))
            if abort.grpc_status:
                found.grpc_status = api.GRPC_STATUS[abort.grpc_status]
            elif abort.http_status:
                found.http_status = abort.http_status
            fault.abort.CopyFrom(found)
        target.typed_per_filter_config["envoy.filters.http.fault"].CopyFrom(pb.any_of(fault))
    if cors := route.cors_policy:
        policy = cors_pb2.CorsPolicy(
            allow_origin_string_match=[
                string(m) for m in cors.allow_origins or [api.StringMatch(exact=a) for a in cors.allow_origin]
            ],
            allow_methods=",".join(cors.allow_methods),
            allow_headers=",".join(cors.allow_headers),
            expose_headers=",".join(cors.expose_headers),
        )
        if cors.max_age:
            policy.max_age = str(int(cors.max_age.seconds))
        if cors.allow_credentials is not None:
            policy.allow_credentials.value = cors.allow_credentials
        if cors.unmatched_preflights in ("FORWARD", "IGNORE"):
            policy.forward_not_matching_preflights.value = cors.unmatched_preflights == "FORWARD"
        policy.filter_enabled.default_value.CopyFrom(pb.percent(100))
        target.typed_per_filter_config["envoy.filters.http.cors"].CopyFrom(pb.any_of(policy))
