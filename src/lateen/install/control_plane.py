"""istiod: its Service and its Deployment."""

from __future__ import annotations

from lateen.api import reading
from lateen.api.domain import TRUST_DOMAIN
from lateen.install import k8s as options
from lateen.install.objects import UNPRIVILEGED, deployment, image, meta, network_policy, restricts
from lateen.install.options import PilotValues
from lateen.kit.jsons import Json, dig
from lateen.wire import ports
from lateen.wire.revision import Revision

SERVES = "EXTERNAL_ISTIOD"
"""The environment variable behind ``externalIstiod``: whether proxies of other clusters are served."""

PORTS = (
    {"name": "grpc-xds", "port": ports.CA, "protocol": "TCP"},
    {"name": "https-dns", "port": ports.XDS, "protocol": "TCP"},
    {"name": "https-webhook", "port": 443, "targetPort": ports.WEBHOOK, "protocol": "TCP"},
    {"name": "http-monitoring", "port": ports.MONITORING, "protocol": "TCP"},
)
"""Of istiod's Service."""
LISTENED = (ports.READINESS, ports.CA, ports.XDS, ports.MONITORING, ports.WEBHOOK)
"""The ports of istiod's pods."""


def objects(spec: Json, revision: Revision) -> list[Json]:
    k8s = pod_options(spec)
    chosen = {"app": "istiod", "istio": "pilot"}
    if not revision.is_default:
        chosen = {"app": "istiod", **revision.label}
    labels = {"app": "istiod", "istio": "pilot", **revision.label}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta(revision.istiod, revision, app="istiod", istio="pilot"),
        "spec": {
            "selector": {**chosen, **revision.label},
            "ports": [*PORTS],
        },
    }
    pod = {"serviceAccountName": revision.istiod, "containers": [_container(spec, k8s, revision)]}
    scrape = {"prometheus.io/port": str(ports.MONITORING)}
    about = meta(revision.istiod, revision, app="istiod", istio="pilot")
    made = [service, deployment(about, chosen, labels, scrape, pod)]
    if restricts(spec.get("values") or {}):
        made.append(network_policy(about, {**chosen, **revision.label}, [(p, "TCP") for p in LISTENED]))
    return options.applied(made, k8s)


def pod_options(spec: Json) -> Json:
    """``components.pilot.k8s``, over ``values.pilot``."""
    values = spec.get("values") or {}
    k8s, own = dig(spec, "components", "pilot", "k8s", default={}), values.get("pilot") or {}
    return options.merged(k8s, own, PilotValues, values.get("global") or {})


def _container(spec: Json, k8s: Json, revision: Revision) -> Json:
    values = spec.get("values") or {}
    own: list[Json] = [
        {"name": "REVISION", "value": revision.name},
        {"name": "PROXY_IMAGE", "value": image(spec, "proxyv2")},
        {"name": "TRUST_DOMAIN", "value": dig(spec, "meshConfig", "trustDomain", default=TRUST_DOMAIN)},
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "SERVICE_ACCOUNT", "valueFrom": {"fieldRef": {"fieldPath": "spec.serviceAccountName"}}},
    ]
    where: list[Json] = [
        {"name": "CLUSTER_ID", "value": reading.cluster_name(values)},
        {"name": "CLUSTER_DOMAIN", "value": reading.cluster_domain(values)},
    ]
    env = options.by_name(options.by_name(own, variables({"env": pilot_env(spec)})), where)
    return {
        "name": "discovery",
        "image": image(spec, "pilot", dig(spec, "components", "pilot", default={}), values.get("pilot")),
        "args": ["discovery"],
        "env": env,
        "ports": [{"containerPort": p, "protocol": "TCP"} for p in LISTENED],
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": ports.MONITORING},
            "initialDelaySeconds": 0,
            "periodSeconds": 1,
            "timeoutSeconds": 5,
        },
        "resources": k8s.get("resources") or {"requests": {"cpu": "500m", "memory": "2Gi"}},
        "securityContext": UNPRIVILEGED,
    }


def pilot_env(spec: Json) -> list[Json]:
    """istiod's own variables: ``components.pilot.k8s.env``, and before it ``values.pilot.env`` (by name)."""
    given = dig(spec, "components", "pilot", "k8s", "env", default=[])
    values = dig(spec, "values", "pilot", "env", default={})
    if dig(spec, "values", "global", "externalIstiod"):
        values = {SERVES: "true", **values}
    return options.by_name([{"name": k, "value": v} for k, v in sorted(values.items())], given)


def variables(k8s: Json) -> list[Json]:
    """Environment variables from an installation's ``k8s.env``; Kubernetes requires string values."""
    return [{**e, "value": _text(e["value"])} if "value" in e else e for e in k8s.get("env") or []]


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
