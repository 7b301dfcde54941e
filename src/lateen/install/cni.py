"""The CNI plugin (``components.cni``): a DaemonSet that installs it on each node."""

from __future__ import annotations

from lateen.install import k8s as options
from lateen.install.objects import bound, image, meta
from lateen.kit.jsons import Json, dig
from lateen.wire.revision import Revision

NAME, ACCOUNT = "istio-cni-node", "istio-cni"
CONF, BIN = "/etc/cni/net.d", "/opt/cni/bin"
DAEMON_PORT = 8000
EXCLUDED = ("kube-system",)
RESOURCES = {"requests": {"cpu": "100m", "memory": "100Mi"}}


def objects(spec: Json, revision: Revision) -> list[Json]:
    values = dig(spec, "values", "cni", default={})
    excluded = list(values.get("excludeNamespaces") or EXCLUDED)
    repairs = dig(values, "repair", "enabled", default=True)
    # the plugin reads pods; the repair controller deletes them
    verbs = ["get", "list", "watch", *(["delete"] if repairs else [])]
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(ACCOUNT, revision)}
    role = bound("ClusterRole", meta(ACCOUNT, revision, None), rules, ACCOUNT)
    shared = {k: v for k, v in dig(spec, "values", "global", default={}).items() if k != "priorityClassName"}
    k8s = options.merged(dig(spec, "components", "cni", "k8s", default={}), values, shared)
    daemon = _daemon(spec, revision, values, excluded, repairs, k8s.get("resources") or RESOURCES)
    return [account, *role, *options.applied([daemon], k8s)]


def _daemon(spec: Json, revision: Revision, values: Json, excluded: list[str], repairs: bool, resources: Json) -> Json:
    conf, bin_ = str(values.get("cniConfDir") or CONF), str(values.get("cniBinDir") or BIN)
    chosen = {"k8s-app": NAME}
    env = {
        "CNI_NET_DIR": conf,
        "EXCLUDE_NAMESPACES": ",".join(excluded),
        "REPAIR_ENABLED": "true" if repairs else "false",
    }
    container = {
        "name": "install-cni",
        "image": image(spec, "install-cni"),
        "env": [
            *({"name": k, "value": v} for k, v in env.items()),
            {"name": "KUBERNETES_NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "ports": [{"containerPort": DAEMON_PORT, "name": "readiness"}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": DAEMON_PORT}, "periodSeconds": 1},
        "resources": resources,
        "securityContext": {"privileged": False, "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": False},
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
        "terminationGracePeriodSeconds": 5,
        "containers": [container],
        "volumes": [
            {"name": "cni-bin-dir", "hostPath": {"path": bin_, "type": "DirectoryOrCreate"}},
            {"name": "cni-net-dir", "hostPath": {"path": conf, "type": "DirectoryOrCreate"}},
        ],
    }
    labels = {**chosen, "app": NAME, "sidecar.istio.io/inject": "false", "istio.io/dataplane-mode": "none"}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": meta(NAME, revision, **chosen),
        "spec": {
            "selector": {"matchLabels": chosen},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
