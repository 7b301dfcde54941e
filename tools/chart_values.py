"""The values of the Helm charts with their defaults, which are those of Istio's charts, and their schemas."""

from __future__ import annotations

from typing import Any

from lateen import __version__
from lateen.inject import settings as injection
from lateen.install.objects import HUB, NAMESPACE
from lateen.install.options import VARIABLES
from lateen.kit import jsons
from lateen.kit.jsons import Json
from lateen.wire.revision import DEFAULT

OPEN = {"additionalProperties": True, "type": "object"}

BASE_VALUES: Json = {"defaultRevision": "default", "base": {"enableCRDs": True, "enableGatewayAPI": True}}


PILOT: Json = {
    "env": {},
    "resources": {"requests": {"cpu": "500m", "memory": "2Gi"}},
    "replicaCount": 1,
    "nodeSelector": {},
    "affinity": {},
    "tolerations": [],
    "podAnnotations": {},
    "cni": {"enabled": False, "provider": "default"},
}
FREE = (
    "meshConfig",
    "global.meshNetworks",
    "global.proxy.resources",
    "global.proxy.lifecycle",
    "global.proxy.startupProbe",
    "pilot.resources",
    "pilot.nodeSelector",
    "pilot.affinity",
    "pilot.podAnnotations",
    "sidecarInjectorWebhook.injectedAnnotations",
    "sidecarInjectorWebhook.templates",
    "sidecarInjectorWebhook.aliases",
)
"""Mappings whose keys are the user's."""


def istiod_values() -> Json:
    out = jsons.copy(injection.DEFAULTS)
    out["global"] |= {"hub": HUB, "tag": __version__, "meshNetworks": {}}
    out["global"]["proxy"] |= {"capNetBindService": ""}
    return {"revision": DEFAULT, "meshConfig": {}, **out, "pilot": PILOT}


GATEWAY_VALUES: Json = {
    "name": "",
    "revision": DEFAULT,
    "replicaCount": 1,
    "serviceAccount": {"create": True, "name": "", "annotations": {}},
    "podAnnotations": {},
    "labels": {},
    "annotations": {},
    "env": {},
    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2000m", "memory": "1024Mi"}},
    "service": {
        "type": "LoadBalancer",
        "ports": [
            {"name": "status-port", "port": 15021, "protocol": "TCP", "targetPort": 15021},
            {"name": "http2", "port": 80, "protocol": "TCP", "targetPort": 80},
            {"name": "https", "port": 443, "protocol": "TCP", "targetPort": 443},
        ],
        "annotations": {},
        "loadBalancerIP": "",
        "loadBalancerSourceRanges": [],
        "externalTrafficPolicy": "",
        "externalIPs": [],
    },
    "networkGateway": "",
    "nodeSelector": {},
    "tolerations": [],
    "affinity": {},
    "topologySpreadConstraints": [],
    "imagePullSecrets": [],
    "priorityClassName": "",
    "terminationGracePeriodSeconds": 30,
}
GATEWAY_FREE = (
    "podAnnotations", "labels", "annotations", "env", "resources", "service.annotations", "serviceAccount.annotations",
    "nodeSelector", "affinity",
)  # fmt: skip


FIXED: dict[str, Json] = {
    "global.istioNamespace": {"const": NAMESPACE},
    "pilot.env": {"type": "object", "properties": {name: {} for name in VARIABLES}, "additionalProperties": False},
}
"""Values of which only some are possible."""


def schema(value: Any, free: tuple[str, ...], path: str = "") -> Json:
    """Which values there are; a mapping in ``free`` may have any keys."""
    if path in FIXED:
        return FIXED[path]
    if path in free:
        return OPEN
    if isinstance(value, dict):
        found = {k: schema(v, free, f"{path}.{k}" if path else k) for k, v in value.items()}
        if not path:
            found["global"] = found.get("global", OPEN)  # a chart that includes this one may set them
        return {"type": "object", "properties": found, "additionalProperties": False}
    return {}
