"""What the fields of the mesh's kinds are for, beside the editor: types and choices from the schemas, a sentence for
those that most people write. Pure."""

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
        "hosts": "The names that clients call; requests to them follow these rules.",
        "gateways": "Where the rules hold: names of Gateways, and mesh for the sidecars. Only the mesh if left out.",
        "exportTo": "The namespaces whose clients see the rules: . for this one, * for all, or names.",
        "http": "Rules for HTTP requests. The first one that matches decides.",
        "http[].name": "A name for the rule, shown in logs and metrics.",
        "http[].match": "Requests that the rule is for; one of the items has to hold. All requests if left out.",
        "http[].match[].uri": "The path: exact, prefix or regex.",
        "http[].match[].headers": "Request headers by name, each exact, prefix or regex.",
        "http[].match[].queryParams": "Query parameters by name, each exact, prefix or regex.",
        "http[].match[].method": "The request's method: exact, prefix or regex.",
        "http[].match[].sourceLabels": "Only requests of workloads with these labels.",
        "http[].match[].sourceNamespace": "Only requests of workloads in this namespace.",
        "http[].match[].gateways": "Narrows the rule's gateways for this match.",
        "http[].route": "Where requests go; several destinations share them by weight.",
        "http[].route[].destination.host": "A service's name, short names being those of this namespace.",
        "http[].route[].destination.subset": "A subset that a DestinationRule of the host defines.",
        "http[].route[].destination.port": "The port of the service; needed where it has several.",
        "http[].route[].weight": "This destination's share of the requests. All weights count together.",
        "http[].redirect": "Answers with a redirect instead of a route.",
        "http[].directResponse": "Answers with a fixed status and body, without any destination.",
        "http[].delegate": "Another VirtualService that goes on from here.",
        "http[].rewrite": "Changes path or host before the request goes on.",
        "http[].timeout": "The longest time for the whole request with its retries, as 3s. None if left out.",
        "http[].retries": "How often a failed request is tried again, and for which failures.",
        "http[].retries.attempts": "How many times a request is tried again; 0 turns retries off.",
        "http[].retries.perTryTimeout": "The longest time for each try.",
        "http[].retries.retryOn": "Failures that are tried again, by commas: 5xx, connect-failure, reset, 503 …",
        "http[].fault": "Failures on purpose, to see how callers cope.",
        "http[].fault.delay": "Requests that wait: fixedDelay, and a percentage of all.",
        "http[].fault.abort": "Requests that fail at once: httpStatus or grpcStatus, and a percentage of all.",
        "http[].mirror": "A second destination that gets a copy; its answers are ignored.",
        "http[].mirrorPercentage": "The share of requests that is copied.",
        "http[].corsPolicy": "Which other sites' pages may call, as browsers ask for it.",
        "http[].headers": "Headers to set, add or remove, of requests and responses.",
        "tls": "Rules for TLS connections that are passed on unopened, by their server name.",
        "tcp": "Rules for TCP connections.",
    },
    "DestinationRule": {
        "host": "The service that this is about, short names being those of this namespace.",
        "trafficPolicy": "How clients connect to the host: balancing, limits, ejection, TLS.",
        "trafficPolicy.loadBalancer": "How an endpoint is chosen for a request.",
        "trafficPolicy.loadBalancer.simple": "LEAST_REQUEST if left out.",
        "trafficPolicy.loadBalancer.consistentHash": "Requests with the same header or cookie go to one pod.",
        "trafficPolicy.loadBalancer.localityLbSetting": "Prefers near endpoints; where to go if they fail.",
        "trafficPolicy.connectionPool": "A circuit breaker: limits of each client's proxy, with 503 beyond.",
        "trafficPolicy.connectionPool.tcp.maxConnections": "Open connections to the host.",
        "trafficPolicy.connectionPool.tcp.connectTimeout": "How long a connection may take to be made.",
        "trafficPolicy.connectionPool.http.http1MaxPendingRequests": "Requests that may wait for a connection.",
        "trafficPolicy.connectionPool.http.http2MaxRequests": "Requests that may be under way at once.",
        "trafficPolicy.connectionPool.http.maxRetries": "Retries that may be under way at once.",
        "trafficPolicy.outlierDetection": "Leaves out endpoints that fail, for a while.",
        "trafficPolicy.outlierDetection.consecutive5xxErrors": "So many failures in a row leave an endpoint out.",
        "trafficPolicy.outlierDetection.interval": "How often endpoints are judged.",
        "trafficPolicy.outlierDetection.baseEjectionTime": "How long an endpoint stays out; longer each time.",
        "trafficPolicy.outlierDetection.maxEjectionPercent": "The largest share of endpoints that may be left out.",
        "trafficPolicy.tls": "TLS towards the host. In the mesh mutual TLS is automatic: leave it out.",
        "trafficPolicy.tls.mode": "ISTIO_MUTUAL: the mesh's certificates. SIMPLE, MUTUAL: yours. DISABLE: plain.",
        "trafficPolicy.portLevelSettings": "The same for single ports, instead of what holds for all.",
        "subsets": "Groups of the host's pods, for routes to name.",
        "subsets[].name": "The name that routes use.",
        "subsets[].labels": "The labels of its pods, such as version: v2.",
        "subsets[].trafficPolicy": "A policy of its own, which overrides the host's.",
        "exportTo": "The namespaces whose clients follow this: . for this one, * for all, or names.",
    },
    "Gateway": {
        "selector": "The labels of the gateway's pods, such as istio: ingressgateway.",
        "servers": "The ports that are opened, each with the hosts it serves.",
        "servers[].port": "Number, name and protocol: HTTP, HTTPS, GRPC, TCP, TLS.",
        "servers[].hosts": "The hosts that are served; * is all of them.",
        "servers[].tls": "The certificate, and whether clients need one.",
        "servers[].tls.mode": "SIMPLE: a certificate. MUTUAL: clients' too. PASSTHROUGH: not opened here.",
        "servers[].tls.credentialName": "The Secret with the certificate, in the namespace of the gateway's pods.",
        "servers[].tls.httpsRedirect": "Answers plain HTTP with a redirect to HTTPS.",
    },
    "ServiceEntry": {
        "hosts": "The names outside the mesh that workloads may call.",
        "ports": "The ports of the hosts, with their protocols.",
        "location": "MESH_EXTERNAL: outside, without mutual TLS. MESH_INTERNAL: part of the mesh.",
        "resolution": "How addresses are found: DNS, STATIC (endpoints), NONE (where the client connects to).",
        "endpoints": "Addresses that serve the hosts.",
        "workloadSelector": "Pods and WorkloadEntries that serve the hosts, by label.",
    },
    "Sidecar": {
        "workloadSelector": "The workloads it is for; all of the namespace if left out.",
        "egress": "What the workloads may see: fewer services make smaller and faster proxies.",
        "egress[].hosts": "namespace/host: ./* is all of this namespace, */* is everything.",
        "outboundTrafficPolicy.mode": "ALLOW_ANY or REGISTRY_ONLY: whether unknown hosts may be called.",
    },
    "PeerAuthentication": {
        "selector": "The workloads it is for; all of the namespace, or of the mesh, if left out.",
        "mtls.mode": "STRICT refuses callers without a certificate of the mesh; PERMISSIVE lets both in.",
        "portLevelMtls": "Modes of single ports of the workload.",
    },
    "AuthorizationPolicy": {
        "selector": "The workloads it is for; all of the namespace if left out.",
        "action": "ALLOW, DENY, AUDIT, or CUSTOM (an external service decides). ALLOW if left out.",
        "rules": "One rule that matches is enough. An ALLOW policy without rules lets nobody in.",
        "rules[].from": "Who calls.",
        "rules[].from[].source.principals": "Service accounts: TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT.",
        "rules[].from[].source.namespaces": "The callers' namespaces.",
        "rules[].from[].source.requestPrincipals": "Users by their token: ISSUER/SUBJECT; * is any valid token.",
        "rules[].from[].source.ipBlocks": "Addresses of the peers that connect.",
        "rules[].to": "What is asked for.",
        "rules[].to[].operation.methods": "HTTP methods.",
        "rules[].to[].operation.paths": "Paths; * at the beginning or end stands for anything.",
        "rules[].to[].operation.ports": "Ports of the workload.",
        "rules[].to[].operation.hosts": "The Host that is asked for.",
        "rules[].when": "Further conditions: request.headers[…], request.auth.claims[…], source.ip …",
        "provider.name": "Of CUSTOM: the extension provider that decides.",
    },
    "RequestAuthentication": {
        "selector": "The workloads it is for; all of the namespace if left out.",
        "jwtRules": "The issuers whose tokens are verified. Requests without one pass, unless a policy asks for it.",
        "jwtRules[].issuer": "What the token's iss says.",
        "jwtRules[].jwksUri": "Where the issuer's keys are.",
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
        "configPatches": "Changes of Envoy's own configuration; the last resort.",
        "configPatches[].applyTo": "The kind of resource that is changed.",
        "configPatches[].match": "Which of them.",
        "configPatches[].patch": "What is done: operation and value.",
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
    """How a type is told, the schema of what is in it, and how its place is written."""
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
