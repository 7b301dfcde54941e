"""Endpoints and EndpointSlices of Services with a selector."""

from __future__ import annotations

from collections.abc import Iterable

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers import endpoints, slices
from lateen.cluster.controllers.loop import Key, Loop
from lateen.kit import selectors
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client

ZONE = "topology.kubernetes.io/zone"


class Services:
    name = "service"
    watches = (kinds.SERVICE, kinds.POD, kinds.ENDPOINTS, kinds.ENDPOINT_SLICE, kinds.NODE)

    def __init__(self, client: Client, loop: Loop) -> None:
        self._client, self._loop = client, loop

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:
        match kind:
            case kinds.SERVICE:
                yield from (_key(o) for o in (new or old,) if o)
            case kinds.ENDPOINTS if new is None and old:
                yield _key(old)
            case kinds.ENDPOINT_SLICE if new is None and old:
                name = dig(old, "metadata", "labels", "kubernetes.io/service-name")
                yield from [(old["metadata"]["namespace"], name)] if name else []
            case kinds.NODE if _zone(old) != _zone(new):
                name = (new or old or {})["metadata"]["name"]
                there = (p for p in self._loop.objects(kinds.POD) if dig(p, "spec", "nodeName") == name)
                yield from {key for pod in there for key in self._selecting(pod)}
            case kinds.POD:
                yield from {key for pod in (old, new) if pod for key in self._selecting(pod)}

    def _selecting(self, pod: Json) -> Iterable[Key]:
        labels = dig(pod, "metadata", "labels", default={})
        for service in self._loop.objects(kinds.SERVICE, pod["metadata"]["namespace"]):
            selector = dig(service, "spec", "selector", default={})
            if selector and selectors.subset(selector, labels):
                yield _key(service)

    async def reconcile(self, key: Key) -> None:
        namespace, name = key
        service = self._loop.get(kinds.SERVICE, namespace, name)
        if service is None:
            await self._client.delete(kinds.ENDPOINTS, namespace, name)
            return
        if not dig(service, "spec", "selector"):
            return
        zones = {n["metadata"]["name"]: _zone(n) for n in self._loop.objects(kinds.NODE)}
        whole, pieces = endpoints.objects(service, self._loop.objects(kinds.POD, namespace), zones)
        await self._endpoints(whole)
        await slices.put(self._client, namespace, name, endpoints.MANAGER, pieces)

    async def _endpoints(self, wanted: Json) -> None:
        meta = wanted["metadata"]
        found = await self._client.get(kinds.ENDPOINTS, meta["namespace"], meta["name"])
        await slices.replace(self._client, kinds.ENDPOINTS, found, wanted, ("subsets",))


def _zone(node: Json | None) -> str:
    return str(dig(node or {}, "metadata", "labels", ZONE, default=""))


def _key(obj: Json) -> Key:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]
