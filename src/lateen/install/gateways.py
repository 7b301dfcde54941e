"""An installation's gateways: service account, Service, Deployment."""

from __future__ import annotations

from lateen.api.domain import service_suffix
from lateen.inject import environment, pods, volumes
from lateen.inject.context import Context
from lateen.inject.workload import Workload
from lateen.install import k8s as options
from lateen.install import profiles
from lateen.install.control_plane import variables
from lateen.install.objects import (
    NAMESPACE,
    READ_SECRETS,
    UNPRIVILEGED,
    bound,
    deployment,
    meta,
    network_policy,
    restricts,
)
from lateen.install.options import GatewayValues
from lateen.kit.jsons import Json, dig
from lateen.wire import ports
from lateen.wire.revision import Revision


def namespace_of(gateway: Json) -> str:
    return str(gateway.get("namespace") or NAMESPACE)


def objects(given: Json, ingress: bool, revision: Revision, image: str, values: Json) -> list[Json]:
    """``values``: the installation's."""
    name, namespace = str(given["name"]), namespace_of(given)
    k8s = pod_options(given, ingress, values)
    labels = given.get("label") or {"app": name, "istio": "ingressgateway" if ingress else "egressgateway"}
    account = f"{name}-service-account"
    listed = dig(k8s, "service", "ports") or (profiles.INGRESS_PORTS if ingress else profiles.EGRESS_PORTS)
    service_ports = [{"protocol": "TCP", "targetPort": p["port"], **p} for p in listed]
    metadata = {"namespace": namespace, "labels": {**labels, "release": "istio", **revision.label}}
    elsewhere = []
    if namespace != NAMESPACE:
        # istiod may read Secrets only in its own namespace and in those of its gateways
        role = meta(revision.of("istiod-secrets"), revision, namespace)
        elsewhere = bound("Role", role, [READ_SECRETS], revision.istiod)
    pod_labels = {
        **labels,
        "service.istio.io/canonical-name": name,
        "service.istio.io/canonical-revision": "latest",
        **revision.label,
    }
    settings = pods.settings(values, image=image, revision=revision.name)
    scrape = {"prometheus.io/port": str(ports.MERGED_METRICS), "prometheus.io/path": "/stats/prometheus"}
    pod = {
        "serviceAccountName": account,
        "containers": [_container(name, namespace, k8s, service_ports, settings)],
        "volumes": volumes.volumes(),
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, **metadata},
        "spec": {
            "type": dig(k8s, "service", "type") or ("LoadBalancer" if ingress else "ClusterIP"),
            "selector": labels,
            "ports": service_ports,
        },
    }
    made = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, **metadata}},
        service,
        deployment({"name": name, **metadata}, labels, pod_labels, scrape, pod),
    ]
    if restricts(values):
        listened = [(p["targetPort"], p["protocol"]) for p in service_ports]
        own = [(p, "TCP") for p in (ports.HEALTH, ports.MERGED_METRICS, ports.ENVOY_METRICS)]
        made.append(network_policy({"name": name, **metadata}, labels, [*own, *listened]))
    return [*elsewhere, *options.applied(made, k8s)]


def pod_options(given: Json, ingress: bool, values: Json) -> Json:
    """``k8s`` of a gateway, over ``values.gateways.istio-ingressgateway`` or ``…istio-egressgateway``."""
    own = dig(values, "gateways", "istio-ingressgateway" if ingress else "istio-egressgateway", default={})
    return options.merged(given.get("k8s") or {}, own, GatewayValues, values.get("global") or {})


def _container(name: str, namespace: str, k8s: Json, service_ports: list[Json], settings: pods.Settings) -> Json:
    context = Context({}, namespace, Workload(name, namespace, "Deployment", "apps/v1"), settings, {})
    listened = [p["targetPort"] for p in service_ports if isinstance(p["targetPort"], int)]
    return {
        "name": "istio-proxy",
        "image": settings.image,
        "env": options.by_name(environment.environment(context, limits=False), variables(k8s)),
        "volumeMounts": volumes.mounts(),
        "args": [
            "proxy",
            "router",
            "--domain",
            f"$(POD_NAMESPACE){service_suffix(settings.cluster_domain)}",
            "--proxyLogLevel=warning",
            "--proxyComponentLogLevel=misc:error",
        ],
        "ports": [
            *({"containerPort": p, "protocol": "TCP"} for p in listened),
            {"containerPort": ports.ENVOY_METRICS, "name": "http-envoy-prom", "protocol": "TCP"},
        ],
        "readinessProbe": {
            "httpGet": {"path": "/healthz/ready", "port": ports.HEALTH},
            "initialDelaySeconds": 1,
            "periodSeconds": 2,
            "timeoutSeconds": 1,
            "failureThreshold": 30,
        },
        "lifecycle": {
            "preStop": {"exec": {"command": ["pilot-agent", "request", "--debug-port=15020", "POST", "drain"]}}
        },
        "resources": k8s.get("resources") or {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "securityContext": UNPRIVILEGED,
    }
