"""The single place where objects are interpreted: full host names, which pods have or request a proxy, the protocol of
a Service's port. Pure, over plain JSON.

Sources: https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection/ and
https://istio.io/latest/docs/setup/additional-setup/sidecar-injection/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lateen.api.domain import CLUSTER_DOMAIN, CLUSTER_NAME, service_host
from lateen.kit import jsons
from lateen.kit.jsons import Json, dig

PROXY = "istio-proxy"
INJECT, INJECTION, REVISION = "sidecar.istio.io/inject", "istio-injection", "istio.io/rev"
DISTRIBUTION = "networking.istio.io/traffic-distribution"
ALLOCATION = "networking.istio.io/enable-autoallocate-ip"
PROTOCOLS = (
    "grpc",
    "grpc-web",
    "hbone",
    "http",
    "http2",
    "http_proxy",
    "https",
    "mongo",
    "mysql",
    "redis",
    "tcp",
    "tls",
    "udp",
)
APP_PROTOCOLS = {"kubernetes.io/h2c": "http2", "kubernetes.io/ws": "http", "kubernetes.io/wss": "https"}
SERVER_FIRST = (25, 53, 3306, 27017)
"""Ports of server-first protocols, where detection would wait in vain for the client's first bytes."""


_NEAR = {"preferclose": "zone", "prefersamezone": "zone", "prefersamenode": "node"}


def near(field: str, annotation: str) -> str:
    """``Service.near`` by a Service's ``trafficDistribution``, else by the annotation of that name.
    Source: ``GetTrafficDistribution`` in pilot/pkg/model of Istio."""
    return _NEAR.get(field.lower()) or (_NEAR.get(annotation.lower(), "any") if annotation else "")


HOST_PORTS = "lateen.dev/host-ports"
"""Annotation of a Service in the embedded cluster, ``80=8080,443=8443``: its ports and the host ports forwarded to
them; 0 if no port was free."""


def outside(service: Json) -> dict[str, str]:
    """A LoadBalancer Service's port -> ``host:port`` at which it is reached from outside of the cluster; empty until an
    address is assigned."""
    point = dig(service, "status", "loadBalancer", "ingress", 0, default={})
    host = point.get("hostname") or point.get("ip")
    if not host:
        return {}
    given = str(dig(service, "metadata", "annotations", HOST_PORTS, default=""))
    ports = dict(pair.split("=") for pair in given.split(",") if "=" in pair)
    listed = {str(p["port"]): str(p["port"]) for p in dig(service, "spec", "ports", default=[])}
    return {port: f"{host}:{found}" for port, found in (ports or listed).items()}


def full_host(host: str, namespace: str, domain: str) -> str:
    """The full name of a host in a rule of ``namespace``: a short name is a service of the rule's own namespace."""
    return host if "." in host or host == "*" else service_host(host, namespace, domain)


def allocates(labels: Mapping[str, str]) -> bool:
    """Whether addresses are allocated for the hosts of a ServiceEntry with these labels if it has none."""
    return str(labels.get(ALLOCATION, "")).lower() != "false"


def cluster_domain(values: Json) -> str:
    """The DNS domain of a cluster, from the values of its installation."""
    return str(dig(values, "global", "proxy", "clusterDomain") or CLUSTER_DOMAIN)


def cluster_name(values: Json) -> str:
    """The name of a cluster in the mesh, from the values of its installation."""
    return str(dig(values, "global", "multiCluster", "clusterName") or CLUSTER_NAME)


def injector_values(config_map: Json | None) -> Json:
    """The installation's values from its ConfigMap ``istio-sidecar-injector``; empty if it has no valid ones."""
    try:
        found = jsons.loads(dig(config_map or {}, "data", "values") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


WITHOUT_ENVOY = "DISABLE_ENVOY"
"""The environment variable of an agent that runs no Envoy"""


def containers(pod_spec: Json) -> Iterator[Json]:
    """All containers, including init containers, of which a native sidecar is one."""
    for field in ("containers", "initContainers"):
        yield from (c for c in pod_spec.get(field) or () if isinstance(c, dict))


def has_proxy(pod: Json) -> bool:
    """Whether the pod has a sidecar or a gateway's proxy."""
    return any(c.get("name") == PROXY for c in containers(pod.get("spec") or {}))


def has_envoy(pod: Json) -> bool:
    """Whether the pod has a proxy that is more than the agent of an application's gRPC library."""
    found = (c for c in containers(pod.get("spec") or {}) if c.get("name") == PROXY)
    return any(all(e.get("name") != WITHOUT_ENVOY for e in c.get("env") or ()) for c in found)


def is_gateway(pod: Json) -> bool:
    """Whether the pod's proxy is a gateway's."""
    return any("router" in (c.get("args") or []) for c in containers(pod.get("spec") or {}))


def is_terminating(pod: Json) -> bool:
    return bool(dig(pod, "metadata", "deletionTimestamp"))


def is_ready(pod: Json) -> bool:
    found = dig(pod, "status", "conditions", default=[])
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in found)


def is_finished(pod: Json) -> bool:
    return dig(pod, "status", "phase") in ("Succeeded", "Failed")


def opted(labels: Mapping[str, str], annotations: Mapping[str, str]) -> bool | None:
    """A pod's own choice about injection, by its label, otherwise by its annotation; None if it has neither. As in
    Istio (``pkg/kube/inject``), only the exact values "true" and "false" count."""
    return {"true": True, "false": False}.get(str(labels.get(INJECT, annotations.get(INJECT, ""))))


def asks_for_sidecar(namespace: Mapping[str, str], labels: Mapping[str, str], annotations: Mapping[str, str]) -> bool:
    """Whether pods with these labels get a sidecar in a namespace with those: ``istio-injection`` takes precedence over
    ``istio.io/rev``, and the pod's own choice over both, except over ``istio-injection: disabled``."""
    own = opted(labels, annotations)
    if own is False or namespace.get(INJECTION) == "disabled":
        return False
    return bool(own or namespace.get(INJECTION) == "enabled" or REVISION in namespace or labels.get(REVISION))


def declared_protocol(number: int, transport: str, name: str, app_protocol: str) -> str:
    """What a port of a Service declares, one of PROTOCOLS: by its appProtocol, else by its name, each up to
    its first hyphen, else by a well-known number. Empty if it declares nothing, so that the protocol is detected.
    Source: ``ConvertProtocol`` in pkg/config/kube of Istio."""
    if transport == "UDP":
        return "udp"
    text = (app_protocol or name).lower()
    if app_protocol and text in APP_PROTOCOLS:
        return APP_PROTOCOLS[text]
    first = "grpc-web" if text.startswith("grpc-web") else text.partition("-")[0]
    if first in PROTOCOLS:
        return first
    return "tcp" if number in SERVER_FIRST else ""


def port_protocol(port: Json) -> str:
    """``declared_protocol`` of a port in a Service's specification."""
    transport, name, app = (str(port.get(k) or "") for k in ("protocol", "name", "appProtocol"))
    return declared_protocol(port.get("port") or 0, transport or "TCP", name, app)
