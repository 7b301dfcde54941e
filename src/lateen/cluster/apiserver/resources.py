"""The table of resources: everything that the server knows about a kind apart from its schema.

Only kinds that something acts upon (or that are plain data) are listed. A kind that is not served is refused by kubectl
with "no matches for kind", which is honest; accepting it and running nothing would not be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lateen.api.kinds import GATEWAY_API
from lateen.kit.jsons import Json

METRICS = "metrics.k8s.io"
CORE_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class ScalePaths:
    """The paths of the number of replicas and of the selector."""

    spec: tuple[str, ...] = ("spec", "replicas")
    status: tuple[str, ...] = ("status", "replicas")
    selector: tuple[str, ...] = ("spec", "selector")


@dataclass(frozen=True)
class Resource:
    """One resource of one group, in all versions that it is served in."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False
    scale: bool = False
    subresources: tuple[tuple[str, str], ...] = ()
    verbs: tuple[str, ...] = CORE_VERBS
    versions: tuple[str, ...] = ()
    schemas: dict[str, Json] = field(default_factory=dict, hash=False, compare=False)
    columns: dict[str, list[Json]] = field(default_factory=dict, hash=False, compare=False)
    scales: dict[str, ScalePaths] = field(default_factory=dict, hash=False, compare=False)
    selectable: dict[str, tuple[str, ...]] = field(default_factory=dict, hash=False, compare=False)
    singular: str = ""
    custom: bool = False

    @property
    def collection(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def api_version(self, version: str = "") -> str:
        version = version or self.version
        return f"{self.group}/{version}" if self.group else version

    def scale_paths(self, version: str) -> ScalePaths:
        return self.scales.get(version, ScalePaths())

    @property
    def served(self) -> tuple[str, ...]:
        return self.versions if self.custom else self.versions or (self.version,)


_ALL = ("all",)

BUILT_IN: tuple[Resource, ...] = (
    Resource("", "v1", "namespaces", "Namespace", namespaced=False, short=("ns",), status=True),
    Resource(
        "",
        "v1",
        "pods",
        "Pod",
        short=("po",),
        categories=_ALL,
        status=True,
        subresources=(
            ("log", "Pod"),
            ("exec", "PodExecOptions"),
            ("attach", "PodAttachOptions"),
            ("portforward", "PodPortForwardOptions"),
            ("eviction", "Eviction"),
            ("proxy", "PodProxyOptions"),
            ("ephemeralcontainers", "Pod"),
        ),
    ),
    Resource(
        "",
        "v1",
        "services",
        "Service",
        short=("svc",),
        categories=_ALL,
        status=True,
        subresources=(("proxy", "ServiceProxyOptions"),),
    ),
    Resource("", "v1", "endpoints", "Endpoints", short=("ep",)),
    Resource("", "v1", "configmaps", "ConfigMap", short=("cm",)),
    Resource("", "v1", "secrets", "Secret"),
    Resource("", "v1", "serviceaccounts", "ServiceAccount", short=("sa",), subresources=(("token", "TokenRequest"),)),
    Resource("", "v1", "nodes", "Node", namespaced=False, short=("no",), status=True),
    Resource("", "v1", "events", "Event", short=("ev",)),
    Resource("apps", "v1", "deployments", "Deployment", short=("deploy",), categories=_ALL, status=True, scale=True),
    Resource("apps", "v1", "replicasets", "ReplicaSet", short=("rs",), categories=_ALL, status=True, scale=True),
    Resource("apps", "v1", "statefulsets", "StatefulSet", short=("sts",), categories=_ALL, status=True, scale=True),
    Resource("apps", "v1", "daemonsets", "DaemonSet", short=("ds",), categories=_ALL, status=True),
    Resource("apps", "v1", "controllerrevisions", "ControllerRevision"),
    Resource(
        "",
        "v1",
        "replicationcontrollers",
        "ReplicationController",
        short=("rc",),
        categories=_ALL,
        status=True,
        scale=True,
    ),
    Resource("batch", "v1", "jobs", "Job", categories=_ALL, status=True),
    Resource("batch", "v1", "cronjobs", "CronJob", short=("cj",), categories=_ALL, status=True),
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", short=("pvc",), status=True),
    Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False, short=("pv",), status=True),
    Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False, short=("sc",)),
    Resource(
        "autoscaling",
        "v2",
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler",
        short=("hpa",),
        categories=_ALL,
        status=True,
    ),
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", short=("pdb",), status=True),
    Resource("", "v1", "limitranges", "LimitRange", short=("limits",)),
    Resource("", "v1", "resourcequotas", "ResourceQuota", short=("quota",), status=True),
    Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False, short=("pc",)),
    Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    Resource("networking.k8s.io", "v1", "ingresses", "Ingress", short=("ing",), status=True),
    Resource("networking.k8s.io", "v1", "ingressclasses", "IngressClass", namespaced=False),
    Resource("coordination.k8s.io", "v1", "leases", "Lease"),
    Resource("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False),
    Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    Resource(
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        namespaced=False,
        short=("crd", "crds"),
        status=True,
    ),
    Resource(
        "admissionregistration.k8s.io",
        "v1",
        "mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
        namespaced=False,
    ),
    Resource(
        "admissionregistration.k8s.io",
        "v1",
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
        namespaced=False,
    ),
    *(
        Resource(
            group,
            "v1",
            kind.lower() + "s",
            kind,
            namespaced=kind.startswith("Local"),
            verbs=("create",),
            # kubectl 1.27 and 1.28 ask for one of the earlier versions only.
            versions=("v1", "v1beta1", "v1alpha1") if kind == "SelfSubjectReview" else (),
        )
        for group, kinds in (
            ("authentication.k8s.io", ("TokenReview", "SelfSubjectReview")),
            (
                "authorization.k8s.io",
                (
                    "LocalSubjectAccessReview",
                    "SelfSubjectAccessReview",
                    "SelfSubjectRulesReview",
                    "SubjectAccessReview",
                ),
            ),
        )
        for kind in kinds
    ),
    Resource(METRICS, "v1beta1", "nodes", "NodeMetrics", namespaced=False, verbs=("get", "list")),
    Resource(METRICS, "v1beta1", "pods", "PodMetrics", verbs=("get", "list")),
)


def from_crd(crd: Json) -> Resource:
    """The resource that a CustomResourceDefinition declares."""
    spec = crd["spec"]
    names = spec["names"]
    served = [v for v in spec["versions"] if v.get("served", True)]
    stored = next((v["name"] for v in spec["versions"] if v.get("storage")), spec["versions"][0]["name"])
    has_status = any("status" in (v.get("subresources") or {}) for v in served)
    return Resource(
        group=spec["group"],
        version=stored,
        plural=names["plural"],
        kind=names["kind"],
        namespaced=spec.get("scope", "Namespaced") == "Namespaced",
        short=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        status=has_status,
        scale=any("scale" in (v.get("subresources") or {}) for v in served),
        scales={
            v["name"]: _scale_paths(v["subresources"]["scale"])
            for v in served
            if "scale" in (v.get("subresources") or {})
        },
        selectable={v["name"]: tuple(f["jsonPath"] for f in v.get("selectableFields") or []) for v in served},
        versions=tuple(v["name"] for v in served),
        schemas={v["name"]: (v.get("schema") or {}).get("openAPIV3Schema") or {} for v in served},
        columns={v["name"]: v.get("additionalPrinterColumns") or [] for v in served},
        singular=names.get("singular") or names["kind"].lower(),
        custom=True,
    )


def _scale_paths(scale: Json) -> ScalePaths:
    def steps(key: str) -> tuple[str, ...]:
        return tuple(filter(None, str(scale.get(key) or "").split(".")))

    return ScalePaths(steps("specReplicasPath"), steps("statusReplicasPath"), steps("labelSelectorPath") or ("",))


class Registry:
    """Built-in resources and those of CRDs, by group, version and plural."""

    def __init__(self) -> None:
        self._by_collection: dict[str, Resource] = {r.collection: r for r in BUILT_IN}
        self.generation = 0

    def add(self, resource: Resource) -> None:
        self._by_collection[resource.collection] = resource
        self.generation += 1

    def remove(self, collection: str) -> None:
        if self._by_collection.pop(collection, None):
            self.generation += 1

    def all(self) -> list[Resource]:
        return list(self._by_collection.values())

    def by_collection(self, collection: str) -> Resource | None:
        return self._by_collection.get(collection)

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        resource = self._by_collection.get(f"{plural}.{group}" if group else plural)
        return resource if resource and version in resource.served else None

    def groups(self) -> dict[str, list[str]]:
        """Group -> versions, the most stable and latest version first, as Kubernetes orders them. kubectl takes a name
        that several groups have (``gateway``) as that of the first: Istio's, as it is written in Istio's documents."""
        out: dict[str, set[str]] = {}
        for r in self._by_collection.values():
            out.setdefault(r.group, set()).update(r.served)
        return {
            g: sorted(v, key=_rank) for g, v in sorted(out.items(), key=lambda item: (item[0] == GATEWAY_API, item[0]))
        }


def _rank(version: str) -> tuple[int, int, int, str]:
    found = re.fullmatch(r"v([1-9][0-9]*)(?:(alpha|beta)([1-9][0-9]*))?", version)
    if found is None:
        return 3, 0, 0, version
    stability = {None: 0, "beta": 1, "alpha": 2}[found[2]]
    return stability, -int(found[1]), -int(found[3] or 0), version


def discovery(resources: list[Resource], version: str) -> list[Json]:
    """APIResourceList.resources of one group-version."""
    out: list[Json] = []
    for r in resources:
        if version not in r.served:
            continue
        base: Json = {
            "name": r.plural,
            "singularName": r.singular or r.kind.lower(),
            "namespaced": r.namespaced,
            "kind": r.kind,
            "verbs": list(r.verbs),
        }
        if r.short:
            base["shortNames"] = list(r.short)
        if r.categories:
            base["categories"] = list(r.categories)
        out.append(base)
        plain = {"singularName": "", "namespaced": r.namespaced}
        if r.status:
            out.append({"name": f"{r.plural}/status", **plain, "kind": r.kind, "verbs": ["get", "patch", "update"]})
        if r.scale:
            out.append(
                {
                    "name": f"{r.plural}/scale",
                    **plain,
                    "group": "autoscaling",
                    "version": "v1",
                    "kind": "Scale",
                    "verbs": ["get", "patch", "update"],
                }
            )
        for sub, kind in r.subresources:
            entry = {"name": f"{r.plural}/{sub}", **plain, "kind": kind, "verbs": _sub_verbs(sub)}
            if kind in _ELSEWHERE:
                entry |= {"group": _ELSEWHERE[kind], "version": "v1"}
            out.append(entry)
    return out


_ELSEWHERE = {"Eviction": "policy", "TokenRequest": "authentication.k8s.io"}
"""The groups of kinds that subresources of other groups take. ``kubectl drain`` deletes pods, whatever their budgets
say, unless it finds the group of evictions here."""


def _sub_verbs(subresource: str) -> list[str]:
    if subresource == "proxy":
        return ["create", "delete", "get", "patch", "update"]
    return ["get", "patch", "update"] if subresource == "ephemeralcontainers" else ["create", "get"]


def aggregated(registry: Registry, core: bool) -> Json:
    """APIGroupDiscoveryList (apidiscovery.k8s.io/v2)."""
    items = []
    for group, versions in registry.groups().items():
        if (group == "") != core:
            continue
        resources = [r for r in registry.all() if r.group == group]
        items.append(
            {
                "metadata": {"name": group} if group else {},
                "versions": [
                    {
                        "version": v,
                        "freshness": "Current",
                        "resources": [_entry(r, v) for r in resources if v in r.served],
                    }
                    for v in versions
                ],
            }
        )
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _entry(r: Resource, version: str) -> Json:
    subs: list[Json] = []
    kind = {"group": r.group, "version": version, "kind": r.kind}
    if r.status:
        subs.append({"subresource": "status", "responseKind": kind, "verbs": ["get", "patch", "update"]})
    if r.scale:
        subs.append(
            {
                "subresource": "scale",
                "verbs": ["get", "patch", "update"],
                "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
            }
        )
    subs += [
        {
            "subresource": s,
            "verbs": _sub_verbs(s),
            "responseKind": {"group": _ELSEWHERE[k], "version": "v1", "kind": k}
            if k in _ELSEWHERE
            else {"group": r.group, "version": version, "kind": k},
        }
        for s, k in r.subresources
    ]
    out: Json = {
        "resource": r.plural,
        "responseKind": kind,
        "scope": "Namespaced" if r.namespaced else "Cluster",
        "singularResource": r.singular or r.kind.lower(),
        "verbs": list(r.verbs),
    }
    if r.short:
        out["shortNames"] = list(r.short)
    if r.categories:
        out["categories"] = list(r.categories)
    return out | {"subresources": subs} if subs else out
