"""The types of a policy's expressions: what is refused when it is written, and what its status warns of.

After apiserver's pkg/admission/plugin/cel/compile.go (objects and parameters may be anything) and
plugin/policy/validating/typechecking.go (they are what the policy's rules and its paramKind name).
"""

from __future__ import annotations

from collections.abc import Iterator

from lateen.cluster.apiserver import decoding, schema
from lateen.cluster.apiserver.custom import checking, typed, types
from lateen.cluster.apiserver.custom.types import BOOL, DYN, NULL, STRING, UNKNOWN, Type
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.apiserver.resources import Resource
from lateen.kit.jsons import Json, dig

Scope = dict[str, Type]
MAX_TYPES = 10
ANY, OF_RULES, OF_MESSAGES, OF_NOTES = (), (BOOL,), (STRING,), (STRING, NULL)
"""The types that an expression may have, by what it is for; none is any."""

_TIME = Type("timestamp")
_TEXTS = Type("list", (STRING,))
_LABELS = Type("map", (STRING, STRING))


def _struct(name: str, fields: dict[str, Type]) -> Type:
    return Type(name, fields=fields.get)


def _texts(*names: str) -> dict[str, Type]:
    return dict.fromkeys(names, STRING)


_KIND = _struct("kubernetes.GroupVersionKind", _texts("group", "version", "kind"))
_RESOURCE = _struct("kubernetes.GroupVersionResource", _texts("group", "version", "resource"))
_USER = _struct(
    "kubernetes.UserInfo",
    {**_texts("username", "uid"), "groups": _TEXTS, "extra": Type("map", (STRING, _TEXTS))},
)
_REQUEST = _struct(
    "kubernetes.AdmissionRequest",
    {
        "kind": _KIND,
        "resource": _RESOURCE,
        "requestKind": _KIND,
        "requestResource": _RESOURCE,
        **_texts("subResource", "requestSubResource", "name", "namespace", "operation"),
        "userInfo": _USER,
        "dryRun": BOOL,
        "options": DYN,
    },
)
_META = _struct(
    "kubernetes.NamespaceMetadata",
    {
        **_texts("name", "generateName", "namespace", "UID", "resourceVersion"),
        "labels": _LABELS,
        "annotations": _LABELS,
        "finalizers": _TEXTS,
        "generation": Type("int"),
        "creationTimestamp": _TIME,
        "deletionTimestamp": _TIME,
        "deletionGracePeriodSeconds": Type("int"),
    },
)
_NAMESPACE = _struct(
    "kubernetes.Namespace",
    {
        "metadata": _META,
        "spec": _struct("kubernetes.NamespaceSpec", {"finalizers": _TEXTS}),
        "status": _struct("kubernetes.NamespaceStatus", {"phase": STRING}),
    },
)
_ALWAYS: Scope = {
    "object": DYN,
    "oldObject": DYN,
    "request": _REQUEST,
    "namespaceObject": _NAMESPACE,
    "authorizer": _struct(
        f"{types.AUTHORIZATION}Authorizer", {"requestResource": Type(f"{types.AUTHORIZATION}ResourceCheck")}
    ),
}


def scope(params: Type | None, known: Type = DYN) -> Scope:
    """What expressions may name; ``params``: None where there are none; ``known``: the type of objects."""
    return {**_ALWAYS, "object": known, "oldObject": known} | ({"params": params} if params else {})


class Variables:
    """The variables of a policy, each of which may use those before it. ``scope``: what the next one may name; it is
    one dictionary, which knows each variable that has been added."""

    def __init__(self, names: Scope) -> None:
        self._fields: dict[str, Type] = {}
        self.scope: Scope = {**names, "variables": Type("kubernetes.variables", fields=self._fields.get)}

    def add(self, variable: Json) -> None:
        found, wrong = checking.checked(str(variable.get("expression") or ""), self.scope, True)
        self._fields[str(variable.get("name"))] = DYN if wrong else found


def with_variables(names: Scope, variables: list[Json]) -> Scope:
    """With the variables of a policy, if it has any."""
    made = Variables(names)
    for v in variables:
        made.add(v)
    return made.scope if variables else names


def misfit(text: str, names: Scope, wanted: tuple[Type, ...]) -> str:
    """Why an expression has no value of a wanted type; "" if it has, or if that is not known."""
    made, wrong = checking.checked(text, names, True)
    if wrong:
        return f"compilation failed: {wrong}"
    if not wanted or made in (UNKNOWN, *wanted):
        return ""
    called, got = list(map(_shown, wanted)), _shown(made)
    one = called[0] if len(called) == 1 else f"one of [{' '.join(called)}]"
    return f"must evaluate to {one} but got {got}"


def _shown(made: Type) -> str:
    return "null_type" if made == NULL else str(made)


# --- against the types that a policy names ---------------------------------------------------------------------------


def warnings(policy: Json, registry: Registry) -> list[Json]:
    """``status.typeChecking.expressionWarnings``."""
    spec = policy.get("spec") or {}
    kind = spec.get("paramKind") or {}
    param = registry.of_kind(str(kind.get("apiVersion")), str(kind.get("kind")))
    params = None if param is None else _type(param, str(kind["apiVersion"]).rpartition("/")[2])
    scopes = []
    for r, version in _about(spec, registry):
        names = scope(params, _type(r, version))
        scopes.append((f"{r.group}/{version}, Kind={r.kind}", with_variables(names, spec.get("variables") or [])))
    out = []
    for i, rule in enumerate(spec.get("validations") or []):
        for key in ("expression", "messageExpression"):
            found = [(at, checking.checked(str(rule.get(key) or ""), names, True)[1]) for at, names in scopes]
            if says := [f"{at}: {wrong}\n" for at, wrong in found if wrong]:
                out.append({"fieldRef": f"spec.validations[{i}].{key}", "warning": "\n".join(says)})
    return out


def _about(spec: Json, registry: Registry) -> list[tuple[Resource, str]]:
    """The kinds that rules name without wildcards, in the order of group, version and kind."""
    found: dict[tuple[str, str, str], tuple[Resource, str]] = {}
    for rule in dig(spec, "matchConstraints", "resourceRules", default=[]):
        for count, (r, version) in enumerate(_of_rule(rule, registry), 1):
            found[r.group, version, r.kind] = r, version
            if count == MAX_TYPES:
                return [found[key] for key in sorted(found)]
    return [found[key] for key in sorted(found)]


def _of_rule(rule: Json, registry: Registry) -> Iterator[tuple[Resource, str]]:
    groups, versions = rule.get("apiGroups") or [], rule.get("apiVersions") or []
    if any("*" in name for name in [*groups, *versions]):
        return
    names = [n for n in rule.get("resources") or [] if not set("*/") & set(n)]
    for group in sorted(groups):
        for version in sorted(versions):
            for name in sorted(names):
                if r := registry.find(group, version, name):
                    yield r, version


def _type(r: Resource, version: str) -> Type:
    found = decoding.schema_of(r, version)
    if found is None:
        return DYN
    meta = {"$ref": f"#/definitions/{schema.META}"}
    own = _resolved(found)
    own = {**own, "type": "object", "properties": {**(own.get("properties") or {}), "metadata": meta}}
    for name in ("apiVersion", "kind"):
        own["properties"].setdefault(name, {"type": "string"})
    return types.of_schema(own, r.kind, typed.escaped, resolve=_resolved) or DYN


def _resolved(given: Json) -> Json:
    """Quantities have no single type in Kubernetes' own definitions, so that expressions do not see them."""
    found = schema.resolve(given)
    return {} if "$ref" in given and found.get("format") == "quantity" else found
