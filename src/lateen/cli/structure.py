"""Whether what stands in a file has the structure of its kind, before anything looks into it."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.api import kinds
from lateen.api.config import misshapen
from lateen.api.validate.shapes import values
from lateen.cluster.apiserver import schema
from lateen.cluster.apiserver.errors import Cause
from lateen.kit.jsons import Json

POD = "io.k8s.api.core.v1.PodTemplateSpec"


def problems(obj: Json) -> Iterator[tuple[str, str]]:
    """(path, sentence) of fields with a type other than their kind's: Kubernetes' own, and the mesh's."""
    yield from _types(schema.META, obj.get("metadata") or {}, "metadata")
    kind = kinds.of(obj)
    if kind is not None and kind.owned and kind.spec is not None:
        yield from misshapen(kind.spec, obj.get("spec"))
        return
    group, _, version = str(obj.get("apiVersion")).rpartition("/")
    if name := schema.by_kind().get((group, version, str(obj.get("kind")))):
        yield from _types(name, {k: v for k, v in obj.items() if k != "metadata"}, "")
        yield from _nulls(obj, "")


def gaps(obj: Json) -> Iterator[tuple[str, str]]:
    """(path, sentence) of nulls in lists of the mesh's own kinds, for those who look into objects that validation
    refuses for them."""
    kind, spec = kinds.of(obj), obj.get("spec")
    if kind is not None and kind.owned and kind.spec is not None:
        nulls = {path for path, _ in _nulls(spec, "spec")}
        yield from ((f.path, f.says) for f in values(kind.spec, spec, "spec") if f.path in nulls)


def _nulls(value: object, at: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _nulls(inner, f"{at}.{key}" if at else str(key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            if inner is None:
                yield f"{at}[{i}]", "it may not be null"
            else:
                yield from _nulls(inner, f"{at}[{i}]")


def of_pod(pod: Json) -> Iterator[tuple[str, str]]:
    """The same, of a pod or the template of pods."""
    yield from _types(POD, {k: pod[k] for k in ("metadata", "spec") if k in pod}, "")


def _types(definition: str, value: object, at: str) -> Iterator[tuple[str, str]]:
    _, report = schema.check(schema.definitions()[definition], value, at=at)
    yield from map(_said, report.types)


def _said(cause: Cause) -> tuple[str, str]:
    return cause.path, cause.says
