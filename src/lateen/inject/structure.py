"""The structure that injection relies on in an object that nobody has checked: parameters are merged over it before an
API server sees it, which checks the rest."""

from __future__ import annotations

from lateen.kit.jsons import Json, dig

_TEMPLATE = ("spec", "template")
_MAPPINGS = (
    ("metadata",),
    ("metadata", "labels"),
    ("metadata", "annotations"),
    ("spec",),
    _TEMPLATE,
    (*_TEMPLATE, "metadata"),
    (*_TEMPLATE, "metadata", "labels"),
    (*_TEMPLATE, "metadata", "annotations"),
    (*_TEMPLATE, "spec"),
)
_CONTAINERS = ("containers", "initContainers")
_LISTS = (*_CONTAINERS, "volumes", "imagePullSecrets")
_OF_CONTAINERS = ("env", "envFrom", "ports", "volumeMounts")


def problem(obj: Json) -> str:
    """What is wrong with an object, such as a Deployment; empty if nothing is."""
    if obj["kind"] == "Deployment" and obj.get("spec") is None:
        return "spec is missing"
    for path in _MAPPINGS:
        if not isinstance(dig(obj, *path, default={}), dict):
            return f"{'.'.join(path)} must be a mapping"
    pod = dig(obj, *_TEMPLATE, "spec", default={})
    at = ".".join((*_TEMPLATE, "spec"))
    for name in _LISTS:
        if not _is_list(pod.get(name)):
            return f"{at}.{name} must be a list of mappings"
    for name in _CONTAINERS:
        for i, container in enumerate(pod.get(name) or []):
            for part in _OF_CONTAINERS:
                if not _is_list(container.get(part)):
                    return f"{at}.{name}[{i}].{part} must be a list of mappings"
    return ""


def _is_list(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(item, dict) for item in value))
