"""A local copy of all objects of a kind, kept up to date by list and watch; each change is reported once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import weakref
from collections.abc import Callable
from typing import ClassVar

from lateen.api.kinds import Kind
from lateen.kit import tasks
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError, Unreachable

log = logging.getLogger("lateen.kube.informer")

Key = tuple[str, str]
OnChange = Callable[[Kind, Key, Json | None, Json | None], None]
"""(kind, (namespace, name), before, after); ``after`` is None for a deletion."""
OnTrouble = Callable[[KubeError | None], None]
"""Called with the error when the API refuses access to the objects, and with None once it grants it (again)."""


FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 5.0
LASTING_S = 10.0
"""After a watch that lasted this many seconds, the next one is opened without back-off."""


class Outages:
    """Whether one client's API is reachable: all its informers lose it at once, and the outage and its end are logged
    once."""

    of: ClassVar[weakref.WeakKeyDictionary[Client, Outages]] = weakref.WeakKeyDictionary()

    def __init__(self) -> None:
        self._since: float | None = None
        self._said = False

    def lost(self, e: Unreachable, again: bool) -> None:
        if self._since is None:
            self._since = time.monotonic()
        if again and not self._said:  # a single connection that closes is not an outage
            self._said = True
            log.warning("the Kubernetes API is unreachable; the last known state stays in force: %s", e)

    def reached(self) -> None:
        if self._said and self._since is not None:
            log.warning("the Kubernetes API answers again after %.0f s", time.monotonic() - self._since)
        self._since, self._said = None, False


class Informer:
    """A local copy of all objects of a kind. ``objects`` must not be modified by readers."""

    def __init__(
        self,
        client: Client,
        kind: Kind,
        on_change: OnChange | None = None,
        namespace: str = "",
        on_trouble: OnTrouble | None = None,
        labels: str = "",
        optional: bool = False,
        fields: str = "",
    ) -> None:
        """``labels``, ``fields``: selectors of the objects that are copied; ``optional``: a cluster may be without the
        kind, which then has no objects."""
        self.kind, self.objects = kind, dict[Key, Json]()
        self.synced = asyncio.Event()
        self.problem = ""
        """Why the objects cannot be read at the moment; empty if they can."""
        self._client, self._namespace, self._labels = client, namespace, labels
        self._fields = {"fields": fields} if fields else {}
        self._optional = optional
        self._on_change = on_change or (lambda *_: None)
        self._on_trouble = on_trouble or self._warn

    async def run(self) -> None:
        """Run forever; reconnects for as long as it takes, and keeps the last known objects in the meantime."""
        wait = FIRST_WAIT_S
        outages = Outages.of.setdefault(self._client, Outages())
        while True:
            began = time.monotonic()
            try:
                items, version = await self._client.list(self.kind, self._namespace, self._labels, **self._fields)
                self._replace(items)
                self.synced.set()
                self.problem = ""
                self._on_trouble(None)
                outages.reached()
                while True:
                    version = await self._follow(version)
            except KubeError as e:
                if e.code == 404 and self._optional:
                    self.synced.set()  # keep what was known before: the objects of a deleted kind are deleted, too
                elif e.code != 410:  # 410: the version is too old; a new list is needed
                    self.problem = f"{self.kind.plural}: {e}"
                    self._on_trouble(e)
            except Unreachable as e:
                self.problem = str(e)
                outages.lost(e, again=wait > FIRST_WAIT_S)
            except Exception as e:  # noqa: BLE001 - whatever the server's response was, try again
                self._broken(e)
            if time.monotonic() - began > LASTING_S:
                wait = FIRST_WAIT_S
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT_S)

    def _broken(self, error: Exception) -> None:
        """A message without the error's text, which may quote a header with credentials."""
        what = f"{self.kind.plural}: the request could not be sent or its answer not read ({type(error).__name__})"
        if self.problem != what:
            self.problem = what
            log.warning("watching %s", what)

    def _warn(self, error: KubeError | None) -> None:
        if error is not None:
            log.warning("watching %s: %s", self.kind.plural, error)

    async def _follow(self, version: str) -> str:
        stream = self._client.watch(self.kind, self._namespace, version, self._labels, **self._fields)
        async with contextlib.aclosing(stream):  # type: ignore[type-var]
            async for event, obj in stream:
                version = obj["metadata"]["resourceVersion"]
                if event == "BOOKMARK":
                    continue
                self._change(_key(obj), None if event == "DELETED" else obj)
        return version

    def _replace(self, items: list[Json]) -> None:
        found = {_key(o): o for o in items}
        # An object that was replaced by another one of the same name is gone, too, even without a DELETED event.
        for key in [k for k, old in self.objects.items() if k not in found or _uid(found[k]) != _uid(old)]:
            self._change(key, None)
        for key, obj in found.items():
            old = self.objects.get(key)
            if old is None or dig(old, "metadata", "resourceVersion") != dig(obj, "metadata", "resourceVersion"):
                self._change(key, obj)

    def _change(self, key: Key, obj: Json | None) -> None:
        old = self.objects.get(key)
        if obj is None:
            self.objects.pop(key, None)
        else:
            self.objects[key] = obj
        if old is not None or obj is not None:
            tasks.tell((self._on_change,), self.kind, key, old, obj)


def _uid(obj: Json) -> object:
    return obj["metadata"].get("uid")


def _key(obj: Json) -> Key:
    meta = obj["metadata"]
    return str(meta.get("namespace", "")), str(meta["name"])
