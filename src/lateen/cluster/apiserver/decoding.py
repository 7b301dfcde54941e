"""Decodes a body into an object of the kind that the path names: types, unknown fields, required fields.

Later steps need not check whether ``metadata`` is an object or a name is a string: anything else is refused here, with
the path of the field.
"""

from __future__ import annotations

from typing import Any

from lateen.cluster.apiserver import errors, schema
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.custom import ratcheting, rules, values
from lateen.cluster.apiserver.errors import bad_request
from lateen.cluster.apiserver.resources import Resource
from lateen.cluster.apiserver.validation.fields import bad
from lateen.kit import jsons
from lateen.kit.jsons import Json, dig

_DELETE_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
_SCALE = "io.k8s.api.autoscaling.v1.Scale"


def schema_of(r: Resource, version: str) -> Json | None:
    if r.custom:
        return r.schemas.get(version)
    name = schema.by_kind().get((r.group, version, r.kind))
    return schema.definitions()[name] if name else None


def decode(c: Call, body: Any, old: Json | None = None) -> Json:
    """A copy of the body as an object of the call's kind; ``old``: the custom resource that it replaces. Raises
    ApiError; adds warnings of unknown fields."""
    if not isinstance(body, dict):
        raise bad_request("the body must be one object (apiVersion, kind, metadata, …)")
    obj, report = structure(c, _object(c, body), old)
    _report_unknown(c, report)
    return obj


def _object(c: Call, body: Json) -> Json:
    """A copy with apiVersion and kind set. Raises ApiError if the body names others."""
    kind, version = body.get("kind") or c.resource.kind, body.get("apiVersion")
    if kind != c.resource.kind:
        raise bad_request(f"the body is a {jsons.dumps(kind).decode()[:80]}, but the path is for {c.resource.kind}")
    wanted = c.resource.api_version(c.version)
    if version and version not in [c.resource.api_version(v) for v in c.resource.served if _alike(c, v)]:
        raise bad_request(
            f"the API version in the data ({str(version)[:80]}) does not match the expected API version ({wanted})"
        )
    obj = jsons.copy(body)
    obj["kind"], obj["apiVersion"] = c.resource.kind, wanted
    obj["metadata"] = obj.get("metadata") or {}
    return obj


def _alike(c: Call, version: str) -> bool:
    """Whether a body of this version can be read as one of the call's."""
    return c.resource.uniform or version == c.version


def configuration(c: Call, body: Any) -> Json:
    """The body of an apply: like an object, but only a part of one. Raises ApiError."""
    if not isinstance(body, dict):
        raise bad_request("the body must be one object (apiVersion, kind, metadata, …)")
    for key, called in (("apiVersion", "apiVersion"), ("kind", "Kind")):
        if not body.get(key):
            raise bad_request(f"Object '{called}' is missing in the applied configuration")
    obj = _object(c, body)
    name = obj["metadata"].get("name") if isinstance(obj["metadata"], dict) else None
    if not name:
        raise bad_request("the name of the object (based on the URL) was undeterminable: name must be provided")
    if name != c.name:
        raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({c.name})")
    found = schema.Report()
    meta, in_meta = schema.check(schema.definitions()[schema.META], obj["metadata"], at="metadata")
    wanted = schema_of(c.resource, c.version)
    if wanted is not None:
        obj, found = schema.check_custom(wanted, obj, whole=False) if c.resource.custom else schema.check(wanted, obj)
    found.types += in_meta.types
    found.unknown += in_meta.unknown
    found.invalid.clear()  # what is required may be there already; the object that comes out of it is checked
    _refuse(c, obj, found)
    _report_unknown(c, found)
    return {**obj, "metadata": meta}


def structure(c: Call, obj: Json, old: Json | None = None) -> tuple[Json, schema.Report]:
    """The object without unknown fields and nulls. Raises ApiError if it violates its schema; a custom resource may do
    so where it is as it was (``old``)."""
    wanted = schema_of(c.resource, c.version)
    meta, found = schema.check(schema.definitions()[schema.META], obj["metadata"], at="metadata")
    _refuse(c, obj, found)
    # Kubernetes leaves empty lists and maps out.
    obj = {**obj, "metadata": {k: v for k, v in meta.items() if v not in ([], {})}}
    if wanted is None:
        return obj, found
    obj, report = schema.check_custom(wanted, obj) if c.resource.custom else schema.check(wanted, obj)
    report.unknown += found.unknown
    if c.resource.custom and old is not None and report.types + report.invalid:
        _ratchet(report, values.check(wanted, obj, kept=ratcheting.kept(wanted, obj, old)))
    if c.resource.custom and report.types + report.invalid:
        report.invalid += rules.after(wanted, obj, old, report.types + report.invalid)
    _refuse(c, obj, report)
    return obj, report


def _ratchet(report: schema.Report, left: list[errors.Cause]) -> None:
    """Only what the update has changed has to be valid; types come first here, too."""
    report.types[:] = [cause for cause in left if cause.reason == "FieldValueTypeInvalid"]
    report.invalid[:] = [] if report.types else left


def _refuse(c: Call, obj: Json, report: schema.Report) -> None:
    if report.types and not c.resource.custom:
        listed = ", ".join(f"{cause.path}: {cause.says}" for cause in report.types)
        raise bad_request(
            f'{c.resource.kind} in version "{c.version}" cannot be handled as a {c.resource.kind}: {listed}'
        )
    if report.types or report.invalid:
        name = str(dig(obj, "metadata", "name", default=""))
        raise errors.invalid(c.resource.kind, c.resource.group, name, report.types + report.invalid)


def _report_unknown(c: Call, report: schema.Report) -> None:
    if not report.unknown:
        return
    listed = ", ".join(f'unknown field "{p}"' for p in report.unknown)
    match c.query.get("fieldValidation", "Warn"):
        case "Strict":
            raise bad_request(
                f'{c.resource.kind} in version "{c.version}" cannot be handled as a {c.resource.kind}: strict decoding '
                f"error: {listed}"
            )
        case "Warn":
            c.warnings += [f'unknown field "{p}"' for p in report.unknown]


def delete_options(c: Call) -> Json:
    """DeleteOptions from the body, with what the query adds. Raises ApiError."""
    given = c.body if isinstance(c.body, dict) else {}
    if c.body not in (None, b"") and not isinstance(c.body, dict):
        raise bad_request("the body of a deletion must be DeleteOptions")
    options, report = schema.check(schema.definitions()[_DELETE_OPTIONS], given)
    if report.types:
        listed = ", ".join(f"{cause.path}: {cause.says}" for cause in report.types)
        raise bad_request(f"DeleteOptions cannot be read: {listed}")
    for key in ("propagationPolicy", "gracePeriodSeconds"):
        if key not in options and c.query.get(key):
            options[key] = c.query[key] if key == "propagationPolicy" else c.number(key)
    if options.get("orphanDependents") or (c.flag("orphanDependents") and "propagationPolicy" not in options):
        options["propagationPolicy"] = "Orphan"
    policy = options.get("propagationPolicy")
    if policy not in (None, "Orphan", "Background", "Foreground"):
        raise errors.invalid(
            "DeleteOptions",
            "meta.k8s.io",
            "",
            [
                errors.Cause(
                    "propagationPolicy", f'Invalid value: "{policy}": must be one of Background, Foreground, Orphan'
                )
            ],
        )
    if options.get("gracePeriodSeconds", 0) < 0:
        options["gracePeriodSeconds"] = 1
    if "All" in (options.get("dryRun") or []):
        c.query["dryRun"] = "All"
    return options


def scale(body: Any) -> Json:
    """An autoscaling/v1 Scale. Raises ApiError."""
    if not isinstance(body, dict):
        raise bad_request("the body must be a Scale")
    obj, report = schema.check(schema.definitions()[_SCALE], body)
    if report.types:
        raise bad_request(f"Scale cannot be read: {report.types[0].path}: {report.types[0].says}")
    return obj


def replicas(given: Json, name: str) -> int:
    """The number that a Scale asks for: 0 where it says none. Raises ApiError."""
    found = dig(given, "spec", "replicas", default=0)
    if found < 0:
        cause = bad("spec.replicas", found, "must be greater than or equal to 0")
        raise errors.invalid("Scale", "autoscaling", name, [cause])
    return int(found)
