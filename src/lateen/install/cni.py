"""The CNI plugin (``components.cni``): a DaemonSet that installs it on each node."""

from __future__ import annotations

from lateen.install import k8s as options
from lateen.install.control_plane import variables
from lateen.install.objects import NAMESPACE, bound, image, meta
from lateen.install.options import CniValues
from lateen.kit.jsons import Json, dig
from lateen.wire.revision import Revision

NAME, ACCOUNT = "istio-cni-node", "istio-cni"
CONF, BIN = "/etc/cni/net.d", "/opt/cni/bin"
DAEMON_PORT = 8000
EXCLUDED = ("kube-system",)
GRACE_S = 5
RESOURCES = {"requests": {"cpu": "100m", "memory": "100Mi"}}


def namespace_of(spec: Json) -> str:
    return str(dig(spec, "components", "cni", "namespace") or NAMESPACE)


def objects(spec: Json, revision: Revision) -> list[Json]:
    values, component = dig(spec, "values", "cni", default={}), dig(spec, "components", "cni", default={})
    namespace = namespace_of(spec)
    repairs = dig(values, "repair", "enabled", default=True)
    # the plugin reads pods; the repair controller deletes them
    verbs = ["get", "list", "watch", *(["delete"] if repairs else [])]
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(ACCOUNT, revision, namespace)}
    role = bound("ClusterRole", meta(ACCOUNT, revision, None), rules, ACCOUNT, namespace)
    shared = {k: v for k, v in dig(spec, "values", "global", default={}).items() if k != "priorityClassName"}
    if pull := values.get("pullPolicy"):
        shared["imagePullPolicy"] = pull
    named = {"deploymentLabels": values["daemonSetLabels"]} if values.get("daemonSetLabels") else {}
    k8s = options.merged(component.get("k8s") or {}, {**values, **named}, CniValues, shared)
    daemon = _daemon(image(spec, "install-cni", component, values), meta(NAME, revision, namespace), values, k8s)
    return options.applied([account, *role, daemon], k8s)


def _daemon(image: str, metadata: Json, values: Json, k8s: Json) -> Json:
    conf, bin_ = str(values.get("cniConfDir") or CONF), str(values.get("cniBinDir") or BIN)
    chosen = {"k8s-app": NAME}
    env = {
        "CNI_NET_DIR": conf,
        "EXCLUDE_NAMESPACES": ",".join(values.get("excludeNamespaces") or EXCLUDED),
        "REPAIR_ENABLED": "true" if dig(values, "repair", "enabled", default=True) else "false",
    }
    node = {"name": "KUBERNETES_NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    container = {
        "name": "install-cni",
        "image": image,
        "env": options.by_name([*({"name": k, "value": v} for k, v in env.items()), node], variables(k8s)),
        "ports": [{"containerPort": DAEMON_PORT, "name": "readiness"}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": DAEMON_PORT}, "periodSeconds": 1},
        "resources": k8s.get("resources") or RESOURCES,
        "securityContext": {
            "privileged": False,
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": False,
            **_selinux(values),
        },
        "volumeMounts": [
            {"name": "cni-bin-dir", "mountPath": "/host/opt/cni/bin"},
            {"name": "cni-net-dir", "mountPath": "/host/etc/cni/net.d"},
        ],
    }
    pod = {
        "serviceAccountName": ACCOUNT,
        # on the pod network, it would wait for the plugin that it installs
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "hostPID": True,
        "priorityClassName": "system-node-critical",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists", "effect": e} for e in ("NoSchedule", "NoExecute")],
        "terminationGracePeriodSeconds": values.get("terminationGracePeriodSeconds", GRACE_S),
        "containers": [container],
        "volumes": [
            {"name": "cni-bin-dir", "hostPath": {"path": bin_, "type": "DirectoryOrCreate"}},
            {"name": "cni-net-dir", "hostPath": {"path": conf, "type": "DirectoryOrCreate"}},
        ],
    }
    rolling = 1 if values.get("rollingMaxUnavailable") is None else values["rollingMaxUnavailable"]
    labels = {**chosen, "app": NAME, "sidecar.istio.io/inject": "false", "istio.io/dataplane-mode": "none"}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {**metadata, "labels": {**metadata["labels"], **chosen}},
        "spec": {
            "selector": {"matchLabels": chosen},
            "updateStrategy": values.get("updateStrategy")
            or {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": rolling}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _selinux(values: Json) -> Json:
    """As in Istio's chart, the type is the one with which a container may write to directories of the node."""
    given = values.get("seLinuxOptions")
    return {"seLinuxOptions": {"type": "spc_t", **given}} if given else {}
