"""Building blocks that the objects of an installation share."""

from __future__ import annotations

from collections.abc import Iterable

from lateen import __version__
from lateen.kit.jsons import Json, dig
from lateen.wire import ports
from lateen.wire.revision import Revision

NAMESPACE = "istio-system"
PILOT_IMAGE = f"docker.io/lateen/pilot:{__version__}"
PROXY_IMAGE = f"docker.io/lateen/proxyv2:{__version__}"
HUB = "docker.io/lateen"
RBAC = "rbac.authorization.k8s.io"
READ = ["get", "list", "watch"]
READ_SECRETS = {"apiGroups": [""], "resources": ["secrets"], "verbs": READ}
WRITES_ROOTS: list[Json] = [
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
    {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": ["istio-ca-root-cert", "istio-ca-crl"],
        "verbs": ["update", "patch"],
    },
]
"""The trusted roots and revocation lists, in every namespace"""
UNPRIVILEGED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsUser": ports.PROXY_UID,
    "runAsGroup": ports.PROXY_UID,
    "runAsNonRoot": True,
}


def source(spec: Json) -> tuple[str, str]:
    """Hub and tag of images: ``hub`` and ``tag``, otherwise those in ``values.global``, otherwise this version's
    defaults."""
    hub = spec.get("hub") or dig(spec, "values", "global", "hub") or HUB
    tag = spec.get("tag") or dig(spec, "values", "global", "tag") or __version__
    return str(hub), str(tag)


def image(spec: Json, name: str, component: Json | None = None, values: Json | None = None) -> str:
    """The image ``pilot``, ``proxyv2`` or ``install-cni``. ``component``: its ``hub`` and ``tag`` count more than those
    of the installation; ``values``: those of Istio's charts that do (``values.pilot``, ``values.cni``), whose ``image``
    may be another name, or a whole one."""
    component, values = component or {}, values or {}
    named = str(values.get("image") or name)
    if "/" in named:
        return named
    hub, tag = source(spec)
    hub = component.get("hub") or values.get("hub") or hub
    tag = component.get("tag") or values.get("tag") or tag
    return f"{hub}/{named}:{tag}"


def meta(name: str, revision: Revision, namespace: str | None = NAMESPACE, **labels: str) -> Json:
    """``namespace`` is None for cluster-scoped objects."""
    app = {"app": labels.pop("app", name), **revision.label, "release": "istio", **labels}
    return {"name": name, "labels": app} | ({"namespace": namespace} if namespace else {})


def bound(kind: str, metadata: Json, rules: list[Json], account: str, namespace: str = NAMESPACE) -> list[Json]:
    """A Role or ClusterRole (``kind``), and a binding of the same name to a service account (of ``namespace``)."""
    role = {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": metadata, "rules": rules}
    binding = {
        "apiVersion": f"{RBAC}/v1",
        "kind": f"{kind}Binding",
        "metadata": metadata,
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": metadata["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }
    return [role, binding]


def deployment(metadata: Json, selector: dict[str, str], labels: dict[str, str], scrape: Json, pod: Json) -> Json:
    """A Deployment with one replica, replaced without downtime. ``scrape``: annotations for Prometheus; ``pod``: the
    pod's spec."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": selector},
            "strategy": {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "25%"}},
            "template": {
                "metadata": {
                    "labels": {**labels, "sidecar.istio.io/inject": "false"},
                    "annotations": {"prometheus.io/scrape": "true", **scrape},
                },
                "spec": {**pod, "securityContext": {"fsGroup": ports.PROXY_UID}},
            },
        },
    }


def network_policy(metadata: Json, selector: Json, listened: Iterable[tuple[int | str, str]]) -> Json:
    """What lets everybody reach these ports of pods, and the pods everything: for namespaces that deny by default, as
    in Istio's charts. ``listened``: (port, protocol)."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": {"matchLabels": selector},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"ports": [{"port": port, "protocol": protocol} for port, protocol in dict.fromkeys(listened)]}
            ],
            "egress": [{}],
        },
    }


def restricts(values: Json) -> bool:
    """Whether an installation asks for NetworkPolicies."""
    return bool(dig(values, "global", "networkPolicy", "enabled"))
