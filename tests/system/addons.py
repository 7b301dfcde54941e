"""Add-ons under the names, labels and images of those that Istio ships in its own samples/addons, no more of each than
what meets ours or the cluster."""

import json

NAMESPACE = "istio-system"
PROMETHEUS = {
    "app.kubernetes.io/component": "server",
    "app.kubernetes.io/name": "prometheus",
    "app.kubernetes.io/instance": "prometheus",
}
KIALI = {f"app.kubernetes.io/{k}": "kiali" for k in ("name", "instance")}
CONFIG = """
scrape_configs:
- job_name: kubernetes-pods
  kubernetes_sd_configs: [{role: pod}]
  relabel_configs:
  - {action: keep, regex: true, source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape]}
  - action: replace
    regex: (\\d+);((([0-9]+?)(\\.|$)){4})
    replacement: $2:$1
    source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_port, __meta_kubernetes_pod_ip]
    target_label: __address__
  - source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_path]
    action: replace
    regex: (.+)
    target_label: __metrics_path__
"""


def _meta(name):
    return {"name": name, "namespace": NAMESPACE}


def _deployment(name, labels, containers, more=None, volumes=()):
    spec = {"containers": containers, "volumes": list(volumes), **({"serviceAccountName": more} if more else {})}
    template = {"metadata": {"labels": {**labels, "sidecar.istio.io/inject": "false"}}, "spec": spec}
    wanted = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": _meta(name), "spec": wanted}


def _service(name, labels, *ports):
    found = [{"name": n, "port": p, "targetPort": t} for n, p, t in ports]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta(name),
        "spec": {"ports": found, "selector": labels},
    }


def _role(name, resources):
    rule = {"apiGroups": [""], "resources": resources, "verbs": ["get", "list", "watch"]}
    api = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta(name)},
        {"apiVersion": f"{api}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": [rule]},
        {
            "apiVersion": f"{api}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": name},
            "subjects": [subject],
        },
    ]


def prometheus():
    mount = {"name": "config-volume", "mountPath": "/etc/config"}
    reload = {
        "name": "prometheus-server-configmap-reload",
        "image": "ghcr.io/prometheus-operator/prometheus-config-reloader:v0.86.1",
        "args": [
            "--watched-dir=/etc/config",
            "--listen-address=0.0.0.0:8080",
            "--reload-url=http://127.0.0.1:9090/-/reload",
        ],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
        "volumeMounts": [mount],
    }
    server = {
        "name": "prometheus-server",
        "image": "prom/prometheus:v3.7.3",
        "args": ["--config.file=/etc/config/prometheus.yml", "--storage.tsdb.path=/data", "--web.enable-lifecycle"],
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": 9090}, "periodSeconds": 1},
        "volumeMounts": [mount, {"name": "storage-volume", "mountPath": "/data"}],
    }
    volumes = [
        {"name": "config-volume", "configMap": {"name": "prometheus"}},
        {"name": "storage-volume", "emptyDir": {}},
    ]
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _meta("prometheus"),
        "data": {"prometheus.yml": CONFIG},
    }
    return [
        *_role("prometheus", ["nodes", "services", "endpoints", "pods"]),
        config,
        _service("prometheus", PROMETHEUS, ("http", 9090, 9090)),
        _deployment("prometheus", PROMETHEUS, [reload, server], "prometheus", volumes),
    ]


def jaeger():
    labels = {"app": "jaeger"}
    probe = {"httpGet": {"path": "/status", "port": 13133}, "periodSeconds": 1}
    container = {
        "name": "jaeger",
        "image": "docker.io/jaegertracing/jaeger:2.17.0",
        "args": ["--config", "/jaeger-configuration/config.yaml"],
        "readinessProbe": probe,
        "volumeMounts": [{"name": "data", "mountPath": "/badger"}],
    }
    return [
        _deployment("jaeger", labels, [container], None, [{"name": "data", "emptyDir": {}}]),
        _service("tracing", labels, ("http-query", 80, 16686), ("grpc-query", 16685, 16685)),
        _service("zipkin", labels, ("http-query", 9411, 9411)),
        _service(
            "jaeger-collector",
            labels,
            ("http-zipkin", 9411, 9411),
            ("grpc-otel", 4317, 4317),
            ("http-otel", 4318, 4318),
        ),
    ]


def zipkin():
    labels = {"app": "zipkin"}
    probe = {"httpGet": {"path": "/health", "port": 9411}, "periodSeconds": 1}
    container = {"name": "zipkin", "image": "docker.io/openzipkin/zipkin-slim:2.23.0", "readinessProbe": probe}
    return [
        _deployment("zipkin", labels, [container]),
        _service("tracing", labels, ("http-query", 80, 9411)),
        _service("zipkin", labels, ("http-query", 9411, 9411)),
    ]


def kiali():
    container = {"name": "kiali", "image": "quay.io/kiali/kiali:v2.5", "command": ["/opt/kiali/kiali"]}
    return [
        *_role("kiali", ["pods"]),
        _service("kiali", KIALI, ("http", 20001, 20001), ("http-metrics", 9090, 9090)),
        _deployment("kiali", KIALI, [container], "kiali"),
    ]


def grafana():
    labels = {"app.kubernetes.io/name": "grafana", "app.kubernetes.io/instance": "grafana"}
    return [
        _service("grafana", labels, ("service", 3000, 3000)),
        _deployment("grafana", labels, [{"name": "grafana", "image": "docker.io/grafana/grafana:12.0.1"}]),
    ]


def manifest(objects):
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
