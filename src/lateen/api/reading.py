"""What single objects say, read in one way by everyone: full host names, who has a proxy, who asks for one, which
protocol a port of a Service names. Pure, over plain JSON.

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
ALLOCATION = "networking.istio.io/enable-autoallocate-ip"
PROTOCOLS = (
    "http",
    "http2",
    "https",
    "tcp",
    "tls",
    "grpc",
    "grpc-web",
    "mongo",
    "mysql",
    "redis",
    "udp",
    "hbone",
    "http-proxy",
    "https-proxy",
)
APP_PROTOCOLS = (*PROTOCOLS, "kubernetes.io/h2c", "kubernetes.io/ws", "kubernetes.io/wss")
WELL_KNOWN = (22, 25, 53, 3306, 27017)
"""Ports that are taken as TCP without a name."""


HOST_PORTS = "lateen.dev/host-ports"
"""On a Service of the embedded cluster: ``80=8080,443=8443``, its ports and the host ports forwarded to them; 0 where
no port was free."""


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
    """A host as a rule of ``namespace`` writes it: a short name is a service of the rule's own namespace."""
    return host if "." in host or host == "*" else service_host(host, namespace, domain)


def allocates(labels: Mapping[str, str]) -> bool:
    """Whether the hosts of a ServiceEntry with these labels get addresses where they have none."""
    return str(labels.get(ALLOCATION, "")).lower() != "false"


def cluster_domain(values: Json) -> str:
    """The DNS domain of a cluster, by the values of its installation."""
    return str(dig(values, "global", "proxy", "clusterDomain") or CLUSTER_DOMAIN)


def cluster_name(values: Json) -> str:
    """What a cluster is called in the mesh, by the values of its installation."""
    return str(dig(values, "global", "multiCluster", "clusterName") or CLUSTER_NAME)


def injector_values(config_map: Json | None) -> Json:
    """The installation's values, as its ConfigMap ``istio-sidecar-injector`` has them; empty where it has none that can
    be read."""
    try:
        found = jsons.loads(dig(config_map or {}, "data", "values") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def containers(pod_spec: Json) -> Iterator[Json]:
    """All containers, init containers included: a native sidecar is one of those."""
    for field in ("containers", "initContainers"):
        yield from (c for c in pod_spec.get(field) or () if isinstance(c, dict))


def has_proxy(pod: Json) -> bool:
    """Whether a sidecar or a gateway's proxy runs in the pod."""
    return any(c.get("name") == PROXY for c in containers(pod.get("spec") or {}))


def is_terminating(pod: Json) -> bool:
    return bool(dig(pod, "metadata", "deletionTimestamp"))


def is_finished(pod: Json) -> bool:
    return dig(pod, "status", "phase") in ("Succeeded", "Failed")


def opted(labels: Mapping[str, str], annotations: Mapping[str, str]) -> bool | None:
    """What a pod itself says about injection, its label before its annotation; None where it says nothing. Like Istio
    (``pkg/kube/inject``), this takes "true" and "false" spelled so; anything else says nothing."""
    return {"true": True, "false": False}.get(str(labels.get(INJECT, annotations.get(INJECT, ""))))


def asks_for_sidecar(namespace: Mapping[str, str], labels: Mapping[str, str], annotations: Mapping[str, str]) -> bool:
    """Whether pods with these labels get a sidecar in a namespace with those: ``istio-injection`` is stronger than
    ``istio.io/rev``, and the pod's own choice than both, but not than ``istio-injection: disabled``."""
    own = opted(labels, annotations)
    if own is False or namespace.get(INJECTION) == "disabled":
        return False
    return bool(own or namespace.get(INJECTION) == "enabled" or REVISION in namespace or labels.get(REVISION))


def names_protocol(port: Json) -> bool:
    """Whether a port of a Service says its protocol, by appProtocol, by its name, or by a well-known number."""
    if port.get("protocol") == "UDP":
        return True
    if port.get("appProtocol"):
        return str(port["appProtocol"]).lower() in APP_PROTOCOLS
    name = str(port.get("name") or "").lower()
    if any(name == p or name.startswith(f"{p}-") for p in PROTOCOLS):
        return True
    return not name and port.get("port") in WELL_KNOWN
