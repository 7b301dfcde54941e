"""Which fields of the mesh's kinds have an effect in this version. All others are accepted and warned about.

A path is written with ``[]`` for list items and ``{}`` for map values; a path ending in ``.**`` covers everything
below. What is not listed here is never silently ignored: the admission webhook answers with a warning by name.
"""

from __future__ import annotations

import typing
from typing import Any

from lateen.api.config import Config, fields, unwrap

_MATCH = (
    "uri.**",
    "scheme.**",
    "method.**",
    "authority.**",
    "headers.**",
    "withoutHeaders.**",
    "queryParams.**",
    "ignoreUriCase",
    "port",
    "gateways",
    "name",
    "sourceLabels.**",
    "sourceNamespace",
)
_POLICY = (
    "loadBalancer.simple",
    "loadBalancer.consistentHash.**",
    "loadBalancer.warmup.**",
    "loadBalancer.warmupDurationSecs",
    "connectionPool.tcp.maxConnections",
    "connectionPool.tcp.connectTimeout",
    "connectionPool.tcp.tcpKeepalive.**",
    "connectionPool.http.http1MaxPendingRequests",
    "connectionPool.http.http2MaxRequests",
    "connectionPool.http.maxRequestsPerConnection",
    "connectionPool.http.maxRetries",
    "connectionPool.http.idleTimeout",
    "connectionPool.http.h2UpgradePolicy",
    "connectionPool.http.useClientProtocol",
    "connectionPool.http.maxConcurrentStreams",
    "connectionPool.http.http2KeepAlive.**",
    "outlierDetection.consecutiveGatewayErrors",
    "outlierDetection.consecutive5xxErrors",
    "outlierDetection.splitExternalLocalOriginErrors",
    "outlierDetection.consecutiveLocalOriginFailures",
    "outlierDetection.interval",
    "outlierDetection.baseEjectionTime",
    "outlierDetection.maxEjectionPercent",
    "outlierDetection.minHealthPercent",
)
_AT = ("trafficPolicy.", "subsets[].trafficPolicy.")

EFFECTIVE: dict[str, frozenset[str]] = {
    "VirtualService": frozenset(
        {
            "hosts",
            "gateways",
            "exportTo",
            *(f"http[].match[].{m}" for m in _MATCH),
            "http[].name",
            "http[].route[].**",
            "http[].delegate.**",
            "http[].redirect.**",
            "http[].directResponse.**",
            "http[].rewrite.**",
            "http[].timeout",
            "http[].retries.attempts",
            "http[].retries.perTryTimeout",
            "http[].retries.retryOn",
            "http[].retries.backoff",
            "http[].headers.**",
            "http[].mirror.**",
            "http[].mirrorPercentage.**",
            "http[].mirrors[].**",
            "http[].fault.delay.fixedDelay",
            "http[].fault.delay.percentage.**",
            "http[].fault.abort.httpStatus",
            "http[].fault.abort.grpcStatus",
            "http[].fault.abort.percentage.**",
            "http[].corsPolicy.allowOrigins[].**",
            "http[].corsPolicy.unmatchedPreflights",
            "http[].corsPolicy.allowMethods",
            "http[].corsPolicy.allowHeaders",
            "http[].corsPolicy.exposeHeaders",
            "http[].corsPolicy.maxAge",
            "http[].corsPolicy.allowCredentials",
            "tls[].match[].sniHosts",
            "tls[].match[].port",
            "tls[].match[].gateways",
            "tls[].match[].sourceLabels.**",
            "tls[].match[].sourceNamespace",
            "tls[].route[].**",
            "tcp[].match[].port",
            "tcp[].match[].gateways",
            "tcp[].match[].sourceLabels.**",
            "tcp[].match[].sourceNamespace",
            "tcp[].route[].**",
        }
    ),
    "DestinationRule": frozenset(
        {
            "host",
            "exportTo",
            "subsets[].name",
            "subsets[].labels.**",
            *(f"trafficPolicy.{p}" for p in _POLICY),
            "trafficPolicy.tls.mode",
            *(f"subsets[].trafficPolicy.{p}" for p in _POLICY),
            *(f"{at}portLevelSettings[].{p}" for at in _AT for p in (*_POLICY, "port.number", "tls.mode")),
            *(f"{at}retryBudget.{p}" for at in _AT for p in ("percent", "minRetryConcurrency")),
            "subsets[].trafficPolicy.tls.mode",
        }
    ),
    "Gateway": frozenset(
        {
            "selector.**",
            "servers[].port.number",
            "servers[].port.protocol",
            "servers[].port.name",
            "servers[].hosts",
            "servers[].name",
            "servers[].tls.httpsRedirect",
            "servers[].tls.mode",
            "servers[].tls.credentialName",
            "servers[].tls.caCertCredentialName",
            "servers[].tls.serverCertificate",
            "servers[].tls.privateKey",
            "servers[].tls.caCertificates",
            "servers[].tls.subjectAltNames",
            "servers[].tls.minProtocolVersion",
            "servers[].tls.maxProtocolVersion",
            "servers[].tls.cipherSuites",
            "servers[].tls.ecdhCurves",
        }
    ),
    "PeerAuthentication": frozenset({"selector.**", "mtls.mode", "portLevelMtls{}.mode"}),
    "AuthorizationPolicy": frozenset(
        {"selector.**", "action", "provider.name", "rules[].from[].**", "rules[].to[].**", "rules[].when[].**"}
    ),
}

_VALUES = {
    **{
        ("DestinationRule", f"{at}{port}tls.mode"): ("DISABLE", "ISTIO_MUTUAL")
        for at in _AT
        for port in ("", "portLevelSettings[].")
    },
    ("Gateway", "servers[].port.protocol"): ("HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTPS", "TLS", "TCP"),
    ("Gateway", "servers[].tls.mode"): ("PASSTHROUGH", "SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL"),
    ("AuthorizationPolicy", "action"): ("ALLOW", "DENY", "CUSTOM"),
}
"""Fields of which only these values have an effect."""


def _covered(kind: str, path: str) -> bool:
    known = EFFECTIVE.get(kind, frozenset())
    if path in known:
        return True
    parts = path.split(".")
    return any(".".join(parts[:i]) + ".**" in known for i in range(1, len(parts)))


def _abstract(path: str) -> str:
    out, at = "", 0
    while at < len(path):
        if path[at] == "[":
            end = path.index("]", at)
            out += "[]" if path[at + 1 : end].isdigit() else "{}"
            at = end + 1
        else:
            out += path[at]
            at += 1
    return out


def leaves(kind: Any, value: Any, path: str = "") -> list[tuple[str, Any]]:
    """(path, value) of every leaf that is set."""
    kind = unwrap(kind)
    if isinstance(value, list) and typing.get_origin(kind) is tuple:
        item = unwrap(typing.get_args(kind)[0])
        if isinstance(item, type) and issubclass(item, Config):
            return [leaf for i, v in enumerate(value) for leaf in leaves(item, v, f"{path}[{i}]")]
        return [(path, value)]
    if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, Config):
        known = fields(kind)
        return [
            leaf for k, v in value.items() if k in known for leaf in leaves(known[k], v, f"{path}.{k}" if path else k)
        ]
    if isinstance(value, dict) and typing.get_origin(kind) is dict:
        return [leaf for k, v in value.items() for leaf in leaves(typing.get_args(kind)[1], v, f"{path}[{k}]")]
    return [(path, value)]


def ineffective(kind: str, spec_type: type[Config], spec: Any) -> list[str]:
    """One warning for each field that is set and has no effect yet; for a kind without any effect, one in all."""
    if kind not in EFFECTIVE:
        return [f"{kind} has no effect yet in this version of Lateen; it is checked, stored and ignored"]
    out = []
    for path, value in leaves(spec_type, spec):
        general = _abstract(path)
        dotted = general.replace("{}", ".{}")
        if not _covered(kind, dotted) and not _covered(kind, general):
            out.append(
                f"{kind} field spec.{path} has no effect yet in this version of Lateen; it is stored and ignored"
            )
        elif (allowed := _VALUES.get((kind, general))) and value not in allowed:
            out.append(
                f'{kind} field spec.{path}: the value "{value}" has no effect yet in this version of Lateen; '
                f"effective are: {', '.join(allowed)}"
            )
    return out
