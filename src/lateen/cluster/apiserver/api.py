"""The verbs of the API over the store, without a transport: the HTTP server and in-process clients share it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from lateen.cluster.apiserver import eviction, matching, reading, strategies, subresources, verbs
from lateen.cluster.apiserver.admission import Webhooks
from lateen.cluster.apiserver.auth import Tokens
from lateen.cluster.apiserver.call import Call, Listing, WatchEvent
from lateen.cluster.apiserver.commit import Committer
from lateen.cluster.apiserver.deletion import Deleter
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.apiserver.resources import from_crd
from lateen.cluster.store.objects import Store
from lateen.kit.jsons import Json


class Api:
    """Every method takes a decoded Call whose user has been authorized, and raises ApiError."""

    def __init__(
        self, store: Store, registry: Registry, webhooks: Webhooks, tokens: Tokens, allocator: strategies.Allocator
    ) -> None:
        self.store, self.registry, self.tokens = store, registry, tokens
        self._webhooks = webhooks
        self._committer = Committer(store, registry, webhooks, allocator)
        self._deleter = Deleter(store, self._committer, webhooks)
        for entry in store.list("customresourcedefinitions.apiextensions.k8s.io"):
            registry.add(from_crd(entry.obj))

    async def connect(self, c: Call, options: Json) -> None:
        """Ask webhooks and policies about a command, an attachment or forwarded ports. Raises ApiError."""
        r = c.resource
        kind = ("", "v1", dict(r.subresources)[c.subresource])
        await self._webhooks.admit(matching.review("CONNECT", c, options, None, kind))

    def get(self, c: Call) -> Json:
        return reading.view(c, reading.entry(self.store, c).obj)

    def list(self, c: Call) -> Listing:
        return reading.listing(self.store, c)

    def watch(self, c: Call) -> AsyncGenerator[WatchEvent, None]:
        return reading.watch(self.store, c)

    async def create(self, c: Call) -> Json:
        return await verbs.create(self.store, self._committer, c)

    async def update(self, c: Call) -> Json:
        return await verbs.update(self.store, self._committer, c)

    async def patch(self, c: Call) -> Json:
        return await verbs.patched(self.store, self._committer, c)

    async def delete(self, c: Call) -> Json:
        return await self._deleter.delete(c)

    async def delete_collection(self, c: Call) -> Json:
        return await self._deleter.delete_collection(c)

    def scale(self, c: Call) -> Json:
        return subresources.scale(self.store, c)

    async def set_scale(self, c: Call) -> Json:
        return await subresources.set_scale(self.store, self._committer, c)

    async def token(self, c: Call) -> Json:
        return await subresources.token(self.store, self._webhooks, self.tokens, c)

    async def evict(self, c: Call) -> Json:
        return await eviction.evict(self.store, self.registry, self._webhooks, self._committer, self._deleter, c)
