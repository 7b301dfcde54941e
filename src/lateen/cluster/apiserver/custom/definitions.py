"""CustomResourceDefinitions: what the registry and the schema walker depend on."""

from __future__ import annotations

import re

from lateen.cluster.apiserver.custom import declared, values
from lateen.cluster.apiserver.errors import Cause
from lateen.cluster.apiserver.validation import clients, names
from lateen.cluster.apiserver.validation.fields import Causes, bad, denied, immutable, required, unsupported
from lateen.kit import regex
from lateen.kit.jsons import Json, dig

_SCOPES = ("Cluster", "Namespaced")
_COLUMNS = ("boolean", "date", "integer", "number", "string")
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_SIMPLE = re.compile(r"(\.[A-Za-z0-9_$-]+)+")


def check(obj: Json, built_in: set[str], old: Json | None = None) -> Causes:
    spec, name = obj.get("spec") or {}, str(obj["metadata"]["name"])
    kinds, group = spec.get("names") or {}, str(spec.get("group") or "")
    plural = str(kinds.get("plural") or "")
    out: Causes = []
    moved = old is not None and group != dig(old, "spec", "group")
    if name != f"{plural}.{group}" and not moved:
        out.append(bad("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    elif name in built_in:
        out.append(denied("metadata.name", "this server has a built-in resource of this name"))
    if not group:
        out.append(required("spec.group"))
    else:
        out += [bad("spec.group", group, s) for s in names.dns_subdomain(group)]
        out += [] if "." in group else [bad("spec.group", group, "should be a domain with at least one dot")]
    for key in ("plural", "singular"):
        value = str(kinds.get(key) or "")
        wrong = names.dns_1035_label(value)
        out += [bad(f"spec.names.{key}", value, s) for s in wrong] if value else [required(f"spec.names.{key}")]
    for key in ("shortNames", "categories"):
        for i, value in enumerate(kinds.get(key) or []):
            out += [bad(f"spec.names.{key}[{i}]", value, s) for s in names.dns_1035_label(value)]
    for key in ("kind", "listKind"):
        value = str(kinds.get(key) or "")
        if not value:
            out.append(required(f"spec.names.{key}"))
            continue
        wrong = names.dns_1035_label(value.lower())
        out += [bad(f"spec.names.{key}", value, f"may have mixed case, but should otherwise match: {s}") for s in wrong]
    if kinds.get("kind") and kinds.get("kind") == kinds.get("listKind"):
        out.append(bad("spec.names.listKind", kinds["listKind"], "kind and listKind may not be the same"))
    if spec.get("scope") not in _SCOPES:
        out.append(unsupported("spec.scope", spec.get("scope") or "", _SCOPES))
    out += _conversion(spec.get("conversion") or {}, "spec.conversion")
    if spec.get("preserveUnknownFields"):
        says = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        out.append(bad("spec.preserveUnknownFields", True, says))
    out += _versions(spec.get("versions") or [], dig(old or {}, "spec", "versions", default=[]))
    return out + (_kept(spec, old["spec"]) + _stored(spec, old) if old else [])


def _conversion(conversion: Json, at: str) -> Causes:
    strategy, hook = conversion.get("strategy", "None"), conversion.get("webhook") or {}
    if strategy not in ("None", "Webhook"):
        return [unsupported(f"{at}.strategy", strategy, ("None", "Webhook"))]
    if strategy == "None":
        says = "should not be set when strategy is not set to Webhook"
        return [denied(f"{at}.webhookClientConfig", says)] if hook.get("clientConfig") else []
    out: Causes = []
    if not hook.get("clientConfig"):
        out.append(required(f"{at}.webhookClientConfig", "required when strategy is set to Webhook"))
    else:
        out += clients.check(hook["clientConfig"], f"{at}.webhookClientConfig")
        out += clients.bundle(hook["clientConfig"], f"{at}.webhookClientConfig")
    named = hook.get("conversionReviewVersions") or []
    if named and not {"v1", "v1beta1"} & set(named):
        out.append(bad(f"{at}.conversionReviewVersions", named, "must include at least one of v1, v1beta1"))
    if not hook.get("conversionReviewVersions"):
        out.append(required(f"{at}.conversionReviewVersions"))
    return out


def _subresources(version: Json, at: str) -> Causes:
    """The paths of a Scale, and columns."""
    out: Causes = []
    scale = (version.get("subresources") or {}).get("scale")
    for key, below in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")) if scale else ():
        path = str((scale or {}).get(key) or "")
        where = f"{at}.subresources.scale.{key}"
        if not path:
            out.append(required(where))
        elif not _SIMPLE.fullmatch(path):
            out.append(bad(where, path, "must be a simple json path starting with ."))
        elif not path.startswith(below):
            out.append(bad(where, path, f"should be a json path under {below[:-1]}"))
    for i, column in enumerate(version.get("additionalPrinterColumns") or []):
        where, kind, path = f"{at}.additionalPrinterColumns[{i}]", column.get("type"), str(column.get("jsonPath") or "")
        out += [] if column.get("name") else [required(f"{where}.name")]
        if not kind:
            out.append(required(f"{where}.type", f"must be one of {','.join(_COLUMNS)}"))
        elif kind not in _COLUMNS:
            out.append(bad(f"{where}.type", kind, f"must be one of {','.join(_COLUMNS)}"))
        if not path:
            out.append(required(f"{where}.JSONPath"))
        elif not path.startswith("."):
            out.append(bad(f"{where}.JSONPath", path, "must be a simple json path starting with ."))
    return out


def _kept(new: Json, old: Json) -> Causes:
    """Fields that must not change, because stored objects are found by them."""
    paths = (("group",), ("scope",), ("names", "kind"), ("names", "plural"))
    changed = [p for p in paths if dig(new, *p) != dig(old, *p)]
    return [immutable(".".join(("spec", *p)), dig(new, *p)) for p in changed]


def _unselectable(path: str, schema: Json) -> str:
    """Why fields cannot be selected by a path; "" if they can."""
    if not path.startswith("."):
        return f"is an invalid path: expected [ or . but got: {path}"
    for step in path[1:].split("."):
        schema = (schema.get("properties") or {}).get(step) or {}
    return "" if schema else "is an invalid path: does not refer to a valid field"


def _stored(new: Json, old: Json) -> Causes:
    """Versions that objects may still be stored in must stay."""
    present = {v.get("name") for v in new.get("versions") or []}
    return [
        bad(
            f"status.storedVersions[{i}]",
            name,
            f"missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions "
            f"until a storage migration ensures no data remains persisted in {name} and removes {name} from "
            "status.storedVersions",
        )
        for i, name in enumerate(dig(old, "status", "storedVersions", default=[]))
        if name not in present
    ]


def warnings(obj: Json) -> list[str]:
    """Warnings about features that a definition requests and that are not supported here."""
    spec = obj.get("spec") or {}
    out = []
    for i, version in enumerate(spec.get("versions") or []):
        schema = dig(version, "schema", "openAPIV3Schema", default={})
        out += declared.warnings(schema, f"spec.versions[{i}].schema.openAPIV3Schema")
    return out


def _versions(versions: list[Json], before: list[Json]) -> Causes:
    out: Causes = []
    known = [(v.get("name"), dig(v, "schema", "openAPIV3Schema")) for v in before]
    if not versions:
        return [required("spec.versions")]
    if sum(1 for v in versions if v.get("storage")) != 1:
        shown = [v.get("name") for v in versions]
        out.append(bad("spec.versions", shown, "must have exactly one version marked as storage version"))
    if len({v.get("name") for v in versions}) != len(versions):
        out.append(bad("spec.versions", [v.get("name") for v in versions], "must contain unique version names"))
    for i, version in enumerate(versions):
        at, name = f"spec.versions[{i}]", str(version.get("name") or "")
        out += [bad(f"{at}.name", name, s) for s in names.dns_1035_label(name)]
        out += _subresources(version, at)
        if version.get("deprecationWarning") is not None and not version.get("deprecated"):
            says = "can only be set for deprecated versions"
            out.append(bad(f"{at}.deprecationWarning", version["deprecationWarning"], says))
        root = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        for j, found in enumerate(version.get("selectableFields") or []):
            if says := _unselectable(str(found.get("jsonPath") or ""), root):
                out.append(bad(f"{at}.selectableFields[{j}].jsonPath", found.get("jsonPath") or "", says))
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            out.append(required(f"{at}.schema.openAPIV3Schema", "schemas are required"))
        elif schema.get("type") != "object":
            given, where, says = schema.get("type"), f"{at}.schema.openAPIV3Schema.type", "must be object at the root"
            out.append(bad(where, given, says) if given else required(where, says))
        else:
            wrong = _structural(schema, f"{at}.schema.openAPIV3Schema", 0)
            same = (name, schema) in known
            out += wrong or declared.mistakes(schema, f"{at}.schema.openAPIV3Schema", same)
    return out


def _structural(schema: Json, path: str, depth: int) -> Causes:
    """A schema that every field has a type in, with patterns that can be compiled and defaults that it allows."""
    if depth > 60:
        return [denied(path, "schemas are nested too deeply")]
    out: Causes = [denied(f"{path}.$ref", "$ref is not supported")] if schema.get("$ref") else []
    if schema.get("type") and schema["type"] not in _TYPES:
        out.append(unsupported(f"{path}.type", schema["type"], _TYPES))
    if pattern := schema.get("pattern"):
        try:
            regex.compiled(pattern)
        except ValueError as e:
            out.append(bad(f"{path}.pattern", pattern, f"must be a valid regular expression, but isn't: {e}"))
    out += _listing(schema, path)
    if schema.get("uniqueItems"):
        says = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        out.append(denied(f"{path}.uniqueItems", says))
    if schema.get("properties") and schema.get("additionalProperties"):
        out.append(denied(f"{path}.additionalProperties", "additionalProperties and properties are mutual exclusive"))
    for key, child in (schema.get("properties") or {}).items():
        if isinstance(child, dict):
            out += _inner(child, f"{path}.properties[{key}]", depth, "specified object fields")
    if isinstance(schema.get("items"), dict):
        out += _inner(schema["items"], f"{path}.items", depth, "specified array items")
    elif schema.get("type") == "array":
        out.append(required(f"{path}.items", "must be specified"))
    if isinstance(schema.get("additionalProperties"), dict):
        out += _inner(schema["additionalProperties"], f"{path}.additionalProperties", depth, "specified object fields")
    if schema.get("default") is not None and not out:
        out += values.check(schema, schema["default"], f"{path}.default")
    return out


def _listing(schema: Json, path: str) -> Causes:
    """Kubernetes' own extensions, and what must not stand below combinations of schemas."""
    kind, out = schema.get("x-kubernetes-list-type"), list[Cause]()
    if kind not in (None, "atomic", "set", "map"):
        out.append(unsupported(f"{path}.x-kubernetes-list-type", kind, ("atomic", "set", "map"), ordered=True))
    if kind == "map" and not schema.get("x-kubernetes-list-map-keys"):
        says = "must not be empty if x-kubernetes-list-type is map"
        out.append(required(f"{path}.x-kubernetes-list-map-keys", says))
    if schema.get("x-kubernetes-map-type") not in (None, "atomic", "granular"):
        where = f"{path}.x-kubernetes-map-type"
        out.append(unsupported(where, schema["x-kubernetes-map-type"], ("atomic", "granular")))
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        out.append(bad(f"{path}.x-kubernetes-preserve-unknown-fields", False, "must be true or undefined"))
    untyped = schema.get("x-kubernetes-int-or-string")
    for key in ("allOf", "anyOf", "oneOf"):
        for i, part in enumerate(schema.get(key) or []):
            if isinstance(part, dict) and part.get("type") and not untyped:
                out.append(denied(f"{path}.{key}[{i}].type", "must be empty to be structural"))
    return out


def _inner(schema: Json, path: str, depth: int, what: str) -> Causes:
    untyped = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    out = _structural(schema, path, depth + 1)
    if not schema.get("type") and not untyped and not schema.get("$ref"):
        out.append(required(f"{path}.type", f"must not be empty for {what}"))
    return out
