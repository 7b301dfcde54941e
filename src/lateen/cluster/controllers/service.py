"""Endpoints and EndpointSlices of Services with a selector."""

from __future__ import annotations

from collections.abc import Iterable

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers import endpoints
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
        whole, slices = endpoints.objects(service, self._loop.objects(kinds.POD, namespace), zones)
        await self._endpoints(whole)
        await self._slices(namespace, name, slices)

    async def _endpoints(self, wanted: Json) -> None:
        meta = wanted["metadata"]
        found = await self._client.get(kinds.ENDPOINTS, meta["namespace"], meta["name"])
        await self._put(kinds.ENDPOINTS, found, wanted, ("subsets",))

    async def _slices(self, namespace: str, name: str, wanted: list[Json]) -> None:
        """Each keeps the slice that has its ports; further ones take what is left over, or are made."""
        labels = {endpoints.SERVICE: name, endpoints.MANAGED: endpoints.MANAGER}
        listed, _ = await self._client.list(kinds.ENDPOINT_SLICE, namespace)
        mine = [s for s in listed if selectors.subset(labels, dig(s, "metadata", "labels", default={}))]
        pairs: list[tuple[Json | None, Json]] = []
        for obj in wanted:
            same = next((s for s in mine if (s.get("ports") or []) == obj["ports"]), None)
            mine = [s for s in mine if s is not same]
            pairs.append((same, obj))
        for found, obj in pairs:
            free = found or (mine.pop(0) if mine else None)
            await self._put(kinds.ENDPOINT_SLICE, free, obj, ("endpoints", "ports"))
        for rest in mine:
            await self._client.delete(kinds.ENDPOINT_SLICE, namespace, rest["metadata"]["name"])

    async def _put(self, kind: Kind, found: Json | None, wanted: Json, parts: tuple[str, ...]) -> None:
        if found is None:
            await self._client.create(kind, wanted)
            return
        same = all((found.get(k) or []) == (wanted.get(k) or []) for k in parts)
        if not same or dig(found, "metadata", "labels", default={}) != wanted["metadata"]["labels"]:
            meta = {k: v for k, v in wanted["metadata"].items() if k != "generateName"}
            await self._client.update(kind, wanted | {"metadata": {**found["metadata"], **meta}})


def _zone(node: Json | None) -> str:
    return str(dig(node or {}, "metadata", "labels", ZONE, default=""))


def _key(obj: Json) -> Key:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]
