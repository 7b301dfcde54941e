"""The roles and bindings that every cluster has, with Kubernetes' rules (``bootstrappolicy/policy.go``).

``admin``, ``edit`` and ``view`` have no rules of their own: a controller gathers those of every ClusterRole that has
the label named in their ``aggregationRule``, so whoever installs a CustomResourceDefinition can add to them.
"""

from __future__ import annotations

from collections.abc import Iterator

from lateen.cluster.apiserver.rbac import GROUP, MASTERS
from lateen.cluster.rules.requests import GROUP as GROUP_OF_REQUESTS
from lateen.cluster.rules.requests import SIGNED_HERE
from lateen.kit.jsons import Json

AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"
_API_VERSION = f"{GROUP}/v1"

_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")
_WORKLOADS = "statefulsets statefulsets/scale daemonsets deployments deployments/scale replicasets replicasets/scale"
_PROBES = ("/healthz", "/livez", "/readyz", "/version", "/version/")
_WATCHED = ("/livez", "/livez/*", "/metrics", "/metrics/slis", "/readyz", "/readyz/*")
_DISCOVERY = ("/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*")


def _rule(verbs: tuple[str, ...], group: str, resources: str) -> Json:
    return {"apiGroups": [group], "resources": resources.split(), "verbs": list(verbs)}


def _paths(*paths: str) -> Json:
    return {"nonResourceURLs": list(paths), "verbs": ["get"]}


_VIEW = [
    _rule(
        _READ,
        "",
        "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers "
        "replicationcontrollers/scale serviceaccounts services services/status",
    ),
    _rule(
        _READ,
        "",
        "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status "
        "resourcequotas resourcequotas/status",
    ),
    _rule(_READ, "", "namespaces"),
    _rule(_READ, "discovery.k8s.io", "endpointslices"),
    _rule(
        _READ,
        "apps",
        f"controllerrevisions {_WORKLOADS} statefulsets/status daemonsets/status deployments/status replicasets/status",
    ),
    _rule(_READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    _rule(_READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
    _rule(_READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    _rule(_READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
    _rule(_READ, "metrics.k8s.io", "nodes pods"),
]
_EDIT = [
    _rule(_READ, "", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
    _rule(("impersonate",), "", "serviceaccounts"),
    _rule(_WRITE, "", "pods pods/attach pods/exec pods/portforward pods/proxy"),
    _rule(("create",), "", "pods/eviction"),
    _rule(
        _WRITE,
        "",
        "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets "
        "serviceaccounts services services/proxy",
    ),
    _rule(("create",), "", "serviceaccounts/token"),
    _rule(_WRITE, "apps", f"{_WORKLOADS} deployments/rollback"),
    _rule(_WRITE, "autoscaling", "horizontalpodautoscalers"),
    _rule(_WRITE, "batch", "cronjobs jobs"),
    _rule(_WRITE, "policy", "poddisruptionbudgets"),
    _rule(_WRITE, "networking.k8s.io", "ingresses networkpolicies"),
    _rule(_READ + _WRITE, "coordination.k8s.io", "leases"),
]
_ADMIN = [
    _rule(("create",), "authorization.k8s.io", "localsubjectaccessreviews"),
    _rule(_READ + _WRITE, GROUP, "roles rolebindings"),
]
_BASIC = [
    _rule(("create",), "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
    _rule(("create",), "authentication.k8s.io", "selfsubjectreviews"),
]
_VOLUMES = "persistentvolumeclaims persistentvolumes"
_SCHEDULER = [
    *(_rule(("create", "patch", "update"), group, "events") for group in ("", "events.k8s.io")),
    _rule(("create",), "coordination.k8s.io", "leases"),
    _rule(("get", "update"), "coordination.k8s.io", "leases") | {"resourceNames": ["kube-scheduler"]},
    _rule(_READ, "", f"namespaces nodes replicationcontrollers services {_VOLUMES}"),
    _rule(("delete", *_READ), "", "pods"),
    _rule(("create",), "", "bindings pods/binding"),
    _rule(("patch", "update"), "", "pods/status"),
    _rule(_READ, "apps", "replicasets statefulsets"),
    _rule(_READ, "policy", "poddisruptionbudgets"),
    _rule(_READ, "storage.k8s.io", "csidrivers storageclasses"),
]
_DELEGATOR = [
    _rule(("create",), "authentication.k8s.io", "tokenreviews"),
    _rule(("create",), "authorization.k8s.io", "subjectaccessreviews"),
]
_OTHERS = {
    "system:auth-delegator": _DELEGATOR,
    "system:kube-scheduler": [*_SCHEDULER, *_DELEGATOR],
    "system:volume-scheduler": [
        _rule((*_READ, "patch", "update"), "", _VOLUMES),
        _rule(_READ, "storage.k8s.io", "storageclasses"),
    ],
    "system:persistent-volume-provisioner": [
        _rule(("create", "delete", *_READ), "", "persistentvolumes"),
        _rule((*_READ, "update"), "", "persistentvolumeclaims"),
        _rule(_READ, "storage.k8s.io", "storageclasses"),
        _rule(("watch",), "", "events"),
        _rule(("create", "patch", "update"), "", "events"),
    ],
}
"""What charts and tutorials bind their own accounts to."""


def all_objects() -> Iterator[Json]:
    """ClusterRoles and ClusterRoleBindings as they are written into a cluster that lacks them."""
    everything = [_rule(("*",), "*", "*"), {"nonResourceURLs": ["*"], "verbs": ["*"]}]
    yield _role("cluster-admin", everything)
    yield _role("system:basic-user", _BASIC)
    yield _role("system:discovery", [_paths(*_PROBES, *_DISCOVERY)])
    yield _role("system:public-info-viewer", [_paths(*_PROBES)])
    for name, rules in _OTHERS.items():
        yield _role(name, rules)
    yield _role("system:monitoring", [_paths("/healthz", "/healthz/*", *_WATCHED)])
    for name in SIGNED_HERE:
        short = name.partition("/")[2]
        rule = _rule(("approve",), GROUP_OF_REQUESTS, "signers") | {"resourceNames": [name]}
        yield _role(f"system:certificates.k8s.io:{short}-approver", [rule])
    yield _aggregating("admin")
    yield _aggregating("edit", to="admin")
    yield _aggregating("view", to="edit")
    for to, rules in (("admin", _ADMIN), ("edit", _EDIT), ("view", _VIEW)):
        yield _role(f"system:aggregate-to-{to}", rules, {_AGGREGATE + to: "true"})
    for name, groups in (
        ("cluster-admin", (MASTERS,)),
        ("system:basic-user", ("system:authenticated",)),
        ("system:discovery", ("system:authenticated",)),
        ("system:monitoring", ("system:monitoring",)),
        ("system:public-info-viewer", ("system:authenticated", "system:unauthenticated")),
    ):
        yield _binding(name, groups)


def _meta(name: str, labels: dict[str, str] | None = None) -> Json:
    return {"name": name, "labels": _LABELS | (labels or {}), "annotations": {AUTOUPDATE: "true"}}


def _role(name: str, rules: list[Json], labels: dict[str, str] | None = None) -> Json:
    return {"apiVersion": _API_VERSION, "kind": "ClusterRole", "metadata": _meta(name, labels), "rules": rules}


def _aggregating(name: str, to: str = "") -> Json:
    labels = {_AGGREGATE + to: "true"} if to else {}
    selectors = [{"matchLabels": {_AGGREGATE + name: "true"}}]
    return _role(name, [], labels) | {"aggregationRule": {"clusterRoleSelectors": selectors}}


def _binding(name: str, groups: tuple[str, ...]) -> Json:
    return {
        "apiVersion": _API_VERSION,
        "kind": "ClusterRoleBinding",
        "metadata": _meta(name),
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": GROUP, "kind": "Group", "name": g} for g in groups],
    }
