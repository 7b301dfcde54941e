"""Explanations of Envoy's response flags and response code details. Pure.

Sources: https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage (%RESPONSE_FLAGS%),
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/response_code_details, and the strings of
Envoy's filters (RBAC, JWT, external authorization, rate limits, faults).
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from lateen.dump import handshakes
from lateen.kit.jsons import Json
from lateen.wire.names import NO_HTTP

Who = Literal["client", "proxy", "server", "between"]
"""The side at fault: the caller, this proxy (its configuration), the called end, or the connection between the two."""


class Meaning(NamedTuple):
    who: Who
    says: str
    do: str = ""


FAILED = 500
"""From this status on, an answer of the application itself is explained, too."""
RULE = "look at the timeouts and retries of the VirtualService that routes it"
POOL = "look at trafficPolicy.connectionPool of the host's DestinationRule"

FLAGS: dict[str, Meaning] = {
    "UH": Meaning(
        "proxy",
        "the cluster has no healthy endpoint",
        "check that pods are ready, that the subset's labels match some, and outlier detection left some",
    ),
    "UF": Meaning(
        "between",
        "the connection to the endpoint failed",
        "check that the application listens on the Service's targetPort, and that both ends agree on mutual TLS",
    ),
    "UO": Meaning("proxy", "a circuit breaker rejected it: too many connections or requests at once", POOL),
    "NR": Meaning(
        "proxy",
        "no route matched the request (or no filter chain the connection)",
        "check the hosts of Gateway and VirtualService, their matches, and the Host header",
    ),
    "URX": Meaning("proxy", "the retries (or attempts to connect) were used up", RULE),
    "NC": Meaning(
        "proxy",
        "the route leads to a cluster that the proxy does not have",
        "check destination.host and subset: the host must exist, and a DestinationRule must define the subset",
    ),
    "DT": Meaning("proxy", "the connection or request lasted longer than its maximum duration", POOL),
    "DC": Meaning("client", "the caller closed its connection before the response was complete"),
    "DR": Meaning("client", "the caller reset its stream before the response was complete"),
    "LH": Meaning("proxy", "the local health check failed"),
    "UT": Meaning("proxy", "the response did not come within the timeout", RULE),
    "LR": Meaning("proxy", "this proxy reset the stream"),
    "UR": Meaning("server", "the called end reset the stream"),
    "UC": Meaning(
        "server",
        "the called end closed the connection before it had answered",
        "it may have restarted, or closes idle connections sooner than the proxy: set idleTimeout or retries",
    ),
    "DI": Meaning("proxy", "a delay was injected", "look at http[].fault.delay of the VirtualService"),
    "FI": Meaning("proxy", "an error was injected", "look at http[].fault.abort of the VirtualService"),
    "RL": Meaning("proxy", "a rate limit rejected it"),
    "UAEX": Meaning("proxy", "the external authorization service denied it"),
    "RLSE": Meaning("between", "the rate limit service does not answer"),
    "IH": Meaning("client", "an x-envoy-* header of the request has an invalid value"),
    "SI": Meaning("proxy", "nothing was sent on the stream for longer than its idle timeout"),
    "DPE": Meaning(
        "client",
        "the caller does not send valid HTTP",
        "check that the port's protocol is not TLS or TCP (name the Service's port tcp-… or https-…)",
    ),
    "UPE": Meaning(
        "server",
        "the server does not speak the HTTP version that the proxy expects",
        "check the port's protocol: http-… for HTTP/1.1, http2-… or grpc-… for HTTP/2, tcp-… for anything else",
    ),
    "UMSDR": Meaning("proxy", "the stream reached its maximum duration", RULE),
    "RFCF": Meaning("proxy", "the response came from the cache"),
    "NFCF": Meaning("proxy", "the configuration of a filter had not arrived in time", "see: lateen proxy-status"),
    "OM": Meaning("proxy", "the proxy's overload manager rejected it", "give the proxy more memory or more replicas"),
    "DF": Meaning("between", "the host's name could not be resolved", "check the ServiceEntry's host and the DNS"),
    "DO": Meaning("proxy", "it was dropped because the cluster is overloaded"),
    "UDO": Meaning("proxy", "all requests to the cluster are dropped (drop_overload is 100 %)"),
}

DETAILS: dict[str, Meaning] = {
    "via_upstream": Meaning("server", "the called application answered so itself"),
    "direct_response": Meaning("proxy", "a rule answered it: a redirect or a direct response"),
    "route_not_found": FLAGS["NR"],
    "route_configuration_not_found": Meaning("proxy", "it has no routes for this port", "see: lateen proxy-status"),
    "filter_chain_not_found": Meaning(
        "client",
        "nothing here takes such a connection",
        "with mutual TLS STRICT the caller needs a sidecar; at gateways check the ports, SNI hosts and TLS mode",
    ),
    "cluster_not_found": FLAGS["NC"],
    "no_healthy_upstream": FLAGS["UH"],
    "maintenance_mode": Meaning("proxy", "the cluster is in maintenance mode"),
    "drop_overload": FLAGS["DO"],
    "unconditional_drop_overload": FLAGS["UDO"],
    "internal_redirect": Meaning("proxy", "the proxy followed a redirect by itself"),
    "upstream_reset_before_response_started": Meaning("server", "the connection ended before there was a response"),
    "upstream_reset_after_response_started": Meaning("server", "the connection ended in the middle of the response"),
    "response_timeout": FLAGS["UT"],
    "upstream_response_timeout": FLAGS["UT"],
    "upstream_per_try_timeout": Meaning("proxy", "the last attempt did not answer within retries.perTryTimeout", RULE),
    "upstream_per_try_idle_timeout": Meaning("proxy", "the last attempt was silent for too long", RULE),
    "upstream_max_stream_duration_reached": FLAGS["UMSDR"],
    "max_duration_timeout": FLAGS["UMSDR"],
    "stream_idle_timeout": FLAGS["SI"],
    "duration_timeout": FLAGS["DT"],
    "request_overall_timeout": Meaning("client", "the caller did not send its whole request in time"),
    "request_header_timeout": Meaning("client", "the caller did not send its headers in time"),
    "downstream_header_timeout": Meaning("client", "the caller did not send its headers in time"),
    "downstream_remote_disconnect": FLAGS["DC"],
    "downstream_remote_reset": FLAGS["DR"],
    "downstream_local_disconnect": Meaning("proxy", "this proxy closed the caller's connection"),
    "overload": FLAGS["OM"],
    "low_version": Meaning(
        "client",
        "the caller speaks HTTP/1.0, which is not enabled",
        'set PILOT_HTTP10 of istiod, or ISTIO_META_HTTP10 of the proxy, to "1"',
    ),
    "missing_host_header": Meaning("client", "the request has no Host"),
    "missing_path_rejected": Meaning("client", "the request has no path"),
    "invalid_path": Meaning("client", "the request's path is invalid"),
    "absolute_path_rejected": Meaning("client", "the request has an absolute URL, which this route does not take"),
    "path_normalization_failed": Meaning("client", "the path cannot be normalized", "see pathNormalization"),
    "request_headers_failed_strict_check": FLAGS["IH"],
    "request_payload_too_large": Meaning("client", "the request's body is larger than a filter may buffer"),
    "response_payload_too_large": Meaning("server", "the response's body is larger than a filter may buffer"),
    "request_payload_exceeded_retry_buffer_limit": Meaning(
        "proxy", "the request's body is too large to be sent again, so it was not retried"
    ),
    "upgrade_failed": Meaning("client", "the request asks for a protocol that is not enabled here"),
    "websocket_handshake_unsuccessful": Meaning("server", "the called end did not agree to the WebSocket"),
    "early_connect_data": Meaning("client", "data of a CONNECT came before it was accepted"),
    "filter_removed_required_request_headers": Meaning("proxy", "a rule removes headers that requests must have"),
    "filter_removed_required_response_headers": Meaning("proxy", "a rule removes headers that responses must have"),
    "filter_added_invalid_request_data": Meaning("proxy", "a filter added a body where none may be"),
    "filter_added_invalid_response_data": Meaning("proxy", "a filter added a body where none may be"),
    "rejecting_because_detection_failed": Meaning("client", "the caller's address could not be found in its headers"),
    "admin_filter_response": Meaning("proxy", "Envoy's admin interface answered"),
    "rbac_access_denied": Meaning("proxy", "a policy does not allow it"),
    "jwt_authn_access_denied": Meaning(
        "client", "its token is missing or was rejected", "see the RequestAuthentication's issuer, audiences, keys"
    ),
    "missing_api_key": Meaning("client", "it has no API key"),
    "unknown_api_key": Meaning("client", "its API key is not known"),
    "oauth.missing_credentials": Meaning("client", "it is not logged in (OIDC)"),
    "ext_authz_denied": FLAGS["UAEX"],
    "ext_authz_error": Meaning("between", "the external authorization service does not answer"),
    "ext_authz_invalid": Meaning("between", "the external authorization service gave an invalid answer"),
    "fault_filter_abort": FLAGS["FI"],
    "local_rate_limited": Meaning("proxy", "a local rate limit rejected it"),
    "rate_limited_by_quota": Meaning("proxy", "the global rate limit rejected it"),
    "request_rate_limited": FLAGS["RL"],
    "rate_limiter_error": FLAGS["RLSE"],
    "csrf_origin_mismatch": Meaning("client", "its origin is not allowed (CSRF)"),
    "lua_response": Meaning("proxy", "a Lua filter answered it"),
    "dns_resolution_failure": FLAGS["DF"],
    "dns_cache_overflow": Meaning("proxy", "too many names are being resolved at once"),
    "dynamic_forward_proxy_pending_request_overflow": Meaning("proxy", "too many requests wait for DNS"),
    "grpc_json_transcode_failure": Meaning("client", "the JSON cannot be turned into the gRPC request"),
}
"""Response code details without their suffix in braces or brackets."""

RESETS: dict[str, Meaning] = {
    "connection_failure": Meaning("between", "it could not be connected to"),
    "local_connection_failure": Meaning("between", "this proxy gave up connecting"),
    "remote_connection_failure": Meaning("between", "it could not be connected to"),
    "connection_timeout": Meaning("between", "it did not accept the connection in time", POOL),
    "connection_termination": Meaning("server", "it closed the connection"),
    "remote_reset": Meaning("server", "it reset the stream"),
    "local_reset": Meaning("proxy", "this proxy reset the stream"),
    "remote_refused_stream_reset": Meaning("server", "it refused the stream"),
    "local_refused_stream_reset": Meaning("proxy", "this proxy refused the stream"),
    "overflow": FLAGS["UO"],
    "protocol_error": FLAGS["UPE"],
    "connect_error": Meaning("server", "it refused the CONNECT"),
    "overload_manager": FLAGS["OM"],
    "http1_remote_close": Meaning("server", "it closed the connection"),
}
"""Reasons inside ``upstream_reset_…{…}``."""

CODECS = {
    "http1": "the message is not valid HTTP/1.1",
    "http2": "the message is not valid HTTP/2",
    "http3": "the message is not valid HTTP/3",
}
TRANSPORT = (
    (
        re.compile(r"CERTIFICATE_VERIFY_FAILED|certificate verify failed", re.IGNORECASE),
        "the peer's certificate is not trusted, or not that of an identity that is expected here",
    ),
    (
        re.compile(r"WRONG_VERSION_NUMBER", re.IGNORECASE),
        "the peer does not speak TLS: its port takes plain text, or it has no proxy (tls.mode DISABLE for this host)",
    ),
    (
        re.compile(r"CERTIFICATE_REQUIRED|PEER_DID_NOT_RETURN_A_CERTIFICATE|BAD_CERTIFICATE", re.IGNORECASE),
        "the peer requires a client certificate: mutual TLS is STRICT there, and this end sends none",
    ),
    (re.compile(r"Connection_refused|connection refused", re.IGNORECASE), "nothing listens on that port"),
    (re.compile(r"connection_timeout|timed? ?out", re.IGNORECASE), "the address does not answer"),
)
LOGIN = re.compile(
    "oauth.missing_credentials|OAuth server returned|CSRF token|(Code or s|S)tate (query|url)|Failed to decrypt code"
    "|(Unauthorized|Failed to refresh the access token), and redirecting to OAuth".replace(" ", "[ _]")
)
"""The details of requests that Envoy's filter for logins (OIDC) refuses"""
_DENIED = re.compile(
    r"matched_policy\[(?:istio-ext-authz-(?:.*?-)?)?ns\[(?P<namespace>.*?)\]-policy\[(?P<name>.*?)\]"
    rf"-(?:rule\[(?P<rule>.*?)\](?:(?P<bytes>{NO_HTTP})|(?P<unasked>-deny))?|(?P<part>\w+)-broken)"
)
"""``unasked``: a CUSTOM policy whose provider cannot be asked; ``bytes``: about this connection; ``part``: the field of
a SecurityPolicy that cannot be in effect."""
_SPLIT = re.compile(r"[\[{(]")


def flag(name: str) -> Meaning:
    return FLAGS.get(name, Meaning("proxy", f"Envoy's flag {name}, which is not known here"))


def detail(text: str) -> Meaning | None:
    """The meaning of response code details; None if empty."""
    name = _SPLIT.split(text, maxsplit=1)[0].rstrip(":")
    if not name or name == "-":
        return None
    if name in DETAILS:
        return DETAILS[name]
    codec, dot, rest = name.partition(".")
    if dot and codec in CODECS:
        return Meaning("client", f"{CODECS[codec]} ({rest.replace('_', ' ').replace('.', ' ')})")
    if name.startswith("rbac_access_denied"):
        return DETAILS["rbac_access_denied"]
    if LOGIN.match(name):
        return Meaning("client", "it is not logged in and may not be sent to the provider, or its login failed (OIDC)")
    if name.endswith("_for_basic_auth"):
        return Meaning("client", f"its credentials are not valid ({name.replace('_', ' ')})")
    return Meaning("proxy", f"Envoy says: {name.replace('_', ' ')}")


def reset(text: str) -> Meaning | None:
    """The meaning of a reset reason such as in ``upstream_reset_before_response_started{connection_termination}``."""
    inside = text.partition("{")[2].rstrip("}")
    return RESETS.get(re.split(r"[|,]", inside, maxsplit=1)[0])


def denied_by(text: str) -> str:
    """``AuthorizationPolicy viewer.default, rule 0``; empty if no rule matched (nothing allowed it)."""
    found = _DENIED.search(text)
    if not found:
        return ""
    kind, _, name = found["name"].rpartition("/")
    policy = f"{kind or 'AuthorizationPolicy'} {name}.{found['namespace']}"
    if found["part"]:
        return f"{policy}, whose {found['part']} cannot be used (its status says why)"
    if found["rule"] == "default" and kind:
        return f"{policy}, by its defaultAction"
    why = "; its provider is not one of meshConfig.extensionProviders, or cannot be used" if found["unasked"] else ""
    if found["bytes"]:
        why = (
            "; its provider is asked over HTTP, and Envoy has recognized no HTTP: if that is so on this port, declare "
            "its protocol in the Service (appProtocol: tcp, or a name that begins with tcp-)"
        )
    return f"{policy}, rule {found['rule']}{why}"


def transport(text: str) -> str:
    """The meaning of a transport failure or a reset reason; empty if unknown."""
    return next((says for pattern, says in TRANSPORT if pattern.search(text)), "")


SIDES: dict[Who, str] = {
    "client": "the caller",
    "proxy": "this proxy",
    "server": "the called end",
    "between": "the connection to the called end",
}


def told(seen: Json) -> tuple[str, str, str]:
    """Flags, details and transport failure of a parsed line. Connections have no response, so their details are why
    they ended."""
    details, failure = str(seen.get("details") or seen.get("terminated") or ""), str(seen.get("failure") or "")
    if failure and not details and not seen.get("destination"):  # of TLS with the client: nobody else is there
        details, failure = handshakes.details(failure), ""
    return str(seen.get("flags") or ""), details, failure


def explain(
    flags: str,
    details: str,
    failure: str = "",
    objects: tuple[str, ...] = (),
    refusing: tuple[str, ...] = (),
    status: int = 0,
) -> list[str]:
    """Sentences about one request, the most specific first. ``flags``: separated by commas; ``objects``: the user's
    objects that routed it; ``refusing``: those of which one has refused it. Empty if there is nothing to explain."""
    out: list[str] = []
    names = [f for f in flags.split(",") if f and f != "-"]
    if details.startswith("rate_limited_by_quota"):  # Envoy sets the flag of caches, too
        names = [f for f in names if f != "RFCF"]
    refused = [f"refused by {'one of ' if len(refusing) > 1 else ''}{', '.join(refusing)}"] if refusing else []
    if details.startswith(handshakes.DETAILS):
        return [*refused, handshakes.meaning(details)]
    found = [(f, flag(f)) for f in names]
    said = detail(details)
    if said and (found or status >= FAILED or details.partition("{")[0] not in ("via_upstream", "")):
        found.append((details, said))
    cause = reset(details)
    if cause:
        found.insert(0, (details.partition("{")[2].rstrip("}"), cause))
    for name, meaning in found:
        line = f"{name}: {meaning.says} ({SIDES[meaning.who]})"
        if all(meaning.says not in other for other in out):
            out.append(line)
    if deeper := transport(failure) or transport(details.partition("{")[2]):
        out.insert(0, f"{failure if failure and transport(failure) else details}: {deeper}")
    if policy := denied_by(details):
        out.insert(0, f"denied by {policy}")
    elif details.startswith("rbac_access_denied") and "matched_policy[none]" in details:
        out.insert(0, "denied because no rule of an ALLOW policy for this workload matches it")
    if out:
        out = [*refused, *out]
    if out and objects:
        out.append(f"routed by {' and '.join(objects)}")
    remedies = dict.fromkeys(m.do for _, m in found if m.do)
    return [*out, *(f"hint: {do}" for do in remedies)]
