"""Evaluates policies for a write: refusals, warnings, and lines of the audit log.

After apiserver's pkg/admission/plugin/policy/validating (dispatcher.go, validator.go).
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from lateen.cluster.apiserver import matching
from lateen.cluster.apiserver.errors import ApiError, forbidden
from lateen.cluster.apiserver.matching import Review
from lateen.cluster.apiserver.policies import parameters
from lateen.cluster.apiserver.policies.authorizer import Authorizer
from lateen.cluster.apiserver.policies.expressions import Evaluation, Failed
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.apiserver.versions import Versions
from lateen.cluster.store.objects import Store
from lateen.kit.jsons import Json, dig

audit = logging.getLogger("lateen.audit")

GROUP = "admissionregistration.k8s.io"
POLICIES, BINDINGS = f"validatingadmissionpolicies.{GROUP}", f"validatingadmissionpolicybindings.{GROUP}"
KINDS = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}
MAX_MESSAGE = 5 * 1024


@dataclass(frozen=True)
class Finding:
    """A violation of a policy by a write."""

    policy: str
    binding: str
    says: str
    reason: str = "Invalid"


async def check(store: Store, registry: Registry, versions: Versions, review: Review) -> None:
    """Raises ApiError for the first refusal; adds warnings."""
    if (review.resource.group == GROUP and review.resource.kind in KINDS) or not store.count(BINDINGS):
        return
    denied: list[Finding] = []
    for entry in store.list(BINDINGS):
        spec = entry.obj["spec"]
        policy = store.get(POLICIES, "", str(spec.get("policyName")))
        seen = None if policy is None else await _concerns(versions, policy.obj, spec, review, store)
        if policy is None or seen is None:
            continue
        actions = spec.get("validationActions") or []
        judge, kind = _Judge(store, seen, policy.obj, entry.obj), policy.obj["spec"].get("paramKind")
        try:
            params = await parameters.find(store, registry, versions, kind, spec.get("paramRef"), review.namespace)
            findings = judge.findings(params)
        except Failed as e:
            findings = judge.failure(f"failed to configure binding: {e}")
        for found in findings:
            if "Deny" in actions:
                denied.append(found)
            if "Warn" in actions:
                review.warnings.append(
                    f"Validation failed for ValidatingAdmissionPolicy '{found.policy}' with binding "
                    f"'{found.binding}': {found.says}"
                )
            if "Audit" in actions:
                where = f"{review.operation} {review.resource.qualified} {review.namespace}/{review.name}"
                audit.info("%s by %s fails policy %s (%s): %s", where, review.user.name, *_brief(found))
    if denied:
        raise _refusal(review, denied[0])


def _brief(found: Finding) -> tuple[str, str, str]:
    return found.policy, found.binding, found.says


def _refusal(review: Review, found: Finding) -> ApiError:
    r = review.resource
    says = f"ValidatingAdmissionPolicy '{found.policy}' with binding '{found.binding}' denied request: {found.says}"
    error = forbidden(f'{r.qualified} "{review.name}" is forbidden: {says}', r.plural, review.name, r.group)
    details = {**(error.details or {}), "causes": [{"message": says}]}
    return ApiError(CODES[found.reason], found.reason, error.message, details)


async def _concerns(versions: Versions, policy: Json, binding: Json, review: Review, store: Store) -> Review | None:
    """The request in the form that the policy names, if the policy and its binding are about it. Raises ApiError."""
    constraints = dig(policy, "spec", "matchConstraints", default={})
    form = matching.named_form(constraints.get("resourceRules") or [], constraints, review)
    if form is None or _excluded(constraints, review) or not matching.selected(constraints, review, store):
        return None
    narrower = binding.get("matchResources")
    if narrower is not None and not _within(narrower, review, store):
        return None
    return await matching.shown(versions, review, form)


def _within(narrower: Json, review: Review, store: Store) -> bool:
    rules = narrower.get("resourceRules") or []
    return (
        (not rules or matching.named_form(rules, narrower, review) is not None)
        and not _excluded(narrower, review)
        and matching.selected(narrower, review, store)
    )


def _excluded(spec: Json, review: Review) -> bool:
    return matching.named_form(spec.get("excludeResourceRules") or [], spec, review) is not None


def variables(store: Store, review: Review, authorizer: Authorizer) -> Json:
    """What expressions see, without parameters."""
    r = review.resource
    namespace = store.get("namespaces", "", review.namespace) if review.namespace else None
    own = {"group": r.group, "resource": r.plural, "namespace": review.namespace, "name": review.name}
    own |= {"subresource": review.subresource} if review.subresource else {}
    return {
        "object": _plain(review.obj),
        "oldObject": _plain(review.old),
        "request": review.request(str(uuid.uuid4())),
        "namespaceObject": namespace.obj if namespace else None,
        "authorizer": authorizer.variable(own),
    }


def _plain(obj: Json | None) -> Json | None:
    if obj is None or "managedFields" not in (obj.get("metadata") or {}):
        return obj
    return {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k != "managedFields"}}


class _Judge:
    """Evaluates one policy with one of its bindings for one write."""

    def __init__(self, store: Store, review: Review, policy: Json, binding: Json) -> None:
        self._review, self._policy, self._binding = review, policy, binding
        self._authorizer = Authorizer(store, review.user, review.costs)
        self._given = variables(store, review, self._authorizer)

    def findings(self, params: list[Json | None]) -> Iterator[Finding]:
        spec = self._policy["spec"]
        for one in params:
            given = self._given if spec.get("paramKind") is None else {**self._given, "params": one}
            yield from self._with(Evaluation(given, self._authorizer, spec.get("variables") or [], self._review.costs))

    def _with(self, about: Evaluation) -> Iterator[Finding]:
        spec = self._policy["spec"]
        try:
            if not met(spec.get("matchConditions") or [], about):
                return
        except Failed as e:
            yield from self.failure(str(e))
            return
        for rule in spec.get("validations") or []:
            yield from self._rule(rule, about)
        for note in spec.get("auditAnnotations") or []:
            try:
                value = about.value(note["valueExpression"])
            except Failed as e:
                yield from self.failure(f"expression '{note['valueExpression']}' resulted in error: {e}")
                continue
            if isinstance(value, str) and value.strip():
                name = self._policy["metadata"]["name"]
                audit.info("%s/%s of %s: %s", name, note["key"], self._review.name, value)

    def _rule(self, rule: Json, about: Evaluation) -> Iterator[Finding]:
        text = rule["expression"].strip()
        try:
            if about.value(rule["expression"]) is True:
                return
        except Failed as e:
            yield from self.failure(f"expression '{text}' resulted in error: {e}")
            return
        says = str(rule.get("message") or "").strip() or f"failed expression: {text}"
        if rule.get("messageExpression"):
            says = _said(rule["messageExpression"], about) or says
        yield self._finding(says, rule.get("reason") or "Invalid")

    def failure(self, says: str) -> Iterator[Finding]:
        """Something could not be evaluated: the policy's failurePolicy decides."""
        if self._policy["spec"].get("failurePolicy", "Fail") == "Fail":
            yield self._finding(says, "Invalid")

    def _finding(self, says: str, reason: str) -> Finding:
        return Finding(self._policy["metadata"]["name"], self._binding["metadata"]["name"], says, reason)


def met(conditions: list[Json], about: Evaluation) -> bool:
    """Match conditions: a false one wins over one that cannot be evaluated. Raises Failed."""
    failure = None
    for condition in conditions:
        try:
            if about.value(condition["expression"]) is not True:
                return False
        except Failed as e:
            failure = Failed(f"expression '{condition['expression']}' resulted in error: {e}")
    if failure:
        raise failure
    return True


def _said(expression: str, about: Evaluation) -> str:
    try:
        value = about.value(expression)
    except Failed:
        return ""
    text = value.strip() if isinstance(value, str) else ""
    return text if "\n" not in text and len(text) <= MAX_MESSAGE else ""
