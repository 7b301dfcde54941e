"""The fields of an IstioOperator: their types (``effects``: which of them have an effect).

Source: istio.io/istio ``operator/pkg/apis/types.go``. ``values`` are those of Istio's Helm charts and are not typed,
apart from those that become fields of Kubernetes' objects.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lateen.api.config import Config


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
    allocate_load_balancer_node_ports: bool | None = None
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] = msgspec.field(default=(), name="clusterIPs")
    external_ips: tuple[str, ...] = msgspec.field(default=(), name="externalIPs")
    external_name: str = ""
    external_traffic_policy: str = ""
    health_check_node_port: int | None = None
    internal_traffic_policy: str = ""
    ip_families: tuple[str, ...] = ()
    ip_family_policy: str = ""
    load_balancer_class: str = ""
    load_balancer_ip: str = msgspec.field(default="", name="loadBalancerIP")
    load_balancer_source_ranges: tuple[str, ...] = ()
    publish_not_ready_addresses: bool | None = None
    selector: dict[str, str] = {}
    session_affinity: str = ""
    session_affinity_config: Any = None
    traffic_distribution: str = ""


class Variable(Config):
    name: str
    value: Any = None
    value_from: Any = None


class Patch(Config):
    path: str
    value: Any = None


class Overlay(Config):
    kind: str
    name: str
    api_version: str = ""
    patches: tuple[Patch, ...] = ()


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
    overlays: tuple[Overlay, ...] = ()


class Usage(Config):
    target_average_utilization: int | None = None


class PodValues(Config):
    """Values of Istio's charts that ask for the same (``values.pilot``, ``values.gateways.NAME``, ``values.cni``). What
    is not declared for a component is not read there, and has no effect (``effects``)."""

    affinity: dict[str, Any] = {}
    deployment_labels: dict[str, str] = {}
    init_containers: tuple[Any, ...] = ()
    node_selector: dict[str, str] = {}
    pod_annotations: dict[str, str] = {}
    pod_labels: dict[str, str] = {}
    resources: dict[str, Any] = {}
    rolling_max_unavailable: Any = None
    seccomp_profile: dict[str, Any] = {}
    tolerations: tuple[Any, ...] = ()
    topology_spread_constraints: tuple[Any, ...] = ()
    volumes: tuple[Any, ...] = ()
    volume_mounts: tuple[Any, ...] = ()


class ServiceValues(PodValues):
    """Of components that have a Service, and any number of pods."""

    autoscale_behavior: dict[str, Any] = {}
    autoscale_enabled: bool | None = None
    autoscale_max: int | None = None
    autoscale_min: int | None = None
    cpu: Usage | None = None
    replica_count: int | None = None
    rolling_max_surge: Any = None
    service_annotations: dict[str, str] = {}
    ip_families: tuple[str, ...] = ()
    ip_family_policy: str = ""


class PilotValues(ServiceValues):
    hub: str = ""
    tag: Any = None
    image: str = ""
    env: dict[str, Any] = {}
    env_var_from: tuple[Variable, ...] = ()
    service_account_annotations: dict[str, str] = {}


class Account(Config):
    annotations: dict[str, str] = {}


class GatewayValues(ServiceValues):
    env: dict[str, Any] = {}
    external_traffic_policy: str = ""
    load_balancer_ip: str = msgspec.field(default="", name="loadBalancerIP")
    load_balancer_source_ranges: tuple[str, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    service_account: Account | None = None
    type: str = ""


class CniValues(PodValues):
    hub: str = ""
    tag: Any = None
    image: str = ""
    daemon_set_labels: dict[str, str] = {}
    env: dict[str, Any] = {}
    pull_policy: str = ""
    se_linux_options: dict[str, Any] = {}
    service_account_annotations: dict[str, str] = {}
    termination_grace_period_seconds: int | None = None
    update_strategy: dict[str, Any] = {}


class Switch(Config):
    enabled: bool | None = None


class GlobalValues(Config):
    """Of ``values.global``."""

    default_pod_disruption_budget: Switch | None = None
    image_pull_policy: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    network_policy: Switch | None = None
    priority_class_name: str = ""


COMPONENTS: dict[str, type[PodValues]] = {
    "pilot": PilotValues,
    "cni": CniValues,
    **dict.fromkeys(("gateways.istio-ingressgateway", "gateways.istio-egressgateway"), GatewayValues),
}
"""Values of components -> their types."""
PODS: dict[str, type[Config]] = {"global": GlobalValues, **COMPONENTS}
"""Values that become fields of Kubernetes' objects -> their types; others in the same place are not typed."""


class Component(Config):
    enabled: bool | None = None
    namespace: str = ""
    hub: str = ""
    tag: Any = None
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
    mesh_config: Any = None
    components: Components | None = None
    values: dict[str, Any] = {}
    unvalidated_values: dict[str, Any] = {}
