"""The environment variables of a proxy.

Names and values are Istio's, because tools and users look for them; the conformance runner's golden cases check them.
"""

from __future__ import annotations

from typing import Any

from lateen.api.decoding import NETWORK
from lateen.inject import workload as w
from lateen.inject.context import PROXY, Context, text
from lateen.inject.settings import Settings
from lateen.kit import jsons
from lateen.kit.jsons import Json, dig
from lateen.wire import ports

DEFAULT_CONFIG: Json = {
    "configPath": "./etc/istio/proxy",
    "binaryPath": "/usr/local/bin/envoy",
    "controlPlaneAuthPolicy": "MUTUAL_TLS",
    "serviceCluster": "istio-proxy",
    "drainDuration": "45s",
    "terminationDrainDuration": "5s",
    "proxyAdminPort": ports.ADMIN,
    "statNameLength": 189,
    "statusPort": ports.MERGED_METRICS,
    "proxyMetadata": {},
    "interceptionMode": "REDIRECT",
}
"""ProxyConfig values that are not passed to pods (Istio's ``mesh.DefaultProxyConfig``)."""
BOOTSTRAP = "sidecar.istio.io/bootstrapOverride"


def told(config: Json, settings: Settings) -> str:
    """PROXY_CONFIG: the values that differ from the defaults, as one line of JSON."""
    default = {**DEFAULT_CONFIG, "discoveryAddress": settings.istiod}
    return jsons.dumps({k: v for k, v in config.items() if default.get(k) != v}).decode() + "\n"


def pod_ports(containers: list[Json]) -> str:
    """ISTIO_META_POD_PORTS: one port per line."""
    order = ("name", "hostPort", "containerPort", "protocol", "hostIP")
    found = [
        jsons.dumps({k: p[k] for k in order if p.get(k)}).decode() for c in containers for p in c.get("ports") or []
    ]
    return "[\n" + "".join(f"    {',' if i else ''}{p}\n" for i, p in enumerate(found)) + "]"


def field_env(name: str, path: str) -> Json:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def env(name: str, value: Any) -> Json:
    return {"name": name, "value": text(value)}


def limit_env(name: str, resource: str) -> Json:
    return {"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": "1"}}}


def identity(settings: Settings) -> list[Json]:
    """Variables for the proxy's identity and certificate provider."""
    return [
        env("PILOT_CERT_PROVIDER", settings.of_global("pilotCertProvider") or "istiod"),
        env("CA_ADDR", settings.istiod),
        field_env("POD_NAME", "metadata.name"),
        field_env("POD_NAMESPACE", "metadata.namespace"),
        field_env("INSTANCE_IP", "status.podIP"),
        field_env("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        field_env("HOST_IP", "status.hostIP"),
    ]


def network(c: Context) -> str:
    """The pod's network: its label's, otherwise the installation's; injected pods have the label."""
    return str(c.labels.get(NETWORK) or c.settings.of_global("network") or "")


def ordered(given: list[Json], c: Context) -> list[Json]:
    """A proxy's variables in the order of Istio's injector, which sets cluster and network, where they are known, and
    those of the webhook's URL after everything else, by name."""
    last = ["ISTIO_META_NETWORK"]
    if c.settings.of_global("multiCluster", "clusterName"):
        last.append("ISTIO_META_CLUSTER_ID")
    found = {e["name"]: e for e in given if e.get("name") in last}
    found |= {name: env(name, value) for name, value in c.settings.environment.items()}
    return [*(e for e in given if e.get("name") not in found), *(found[name] for name in sorted(found))]


def environment(c: Context, limits: bool = True, mode: bool = True, bootstrap: bool = False) -> list[Json]:
    """All variables of a proxy, in the order of Istio's templates. ``bootstrap``: with the path of the user's part of
    Envoy's bootstrap, if the pod asks for one."""
    s = c.settings
    out = identity(s)
    if limits:
        out.append(limit_env("ISTIO_CPU_LIMIT", "limits.cpu"))
    out += [env("PROXY_CONFIG", told(c.config, s)), env("ISTIO_META_POD_PORTS", pod_ports(c.containers))]
    out.append(env("ISTIO_META_APP_CONTAINERS", ",".join(c.applications)))
    if limits:
        out.append(limit_env("GOMEMLIMIT", "limits.memory"))
    out.append(env("ISTIO_META_CLUSTER_ID", s.cluster_name))
    out.append(field_env("ISTIO_META_NODE_NAME", "spec.nodeName"))
    if mode:
        out.append(env("ISTIO_META_INTERCEPTION_MODE", c.mode))
    if found := network(c):
        out.append(env("ISTIO_META_NETWORK", found))
    out += [
        env("ISTIO_META_WORKLOAD_NAME", w.display_name(c.labels, c.workload)),
        env("ISTIO_META_OWNER", c.workload.owner),
    ]
    if bootstrap and BOOTSTRAP in c.annotations:
        out.append(env("ISTIO_BOOTSTRAP_OVERRIDE", "/etc/istio/custom-bootstrap/custom_bootstrap.json"))
    out += [
        env("ISTIO_META_MESH_ID", s.of_global("meshID") or c.config.get("meshId") or s.trust_domain),
        env("TRUST_DOMAIN", s.trust_domain),
        *_telemetry(c),
        *(env(k, v) for k, v in sorted(c.metadata.items())),
    ]
    return out


def _telemetry(c: Context) -> list[Json]:
    """OTEL_RESOURCE_ATTRIBUTES, if a provider uses OpenTelemetry's semantic conventions for resources."""
    wanted = any(
        dig(p, "opentelemetry", "serviceAttributeEnrichment") == "OTEL_SEMANTIC_CONVENTIONS"
        for p in c.settings.mesh.get("extensionProviders") or []
    )
    if not wanted:
        return []
    namespace = c.namespace or "default"
    names = ("resource.opentelemetry.io/service.version", "app.kubernetes.io/version", "version")
    version = next((v for n in names if (v := c.annotations.get(n) or c.labels.get(n))), "")
    container = (c.applications or [PROXY])[0]
    parts = {
        "service.namespace": namespace,
        "service.version": version,
        "service.instance.id": f"{namespace}.$(POD_NAME).{container}",
    }
    return [env("OTEL_RESOURCE_ATTRIBUTES", ",".join(f"{k}={v}" for k, v in parts.items() if v))]
