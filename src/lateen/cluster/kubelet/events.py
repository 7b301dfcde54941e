"""Events about pods and services; a repeated event increases a count instead of making another object."""

from __future__ import annotations

import secrets

from lateen.api import kinds
from lateen.kit import tasks, times
from lateen.kit.jsons import Json
from lateen.kube.client import Client, KubeError

LIMIT = 2000


class Recorder:
    def __init__(self, client: Client, component: str, host: str = "") -> None:
        self._client, self._component, self._host = client, component, host
        self._seen: dict[tuple[str, str, str], Json] = {}

    def event(self, obj: Json, type_: str, reason: str, message: str, path: str = "") -> None:
        """Record in the background; a lost event never affects the caller."""
        tasks.spawn(self._record(obj, type_, reason, message[:1000], path), f"event {reason}")

    async def _record(self, obj: Json, type_: str, reason: str, message: str, path: str) -> None:
        meta = obj["metadata"]
        key = (str(meta.get("uid")), reason, message)
        try:
            if old := self._seen.get(key):
                old["count"] += 1
                await self._client.patch(
                    kinds.EVENT,
                    old["metadata"]["namespace"],
                    old["metadata"]["name"],
                    {"count": old["count"], "lastTimestamp": times.stamp()},
                )
                return
            namespace = meta.get("namespace") or "default"
            about = {
                "kind": obj["kind"],
                "apiVersion": obj["apiVersion"],
                "name": meta["name"],
                "namespace": meta.get("namespace", ""),
                "uid": meta.get("uid", ""),
                "resourceVersion": meta.get("resourceVersion", ""),
            } | ({"fieldPath": path} if path else {})
            now = times.stamp()
            source = {"component": self._component} | ({"host": self._host} if self._host else {})
            event = {
                "kind": "Event",
                "apiVersion": "v1",
                "involvedObject": about,
                "reason": reason,
                "message": message,
                "type": type_,
                "source": source,
                "firstTimestamp": now,
                "lastTimestamp": now,
                "count": 1,
                "reportingComponent": self._component,
                "reportingInstance": self._host,
                "metadata": {"name": f"{meta['name']}.{secrets.token_hex(8)}", "namespace": namespace},
            }
            if len(self._seen) > LIMIT:
                self._seen.clear()
            self._seen[key] = event
            await self._client.create(kinds.EVENT, event)
        except (KubeError, OSError):
            return
