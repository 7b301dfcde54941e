"""The verbs of the API over the store, without a transport: the HTTP server and in-process clients share it."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from lateen.cluster.apiserver import defaults, errors, patch, schema, strategies
from lateen.cluster.apiserver.admission import Review, Webhooks
from lateen.cluster.apiserver.auth import ADMIN, Tokens, User
from lateen.cluster.apiserver.errors import ApiError, bad_request
from lateen.cluster.apiserver.resources import Registry, Resource, from_crd
from lateen.cluster.store.objects import Conflict, Entry, Exists, Expired, Missing, Store
from lateen.cluster.store.sqlite import StoreBroken, StoreFull
from lateen.kit import jsons, selectors, times
from lateen.kit.jsons import Json, dig

PATCH_TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
}


@dataclass
class Call:
    """One request. ``body`` is decoded; ``query`` has the last value of each parameter."""

    resource: Resource
    version: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    query: dict[str, str] = field(default_factory=dict)
    body: Any = None
    patch_type: str = ""
    user: User = ADMIN
    warnings: list[str] = field(default_factory=list)

    @property
    def dry_run(self) -> bool:
        return self.query.get("dryRun") == "All"


@dataclass(frozen=True)
class WatchEvent:
    type: str
    obj: Json


class Api:
    def __init__(
        self, store: Store, registry: Registry, webhooks: Webhooks, tokens: Tokens, allocator: strategies.Allocator
    ) -> None:
        self.store, self.registry, self.tokens = store, registry, tokens
        self._webhooks, self._allocator = webhooks, allocator
        for entry in store.list("customresourcedefinitions.apiextensions.k8s.io"):
            registry.add(from_crd(entry.obj))

    # --- reading ---------------------------------------------------------------------------------------------

    def get(self, c: Call) -> Json:
        return self._view(c, self._entry(c).obj)

    def list(self, c: Call) -> tuple[list[Json], str]:
        wanted = _selector(c)
        found = [e.obj for e in self.store.list(c.resource.collection, c.namespace) if wanted(e.obj)]
        return [self._view(c, o) for o in found], str(self.store.rv)

    async def watch(self, c: Call) -> AsyncIterator[WatchEvent]:
        """Events from ``resourceVersion`` on; with none, or 0, existing objects come first as ADDED."""
        wanted = _selector(c)
        since = c.query.get("resourceVersion", "")
        initial = c.query.get("sendInitialEvents") == "true" or since in ("", "0")
        try:
            start = self.store.rv if initial else int(since)
            watcher = self.store.watch(c.resource.collection, c.namespace, start)
        except ValueError:
            raise bad_request(f'resourceVersion: "{since}" is not a number') from None
        except Expired:
            raise ApiError(410, "Expired", f"too old resource version: {since} ({self.store.rv})") from None
        try:
            if initial:
                for entry in self.store.list(c.resource.collection, c.namespace):
                    if wanted(entry.obj):
                        yield WatchEvent("ADDED", self._view(c, entry.obj))
            if c.query.get("sendInitialEvents") == "true":
                yield WatchEvent(
                    "BOOKMARK",
                    {
                        "kind": c.resource.kind,
                        "apiVersion": c.resource.api_version(c.version),
                        "metadata": {
                            "resourceVersion": str(start),
                            "annotations": {"k8s.io/initial-events-end": "true"},
                        },
                    },
                )
            while True:
                for event in await watcher.next():
                    before = event.old is not None and wanted(event.old.obj)
                    after = event.type != "DELETED" and wanted(event.entry.obj)
                    kind = "MODIFIED" if before and after else "ADDED" if after else "DELETED" if before else ""
                    if kind:
                        yield WatchEvent(kind, self._view(c, event.entry.obj))
        except Expired:
            raise ApiError(410, "Expired", "the watch was too slow; list again") from None
        finally:
            self.store.unwatch(c.resource.collection, watcher)

    # --- writing ---------------------------------------------------------------------------------------------

    async def create(self, c: Call) -> Json:
        r, obj = c.resource, self._decode(c, c.body)
        meta = obj["metadata"]
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = f"{meta['generateName'][:58]}{secrets.token_hex(4)[:5]}"
        name = str(meta.get("name") or "")
        strategies.check_name(r, name, bool(meta.get("generateName")))
        if r.namespaced:
            meta["namespace"] = self._namespace(c, meta)
        else:
            meta.pop("namespace", None)
        for key in ("managedFields", "resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"):
            meta.pop(key, None)
        meta.update(uid=str(uuid.uuid4()), creationTimestamp=times.stamp(), generation=1)
        if r.status and r.custom:
            obj.pop("status", None)
        if self.store.get(r.collection, c.namespace, name):
            raise errors.exists(r.plural, name, r.group)
        defaults.apply(r.kind, obj)
        admitted = await self._webhooks.admit(self._review("CREATE", c, name, obj, None), c.warnings)
        obj = self._readmitted(c, admitted or obj)
        strategies.on_create(r, obj, self.store, self._allocator)
        obj, _ = self._check(c, obj, prune=True)
        if c.dry_run:
            return self._view(c, obj)
        entry = self._write(c, name, lambda: self.store.create(r.collection, c.namespace, name, obj))
        if r.kind == "CustomResourceDefinition":
            self.registry.add(from_crd(entry.obj))
        return self._view(c, entry.obj)

    async def update(self, c: Call) -> Json:
        obj = self._decode(c, c.body)
        given = str(obj["metadata"].get("resourceVersion") or "")
        return await self._replace(c, obj, int(given) if given.isdigit() else None)

    async def patch(self, c: Call) -> Json:
        kind = PATCH_TYPES.get(c.patch_type)
        if kind is None:
            raise ApiError(
                415,
                "UnsupportedMediaType",
                f'the patch type "{c.patch_type}" is not served here; '
                f"use one of {', '.join(PATCH_TYPES)} (server-side apply is not available yet)",
            )
        if kind == "strategic" and c.resource.custom:
            raise ApiError(
                415,
                "UnsupportedMediaType",
                "strategic merge patch is not for custom resources; use application/merge-patch+json",
            )
        for attempt in range(5):
            entry = self._entry(c)
            old = jsons.copy(self._view(c, entry.obj))
            if kind == "json":
                new = patch.json_patch(old, c.body)
            elif not isinstance(c.body, dict):
                raise bad_request("the patch must be an object")
            elif kind == "merge":
                new = patch.merge(old, c.body)
            else:
                new = patch.strategic(old, c.body, self._schema(c.resource, c.version) or {})
            asked = dig(c.body, "metadata", "resourceVersion") if isinstance(c.body, dict) else None
            if asked and str(asked) != str(entry.rv):
                raise errors.conflict(c.resource.plural, c.name, c.resource.group)
            try:
                return await self._replace(c, self._decode(c, new), entry.rv)
            except ApiError as e:
                if e.reason != "Conflict" or asked or attempt == 4:
                    raise
        raise errors.conflict(c.resource.plural, c.name, c.resource.group)

    async def _replace(self, c: Call, obj: Json, expected: int | None) -> Json:
        r, entry = c.resource, self._entry(c)
        old = entry.obj
        if dig(obj, "metadata", "name", default=c.name) != c.name:
            raise bad_request(
                f"the name of the object ({obj['metadata'].get('name')}) does not match the name on the URL ({c.name})"
            )
        if c.subresource == "status":
            obj = {**old, "status": obj.get("status") or {}}
        else:
            self._keep_server_fields(r, obj, old)
            if c.subresource == "":
                defaults.apply(r.kind, obj)
                admitted = await self._webhooks.admit(self._review("UPDATE", c, c.name, obj, old), c.warnings)
                obj = self._readmitted(c, admitted or obj)
            strategies.on_update(r, obj, old, self.store, self._allocator)
        obj, _ = self._check(c, obj, prune=True)
        if c.dry_run:
            return self._view(c, obj)
        if _same(obj, old):
            return self._view(c, old)
        rv = expected if expected is not None else entry.rv
        if expected is None and self._entry(c).rv != entry.rv:
            rv = self._entry(c).rv
        written = self._write(c, c.name, lambda: self.store.update(r.collection, c.namespace, c.name, obj, rv))
        if r.kind == "CustomResourceDefinition":
            self.registry.add(from_crd(written.obj))
        if obj["metadata"].get("deletionTimestamp") and self._finished(r, obj):
            self._remove(r, c.namespace, c.name)
        return self._view(c, written.obj)

    def _keep_server_fields(self, r: Resource, obj: Json, old: Json) -> None:
        meta, was = obj["metadata"], old["metadata"]
        for key in (
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "namespace",
            "generation",
        ):
            if key in was:
                meta[key] = was[key]
            else:
                meta.pop(key, None)
        meta.pop("managedFields", None)
        if r.status and "status" in old:
            obj["status"] = old["status"]
        elif r.status:
            obj.pop("status", None)
        if {k: v for k, v in obj.items() if k not in ("metadata", "status")} != {
            k: v for k, v in old.items() if k not in ("metadata", "status", "apiVersion")
        } | {"apiVersion": obj.get("apiVersion")}:
            meta["generation"] = was.get("generation", 1) + 1

    async def delete(self, c: Call) -> Json:
        entry, r = self._entry(c), c.resource
        options = c.body if isinstance(c.body, dict) else {}
        conditions = options.get("preconditions") or {}
        if conditions.get("uid") not in (None, dig(entry.obj, "metadata", "uid")):
            raise errors.conflict(r.plural, c.name, r.group)
        await self._webhooks.admit(self._review("DELETE", c, c.name, None, entry.obj), c.warnings)
        if c.dry_run:
            return self._deleted(c, entry.obj)
        policy = options.get("propagationPolicy") or c.query.get("propagationPolicy")
        if policy == "Foreground":
            c.warnings.append("foreground deletion is carried out in the background: the owner goes first")
        if policy == "Orphan":
            self._orphan(dig(entry.obj, "metadata", "uid"))
        grace = options.get("gracePeriodSeconds", c.query.get("gracePeriodSeconds"))
        marked = self._mark(r, entry, None if grace is None else int(grace))
        if marked is not None:
            return self._view(c, marked)
        self._remove(r, c.namespace, c.name)
        return self._deleted(c, entry.obj)

    def _mark(self, r: Resource, entry: Entry, grace: int | None) -> Json | None:
        """Set the deletion timestamp where somebody must finish first; None where the object can go at once."""
        obj = jsons.copy(entry.obj)
        meta = obj["metadata"]
        running = (
            r.kind == "Pod"
            and dig(obj, "spec", "nodeName")
            and dig(obj, "status", "phase") in ("Pending", "Running", "Unknown")
        )
        if running and grace is None:
            grace = int(dig(obj, "spec", "terminationGracePeriodSeconds", default=30))
        if not (running and grace) and (self._finished(r, obj) or (r.kind == "Pod" and not meta.get("finalizers"))):
            return None
        if meta.get("deletionTimestamp") and meta.get("deletionGracePeriodSeconds", 0) <= (grace or 0):
            return entry.obj
        meta.setdefault("deletionTimestamp", times.stamp())
        meta["deletionGracePeriodSeconds"] = grace or 0
        if r.kind == "Namespace":
            obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
        return self.store.update(r.collection, entry.namespace, entry.name, obj, entry.rv).obj

    def _finished(self, r: Resource, obj: Json) -> bool:
        if obj["metadata"].get("finalizers"):
            return False
        if r.kind == "Namespace":
            return not dig(obj, "spec", "finalizers", default=[])
        return r.kind != "Pod" or not dig(obj, "metadata", "deletionGracePeriodSeconds", default=0)

    def _remove(self, r: Resource, namespace: str, name: str) -> None:
        try:
            self.store.delete(r.collection, namespace, name)
        except Missing:
            return
        except (StoreFull, StoreBroken) as e:
            raise _unwritable(e) from e
        if r.kind == "CustomResourceDefinition":
            self.registry.remove(name)
            for entry in self.store.list(name):
                self.store.delete(name, entry.namespace, entry.name)

    def _orphan(self, uid: str) -> None:
        for collection in self.store.collections():
            for e in self.store.list(collection):
                refs = dig(e.obj, "metadata", "ownerReferences", default=[])
                if any(ref["uid"] == uid for ref in refs):
                    obj = jsons.copy(e.obj)
                    obj["metadata"]["ownerReferences"] = [ref for ref in refs if ref["uid"] != uid]
                    self.store.update(collection, e.namespace, e.name, obj, e.rv)

    def _deleted(self, c: Call, obj: Json) -> Json:
        r = c.resource
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {"name": c.name, "group": r.group, "kind": r.plural, "uid": dig(obj, "metadata", "uid")},
        }

    async def delete_collection(self, c: Call) -> Json:
        items, _ = self.list(c)
        for item in items:
            one = Call(
                c.resource,
                c.version,
                dig(item, "metadata", "namespace", default=""),
                item["metadata"]["name"],
                query=c.query,
                body=c.body,
                user=c.user,
            )
            await self.delete(one)
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}

    # --- scale, finalize, token ------------------------------------------------------------------------------

    def scale(self, c: Call) -> Json:
        obj = self._entry(c).obj
        meta = {k: obj["metadata"].get(k) for k in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")}
        selector = ",".join(f"{k}={v}" for k, v in dig(obj, "spec", "selector", "matchLabels", default={}).items())
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": meta,
            "spec": {"replicas": dig(obj, "spec", "replicas", default=1)},
            "status": {"replicas": dig(obj, "status", "replicas", default=0), "selector": selector},
        }

    async def set_scale(self, c: Call) -> Json:
        replicas = dig(c.body, "spec", "replicas")
        if not isinstance(replicas, int) or replicas < 0:
            raise bad_request("spec.replicas must be a number that is not negative")
        main = Call(
            c.resource,
            c.version,
            c.namespace,
            c.name,
            query=c.query,
            body={"spec": {"replicas": replicas}},
            patch_type="application/merge-patch+json",
            user=c.user,
            warnings=c.warnings,
        )
        await self.patch(main)
        return self.scale(c)

    def finalize(self, c: Call) -> Json:
        """Namespaces only: drop spec.finalizers; the namespace goes where it was being deleted."""
        entry = self._entry(c)
        obj = jsons.copy(entry.obj)
        obj["spec"]["finalizers"] = dig(c.body, "spec", "finalizers", default=[])
        written = self._write(c, c.name, lambda: self.store.update("namespaces", "", c.name, obj, entry.rv))
        if obj["metadata"].get("deletionTimestamp") and self._finished(c.resource, obj):
            self._remove(c.resource, "", c.name)
        return written.obj

    def token(self, c: Call) -> Json:
        account = self._entry(c).obj
        spec = dig(c.body, "spec", default={})
        audiences = spec.get("audiences") or ["https://kubernetes.default.svc.cluster.local"]
        seconds = min(max(int(spec.get("expirationSeconds") or 3600), 600), 86400)
        bound = spec.get("boundObjectRef") or {}
        pod = {"name": bound["name"], "uid": bound.get("uid", "")} if bound.get("kind") == "Pod" else None
        if pod:
            live = self.store.get("pods", c.namespace, pod["name"])
            if live is None or dig(live.obj, "spec", "serviceAccountName") != c.name:
                raise bad_request(f'pod "{pod["name"]}" does not run as service account "{c.name}"')
            pod["uid"] = live.obj["metadata"]["uid"]
        token, expires = self.tokens.issue(c.namespace, c.name, account["metadata"]["uid"], audiences, seconds, pod)
        from datetime import UTC, datetime

        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": c.name, "namespace": c.namespace},
            "spec": {**spec, "audiences": audiences},
            "status": {"token": token, "expirationTimestamp": times.stamp(datetime.fromtimestamp(expires, UTC))},
        }

    # --- inside ----------------------------------------------------------------------------------------------

    def _entry(self, c: Call) -> Entry:
        entry = self.store.get(c.resource.collection, c.namespace, c.name)
        if entry is None:
            raise errors.not_found(c.resource.plural, c.name, c.resource.group)
        return entry

    def _view(self, c: Call, obj: Json) -> Json:
        """The stored object in the version asked for; versions differ in name only."""
        wanted = c.resource.api_version(c.version)
        if obj.get("apiVersion") == wanted and obj.get("kind") == c.resource.kind:
            return obj
        return {**obj, "apiVersion": wanted, "kind": c.resource.kind}

    def _namespace(self, c: Call, meta: Json) -> str:
        given = meta.get("namespace")
        if given and given != c.namespace:
            raise bad_request(
                f"the namespace of the object ({given}) does not match the namespace on the request ({c.namespace})"
            )
        found = self.store.get("namespaces", "", c.namespace)
        if found is None:
            raise errors.not_found("namespaces", c.namespace)
        if found.obj["metadata"].get("deletionTimestamp"):
            raise errors.forbidden(
                f'unable to create new content in namespace "{c.namespace}" because it is being terminated'
            )
        return c.namespace

    def _decode(self, c: Call, body: Any) -> Json:
        if not isinstance(body, dict):
            raise bad_request("the body must be one object (apiVersion, kind, metadata, …)")
        obj = jsons.copy(body)
        kind = obj.get("kind") or c.resource.kind
        if kind != c.resource.kind:
            raise bad_request(f'the body is a "{kind}", but the path is for "{c.resource.kind}"')
        obj["kind"], obj["apiVersion"] = c.resource.kind, c.resource.api_version(c.version)
        meta = obj.setdefault("metadata", {})
        if not isinstance(meta, dict):
            raise bad_request("metadata must be an object")
        obj["metadata"] = {k: v for k, v in meta.items() if v is not None}
        obj, report = self._check(c, obj, prune=True)
        self._report_unknown(c, report)
        return obj

    def _readmitted(self, c: Call, obj: Json) -> Json:
        defaults.apply(c.resource.kind, obj)
        return obj

    def _schema(self, r: Resource, version: str) -> Json | None:
        if r.custom:
            return r.schemas.get(version)
        name = schema.by_kind().get((r.group, version, r.kind))
        return schema.definitions()[name] if name else None

    def _check(self, c: Call, obj: Json, prune: bool) -> tuple[Json, schema.Report]:
        rules = self._schema(c.resource, c.version)
        if rules is None:
            return obj, schema.Report()
        meta, found = schema.check(schema.definitions()[schema.META], obj["metadata"])
        obj, report = schema.check(rules, {**obj, "metadata": meta}, prune)
        report.invalid += [(f"metadata.{p}", m) for p, m in found.invalid]
        report.unknown += [f"metadata.{p}" for p in found.unknown]
        if report.invalid:
            raise errors.invalid(
                c.resource.kind, c.resource.group, str(dig(obj, "metadata", "name", default="")), report.invalid
            )
        return obj, report

    def _report_unknown(self, c: Call, report: schema.Report) -> None:
        if not report.unknown:
            return
        listed = ", ".join(f'unknown field "{p}"' for p in report.unknown)
        match c.query.get("fieldValidation", "Warn"):
            case "Strict":
                raise bad_request(
                    f'{c.resource.kind} in version "{c.version}" cannot be handled as a '
                    f"{c.resource.kind}: strict decoding error: {listed}"
                )
            case "Warn":
                c.warnings += [f'unknown field "{p}"' for p in report.unknown]

    def _review(self, operation: str, c: Call, name: str, obj: Json | None, old: Json | None) -> Review:
        return Review(operation, c.resource, c.version, c.namespace, name, obj, old, c.user, c.dry_run)

    def _write(self, c: Call, name: str, write: Callable[[], Entry]) -> Entry:
        try:
            return write()
        except Exists:
            raise errors.exists(c.resource.plural, name, c.resource.group) from None
        except Conflict:
            raise errors.conflict(c.resource.plural, name, c.resource.group) from None
        except Missing:
            raise errors.not_found(c.resource.plural, name, c.resource.group) from None
        except (StoreFull, StoreBroken) as e:
            raise _unwritable(e) from e


def _unwritable(e: OSError) -> ApiError:
    return ApiError(507, "InsufficientStorage" if isinstance(e, StoreFull) else "InternalError", str(e))


def _same(a: Json, b: Json) -> bool:
    return _content(a) == _content(b)


def _content(obj: Json) -> Json:
    meta = {k: v for k, v in obj["metadata"].items() if k not in ("resourceVersion", "managedFields")}
    return {**obj, "apiVersion": "", "metadata": meta}


_FIELDS = {"metadata.name", "metadata.namespace"}
_KIND_FIELDS = {
    "Pod": {"spec.nodeName", "status.phase", "status.podIP", "spec.restartPolicy", "spec.serviceAccountName"},
    "Event": {
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.fieldPath",
        "reason",
        "type",
        "source",
    },
    "Secret": {"type"},
    "Namespace": {"status.phase"},
    "Node": {"spec.unschedulable"},
    "ReplicaSet": {"status.replicas"},
}


def _selector(c: Call) -> Callable[[Json], bool]:
    """The label and field selectors of a call as one test. Raises ApiError."""
    tests: list[Callable[[Json], bool]] = []
    if c.name:
        tests.append(lambda o: bool(o["metadata"]["name"] == c.name))
    if text := c.query.get("labelSelector"):
        try:
            labels = selectors.parse(text)
        except ValueError as e:
            raise bad_request(f"unable to parse requirement: {e}") from e
        tests.append(lambda o: labels(dig(o, "metadata", "labels", default={})))
    for part in filter(None, (c.query.get("fieldSelector") or "").split(",")):
        negated = "!=" in part
        key, _, value = part.partition("!=" if negated else "=")
        value = value.removeprefix("=")
        if key not in _FIELDS | _KIND_FIELDS.get(c.resource.kind, set()):
            raise bad_request(
                f'Unable to find "{c.resource.plural}" that match label selector "", field selector '
                f'"{part}": field label not supported: {key}'
            )
        tests.append(
            lambda o, key=key, value=value, negated=negated: (  # type: ignore[misc]
                (str(dig(o, *key.split("."), default="")) == value) != negated
            )
        )
    return lambda o: all(t(o) for t in tests)
