"""Help for fields in the editor: types and choices from the schemas, and a sentence for commonly used fields. Pure."""

from __future__ import annotations

from functools import lru_cache

from lateen.api import effective, kinds
from lateen.api.crds import crd
from lateen.console import shapes
from lateen.kit.jsons import Json

MOST_DEPTH = 12
ISTIO = "https://istio.io/latest/docs/reference/config/"
GATEWAY_API = "https://gateway-api.sigs.k8s.io/reference/spec/"
TYPES = {"string": "text", "integer": "number", "boolean": "true or false"}

SAYS: dict[str, dict[str, str]] = {
    "VirtualService": {
        "hosts": "The host names that clients use; requests to them follow these rules.",
        "gateways": "Where the rules apply: names of Gateways, and mesh for sidecars. Only the mesh if left out.",
        "exportTo": "The namespaces whose clients see the rules: . for this one, * for all, or names.",
        "http": "Rules for HTTP requests. The first one that matches decides.",
        "http[].name": "A name for the rule, shown in logs and metrics.",
        "http[].match": "Requests that the rule applies to; one of the items must match. All requests if left out.",
        "http[].match[].uri": "The path: exact, prefix or regex.",
        "http[].match[].headers": "Request headers by name, each exact, prefix or regex.",
        "http[].match[].queryParams": "Query parameters by name, each exact, prefix or regex.",
        "http[].match[].method": "The request's method: exact, prefix or regex.",
        "http[].match[].sourceLabels": "Only requests of workloads with these labels.",
        "http[].match[].sourceNamespace": "Only requests of workloads in this namespace.",
        "http[].match[].gateways": "Narrows the rule's gateways for this match.",
        "http[].route": "Where requests go; several destinations share them by weight.",
        "http[].route[].destination.host": "A service's name; a short name means a service of this namespace.",
        "http[].route[].destination.subset": "A subset that a DestinationRule of the host defines.",
        "http[].route[].destination.port": "The port of the service; required if it has several.",
        "http[].route[].weight": "This destination's share of the requests, relative to the other weights.",
        "http[].redirect": "Answers with a redirect instead of a route.",
        "http[].directResponse": "Answers with a fixed status and body, without any destination.",
        "http[].delegate": "Another VirtualService that has the routes.",
        "http[].rewrite": "Changes path or host before the request is forwarded.",
        "http[].timeout": "The timeout of the whole request including retries, such as 3s. None if left out.",
        "http[].retries": "How often a failed request is retried, and after which failures.",
        "http[].retries.attempts": "The number of retries; 0 disables them.",
        "http[].retries.perTryTimeout": "The timeout of each attempt.",
        "http[].retries.retryOn": "Failures to retry, separated by commas: 5xx, connect-failure, reset, 503 …",
        "http[].fault": "Injected failures, to test how callers cope.",
        "http[].fault.delay": "Delays requests: fixedDelay, and a percentage of all.",
        "http[].fault.abort": "Aborts requests: httpStatus or grpcStatus, and a percentage of all.",
        "http[].mirror": "A second destination that gets a copy; its responses are ignored.",
        "http[].mirrorPercentage": "The share of requests that is copied.",
        "http[].corsPolicy": "Cross-origin requests: which other sites' pages may call.",
        "http[].headers": "Headers to set, add or remove, of requests and responses.",
        "tls": "Rules for TLS connections that are passed through, by server name.",
        "tcp": "Rules for TCP connections.",
    },
    "DestinationRule": {
        "host": "The service that this applies to; a short name means a service of this namespace.",
        "trafficPolicy": "How clients connect to the host: balancing, limits, ejection, TLS.",
        "trafficPolicy.loadBalancer": "How an endpoint is chosen for a request.",
        "trafficPolicy.loadBalancer.simple": "LEAST_REQUEST if left out.",
        "trafficPolicy.loadBalancer.consistentHash": "Requests with the same header or cookie go to one pod.",
        "trafficPolicy.loadBalancer.localityLbSetting": "Prefers endpoints nearby, and sets where to fail over.",
        "trafficPolicy.connectionPool": "A circuit breaker: limits per client proxy; requests beyond get 503.",
        "trafficPolicy.connectionPool.tcp.maxConnections": "Open connections to the host.",
        "trafficPolicy.connectionPool.tcp.connectTimeout": "The timeout for opening a connection.",
        "trafficPolicy.connectionPool.http.http1MaxPendingRequests": "The most requests that wait for a connection.",
        "trafficPolicy.connectionPool.http.http2MaxRequests": "The most concurrent requests.",
        "trafficPolicy.connectionPool.http.maxRetries": "The most concurrent retries.",
        "trafficPolicy.outlierDetection": "Ejects failing endpoints for a while.",
        "trafficPolicy.outlierDetection.consecutive5xxErrors": "Consecutive failures that eject an endpoint.",
        "trafficPolicy.outlierDetection.interval": "How often endpoints are checked.",
        "trafficPolicy.outlierDetection.baseEjectionTime": "How long an endpoint stays ejected; longer each time.",
        "trafficPolicy.outlierDetection.maxEjectionPercent": "The largest share of endpoints that may be ejected.",
        "trafficPolicy.tls": "TLS towards the host. Leave it out within the mesh (automatic).",
        "trafficPolicy.tls.mode": "ISTIO_MUTUAL: the mesh's certificates. SIMPLE, MUTUAL: yours. DISABLE: plain.",
        "trafficPolicy.portLevelSettings": "Settings for single ports, which replace those for all.",
        "subsets": "Groups of the host's pods, for routes to name.",
        "subsets[].name": "The name that routes use.",
        "subsets[].labels": "The labels of its pods, such as version: v2.",
        "subsets[].trafficPolicy": "The subset's own policy, which overrides the host's.",
        "exportTo": "The namespaces whose clients this applies to: . for this one, * for all, or names.",
    },
    "Gateway": {
        "selector": "The labels of the gateway's pods, such as istio: ingressgateway.",
        "servers": "The ports that are opened, each with the hosts it serves.",
        "servers[].port": "Number, name and protocol: HTTP, HTTPS, GRPC, TCP, TLS.",
        "servers[].hosts": "The hosts that are served; * is all of them.",
        "servers[].tls": "The certificate, and whether clients need one.",
        "servers[].tls.mode": "SIMPLE: server certificate. MUTUAL: also of clients. PASSTHROUGH: not terminated.",
        "servers[].tls.credentialName": "The Secret with the certificate, in the namespace of the gateway's pods.",
        "servers[].tls.httpsRedirect": "Answers plain HTTP with a redirect to HTTPS.",
    },
    "ServiceEntry": {
        "hosts": "External host names that workloads may call.",
        "ports": "The ports of the hosts, with their protocols.",
        "location": "MESH_EXTERNAL: outside, without mutual TLS. MESH_INTERNAL: part of the mesh.",
        "resolution": "How addresses are found: DNS, STATIC (endpoints), NONE (where the client connects to).",
        "endpoints": "Addresses that serve the hosts.",
        "workloadSelector": "Pods and WorkloadEntries that serve the hosts, by label.",
    },
    "Sidecar": {
        "workloadSelector": "The workloads it applies to; all of the namespace if left out.",
        "egress": "What the workloads see: fewer services make proxies smaller and faster.",
        "egress[].hosts": "namespace/host: ./* is all of this namespace, */* is everything.",
        "outboundTrafficPolicy.mode": "ALLOW_ANY or REGISTRY_ONLY: whether unknown hosts may be called.",
    },
    "PeerAuthentication": {
        "selector": "The workloads it applies to; all of the namespace, or of the mesh, if left out.",
        "mtls.mode": "STRICT rejects callers without a certificate of the mesh; PERMISSIVE accepts both.",
        "portLevelMtls": "Modes of single ports of the workload.",
    },
    "AuthorizationPolicy": {
        "selector": "The workloads it applies to; all of the namespace if left out.",
        "action": "ALLOW, DENY, AUDIT, or CUSTOM (an external service decides). ALLOW if left out.",
        "rules": "One matching rule is enough. An ALLOW policy without rules denies everybody.",
        "rules[].from": "Who calls.",
        "rules[].from[].source.principals": "Service accounts: TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT.",
        "rules[].from[].source.namespaces": "The callers' namespaces.",
        "rules[].from[].source.requestPrincipals": "Users by their token: ISSUER/SUBJECT; * is any valid token.",
        "rules[].from[].source.ipBlocks": "Addresses of the peers that connect.",
        "rules[].to": "The requested operation.",
        "rules[].to[].operation.methods": "HTTP methods.",
        "rules[].to[].operation.paths": "Paths; * at the beginning or end stands for anything.",
        "rules[].to[].operation.ports": "Ports of the workload.",
        "rules[].to[].operation.hosts": "The requested host.",
        "rules[].when": "Further conditions: request.headers[…], request.auth.claims[…], source.ip …",
        "provider.name": "For CUSTOM: the extension provider that decides.",
    },
    "RequestAuthentication": {
        "selector": "The workloads it applies to; all of the namespace if left out.",
        "jwtRules": "The issuers whose tokens are verified. Requests without one pass, unless a policy asks for it.",
        "jwtRules[].issuer": "The token's iss claim.",
        "jwtRules[].jwksUri": "The URL of the issuer's keys.",
        "jwtRules[].jwks": "The keys themselves.",
        "jwtRules[].fromHeaders": "Headers that carry the token; Authorization if left out.",
        "jwtRules[].forwardOriginalToken": "Whether the application gets the token, too.",
    },
    "Telemetry": {
        "tracing": "Which requests are traced, where to, and with which tags.",
        "tracing[].randomSamplingPercentage": "The share of requests that are traced.",
        "metrics": "Changes of the standard metrics: labels that are dropped or added, metrics turned off.",
        "accessLogging": "Whether requests are logged, where to, and which (filter).",
        "accessLogging[].filter.expression": "CEL; requests for which it holds are logged: response.code >= 500.",
    },
    "EnvoyFilter": {
        "configPatches": "Changes Envoy's own configuration; a last resort.",
        "configPatches[].applyTo": "The kind of resource to change.",
        "configPatches[].match": "The resources to change.",
        "configPatches[].patch": "The operation and its value.",
    },
}


def fields(spelled: str) -> shapes.Schema | None:
    """The fields of ``spec`` of a kind of the mesh; None where there is no such kind."""
    kind = kinds.named(spelled)
    return _fields(kind) if kind is not None and kind.owned else None


@lru_cache(maxsize=32)
def _fields(kind: kinds.Kind) -> shapes.Schema:
    out: dict[str, shapes.Field] = {}
    schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    _walk(kind, schema["properties"]["spec"], "", out)
    page = GATEWAY_API if kind.group in kinds.GATEWAY_APIS else ISTIO
    return {"kind": str(kind.id), "documentation": page, "fields": out}


def _walk(kind: kinds.Kind, schema: Json, at: str, out: dict[str, shapes.Field]) -> None:
    required = set(schema.get("required") or [])
    for name, inner in (schema.get("properties") or {}).items():
        path = f"{at}.{name}" if at else name
        spelled, below, suffix = _type(inner)
        out[path] = {
            "type": spelled,
            "values": [str(v) for v in below.get("enum") or inner.get("enum") or []],
            "required": name in required,
            "says": SAYS.get(kind.kind, {}).get(path, "") if kind.group not in kinds.GATEWAY_APIS else "",
            "idle": effective.reason(kind, path + suffix) or effective.reason(kind, path) or "",
        }
        if path.count(".") < MOST_DEPTH:
            _walk(kind, below, path + suffix, out)


def _type(schema: Json) -> tuple[str, Json, str]:
    """The description of a type, the schema of its contents, and the notation of their path."""
    if schema.get("type") == "array":
        inner, below, suffix = _type(schema.get("items") or {})
        return f"list of {inner}", below, f"[]{suffix}"
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        inner, below, suffix = _type(more)
        return f"map of {inner}", below, "{}" + suffix
    if schema.get("enum"):
        return "choice", schema, ""
    plain = str(schema.get("type", "any"))
    return TYPES.get(plain, plain), schema, ""
