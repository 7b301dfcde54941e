"""What is wrong with a policy or a binding, and who may write it (after pkg/apis/admissionregistration/validation)."""

from __future__ import annotations

import re

from lateen.cluster.apiserver import rbac
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.custom.types import DYN, Type
from lateen.cluster.apiserver.errors import forbidden
from lateen.cluster.apiserver.policies import evaluation, typing
from lateen.cluster.apiserver.policies.expressions import compiled
from lateen.cluster.apiserver.rbac import Attributes
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.apiserver.validation import meta, names
from lateen.cluster.apiserver.validation.fields import Causes, bad, duplicate, required, too_many, unsupported
from lateen.cluster.store.objects import Store
from lateen.kit.jsons import Json, dig

OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized")
_ACTIONS = ("Audit", "Deny", "Warn")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
MAX_CONDITIONS, MAX_EXPRESSION = 64, 10 * 1024


def policy(obj: Json) -> Causes:
    spec = obj.get("spec") or {}
    out: Causes = []
    kind = spec.get("paramKind")
    if kind is not None:
        out += [required(f"spec.paramKind.{k}") for k in ("apiVersion", "kind") if not kind.get(k)]
    constraints = spec.get("matchConstraints")
    if not constraints:
        out.append(required("spec.matchConstraints"))
    elif not constraints.get("resourceRules"):
        out.append(required("spec.matchConstraints.resourceRules"))
    out += _matches(constraints or {}, "spec.matchConstraints")
    validations, notes = spec.get("validations") or [], spec.get("auditAnnotations") or []
    if not validations and not notes:
        says = "validations or auditAnnotations must contain at least one item"
        out += [required("spec.validations", says), required("spec.auditAnnotations", says)]
    if spec.get("failurePolicy", "Fail") not in ("Fail", "Ignore"):
        out.append(unsupported("spec.failurePolicy", spec["failurePolicy"], ("Fail", "Ignore")))
    plain = typing.scope(None if kind is None else DYN)
    out += conditions(spec.get("matchConditions") or [], "spec.matchConditions", plain)
    given, wrong = _variables(spec.get("variables") or [], plain)
    out += wrong
    for i, rule in enumerate(validations):
        at = f"spec.validations[{i}]"
        out += _expression(rule.get("expression"), f"{at}.expression", given, typing.OF_RULES)
        if rule.get("messageExpression"):
            out += _expression(rule["messageExpression"], f"{at}.messageExpression", given, typing.OF_MESSAGES)
        if "message" in rule and not rule["message"].strip():
            out.append(bad(f"{at}.message", rule["message"], "message must be non-empty if specified"))
        elif "\n" in str(rule.get("message") or "").strip():
            out.append(bad(f"{at}.message", rule["message"], "message must not contain line breaks"))
        if rule.get("reason") and rule["reason"] not in _REASONS:
            out.append(unsupported(f"{at}.reason", rule["reason"], _REASONS))
    seen: set[str] = set()
    for i, note in enumerate(notes):
        at, key = f"spec.auditAnnotations[{i}]", str(note.get("key") or "")
        out += [bad(f"{at}.key", key, s) for s in names.qualified(key)] if key else [required(f"{at}.key")]
        out += [duplicate(f"{at}.key", key)] if key in seen else []
        seen.add(key)
        out += _expression(note.get("valueExpression"), f"{at}.valueExpression", given, typing.OF_NOTES)
    return out


def _variables(found: list[Json], plain: typing.Scope) -> tuple[typing.Scope, Causes]:
    """What expressions may name that use them, and what is wrong with them."""
    out: Causes = []
    known, before = typing.Variables(plain), set[str]()
    for i, v in enumerate(found):
        at, name = f"spec.variables[{i}]", str(v.get("name") or "")
        if not name:
            out.append(required(f"{at}.name", "name is not specified"))
        elif not _IDENTIFIER.fullmatch(name):
            out.append(bad(f"{at}.name", name, "name is not a valid CEL identifier"))
        elif name in before:
            out.append(duplicate(f"{at}.name", name))
        out += _expression(v.get("expression"), f"{at}.expression", known.scope, typing.ANY)
        known.add(v)
        before.add(name)
    return known.scope if found else plain, out


def _expression(text: str | None, at: str, given: typing.Scope, wanted: tuple[Type, ...]) -> Causes:
    """``given``: what it may use; ``wanted``: the types that its value may have."""
    if not (text or "").strip():
        return [required(at, "expression is not specified")]
    text = str(text)
    if len(text) > MAX_EXPRESSION:
        return [bad(at, text[:40], f"must not be longer than {MAX_EXPRESSION} characters")]
    says = typing.misfit(text, given, wanted)
    try:
        compiled(text, "params" in given, "variables" in given)
    except ValueError as e:
        says = says or str(e)
    return [bad(at, text, says)] if says else []


def conditions(found: list[Json], at: str, given: typing.Scope) -> Causes:
    """Match conditions of a policy or of a webhook."""
    if len(found) > MAX_CONDITIONS:
        return [too_many(at, len(found), MAX_CONDITIONS)]
    out: Causes = []
    seen: set[str] = set()
    for i, c in enumerate(found):
        name = str(c.get("name") or "")
        if not name:
            out.append(required(f"{at}[{i}].name"))
        elif name in seen:
            out.append(duplicate(f"{at}[{i}].name", name))
        else:
            out += [bad(f"{at}[{i}].name", name, s) for s in names.qualified(name)]
        seen.add(name)
        out += _expression(c.get("expression"), f"{at}[{i}].expression", given, typing.OF_RULES)
    return out


def of_webhooks(obj: Json) -> Causes:
    """The rules and match conditions of webhooks; ``validation.policies`` checks the rest."""
    out: Causes = []
    for i, hook in enumerate(obj.get("webhooks") or []):
        for j, rule in enumerate(hook.get("rules") or []):
            out += _rule(rule, f"webhooks[{i}].rules[{j}]")
        out += conditions(hook.get("matchConditions") or [], f"webhooks[{i}].matchConditions", typing.scope(None))
        versions = hook.get("admissionReviewVersions") or []
        for j, version in enumerate(versions):
            if version in versions[:j]:
                out.append(bad(f"webhooks[{i}].admissionReviewVersions[{j}]", version, "duplicate version"))
    return out


def _matches(found: Json, at: str) -> Causes:
    out: Causes = []
    for key in ("namespaceSelector", "objectSelector"):
        out += meta.selector(found.get(key) or {}, f"{at}.{key}")
    if found.get("matchPolicy", "Equivalent") not in ("Equivalent", "Exact"):
        out.append(unsupported(f"{at}.matchPolicy", found["matchPolicy"], ("Equivalent", "Exact")))
    for key in ("resourceRules", "excludeResourceRules"):
        for i, rule in enumerate(found.get(key) or []):
            out += _rule(rule, f"{at}.{key}[{i}]")
    return out


def _rule(rule: Json, at: str) -> Causes:
    out = [required(f"{at}.{k}") for k in ("apiGroups", "apiVersions", "resources", "operations") if not rule.get(k)]
    for i, operation in enumerate(rule.get("operations") or []):
        if operation not in OPERATIONS:
            out.append(unsupported(f"{at}.operations[{i}]", operation, OPERATIONS))
    if len(given := rule.get("operations") or []) > 1 and "*" in given:
        out.append(bad(f"{at}.operations", given, "if '*' is present, must not specify other operations"))
    out += _resources(rule.get("resources") or [], f"{at}.resources")
    if rule.get("scope") not in (None, "*", "Cluster", "Namespaced"):
        out.append(unsupported(f"{at}.scope", rule["scope"], ("*", "Cluster", "Namespaced")))
    return out


def _resources(given: list[str], at: str) -> Causes:
    """Wildcards beside what they stand for."""
    if "*/*" in given and len(given) > 1:
        return [bad(at, given, "if '*/*' is present, must not specify other resources")]
    out: Causes = []
    for i, name in enumerate(given):
        kind, slash, _ = name.partition("/")
        if slash and f"{kind}/*" in given and name != f"{kind}/*":
            out.append(bad(f"{at}[{i}]", name, f"if '{kind}/*' is present, must not specify {name}"))
    if "*" in given and any("/" not in name for name in given if name != "*"):
        out.append(bad(at, given, "if '*' is present, must not specify other resources without subresources"))
    return out


def binding(obj: Json) -> Causes:
    spec = obj.get("spec") or {}
    at, name = "spec.policyName", str(spec.get("policyName") or "")
    out: Causes = [bad(at, name, s) for s in names.dns_subdomain(name)] if name else [required(at)]
    if (ref := spec.get("paramRef")) is not None:
        out += _param_ref(ref)
    out += _matches(spec.get("matchResources") or {}, "spec.matchResources")
    actions = spec.get("validationActions") or []
    if not actions:
        out.append(required("spec.validationActions", "at least one validation action is required"))
    for i, action in enumerate(actions):
        if action not in _ACTIONS:
            out.append(unsupported(f"spec.validationActions[{i}]", action, _ACTIONS))
        elif action in actions[:i]:
            out.append(duplicate(f"spec.validationActions[{i}]", action))
    if {"Deny", "Warn"} <= set(actions):
        says = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API "
            "response and headers serves no purpose)"
        )
        out.append(bad("spec.validationActions", actions, says))
    return out


def _param_ref(ref: Json) -> Causes:
    at = "spec.paramRef"
    found: Causes = []
    if ref.get("name") and ref.get("selector") is not None:
        found.append(bad(f"{at}.name", ref["name"], "name and selector are mutually exclusive"))
    elif not ref.get("name") and ref.get("selector") is None:
        found.append(required(at, "one of name or selector must be specified"))
    found += meta.selector(ref.get("selector") or {}, f"{at}.selector")
    if not ref.get("parameterNotFoundAction"):
        found.append(required(f"{at}.parameterNotFoundAction"))
    elif ref["parameterNotFoundAction"] not in ("Allow", "Deny"):
        found.append(unsupported(f"{at}.parameterNotFoundAction", ref["parameterNotFoundAction"], ("Allow", "Deny")))
    return found


def complete(obj: Json, old: Json | None, registry: Registry) -> None:
    """The status of a policy, in place."""
    changed = old is not None and old["spec"] != obj["spec"]
    found = typing.warnings(obj, registry)
    obj["status"] = {
        **(obj.get("status") or {}),
        "observedGeneration": dig(old or {}, "metadata", "generation", default=1) + changed,
        "typeChecking": {"expressionWarnings": found} if found else {},
    }


def permit(c: Call, obj: Json, store: Store, registry: Registry) -> None:
    """Whoever makes a policy read parameters must be allowed to read them. Raises ApiError."""
    spec = obj.get("spec") or {}
    ref = spec.get("paramRef") or {}
    policy = store.get(evaluation.POLICIES, "", str(spec.get("policyName"))) if ref else None
    kind = spec.get("paramKind") or dig(policy.obj if policy else {}, "spec", "paramKind")
    resource = registry.of_kind(str(kind.get("apiVersion")), str(kind.get("kind"))) if kind else None
    if resource is None:
        return
    name, namespace = str(ref.get("name") or "*"), str(ref.get("namespace") or "*")
    asked = Attributes("get", resource.group, resource.plural, namespace if resource.namespaced else "", name)
    if not rbac.allowed(store, c.user, asked):
        r, own = c.resource, str(obj["metadata"].get("name", ""))
        says = f'{r.qualified} "{own}" is forbidden: user {c.user.name} does not have "get" permission on the params'
        raise forbidden(says, r.plural, own, r.group)
