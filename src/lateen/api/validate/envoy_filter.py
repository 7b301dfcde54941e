"""The rules of EnvoyFilter and ProxyConfig between their fields. Whether a patch's value is a message of Envoy's is
asked by the webhook, which knows Envoy's messages.

Source: istio.io/istio ``pkg/config/validation/envoyfilter/envoyfilter.go``.
"""

from __future__ import annotations

from typing import Any

from lateen.api import networking as n
from lateen.api import proxy_ports
from lateen.api.validate.common import label_selector, selector, target_refs
from lateen.api.validate.findings import Findings, hint, no, warn
from lateen.kit.jsons import Json
from lateen.kit.regex import compiled

LISTENERS = {"LISTENER", "FILTER_CHAIN", "NETWORK_FILTER", "HTTP_FILTER", "LISTENER_FILTER"}
ROUTES = {"ROUTE_CONFIGURATION", "VIRTUAL_HOST", "HTTP_ROUTE"}
HCM = "envoy.filters.network.http_connection_manager"
HCM_NAMES = {HCM, "envoy.http_connection_manager"}
MAX_VERSION, MAX_VARIABLE = 1024, 2048
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
WAYPOINTLESS = ("LISTENER", "LISTENER_FILTER", "EXTENSION_CONFIG", "BOOTSTRAP")
NESTED = ("transportSocket", "clusterType", "upstreamConfig")
"""Fields of clusters and filter chains with an extension, which has a type of its own."""


def envoy_filter(ef: n.EnvoyFilter, _: Json) -> Findings:
    yield from label_selector(ef.workload_selector, "Envoy filter")
    yield from target_refs(None, ef.target_refs, ef.workload_selector is not None)
    for i, patch in enumerate(ef.config_patches):
        yield from _patch(patch, f"spec.configPatches[{i}]")


def _patch(p: n.EnvoyConfigObjectPatch, at: str) -> Findings:
    if p.match and p.match.context == "WAYPOINT":
        yield from _waypoint(p.apply_to, p.match.waypoint, at)
        return
    if p.apply_to == "INVALID":
        yield no(f"{at}.applyTo", "Envoy filter: missing applyTo")
    elif p.patch is None:
        yield no(f"{at}.patch", "Envoy filter: missing patch")
    elif p.patch.operation == "INVALID":
        yield no(f"{at}.patch.operation", "Envoy filter: missing patch operation")
    elif p.patch.operation != "REMOVE" and p.patch.value is None:
        says = f"missing patch value for non-remove operation {p.patch.operation}"
        yield no(f"{at}.patch.value", f"Envoy filter: {says}")
    else:
        yield from _match(p, at)
        yield from _value(p.patch.value, f"{at}.patch.value")
        yield from _untyped(p, f"{at}.patch.value")
        if p.apply_to == "EXTENSION_CONFIG" and p.patch.operation != "ADD":
            yield hint(
                f"{at}.patch.operation", "Envoy filter: EXTENSION_CONFIG knows only ADD; the patch has no effect"
            )


def _waypoint(apply_to: str, m: n.WaypointMatch | None, at: str) -> Findings:
    """Patches of proxies that Lateen does not have, by Istio's rules."""
    if m is None:
        yield no(f"{at}.match.waypoint", "Envoy filter: the context WAYPOINT needs a match for waypoint")
    if apply_to in WAYPOINTLESS:
        yield no(f"{at}.applyTo", f"Envoy filter: applyTo {apply_to} is not supported for waypoint")
    elif apply_to == "HTTP_FILTER":
        found = m.filter if m else None
        where = f"{at}.match.waypoint.filter"
        if found is None:
            yield no(where, f"Envoy filter: applyTo {apply_to} for waypoint must have filter match")
        elif found.name != HCM:
            yield no(where, f"Envoy filter: applyTo {apply_to} for waypoint requires name with {HCM}")
        elif found.sub_filter is None or not found.sub_filter.name:
            yield no(where, f"Envoy filter: applyTo {apply_to} for waypoint must have subFilter name to match on")
    elif m and m.filter and apply_to in (*ROUTES, "CLUSTER"):
        yield no(
            f"{at}.match.waypoint.filter", f"Envoy filter: applyTo {apply_to} for waypoint cannot have filter match"
        )
    elif m and m.route and apply_to not in ROUTES:
        yield no(f"{at}.match.waypoint.route", f"Envoy filter: applyTo {apply_to} for waypoint cannot have route match")


def _match(p: n.EnvoyConfigObjectPatch, at: str) -> Findings:
    m = p.match
    if m is None:
        return
    if m.waypoint:
        yield no(f"{at}.match.waypoint", "Envoy filter: only support waypointMatch when context is WAYPOINT")
    if m.proxy and m.proxy.proxy_version:
        yield from _version(m.proxy.proxy_version, f"{at}.match.proxy.proxyVersion")
    if p.apply_to in LISTENERS and (m.cluster or m.route_configuration):
        yield no(f"{at}.match", "Envoy filter: applyTo for listener class objects cannot have non listener match")
    elif p.apply_to in ROUTES and (m.cluster or m.listener):
        says = "applyTo for http route class objects cannot have non route configuration match"
        yield no(f"{at}.match", f"Envoy filter: {says}")
    elif p.apply_to == "CLUSTER" and (m.listener or m.route_configuration):
        yield no(f"{at}.match", "Envoy filter: applyTo for cluster class objects cannot have non cluster match")
    if m.listener:
        yield from _listener(p, m.listener, f"{at}.match.listener")


def _version(text: str, at: str) -> Findings:
    if len(text) > MAX_VERSION:
        yield warn(at, f"Envoy filter: proxyVersion match exceeds {MAX_VERSION} characters and will be ignored")
        return
    try:
        compiled(text)
    except ValueError as e:
        yield no(at, f"Envoy filter: invalid regex for proxy version, [{e}]")


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
        says = f"listenerFilter match has no effect when used with {p.apply_to}; it is for LISTENER_FILTER"
        yield warn(f"{at}.listenerFilter", f"Envoy filter: {says}")


def _name(name: str, at: str) -> Findings:
    if name in DEPRECATED_NAMES:
        yield warn(at, f'Envoy filter: using deprecated filter name "{name}"; use "{DEPRECATED_NAMES[name]}" instead')


def _untyped(p: n.EnvoyConfigObjectPatch, at: str) -> Findings:
    """Envoy looks extensions up by their types, no longer by their names."""
    value = p.patch.value if p.patch and p.patch.operation != "REMOVE" else None
    if not isinstance(value, dict):
        return
    given = [("", value)] if p.apply_to in FILTERS else []
    if p.apply_to in ("CLUSTER", "FILTER_CHAIN"):
        given += [(f".{k}", v) for k, v in value.items() if _camel(k) in NESTED and isinstance(v, dict)]
    for where, extension in given:
        if not {"typedConfig", "configDiscovery"} & {_camel(k) for k in extension}:
            says = f"using deprecated types by name without typed_config; {extension.get('name', '')}"
            yield warn(f"{at}{where}", f"Envoy filter: {says}")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(r.capitalize() for r in rest)


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
    for name, value in pc.environment_variables.items():
        if len(value) > MAX_VARIABLE:
            yield no(f"spec.environmentVariables[{name}]", f"may not be longer than {MAX_VARIABLE}")
    if says := proxy_ports.unfit_text(pc.environment_variables):
        yield no(f"spec.environmentVariables[{proxy_ports.VARIABLE}]", says)
