"""Events about pods and services; a repeated event increases a count instead of making another object."""

from __future__ import annotations

import contextlib
import secrets

from lateen.api import kinds
from lateen.kit import tasks, times
from lateen.kit.jsons import Json
from lateen.kit.rounds import Rounds
from lateen.kube.client import Client, KubeError

LIMIT = 2000
"""How many are known, and how many may wait to be written."""
PAUSE_S, BETWEEN_S = 0.02, 0.1
"""Seconds until events are written, and between groups of them where there are many."""


class Recorder:
    """Events are written in groups, and many of them slowly: what they tell of is more urgent."""

    def __init__(self, client: Client, component: str, host: str = "") -> None:
        self._client, self._component, self._host = client, component, host
        self._seen: dict[tuple[str, ...], Json] = {}
        self._rounds = Rounds(PAUSE_S, between=BETWEEN_S)

    def event(self, obj: Json, type_: str, reason: str, message: str, path: str = "") -> None:
        """Record in the background; a lost event never affects the caller."""
        meta = obj["metadata"]
        key = (str(meta.get("uid")), reason, message[:1000], path)
        if len(self._rounds) >= LIMIT:
            return
        if old := self._seen.get(key):
            old["count"] += 1
            old["lastTimestamp"] = times.stamp()
            tasks.spawn(self._repeat(old), f"event {reason}")
            return
        if len(self._seen) > LIMIT:
            self._seen.clear()
        made = self._seen[key] = self._made(obj, type_, reason, message[:1000], path)
        tasks.spawn(self._create(made), f"event {reason}")

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
                "name": f"{meta['name']}.{secrets.token_hex(8)}",
                "namespace": meta.get("namespace") or "default",
            },
        }

    async def _create(self, event: Json) -> None:
        await self._rounds.turn()
        with contextlib.suppress(KubeError, OSError):
            await self._client.create(kinds.EVENT, event)

    async def _repeat(self, event: Json) -> None:
        await self._rounds.turn()
        meta, change = event["metadata"], {k: event[k] for k in ("count", "lastTimestamp")}
        with contextlib.suppress(KubeError, OSError):
            await self._client.patch(kinds.EVENT, meta["namespace"], meta["name"], change)
