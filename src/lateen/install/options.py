"""The fields of an IstioOperator: their types, and which of them have an effect.

Source: istio.io/istio ``operator/pkg/apis/types.go``. ``values`` are those of Istio's Helm charts and are not typed.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lateen.api.config import Config
from lateen.api.crds import EXPERIMENTAL
from lateen.api.effective import general, leaves
from lateen.inject import settings as injection
from lateen.inject.deployment import ENABLED as DEPLOYS_GATEWAYS
from lateen.install.k8s import SERVICE
from lateen.kit.jsons import Json, dig


class ServicePort(Config):
    port: int
    name: str = ""
    target_port: Any = None
    protocol: str = ""
    node_port: int | None = None
    app_protocol: str = ""


class ServiceOptions(Config):
    type: str = ""
    ports: tuple[ServicePort, ...] = ()
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    external_ips: tuple[str, ...] = msgspec.field(default=(), name="externalIPs")
    external_name: str = ""
    external_traffic_policy: str = ""
    health_check_node_port: int | None = None
    ip_families: tuple[str, ...] = ()
    ip_family_policy: str = ""
    load_balancer_ip: str = msgspec.field(default="", name="loadBalancerIP")
    load_balancer_source_ranges: tuple[str, ...] = ()
    publish_not_ready_addresses: bool | None = None
    selector: dict[str, str] = {}
    session_affinity: str = ""


class Variable(Config):
    name: str
    value: Any = None
    value_from: Any = None


class KubernetesOptions(Config):
    affinity: Any = None
    env: tuple[Variable, ...] = ()
    hpa_spec: dict[str, Any] = {}
    image_pull_policy: str = ""
    node_selector: dict[str, str] = {}
    pod_disruption_budget: dict[str, Any] = {}
    pod_annotations: dict[str, str] = {}
    priority_class_name: str = ""
    readiness_probe: Any = None
    replica_count: int | None = None
    resources: dict[str, Any] = {}
    service: ServiceOptions | None = None
    strategy: dict[str, Any] = {}
    tolerations: tuple[Any, ...] = ()
    service_annotations: dict[str, str] = {}
    deployment_annotations: dict[str, str] = {}
    security_context: dict[str, Any] = {}
    volumes: tuple[Any, ...] = ()
    volume_mounts: tuple[Any, ...] = ()
    topology_spread_constraints: tuple[Any, ...] = ()
    service_account: Any = None
    overlays: tuple[Any, ...] = ()


class Usage(Config):
    target_average_utilization: int | None = None


class PodValues(Config):
    """Values of Istio's charts that ask for the same (``values.pilot``, ``values.gateways.NAME``, ``values.cni``)."""

    affinity: Any = None
    autoscale_behavior: Any = None
    autoscale_enabled: bool | None = None
    autoscale_max: int | None = None
    autoscale_min: int | None = None
    cpu: Usage | None = None
    deployment_labels: dict[str, str] = {}
    init_containers: tuple[Any, ...] = ()
    node_selector: dict[str, str] = {}
    pod_annotations: dict[str, str] = {}
    pod_labels: dict[str, str] = {}
    replica_count: int | None = None
    resources: dict[str, Any] = {}
    service_annotations: dict[str, str] = {}
    tolerations: tuple[Any, ...] = ()
    topology_spread_constraints: tuple[Any, ...] = ()
    volumes: tuple[Any, ...] = ()
    volume_mounts: tuple[Any, ...] = ()


class GlobalValues(Config):
    """Of ``values.global``."""

    image_pull_policy: str = ""
    image_pull_secrets: tuple[Any, ...] = ()
    priority_class_name: str = ""


PODS: dict[str, type[Config]] = {
    "global": GlobalValues,
    **dict.fromkeys(("pilot", "cni", "gateways.istio-ingressgateway", "gateways.istio-egressgateway"), PodValues),
}
"""Values that become fields of Kubernetes' objects -> their types; others in the same place are not typed."""


class Component(Config):
    enabled: bool | None = None
    namespace: str = ""
    hub: str = ""
    tag: Any = None
    spec: Any = None
    k8s: KubernetesOptions | None = None


class GatewayComponent(Config):
    name: str
    enabled: bool | None = None
    namespace: str = ""
    label: dict[str, str] = {}
    hub: str = ""
    tag: Any = None
    k8s: KubernetesOptions | None = None


class Components(Config):
    base: Component | None = None
    pilot: Component | None = None
    cni: Component | None = None
    ztunnel: Component | None = None
    istiod_remote: Component | None = None
    ingress_gateways: tuple[GatewayComponent, ...] = ()
    egress_gateways: tuple[GatewayComponent, ...] = ()


class Operator(Config):
    """The ``spec`` of an IstioOperator; ``meshConfig`` has types of its own (``lateen.api.mesh``)."""

    profile: str = ""
    install_package_path: str = ""
    hub: str = ""
    tag: Any = None
    namespace: str = ""
    revision: str = ""
    compatibility_version: str = ""
    default_revision: str = ""
    mesh_config: Any = None
    components: Components | None = None
    values: dict[str, Any] = {}
    unvalidated_values: dict[str, Any] = {}


VARIABLES = (
    "BLOCKED_CIDRS_IN_JWKS_URIS",
    "CERT_SIGNER_DOMAIN",
    "CITADEL_ENABLE_JITTER_FOR_ROOT_CERT_ROTATOR",
    "CITADEL_SELF_SIGNED_CA_CERT_TTL",
    "CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL",
    "CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE",
    "DEFAULT_WORKLOAD_CERT_TTL",
    "ENABLE_NATIVE_SIDECARS",
    "EXTERNAL_CA",
    "EXTERNAL_ISTIOD",
    EXPERIMENTAL,
    "K8S_SIGNER",
    "LATEEN_ROOT_ANNOUNCED_FOR",
    "MAX_WORKLOAD_CERT_TTL",
    DEPLOYS_GATEWAYS,
    "PILOT_FILTER_GATEWAY_CLUSTER_CONFIG",
    "PILOT_INSECURE_MULTICLUSTER_KUBECONFIG_OPTIONS",
    "PILOT_JWT_PUB_KEY_REFRESH_INTERVAL",
    "PILOT_SCOPE_GATEWAY_TO_NAMESPACE",
    "PROXY_IMAGE",
    "TRUST_DOMAIN",
    "WASM_INSECURE_REGISTRIES",
)
"""istiod's environment variables that have an effect."""

_POD = (
    "affinity.**",
    "imagePullPolicy",
    "nodeSelector{}",
    "podAnnotations{}",
    "priorityClassName",
    "readinessProbe.**",
    "resources{}",
    "securityContext{}",
    "tolerations",
    "topologySpreadConstraints",
    "volumeMounts",
    "volumes",
)
"""Of ``k8s``: what has an effect on each component."""
_DEPLOYMENT = {
    **dict.fromkeys(_POD, ""),
    "deploymentAnnotations{}": "",
    "hpaSpec{}": "a HorizontalPodAutoscaler; `metrics` default to 80 % of the requested CPU",
    "podDisruptionBudget{}": "`selector` defaults to the Deployment's",
    "replicaCount": "",
    "serviceAnnotations{}": "",
    "strategy{}": "",
    **{f"service.{name}": "" for name in SERVICE},
}
_GATEWAY = {
    "name": "",
    "enabled": "",
    "namespace": "",
    "label{}": "labels and selector of its pods",
    "k8s.env[].**": "",
    **{f"k8s.{name}": note for name, note in _DEPLOYMENT.items()},
    "k8s.service.type": "",
    "k8s.service.ports[].**": "`targetPort` defaults to `port`",
}
_MAPPINGS = ("affinity", "deploymentLabels", "nodeSelector", "podAnnotations", "podLabels", "resources")
_LISTS = ("initContainers", "tolerations", "topologySpreadConstraints", "volumeMounts", "volumes")
_VALUES = (
    "autoscaleEnabled",
    "autoscaleMin",
    "autoscaleMax",
    "autoscaleBehavior.**",
    "cpu.targetAverageUtilization",
    "replicaCount",
    "rollingMaxSurge",
    "rollingMaxUnavailable",
    "serviceAnnotations.**",
    *(f"{name}.**" for name in _MAPPINGS),
    *_LISTS,
)
"""Of ``values.pilot`` and a gateway's: what asks for the same as ``k8s``."""
_COMPONENTS = ("pilot", "gateways.istio-ingressgateway", "gateways.istio-egressgateway")
EFFECTIVE: dict[str, str] = {
    "hub": "registry and path of the images",
    "tag": "the images' tag",
    "profile": "",
    "revision": "a control plane alongside others, see *Revisions*",
    "components.pilot.enabled": "",
    "components.cni.enabled": "the CNI plugin, instead of istio-init",
    **{f"components.cni.k8s.{name}": "" for name in _POD},
    "components.istiodRemote.enabled": "the control plane is in another cluster, see *Several clusters*",
    "values.istiodRemote.injectionPath": "path of the webhook; by default it contains the cluster's name and network",
    "values.istiodRemote.injectionURL": "URL of the webhook, instead of the Service `istiod`",
    "values.global.remotePilotAddress": "the address of the other cluster's control plane",
    "values.global.externalIstiod": "also serve the proxies of other clusters",
    "values.cni.cniBinDir": "",
    "values.cni.cniConfDir": "",
    "values.cni.excludeNamespaces[]": "",
    "values.cni.repair.enabled": "delete pods that have started without redirection",
    "components.pilot.k8s.env[].**": f"only {', '.join(VARIABLES)}",
    **{f"components.pilot.k8s.{name}": note for name, note in _DEPLOYMENT.items()},
    **{f"components.{k}[].{f}": note for k in ("ingressGateways", "egressGateways") for f, note in _GATEWAY.items()},
    **{f"values.pilot.env.{name}": "" for name in VARIABLES},
    **{f"values.{component}.{name}": "" for component in _COMPONENTS for name in _VALUES},
    "values.global.defaultPodDisruptionBudget.enabled": "of istiod and of each gateway",
    "values.global.priorityClassName": "of istiod's pods and of gateways",
    "values.cni.affinity.**": "",
    "values.cni.podAnnotations.**": "",
    "values.cni.tolerations": "",
    **{f"values.{name}": "" for name in injection.EFFECTIVE},
    "values.global.meshNetworks.**": "MeshNetworks: the networks of clusters, and their gateways",
}
"""Field -> remark. Every other field of an IstioOperator except ``meshConfig`` is accepted with a warning."""

SAME: dict[str, tuple[Any, ...]] = {
    "namespace": ("istio-system",),
    "components.base.enabled": (True,),
    "components.ztunnel.enabled": (False,),
    "values.global.istioNamespace": ("istio-system",),
}
"""Values of other fields that ask for the default behaviour, and therefore cause no warning."""


def has_effect(path: str) -> bool:
    form = general(path)
    return any(form == e or (e.endswith(".**") and f"{form}.".startswith(e[:-2])) for e in EFFECTIVE)


def ineffective(spec: Json) -> list[str]:
    """Paths of fields of a valid specification that are set and have no effect, ``meshConfig`` apart."""
    typed = {k: v for k, v in spec.items() if k not in ("meshConfig", "values", "unvalidatedValues")}
    untyped = {k: v for k, v in spec.items() if k in ("values", "unvalidatedValues") and v}
    found = [*leaves(Operator, typed), *untyped.items()]
    out = [
        at
        for path, value in found
        for at, leaf in _plain(path, value)
        if not has_effect(at) and leaf not in SAME.get(general(at), ())
    ]
    env = dig(spec, "components", "pilot", "k8s", "env", default=[])
    return out + [f"components.pilot.k8s.env[{e['name']}]" for e in env if e["name"] not in VARIABLES]


def _plain(path: str, value: Any) -> list[tuple[str, Any]]:
    """The leaf paths of untyped values."""
    if isinstance(value, dict) and value and not has_effect(path):
        return [leaf for k, v in value.items() for leaf in _plain(f"{path}.{k}", v)]
    return [(path, value)]
