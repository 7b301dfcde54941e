"""The loop that all controllers share: informers feed one queue of keys, and a key is handled by one task at a time.

A controller that fails is called again with exponential back-off up to a limit, and an event is recorded for the object
that it failed for. A failure with one object does not delay others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Protocol

from lateen.api.kinds import Kind
from lateen.cluster.controllers.ownership import controlled
from lateen.kit import selectors, tasks
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError
from lateen.kube.informer import Informer
from lateen.kube.informer import Key as ObjectKey

log = logging.getLogger("lateen.controllers")

Key = tuple[str, ...]
"""What a controller works on, usually (namespace, name)."""
Work = tuple[str, Key]

WORKERS = 4
FIRST_S, LONGEST_S = 0.05, 30.0
DOUBLINGS = 10
TERMINATING = "NamespaceTerminating"
"""The cause in the Status of what is refused because its namespace is being deleted"""
REST, LONGEST_REST_S = 4.0, 0.2
"""An object is left alone for so many times as long as the last look at it took, and for so many seconds at most:
each of a hundred pods changes several times while they start, and every change concerns their owner."""


class Events(Protocol):
    def event(self, obj: Json, type_: str, reason: str, message: str, path: str = "") -> None: ...


class Controller(Protocol):
    """One control loop. ``keys``: what a change of a watched object affects; ``old`` or ``new`` may be None. A
    controller that adopts what its objects' selectors match names their kind as ``adopts``."""

    name: str

    @property
    def watches(self) -> tuple[Kind, ...]: ...

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]: ...

    async def reconcile(self, key: Key) -> float | None:
        """Take one step towards the desired state; returns seconds after which to run again, or None."""


class Loop:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._controllers: dict[str, Controller] = {}
        self._informers: dict[str, Informer] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._concerned: dict[str, list[Controller]] = {}
        self._queue: asyncio.Queue[Work] = asyncio.Queue()
        self._pending: set[Work] = set()
        self._busy: set[Work] = set()
        self._again: set[Work] = set()
        self._failures: dict[Work, int] = {}
        self._waiting: dict[Work, asyncio.TimerHandle] = {}

    def register(self, controller: Controller) -> None:
        self._controllers[controller.name] = controller
        for kind in controller.watches:
            self.watch(controller, kind)

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for collection in self._informers:
                    self._start(collection)
                await asyncio.gather(*(i.synced.wait() for i in self._informers.values()))
                for i in range(WORKERS):
                    group.create_task(self._worker(), name=f"controller worker {i}")
        finally:
            for timer in self._waiting.values():
                timer.cancel()
            await tasks.cancel(*self._running.values())
            self._running.clear()

    # --- informers -------------------------------------------------------------------------------------------

    def watch(self, controller: Controller, kind: Kind) -> None:
        """Report all changes of a kind to the controller from now on; existing objects come first."""
        collection = collection_of(kind)
        concerned = self._concerned.setdefault(collection, [])
        if controller in concerned:
            return
        concerned.append(controller)
        known = self._informers.get(collection)
        if known is None:
            self._informers[collection] = Informer(self._client, kind, self._changed)
            if self._running:
                self._start(collection)
            return
        for obj in list(known.objects.values()):
            self._tell(controller, kind, None, obj)

    async def unwatch(self, kind: Kind) -> None:
        """Stop watching a kind that no longer exists."""
        collection = collection_of(kind)
        self._concerned.pop(collection, None)
        self._informers.pop(collection, None)
        await tasks.cancel(self._running.pop(collection, None))

    def move(self, kind: Kind) -> None:
        """Read a watched kind in another version from now on. What is known of its objects stays, so that no change
        is missed."""
        collection = collection_of(kind)
        if (informer := self._informers.get(collection)) is None:
            return
        informer.kind = kind
        if running := self._running.pop(collection, None):
            running.cancel()
            self._start(collection)

    def _start(self, collection: str) -> None:
        informer = self._informers[collection]
        self._running[collection] = tasks.spawn(informer.run(), f"informer {collection}")

    def synced(self, kind: Kind) -> bool:
        informer = self._informers.get(collection_of(kind))
        return informer is not None and informer.synced.is_set()

    def objects(self, kind: Kind, namespace: str = "") -> list[Json]:
        found = self._informers[collection_of(kind)].objects
        return [o for (ns, _), o in found.items() if not namespace or ns == namespace]

    def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        return self._informers[collection_of(kind)].objects.get((namespace, name))

    def _changed(self, kind: Kind, _: ObjectKey, old: Json | None, new: Json | None) -> None:
        for controller in self._concerned.get(collection_of(kind), ()):
            self._tell(controller, kind, old, new)

    def _tell(self, controller: Controller, kind: Kind, old: Json | None, new: Json | None) -> None:
        try:
            for key in {*controller.keys(kind, old, new), *self._adopters(controller, kind, old, new)}:
                self.add(controller.name, key)
        except Exception:  # an object that a controller cannot handle must not block others
            name = dig(new or old, "metadata", "name")
            log.exception("%s cannot read %s %s", controller.name, kind.kind, name)

    def _adopters(self, controller: Controller, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:
        """Objects of ``controller.adopts`` whose selectors match one that has no controller, and may not have been
        theirs before."""
        owner: Kind | None = getattr(controller, "adopts", None)
        if owner is None or kind == owner or new is None or controlled(new) or not kind.namespaced:
            return
        labels = dig(new, "metadata", "labels", default={})
        if not labels or (old and not controlled(old) and labels == dig(old, "metadata", "labels", default={})):
            return
        for obj in self.objects(owner, new["metadata"]["namespace"]):
            selector = dig(obj, "spec", "selector", default={})
            plain = owner.kind == "ReplicationController"
            if selectors.matches({"matchLabels": selector} if plain else selector, labels):
                yield obj["metadata"]["namespace"], obj["metadata"]["name"]

    # --- work ------------------------------------------------------------------------------------------------

    def add(self, controller: str, key: Key) -> None:
        """Queue a key now. A change waits neither for the time that a controller has asked to be called again at, nor
        for the end of the pause after a failure, whose cause it may have removed (as in Kubernetes' work queues)."""
        self._put((controller, key))

    def _put(self, work: Work) -> None:
        if timer := self._waiting.pop(work, None):
            timer.cancel()
        if work in self._busy:
            self._again.add(work)
        elif work not in self._pending:
            self._pending.add(work)
            self._queue.put_nowait(work)

    def _later(self, work: Work, seconds: float) -> None:
        if work not in self._waiting:
            self._waiting[work] = asyncio.get_running_loop().call_later(seconds, self._put, work)

    async def _worker(self) -> None:
        while True:
            work = await self._queue.get()
            self._pending.discard(work)
            self._busy.add(work)
            loop = asyncio.get_running_loop()
            began = loop.time()
            try:
                await self._reconcile(work)
            finally:
                loop.call_later(min((loop.time() - began) * REST, LONGEST_REST_S), self._rested, work)

    def _rested(self, work: Work) -> None:
        self._busy.discard(work)
        if work in self._again:
            self._again.discard(work)
            self.add(*work)

    async def _reconcile(self, work: Work) -> None:
        name, key = work
        try:
            after = await self._controllers[name].reconcile(key)
        except Exception as e:  # noqa: BLE001 - any failure concerns this object only
            if not ending(e):
                self._failed(work, e)
                return
            after = None
        self._failures.pop(work, None)
        if after is not None:
            self._later(work, after)

    def _failed(self, work: Work, error: Exception) -> None:
        name, key = work
        count = self._failures[work] = self._failures.get(work, 0) + 1
        pause = min(FIRST_S * 2 ** min(count - 1, DOUBLINGS), LONGEST_S)
        self._later(work, pause)
        about, known = "/".join(k for k in key if k), isinstance(error, (KubeError, OSError, TimeoutError))
        if not known:
            log.error("%s %s: %s: %s", name, about, type(error).__name__, error, exc_info=error)
        elif not (isinstance(error, KubeError) and error.code in (404, 409) and count < 3):
            log.warning("%s %s: %s (again in %.1f s)", name, about, error, pause)


def collection_of(kind: Kind) -> str:
    return f"{kind.plural}.{kind.group}" if kind.group else kind.plural


def controller_of(owner: Kind, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:
    """The key of the object itself, or of the controller of its owner."""
    obj = new or old
    if obj is None:
        return
    meta = obj["metadata"]
    if kind == owner:
        yield meta["namespace"], meta["name"]
        return
    for ref in dig(obj, "metadata", "ownerReferences", default=[]):
        if ref.get("controller") and ref.get("kind") == owner.kind:
            yield meta["namespace"], str(ref.get("name"))


def ending(refusal: Exception) -> bool:
    """Whether an object was refused because its namespace is about to go, or gone: that is no failure of whoever wanted
    it."""
    if not isinstance(refusal, KubeError):
        return False
    if refusal.code == 404:
        return bool(dig(refusal.details, "kind") == "namespaces")
    return any(dig(cause, "reason") == TERMINATING for cause in dig(refusal.details, "causes", default=[]))


async def set_status(client: Client, kind: Kind, obj: Json, status: Json) -> None:
    """Write what differs, if anything does."""
    before = obj.get("status") or {}
    if {k: before.get(k) for k in status} != status:
        meta = obj["metadata"]
        await client.patch(kind, meta["namespace"], meta["name"], {"status": status}, "status")
