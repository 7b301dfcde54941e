"""The values of the Helm charts with their defaults, which are those of Istio's charts, and their schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from lateen import __version__
from lateen.inject import settings as injection
from lateen.install import absent, cni, k8s
from lateen.install.effects import VARIABLES
from lateen.install.objects import HUB, NAMESPACE, UNPRIVILEGED
from lateen.kit import jsons
from lateen.kit.jsons import Json
from lateen.wire import ports
from lateen.wire.revision import DEFAULT

OPEN = {"additionalProperties": True, "type": "object"}

BASE_VALUES: Json = {"defaultRevision": "default", "base": {"enableCRDs": True, "enableGatewayAPI": True}}


PILOT: Json = {
    "hub": "",
    "tag": "",
    "image": "pilot",
    "env": {},
    "resources": {"requests": {"cpu": "500m", "memory": "2Gi"}},
    "replicaCount": 1,
    "nodeSelector": {},
    "affinity": {},
    "tolerations": [],
    "podAnnotations": {},
    "cni": {"enabled": False, "provider": "default"},
    "autoscaleEnabled": False,
    "autoscaleMin": 1,
    "autoscaleMax": 5,
    "autoscaleBehavior": {},
    "cpu": {"targetAverageUtilization": k8s.CPU_PERCENT},
    "rollingMaxSurge": k8s.ROLLING["maxSurge"],
    "rollingMaxUnavailable": k8s.ROLLING["maxUnavailable"],
    "topologySpreadConstraints": [],
    "seccompProfile": {},
    "envVarFrom": [],
    "volumes": [],
    "volumeMounts": [],
    "initContainers": [],
    "podLabels": {},
    "deploymentLabels": {},
    "serviceAnnotations": {},
    "serviceAccountAnnotations": {},
    "ipFamilyPolicy": "",
    "ipFamilies": [],
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
    "pilot.autoscaleBehavior",
    "pilot.seccompProfile",
    "pilot.podLabels",
    "pilot.deploymentLabels",
    "pilot.serviceAnnotations",
    "pilot.serviceAccountAnnotations",
    "global.proxy.seccompProfile",
    "gateways.securityContext",
    "gateways.seccompProfile",
    "gatewayClasses",
    "sidecarInjectorWebhook.injectedAnnotations",
    "sidecarInjectorWebhook.templates",
    "sidecarInjectorWebhook.aliases",
)
"""Mappings whose keys are the user's."""


def istiod_values() -> Json:
    out = jsons.copy(injection.DEFAULTS)
    out["global"] |= {"hub": HUB, "tag": __version__, "meshNetworks": {}}
    out["global"] |= {"priorityClassName": "", "defaultPodDisruptionBudget": {"enabled": False}}
    out["global"] |= {"proxy_init": {"image": "proxyv2", "forceApplyIptables": False}}
    out["global"] |= {"externalIstiod": False, "remotePilotAddress": "", "networkPolicy": {"enabled": False}}
    out["global"]["proxy"] |= {"capNetBindService": "", "outlierLogPath": "", "seccompProfile": {}}
    remote = {"enabled": False, "injectionURL": "", "injectionPath": ""}
    more = {"istiodRemote": remote, "gateways": {"securityContext": {}, "seccompProfile": {}}}
    more |= {"gatewayClasses": {}}
    return {"revision": DEFAULT, "revisionTags": [], "meshConfig": {}, **out, "pilot": PILOT, **more}


NETWORK_PORTS = {
    "status-port": ports.HEALTH,
    "tls": 15443,
    "tls-certificates": ports.CA,
    "tls-istiod": ports.XDS,
    "tls-webhook": ports.WEBHOOK,
}
"""Of the gateway of a network (``samples/multicluster``)."""
GATEWAY_VALUES: Json = {
    "name": "",
    "revision": DEFAULT,
    "replicaCount": 1,
    "serviceAccount": {"create": True, "name": "", "annotations": {}},
    "podAnnotations": {},
    "labels": {},
    "annotations": {},
    "env": {},
    "envVarFrom": [],
    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2000m", "memory": "1024Mi"}},
    "autoscaling": {
        "enabled": False,
        "minReplicas": 1,
        "maxReplicas": 5,
        "targetCPUUtilizationPercentage": k8s.CPU_PERCENT,
        "autoscaleBehavior": {},
    },
    "podDisruptionBudget": {},
    "strategy": {"rollingUpdate": k8s.ROLLING},
    "minReadySeconds": 0,
    "readinessProbe": {},
    "securityContext": {},
    "containerSecurityContext": UNPRIVILEGED,
    "volumes": [],
    "volumeMounts": [],
    "initContainers": [],
    "additionalContainers": [],
    "imagePullPolicy": "",
    "service": {
        "type": "LoadBalancer",
        "ports": [
            {"name": "status-port", "port": 15021, "protocol": "TCP", "targetPort": 15021},
            {"name": "http2", "port": 80, "protocol": "TCP", "targetPort": 80},
            {"name": "https", "port": 443, "protocol": "TCP", "targetPort": 443},
        ],
        "annotations": {},
        "loadBalancerIP": "",
        "loadBalancerClass": "",
        "loadBalancerSourceRanges": [],
        "allocateLoadBalancerNodePorts": True,
        "externalTrafficPolicy": "",
        "externalIPs": [],
        "clusterIP": "",
        "internalTrafficPolicy": "",
        "ipFamilyPolicy": "",
        "ipFamilies": [],
    },
    "networkGateway": "",
    "networkGatewayPorts": {n: {"port": p, "targetPort": p, "protocol": "TCP"} for n, p in NETWORK_PORTS.items()},
    "nodeSelector": {},
    "tolerations": [],
    "affinity": {},
    "topologySpreadConstraints": [],
    "imagePullSecrets": [],
    "priorityClassName": "",
    "terminationGracePeriodSeconds": 30,
    "global": {"networkPolicy": {"enabled": False}},
}
GATEWAY_FREE = (
    "global",
    "podAnnotations", "labels", "annotations", "env", "resources", "service.annotations", "serviceAccount.annotations",
    "nodeSelector", "affinity", "podDisruptionBudget", "strategy", "readinessProbe", "securityContext",
    "containerSecurityContext", "autoscaling.autoscaleBehavior",
)  # fmt: skip


CNI_VALUES: Json = {
    "revision": DEFAULT,
    "global": {"hub": HUB, "tag": __version__, "imagePullPolicy": "", "imagePullSecrets": []},
    "hub": "",
    "tag": "",
    "image": "install-cni",
    "pullPolicy": "",
    "cniBinDir": cni.BIN,
    "cniConfDir": cni.CONF,
    "excludeNamespaces": list(cni.EXCLUDED),
    "repair": {"enabled": True},
    "resources": cni.RESOURCES,
    "affinity": {},
    "tolerations": [{"operator": "Exists", "effect": e} for e in ("NoSchedule", "NoExecute")],
    "podAnnotations": {},
    "podLabels": {},
    "daemonSetLabels": {},
    "env": {},
    "seccompProfile": {},
    "seLinuxOptions": {},
    "serviceAccountAnnotations": {},
    "updateStrategy": {},
    "rollingMaxUnavailable": 1,
    "terminationGracePeriodSeconds": cni.GRACE_S,
}
CNI_FREE = (
    "resources", "affinity", "podAnnotations", "podLabels", "daemonSetLabels", "env", "seccompProfile",
    "seLinuxOptions", "serviceAccountAnnotations", "updateStrategy",
)  # fmt: skip


FIXED: dict[str, Json] = {
    "global.istioNamespace": {"const": NAMESPACE},
    "pilot.env": {"type": "object", "properties": {name: {} for name in VARIABLES}, "additionalProperties": False},
}
"""Values of which only some are possible."""


REFUSED: dict[str, dict[str, str]] = {
    **absent.VALUES,
    "istiod": {at.removeprefix("pilot."): why for at, why in absent.VALUES["istiod"].items()} | absent.VALUES["istiod"],
}
"""Values of Istio's charts that these refuse (chart -> value -> why, or what to use instead)."""


def _asks_for_nothing(value: Any) -> Json:
    if isinstance(value, dict) and value:
        inner = {k: _asks_for_nothing(v) for k, v in value.items()}
        return {"type": ["object", "null"], "properties": inner, "additionalProperties": False}
    if isinstance(value, dict):
        return {"type": ["object", "null"], "maxProperties": 0}
    if isinstance(value, list):
        return {"enum": [None, [], value]} if value else {"type": ["array", "null"], "maxItems": 0}
    return {"enum": [None, "", *(v for v in (value if isinstance(value, tuple) else (value,)) if v != "")]}


def tolerant(made: Json, chart: str) -> Json:
    """The schema of a chart that takes, of the values that it refuses, what asks for nothing."""
    out, said = jsons.copy(made), absent.ANYWAY.get(chart, {})
    if chart == "istiod":
        said = {at.removeprefix("pilot."): value for at, value in said.items()} | said
    inside = {at.rpartition(".")[0] for at in said}
    for path in [*said, *(at for at in REFUSED.get(chart, {}) if at not in inside)]:
        at = out
        *above, last = path.split(".")
        for step in above:
            at = at.get("properties", {}).get(step) or _opened(at, step)
        if "properties" in at:
            at["properties"].setdefault(last, _asks_for_nothing(said.get(path, "")))
    return out


def _opened(at: Json, step: str) -> Json:
    """A mapping that there was not, in one whose keys are known."""
    made: Json = {"type": "object", "properties": {}, "additionalProperties": False}
    return at["properties"].setdefault(step, made) if "properties" in at else {}


TYPES = {
    bool: ["boolean", "null"],
    int: ["integer", "null"],
    str: ["string", "number", "null"],  # --set makes a number of what looks like one
    list: ["array", "null"],
}
"""What a value may be, by the type of its default."""
SCALARS = ("global.proxy.capNetBindService", "rollingMaxUnavailable")
"""Values that are texts or something else."""


def leaves(value: Any, free: tuple[str, ...], path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, default) of each value of a chart that can be set by itself."""
    if isinstance(value, dict) and value and path not in free:
        for key, inner in value.items():
            yield from leaves(inner, free, f"{path}.{key}" if path else key)
    else:
        yield path, value


CHARTS: dict[str, tuple[Callable[[], Json], tuple[str, ...]]] = {
    "base": (lambda: BASE_VALUES, ()),
    "istiod": (istiod_values, FREE),
    "gateway": (lambda: GATEWAY_VALUES, GATEWAY_FREE),
    "cni": (lambda: CNI_VALUES, CNI_FREE),
}
"""Charts that Istio has, too -> their values, and which of these are the user's own mappings."""


def schema(value: Any, free: tuple[str, ...], path: str = "") -> Json:
    """Which values there are; a mapping in ``free`` may have any keys."""
    if path in FIXED:
        return FIXED[path]
    if path in free:
        return OPEN
    if isinstance(value, dict):
        found = {k: schema(v, free, f"{path}.{k}" if path else k) for k, v in value.items()}
        if not path and "pilot" in found:
            found = found["pilot"]["properties"] | found  # as in Istio's chart, they may be at the top, too
        if not path:
            found["global"] = found.get("global", OPEN)  # a chart that includes this one may set them
        return {"type": "object", "properties": found, "additionalProperties": False}
    return {"type": ["string", "number", "boolean"] if path in SCALARS else TYPES[type(value)]}
