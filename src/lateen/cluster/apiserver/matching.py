"""A request that is admitted, and which rules of webhooks and policies it meets."""

from __future__ import annotations

from dataclasses import dataclass

from lateen.cluster.apiserver.auth import User
from lateen.cluster.apiserver.resources import Resource
from lateen.cluster.store.objects import Store
from lateen.kit import selectors
from lateen.kit.jsons import Json, dig


@dataclass(frozen=True)
class Review:
    """One request to admit. ``obj`` is None for DELETE."""

    operation: str
    resource: Resource
    version: str
    namespace: str
    name: str
    obj: Json | None
    old: Json | None
    user: User
    dry_run: bool = False
    subresource: str = ""

    def request(self, uid: str) -> Json:
        """AdmissionRequest without the objects."""
        r = self.resource
        gvr = {"group": r.group, "version": self.version, "resource": r.plural}
        gvk = {"group": r.group, "version": self.version, "kind": r.kind}
        out: Json = {
            "uid": uid,
            "kind": gvk,
            "resource": gvr,
            "requestKind": gvk,
            "requestResource": gvr,
            "name": self.name,
            "namespace": self.namespace,
            "operation": self.operation,
            "userInfo": self.user.info(),
            "dryRun": self.dry_run,
            "options": {},
        }
        return out | ({"subResource": self.subresource} if self.subresource else {})


def named(rules: list[Json], review: Review) -> bool:
    """Whether one of the rules (of a webhook, or resourceRules of a policy) names what the request is about."""
    return any(_named(rule, review) for rule in rules)


def _named(rule: Json, review: Review) -> bool:
    r, names = review.resource, rule.get("resourceNames") or []
    scope = rule.get("scope") or "*"
    return (
        _has(rule.get("operations"), review.operation)
        and _has(rule.get("apiGroups"), r.group)
        and any(_has(rule.get("apiVersions"), v) for v in r.served)
        and any(_is(text, r.plural, review.subresource) for text in rule.get("resources") or [])
        and (scope == "*" or (scope == "Namespaced") == bool(review.namespace))
        and (not names or review.name in names)
    )


def _has(values: list[str] | None, value: str) -> bool:
    return bool(values) and ("*" in (values or ()) or value in (values or ()))


def _is(text: str, plural: str, subresource: str) -> bool:
    """``pods``, ``pods/log``, ``pods/*``, ``*/scale``; ``*`` is without subresources, ``*/*`` with them."""
    resource, slash, sub = text.partition("/")
    return resource in ("*", plural) and (sub in ("*", subresource) if slash else not subresource)


def selected(spec: Json, review: Review, obj: Json | None, store: Store) -> bool:
    """The objectSelector and the namespaceSelector; an object counts before and after its change."""
    found = spec.get("objectSelector")
    if found and not any(selectors.matches(found, labels(o)) for o in (obj, review.old) if o is not None):
        return False
    found = spec.get("namespaceSelector")
    if not found:
        return True
    if (review.resource.group, review.resource.kind) == ("", "Namespace"):
        return selectors.matches(found, labels(obj or review.old))
    if not review.namespace:
        return True
    ns = store.get("namespaces", "", review.namespace)
    return ns is not None and selectors.matches(found, labels(ns.obj))


def labels(obj: Json | None) -> Json:
    return dict(dig(obj or {}, "metadata", "labels", default={}))
