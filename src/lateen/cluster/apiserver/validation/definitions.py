"""CustomResourceDefinitions: what the registry and the schema walker depend on."""

from __future__ import annotations

from lateen.cluster.apiserver.validation import names
from lateen.cluster.apiserver.validation.fields import Causes, bad, denied, required, unsupported
from lateen.kit.jsons import Json

_SCOPES = ("Cluster", "Namespaced")


def check(obj: Json, built_in: set[str]) -> Causes:
    spec, name = obj.get("spec") or {}, str(obj["metadata"]["name"])
    kinds, group = spec.get("names") or {}, str(spec.get("group") or "")
    plural = str(kinds.get("plural") or "")
    out: Causes = []
    if name != f"{plural}.{group}":
        out.append(bad("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    elif name in built_in:
        out.append(denied("metadata.name", "this server has a built-in resource of this name"))
    if "." not in group:
        out.append(bad("spec.group", group, "should be a domain with at least one dot"))
    out += [bad("spec.group", group, s) for s in names.dns_subdomain(group)]
    for key in ("plural", "singular"):
        value = str(kinds.get(key) or "")
        out += [bad(f"spec.names.{key}", value, s) for s in names.dns_1035_label(value)]
    for key in ("kind", "listKind"):
        value = str(kinds.get(key) or "")
        wrong = names.dns_1035_label(value.lower())
        out += [bad(f"spec.names.{key}", value, f"may have mixed case, but should otherwise match: {s}") for s in wrong]
    if spec.get("scope") not in _SCOPES:
        out.append(unsupported("spec.scope", spec.get("scope") or "", _SCOPES))
    return out + _versions(spec.get("versions") or [])


def _versions(versions: list[Json]) -> Causes:
    out: Causes = []
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
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            out.append(required(f"{at}.schema.openAPIV3Schema", "schemas are required"))
        elif schema.get("type") != "object":
            out.append(required(f"{at}.schema.openAPIV3Schema.type", "must be object at the root"))
        else:
            out += _structural(schema, f"{at}.schema.openAPIV3Schema", 0)
    return out


def _structural(schema: Json, path: str, depth: int) -> Causes:
    """No references, and patterns that can be compiled."""
    if depth > 60:
        return [denied(path, "schemas are nested too deeply")]
    out: Causes = [denied(f"{path}.$ref", "$ref is not supported")] if schema.get("$ref") else []
    if pattern := schema.get("pattern"):
        try:
            names.regular(pattern)
        except ValueError as e:
            out.append(bad(f"{path}.pattern", pattern, f"must be a valid regular expression, but isn't: {e}"))
    for key, child in (schema.get("properties") or {}).items():
        if isinstance(child, dict):
            out += _structural(child, f"{path}.properties[{key}]", depth + 1)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            out += _structural(schema[key], f"{path}.{key}", depth + 1)
    return out
