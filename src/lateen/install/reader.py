"""The service account with which other clusters' control planes read this one.

Source: Istio's chart ``base``, ``templates/reader-serviceaccount.yaml``, and ``istio-discovery``,
``templates/reader-clusterrole.yaml``.
"""

from __future__ import annotations

from lateen.install.objects import NAMESPACE, RBAC, READ, WRITES_ROOTS
from lateen.kit.jsons import Json

ACCOUNT = "istio-reader-service-account"
LABELS = {"app": "istio-reader", "release": "istio"}


SERVING = [
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": READ},
    *WRITES_ROOTS,
    {
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
        "verbs": [*READ, "update", "patch"],
    },
]
"""Additional permissions of a remote control plane whose proxies run here: publishing its roots to them and to the API
server."""


def objects(account: str = ACCOUNT, namespace: str = NAMESPACE, serves: bool = False) -> list[Json]:
    """The account with permissions to read services and their endpoints, and to review tokens. ``serves``: whether the
    control plane that uses it serves this cluster's proxies."""
    name = f"istio-reader-clusterrole-{namespace}"
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "nodes", "namespaces", "endpoints"], "verbs": READ},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": READ},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        *(SERVING if serves else ()),
    ]
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": account, "namespace": namespace, "labels": LABELS},
        },
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name, "labels": LABELS},
            "rules": rules,
        },
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name, "labels": LABELS},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
            "subjects": [subject],
        },
    ]
