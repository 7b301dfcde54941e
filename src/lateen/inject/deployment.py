"""The objects deployed for a Gateway of the Gateway API: a service account, a Service, and a Deployment of proxies.

Names, labels, annotations and ports are Istio's. Source:
https://istio.io/latest/docs/tasks/traffic-management/ingress/gateway-api/#automated-deployment and
https://gateway-api.sigs.k8s.io/geps/gep-1867/ (infrastructure labels, annotations and parameters). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lateen.api.canonical import MAX_LABEL
from lateen.inject import pods, structure
from lateen.inject.context import PROXY
from lateen.inject.merge import merge
from lateen.inject.settings import Settings
from lateen.inject.workload import Workload
from lateen.kit import yamldoc
from lateen.kit.jsons import Json, dig
from lateen.wire import ports
from lateen.wire.revision import LABEL, Revision

ENABLED = "PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER"
"""istiod's environment variable (true or false), as in Istio; with false, istiod needs no permission to deploy."""
GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name"
"""The label that names the Gateway to which objects and pods belong."""
CLASS_NAME = "gateway.networking.k8s.io/gateway-class-name"
MANAGED, MANAGER = "gateway.istio.io/managed", "istio.io-gateway-controller"
NAME_OVERRIDE, ACCOUNT_OVERRIDE = "gateway.istio.io/name-override", "gateway.istio.io/service-account"
SERVICE_TYPE = "networking.istio.io/service-type"
CLASS_DEFAULTS = "gateway.istio.io/defaults-for-class"
"""The label of a ConfigMap in the root namespace with parameters for all Gateways of a class."""
FRONTS = ("Gateway", "ListenerSet")
SERVICE_TYPES = ("LoadBalancer", "ClusterIP", "NodePort")
_OWN = ("kubectl.kubernetes.io/last-applied-configuration", NAME_OVERRIDE, ACCOUNT_OVERRIDE, SERVICE_TYPE)
"""Annotations of the Gateway that are not passed on to its objects."""
OVERLAYS = {
    "deployment": "Deployment",
    "service": "Service",
    "serviceAccount": "ServiceAccount",
    "horizontalPodAutoscaler": "HorizontalPodAutoscaler",
    "podDisruptionBudget": "PodDisruptionBudget",
}
"""Keys of a parameters ConfigMap -> the object over which the value (YAML) is merged."""
ON_DEMAND = ("HorizontalPodAutoscaler", "PodDisruptionBudget")
"""What is only there if there are parameters for it."""


class Unusable(ValueError):
    """The Gateway's annotations or parameters are invalid; the message says why."""


class BadParameters(Unusable):
    """The Gateway's ``parametersRef`` is invalid."""


def reader(revision: Revision) -> str:
    """The ClusterRole that lets istiod read Secrets in the namespaces where it is bound."""
    return revision.of("istiod-certificates")


def writer(revision: Revision) -> str:
    """The ClusterRole that lets istiod write Secrets with certificates in the namespaces where it is bound."""
    return revision.of("istiod-issuing")


def reads_secrets(spec: Json) -> bool:
    """Whether a Gateway refers to Secrets: its listeners' certificates, or its client certificate for backends."""
    listeners = spec.get("listeners") or []
    refs = [r for li in listeners for r in dig(li, "tls", "certificateRefs", default=[])]
    return bool(refs) or dig(spec, "tls", "backend", "clientCertificateRef") is not None


def shares_secrets(grant: Json) -> bool:
    """Whether a ReferenceGrant permits Gateways in another namespace to use Secrets of its own."""
    group = "gateway.networking.k8s.io"
    given = any(f.get("group") == group and f.get("kind") in FRONTS for f in dig(grant, "spec", "from", default=[]))
    return given and any(t.get("kind") == "Secret" for t in dig(grant, "spec", "to", default=[]))


def reading_secrets(owner: Json, name: str, role: str, account: str, root: str) -> Json:
    """The RoleBinding that lets istiod read or write Secrets in the namespace of ``owner``, as long as that exists.
    ``owner``: an object with its kind; ``role``: see ``reader`` and ``writer``; ``account``: istiod's, in namespace
    ``root``."""
    meta = owner["metadata"]
    ref = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"], "uid": meta["uid"]}
    rbac = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{rbac}/v1",
        "kind": "RoleBinding",
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "labels": {MANAGED: MANAGER},
            "ownerReferences": [ref],
        },
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": root}],
    }


def is_managed(spec: Json) -> bool:
    """Whether proxies are deployed for a Gateway. One whose address is a host name is manual: it is served by the
    proxies of the Service with that name. An IP address is requested for the Service of the deployed proxies."""
    return all(a.get("type", "IPAddress") == "IPAddress" for a in spec.get("addresses") or [])


def name_of(gateway: Json) -> str:
    """The name of the Deployment and the Service."""
    given = dig(gateway, "metadata", "annotations", NAME_OVERRIDE)
    return str(given or f"{gateway['metadata']['name']}-{dig(gateway, 'spec', 'gatewayClassName', default='')}")


def objects(
    gateway: Json, settings: Settings, parameters: Iterable[Json] = (), more: Sequence[Json] = ()
) -> list[Json]:
    """Service account, Service and Deployment, and what is made on demand, in the order in which they are applied.
    ``parameters``: the ``data`` of ConfigMaps, of which later ones take precedence; ``more``: listeners of
    ListenerSets. Raises Unusable."""
    name = name_of(gateway)
    if len(name) > MAX_LABEL:
        raise Unusable(
            f"the name {name} of its Service would be longer than {MAX_LABEL} characters; "
            f"choose a shorter one with the annotation {NAME_OVERRIDE}"
        )
    account = str(dig(gateway, "metadata", "annotations", ACCOUNT_OVERRIDE) or name)
    made = {
        "ServiceAccount": {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta(gateway, account)},
        "Service": _service(gateway, name, more),
        "Deployment": _deployment(gateway, name, account),
        "HorizontalPodAutoscaler": _autoscaler(gateway, name),
        "PodDisruptionBudget": _budget(gateway, name),
    }
    asked = set()
    for data in parameters:
        _overlay(made, data)
        asked |= {OVERLAYS[key] for key in data}
    deployment = made["Deployment"]
    template = dig(deployment, "spec", "template", default={})
    workload = Workload(name, gateway["metadata"]["namespace"], "Deployment", "apps/v1")
    injected = pods.inject(template, workload.namespace, settings, workload)
    made["Deployment"] = {**deployment, "spec": {**deployment["spec"], "template": injected}}
    return [obj for kind, obj in made.items() if kind in asked or kind not in ON_DEMAND]


def _overlay(made: dict[str, Json], data: Json) -> None:
    for key, text in data.items():
        if key not in OVERLAYS:
            raise Unusable(f'parameters cannot have the key "{key}"; possible keys are {", ".join(OVERLAYS)}')
        try:
            patch = yamldoc.load(str(text)) or {}
        except yamldoc.YamlError as e:
            raise Unusable(f"{key} of its parameters cannot be parsed: {e}") from e
        if not isinstance(patch, dict):
            raise Unusable(f"{key} of its parameters must be a mapping")
        kind = OVERLAYS[key]
        typed = {field: made[kind][field] for field in ("apiVersion", "kind")}
        for field, own in typed.items():  # else istiod would write whatever it may, such as a RoleBinding
            if patch.get(field, own) != own:
                raise Unusable(f"{key} of its parameters must have the {field} {own}, or none")
        kept = {k: v for k, v in made[kind]["metadata"].items() if k not in ("labels", "annotations")}
        merged = {**merge(made[kind], patch), **typed}
        if wrong := structure.problem(merged):
            raise Unusable(f"{key} of its parameters: {wrong}")
        made[kind] = {**merged, "metadata": {**(merged.get("metadata") or {}), **kept}}


def _handed_down(gateway: Json, what: str) -> dict[str, str]:
    """``labels`` or ``annotations`` for all objects: the infrastructure's, otherwise the Gateway's own."""
    given = dig(gateway, "spec", "infrastructure", what)
    if given is None:
        given = {k: v for k, v in dig(gateway, "metadata", what, default={}).items() if k not in _OWN}
    return {str(k): str(v) for k, v in given.items()}


def _labels(gateway: Json) -> dict[str, str]:
    return {
        **_handed_down(gateway, "labels"),
        GATEWAY_NAME: str(gateway["metadata"]["name"])[:MAX_LABEL],
        CLASS_NAME: str(dig(gateway, "spec", "gatewayClassName", default="")),
        MANAGED: MANAGER,
    }


def _meta(gateway: Json, name: str) -> Json:
    meta = gateway["metadata"]
    return {
        "name": name,
        "namespace": meta["namespace"],
        "labels": _labels(gateway),
        "annotations": _handed_down(gateway, "annotations"),
        "ownerReferences": [
            {
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "name": meta["name"],
                "uid": meta["uid"],
            }
        ],
    }


def _selector(gateway: Json) -> dict[str, str]:
    return {GATEWAY_NAME: str(gateway["metadata"]["name"])[:MAX_LABEL]}


def _service(gateway: Json, name: str, more: Sequence[Json]) -> Json:
    wanted = str(dig(gateway, "metadata", "annotations", SERVICE_TYPE) or SERVICE_TYPES[0])
    if wanted not in SERVICE_TYPES:
        raise Unusable(f'the annotation {SERVICE_TYPE} is "{wanted}"; possible values are {", ".join(SERVICE_TYPES)}')
    spec: Json = {"type": wanted, "selector": _selector(gateway), "ports": service_ports(gateway["spec"], more)}
    addresses = dig(gateway, "spec", "addresses", default=[])
    if wanted == "LoadBalancer" and addresses and addresses[0].get("value"):
        spec["loadBalancerIP"] = str(addresses[0]["value"])
    return {"apiVersion": "v1", "kind": "Service", "metadata": _meta(gateway, name), "spec": spec}


def _autoscaler(gateway: Json, name: str) -> Json:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": _meta(gateway, name),
        "spec": {"scaleTargetRef": target, "maxReplicas": 1},
    }


def _budget(gateway: Json, name: str) -> Json:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _meta(gateway, name),
        "spec": {"selector": {"matchLabels": _selector(gateway)}},
    }


def service_ports(spec: Json, more: Sequence[Json] = ()) -> list[Json]:
    """The port for health checks of load balancers, then the listeners' ports in their order; ``more``: listeners of
    ListenerSets."""
    out: dict[tuple[int, str], Json] = {
        (ports.HEALTH, "TCP"): {"name": "status-port", "port": ports.HEALTH, "protocol": "TCP", "appProtocol": "tcp"}
    }
    names = {"status-port"}
    for listener in [*(spec.get("listeners") or []), *more]:
        number, protocol = int(listener.get("port") or 0), str(listener.get("protocol"))
        transport = "UDP" if protocol == "UDP" else "TCP"
        if not 0 < number < 65536 or (number, transport) in out:
            continue
        name = _port_name(str(listener.get("name")), number, transport, names)
        made = {"name": name, "port": number, "protocol": transport}
        if transport == "TCP":
            made["appProtocol"] = protocol.lower()
        out[number, transport] = made
    return list(out.values())


def _port_name(listener: str, number: int, transport: str, names: set[str]) -> str:
    """A unique port name of at most 63 characters, without dots."""
    name = listener.replace(".", "-")[:MAX_LABEL].rstrip("-")
    if name in names or not name:
        name = f"{transport.lower()}-{number}"
    names.add(name)
    return name


def _deployment(gateway: Json, name: str, account: str) -> Json:
    annotations = {
        **_handed_down(gateway, "annotations"),
        "inject.istio.io/templates": "gateway",
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(ports.MERGED_METRICS),
        "prometheus.io/path": "/stats/prometheus",
    }
    labels = {
        "service.istio.io/canonical-name": name,
        "service.istio.io/canonical-revision": "latest",
        **{k: v for k, v in _labels(gateway).items() if k != LABEL},
        "sidecar.istio.io/inject": "false",  # the template is complete: injection is not needed
    }
    proxy: Json = {
        "name": PROXY,
        "image": pods.AUTO_IMAGE,
        "startupProbe": {
            "httpGet": {"path": "/healthz/ready", "port": ports.HEALTH},
            "initialDelaySeconds": 1,
            "periodSeconds": 1,
            "timeoutSeconds": 1,
            "failureThreshold": 30,
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta(gateway, name),
        "spec": {
            "selector": {"matchLabels": _selector(gateway)},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": {"serviceAccountName": account, "containers": [proxy]},
            },
        },
    }
