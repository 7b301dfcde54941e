"""The one table of kinds: how each is addressed, and for those that the mesh reads, their types and rules.

Schemas, CRDs, validation, the ledger of effective fields, RBAC, what istiod watches, analysis and documentation loop
over ``TABLE``. Types and rules are named (``module:attribute``) and imported when they are asked for, so that
programs that only talk to the API (the node daemon, ``lateen get``) do not load them.
"""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from lateen.kit.jsons import Json

if TYPE_CHECKING:
    from lateen.api.config import Config

    Rules = Callable[[Any, Json], Iterator[Any]]
    """(spec, metadata) -> findings (``api.validate.findings``)."""


class GroupKind(NamedTuple):
    """What a kind is, whatever its version: ``Gateway`` of networking.istio.io is not the Gateway API's."""

    group: str
    kind: str

    def __str__(self) -> str:
        """``Gateway`` for the kind that is first in the table with this name; for all others ``Gateway.group``."""
        return self.kind if _first(self.kind) == self.group else f"{self.kind}.{self.group}"


@dataclass(frozen=True)
class Ref:
    """The identity of an object. ``cluster`` is empty for the cluster that istiod runs in."""

    group: str
    kind: str
    namespace: str
    name: str
    cluster: str = ""

    @cached_property
    def _text(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.group_kind} {where}{f'@{self.cluster}' if self.cluster else ''}"

    def __str__(self) -> str:
        """``Gateway default/web``: for users, and unambiguous."""
        return self._text

    @property
    def group_kind(self) -> GroupKind:
        return GroupKind(self.group, self.kind)


@dataclass(frozen=True, slots=True)
class Kind:
    """A row. Everything after ``namespaced`` is for kinds that the mesh reads."""

    group: str
    version: str
    """The one that is stored and that our programs use."""
    plural: str
    kind: str
    namespaced: bool = True
    versions: tuple[str, ...] = field(default=(), compare=False)
    """All that are served."""
    short: tuple[str, ...] = field(default=(), compare=False)
    spec_at: str = field(default="", compare=False)
    rules_at: str = field(default="", compare=False)
    columns: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """(title, JSON path) for ``kubectl get``."""
    owned: bool = field(default=False, compare=False)
    """Whether the mesh defines it: installs its CRD, validates it, and writes its status."""
    watched: bool = field(default=False, compare=False)
    """Whether istiod reads it in all namespaces."""
    idle: str = field(default="", compare=False)
    """Why nothing of it has an effect in this version; empty where something has."""

    @property
    def id(self) -> GroupKind:
        return GroupKind(self.group, self.kind)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def spec(self) -> type[Config] | None:
        """The type of ``spec``; None for kinds that have a decoder of their own, or that the mesh does not read."""
        found: type[Config] | None = _resolve(self.spec_at)
        return found

    @property
    def rules(self) -> Rules | None:
        """The rules between fields, beyond what the type says."""
        found: Rules | None = _resolve(self.rules_at)
        return found

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        where = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return "/".join(p for p in (f"{base}{where}/{self.plural}", name, subresource) if p)

    def ref(self, namespace: str, name: str, cluster: str = "") -> Ref:
        return Ref(self.group, self.kind, namespace, name, cluster)


TABLE: dict[GroupKind, Kind] = {}


def _row(kind: Kind) -> Kind:
    TABLE[kind.id] = kind
    return kind


@cache
def _resolve(at: str) -> Any:
    return pkgutil.resolve_name(at) if at else None


def _first(kind: str) -> str:
    """The group of the first kind of this name in the table; for a name that is not there the core's."""
    return next((k.group for k in TABLE.values() if k.kind == kind), "")


def find(group: str, kind: str) -> Kind | None:
    return TABLE.get(GroupKind(group, kind))


def named(text: str) -> Kind | None:
    """The kind that is spelled so for users: ``Gateway``, ``Gateway.gateway.networking.k8s.io``."""
    kind, dot, group = text.partition(".")
    return find(group if dot else _first(kind), kind)


def group_kind(obj: Json) -> GroupKind:
    """What an object as written says that it is."""
    group, slash, _ = str(obj.get("apiVersion") or "").partition("/")
    return GroupKind(group if slash else "", str(obj.get("kind") or ""))


def of(obj: Json) -> Kind | None:
    """The row of an object as written."""
    return TABLE.get(group_kind(obj))


def owned() -> tuple[Kind, ...]:
    """The mesh's own kinds."""
    return tuple(k for k in TABLE.values() if k.owned)


def groups() -> list[str]:
    """The API groups of the mesh's own kinds, sorted."""
    return sorted({k.group for k in owned()})


def watched() -> Iterator[Kind]:
    return (k for k in TABLE.values() if k.watched)


def stranger(obj: Json) -> str:
    """What is wrong with the kind or version of an object of one of our groups; empty where nothing is, and for
    objects of other groups."""
    group, name = group_kind(obj)
    if group not in groups():
        return ""
    known = of(obj)
    version = str(obj.get("apiVersion")).partition("/")[2]
    if known is not None:
        served = ", ".join(known.versions)
        return "" if version in known.versions else f'{group} has no version "{version}" of {name}; it has {served}'
    elsewhere = next((k for k in owned() if k.kind == name), None)
    if elsewhere is not None:
        return f"{name} is a kind of {elsewhere.group}, not of {group}; write apiVersion: {elsewhere.api_version}"
    near = difflib.get_close_matches(name, [k.kind for k in owned() if k.group == group], 1)
    return f'{group} has no kind "{name}"' + (f"; did you mean {near[0]}?" if near else "")


RBAC = "rbac.authorization.k8s.io"
ADMISSION = "admissionregistration.k8s.io"

NAMESPACE = _row(Kind("", "v1", "namespaces", "Namespace", namespaced=False))
POD = _row(Kind("", "v1", "pods", "Pod", watched=True))
SERVICE = _row(Kind("", "v1", "services", "Service", watched=True))
ENDPOINTS = _row(Kind("", "v1", "endpoints", "Endpoints"))
CONFIG_MAP = _row(Kind("", "v1", "configmaps", "ConfigMap", watched=True))
SECRET = _row(Kind("", "v1", "secrets", "Secret"))
SERVICE_ACCOUNT = _row(Kind("", "v1", "serviceaccounts", "ServiceAccount"))
NODE = _row(Kind("", "v1", "nodes", "Node", namespaced=False, watched=True))
EVENT = _row(Kind("", "v1", "events", "Event"))
DEPLOYMENT = _row(Kind("apps", "v1", "deployments", "Deployment"))
REPLICA_SET = _row(Kind("apps", "v1", "replicasets", "ReplicaSet"))
ENDPOINT_SLICE = _row(Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", watched=True))
ROLE = _row(Kind(RBAC, "v1", "roles", "Role"))
ROLE_BINDING = _row(Kind(RBAC, "v1", "rolebindings", "RoleBinding"))
CLUSTER_ROLE = _row(Kind(RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False))
CLUSTER_ROLE_BINDING = _row(Kind(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False))
CRD = _row(
    Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
)
MUTATING_WEBHOOK = _row(
    Kind(ADMISSION, "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", namespaced=False)
)
VALIDATING_WEBHOOK = _row(
    Kind(ADMISSION, "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", namespaced=False)
)
INGRESS = _row(
    Kind("networking.k8s.io", "v1", "ingresses", "Ingress", spec_at="lateen.api.ingress:Ingress", watched=True)
)
INGRESS_CLASS = _row(
    Kind(
        "networking.k8s.io",
        "v1",
        "ingressclasses",
        "IngressClass",
        namespaced=False,
        spec_at="lateen.api.ingress:IngressClass",
        watched=True,
    )
)
BUILT_IN = tuple(TABLE.values())
"""The kinds of Kubernetes' own that the embedded cluster serves."""
LEASE = _row(Kind("coordination.k8s.io", "v1", "leases", "Lease"))
TOKEN_REVIEW = _row(Kind("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False))


def _mesh(
    group: str,
    versions: tuple[str, ...],
    plural: str,
    kind: str,
    spec: str,
    rules: str,
    *,
    short: tuple[str, ...] = (),
    columns: tuple[tuple[str, str], ...] = (),
    idle: str = "",
) -> Kind:
    """A kind of the mesh's own; the first version is the stored one."""
    return _row(
        Kind(
            group,
            versions[0],
            plural,
            kind,
            versions=versions,
            short=short,
            spec_at=f"lateen.api.{spec}:{kind}",
            rules_at=f"lateen.api.validate.{rules}",
            columns=columns,
            owned=True,
            watched=True,
            idle=idle,
        )
    )


NETWORKING, SECURITY = "networking.istio.io", "security.istio.io"
EXTENSIONS = "extensions.istio.io"
_ALL, _NEW = ("v1", "v1beta1", "v1alpha3"), ("v1", "v1beta1")

VIRTUAL_SERVICE = _mesh(
    NETWORKING,
    _ALL,
    "virtualservices",
    "VirtualService",
    "networking",
    "virtual_service:virtual_service",
    short=("vs",),
    columns=(("Gateways", ".spec.gateways"), ("Hosts", ".spec.hosts")),
)
DESTINATION_RULE = _mesh(
    NETWORKING,
    _ALL,
    "destinationrules",
    "DestinationRule",
    "networking",
    "destination_rule:destination_rule",
    short=("dr",),
    columns=(("Host", ".spec.host"),),
)
GATEWAY = _mesh(NETWORKING, _ALL, "gateways", "Gateway", "networking", "gateway:gateway", short=("gw",))
SERVICE_ENTRY = _mesh(
    NETWORKING,
    _ALL,
    "serviceentries",
    "ServiceEntry",
    "networking",
    "service_entry:service_entry",
    short=("se",),
    columns=(("Hosts", ".spec.hosts"), ("Location", ".spec.location"), ("Resolution", ".spec.resolution")),
)
WORKLOAD_ENTRY = _mesh(
    NETWORKING,
    _ALL,
    "workloadentries",
    "WorkloadEntry",
    "networking",
    "service_entry:workload_entry",
    short=("we",),
    columns=(("Address", ".spec.address"),),
)
WORKLOAD_GROUP = _mesh(
    NETWORKING, _ALL, "workloadgroups", "WorkloadGroup", "networking", "service_entry:workload_group", short=("wg",)
)
SIDECAR = _mesh(NETWORKING, _ALL, "sidecars", "Sidecar", "networking", "sidecar:sidecar")
ENVOY_FILTER = _mesh(
    NETWORKING, ("v1alpha3",), "envoyfilters", "EnvoyFilter", "networking", "envoy_filter:envoy_filter"
)
PROXY_CONFIG = _mesh(NETWORKING, ("v1beta1",), "proxyconfigs", "ProxyConfig", "networking", "envoy_filter:proxy_config")
PEER_AUTHENTICATION = _mesh(
    SECURITY,
    _NEW,
    "peerauthentications",
    "PeerAuthentication",
    "security",
    "security:peer_authentication",
    short=("pa",),
    columns=(("Mode", ".spec.mtls.mode"),),
)
REQUEST_AUTHENTICATION = _mesh(
    SECURITY,
    _NEW,
    "requestauthentications",
    "RequestAuthentication",
    "security",
    "security:request_authentication",
    short=("ra",),
    idle="tokens of end users are not verified yet",
)
AUTHORIZATION_POLICY = _mesh(
    SECURITY,
    _NEW,
    "authorizationpolicies",
    "AuthorizationPolicy",
    "security",
    "security:authorization_policy",
    short=("ap",),
    columns=(("Action", ".spec.action"),),
)
TELEMETRY = _mesh(
    "telemetry.istio.io",
    ("v1", "v1alpha1"),
    "telemetries",
    "Telemetry",
    "telemetry",
    "telemetry:telemetry",
    short=("telemetry",),
    idle="telemetry is configured in the mesh configuration",
)
WASM_PLUGIN = _mesh(
    EXTENSIONS,
    ("v1alpha1",),
    "wasmplugins",
    "WasmPlugin",
    "extensions",
    "telemetry:wasm_plugin",
    idle="use an EnvoyFilter with envoy.filters.http.wasm",
)
TRAFFIC_EXTENSION = _mesh(
    EXTENSIONS,
    ("v1alpha1",),
    "trafficextensions",
    "TrafficExtension",
    "extensions",
    "telemetry:traffic_extension",
    idle="use an EnvoyFilter with envoy.filters.http.wasm or .lua",
)

KUBERNETES_GATEWAY = _row(Kind("gateway.networking.k8s.io", "v1", "gateways", "Gateway"))
