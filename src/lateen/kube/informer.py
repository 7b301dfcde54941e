"""A local copy of all objects of a kind, kept current by list and watch, with each change reported once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from lateen.api.kinds import Kind
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError, Unreachable

log = logging.getLogger("lateen.kube.informer")

Key = tuple[str, str]
OnChange = Callable[[Kind, Key, Json | None, Json | None], None]
"""(kind, (namespace, name), before, after); ``after`` is None for a deletion."""
OnTrouble = Callable[[KubeError | None], None]
"""Told that the API refuses to show the objects, and with None that it shows them (again)."""


class Informer:
    """``objects`` must not be changed by readers."""

    def __init__(
        self,
        client: Client,
        kind: Kind,
        on_change: OnChange | None = None,
        namespace: str = "",
        on_trouble: OnTrouble | None = None,
    ) -> None:
        self.kind, self.objects = kind, dict[Key, Json]()
        self.synced = asyncio.Event()
        self._client, self._namespace = client, namespace
        self._on_change = on_change or (lambda *_: None)
        self._on_trouble = on_trouble or self._warn

    async def run(self) -> None:
        """Never returns; reconnects for as long as it takes, with the last known objects in place."""
        wait = 0.2
        while True:
            try:
                items, version = await self._client.list(self.kind, self._namespace)
                self._replace(items)
                self.synced.set()
                self._on_trouble(None)
                wait = 0.2
                while True:
                    version = await self._follow(version)
            except KubeError as e:
                if e.code != 410:
                    self._on_trouble(e)
                    await asyncio.sleep(wait)
            except Unreachable as e:
                log.info("%s; trying again in %.1f s", e, wait)
                await asyncio.sleep(wait)
            wait = min(wait * 2, 5.0)

    def _warn(self, error: KubeError | None) -> None:
        if error is not None:
            log.warning("watching %s: %s", self.kind.plural, error)

    async def _follow(self, version: str) -> str:
        stream = self._client.watch(self.kind, self._namespace, version)
        async with contextlib.aclosing(stream):  # type: ignore[type-var]
            async for event, obj in stream:
                version = obj["metadata"]["resourceVersion"]
                self._change(_key(obj), None if event == "DELETED" else obj)
        return version

    def _replace(self, items: list[Json]) -> None:
        found = {_key(o): o for o in items}
        for key in [k for k in self.objects if k not in found]:
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
            self._on_change(self.kind, key, old, obj)


def _key(obj: Json) -> Key:
    meta = obj["metadata"]
    return str(meta.get("namespace", "")), str(meta["name"])
