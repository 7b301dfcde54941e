"""The verbs of the API over the store, without a transport: the HTTP server and in-process clients share it."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Awaitable

from lateen.cluster.apiserver import (
    binding,
    errors,
    eviction,
    matching,
    reading,
    scales,
    strategies,
    subresources,
    verbs,
)
from lateen.cluster.apiserver.admission import Webhooks
from lateen.cluster.apiserver.auth import Tokens
from lateen.cluster.apiserver.call import Call, Listing, WatchEvent
from lateen.cluster.apiserver.commit import Committer, durably
from lateen.cluster.apiserver.deletion import Deleter
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.apiserver.resources import CRDS, from_crd
from lateen.cluster.store.history import Entry, Event
from lateen.cluster.store.objects import Store
from lateen.kit import jsons
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
        for entry in store.list(CRDS):
            registry.add(from_crd(entry.obj))
        store.follow(CRDS, self._defined)

    def _defined(self, event: Event) -> None:
        """Watches know what an object looks like from the definition that they have begun with."""
        crd = event.entry
        if event.type == "DELETED":
            self.registry.remove(crd.name)
            self.store.end_watches(crd.name)
            return
        self.registry.add(from_crd(crd.obj))
        if event.old is not None and not jsons.same(event.old.obj["spec"], crd.obj["spec"]):
            self.store.end_watches(crd.name, crd.rv)

    def settled(self) -> Store:
        """The store for readers: everything in it is durable and cannot be rolled back."""
        self.store.settle()
        return self.store

    async def _durable(self, work: Awaitable[Json]) -> Json:
        """The answer to a writer, refusals included: they may be due to what others have written at the same moment."""
        try:
            return await work
        finally:
            await durably(self.store.durable())

    async def connect(self, c: Call, options: Json) -> None:
        """Ask webhooks and policies about a command, an attachment or forwarded ports. Raises ApiError."""
        r = c.resource
        kind = ("", "v1", dict(r.subresources)[c.subresource])
        await self._webhooks.admit(matching.review("CONNECT", c, options, None, kind))

    async def get(self, c: Call) -> Json:
        return reading.view(c, (await self.entry(c)).obj)

    async def entry(self, c: Call) -> Entry:
        """One object in the call's version."""
        return await self._webhooks.versions.seen(c, reading.entry(self.settled(), c))

    async def list(self, c: Call) -> Listing:
        store = self.settled()
        if not c.resource.custom or c.resource.uniform:
            return reading.listing(store, c)
        return await reading.converted(store, c, self._seen(c))

    def watch(self, c: Call) -> AsyncGenerator[WatchEvent, None]:
        store, r = self.settled(), c.resource
        if r.custom:  # its definition may have changed by what has been settled
            now = self.registry.find(r.group, c.version, r.plural)
            if now is None:
                raise errors.unknown_path()
            c = c.on(resource=now)
        return reading.watch(store, c, self._seen(c))

    def _seen(self, c: Call) -> reading.Seen:
        return functools.partial(self._webhooks.versions.look, c)

    async def create(self, c: Call) -> Json:
        return await self._durable(verbs.create(self.store, self._committer, c))

    async def update(self, c: Call) -> Json:
        return await self._durable(verbs.update(self.store, self._committer, c))

    async def patch(self, c: Call) -> Json:
        return await self._durable(verbs.patched(self.store, self._committer, c))

    async def delete(self, c: Call) -> Json:
        return await self._durable(self._deleter.delete(c))

    async def delete_collection(self, c: Call) -> Json:
        return await self._durable(self._deleter.delete_collection(c))

    async def scale(self, c: Call) -> Json:
        return scales.of(c.resource, c.version, (await self.entry(c)).obj)

    async def set_scale(self, c: Call) -> Json:
        return await self._durable(subresources.set_scale(self.store, self._committer, c))

    async def token(self, c: Call) -> Json:
        return await subresources.token(self.store, self._webhooks, self.tokens, c)

    async def bind(self, c: Call) -> Json:
        return await self._durable(binding.bind(self.store, self.registry, self._webhooks, self._committer, c))

    async def evict(self, c: Call) -> Json:
        work = eviction.evict(self.store, self.registry, self._webhooks, self._committer, self._deleter, c)
        return await self._durable(work)
