"""Structural checks of objects against OpenAPI schemas: types, enums, required, unknown fields; pruning; defaults.

One walker serves Kubernetes' own kinds (definitions with ``$ref``) and custom resources (inline schemas), whose values
``values`` checks.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any, cast

from lateen.cluster.apiserver.custom import values
from lateen.cluster.apiserver.errors import Cause
from lateen.cluster.apiserver.validation.fields import MAX_CAUSES, MAX_TEXT, bad, below, required, shown, unsupported
from lateen.cluster.rules import amounts
from lateen.kit import jsons, regex, times
from lateen.kit.jsons import Json

_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=]|=(?!=?$)")
_TEXTS = frozenset(("type", "description", "default"))
"""The only keys in the schema of a field that may be any string."""
_LATER = ("apiGroup", "pathType")
"""Required fields that get a default afterwards (that of a binding's roleRef), or that their kind's rules ask for."""
META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


@lru_cache(maxsize=1)
def definitions() -> dict[str, Json]:
    raw = (files("lateen.cluster") / "data" / "openapi.json.gz").read_bytes()
    return cast(dict[str, Json], jsons.loads(gzip.decompress(raw)))


@lru_cache(maxsize=1)
def by_kind() -> dict[tuple[str, str, str], str]:
    """(group, version, kind) -> definition name."""
    out = {}
    for name, schema in definitions().items():
        gvks = schema.get("x-kubernetes-group-version-kind") or []
        if len(gvks) == 1:
            g = gvks[0]
            out[(g["group"], g["version"], g["kind"])] = name
    return out


def resolve(schema: Json) -> Json:
    while "$ref" in schema:
        schema = definitions()[schema["$ref"].rpartition("/")[2]]
    return schema


@dataclass
class Report:
    """``types``: fields with a type other than the schema's; ``invalid``: other violations; ``unknown``: paths of
    fields that the schema does not have."""

    types: list[Cause] = field(default_factory=list)
    invalid: list[Cause] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    room: int = MAX_TEXT
    """Characters of causes and unknown fields that are still noted."""
    go: bool = False
    """Kubernetes' own kinds are decoded into Go structures, where a missing list or object is an empty one."""

    def type(self, path: str, wanted: str, value: Any) -> None:
        if not self.go:
            self.unreadable(values.mistyped(path, wanted, value))
            return
        self.mistyped(path, f"Invalid value: {shown(value)}: must be of type {wanted}, not {values.type_name(value)}")

    def mistyped(self, path: str, says: str) -> None:
        self.unreadable(Cause(path, says, "FieldValueTypeInvalid"))

    def unreadable(self, cause: Cause) -> None:
        if self._fits(len(self.types), len(cause.path) + len(cause.says)):
            self.types.append(cause)

    def pruned(self, path: str) -> None:
        if self._fits(len(self.unknown), len(path)):
            self.unknown.append(path)

    def _fits(self, count: int, text: int) -> bool:
        """The first of a kind is always noted: objects are refused for it."""
        if count == MAX_CAUSES or (count and self.room <= 0):
            return False
        self.room -= text
        return True


def check(schema: Json, obj: Any, at: str = "") -> tuple[Json, Report]:
    """An object of Kubernetes' own without unknown fields and nulls, and what was found; ``at``: its path in a larger
    object."""
    report = Report(go=True)
    return cast(Json, _walk(schema, obj, at, report)), report


def check_custom(schema: Json, obj: Any, whole: bool = True) -> tuple[Json, Report]:
    """A custom resource without unknown fields, and what was found; with its defaults if it is a whole object, and not
    what somebody applies of one."""
    report = Report()
    out = _walk(schema, obj, "", report)
    if whole:
        _fill(schema, out)
    if whole and not report.types:
        report.invalid += values.check(schema, out)
    return cast(Json, out), report


def pruned(schema: Json, obj: Json) -> Json:
    """A custom resource without what a version does not have."""
    return cast(Json, _walk(schema, obj, "", Report()))


def defaulted(schema: Json, obj: Json) -> Json:
    """A copy of a custom resource with a version's defaults."""
    out = jsons.copy(obj)
    _fill(schema, out)
    return out


def _fill(schema: Json, value: Any) -> None:
    """Defaults, in place, of what is missing in objects that are there."""
    if isinstance(value, dict):
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        for key, inner in properties.items():
            if "default" in inner and key not in value:
                value[key] = jsons.copy(inner["default"])
        for key, child in value.items():
            if isinstance(inner := properties.get(key, extra), dict):
                _fill(inner, child)
    elif isinstance(value, list) and isinstance(items := schema.get("items"), dict):
        for child in value:
            _fill(items, child)


def _walk(schema: Json, value: Any, path: str, report: Report) -> Any:
    schema = resolve(schema)
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") in ("int-or-string", "quantity"):
        if not isinstance(value, (int, float, str)) or isinstance(value, bool):
            report.type(path, "number or string", value)
        elif schema.get("format") == "quantity" and report.go:
            return _quantity(value, path, report)
        elif report.go:
            _width("int32", value, path, report)
        return value
    kind = schema.get("type")
    if value is None:
        return None  # of a nullable field
    if kind in values.NAMES and (
        not isinstance(value, values.NAMES[kind]) or (isinstance(value, bool) and kind != "boolean")
    ):
        report.type(path, kind, value)
        return value
    if isinstance(value, dict):
        return _object(schema, value, path, report)
    if isinstance(value, list):
        items = schema.get("items")
        return [_walk(items, v, f"{path}[{i}]", report) if items else v for i, v in enumerate(value) if v is not None]
    if report.go:
        _limits(schema, value, path, report)
        if isinstance(value, str) and (wrong := _unreadable(schema.get("format"), value)):
            report.mistyped(path, wrong)
    return value


def _quantity(value: Any, path: str, report: Report) -> Any:
    try:
        amounts.parse(value)
    except ValueError as e:
        report.mistyped(path, str(e))
        return value
    return amounts.canonical(value)


def _unreadable(form: Any, value: str) -> str:
    """Why a Go program cannot decode a string into its field (times and bytes); empty if it can."""
    if form == "date-time" and (times.moment(value) is None or "T" not in value):
        return f'parsing time "{value[:80]}" as "2006-01-02T15:04:05Z07:00": cannot parse "{value[:80]}" as "2006"'
    if form == "byte":
        plain = value.replace("\n", "").replace("\r", "")
        wrong = _NOT_BASE64.search(plain)
        if wrong or len(plain) % 4:
            return f"illegal base64 data at input byte {wrong.start() if wrong else len(plain) // 4 * 4}"
    return ""


def _width(form: Any, value: Any, path: str, report: Report) -> None:
    """Numbers that a Go program cannot decode into its field."""
    bits = {"int32": 31, "int64": 63}.get(form)
    if bits and isinstance(value, int) and not -(1 << bits) <= value < 1 << bits:
        says = f"Invalid value: {value}: cannot unmarshal number {value} into a field of type {form}"
        report.mistyped(path, says)


def _limits(schema: Json, value: Any, path: str, report: Report) -> None:
    if "enum" in schema and value not in schema["enum"] and value != "":
        report.invalid.append(unsupported(path, value, map(str, schema["enum"])))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        _width(schema.get("format"), value, path, report)
        if value < schema.get("minimum", value):
            report.invalid.append(bad(path, value, f"must be greater than or equal to {schema['minimum']}"))
        if value > schema.get("maximum", value):
            report.invalid.append(bad(path, value, f"must be less than or equal to {schema['maximum']}"))
    if isinstance(value, str) and "pattern" in schema and not regex.compiled(schema["pattern"]).search(value):
        report.invalid.append(bad(path, value, f"should match '{schema['pattern']}'"))


def _object(schema: Json, value: Json, path: str, report: Report) -> Json:
    properties = schema.get("properties")
    extra = schema.get("additionalProperties")
    keep = schema.get("x-kubernetes-preserve-unknown-fields") or (properties is None and extra is None)
    whole = not path or schema.get("x-kubernetes-embedded-resource")
    out: Json = {}
    for key, child in value.items():
        at = below(path, key)
        if child is None and (report.go or not (properties or {}).get(key, {}).get("nullable")):
            continue
        if properties is not None and key in properties:
            plain = report.go and type(child) is str and _TEXTS.issuperset(properties[key])
            out[key] = (
                child
                if plain and properties[key].get("type") == "string"
                else _walk(properties[key], child, at, report)
            )
        elif isinstance(extra, dict):
            out[key] = _walk(extra, child, f"{path}[{key}]" if report.go else at, report)
        elif keep or extra is True or (whole and key in ("apiVersion", "kind", "metadata")):
            out[key] = child
        else:
            report.pruned(at)
    for key in (schema.get("required") or ()) if report.go else ():
        empty = resolve((properties or {}).get(key, {})).get("type") in ("array", "object")
        if out.get(key) is None and not empty and key not in _LATER:
            report.invalid.append(required(below(path, key)))
    return out
