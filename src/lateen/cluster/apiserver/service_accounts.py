"""What a new pod has from its service account: a token in each container, and the Secrets that images are pulled with.

After the admission plugin ServiceAccount.
"""

from __future__ import annotations

import secrets

from lateen.cluster.apiserver.errors import forbidden
from lateen.cluster.store.objects import Store
from lateen.kit import jsons
from lateen.kit.jsons import Json

TOKEN_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"
_PREFIX = "kube-api-access-"


def complete(pod: Json, store: Store) -> None:
    """Fill in, in place. Raises ApiError where there is no such account."""
    spec, meta = pod.setdefault("spec", {}), pod["metadata"]
    name = spec["serviceAccountName"] = spec.get("serviceAccountName") or "default"
    spec["serviceAccount"] = name
    found = store.get("serviceaccounts", meta["namespace"], name)
    if found is None:
        says = (
            f'pods "{meta["name"]}" is forbidden: error looking up service account {meta["namespace"]}/{name}: '
            f'serviceaccount "{name}" not found'
        )
        raise forbidden(says, "pods", meta["name"])
    account = found.obj
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = jsons.copy(account["imagePullSecrets"])
    if spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True)) is not False:
        _mount(spec)


def _mount(spec: Json) -> None:
    volumes = spec.setdefault("volumes", [])
    name = next((v["name"] for v in volumes if str(v.get("name")).startswith(_PREFIX)), None)
    if name is None:
        name = f"{_PREFIX}{secrets.token_hex(3)[:5]}"
        volumes.append({"name": name, "projected": {"defaultMode": 420, "sources": _sources()}})
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        mounts = container.setdefault("volumeMounts", [])
        if not any(m.get("mountPath") == TOKEN_DIR for m in mounts):
            mounts.append({"name": name, "mountPath": TOKEN_DIR, "readOnly": True})


def _sources() -> list[Json]:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]
