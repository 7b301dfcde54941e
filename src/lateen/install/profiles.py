"""The configuration profiles that an installation starts from."""

from __future__ import annotations

from lateen.api.domain import CLUSTER_DOMAIN, service_host
from lateen.kit.jsons import Json

INGRESS_PORTS = [
    {"port": 15021, "targetPort": 15021, "name": "status-port"},
    {"port": 80, "targetPort": 8080, "name": "http2"},
    {"port": 443, "targetPort": 8443, "name": "https"},
    {"port": 31400, "targetPort": 31400, "name": "tcp"},
    {"port": 15443, "targetPort": 15443, "name": "tls"},
]
EGRESS_PORTS = [
    {"port": 80, "targetPort": 8080, "name": "http2"},
    {"port": 443, "targetPort": 8443, "name": "https"},
    {"port": 15443, "targetPort": 15443, "name": "tls"},
]
SMALL = {"requests": {"cpu": "10m", "memory": "40Mi"}}


def _gateway(name: str, enabled: bool, resources: Json | None = None) -> Json:
    return {"name": name, "enabled": enabled, "k8s": {"resources": resources or {}}}


def _profile(ingress: bool, egress: bool, pilot: bool, mesh: Json | None = None, resources: Json | None = None) -> Json:
    return {
        "meshConfig": mesh or {},
        "components": {
            "pilot": {"enabled": pilot, "k8s": {}},
            "ingressGateways": [_gateway("istio-ingressgateway", ingress, resources)],
            "egressGateways": [_gateway("istio-egressgateway", egress, resources)],
        },
        "values": {"global": {"proxy": {"resources": resources or {}}}},
    }


def _remote() -> Json:
    out = _profile(False, False, False)
    out["components"]["istiodRemote"] = {"enabled": True}
    return out


DEMO: Json = {
    "accessLogFile": "/dev/stdout",
    "defaultConfig": {"tracing": {"sampling": 100.0}},
    "defaultProviders": {"metrics": ["prometheus"], "tracing": ["zipkin"]},
    "extensionProviders": [
        {
            "name": "zipkin",
            "zipkin": {
                "service": service_host("zipkin", "istio-system", CLUSTER_DOMAIN),
                "port": 9411,
                "traceContextOption": "USE_B3_WITH_W3C_PROPAGATION",
            },
        },
        {
            "name": "jaeger",
            "opentelemetry": {
                "service": service_host("jaeger-collector", "istio-system", CLUSTER_DOMAIN),
                "port": 4317,
            },
        },
    ],
}
"""As in Istio's demo, every request is traced if the add-on for traces is installed; without it, proxies create no
spans. Applications may propagate either kind of headers."""

PROFILES: dict[str, Json] = {
    "default": _profile(True, False, True),
    "demo": _profile(True, True, True, DEMO, SMALL),
    "minimal": _profile(False, False, True),
    "empty": _profile(False, False, False),
    "openshift": _profile(True, False, True),
    "preview": _profile(True, False, True),
    "remote": _remote(),
}


NOTES = {
    "openshift": "OpenShift is not tested; istiod and gateways need the SCC nonroot-v2, sidecars one with NET_ADMIN",
    "preview": "this version has no experimental features; the profile is the same as default",
}
"""A warning for users of a profile."""
