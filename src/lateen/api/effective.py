"""The fields of the mesh's kinds that have no effect in this version, each with the reason (for whole kinds see
``Kind.idle``).

A path has ``[]`` for list items and ``{}`` for map values; a path ending in ``.**`` covers everything below it. Fields
that are listed are accepted and stored, and the admission webhook warns about them by name. All others have an effect:
a test removes each field from a configuration that has it, and requires that the proxies' resources change.
"""

from __future__ import annotations

import typing
from typing import Any

from lateen.api import kinds
from lateen.api.config import Config, fields, unwrap
from lateen.api.kinds import Kind
from lateen.kit.digits import digits

_POLICIES = (
    "trafficPolicy",
    "trafficPolicy.portLevelSettings[]",
    "subsets[].trafficPolicy",
    "subsets[].trafficPolicy.portLevelSettings[]",
)
_NO_OPTIONS = "no options are defined"
_REFUSED = "refused: a policy is for its own namespace"
_UNSIGNED = "as in Istio, image signatures are not verified; use sha256"
_NAMELESS = "Istio does not implement it either"


def _whole(why: str, *fields: str) -> dict[str, str]:
    """Fields that are ignored with everything below them; the types do not declare it."""
    return {at: why for field in fields for at in (field, f"{field}{{}}")}


UNSUPPORTED: dict[Kind, dict[str, str]] = {
    kinds.VIRTUAL_SERVICE: {
        "tcp[].match[].sourceSubnet": _NAMELESS,
    },
    kinds.DESTINATION_RULE: {
        **{
            f"{at}.loadBalancer.zoneAwareLbSetting.**": "use localityLbSetting, which also balances by zone"
            for at in _POLICIES
        },
        **{f"{at}.outlierDetection.consecutiveErrors": "use consecutive5xxErrors" for at in _POLICIES},
        **{f"{at}.retryBudget.budgetInterval": "Envoy has no such setting" for at in (_POLICIES[0], _POLICIES[2])},
    },
    kinds.GATEWAY: {
        "servers[].defaultEndpoint": _NAMELESS,
        "servers[].port.targetPort": "refused: the gateway's Service maps ports",
        "servers[].tls.tlsCertificates[].caCertificates": "clients are verified with the server's own caCertificates",
    },
    kinds.WORKLOAD_GROUP: {
        "template.address": "a machine registers its own address",
    },
    kinds.TELEMETRY: {
        "targetRef.namespace": _REFUSED,
        "targetRefs[].namespace": _REFUSED,
        "metrics[].overrides[].match.customMetric": "stock Envoy has Istio's standard metrics only",
    },
    kinds.SIDECAR: {
        "ingress[].port.name": "it only names the entry",
        "ingress[].port.targetPort": "refused: defaultEndpoint says where the application listens",
        "egress[].port.targetPort": "refused: a sidecar's egress does not map ports",
        "egress[].port.name": "it only names the entry",
        "ingress[].tls.tlsCertificates[].caCertificates": "clients are verified with the server's own caCertificates",
        "ingress[].tls.httpsRedirect": "refused: it applies to gateways only",
        "ingress[].tls.credentialName": "refused: a sidecar takes its certificates from files",
        "ingress[].tls.credentialNames": "refused: a sidecar takes its certificates from files",
        "ingress[].tls.caCertCredentialName": "refused: a sidecar takes its certificates from files",
    },
    kinds.ENVOY_FILTER: {
        "targetRefs[].namespace": _REFUSED,
        "configPatches[].match.waypoint.**": "there are no waypoints",
        "configPatches[].match.listener.portName": _NAMELESS,
    },
    kinds.KUBERNETES_GATEWAY: {
        "defaultScope": "a route names its Gateways",
    },
    kinds.WASM_PLUGIN: {
        "targetRef.namespace": _REFUSED,
        "targetRefs[].namespace": _REFUSED,
        "verificationKey": _UNSIGNED,
    },
    kinds.TRAFFIC_EXTENSION: {
        "targetRefs[].namespace": _REFUSED,
        "wasm.verificationKey": _UNSIGNED,
    },
    kinds.LISTENER_SET: {},
    kinds.X_BACKEND_TRAFFIC_POLICY: {
        "retryConstraint.budget.interval": "Envoy counts the requests that are currently active",
        "retryConstraint.minRetryRate.interval": "Envoy limits concurrent retries instead",
    },
    kinds.BACKEND_TLS_POLICY: {"options": _NO_OPTIONS, "options{}": _NO_OPTIONS},
    kinds.GATEWAY_CLASS: {
        "parametersRef.**": "classes have no parameters",
        "description": "it is informational",
    },
    kinds.HTTP_ROUTE: {
        "useDefaultGateways": "a route names its Gateways",
    },
    **{
        kind: {"useDefaultGateways": "a route names its Gateways"}
        for kind in (kinds.TLS_ROUTE, kinds.TCP_ROUTE, kinds.UDP_ROUTE)
    },
    kinds.GRPC_ROUTE: {
        "useDefaultGateways": "a route names its Gateways",
    },
    kinds.PROXY_CONFIG: {"image.**": "the proxy's image is chosen by the installation"},
    kinds.BACKEND_TRAFFIC_POLICY: {
        "targetSelectors[].**": "refused: name the targets in targetRefs",
        "mergeType": "only the oldest policy of a target applies",
        "rateLimit.global.rules[].shared": "a global limit applies to all routes of its target together",
        "rateLimit.local.rules[].shared": "each proxy counts on its own",
        **_whole("each request counts once", "rateLimit.local.rules[].cost", "rateLimit.global.rules[].cost"),
        **_whole(
            "set it in a DestinationRule (trafficPolicy)",
            *("loadBalancer", "tcpKeepalive", "circuitBreaker", "connection", "http2", "proxyProtocol"),
        ),
        **_whole("use outlierDetection in a DestinationRule", "healthCheck", "admissionControl"),
        **_whole("set it in a VirtualService", "retry", "timeout", "faultInjection"),
        **_whole(
            "use an EnvoyFilter", "compression", "compressor", "responseOverride", "requestBuffer", "bandwidthLimit"
        ),
        **_whole("set it in a DestinationRule (connectionPool.http)", "useClientProtocol"),
        **_whole("the mesh configuration has dnsRefreshRate", "dns"),
        **_whole("use a Telemetry", "telemetry"),
        **_whole("WebSocket upgrades are always on", "httpUpgrade"),
        **_whole("requests go to endpoints", "routingType"),
    },
    kinds.SECURITY_POLICY: {
        "targetSelectors[].**": "refused: name the targets in targetRefs",
        "mergeType": "only the most specific policy of a request applies",
        **_whole("refused: the keys come from uri", "jwt.providers[].remoteJWKS.backendRef"),
        **_whole("refused: the keys come from uri", "jwt.providers[].remoteJWKS.backendRefs"),
        **_whole("istiod fetches the keys itself", "jwt.providers[].remoteJWKS.backendSettings"),
        "jwt.providers[].remoteJWKS.cacheDuration": "keys are refreshed every 20 minutes",
        "jwt.providers[].localJWKS.type": "refused: only Inline is implemented",
        **_whole("refused: write the keys into inline", "jwt.providers[].localJWKS.valueRef"),
        **_whole("refused: write the id into clientID", "oidc.clientIDRef"),
        **_whole("refused: the provider is reached by its address", "oidc.provider.backendRef"),
        **_whole("refused: the provider is reached by its address", "oidc.provider.backendRefs"),
        **_whole("use a DestinationRule for the provider's host", "oidc.provider.backendSettings"),
        **_whole("use a DestinationRule for the Service", "extAuth.grpc.backendSettings"),
        **_whole("use a DestinationRule for the Service", "extAuth.http.backendSettings"),
        **_whole("Envoy sends them to no provider", "extAuth.contextExtensions"),
        **_whole("refused: there is no geolocation database", "authorization.rules[].principal.clientIPGeoLocations"),
        "authorization.rules[].principal.sourceCIDRs": "refused: use an AuthorizationPolicy",
    },
    **{
        kind: {
            **_whole("refused: it is not implemented", "vault", "venafi", "acme.solvers[].dns01"),
            **_whole(
                "all gateways of the mesh answer challenges, so no solver pods are created",
                "acme.solvers[].http01.ingress",
                "acme.solvers[].http01.gatewayHTTPRoute",
            ),
            "acme.skipTLSVerify": "refused: put the CA of the server's certificate into caBundle",
            "acme.preferredChain": "the CA's default chain is used",
            "acme.profile": "the CA's default profile is used",
            "acme.enableDurationFeature": "the CA decides how long its certificates are valid",
            "acme.externalAccountBinding.keyAlgorithm": "it is HS256, as in cert-manager",
            "ca.crlDistributionPoints": "it is not put into certificates",
            "ca.ocspServers": "it is not put into certificates",
            "ca.issuingCertificateURLs": "it is not put into certificates",
            "selfSigned.crlDistributionPoints": "it is not put into certificates",
        }
        for kind in (kinds.ISSUER, kinds.CLUSTER_ISSUER)
    },
    kinds.CERTIFICATE: {
        **_whole(
            "refused: it is not implemented",
            *("subject", "otherNames", "keystores", "additionalOutputFormats", "nameConstraints"),
        ),
        **dict.fromkeys(
            ("uris", "ipAddresses", "emailAddresses", "literalSubject"),
            "refused: it is not implemented",
        ),
        "usages": "certificates are for servers and clients",
        "encodeUsagesInRequest": "the CA decides about usages",
        "revisionHistoryLimit": "no CertificateRequests are kept",
        "signatureAlgorithm": "it follows from the key of the issuer",
        "privateKey.encoding": "keys are PKCS8, which Envoy reads as well",
    },
    kinds.REQUEST_AUTHENTICATION: {"targetRef.namespace": _REFUSED, "targetRefs[].namespace": _REFUSED},
    kinds.AUTHORIZATION_POLICY: {"targetRef.namespace": _REFUSED, "targetRefs[].namespace": _REFUSED},
}

_VALUES = {
    (kinds.ENVOY_FILTER, "configPatches[].match.context"): ("ANY", "SIDECAR_INBOUND", "SIDECAR_OUTBOUND", "GATEWAY"),
}
"""Fields of which only these values have an effect."""
_ANYWAY = {(kinds.SECURITY_POLICY, "jwt.providers[].localJWKS.type"): ("Inline",)}
"""Values of fields without effect that say what is so anyway."""


def reason(kind: Kind, path: str) -> str | None:
    """Why a field (in its general form) has no effect; None if it has one."""
    known = UNSUPPORTED.get(kind, {})
    if path in known:
        return known[path]
    parts = path.split(".")
    return next((known[p] for i in range(1, len(parts)) if (p := ".".join(parts[:i]) + ".**") in known), None)


def general(path: str) -> str:
    """``http[0].match[1].name`` -> ``http[].match[].name``; a map's key becomes ``{}``."""
    out, at = "", 0
    while at < len(path):
        if path[at] == "[":
            end = path.index("]", at)
            out += "[]" if digits(path[at + 1 : end]) else "{}"
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
        if not known:
            return [(path, value)]
        return [
            leaf for k, v in value.items() if k in known for leaf in leaves(known[k], v, f"{path}.{k}" if path else k)
        ]
    if isinstance(value, dict) and typing.get_origin(kind) is dict:
        return [leaf for k, v in value.items() for leaf in leaves(typing.get_args(kind)[1], v, f"{path}[{k}]")]
    return [(path, value)]


def ineffective(kind: Kind, spec: Any) -> list[str]:
    """A warning for each field that is set and has no effect; a single one for a kind without any effect."""
    name = kind.kind
    if kind.idle:
        return [f"{name} has no effect yet in this version of Lateen: {kind.idle}; it is checked, stored and ignored"]
    out = []
    for path, value in leaves(kind.spec, spec):
        form = general(path)
        why = reason(kind, form)
        if why is not None:
            if value in _ANYWAY.get((kind, form), ()):
                continue
            out.append(
                f"{name} field spec.{path} has no effect in this version of Lateen: {why}; it is stored and ignored"
            )
        elif (allowed := _VALUES.get((kind, form))) and value not in allowed:
            out.append(
                f'{name} field spec.{path}: the value "{value}" has no effect in this version of Lateen; '
                f"effective are: {', '.join(allowed)}"
            )
    return out
