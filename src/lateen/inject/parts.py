"""What the templates share: a proxy's environment, volumes, resources, and how annotations are interpreted.

Names and values are Istio's, because tools and users look for them; the conformance runner's golden cases check them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lateen.api.domain import service_suffix
from lateen.inject import workload as w
from lateen.inject.settings import Settings
from lateen.kit import jsons, yamldoc
from lateen.kit.jsons import Json, dig
from lateen.wire import ports

PROXY = "istio-proxy"
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
"""ProxyConfig values that need not be passed to a pod (Istio's ``mesh.DefaultProxyConfig``)."""
_RESOURCES = (
    ("requests", "cpu", "proxyCPU"),
    ("requests", "memory", "proxyMemory"),
    ("limits", "cpu", "proxyCPULimit"),
    ("limits", "memory", "proxyMemoryLimit"),
)


@dataclass(frozen=True)
class Context:
    """The input of a template. ``pod`` is without what an earlier injection has added."""

    pod: Json
    namespace: str
    workload: w.Workload
    settings: Settings
    config: Json
    """The pod's complete ProxyConfig: the mesh's, the workload's, its annotation's."""

    @property
    def annotations(self) -> dict[str, str]:
        return {k: str(v) for k, v in dig(self.pod, "metadata", "annotations", default={}).items()}

    @property
    def labels(self) -> dict[str, str]:
        return {k: str(v) for k, v in dig(self.pod, "metadata", "labels", default={}).items()}

    @property
    def containers(self) -> list[Json]:
        return list(dig(self.pod, "spec", "containers", default=[]))

    @property
    def applications(self) -> list[str]:
        return [str(c.get("name")) for c in self.containers if c.get("name") != PROXY]

    def annotation(self, name: str, default: Any) -> str:
        """A missing value of the installation is an empty string."""
        return self.annotations.get(name, text(default))

    @property
    def mode(self) -> str:
        """REDIRECT, TPROXY or NONE."""
        return self.annotation("sidecar.istio.io/interceptionMode", self.config.get("interceptionMode") or "REDIRECT")

    @property
    def hold(self) -> bool:
        return bool(
            self.config.get("holdApplicationUntilProxyStarts") or self.settings.proxy("holdApplicationUntilProxyStarts")
        )

    @property
    def native(self) -> bool:
        """Whether the proxy is a native sidecar: an init container that keeps running."""
        said = self.annotations.get("sidecar.istio.io/nativeSidecar")
        wanted = self.settings.native if said is None else said.lower() != "false"
        return wanted and self.settings.native_supported

    @property
    def metadata(self) -> dict[str, str]:
        return {str(k): str(v) for k, v in (self.config.get("proxyMetadata") or {}).items()}

    @property
    def status_port(self) -> str:
        """The agent's port: the annotation's, else the ProxyConfig's, else the installation's; 0 turns it off."""
        default = self.config.get("statusPort") or self.settings.proxy("statusPort") or 0
        return self.annotation("status.sidecar.istio.io/port", default)


def text(value: Any) -> str:
    """As Go's templates print it."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def proxy_config(pod: Json, settings: Settings) -> Json:
    """The mesh's ``defaultConfig`` with the pod's annotation on top; nested maps are merged, lists replaced.
    Raises ValueError if the annotation cannot be parsed (``api.annotations`` checks its fields)."""
    out = jsons.copy(settings.default_config)
    if given := dig(pod, "metadata", "annotations", default={}).get("proxy.istio.io/config"):
        try:
            found = yamldoc.load(str(given)) or {}
        except yamldoc.YamlError as e:
            raise ValueError(f"the annotation proxy.istio.io/config cannot be parsed: {e}") from e
        if not isinstance(found, dict):
            raise ValueError("the annotation proxy.istio.io/config must be a mapping")
        out = _under(out, {_camel(k): v for k, v in found.items() if v is not None})
    return out


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(p.title() for p in rest)


def _under(base: Json, given: Json) -> Json:
    out = dict(base)
    for key, value in given.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _under(out[key], value) if both else value
    return out


def told(config: Json, settings: Settings) -> str:
    """PROXY_CONFIG: what differs from the defaults, as one line of JSON."""
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
    """The proxy's identity, and where it gets its certificate."""
    return [
        env("PILOT_CERT_PROVIDER", settings.of_global("pilotCertProvider") or "istiod"),
        env("CA_ADDR", settings.istiod),
        field_env("POD_NAME", "metadata.name"),
        field_env("POD_NAMESPACE", "metadata.namespace"),
        field_env("INSTANCE_IP", "status.podIP"),
        field_env("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        field_env("HOST_IP", "status.hostIP"),
    ]


def environment(c: Context, limits: bool = True, mode: bool = True) -> list[Json]:
    """A proxy's variables, in Istio's order."""
    s = c.settings
    out = identity(s)
    if limits:
        out.append(limit_env("ISTIO_CPU_LIMIT", "limits.cpu"))
    out += [env("PROXY_CONFIG", told(c.config, s)), env("ISTIO_META_POD_PORTS", pod_ports(c.containers))]
    out.append(env("ISTIO_META_APP_CONTAINERS", ",".join(c.applications)))
    if limits:
        out.append(limit_env("GOMEMLIMIT", "limits.memory"))
    out.append(env("ISTIO_META_CLUSTER_ID", s.cluster_name))
    if limits:
        out.append(field_env("ISTIO_META_NODE_NAME", "spec.nodeName"))
    if mode:
        out.append(env("ISTIO_META_INTERCEPTION_MODE", c.mode))
    if network := c.labels.get("topology.istio.io/network") or s.of_global("network"):
        out.append(env("ISTIO_META_NETWORK", network))
    out += [
        env("ISTIO_META_WORKLOAD_NAME", w.display_name(c.labels, c.workload)),
        env("ISTIO_META_OWNER", c.workload.owner),
    ]
    if "sidecar.istio.io/bootstrapOverride" in c.annotations:
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


def resources(c: Context) -> Json:
    """The pod's annotations if it has any, else the installation's; None in the latter means none."""
    asked = {(part, unit): c.annotations.get(f"sidecar.istio.io/{name}") for part, unit, name in _RESOURCES}
    if any(v is not None for v in asked.values()):
        out: Json = {}
        for (part, unit), value in asked.items():
            if value is not None:
                out.setdefault(part, {})[unit] = value
        return out
    given = c.settings.proxy("resources") or {}
    parts = {part: {k: text(v) for k, v in (given.get(part) or {}).items() if v is not None} for part in given}
    return {part: found for part, found in parts.items() if found}


def image(c: Context, own: str = "") -> str:
    """A complete address from the annotation, ``own`` (the installation's for this container) or
    ``values.global.proxy.image``, else hub, name, tag and image type.
    Source: https://istio.io/latest/docs/ops/configuration/security/harden-docker-images/."""
    s = c.settings
    name = c.annotation("sidecar.istio.io/proxyImage", own if "/" in own else s.proxy("image") or "proxyv2")
    if "/" in name:
        return name
    kind = c.annotations.get("sidecar.istio.io/proxyImageType") or dig(c.config, "image", "imageType") or s.image_type
    if s.image and not kind:
        return s.image
    return image_of(str(s.of_global("hub")), s.proxy("image") or "proxyv2", text(s.of_global("tag")), str(kind or ""))


def image_of(hub: str, name: str, tag: str, kind: str) -> str:
    if kind:
        tag = next((tag.removesuffix(f"-{k}") for k in ("distroless", "debug") if tag.endswith(f"-{k}")), tag)
        tag = tag if kind == "default" else f"{tag}-{kind}"
    return f"{hub}/{name}:{tag}"


def log_arguments(c: Context) -> list[str]:
    s = c.settings
    level = c.annotation("sidecar.istio.io/agentLogLevel", s.of_global("logging", "level") or "default:info")
    components = c.annotation("sidecar.istio.io/componentLogLevel", s.proxy("componentLogLevel"))
    out = [f"--proxyLogLevel={c.annotation('sidecar.istio.io/logLevel', s.proxy('logLevel') or 'warning')}"]
    outliers = s.proxy("outlierLogPath")
    out += [f"--proxyComponentLogLevel={components}", f"--log_output_level={level}", *json_log(c)]
    return [*out, *([f"--outlierLogPath={outliers}"] if outliers else [])]


def json_log(c: Context) -> list[str]:
    return ["--log_as_json"] if c.settings.of_global("logAsJson") else []


def arguments(c: Context, kind: str) -> list[str]:
    return [
        "proxy",
        kind,
        "--domain",
        f"$(POD_NAMESPACE){service_suffix(c.settings.cluster_domain)}",
        *log_arguments(c),
    ]


def readiness(c: Context, port: int = ports.HEALTH) -> Json:
    def value(name: str) -> int:
        return int(c.annotation(f"readiness.status.sidecar.istio.io/{name}", _installed(c, name)) or 0)

    out: Json = {"httpGet": {"path": "/healthz/ready", "port": port}, "timeoutSeconds": 3}
    for name in ("initialDelaySeconds", "periodSeconds", "failureThreshold"):
        if number := value(name):
            out[name] = number
    return out


def _installed(c: Context, name: str) -> Any:
    return c.settings.proxy(f"readiness{name[0].upper()}{name[1:]}")


def pull(c: Context) -> Json:
    policy = c.settings.of_global("imagePullPolicy")
    return {"imagePullPolicy": policy} if policy else {}


def mounts(crl: bool = False) -> list[Json]:
    """The volumes of the agent and Envoy."""
    out = [
        {"name": "workload-socket", "mountPath": "/var/run/secrets/workload-spiffe-uds"},
        {"name": "credential-socket", "mountPath": "/var/run/secrets/credential-uds"},
        {"name": "workload-certs", "mountPath": "/var/run/secrets/workload-spiffe-credentials"},
        {"name": "istiod-ca-cert", "mountPath": "/var/run/secrets/istio"},
    ]
    if crl:
        out.append({"name": "istio-ca-crl", "mountPath": "/var/run/secrets/istio/crl"})
    return [
        *out,
        {"name": "istio-data", "mountPath": "/var/lib/istio/data"},
        {"name": "istio-envoy", "mountPath": "/etc/istio/proxy"},
        {"name": "istio-token", "mountPath": "/var/run/secrets/tokens"},
        {"name": "istio-podinfo", "mountPath": "/etc/istio/pod"},
    ]


def volumes(crl: bool = False, envoy: str = "istio-envoy") -> list[Json]:
    """The volumes of a sidecar's sockets are not ``emptyDir``, so that another template (SPIRE) can give them a source;
    by default, the API server makes them ``emptyDir``."""
    own: Json = {} if crl or envoy != "istio-envoy" else {"emptyDir": {}}
    out: list[Json] = [{"name": "workload-socket"}, {"name": "credential-socket", **own}]
    out.append({"name": "workload-certs", **own})
    out += [
        {"name": envoy, "emptyDir": {"medium": "Memory"}},
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
        token_volume(),
        {"name": "istiod-ca-cert", "configMap": {"name": "istio-ca-root-cert"}},
    ]
    if crl:
        out.append({"name": "istio-ca-crl", "configMap": {"name": "istio-ca-crl", "optional": True}})
    return out


def token_volume() -> Json:
    source = {"serviceAccountToken": {"path": "istio-token", "audience": "istio-ca", "expirationSeconds": 43200}}
    return {"name": "istio-token", "projected": {"sources": [source]}}


def user_items(c: Context, name: str) -> list[Json]:
    """``sidecar.istio.io/userVolume`` and ``userVolumeMount``: JSON, by volume name. Raises ValueError."""
    given = c.annotations.get(f"sidecar.istio.io/{name}")
    if not given:
        return []
    found = jsons.loads(given)
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise ValueError(f"annotation sidecar.istio.io/{name}: expected a JSON object of volumes by name")
    return [{"name": k, **v} for k, v in found.items()]


def pull_secrets(c: Context) -> Json:
    names = c.settings.of_global("imagePullSecrets") or []
    return {"imagePullSecrets": [{"name": n} for n in names]} if names else {}


def default_containers(c: Context) -> Json:
    """The container that ``kubectl logs`` and ``exec`` use by default."""
    out: Json = {}
    for name in ("kubectl.kubernetes.io/default-logs-container", "kubectl.kubernetes.io/default-container"):
        if c.applications and name not in c.annotations:
            out[name] = c.applications[0]
    return out


def canonical(c: Context) -> Json:
    return {
        w.CANONICAL_NAME: w.canonical_name(c.labels, c.workload.name),
        w.CANONICAL_REVISION: w.canonical_revision(c.labels),
    }
