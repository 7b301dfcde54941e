"""The verbs of the Kubernetes API: an interface, and its implementation over HTTP.

Dicts go in and dicts come out. The embedded cluster's controllers use the same protocol without a socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from lateen.api.kinds import Kind
from lateen.kit.jsons import Json
from lateen.kube import bulk
from lateen.kube.bulk import Change, Still, always
from lateen.kube.connection import error_of
from lateen.kube.errors import KubeError, Unreachable
from lateen.kube.streams import Streams, selecting

MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
PAGE = 500
"""Objects per page of a list, as in kubectl."""
Failures = list[tuple[Change, KubeError | Unreachable]]


class Client(Protocol):
    """Every method raises KubeError, and Unreachable if the API server does not respond."""

    async def get(self, kind: Kind, namespace: str, name: str, subresource: str = "") -> Json | None:
        """None if there is no such object."""

    async def list(self, kind: Kind, namespace: str = "", labels: str = "", fields: str = "") -> tuple[list[Json], str]:
        """The objects, and the list's resource version. ``labels``, ``fields``: selectors."""

    async def create(self, kind: Kind, obj: Json) -> Json: ...

    async def update(self, kind: Kind, obj: Json, subresource: str = "") -> Json: ...

    async def patch(self, kind: Kind, namespace: str, name: str, change: Json, subresource: str = "") -> Json:
        """A JSON merge patch."""

    async def apply(self, kind: Kind, obj: Json, manager: str) -> Json:
        """Server-side apply: ``manager`` becomes the owner of the fields of ``obj``, even if others own them
        (force)."""

    async def patch_all(self, changes: Sequence[Change], subresource: str = "", still: Still = always) -> Failures:
        """Send merge patches whose responses do not matter; returns those that failed. ``still``: whether to go on,
        asked before each."""

    async def delete(
        self, kind: Kind, namespace: str, name: str, grace: int | None = None, version: str = "", uid: str = ""
    ) -> bool:
        """False if there was no such object. ``version``, ``uid``: preconditions; KubeError 409 if the object's
        resource version or UID differs."""

    async def request(self, kind: Kind, namespace: str, name: str, subresource: str, body: Json) -> Json:
        """POST to a subresource, or (with an empty name) a review such as TokenReview."""

    def watch(
        self, kind: Kind, namespace: str, version: str, labels: str = "", fields: str = ""
    ) -> AsyncIterator[tuple[str, Json]]:
        """(ADDED | MODIFIED | DELETED | BOOKMARK, object) after ``version``; KubeError 410 if that is too old. A
        BOOKMARK has a newer version and nothing else. Ends from time to time; continue from the last version."""


class HttpClient(Streams):
    """The verbs over HTTPS."""

    async def get(self, kind: Kind, namespace: str, name: str, subresource: str = "") -> Json | None:
        try:
            return self._object(kind, await self.call("GET", kind.path(namespace, name, subresource)))
        except KubeError as e:
            if e.code == 404:
                return None
            raise

    def _object(self, kind: Kind, found: Json) -> Json:
        if not isinstance(found.get("metadata"), dict):
            raise self.stranger(f"JSON that is no {kind.kind}")
        return found

    async def list(self, kind: Kind, namespace: str = "", labels: str = "", fields: str = "") -> tuple[list[Json], str]:
        query = {"limit": str(PAGE), **selecting(labels, fields)}
        items: list[Json] = []
        while True:
            try:
                found = await self.call("GET", kind.path(namespace), query=query)
            except KubeError as e:
                if e.code != 410 or "continue" not in query:
                    raise
                items, query = [], {k: v for k, v in query.items() if k not in ("continue", "limit")}
                continue  # the continue token has expired: list everything at once
            meta = found.get("metadata")
            if not isinstance(meta, dict) or "resourceVersion" not in meta:
                raise self.stranger(f"JSON that is not a list of {kind.plural}")
            items += (_whole(o, kind) for o in found.get("items") or [])
            if not (more := meta.get("continue")):
                return items, meta["resourceVersion"]
            query["continue"] = more

    async def create(self, kind: Kind, obj: Json) -> Json:
        return self._object(kind, await self.call("POST", kind.path(obj["metadata"].get("namespace", "")), obj))

    async def update(self, kind: Kind, obj: Json, subresource: str = "") -> Json:
        meta = obj["metadata"]
        out: Json = await self.call("PUT", kind.path(meta.get("namespace", ""), meta["name"], subresource), obj)
        return out

    async def patch(self, kind: Kind, namespace: str, name: str, change: Json, subresource: str = "") -> Json:
        out: Json = await self.call("PATCH", kind.path(namespace, name, subresource), change, content_type=MERGE)
        return out

    async def apply(self, kind: Kind, obj: Json, manager: str) -> Json:
        meta, query = obj["metadata"], {"fieldManager": manager, "force": "true"}
        path = kind.path(meta.get("namespace", ""), meta["name"])
        return self._object(kind, await self.call("PATCH", path, obj, query, content_type=APPLY))

    async def patch_all(self, changes: Sequence[Change], subresource: str = "", still: Still = always) -> Failures:
        headers = await self.headers({"Content-Type": MERGE})
        several = len(headers) > len(set(headers))
        if self.proxy or several or len(changes) <= bulk.FEW:
            return [f for f in await asyncio.gather(*(self._patched(c, subresource, still) for c in changes)) if f]
        failed = await bulk.patch_all(self.url, self.context, self.tls_name, dict(headers), changes, subresource, still)
        if any(not isinstance(e, OSError) and e.status == 401 for _, e in failed):
            self.auth.refused()
        return [(c, self.unreachable(e) if isinstance(e, OSError) else error_of(e.status, e.body)) for c, e in failed]

    async def _patched(
        self, c: Change, subresource: str, still: Still
    ) -> tuple[Change, KubeError | Unreachable] | None:
        try:
            if not still():
                return None
            await self.patch(c.kind, c.namespace, c.name, c.body, subresource)
        except (KubeError, Unreachable) as e:
            return c, e
        return None

    async def delete(
        self, kind: Kind, namespace: str, name: str, grace: int | None = None, version: str = "", uid: str = ""
    ) -> bool:
        try:
            body: Json = {"propagationPolicy": "Background"} | ({} if grace is None else {"gracePeriodSeconds": grace})
            wanted = {k: v for k, v in (("resourceVersion", version), ("uid", uid)) if v}
            body |= {"preconditions": wanted} if wanted else {}
            await self.call("DELETE", kind.path(namespace, name), body)
            return True
        except KubeError as e:
            if e.code == 404:
                return False
            raise

    async def request(self, kind: Kind, namespace: str, name: str, subresource: str, body: Json) -> Json:
        out: Json = await self.call("POST", kind.path(namespace, name, subresource), body)
        return out


def _whole(obj: Json, kind: Kind) -> Json:
    """Add ``apiVersion`` and ``kind``, which kube-apiserver leaves out of the items of lists of built-in kinds."""
    obj.setdefault("kind", kind.kind)
    obj.setdefault("apiVersion", kind.api_version)
    return obj


__all__ = ["Client", "Failures", "HttpClient", "KubeError", "Unreachable"]
