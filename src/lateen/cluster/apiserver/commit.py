"""The only way to write an object to the store: stamp, default, own, admit, complete, check, write.

create, update, every patch and every subresource that changes an object end here, so each step applies to all of them.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import TypeVar

from lateen.cluster.apiserver import (
    cleanup,
    decoding,
    defaults,
    errors,
    managed,
    matching,
    owners,
    parts,
    scales,
    strategies,
    validation,
)
from lateen.cluster.apiserver.admission import Webhooks
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.custom import rules as custom_rules
from lateen.cluster.apiserver.errors import ApiError
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.apiserver.resources import CRDS, Resource
from lateen.cluster.apiserver.validation import pods, resizing
from lateen.cluster.apiserver.validation.fields import denied
from lateen.cluster.store.history import Entry
from lateen.cluster.store.objects import MAX_OBJECT, Conflict, Exists, Full, Missing, Store, TooLarge
from lateen.cluster.store.sqlite import StoreFull
from lateen.kit import jsons, times
from lateen.kit.jsons import Json, dig

T = TypeVar("T")
_DELETION = ("deletionTimestamp", "deletionGracePeriodSeconds")
_SERVER_KEYS = ("uid", "creationTimestamp", "namespace", "generation", *_DELETION)
_UNNUMBERED = frozenset(
    {
        *("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ServiceAccount", "CertificateSigningRequest"),
        *("ConfigMap", "Secret", "Service", "Endpoints", "Event", "Lease", "Namespace", "Node", "ControllerRevision"),
        *("CSIDriver", "PersistentVolume", "PersistentVolumeClaim", "StorageClass"),
        *("HorizontalPodAutoscaler", "LimitRange", "ResourceQuota"),
    }
)
"""Kinds of Kubernetes' own whose changes are not counted in metadata.generation."""
_NEW_KEYS = ("resourceVersion", "selfLink", *_DELETION)


class Committer:
    def __init__(self, store: Store, registry: Registry, webhooks: Webhooks, allocator: strategies.Allocator) -> None:
        self._store, self._registry = store, registry
        self.versions = webhooks.versions
        self._webhooks, self._allocator = webhooks, allocator

    async def commit(
        self, c: Call, obj: Json, entry: Entry | None, expected: int | None, fields: list[Json] | None = None
    ) -> Json:
        """Write a new object (``entry`` is None) or a new version of one; returns what is stored, or would be (dry
        run), in the call's version.

        ``obj`` has been decoded. ``expected`` is the revision that the writer has seen. ``fields``: its managedFields,
        where the writer has applied a configuration. Raises ApiError.
        """
        old = (await self.versions.seen(c, entry)).obj if entry else None
        if entry is not None and expected not in (None, entry.rv):
            raise errors.conflict(c.resource.plural, c.name, c.resource.group)
        self._stamp(c, obj, old)
        if c.subresource in ("", "ephemeralcontainers", "resize"):
            defaults.apply(c.resource, obj)
        await owners.record(c, obj, old, fields, self.versions)
        obj = await (self._admit(c, obj, old) if c.subresource == "" else self._admit_part(c, obj, old or {}))
        if c.resource.custom and old is not None:  # what is carried over may predate the schema
            obj, _ = decoding.structure(c, obj, old)
        self._check(c, obj, old)
        stored = await self.versions.to_store(c, obj)
        if c.subresource in ("", "resize"):
            strategies.limit(c.resource, obj, old, self._store, c.subresource)
        if entry is not None and _same(c.resource, stored, entry.obj):
            if c.dry_run:
                return obj
            return (
                await self.versions.seen(c, self.stored(c.resource, c.name, lambda: self._store.current(entry)))
            ).obj
        if c.dry_run:
            self.stored(c.resource, str(obj["metadata"]["name"]), lambda: self._store.fitting(stored, entry))
            return obj
        return (await self.versions.seen(c, self._write(c, stored, entry))).obj

    # --- the steps -------------------------------------------------------------------------------------------

    def _stamp(self, c: Call, obj: Json, old: Json | None) -> None:
        """What only the server sets: identity, times, generation, and who may write the status."""
        meta, r = obj["metadata"], c.resource
        if old is None:
            for key in _NEW_KEYS:
                meta.pop(key, None)
            meta.update(uid=str(uuid.uuid4()), creationTimestamp=times.stamp())
            meta.pop("generation", None)
            if r.custom or r.kind not in _UNNUMBERED:
                meta["generation"] = 1
            if r.status and r.kind != "Node":
                obj.pop("status", None)
            strategies.identify(c, obj, old)
            return
        was = old["metadata"]
        for key in _SERVER_KEYS:
            if key in was:
                meta[key] = was[key]
            else:
                meta.pop(key, None)
        strategies.identify(c, obj, old)
        if c.subresource in ("status", "approval"):
            return
        if r.status:
            obj.pop("status", None)
            obj |= {"status": jsons.copy(old["status"])} if "status" in old else {}

    async def _admit(self, c: Call, obj: Json, old: Json | None) -> Json:
        """What the server itself adds (fields without an owner), and what webhooks and policies say of all that.

        As in Kubernetes: mutating plugins before and after the webhooks that change objects, then what only the kind
        itself can complete; those that judge see the object as it will be stored.
        """
        r = c.resource
        strategies.prepare(r, obj, old, self._store)
        review = matching.review("CREATE" if old is None else "UPDATE", c, obj, old)
        if c.through == "scale" and old is not None:
            return await self._admit_scale(c, obj, old)
        admitted = await self._webhooks.mutate(review)
        if admitted is not None and admitted is not obj:
            obj = self._changed(c, admitted, obj["metadata"].get("managedFields"), old)
            defaults.apply(r, obj)
            strategies.prepare(r, obj, old, self._store)
        self._complete(c, obj, old)
        await self._webhooks.validate(review.of(obj))
        return obj

    def _complete(self, c: Call, obj: Json, old: Json | None) -> None:
        strategies.permit(c, obj, old, self._store, self._registry)
        strategies.complete(c.resource, obj, old, self._allocator, self._registry)
        if old is not None and "generation" in obj["metadata"] and _changes(c.resource, obj, old):
            obj["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1

    async def _admit_scale(self, c: Call, obj: Json, old: Json) -> Json:
        """Webhooks and policies see the Scale through which an object is written, not the object."""
        r, version = c.resource, c.version
        seen, before = scales.of(r, version, obj), scales.of(r, version, old)
        admitted = await self._webhooks.admit(matching.review("UPDATE", c, seen, before, scales.KIND))
        if admitted is not None and admitted is not seen:
            obj = scales.put(r, version, obj, decoding.replicas(decoding.scale(admitted), c.name))
        self._complete(c, obj, old)
        return obj

    async def _admit_part(self, c: Call, obj: Json, old: Json) -> Json:
        """Rules of webhooks and policies may name the subresource that a part of the object is written through."""
        admitted = await self._webhooks.admit(matching.review("UPDATE", c, obj, old))
        if admitted is not None and admitted is not obj:
            changed = self._changed(c, admitted, obj["metadata"].get("managedFields"), old)
            obj = {**parts.only(c.subresource, changed, obj), "metadata": obj["metadata"]}
        strategies.permit(c, obj, old, self._store, self._registry)
        return obj

    def _changed(self, c: Call, admitted: Json, held: list[Json] | None, old: Json | None) -> Json:
        """An object as webhooks have changed it, decoded; webhooks cannot change its managedFields."""
        obj = decoding.decode(c, admitted, old)
        obj["metadata"].pop("managedFields", None)
        obj["metadata"] |= {"managedFields": held} if held else {}
        return obj

    def _check(self, c: Call, obj: Json, old: Json | None) -> None:
        r = c.resource
        if c.subresource in ("status", "approval"):
            causes = validation.status(r.group, r.kind, obj, old or {}, c.subresource)
        elif c.subresource == "resize":
            causes = resizing.check(obj["spec"], (old or {})["spec"])
        elif c.subresource == "ephemeralcontainers":
            causes = pods.ephemeral(obj["spec"], (old or {})["spec"])
        else:
            before = _with_defaults(r, old) if old is not None else None
            causes = validation.check(r.group, r.kind, obj, before) + strategies.check(
                r, obj, before, self._store, self._allocator
            )
        if r.custom and not causes and (rules := decoding.schema_of(r, c.version)):
            causes += custom_rules.check(rules, obj, old)
        if old is not None and old["metadata"].get("deletionTimestamp"):
            more = set(obj["metadata"].get("finalizers") or []) - set(old["metadata"].get("finalizers") or [])
            if more:
                says = "no new finalizers can be added if the object is being deleted, found new finalizers "
                causes.append(denied("metadata.finalizers", says + ", ".join(sorted(more))))
        if causes:
            raise errors.invalid(r.kind, r.group, str(obj["metadata"].get("name", "")), causes)

    def _write(self, c: Call, obj: Json, entry: Entry | None) -> Entry:
        r, name = c.resource, str(obj["metadata"]["name"])
        if r.custom:
            definition = self._store.get(CRDS, "", r.qualified)
            if definition is None:  # it has been removed since the request arrived
                raise errors.not_found(r.plural, name, r.group)
            if entry is None and definition.obj["metadata"].get("deletionTimestamp"):
                says = "create not allowed while custom resource definition is terminating"
                raise ApiError(405, "MethodNotAllowed", says)
        if entry is None:
            written = self.stored(r, name, lambda: self._store.create(r.collection, c.namespace, name, obj))
        else:
            written = self.stored(r, name, lambda: self._store.update(r.collection, c.namespace, name, obj, entry))
        if obj["metadata"].get("deletionTimestamp") and finished(r, obj):
            self.remove(r, c.namespace, name)
        return written

    # --- shared with deletion ----------------------------------------------------------------------------------

    def stored(self, r: Resource, name: str, write: Callable[[], T]) -> T:
        """Translate the store's refusals to the API's. Raises ApiError."""
        try:
            return write()
        except Exists:
            raise errors.exists(r.plural, name, r.group) from None
        except Conflict:
            raise errors.conflict(r.plural, name, r.group) from None
        except Missing:
            raise errors.not_found(r.plural, name, r.group) from None
        except TooLarge:
            raise ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {MAX_OBJECT}") from None
        except Full:
            says = "the cluster's objects have reached their total size; delete some, then repeat the command"
            raise ApiError(507, "InsufficientStorage", says) from None

    def remove(self, r: Resource, namespace: str, name: str) -> None:
        """Remove an object; a CustomResourceDefinition takes its objects with it, and waits for those that have
        finalizers."""
        entry = self._store.get(r.collection, namespace, name)
        if entry is None:
            return
        if r.kind == "CustomResourceDefinition" and cleanup.left(self._store, name):
            cleanup.hold(self._store, entry)
            return
        self._store.delete(r.collection, namespace, name)
        if r.custom:
            cleanup.release(self._store, r.qualified)


async def durably(written: Awaitable[None]) -> None:
    """Wait until writes are durable. Raises ApiError if they were rolled back instead."""
    try:
        await written
    except OSError as e:
        raise ApiError(507, "InsufficientStorage" if isinstance(e, StoreFull) else "InternalError", str(e)) from e


def finished(r: Resource, obj: Json) -> bool:
    """Nothing more has to be done before the object can be removed."""
    if obj["metadata"].get("finalizers"):
        return False
    if r.kind == "Namespace":
        return not dig(obj, "spec", "finalizers", default=[])
    return r.kind != "Pod" or not dig(obj, "metadata", "deletionGracePeriodSeconds", default=0)


def _with_defaults(r: Resource, old: Json) -> Json:
    """An object that may have been stored by a version with fewer defaults, as kube-apiserver reads it: what has been
    added since is no change of the user's."""
    out = jsons.copy(old)
    defaults.apply(r, out)
    return out


def _changes(r: Resource, obj: Json, old: Json) -> bool:
    """Whether something else is wanted now; the status of a custom resource without that subresource counts, too."""
    status = ("status",) if r.status or not r.custom else ()
    apart = ("metadata", "apiVersion", "kind", *status)
    now, before = ({k: v for k, v in o.items() if k not in apart} for o in (obj, old))
    return not jsons.same(now, before)


def _same(r: Resource, a: Json, b: Json) -> bool:
    """Whether a write changes nothing; one of what is stored in an older version does (a storage migration)."""
    return jsons.same(_content(a), _content(b)) and (not r.custom or a["apiVersion"] == b.get("apiVersion"))


def _content(obj: Json) -> Json:
    """What has to differ for a write to be stored: everything but the times in managedFields."""
    meta = {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}
    meta["managedFields"] = managed.without_times(meta.get("managedFields"))
    return {**obj, "apiVersion": "", "metadata": meta}
