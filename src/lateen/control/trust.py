"""Distributes the trusted roots to the proxies and API servers of all clusters that this istiod serves.

Revisions share a certificate authority but not additional roots (``caCertificates``), so each publishes to the
namespaces that have its label (or a tag's); the first running revision publishes to all others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from lateen.api import kinds
from lateen.ca.authority import Told
from lateen.control.measures import Measures
from lateen.control.telling import HOOKS, Reached, Round, Teller, hooks_of
from lateen.kit import tasks
from lateen.kit.jsons import Json
from lateen.kube.client import Client
from lateen.kube.informer import Informer, Key
from lateen.wire.revision import Revision

log = logging.getLogger("lateen.control.trust")

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
"""Seconds until failed publications are retried: initially, and at most."""
REMOTE_S = 5.0
"""How long a round waits for another cluster, in seconds. Writing continues in the background."""
Others = Callable[[], list[tuple[Teller, list[Json]]]]
"""The other served clusters, with their namespaces."""


class Trust:
    """The leader publishes the trusted roots, with retries until everybody has them; every istiod publishes to new
    namespaces."""

    def __init__(
        self,
        client: Client,
        revision: Revision,
        trusted: Callable[[], Told],
        spaces: Callable[[], list[Json] | None],
        told: Callable[[Told, Reached], None],
        measures: Measures | None = None,
        own: str = "istio-system",
        running: Callable[[], tuple[str, ...]] | None = None,
    ) -> None:
        """``spaces``: the namespaces of the cluster; None if another istiod of this revision is responsible. ``told``:
        called with what was published, and its reach. ``own``: istiod's namespace. ``running``: the
        running revisions, the first one first."""
        self._measures, self._space = measures or Measures(), own
        self._running = running or (lambda: (revision.name,))
        self._revision, self._trusted = revision, trusted
        self._spaces, self._told = spaces, told
        self._woken, self._unannounced = asyncio.Event(), asyncio.Event()
        self._client, self._own = client, self.teller(client)
        self._rounds: dict[Teller, tuple[Told, asyncio.Task[Round]]] = {}
        """Running publications to other clusters; slow ones do not delay others."""
        self.others: Others = list
        self.unread: Callable[[], list[str]] = list
        """Why it is unknown whether some clusters are served."""

    def teller(self, client: Client, cluster: str = "") -> Teller:
        """``cluster``: the name of another cluster, whose client it is."""
        return Teller(
            client, self._revision, self._trusted, self.wake, self._measures, self._space, self._running, cluster
        )

    def wake(self) -> None:
        """Publish the current trusted roots."""
        self._woken.set()

    async def run(self) -> None:
        """Never returns."""
        wait, refused = FIRST_WAIT_S, ""
        while True:
            await self._woken.wait()
            self._woken.clear()
            trusted, spaces = self._trusted(), self._spaces()
            if spaces is None:
                continue
            reached = await self.everywhere(spaces)
            self._told(trusted, reached)
            if reached == Reached():
                wait = FIRST_WAIT_S
                continue
            if reached.problem:
                log.warning("%s (again in %.0f s)", reached.problem, wait)
            if reached.refused and reached.refused != refused:
                log.warning("%s", reached.refused)
            refused = reached.refused
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait if reached.problem else LONGEST_WAIT_S):
                    await self._woken.wait()
            self._woken.set()
            wait = min(wait * 2, LONGEST_WAIT_S)

    async def everywhere(self, namespaces: list[Json]) -> Reached:
        """Publish to all proxies and API servers. ``namespaces``: those of istiod's own cluster."""
        others = self.others()
        for gone in self._rounds.keys() - {teller for teller, _ in others}:
            self._rounds.pop(gone)[1].cancel()
        rounds = (self._elsewhere(teller, spaces) for teller, spaces in others)
        found = await asyncio.gather(self._own.everywhere(namespaces), *rounds)
        failures, refused = (
            [*self.unread(), *(f for one, _ in found for f in one)],
            [r for _, one in found for r in one],
        )
        return Reached(
            f"not all namespaces have the root certificates: {_listed(failures)}" if failures else "",
            f"root certificates could not be written to some namespaces: {_listed(refused)}" if refused else "",
        )

    async def _elsewhere(self, teller: Teller, namespaces: list[Json]) -> Round:
        """Publish to another cluster, as in ``Teller.everywhere``. A round that timed out earlier counts once it has
        ended, and is followed by another one, because somebody may have changed what it had already written."""
        trusted = self._trusted()
        told, left = self._rounds.pop(teller, (trusted, None))
        if left is not None and told != trusted:
            left.cancel()
            left = None
        task = left or tasks.spawn(teller.everywhere(namespaces), "root certificates")
        try:
            await asyncio.wait({task}, timeout=REMOTE_S)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not task.done():
            self._rounds[teller] = trusted, task
            return [f"{teller.where}it is still being told"], []
        if left is not None:
            self.wake()
        return task.result()

    async def namespace(self, namespace: Json) -> Reached:
        """Write the roots to a namespace of istiod's own cluster, for its proxies."""
        return await self._own.namespace(namespace)

    def altered(self, key: Key, new: Json | None) -> bool:
        """Whether somebody else has changed or deleted the roots of a namespace."""
        return self._own.altered(key, new)

    async def watch(self) -> None:
        """Set the CA bundle of webhooks that somebody makes anew or takes it from: Helm that moves a tag, or a GitOps
        controller. Never returns."""
        informers = [Informer(self._client, k, self._hook, labels=hooks_of(self._revision)) for k in HOOKS]
        await asyncio.gather(tasks.forever(self._announce, "webhooks"), *(i.run() for i in informers))

    def _hook(self, _: kinds.Kind, __: Key, ___: Json | None, new: Json | None) -> None:
        if self._spaces() is not None and self._own.unannounced(new):
            self._unannounced.set()

    async def _announce(self) -> None:
        """However many events there are, one attempt follows the other."""
        await self._unannounced.wait()
        self._unannounced.clear()
        await tasks.until_done(self.webhooks, "webhooks")

    async def webhooks(self) -> None:
        """Set the CA bundle of the webhooks of istiod's own cluster. Raises KubeError, OSError."""
        await self._own.webhooks()


def _listed(failures: list[str]) -> str:
    more = f", and {len(failures) - 3} more" if len(failures) > 3 else ""
    return f"{'; '.join(failures[:3])}{more}"
