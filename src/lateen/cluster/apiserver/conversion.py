"""Kinds of Kubernetes' own that are served in another form than the one they are stored in.

After pkg/apis/autoscaling/v1/conversion.go and pkg/apis/core/v1 and events/v1, Event. What an older version of a kind
has no field for is kept in annotations, so that reading and writing through it loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.resources import Resource
from lateen.kit import jsons
from lateen.kit.jsons import Json

Step = Callable[[Json], Json]


class Form(NamedTuple):
    """``resource``, ``version``: of what is stored; the steps go there and back, and leave their argument alone."""

    resource: Resource
    version: str
    there: Step
    back: Step


def _form(r: Resource, version: str) -> Form | None:
    return None if r.custom else _FORMS.get((r.group, version, r.kind))


def to_stored(r: Resource, version: str) -> Step | None:
    """None where objects are stored as they are."""
    found = _form(r, version)
    return found.there if found else None


def shown(r: Resource, version: str, obj: Json) -> Json:
    found = _form(r, version)
    return found.back(obj) if found else obj


def call(c: Call) -> Call:
    """The same request for what is stored."""
    found = _form(c.resource, c.version)
    if found is None:
        return c
    keep = c.resource.qualified == found.resource.qualified
    resource = c.resource if keep else found.resource
    return c.on(resource=resource, version=found.version, asked=(c.resource, c.version))


def forms(r: Resource, version: str) -> list[tuple[Resource, str]]:
    """Every resource and version that the same objects are served as, the given one first."""
    out = [(r, version), *((r, v) for v in r.served if v != version)]
    if r.custom:
        return out
    stored = _form(r, version)
    if stored is not None and stored.resource.qualified != r.qualified:
        out.append((stored.resource, stored.version))
    for (group, other, kind), form in _FORMS.items():
        if group != r.group and form.resource.qualified == r.qualified:
            out.append((Resource(group, other, r.plural, kind), other))
    return out


def between(a: tuple[Resource, str], b: tuple[Resource, str], obj: Json) -> Json:
    """An object in the form ``a`` in the form ``b``."""
    there = to_stored(*a)
    made = shown(*b, there(obj) if there else obj)
    return {**made, "apiVersion": b[0].api_version(b[1]), "kind": b[0].kind}


def _moved(obj: Json, names: dict[str, str]) -> Json:
    return {names.get(key, key): value for key, value in obj.items()}


# --- autoscaling/v1 --------------------------------------------------------------------------------------------------

_NOTE = "autoscaling.alpha.kubernetes.io/"
_METRICS, _BEHAVIOR = _NOTE + "metrics", _NOTE + "behavior"
_CONDITIONS, _CURRENT = _NOTE + "conditions", _NOTE + "current-metrics"
_SOURCES = {"Resource": "resource", "ContainerResource": "containerResource"}


def _is_cpu(metric: Json) -> bool:
    """Whether a metric is CPU utilization, the only one that version 1 has fields for."""
    source = metric.get("resource") or {}
    now = source.get("target") or source.get("current") or {}
    return metric.get("type") == "Resource" and source.get("name") == "cpu" and "averageUtilization" in now


def _cpu(percent: object, part: str) -> Json:
    target = {"type": "Utilization"} if part == "target" else {}
    return {"type": "Resource", "resource": {"name": "cpu", part: {**target, "averageUtilization": percent}}}


def _flat(metric: Json, part: str) -> Json:
    """A metric as version 1 writes it into an annotation."""
    key = _SOURCES[metric["type"]]
    source = {k: v for k, v in metric[key].items() if k != part}
    for new, old in _flat_names(part).items():
        if (value := (metric[key].get(part) or {}).get(new)) is not None:
            source[old] = value
    return {"type": metric["type"], key: source}


def _nested(metric: Json, part: str) -> Json:
    key = _SOURCES[metric["type"]]
    names = _flat_names(part)
    source = {k: v for k, v in metric[key].items() if k not in names.values()}
    inner: Json = {new: metric[key][old] for new, old in names.items() if old in metric[key]}
    if part == "target":
        inner["type"] = "Utilization" if "averageUtilization" in inner else "AverageValue"
    return {"type": metric["type"], key: source | {part: inner}}


def _flat_names(part: str) -> dict[str, str]:
    return {name: f"{part}{name[0].upper()}{name[1:]}" for name in ("averageUtilization", "averageValue")}


def _autoscaler_back(obj: Json) -> Json:
    spec, status = dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    notes: dict[str, Any] = {}
    metrics = spec.pop("metrics", None) or []
    for metric in metrics:
        if _is_cpu(metric):
            spec["targetCPUUtilizationPercentage"] = metric["resource"]["target"]["averageUtilization"]
    notes[_METRICS] = [_flat(m, "target") for m in metrics if not _is_cpu(m) and m.get("type") in _SOURCES]
    notes[_BEHAVIOR] = spec.pop("behavior", None)
    current = status.pop("currentMetrics", None) or []
    for metric in current:
        if _is_cpu(metric):
            status["currentCPUUtilizationPercentage"] = metric["resource"]["current"]["averageUtilization"]
    notes[_CURRENT] = [_flat(m, "current") for m in current if m.get("type") in _SOURCES]
    notes[_CONDITIONS] = status.pop("conditions", None)
    found = {key: jsons.dumps(value).decode() for key, value in notes.items() if value}
    meta = obj["metadata"]
    if found:
        meta = {**meta, "annotations": {**(meta.get("annotations") or {}), **found}}
    out = {**obj, "apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec}
    return out | {"status": status} if "status" in obj else out


def _autoscaler_there(obj: Json) -> Json:
    meta, spec, status = dict(obj["metadata"]), dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    annotations = dict(meta.get("annotations") or {})
    notes = {key: _read(annotations.pop(key, "")) for key in (_METRICS, _BEHAVIOR, _CONDITIONS, _CURRENT)}
    if "annotations" in meta:
        meta["annotations"] = annotations
    if not annotations:
        meta.pop("annotations", None)
    metrics = [_nested(m, "target") for m in _listed(notes[_METRICS])]
    if (percent := spec.pop("targetCPUUtilizationPercentage", None)) is not None:
        metrics.append(_cpu(percent, "target"))
    if metrics:
        spec["metrics"] = metrics
    if isinstance(notes[_BEHAVIOR], dict):
        spec["behavior"] = notes[_BEHAVIOR]
    current = [_nested(m, "current") for m in _listed(notes[_CURRENT])]
    percent = status.pop("currentCPUUtilizationPercentage", None)
    if percent is not None and not any(map(_is_cpu, current)):
        current.append(_cpu(percent, "current"))
    if current:
        status["currentMetrics"] = current
    if isinstance(notes[_CONDITIONS], list):
        status["conditions"] = notes[_CONDITIONS]
    out = {**obj, "apiVersion": "autoscaling/v2", "metadata": meta, "spec": spec}
    return out | {"status": status} if "status" in obj else out


def _read(text: str) -> Any:
    """The annotation's value; one that cannot be parsed is dropped, as in Kubernetes."""
    try:
        return jsons.loads(text) if text else None
    except ValueError:
        return None


def _listed(value: Any) -> list[Json]:
    entries = value if isinstance(value, list) else []
    return [m for m in entries if isinstance(m, dict) and isinstance(m.get(_SOURCES.get(str(m.get("type")), "")), dict)]


# --- events.k8s.io ---------------------------------------------------------------------------------------------------

_EVENT = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}


def _event_back(obj: Json) -> Json:
    return {**_moved(obj, _EVENT), "apiVersion": "events.k8s.io/v1"}


def _event_there(obj: Json) -> Json:
    out = {**_moved(obj, {new: old for old, new in _EVENT.items()}), "apiVersion": "v1"}
    return {"involvedObject": {}, **out}


_FORMS = {
    ("autoscaling", "v1", "HorizontalPodAutoscaler"): Form(
        Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
        "v2",
        _autoscaler_there,
        _autoscaler_back,
    ),
    ("events.k8s.io", "v1", "Event"): Form(Resource("", "v1", "events", "Event"), "v1", _event_there, _event_back),
}
