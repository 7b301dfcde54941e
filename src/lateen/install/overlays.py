"""``k8s.overlays`` of a component: patches of its rendered objects. Pure.

Source: istio.io/istio ``operator/pkg/apis/types.go`` (KubernetesOverlay) and ``operator/pkg/tpath``: kind and name
choose the objects; what is missing on the way is made; a value for a list is appended to it unless it is a list itself;
no value deletes. Istio says nothing of an overlay that concerns no object, nor of one that makes another object out of
it, which would be left behind; here both are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lateen.install import paths
from lateen.kit import jsons, regex
from lateen.kit.jsons import Json, dig
from lateen.wire.revision import COMPONENT, LABEL, OWNER

_IDENTITY = ("apiVersion", "kind", "metadata.name", "metadata.namespace")
_OWNERS = (LABEL, COMPONENT, OWNER)
"""Labels by which upgrades and removals find the object."""


def applied(objects: Sequence[Json], overlays: Sequence[Json], at: str) -> list[Json]:
    """The objects with the overlays of ``at``, the path of the field. Raises ValueError with a path in front."""
    out = list(objects)
    for i, overlay in enumerate(overlays):
        kind, name = overlay.get("kind"), overlay.get("name")
        chosen = [n for n, o in enumerate(out) if (o["kind"], o["metadata"]["name"]) == (kind, name)]
        if not chosen:
            there = sorted({o["metadata"]["name"] for o in out if o["kind"] == kind})
            also = f"its {kind}s are {', '.join(there)}" if there else f"it has: {', '.join(_kinds(out))}"
            raise ValueError(f'{at}[{i}]: the component has no {kind} "{name}"; {also}')
        for n in chosen:
            if (version := overlay.get("apiVersion")) not in (None, "", out[n]["apiVersion"]):
                raise ValueError(f'{at}[{i}].apiVersion: "{version}" is not that of the {kind}: {out[n]["apiVersion"]}')
            out[n] = _patched(out[n], overlay.get("patches") or (), f"{at}[{i}].patches")
    return out


def _kinds(objects: Sequence[Json]) -> list[str]:
    return sorted({o["kind"] for o in objects})


def _patched(obj: Json, patches: Sequence[Json], at: str) -> Json:
    out = jsons.copy(obj)
    for k, patch in enumerate(patches):
        path = str(patch.get("path") or "")
        try:
            _patch(out, path, patch.get("value"))
            _check_same(obj, out, path)
        except ValueError as e:
            raise ValueError(f"{at}[{k}]: {e}") from None
    return out


def _check_same(before: Json, after: Json, path: str) -> None:
    """Raises ValueError if a patch has made another object, or somebody else's."""
    for name in _IDENTITY:
        if dig(before, *name.split(".")) != dig(after, *name.split(".")):
            raise ValueError(f"{path} cannot be changed like that: {name} says which object it is")
    for label in _OWNERS:
        if dig(before, "metadata", "labels", label) != dig(after, "metadata", "labels", label):
            raise ValueError(f"{path} cannot be changed like that: the label {label} says which installation it is of")


def _patch(obj: Json, path: str, value: Any) -> None:
    steps = paths.parse(path, values=True)
    node: Any = obj
    for i, step in enumerate(steps[:-1]):
        if isinstance(step, str):
            if not isinstance(node, dict):
                raise ValueError(f'"{paths.spell(steps[:i])}" is not an object, so it has no field "{step}"')
            if node.get(step) is None:
                node[step] = {} if isinstance(steps[i + 1], str) else []
            node = node[step]
        else:
            found = _index(node, step, steps[:i])
            if found == len(node):
                node.append({} if isinstance(steps[i + 1], str) else [])
            node = node[found]
    _set(node, steps, value)


def _set(node: Any, steps: list[paths.Step], value: Any) -> None:
    last, before = steps[-1], steps[:-1]
    if not isinstance(last, str):
        found = _index(node, last, before)
        if value is None:
            del node[found : found + 1]
        else:
            node[found : found + 1] = [value]
    elif not isinstance(node, dict):
        raise ValueError(f'"{paths.spell(before)}" is not an object, so it has no field "{last}"')
    elif value is None:
        node.pop(last, None)
    elif isinstance(node.get(last), list) and not isinstance(value, list):
        node[last] = [*node[last], value]
    else:
        node[last] = value


def _index(node: Any, step: int | tuple[str, str], before: list[paths.Step]) -> int:
    """The item that a step means; the length of the list for one behind the last."""
    where = paths.spell(before)
    if not isinstance(node, list):
        raise ValueError(f'"{where}" is not a list')
    if isinstance(step, int):
        return step if 0 <= step < len(node) else len(node)
    key, text = step
    for i, item in enumerate(node):
        if isinstance(item, dict) and key and str(item.get(key)) == text:
            return i
        if not isinstance(item, (dict, list)) and regex.compiled(f"{key}:{text}" if key else text).search(str(item)):
            return i
    raise ValueError(f'"{where}" has no item [{key}:{text}]')
