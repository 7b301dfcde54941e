"""LimitRanges: defaults for containers without requests or limits, and the minimum and maximum amounts.

After the admission plugin LimitRanger.
"""

from __future__ import annotations

from lateen.cluster.apiserver.errors import forbidden
from lateen.cluster.apiserver.resources import Resource
from lateen.cluster.rules import amounts
from lateen.cluster.store.objects import Store
from lateen.kit.jsons import Json, dig

COLLECTION = "limitranges"
NOTE = "kubernetes.io/limit-ranger"


def complete(pod: Json, store: Store) -> None:
    """Fill in default limits and requests of a new pod's containers, in place."""
    notes = []
    for limit in _limits(store, pod, "Container"):
        for key in ("initContainers", "containers"):
            for container in pod["spec"].get(key) or []:
                notes += _fill(container, limit, "init container" if key == "initContainers" else "container")
    if notes:
        annotations = pod["metadata"].setdefault("annotations", {})
        annotations[NOTE] = "LimitRanger plugin set: " + "; ".join(notes)


def _fill(container: Json, limit: Json, what: str) -> list[str]:
    notes = []
    for part, source in (("requests", "defaultRequest"), ("limits", "default")):
        resources = container.setdefault("resources", {})
        new = {k: v for k, v in (limit.get(source) or {}).items() if k not in (resources.get(part) or {})}
        if new:
            resources[part] = {**(resources.get(part) or {}), **new}
            notes.append(f"{', '.join(sorted(new))} {part.removesuffix('s')} for {what} {container['name']}")
    return notes


def _limits(store: Store, obj: Json, kind: str) -> list[Json]:
    found = store.list(COLLECTION, str(obj["metadata"]["namespace"]))
    return [x for e in found for x in dig(e.obj, "spec", "limits", default=[]) if x.get("type") == kind]


def admit(r: Resource, obj: Json, old: Json | None, store: Store, subresource: str = "") -> None:
    """Raises ApiError for a new pod, one that is resized, or a claim that is out of bounds."""
    says: list[str] = []
    if r.collection == "pods" and (old is None or subresource == "resize"):
        for limit in _limits(store, obj, "Container"):
            for container in amounts.containers(obj["spec"]):
                parts = {k: amounts.of(dig(container, "resources", k)) for k in ("requests", "limits")}
                says += _violations(limit, "Container", parts)
        for limit in _limits(store, obj, "Pod"):
            says += _violations(limit, "Pod", {k: amounts.of_pod(obj["spec"], k) for k in ("requests", "limits")})
    elif r.collection == "persistentvolumeclaims":
        for limit in _limits(store, obj, "PersistentVolumeClaim"):
            asked = amounts.of(dig(obj, "spec", "resources", "requests"))
            says += _violations(limit, "PersistentVolumeClaim", {"requests": asked, "limits": asked})
    if says:
        name = str(obj["metadata"]["name"])
        listed = says[0] if len(says) == 1 else f"[{', '.join(says)}]"
        raise forbidden(f'{r.qualified} "{name}" is forbidden: {listed}', r.plural, name, r.group)


def _violations(limit: Json, kind: str, parts: dict[str, amounts.Amounts]) -> list[str]:
    out = []
    requests, limits = parts["requests"], parts["limits"]
    for name, least in amounts.of(limit.get("min")).items():
        said = f"minimum {name} usage per {kind} is {limit['min'][name]}"
        if name not in requests:
            out.append(f"{said}.  No request is specified")
        elif requests[name] < least:
            out.append(f"{said}, but request is {amounts.text(requests[name], name != 'cpu')}")
        elif name in limits and limits[name] < least:
            out.append(f"{said}, but limit is {amounts.text(limits[name], name != 'cpu')}")
    for name, most in amounts.of(limit.get("max")).items():
        said = f"maximum {name} usage per {kind} is {limit['max'][name]}"
        if name not in limits:
            out.append(f"{said}.  No limit is specified")
        elif limits[name] > most:
            out.append(f"{said}, but limit is {amounts.text(limits[name], name != 'cpu')}")
        elif requests.get(name, amounts.ZERO) > most:
            out.append(f"{said}, but request is {amounts.text(requests[name], name != 'cpu')}")
    for name, most in amounts.of(limit.get("maxLimitRequestRatio")).items():
        said = f"{name} max limit to request ratio per {kind} is {limit['maxLimitRequestRatio'][name]}"
        if not requests.get(name) or not limits.get(name):
            out.append(f"{said}, but no request is specified or request is 0")
        elif limits[name] / requests[name] > most:
            out.append(f"{said}, but provided ratio is {float(limits[name] / requests[name]):f}")
    return out
