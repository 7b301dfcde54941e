"""A request that is admitted, and which rules of webhooks and policies it meets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from lateen.cluster.apiserver import conversion
from lateen.cluster.apiserver.auth import User
from lateen.cluster.apiserver.budget import Budget
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.resources import Resource
from lateen.cluster.apiserver.versions import Versions
from lateen.cluster.store.objects import Store
from lateen.kit import selectors
from lateen.kit.jsons import Json, dig

Form = tuple[Resource, str]
"""A resource and a version in which objects are shown."""


@dataclass(frozen=True)
class Review:
    """One request to admit. ``obj`` is None for DELETE, ``old`` for CREATE.

    ``resource`` and ``version``: the form of the objects; ``asked``: the resource and version that the client used.
    ``kind``: that of the objects (group, version, kind), where a subresource has objects of its own (Scale).
    """

    operation: str
    resource: Resource
    version: str
    namespace: str
    name: str
    obj: Json | None
    old: Json | None
    user: User
    asked: tuple[Resource, str]
    dry_run: bool = False
    subresource: str = ""
    kind: tuple[str, str, str] | None = None
    warnings: list[str] = field(default_factory=list)
    costs: Budget = field(default_factory=Budget, compare=False)
    made: dict[tuple[int, str], tuple[Json, Json]] = field(default_factory=dict, compare=False)
    """What objects are in other versions, by id and version, with the objects themselves."""

    def request(self, uid: str) -> Json:
        """AdmissionRequest without the objects."""
        resource, kind = _named_by(self.resource, self.version, self.kind)
        asked_resource, asked_kind = _named_by(*self.asked, self.kind)
        out: Json = {
            "uid": uid,
            "kind": kind,
            "resource": resource,
            "requestKind": asked_kind,
            "requestResource": asked_resource,
            "name": self.name,
            "namespace": self.namespace,
            "operation": self.operation,
            "userInfo": self.user.info(),
            "dryRun": self.dry_run,
            "options": {},
        }
        sub = self.subresource
        return out | ({"subResource": sub, "requestSubResource": sub} if sub else {})

    def afresh(self) -> Review:
        """For another round: its object may have been changed in place since the last one."""
        return replace(self, made={})

    def of(self, obj: Json | None) -> Review:
        return self if obj is self.obj else replace(self, obj=obj)


def review(
    operation: str, c: Call, obj: Json | None, old: Json | None, kind: tuple[str, str, str] | None = None
) -> Review:
    """The review of a call about what is stored, with its objects as they are stored."""
    to = conversion.call(c)
    if old is not None and kind is None:
        old = {**old, "apiVersion": to.resource.api_version(to.version), "kind": to.resource.kind}
    return Review(
        operation,
        to.resource,
        to.version,
        c.namespace,
        c.name or str(dig(obj or {}, "metadata", "name", default="")),
        obj,
        old,
        c.user,
        c.asked or (c.resource, c.version),
        c.dry_run,
        c.through or c.subresource,
        kind,
        c.warnings,
    )


def _named_by(r: Resource, version: str, kind: tuple[str, str, str] | None) -> tuple[Json, Json]:
    group, of, name = kind or (r.group, version, r.kind)
    resource = {"group": r.group, "version": version, "resource": r.plural}
    return resource, {"group": group, "version": of, "kind": name}


def named_form(rules: list[Json], spec: Json, review: Review) -> Form | None:
    """The form in which one of the rules (of a webhook, or of a policy) names what a review is about, the client's own
    first; None if no rule does. ``spec`` has the ``matchPolicy``: Exact admits no other form."""
    for resource, version in _forms(review, spec.get("matchPolicy") == "Exact"):
        if any(_named(rule, resource, version, review) for rule in rules):
            return resource, version
    return None


async def shown(versions: Versions, review: Review, form: Form) -> Review:
    """The same request with its objects in another of their forms. Raises ApiError."""
    resource, version = form
    if (resource.qualified, version) == (review.resource.qualified, review.version):
        return review
    if review.kind is not None:
        return replace(review, resource=resource, version=version)
    obj, old = [o and await _between(versions, review, form, o) for o in (review.obj, review.old)]
    return replace(review, resource=resource, version=version, obj=obj, old=old)


async def _between(versions: Versions, review: Review, form: Form, obj: Json) -> Json:
    if review.resource.custom:
        key = id(obj), form[1]
        if key not in review.made:
            review.made[key] = obj, await versions.between(review.resource, form[1], obj)
        return review.made[key][1]
    return conversion.between((review.resource, review.version), form, obj)


def _forms(review: Review, exact: bool) -> Iterator[Form]:
    yield review.asked
    if not exact:
        yield from (f for f in conversion.forms(*review.asked) if f != review.asked)


def _named(rule: Json, r: Resource, version: str, review: Review) -> bool:
    names, scope = rule.get("resourceNames") or [], rule.get("scope") or "*"
    return (
        _has(rule.get("operations"), review.operation)
        and _has(rule.get("apiGroups"), r.group)
        and _has(rule.get("apiVersions"), version)
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


def selected(spec: Json, review: Review, store: Store) -> bool:
    """The objectSelector and the namespaceSelector; an object counts before and after its change."""
    found = spec.get("objectSelector")
    if found and not any(selectors.matches(found, labels(o)) for o in (review.obj, review.old) if o is not None):
        return False
    found = spec.get("namespaceSelector")
    if not found:
        return True
    if (review.resource.group, review.resource.kind) == ("", "Namespace"):
        return selectors.matches(found, labels(review.obj or review.old))
    if not review.namespace:
        return True
    ns = store.get("namespaces", "", review.namespace)
    return ns is not None and selectors.matches(found, labels(ns.obj))


def labels(obj: Json | None) -> Json:
    return dict(dig(obj or {}, "metadata", "labels", default={}))
