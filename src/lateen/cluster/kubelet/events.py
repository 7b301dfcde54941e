"""Events about pods and services; a repeated event increases a count instead of making another object."""

from __future__ import annotations

import contextlib
import time

from lateen.api import kinds
from lateen.kit import tasks, times
from lateen.kit.jsons import Json
from lateen.kit.rounds import Rounds
from lateen.kube.client import Client, KubeError

LIMIT = 2000
"""How many are known, and how many may wait to be written."""
SIMILAR, SIMILAR_S = 10, 600.0
"""So many events that differ only in their messages share one, within so many seconds (as in client-go's recorder)."""
COMBINED = "(combined from similar events): "
PAUSE_S, BETWEEN_S = 0.02, 0.1
"""Seconds until events are written, and between groups of them where there are many."""


class Recorder:
    """Events are written in groups, and many of them slowly: what they tell of is more urgent."""

    def __init__(self, client: Client, component: str, host: str = "") -> None:
        self._client, self._component, self._host = client, component, host
        self._seen: dict[tuple[str, ...], Json] = {}
        self._said: dict[tuple[str, str, str], tuple[set[str], float]] = {}
        self._rounds = Rounds(PAUSE_S, between=BETWEEN_S)

    def event(self, obj: Json, type_: str, reason: str, message: str, path: str = "") -> None:
        """Record in the background; a lost event never affects the caller."""
        meta = obj["metadata"]
        message, combined = self._combined(str(meta.get("uid")), type_, reason, message[:1000])
        key = (str(meta.get("uid")), reason, COMBINED if combined else message, path)
        if len(self._rounds) >= LIMIT:
            return
        if old := self._seen.get(key):
            old["count"] += 1
            old["message"] = message
            old["lastTimestamp"] = times.stamp()
            tasks.spawn(self._repeat(old), f"event {reason}")
            return
        if len(self._seen) > LIMIT:
            self._seen.clear()
        made = self._seen[key] = self._made(obj, type_, reason, message, path)
        tasks.spawn(self._create(made), f"event {reason}")

    def _combined(self, uid: str, type_: str, reason: str, message: str) -> tuple[str, bool]:
        """The message, and whether it is one of so many within a while that they share an event."""
        now, key = time.monotonic(), (uid, type_, reason)
        if len(self._said) > LIMIT:
            self._said.clear()
        said, since = self._said.get(key, (set[str](), now))
        if now - since > SIMILAR_S:
            said = set()
        if message not in said and len(said) >= SIMILAR - 1:
            self._said[key] = said, now
            return f"{COMBINED}{message}"[:1000], True
        self._said[key] = said | {message}, now
        return message, False

    def _made(self, obj: Json, type_: str, reason: str, message: str, path: str) -> Json:
        meta = obj["metadata"]
        about = {
            "kind": obj["kind"],
            "apiVersion": obj["apiVersion"],
            "name": meta["name"],
            "namespace": meta.get("namespace", ""),
            "uid": meta.get("uid", ""),
            "resourceVersion": meta.get("resourceVersion", ""),
        } | ({"fieldPath": path} if path else {})
        now = times.stamp()
        return {
            "kind": "Event",
            "apiVersion": "v1",
            "involvedObject": about,
            "reason": reason,
            "message": message,
            "type": type_,
            "source": {"component": self._component} | ({"host": self._host} if self._host else {}),
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
            "metadata": {
                "name": f"{meta['name']}.{time.time_ns():x}",  # so lists have them in their order
                "namespace": meta.get("namespace") or "default",
            },
        }

    async def _create(self, event: Json) -> None:
        await self._rounds.turn()
        with contextlib.suppress(KubeError, OSError):
            await self._client.create(kinds.EVENT, event)

    async def _repeat(self, event: Json) -> None:
        await self._rounds.turn()
        meta, change = event["metadata"], {k: event[k] for k in ("count", "message", "lastTimestamp")}
        with contextlib.suppress(KubeError, OSError):
            try:
                await self._client.patch(kinds.EVENT, meta["namespace"], meta["name"], change)
            except KubeError as e:
                if e.code != 404:
                    raise
                await self._client.create(kinds.EVENT, event)  # it has expired, or somebody has deleted it
