"""The rules of EnvoyFilter and ProxyConfig between their fields."""

from __future__ import annotations

from typing import Any

import re2

from lateen.api import networking as n
from lateen.api.validate.common import label_selector, selector, target_refs
from lateen.api.validate.findings import Findings, no, warn
from lateen.kit.jsons import Json

LISTENERS = {"LISTENER", "FILTER_CHAIN", "NETWORK_FILTER", "HTTP_FILTER", "LISTENER_FILTER"}
ROUTES = {"ROUTE_CONFIGURATION", "VIRTUAL_HOST", "HTTP_ROUTE"}
HCM = "envoy.filters.network.http_connection_manager"
HCM_NAMES = {HCM, "envoy.http_connection_manager"}
MAX_VERSION = 1024
_HTTP_NAMES = ("buffer", "cors", "csrf", "fault", "grpc_http1_bridge", "grpc_json_transcoder", "grpc_web", "gzip")
_MORE_HTTP_NAMES = ("health_check", "ip_tagging", "lua", "router", "squash", "ext_authz")
_NETWORK_NAMES = ("client_ssl_auth", "echo", "http_connection_manager", "mongo_proxy", "ratelimit", "redis_proxy")
_LISTENER_NAMES = ("http_inspector", "original_dst", "original_src", "proxy_protocol", "tls_inspector")
DEPRECATED_NAMES = {
    **{f"envoy.{name}": f"envoy.filters.http.{name}" for name in (*_HTTP_NAMES, *_MORE_HTTP_NAMES)},
    "envoy.rate_limit": "envoy.filters.http.ratelimit",
    **{f"envoy.{name}": f"envoy.filters.network.{name}" for name in (*_NETWORK_NAMES, "tcp_proxy")},
    **{f"envoy.listener.{name}": f"envoy.filters.listener.{name}" for name in _LISTENER_NAMES},
}
"""Names of filters before Envoy 1.14 -> their names since
(https://www.envoyproxy.io/docs/envoy/v1.14.0/intro/deprecated)."""
FILTERS = ("HTTP_FILTER", "NETWORK_FILTER", "LISTENER_FILTER")


def envoy_filter(ef: n.EnvoyFilter, _: Json) -> Findings:
    yield from label_selector(ef.workload_selector, "Envoy filter")
    yield from target_refs(None, ef.target_refs, ef.workload_selector is not None)
    for i, patch in enumerate(ef.config_patches):
        yield from _patch(patch, f"spec.configPatches[{i}]")


def _patch(p: n.EnvoyConfigObjectPatch, at: str) -> Findings:
    if p.apply_to == "INVALID":
        yield no(f"{at}.applyTo", "Envoy filter: missing applyTo")
        return
    if p.patch is None:
        yield no(f"{at}.patch", "Envoy filter: missing patch")
        return
    if p.patch.operation == "INVALID":
        yield no(f"{at}.patch.operation", "Envoy filter: missing patch operation")
        return
    if p.patch.operation != "REMOVE" and p.patch.value is None:
        yield no(f"{at}.patch.value", f"Envoy filter: missing patch value for non-remove operation {p.patch.operation}")
        return
    yield from _match(p, at)
    yield from _value(p.patch.value, f"{at}.patch.value")
    yield from _untyped(p, f"{at}.patch.value")


def _match(p: n.EnvoyConfigObjectPatch, at: str) -> Findings:
    m = p.match
    if m is None:
        if p.apply_to == "EXTENSION_CONFIG" and p.patch and p.patch.operation not in ("ADD", "INVALID"):
            yield no(f"{at}.patch.operation", "Envoy filter: ADD is the only supported operation for EXTENSION_CONFIG")
        return
    if m.proxy and m.proxy.proxy_version:
        yield from _version(m.proxy.proxy_version, f"{at}.match.proxy.proxyVersion")
    if p.apply_to in LISTENERS and (m.cluster or m.route_configuration):
        yield no(f"{at}.match", "Envoy filter: applyTo for listener class objects cannot have non listener match")
    elif p.apply_to in ROUTES and (m.cluster or m.listener):
        yield no(
            f"{at}.match",
            "Envoy filter: applyTo for http route class objects cannot have non route configuration match",
        )
    elif p.apply_to == "CLUSTER" and (m.listener or m.route_configuration):
        yield no(f"{at}.match", "Envoy filter: applyTo for cluster class objects cannot have non cluster match")
    if m.listener:
        yield from _listener(p, m.listener, f"{at}.match.listener")


def _version(text: str, at: str) -> Findings:
    if len(text) > MAX_VERSION:
        yield warn(at, f"Envoy filter: proxyVersion match exceeds {MAX_VERSION} characters and will be ignored")
        return
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(text, options)
    except re2.error as e:
        yield no(at, f"Envoy filter: invalid regex for proxy version, {e}")


def _listener(p: n.EnvoyConfigObjectPatch, m: n.ListenerMatch, at: str) -> Findings:
    if m.filter_chain and m.filter_chain.filter:
        f = m.filter_chain.filter
        if p.apply_to not in ("HTTP_FILTER", "NETWORK_FILTER"):
            says = f"Envoy filter: filter match has no effect when used with {p.apply_to}"
            yield warn(f"{at}.filterChain.filter", says)
        if not f.name:
            yield no(f"{at}.filterChain.filter.name", "Envoy filter: filter match has no name to match on")
        yield from _name(f.name, f"{at}.filterChain.filter.name")
        if f.sub_filter is not None:
            where = f"{at}.filterChain.filter.subFilter"
            if p.apply_to != "HTTP_FILTER":
                yield no(where, "Envoy filter: subfilter match can be used with applyTo HTTP_FILTER only")
            if f.name not in HCM_NAMES:
                yield no(where, f"Envoy filter: subfilter match requires filter match with {HCM}")
            yield from _name(f.sub_filter.name, f"{where}.name")
            if not f.sub_filter.name:
                yield no(where, "Envoy filter: subfilter match has no name to match on")
    if m.listener_filter and p.apply_to != "LISTENER_FILTER":
        yield no(
            f"{at}.listenerFilter", "Envoy filter: listenerFilter match can be used with applyTo LISTENER_FILTER only"
        )


def _name(name: str, at: str) -> Findings:
    if name in DEPRECATED_NAMES:
        yield warn(at, f'Envoy filter: using deprecated filter name "{name}"; use "{DEPRECATED_NAMES[name]}" instead')


def _untyped(p: n.EnvoyConfigObjectPatch, at: str) -> Findings:
    """Envoy looks extensions up by their types, no longer by their names."""
    value = p.patch.value if p.patch and p.patch.operation != "REMOVE" else None
    if p.apply_to in FILTERS and isinstance(value, dict):
        given = {k.replace("_", "").lower() for k in value}
        if not given & {"typedconfig", "configdiscovery"}:
            name = value.get("name", "")
            yield warn(at, f"Envoy filter: using deprecated types by name without typed_config; {name}")


def _value(value: Any, at: str) -> Findings:
    """Every @type must be one of Envoy's v3 API; the old names are the usual mistake."""
    if isinstance(value, dict):
        kind = value.get("@type")
        if isinstance(kind, str):
            message = kind.rpartition("/")[2]
            if message.startswith("envoy.config.filter.") or ".v2." in message or message.endswith(("v2", "v2alpha")):
                yield no(f"{at}.@type", f"{message}: referenced type unknown (hint: try using the v3 XDS API)")
        name = value.get("name")
        if isinstance(name, str):
            yield from _name(name, f"{at}.name")
        for key, child in value.items():
            yield from _value(child, f"{at}.{key}")
    elif isinstance(value, list):
        for i, child in enumerate(value):
            yield from _value(child, f"{at}[{i}]")


def proxy_config(pc: n.ProxyConfig, _: Json) -> Findings:
    yield from selector(pc.selector)
    if (pc.concurrency or 0) < 0:
        yield no("spec.concurrency", "concurrency must be greater than or equal to 0")
