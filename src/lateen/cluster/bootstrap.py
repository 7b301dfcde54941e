"""The objects that a fresh cluster has: namespaces, its own service, roles and bindings."""

from __future__ import annotations

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.apiserver import default_roles
from lateen.cluster.apiserver.validation.limits import SYSTEM
from lateen.cluster.network import plan
from lateen.cluster.rules import storage
from lateen.kit.jsons import Json
from lateen.kube.client import Client

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


async def bootstrap(client: Client) -> None:
    """Create what is missing; of the default roles, restore the rules and subjects that are missing."""
    for name in NAMESPACES:
        await _have(client, kinds.NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    await roles(client)
    meta = {"name": "kubernetes", "namespace": "default"}
    labels = {"component": "apiserver", "provider": "kubernetes"}
    port = {"name": "https", "port": 443, "targetPort": plan.API_PORT}
    service = {"metadata": meta | {"labels": labels}, "spec": {"clusterIP": plan.API_IP, "ports": [port]}}
    await _have(client, kinds.SERVICE, {"apiVersion": "v1", "kind": "Service"} | service)
    subset = {"addresses": [{"ip": plan.NODE_IP}], "ports": [{"name": "https", "port": plan.API_PORT}]}
    skip = {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}
    endpoints = {"apiVersion": "v1", "kind": "Endpoints", "metadata": meta | skip, "subsets": [subset]}
    await _have(client, kinds.ENDPOINTS, endpoints)
    piece = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": meta | {"labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [plan.NODE_IP], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": plan.API_PORT, "protocol": "TCP"}],
    }
    await _have(client, kinds.ENDPOINT_SLICE, piece)
    await _have(client, kinds.STORAGE_CLASS, storage_class())
    for name, value in SYSTEM.items():
        made = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}}
        await _have(client, kinds.PRIORITY_CLASS, made | {"value": value})


def storage_class() -> Json:
    """The class of claims that name none: a folder of the state directory, removed with its claim."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": storage.CLASS, "annotations": {storage.DEFAULT_CLASS: "true"}},
        "provisioner": storage.DRIVER,
        "allowVolumeExpansion": True,
    }


async def roles(client: Client) -> None:
    """As kube-apiserver at each start: whoever wants a default role without a rule sets its annotation
    ``rbac.authorization.kubernetes.io/autoupdate`` to "false"."""
    for obj in default_roles.all_objects():
        kind = kinds.CLUSTER_ROLE if obj["kind"] == "ClusterRole" else kinds.CLUSTER_ROLE_BINDING
        found = await _have(client, kind, obj)
        if (found["metadata"].get("annotations") or {}).get(default_roles.AUTOUPDATE) == "false":
            continue
        key = "rules" if kind is kinds.CLUSTER_ROLE else "subjects"
        if missing := [entry for entry in obj[key] if entry not in (found.get(key) or [])]:
            await client.patch(kind, "", obj["metadata"]["name"], {key: [*(found.get(key) or []), *missing]})


async def _have(client: Client, kind: Kind, obj: Json) -> Json:
    meta = obj["metadata"]
    found = await client.get(kind, meta.get("namespace", ""), meta["name"])
    return found if found is not None else await client.create(kind, obj)
