"""The templates for applications that speak xDS themselves: ``grpc-agent`` and ``grpc-simple``. No Envoy and no
redirection; the application's gRPC library reads the bootstrap file named by GRPC_XDS_BOOTSTRAP."""

from __future__ import annotations

from lateen.api.reading import WITHOUT_ENVOY
from lateen.inject import environment, parts, volumes
from lateen.inject.context import PROXY, Context
from lateen.kit.jsons import Json
from lateen.wire import ports

AGENT, SIMPLE = NAMES = "grpc-agent", "grpc-simple"
"""The names of the templates"""
BOOTSTRAP_VOLUME = "grpc-io-proxyless-bootstrap"
DATA = "/var/lib/grpc/data/"


def agent(c: Context) -> Json:
    """An agent that keeps the certificate and bootstrap file up to date."""
    labels = parts.canonical(c)
    revision = {"istio.io/rev": c.settings.revision or "default"}
    annotations = {**revision, **parts.default_containers(c), "sidecar.istio.io/rewriteAppHTTPProbers": "false"}
    spec: Json = {
        "containers": [_agent(c), *(_application(name) for name in c.applications)],
        "volumes": [v for v in volumes.volumes(envoy="istio-xds") if v["name"] != "credential-socket"]
        + volumes.user_items(c, "userVolume"),
        **parts.pull_secrets(c),
    }
    return {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}


def _application(name: str) -> Json:
    return {
        "name": name,
        "env": [
            environment.env("GRPC_XDS_EXPERIMENTAL_SECURITY_SUPPORT", "true"),
            environment.env("GRPC_XDS_BOOTSTRAP", "/etc/istio/proxy/grpc-bootstrap.json"),
        ],
        "volumeMounts": [
            {"name": "istio-data", "mountPath": "/var/lib/istio/data"},
            {"name": "istio-xds", "mountPath": "/etc/istio/proxy"},
            {"name": "workload-certs", "mountPath": "/var/run/secrets/workload-spiffe-credentials"},
        ],
    }


def _agent(c: Context) -> Json:
    ready = f"--url=http://localhost:{ports.MERGED_METRICS}/healthz/ready"
    mounts = [{**m, "name": "istio-xds"} if m["name"] == "istio-envoy" else m for m in volumes.mounts()]
    out: Json = {
        "name": PROXY,
        "image": parts.image(c),
        "ports": [{"containerPort": ports.MERGED_METRICS, "name": "mesh-metrics", "protocol": "TCP"}],
        "args": parts.arguments(c, "sidecar"),
        "lifecycle": {"postStart": {"exec": {"command": ["pilot-agent", "wait", ready]}}},
        "env": [
            environment.env("ISTIO_META_GENERATOR", "grpc"),
            environment.env("OUTPUT_CERTS", "/var/lib/istio/data"),
            *environment.environment(c, limits=False, mode=False),
            environment.env("ISTIO_META_DNS_CAPTURE", "false"),
            environment.env(WITHOUT_ENVOY, "true"),
        ],
        **parts.pull(c),
        "resources": parts.resources(c),
        "volumeMounts": [
            *(m for m in mounts if m["name"] != "credential-socket"),
            *volumes.user_items(c, "userVolumeMount"),
        ],
    }
    if c.status_port != "0":
        out["readinessProbe"] = parts.readiness(c, ports.MERGED_METRICS)
    return out


def simple(c: Context) -> Json:
    """A bootstrap file that is written once, before the application starts. Istio's has no credentials, which our
    istiod requires: this one has a certificate, which is valid for a day and not renewed."""
    init: Json = {
        "name": "grpc-bootstrap-init",
        "image": parts.image(c),
        "args": ["grpc-bootstrap", f"--output={DATA}bootstrap.json"],
        "env": [*environment.identity(c.settings), environment.env("TRUST_DOMAIN", c.settings.trust_domain)],
        "volumeMounts": [
            {"name": BOOTSTRAP_VOLUME, "mountPath": DATA},
            {"name": "istio-token", "mountPath": "/var/run/secrets/tokens"},
            {"name": "istiod-ca-cert", "mountPath": "/var/run/secrets/istio"},
        ],
    }
    applications = [
        {
            "name": name,
            "env": [
                environment.env("GRPC_XDS_BOOTSTRAP", f"{DATA}bootstrap.json"),
                environment.env("GRPC_GO_LOG_VERBOSITY_LEVEL", "99"),
                environment.env("GRPC_GO_LOG_SEVERITY_LEVEL", "info"),
            ],
            "volumeMounts": [{"name": BOOTSTRAP_VOLUME, "mountPath": DATA}],
        }
        for name in c.applications
    ]
    held: list[Json] = [
        {"name": BOOTSTRAP_VOLUME, "emptyDir": {}},
        volumes.token_volume(),
        {"name": "istiod-ca-cert", "configMap": {"name": "istio-ca-root-cert"}},
    ]
    return {
        "metadata": {"annotations": {"sidecar.istio.io/rewriteAppHTTPProbers": "false"}},
        "spec": {"initContainers": [init], "containers": applications, "volumes": held},
    }
