"""What the API server itself decides about objects of its own kinds: names, addresses, ports, volumes, immutables."""

from __future__ import annotations

import ipaddress
import re
import secrets

from lateen.cluster.apiserver.errors import ApiError, invalid
from lateen.cluster.apiserver.resources import Resource
from lateen.cluster.store.objects import Store
from lateen.kit.jsons import Json, dig

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?$")
_ANY = re.compile(r"[^/%]+$")
TOKEN_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"


class Allocator:
    """Cluster addresses and node ports that no Service has."""

    def __init__(self, store: Store, service_net: str, reserved: int = 20) -> None:
        self._store = store
        self._net = ipaddress.ip_network(service_net)
        self._next = reserved
        self._next_port = 30000

    def cluster_ip(self) -> str:
        used = {dig(e.obj, "spec", "clusterIP") for e in self._store.list("services")}
        size = self._net.num_addresses - 2
        for _ in range(size):
            self._next = self._next % size + 1
            address = str(self._net[self._next])
            if self._next > 20 and address not in used:
                return address
        raise ApiError(500, "InternalError", f"no free cluster address in {self._net}")

    def node_port(self) -> int:
        used = {p.get("nodePort") for e in self._store.list("services") for p in e.obj["spec"].get("ports") or []}
        for _ in range(2768):
            self._next_port = 30000 + (self._next_port - 30000 + 1) % 2768
            if self._next_port not in used:
                return self._next_port
        raise ApiError(500, "InternalError", "no free node port in 30000-32767")


def check_name(r: Resource, name: str, generated: bool) -> None:
    pattern, limit = (_LABEL, 63) if r.kind in ("Service", "Namespace") else (_SUBDOMAIN, 253)
    if r.group == "rbac.authorization.k8s.io":
        pattern = _ANY
    if not name:
        raise invalid(r.kind, r.group, "", [("metadata.name", "Required value: name or generateName is required")])
    if len(name) > limit or not pattern.match(name):
        raise invalid(
            r.kind,
            r.group,
            name,
            [
                (
                    "metadata.generateName" if generated else "metadata.name",
                    (
                        f'Invalid value: "{name[:80]}": must consist of lower case letters, digits, "-" and ".", start '
                        f"and end with a letter or digit, and have at most {limit} characters"
                    ),
                )
            ],
        )


def on_create(r: Resource, obj: Json, store: Store, allocator: Allocator) -> None:
    """Complete a new object in place. Raises ApiError."""
    if r.kind == "Service":
        _service(obj, None, allocator)
    elif r.kind == "Pod":
        _pod_volumes(obj, store)
    elif r.kind in ("Deployment", "ReplicaSet"):
        _selector(r, obj)
    elif r.kind == "CustomResourceDefinition":
        _crd(r, obj)
    elif r.kind == "Secret" and "stringData" in obj:
        import base64

        data = obj.setdefault("data", {})
        for key, text in obj.pop("stringData").items():
            data[key] = base64.b64encode(text.encode()).decode()


def on_update(r: Resource, obj: Json, old: Json, store: Store, allocator: Allocator) -> None:
    if r.kind == "Service":
        _service(obj, old, allocator)
    elif r.kind in ("Deployment", "ReplicaSet"):
        _selector(r, obj)
        if obj["spec"].get("selector") != old["spec"].get("selector"):
            raise invalid(r.kind, r.group, obj["metadata"]["name"], [("spec.selector", "field is immutable")])
    elif r.kind == "CustomResourceDefinition":
        _crd(r, obj)
    elif r.kind == "Pod":
        if _fixed(obj["spec"]) != _fixed(old["spec"]):
            raise invalid(
                "Pod",
                "",
                obj["metadata"]["name"],
                [("spec", "Forbidden: pod updates may not change fields other than container images")],
            )
    elif r.kind == "Secret" and "stringData" in obj:
        on_create(r, obj, store, allocator)


def _fixed(spec: Json) -> Json:
    """The part of a pod's specification that never changes."""
    free = ("containers", "initContainers", "activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds")
    return {k: v for k, v in spec.items() if k not in (*free, "nodeName")}


def _service(obj: Json, old: Json | None, allocator: Allocator) -> None:
    spec = obj["spec"]
    name = obj["metadata"]["name"]
    ports = spec.get("ports") or []
    if spec["type"] == "ExternalName":
        if not spec.get("externalName"):
            raise invalid("Service", "", name, [("spec.externalName", "Required value")])
        return
    if not ports and spec.get("clusterIP") != "None":
        raise invalid("Service", "", name, [("spec.ports", "Required value")])
    if len(ports) > 1 and not all(p.get("name") for p in ports):
        raise invalid("Service", "", name, [("spec.ports[].name", "Required value: more than one port")])
    was = (old or {}).get("spec") or {}
    if was.get("clusterIP") and not spec.get("clusterIP"):
        spec["clusterIP"] = was["clusterIP"]
    if was.get("clusterIP") and spec["clusterIP"] != was["clusterIP"]:
        raise invalid("Service", "", name, [("spec.clusterIP", "field is immutable")])
    spec.setdefault("clusterIP", allocator.cluster_ip() if not spec.get("clusterIP") else spec["clusterIP"])
    spec["clusterIPs"] = [spec["clusterIP"]]
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    if spec["type"] in ("NodePort", "LoadBalancer"):
        before = {p["port"]: p.get("nodePort") for p in was.get("ports") or []}
        for p in ports:
            if not p.get("nodePort"):
                p["nodePort"] = before.get(p["port"]) or allocator.node_port()


def _pod_volumes(obj: Json, store: Store) -> None:
    """Mount the service account's token into every container, as the ServiceAccount admission plugin does."""
    spec, namespace = obj["spec"], obj["metadata"]["namespace"]
    account = spec.setdefault("serviceAccountName", "default")
    spec.setdefault("serviceAccount", account)
    found = store.get("serviceaccounts", namespace, account)
    if found is None:
        raise ApiError(
            403,
            "Forbidden",
            f'pods "{obj["metadata"]["name"]}" is forbidden: error looking up service '
            f'account {namespace}/{account}: serviceaccount "{account}" not found',
        )
    if spec.get("automountServiceAccountToken", found.obj.get("automountServiceAccountToken", True)) is False:
        return
    volumes = spec.setdefault("volumes", [])
    name = next((v["name"] for v in volumes if v["name"].startswith("kube-api-access-")), None)
    if name is None:
        name = f"kube-api-access-{secrets.token_hex(3)[:5]}"
        volumes.append(
            {
                "name": name,
                "projected": {
                    "defaultMode": 420,
                    "sources": [
                        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                        {
                            "downwardAPI": {
                                "items": [
                                    {
                                        "path": "namespace",
                                        "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                                    }
                                ]
                            }
                        },
                    ],
                },
            }
        )
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        mounts = container.setdefault("volumeMounts", [])
        if not any(m["mountPath"] == TOKEN_DIR for m in mounts):
            mounts.append({"name": name, "mountPath": TOKEN_DIR, "readOnly": True})


def _selector(r: Resource, obj: Json) -> None:
    from lateen.kit import selectors

    selector, labels = obj["spec"].get("selector"), dig(obj, "spec", "template", "metadata", "labels", default={})
    if not selector or not selectors.matches(selector, labels):
        raise invalid(
            r.kind,
            r.group,
            obj["metadata"]["name"],
            [("spec.template.metadata.labels", "Invalid value: `selector` does not match template `labels`")],
        )


def _crd(r: Resource, obj: Json) -> None:
    spec, name = obj["spec"], obj["metadata"]["name"]
    expected = f"{dig(spec, 'names', 'plural', default='')}.{spec.get('group', '')}"
    if name != expected:
        raise invalid(
            r.kind, r.group, name, [("metadata.name", f'must be spec.names.plural+"."+spec.group: {expected}')]
        )
    if sum(1 for v in spec["versions"] if v.get("storage")) != 1:
        raise invalid(r.kind, r.group, name, [("spec.versions", "must have exactly one version marked as storage")])
    names = spec["names"]
    names.setdefault("listKind", f"{names['kind']}List")
    names.setdefault("singular", names["kind"].lower())
    obj["status"] = {
        "acceptedNames": names,
        "storedVersions": [v["name"] for v in spec["versions"] if v["storage"]],
        "conditions": [
            {
                "type": t,
                "status": "True",
                "reason": "Accepted",
                "message": "",
                "lastTransitionTime": obj["metadata"]["creationTimestamp"],
            }
            for t in ("NamesAccepted", "Established")
        ],
    }
