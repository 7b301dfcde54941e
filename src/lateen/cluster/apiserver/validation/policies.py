"""RBAC, leases, webhooks."""

from __future__ import annotations

import re

from lateen.cluster.apiserver.errors import Cause
from lateen.cluster.apiserver.validation import clients, meta, names
from lateen.cluster.apiserver.validation.fields import (
    Causes,
    bad,
    denied,
    duplicate,
    immutable,
    required,
    too_long,
    unsupported,
)
from lateen.kit.jsons import Json

_PATH = re.compile(r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+")
_ROLES = ("Role", "ClusterRole")
_SUBJECTS = ("ServiceAccount", "User", "Group")


def role(obj: Json, namespaced: bool) -> Causes:
    out: Causes = []
    if obj.get("aggregationRule") is not None and not obj["aggregationRule"].get("clusterRoleSelectors"):
        says = "at least one clusterRoleSelector required if aggregationRule is non-nil"
        out.append(required("aggregationRule.clusterRoleSelectors", says))
    for i, selector in enumerate((obj.get("aggregationRule") or {}).get("clusterRoleSelectors") or []):
        out += meta.selector(selector, f"aggregationRule.clusterRoleSelectors[{i}]")
    for i, rule in enumerate(obj.get("rules") or []):
        at = f"rules[{i}]"
        if not rule.get("verbs"):
            out.append(required(f"{at}.verbs", "verbs must contain at least one value"))
        if rule.get("nonResourceURLs"):
            if namespaced:
                says = "namespaced rules cannot apply to non-resource URLs"
                out.append(bad(f"{at}.nonResourceURLs", rule["nonResourceURLs"], says))
            if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                says = "rules cannot apply to both regular resources and non-resource URLs"
                out.append(bad(f"{at}.nonResourceURLs", rule["nonResourceURLs"], says))
            continue
        if not rule.get("apiGroups"):
            out.append(required(f"{at}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.get("resources"):
            out.append(required(f"{at}.resources", "resource rules must supply at least one resource"))
    return out


def binding(obj: Json, old: Json | None, namespaced: bool) -> Causes:
    ref = obj.get("roleRef") or {}
    out: Causes = []
    if ref.get("apiGroup", meta.RBAC) != meta.RBAC:
        out.append(unsupported("roleRef.apiGroup", ref["apiGroup"], (meta.RBAC,)))
    allowed = _ROLES if namespaced else _ROLES[1:]
    if ref.get("kind") not in allowed:
        out.append(unsupported("roleRef.kind", ref.get("kind") or "", allowed, ordered=True))
    name = str(ref.get("name") or "")
    out += [bad("roleRef.name", name, s) for s in names.path_segment(name)] if name else [required("roleRef.name")]
    for i, subject in enumerate(obj.get("subjects") or []):
        out += _subject(subject, f"subjects[{i}]", namespaced)
    if old is not None and ref != old.get("roleRef"):
        out.append(bad("roleRef", ref, "cannot change roleRef"))
    return out


def _subject(subject: Json, at: str, namespaced: bool) -> Causes:
    kind, name = subject.get("kind"), str(subject.get("name") or "")
    out: Causes = [] if name else [required(f"{at}.name")]
    group = "" if kind == "ServiceAccount" else meta.RBAC
    if kind in _SUBJECTS and subject.get("apiGroup", group) != group:
        out.append(unsupported(f"{at}.apiGroup", subject["apiGroup"], (group,)))
    if kind not in _SUBJECTS:
        out.append(unsupported(f"{at}.kind", kind or "", _SUBJECTS, ordered=True))
    if kind == "ServiceAccount":
        out += [bad(f"{at}.name", name, s) for s in names.dns_subdomain(name)] if name else []
        if not namespaced and not subject.get("namespace"):
            out.append(required(f"{at}.namespace"))
    return out


def lease(spec: Json) -> Causes:
    out: Causes = []
    if spec.get("leaseDurationSeconds", 1) <= 0:
        out.append(bad("spec.leaseDurationSeconds", spec["leaseDurationSeconds"], "must be greater than 0"))
    if spec.get("leaseTransitions", 0) < 0:
        out.append(bad("spec.leaseTransitions", spec["leaseTransitions"], "must be greater than or equal to 0"))
    return out


def webhooks(obj: Json) -> Causes:
    out: Causes = []
    seen: set[str] = set()
    for i, hook in enumerate(obj.get("webhooks") or []):
        at, name = f"webhooks[{i}]", str(hook.get("name") or "")
        if not name:
            out.append(required(f"{at}.name"))
        elif wrong := names.dns_subdomain(name):
            out += [bad(f"{at}.name", name, s) for s in wrong]
        elif name.count(".") < 2:
            out.append(bad(f"{at}.name", name, "should be a domain with at least three segments separated by dots"))
        elif name in seen:
            out.append(duplicate(f"{at}.name", name))
        seen.add(name)
        out += _webhook(hook, at)
    return out


def _webhook(hook: Json, at: str) -> Causes:
    out: Causes = []
    if not hook.get("admissionReviewVersions"):
        out.append(required(f"{at}.admissionReviewVersions", "must specify one of v1, v1beta1"))
    elif "v1" not in hook["admissionReviewVersions"]:
        out.append(bad(f"{at}.admissionReviewVersions", hook["admissionReviewVersions"], "must include v1"))
    for key, allowed in (
        ("sideEffects", ("None", "NoneOnDryRun")),
        ("failurePolicy", ("Fail", "Ignore")),
        ("matchPolicy", ("Equivalent", "Exact")),
        ("reinvocationPolicy", ("IfNeeded", "Never")),
    ):
        if hook.get(key) is None:
            out += [required(f"{at}.sideEffects")] if key == "sideEffects" else []
        elif hook[key] not in allowed:
            out.append(unsupported(f"{at}.{key}", hook[key], allowed))
    if not 1 <= hook.get("timeoutSeconds", 10) <= 30:
        says = "the timeout value must be between 1 and 30 seconds"
        out.append(bad(f"{at}.timeoutSeconds", hook["timeoutSeconds"], says))
    for key in ("namespaceSelector", "objectSelector"):
        out += meta.selector(hook.get(key) or {}, f"{at}.{key}")
    return out + clients.check(hook.get("clientConfig") or {}, f"{at}.clientConfig")


def ingress_class(obj: Json, old: Json | None) -> Causes:
    spec, at = obj.get("spec") or {}, "spec.controller"
    controller, out = str(spec.get("controller") or ""), list[Cause]()
    domain, slash, path = controller.partition("/")
    if len(controller) > 250:
        out.append(too_long(at, 250))
    if not controller:
        out.append(required(at))
    elif not slash or not path or names.dns_subdomain(domain) or not _PATH.fullmatch(path):
        out.append(bad(at, controller, 'must be a domain-prefixed path (such as "acme.io/foo")'))
    if spec.get("parameters") is not None:
        given = spec["parameters"]
        out += [required(f"spec.parameters.{k}", f"{k} is required") for k in ("kind", "name") if not given.get(k)]
        scope, where = given.get("scope", "Cluster"), "spec.parameters.namespace"
        if scope not in ("Cluster", "Namespace"):
            out.append(unsupported("spec.parameters.scope", scope, ("Cluster", "Namespace")))
        elif scope == "Namespace" and not given.get("namespace"):
            out.append(required(where, "`parameters.scope` is set to 'Namespace'"))
        elif scope == "Cluster" and given.get("namespace") is not None:
            out.append(denied(where, "`parameters.scope` is set to 'Cluster'"))
    if old is not None and controller != ((old.get("spec") or {}).get("controller") or ""):
        out.append(immutable(at, controller))
    return out
