"""Leader election among istiods with a Lease, as in Kubernetes' own controllers; the leader writes statuses.

Source: https://kubernetes.io/docs/concepts/architecture/leases/ and k8s.io/client-go/tools/leaderelection: a lease is
free once its record has not changed for its duration, measured by the observer's clock. Its holder counts from before
its request, so that it has stopped to write when others may begin, even if it was stopped itself in the meantime.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

from lateen.api import kinds
from lateen.kit import tasks, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError, Unreachable

log = logging.getLogger("lateen.control.leadership")

NAME = "lateen-status"
DURATION_S, RENEW_S = 3, 1.0
"""Short, because statuses must not be older than 5 s even if the leader dies: the lease of an istiod whose pod is gone
is free at once, that of an unresponsive one after ``TAKEOVER_S``."""
TAKEOVER_S = DURATION_S + RENEW_S


class Leadership:
    """``run`` renews the lease; the callbacks in ``gained`` are called when it has been acquired."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        me: str,
        lives: Callable[[str], bool],
        name: str = NAME,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``lives``: whether an istiod of that name exists; the lease of one that does not is free."""
        self._clock = clock
        self._client, self._namespace, self._name = client, namespace, name
        self._me, self._lives = me, lives
        self._seen: tuple[str, float] = ("", 0.0)
        self.until = -math.inf
        """When the lease ends that this istiod holds, by ``clock``."""
        self.holder = ""
        """The last observed holder."""
        self.changed: Callable[[], None] = lambda: None
        """Called when the lease has changed hands."""
        self.gained: list[Callable[[], None]] = []

    @property
    def held(self) -> bool:
        """Whether this istiod may write now. After a pause it may not until it has looked at the lease again."""
        return self._clock() < self.until

    async def run(self) -> None:
        """Never returns."""
        while True:
            await self.renew()
            await asyncio.sleep(RENEW_S)

    async def renew(self) -> None:
        """Acquire or renew the lease, once."""
        before, holder, until = self.held, self.holder, self.until
        held = await self._held()
        if (before, holder) != (held, self.holder):
            self.changed()
        if held and not (before and self._clock() < until):  # what was due while it was not ours has been left out
            log.info("this istiod now writes statuses")
            tasks.tell(self.gained)

    async def _held(self) -> bool:
        try:
            if not await self._try():
                self.until = -math.inf
            return self.held
        except (Unreachable, KubeError) as e:
            code = e.code if isinstance(e, KubeError) else 0
            if code == 409:  # another istiod acquired it first
                self.until = -math.inf
                return False
            if code in (403, 404):
                if not self.held:
                    log.warning("lease %s cannot be used: %s; statuses are written without a leader", self._name, e)
                self.until = math.inf
            return self.held

    async def _try(self) -> bool:
        """Acquire or renew the lease; returns whether it is ours. Raises KubeError 409 if another one was faster."""
        asked = self._clock()
        found = await self._client.get(kinds.LEASE, self._namespace, self._name)
        now = times.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if found is None:
            if self._another_holds(self.holder):  # somebody has deleted it; the holder makes it again
                return False
            meta = {"name": self._name, "namespace": self._namespace}
            await self._client.create(kinds.LEASE, {**_HEAD, "metadata": meta, "spec": self._spec(now, now, 0)})
            return self._mine(now, asked)
        holder = str(dig(found, "spec", "holderIdentity", default=""))
        renewed = str(dig(found, "spec", "renewTime", default=""))
        if renewed != self._seen[0]:
            self._seen = (renewed, self._clock())
        if self._another_holds(holder):
            self.holder = holder
            return False
        changes = int(dig(found, "spec", "leaseTransitions", default=0)) + (holder != self._me)
        since = str(dig(found, "spec", "acquireTime", default=now)) if holder == self._me else now
        await self._client.update(kinds.LEASE, {**_HEAD, **found, "spec": self._spec(since, now, changes)})
        return self._mine(now, asked)

    def _another_holds(self, holder: str) -> bool:
        expired = self._clock() - self._seen[1] >= DURATION_S
        return holder not in ("", self._me) and not expired and self._lives(holder)

    def _mine(self, renewed: str, asked: float) -> bool:
        self._seen, self.until = (renewed, self._clock()), asked + DURATION_S
        self.holder = self._me
        return True

    def _spec(self, since: str, now: str, changes: int) -> Json:
        return {
            "holderIdentity": self._me,
            "leaseDurationSeconds": DURATION_S,
            "acquireTime": since,
            "renewTime": now,
            "leaseTransitions": changes,
        }

    async def release(self) -> None:
        """Release the lease, so that another istiod need not wait for it to expire."""
        if not self.held:
            return
        self.until = -math.inf
        try:
            async with asyncio.timeout(1):
                await self._client.patch(kinds.LEASE, self._namespace, self._name, {"spec": {"holderIdentity": ""}})
        except (KubeError, Unreachable, TimeoutError) as e:
            log.info("the lease could not be released and will expire: %s", e)


_HEAD = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
