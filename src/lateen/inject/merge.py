"""Strategic merge of partial pods, Deployments and Services, as Kubernetes merges a patch of them.

Lists whose items have an identity (containers, environment, volumes) are merged item by item; every other list is
replaced. Where the order of the result is free, the patch's own items come first, as in the API server.
Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/ ("Patch strategy").
"""

from __future__ import annotations

from typing import Any

from lateen.kit import jsons
from lateen.kit.jsons import Json

_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "ownerReferences": "uid",
    "schedulingGates": "name",
    "resourceClaims": "name",
}
_SETS = {"finalizers"}
DIRECTIVE = "$patch"


def merge(base: Json, patch: Json) -> Json:
    """A new object: ``base`` with ``patch`` applied. None deletes a field; ``$patch: replace|delete`` as in kubectl."""
    return _mapping(jsons.copy(base), patch)


def _mapping(base: Json, patch: Json) -> Json:
    if patch.get(DIRECTIVE) == "replace":
        return {k: v for k, v in patch.items() if k != DIRECTIVE}
    out = dict(base)
    for key, value in patch.items():
        if key == DIRECTIVE or key.startswith("$"):
            continue
        if value is None:
            out.pop(key, None)
        else:
            out[key] = _value(key, out.get(key), value)
    return out


def _value(key: str, base: Any, patch: Any) -> Any:
    if isinstance(patch, dict):
        return _mapping(base if isinstance(base, dict) else {}, patch)
    if isinstance(patch, list) and isinstance(base, list):
        if key in _KEYS and all(isinstance(i, dict) for i in [*base, *patch]):
            return _items(base, patch, _identity(key, [*base, *patch]))
        if key in _SETS:
            return [*base, *(i for i in patch if i not in base)]
    if isinstance(patch, list) and key in _KEYS:
        return [_mapping({}, i) if isinstance(i, dict) else i for i in patch if not _deletes(i)]
    return patch


def _identity(key: str, items: list[Json]) -> str:
    """The field that identifies items of a list; a Service's ports are identified by another field than a
    container's."""
    return "port" if key == "ports" and any("port" in i for i in items) else _KEYS[key]


def _deletes(item: Any) -> bool:
    return isinstance(item, dict) and item.get(DIRECTIVE) == "delete"


def _items(base: list[Json], patch: list[Json], key: str) -> list[Json]:
    if any(i == {DIRECTIVE: "replace"} for i in patch):
        return [i for i in patch if DIRECTIVE not in i]
    found = {i.get(key): i for i in base}
    gone = {i.get(key) for i in patch if _deletes(i)}
    patched = {i.get(key): _mapping(found.get(i.get(key), {}), i) for i in patch if not _deletes(i)}
    place = {i.get(key): n for n, i in enumerate(base)}
    only = [i for i in base if i.get(key) not in patched and i.get(key) not in gone]
    out: list[Json] = []
    for name, item in patched.items():
        while only and name in place and place[only[0].get(key)] < place[name]:
            out.append(only.pop(0))
        out.append(item)
    return [*out, *only]
