"""What an installation consists of: plain Kubernetes objects, in the order in which they are applied. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lateen import __version__
from lateen.api import crds, kinds
from lateen.inject import parts, pods
from lateen.inject.workload import Workload
from lateen.install import profiles
from lateen.kit import jsons, yamldoc
from lateen.kit.jsons import Json, dig
from lateen.wire import ports

NAMESPACE = "istio-system"
PILOT_IMAGE = f"docker.io/lateen/pilot:{__version__}"
PROXY_IMAGE = f"docker.io/lateen/proxyv2:{__version__}"
RBAC = "rbac.authorization.k8s.io"
_READ_SECRETS = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}


@dataclass(frozen=True)
class Part:
    """Objects that are applied together; then the deployments are waited for."""

    title: str
    objects: tuple[Json, ...]
    deployments: tuple[tuple[str, str], ...] = ()
    """(namespace, name)"""


def render(operator: profiles.Operator) -> list[Part]:
    spec = operator.spec
    out = [Part("Istio core", (*_base(spec),))]
    if dig(spec, "components", "pilot", "enabled"):
        out.append(Part("Istiod", (*_istiod(spec), *_webhooks()), ((NAMESPACE, "istiod"),)))
    for kind, title in (("egressGateways", "Egress gateways"), ("ingressGateways", "Ingress gateways")):
        wanted = [g for g in dig(spec, "components", kind, default=[]) if g.get("enabled")]
        if wanted:
            objects = tuple(o for g in wanted for o in _gateway(g, kind == "ingressGateways"))
            out.append(Part(title, objects, tuple((_namespace(g), str(g["name"])) for g in wanted)))
    return out


def _namespace(gateway: Json) -> str:
    return str(gateway.get("namespace") or NAMESPACE)


def _meta(name: str, namespace: str | None = NAMESPACE, **labels: str) -> Json:
    out: Json = {"name": name, "labels": {"app": name, "istio.io/rev": "default", "release": "istio", **labels}}
    return out | {"namespace": namespace} if namespace else out


def _base(spec: Json) -> list[Json]:
    ns = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": NAMESPACE,
            "labels": {"istio-injection": "disabled", "istio-operator-managed": "Reconcile"},
        },
    }
    out = [ns, *crds.crds()]
    if not dig(spec, "components", "pilot", "enabled"):
        return out
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta("istiod")}
    read = ["get", "list", "watch"]
    rules = [
        {
            "apiGroups": kinds.groups(),
            "resources": ["*"],
            "verbs": [*read, "update", "patch"],
        },
        {"apiGroups": [""], "resources": ["pods", "nodes", "services", "namespaces", "endpoints"], "verbs": read},
        {"apiGroups": ["networking.istio.io"], "resources": ["workloadentries"], "verbs": ["create", "delete"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": [*read, "create", "update", "patch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses", "ingressclasses"], "verbs": read},
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses/status"], "verbs": ["update", "patch"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
            "verbs": [*read, "patch", "update"],
        },
    ]
    role = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": _meta(f"istiod-{NAMESPACE}", None),
        "rules": rules,
    }
    binding = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": _meta(f"istiod-{NAMESPACE}", None),
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": f"istiod-{NAMESPACE}"},
        "subjects": [{"kind": "ServiceAccount", "name": "istiod", "namespace": NAMESPACE}],
    }
    write = [
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["istio-ca-secret"], "verbs": ["update"]},
    ]
    lead = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "verbs": ["get", "create", "update", "patch"],
    }
    own = _granted("istiod", NAMESPACE, [*write, _READ_SECRETS, lead])
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _meta("istio"),
        "data": {"mesh": yamldoc.dump(spec.get("meshConfig") or {}), "meshNetworks": "networks: {}"},
    }
    return [*out, account, role, binding, *own, config, _injector(spec)]


def _injector(spec: Json) -> Json:
    """What istiod and kube-inject go by, in the ConfigMap and with the keys that Istio has for it."""
    values = jsons.copy(spec.get("values") or {})
    webhook = dict(values.get("sidecarInjectorWebhook") or {})
    names = ("templates", "defaultTemplates", "aliases", "neverInjectSelector", "alwaysInjectSelector")
    policy = dig(values, "global", "proxy", "autoInject", default="enabled")
    config = {"policy": policy} | {k: webhook.pop(k) for k in (*names, "injectedAnnotations") if k in webhook}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _meta("istio-sidecar-injector"),
        "data": {"config": yamldoc.dump(config), "values": jsons.canonical(values).decode()},
    }


def _granted(name: str, namespace: str, rules: list[Json]) -> list[Json]:
    """What istiod may do in one namespace. Secrets it reads only where gateways are: its own one, which has the CA's,
    and those that gateways are installed into."""
    role = {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": _meta(name, namespace), "rules": rules}
    binding = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": _meta(name, namespace),
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "istiod", "namespace": NAMESPACE}],
    }
    return [role, binding]


def _resources(found: Json | None, default: Json) -> Json:
    return found or default


def _istiod(spec: Json) -> list[Json]:
    k8s = dig(spec, "components", "pilot", "k8s", default={})
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta("istiod", istio="pilot"),
        "spec": {
            "selector": {"app": "istiod", "istio": "pilot"},
            "ports": [
                {"name": "grpc-xds", "port": ports.CA, "protocol": "TCP"},
                {"name": "https-dns", "port": ports.XDS, "protocol": "TCP"},
                {"name": "https-webhook", "port": 443, "targetPort": ports.WEBHOOK, "protocol": "TCP"},
                {"name": "http-monitoring", "port": ports.MONITORING, "protocol": "TCP"},
            ],
        },
    }
    env: list[Json] = [
        {"name": "REVISION", "value": "default"},
        {"name": "PROXY_IMAGE", "value": PROXY_IMAGE},
        {"name": "TRUST_DOMAIN", "value": dig(spec, "meshConfig", "trustDomain", default="cluster.local")},
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "SERVICE_ACCOUNT", "valueFrom": {"fieldRef": {"fieldPath": "spec.serviceAccountName"}}},
        *(k8s.get("env") or []),
    ]
    labels = {"app": "istiod", "istio": "pilot", "istio.io/rev": "default"}
    container = {
        "name": "discovery",
        "image": PILOT_IMAGE,
        "args": ["discovery"],
        "env": env,
        "ports": [
            {"containerPort": p, "protocol": "TCP"} for p in (ports.CA, ports.XDS, ports.MONITORING, ports.WEBHOOK)
        ],
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": ports.MONITORING},
            "initialDelaySeconds": 0,
            "periodSeconds": 1,
            "timeoutSeconds": 5,
        },
        "resources": _resources(k8s.get("resources"), {"requests": {"cpu": "500m", "memory": "2Gi"}}),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsUser": ports.PROXY_UID,
            "runAsGroup": ports.PROXY_UID,
            "runAsNonRoot": True,
        },
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta("istiod", istio="pilot"),
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "istiod", "istio": "pilot"}},
            "strategy": {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "25%"}},
            "template": {
                "metadata": {
                    "labels": {**labels, "sidecar.istio.io/inject": "false"},
                    "annotations": {
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": str(ports.MONITORING),
                    },
                },
                "spec": {
                    "serviceAccountName": "istiod",
                    "containers": [container],
                    "securityContext": {"fsGroup": ports.PROXY_UID},
                },
            },
        },
    }
    return [service, deployment]


def _hook(name: str, path: str, rules: list[Json], **more: Any) -> Json:
    return {
        "name": name,
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "clientConfig": {"service": {"name": "istiod", "namespace": NAMESPACE, "path": path, "port": 443}},
        "rules": rules,
        **more,
    }


def _webhooks() -> list[Json]:
    """A namespace that is labelled, or a pod that asks for itself. Mesh objects are validated everywhere."""
    on_pods = [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]
    not_off = {"key": "sidecar.istio.io/inject", "operator": "NotIn", "values": ["false"]}
    by_namespace = _hook(
        "namespace.sidecar-injector.istio.io",
        "/inject",
        on_pods,
        timeoutSeconds=10,
        namespaceSelector={"matchExpressions": [{"key": "istio-injection", "operator": "In", "values": ["enabled"]}]},
        objectSelector={"matchExpressions": [not_off]},
    )
    by_pod = _hook(
        "object.sidecar-injector.istio.io",
        "/inject",
        on_pods,
        timeoutSeconds=10,
        namespaceSelector={
            "matchExpressions": [
                {"key": "istio-injection", "operator": "DoesNotExist"},
                {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": list(pods.SKIPPED_NAMESPACES)},
            ]
        },
        objectSelector={"matchExpressions": [{"key": "sidecar.istio.io/inject", "operator": "In", "values": ["true"]}]},
    )
    mutating = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "istio-sidecar-injector", "labels": {"app": "sidecar-injector", "release": "istio"}},
        "webhooks": [by_namespace, by_pod],
    }
    groups = kinds.groups()
    checked = [{"operations": ["CREATE", "UPDATE"], "apiGroups": groups, "apiVersions": ["*"], "resources": ["*"]}]
    validating = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": f"istio-validator-{NAMESPACE}", "labels": {"app": "istiod", "release": "istio"}},
        "webhooks": [_hook("validation.istio.io", "/validate", checked, timeoutSeconds=10)],
    }
    return [mutating, validating]


def _gateway(given: Json, ingress: bool) -> list[Json]:
    name, k8s = str(given["name"]), given.get("k8s") or {}
    role = "ingressgateway" if ingress else "egressgateway"
    labels = given.get("label") or {"app": name, "istio": role}
    namespace = _namespace(given)
    account = f"{name}-service-account"
    listed = dig(k8s, "service", "ports") or (profiles.INGRESS_PORTS if ingress else profiles.EGRESS_PORTS)
    kind = dig(k8s, "service", "type", default="LoadBalancer" if ingress else "ClusterIP")
    service_ports = [{"protocol": "TCP", **p} for p in jsons.copy({"p": listed})["p"]]
    workload = Workload(name, namespace, "Deployment", "apps/v1")
    context = parts.Context({}, namespace, workload, pods.settings(image=PROXY_IMAGE), {})
    env = [*parts.environment(context, limits=False), *(k8s.get("env") or [])]
    container = {
        "name": "istio-proxy",
        "image": PROXY_IMAGE,
        "env": env,
        "volumeMounts": parts.mounts(),
        "args": [
            "proxy",
            "router",
            "--domain",
            "$(POD_NAMESPACE).svc.cluster.local",
            "--proxyLogLevel=warning",
            "--proxyComponentLogLevel=misc:error",
        ],
        "ports": [
            *({"containerPort": p["targetPort"], "protocol": "TCP"} for p in service_ports),
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
        "resources": _resources(k8s.get("resources"), {"requests": {"cpu": "100m", "memory": "128Mi"}}),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsUser": ports.PROXY_UID,
            "runAsGroup": ports.PROXY_UID,
            "runAsNonRoot": True,
        },
    }
    pod_labels = {
        **labels,
        "service.istio.io/canonical-name": name,
        "service.istio.io/canonical-revision": "latest",
        "istio.io/rev": "default",
        "sidecar.istio.io/inject": "false",
    }
    template = {
        "metadata": {
            "labels": pod_labels,
            "annotations": {
                "prometheus.io/scrape": "true",
                "prometheus.io/port": str(ports.MERGED_METRICS),
                "prometheus.io/path": "/stats/prometheus",
            },
        },
        "spec": {
            "serviceAccountName": account,
            "containers": [container],
            "volumes": parts.volumes(),
            "securityContext": {"fsGroup": ports.PROXY_UID},
        },
    }
    meta = {"namespace": namespace, "labels": {**labels, "release": "istio", "istio.io/rev": "default"}}
    elsewhere = [] if namespace == NAMESPACE else _granted("istiod-secrets", namespace, [_READ_SECRETS])
    return [
        *elsewhere,
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, **meta}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, **meta},
            "spec": {"type": kind, "selector": labels, "ports": service_ports},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, **meta},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": template,
                "strategy": {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "25%"}},
            },
        },
    ]
