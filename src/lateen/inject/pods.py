"""A pod without a sidecar in, a pod with one out. Pure; the webhook and ``kube-inject`` share it.

What is added is Istio's: istio-init with its arguments, istio-proxy with its environment, ports, probe and volumes,
the labels and annotations that other tools look for. The proxy comes first and holds the application until it is
ready (Istio's ``holdApplicationUntilProxyStarts``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lateen import __version__
from lateen.api.objects import owner
from lateen.kit import jsons, yamldoc
from lateen.kit.jsons import Json, dig
from lateen.wire import ports

INJECT = "sidecar.istio.io/inject"
SKIPPED_NAMESPACES = ("kube-system", "kube-public", "kube-node-lease", "local-path-storage")
VOLUMES = ("istio-envoy", "istio-data", "istio-podinfo", "istio-token", "istiod-ca-cert")


@dataclass(frozen=True)
class Settings:
    """What the installation decides."""

    image: str = f"docker.io/lateen/proxyv2:{__version__}"
    revision: str = "default"
    trust_domain: str = "cluster.local"
    istio_namespace: str = "istio-system"
    requests: tuple[tuple[str, str], ...] = (("cpu", "10m"), ("memory", "40Mi"))
    limits: tuple[tuple[str, str], ...] = (("cpu", "2"), ("memory", "1Gi"))
    hold: bool = True
    concurrency: int = 2
    environment: tuple[tuple[str, str], ...] = ()
    """For the proxy, from the mesh's defaultConfig and ProxyConfigs; a pod's own annotation goes before."""


def settings(image: str, resources: Json, trust_domain: str, istio_namespace: str) -> Settings:
    """With the installation's ``values.global.proxy.resources`` where they are given."""
    default = Settings()
    requests = {**dict(default.requests), **(resources.get("requests") or {})}
    limits = {**dict(default.limits), **(resources.get("limits") or {})}
    return Settings(
        image=image,
        trust_domain=trust_domain,
        istio_namespace=istio_namespace,
        requests=tuple(sorted(requests.items())),
        limits=tuple(sorted(limits.items())),
    )


def wanted(pod: Json, namespace: str) -> bool:
    """Whether a pod gets a sidecar, once its namespace's or its own label has selected it."""
    if dig(pod, "spec", "hostNetwork") or namespace in SKIPPED_NAMESPACES:
        return False
    choice = dig(pod, "metadata", "labels", INJECT) or dig(pod, "metadata", "annotations", INJECT)
    if choice is not None and str(choice).lower() in ("false", "n", "no", "off"):
        return False
    return not any(c.get("name") == "istio-proxy" for c in dig(pod, "spec", "containers", default=[]))


def inject(pod: Json, namespace: str, settings: Settings) -> Json:
    """The pod with its sidecar; the given one is not changed. Raises ValueError for annotations that cannot be read."""
    out = jsons.copy(pod)
    meta, spec = out.setdefault("metadata", {}), out["spec"]
    annotations = meta.setdefault("annotations", {})
    labels = meta.setdefault("labels", {})
    workload = owner({"metadata": {**meta, "namespace": namespace}})
    app = labels.get("app.kubernetes.io/name") or labels.get("app") or workload
    labels.setdefault("security.istio.io/tlsMode", "istio")
    labels.setdefault("service.istio.io/canonical-name", str(app)[:63])
    labels.setdefault(
        "service.istio.io/canonical-revision",
        labels.get("app.kubernetes.io/version") or labels.get("version") or "latest",
    )
    labels.setdefault("istio.io/rev", settings.revision)
    own_metrics = _own_metrics(pod)
    _scrape(annotations)
    containers = spec.get("containers") or []
    if containers:
        annotations.setdefault("kubectl.kubernetes.io/default-container", containers[0]["name"])
    config = _config(out)
    env = dict(settings.environment) | {str(k): str(v) for k, v in (config.get("proxyMetadata") or {}).items()}
    hold = config.get("holdApplicationUntilProxyStarts", settings.hold) is not False
    concurrency = config.get("concurrency", settings.concurrency)
    settings = replace(settings, environment=tuple(sorted(env.items())), hold=hold, concurrency=concurrency)
    proxy = _proxy(out, workload, namespace, settings, own_metrics, config)
    spec["containers"] = [proxy, *containers] if settings.hold else [*containers, proxy]
    spec["initContainers"] = [*(spec.get("initContainers") or []), _init(settings, annotations)]
    spec["volumes"] = [*(spec.get("volumes") or []), *volumes()]
    spec.setdefault("securityContext", {}).setdefault("fsGroup", ports.PROXY_UID)
    annotations["sidecar.istio.io/status"] = jsons.dumps(
        {
            "initContainers": ["istio-init"],
            "containers": ["istio-proxy"],
            "volumes": list(VOLUMES),
            "imagePullSecrets": None,
            "revision": settings.revision,
        }
    ).decode()
    return out


def _scrape(annotations: Json) -> None:
    """Prometheus shall scrape the merged metrics; the application's own place is handed to the agent."""
    if str(annotations.get("prometheus.io/scrape", "true")).lower() == "false":
        return
    annotations |= {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(ports.MERGED_METRICS),
        "prometheus.io/path": "/stats/prometheus",
    }


def _resources(settings: Settings) -> Json:
    return {"limits": dict(settings.limits), "requests": dict(settings.requests)}


def _init(settings: Settings, annotations: Json) -> Json:
    """Istio's own arguments."""

    def value(name: str, default: str) -> str:
        return str(annotations.get(f"traffic.sidecar.istio.io/{name}", default))

    excluded = ",".join(str(p) for p in ports.EXCLUDED_INBOUND)
    given = value("excludeInboundPorts", "")
    arguments = [
        "istio-iptables",
        "-p",
        str(ports.OUTBOUND),
        "-z",
        str(ports.INBOUND),
        "-u",
        str(ports.PROXY_UID),
        "-m",
        "REDIRECT",
        "-i",
        value("includeOutboundIPRanges", "*"),
        "-x",
        value("excludeOutboundIPRanges", ""),
        "-b",
        value("includeInboundPorts", "*"),
        "-d",
        f"{excluded},{given}" if given else excluded,
    ]
    if outbound := value("excludeOutboundPorts", ""):
        arguments += ["-o", outbound]
    if dict(settings.environment).get("ISTIO_META_DNS_CAPTURE") == "true":
        arguments.append("--redirect-dns=true")
    return {
        "name": "istio-init",
        "image": settings.image,
        "args": arguments,
        "resources": _resources(settings),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
            "readOnlyRootFilesystem": False,
            "runAsGroup": 0,
            "runAsNonRoot": False,
            "runAsUser": 0,
        },
    }


def _field(name: str, path: str) -> Json:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def environment(settings: Settings, proxy_config: str) -> list[Json]:
    """What every proxy is told, sidecar or gateway."""
    return [
        {"name": "JWT_POLICY", "value": "third-party-jwt"},
        {"name": "PILOT_CERT_PROVIDER", "value": "istiod"},
        {"name": "CA_ADDR", "value": f"istiod.{settings.istio_namespace}.svc:{ports.XDS}"},
        _field("POD_NAME", "metadata.name"),
        _field("POD_NAMESPACE", "metadata.namespace"),
        _field("INSTANCE_IP", "status.podIP"),
        _field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        _field("HOST_IP", "status.hostIP"),
        _field("CANONICAL_SERVICE", "metadata.labels['service.istio.io/canonical-name']"),
        _field("CANONICAL_REVISION", "metadata.labels['service.istio.io/canonical-revision']"),
        {"name": "PROXY_CONFIG", "value": proxy_config},
        {"name": "ISTIO_META_CLUSTER_ID", "value": "Kubernetes"},
        {"name": "ISTIO_META_INTERCEPTION_MODE", "value": "REDIRECT"},
        {"name": "ISTIO_META_MESH_ID", "value": settings.trust_domain},
        {"name": "TRUST_DOMAIN", "value": settings.trust_domain},
    ]


def _config(pod: Json) -> Json:
    """The pod's own ProxyConfig, from its annotation."""
    config: Any = {}
    if text := dig(pod, "metadata", "annotations", default={}).get("proxy.istio.io/config"):
        try:
            config = yamldoc.load(str(text)) or {}
        except yamldoc.YamlError as e:
            raise ValueError(f"the annotation proxy.istio.io/config cannot be read: {e}") from e
        if not isinstance(config, dict) or not isinstance(config.get("proxyMetadata") or {}, dict):
            raise ValueError("the annotation proxy.istio.io/config must be a mapping")
        if not isinstance(config.get("concurrency", 0), int):
            raise ValueError("the annotation proxy.istio.io/config: concurrency must be a number")
    return dict(config)


def _proxy(pod: Json, workload: str, namespace: str, settings: Settings, own_metrics: str, config: Json) -> Json:
    meta, spec = pod["metadata"], pod["spec"]
    app_ports = [p for c in spec.get("containers") or [] for p in c.get("ports") or []]
    kind = "deployments" if any(r.get("kind") == "ReplicaSet" for r in meta.get("ownerReferences") or []) else "pods"
    group = "apps/v1" if kind == "deployments" else "v1"
    env = environment(settings, jsons.dumps(config).decode())
    env += [
        {"name": "ISTIO_META_POD_PORTS", "value": jsons.dumps(app_ports).decode()},
        {"name": "ISTIO_META_APP_CONTAINERS", "value": ",".join(c["name"] for c in spec.get("containers") or [])},
        {"name": "ISTIO_META_WORKLOAD_NAME", "value": workload},
        {"name": "ISTIO_META_OWNER", "value": f"kubernetes://apis/{group}/namespaces/{namespace}/{kind}/{workload}"},
    ]
    env += [{"name": k, "value": v} for k, v in settings.environment]
    if own_metrics:
        env.append({"name": "ISTIO_PROMETHEUS_ANNOTATIONS", "value": own_metrics})
    out: Json = {
        "name": "istio-proxy",
        "image": settings.image,
        "env": env,
        "resources": _resources(settings),
        "args": [
            "proxy",
            "sidecar",
            "--domain",
            "$(POD_NAMESPACE).svc.cluster.local",
            "--proxyLogLevel=warning",
            "--proxyComponentLogLevel=misc:error",
            "--concurrency",
            str(settings.concurrency),
        ],
        "ports": [{"containerPort": ports.ENVOY_METRICS, "name": "http-envoy-prom", "protocol": "TCP"}],
        "readinessProbe": {
            "httpGet": {"path": "/healthz/ready", "port": ports.HEALTH},
            "initialDelaySeconds": 1,
            "periodSeconds": 2,
            "timeoutSeconds": 3,
            "failureThreshold": 30,
        },
        "lifecycle": {
            "preStop": {"exec": {"command": ["pilot-agent", "request", "--debug-port=15020", "POST", "drain"]}}
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsGroup": ports.PROXY_UID,
            "runAsNonRoot": True,
            "runAsUser": ports.PROXY_UID,
        },
        "volumeMounts": mounts(),
    }
    if settings.hold:
        out["lifecycle"]["postStart"] = {"exec": {"command": ["pilot-agent", "wait"]}}
    return out


def _own_metrics(pod: Json) -> str:
    """Where the application serves its own metrics, as the agent wants it; from the original annotations."""
    given = dig(pod, "metadata", "annotations", default={})
    port = given.get("prometheus.io/port")
    if not port or str(port) == str(ports.MERGED_METRICS):
        return ""
    return jsons.dumps({"port": str(port), "path": given.get("prometheus.io/path", "/metrics")}).decode()


def mounts() -> list[Json]:
    return [
        {"name": "istiod-ca-cert", "mountPath": "/var/run/secrets/istio"},
        {"name": "istio-data", "mountPath": "/var/lib/istio/data"},
        {"name": "istio-envoy", "mountPath": "/etc/istio/proxy"},
        {"name": "istio-token", "mountPath": "/var/run/secrets/tokens"},
        {"name": "istio-podinfo", "mountPath": "/etc/istio/pod"},
    ]


def volumes() -> list[Json]:
    """Also for gateways."""
    return [
        {"name": "istio-envoy", "emptyDir": {"medium": "Memory"}},
        {"name": "istio-data", "emptyDir": {}},
        {
            "name": "istio-podinfo",
            "downwardAPI": {
                "items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                    {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}},
                ]
            },
        },
        {
            "name": "istio-token",
            "projected": {
                "sources": [
                    {"serviceAccountToken": {"path": "istio-token", "audience": "istio-ca", "expirationSeconds": 43200}}
                ]
            },
        },
        {"name": "istiod-ca-cert", "configMap": {"name": "istio-ca-root-cert"}},
    ]


def patch(before: Json, after: Json) -> list[Json]:
    """The JSON patch between a pod and its injected form: whole top-level parts, which is short and exact."""
    out: list[Json] = []
    for part in ("metadata", "spec"):
        if part not in before:
            out.append({"op": "add", "path": f"/{part}", "value": after[part]})
            continue
        for key, value in after[part].items():
            if before[part].get(key) != value:
                out.append(
                    {"op": "replace" if key in before[part] else "add", "path": f"/{part}/{key}", "value": value}
                )
    return out
