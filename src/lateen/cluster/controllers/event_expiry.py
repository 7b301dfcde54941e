"""Events are removed an hour after they have been written last (kube-apiserver's --event-ttl)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers.loop import Key, Loop
from lateen.kit import times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError

KEPT = timedelta(hours=1)
SWEEP_S = 60.0
AT_ONCE = 32
"""Deletions that become durable together."""


class EventExpiry:
    """Has one key: events are many, and none is urgent."""

    name = "event-expiry"
    watches = (kinds.EVENT,)

    def __init__(self, client: Client, loop: Loop) -> None:
        self._client, self._loop = client, loop
        self._begun = False

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:  # noqa: ARG002
        """The first event begins what goes on by itself."""
        if not self._begun:
            self._begun = True
            yield ()

    async def reconcile(self, key: Key) -> float | None:  # noqa: ARG002
        now = times.now()
        old = [e for e in self._loop.objects(kinds.EVENT) if now - written(e) >= KEPT]
        for at in range(0, len(old), AT_ONCE):
            await asyncio.gather(*map(self._remove, old[at : at + AT_ONCE]))
        return SWEEP_S

    async def _remove(self, event: Json) -> None:
        meta = event["metadata"]
        try:
            await self._client.delete(kinds.EVENT, meta["namespace"], meta["name"], version=meta["resourceVersion"])
        except KubeError as e:
            if e.code != 409:  # it has been written again
                raise


def written(event: Json) -> datetime:
    """When the API server has taken it last; the times in an event are its writer's."""
    fields = dig(event, "metadata", "managedFields", default=[])
    stamps = [event["metadata"]["creationTimestamp"], *(str(f["time"]) for f in fields if f.get("time"))]
    return max(map(times.parse, stamps))
