"""The Kubernetes client of our own controllers and the kubelet: the API's verbs without a socket."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence

from lateen.api.kinds import Kind
from lateen.cluster.apiserver.api import Api
from lateen.cluster.apiserver.auth import ADMIN
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.errors import ApiError
from lateen.kit.jsons import Json
from lateen.kube.bulk import Change, Still, always
from lateen.kube.client import APPLY, MERGE, Failures, KubeError


class DirectClient:
    """Implements ``kube.client.Client`` as the cluster's administrator. ``manager`` holds the fields that it writes."""

    def __init__(self, api: Api, manager: str) -> None:
        self._api, self._manager = api, manager

    def _call(self, kind: Kind, namespace: str, name: str = "", subresource: str = "", body: object = None) -> Call:
        resource = self._api.registry.by_collection(f"{kind.plural}.{kind.group}" if kind.group else kind.plural)
        if resource is None:
            raise KubeError(404, "NotFound", f"{kind.plural}.{kind.group} is not served")
        query = {"fieldValidation": "Ignore", "fieldManager": self._manager}
        return Call(resource, kind.version, namespace, name, subresource, query, body, user=ADMIN)

    async def get(self, kind: Kind, namespace: str, name: str, subresource: str = "") -> Json | None:
        read = self._api.scale if subresource == "scale" else self._api.get
        try:
            return await read(self._call(kind, namespace, name, subresource))
        except ApiError as e:
            if e.code == 404:
                return None
            raise _kube(e) from None

    async def list(self, kind: Kind, namespace: str = "", labels: str = "", fields: str = "") -> tuple[list[Json], str]:
        call = self._call(kind, namespace)
        call.query |= {"labelSelector": labels, "fieldSelector": fields}
        with _translated():
            found = await self._api.list(call)
        return found.items, found.rv

    async def create(self, kind: Kind, obj: Json) -> Json:
        with _translated():
            return await self._api.create(self._call(kind, obj["metadata"].get("namespace", ""), body=obj))

    async def update(self, kind: Kind, obj: Json, subresource: str = "") -> Json:
        meta = obj["metadata"]
        call = self._call(kind, meta.get("namespace", ""), meta["name"], subresource, obj)
        with _translated():
            return await self._api.update(call)

    async def patch(self, kind: Kind, namespace: str, name: str, change: Json, subresource: str = "") -> Json:
        call = self._call(kind, namespace, name, subresource, change)
        call.patch_type = MERGE
        write = self._api.set_scale if subresource == "scale" else self._api.patch
        with _translated():
            return await write(call)

    async def apply(self, kind: Kind, obj: Json, manager: str) -> Json:
        meta = obj["metadata"]
        call = self._call(kind, meta.get("namespace", ""), meta["name"], body=obj)
        call.patch_type, call.query = APPLY, {**call.query, "fieldManager": manager, "force": "true"}
        with _translated():
            return await self._api.patch(call)

    async def patch_all(self, changes: Sequence[Change], subresource: str = "", still: Still = always) -> Failures:
        failed: Failures = []
        for c in changes:
            if not still():
                break
            try:
                await self.patch(c.kind, c.namespace, c.name, c.body, subresource)
            except KubeError as e:
                failed.append((c, e))
        return failed

    async def delete(
        self, kind: Kind, namespace: str, name: str, grace: int | None = None, version: str = "", uid: str = ""
    ) -> bool:
        try:
            body = {"gracePeriodSeconds": grace, "preconditions": {"resourceVersion": version, "uid": uid}}
            await self._api.delete(self._call(kind, namespace, name, body=body))
            return True
        except ApiError as e:
            if e.code == 404:
                return False
            raise _kube(e) from None

    async def request(self, kind: Kind, namespace: str, name: str, subresource: str, body: Json) -> Json:
        carry_out = {"token": self._api.token, "binding": self._api.bind}[subresource]
        with _translated():
            return await carry_out(self._call(kind, namespace, name, subresource, body))

    async def watch(
        self, kind: Kind, namespace: str, version: str, labels: str = "", fields: str = ""
    ) -> AsyncIterator[tuple[str, Json]]:
        call = self._call(kind, namespace)
        call.query |= {"resourceVersion": version, "labelSelector": labels, "fieldSelector": fields}
        try:
            async with contextlib.aclosing(self._api.watch(call)) as events:
                async for event in events:
                    yield event.type, event.obj
        except ApiError as e:
            raise _kube(e) from None


def _kube(e: ApiError) -> KubeError:
    return KubeError(e.code, e.reason, e.message, e.details)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ApiError as e:
        raise _kube(e) from None
