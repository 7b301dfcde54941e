"""Secrets of the namespaces where proxies need some: istiod's own, those with gateways, and those whose
DestinationRules name Secrets for selected workloads.

istiod may read Secrets only where a Role allows it (``lateen install`` creates one in each namespace with a gateway);
otherwise, ``lateen check`` names the namespace and the commands that create one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial

from lateen.ads.peers import Connection
from lateen.api import kinds
from lateen.control.world import World
from lateen.kit import tasks
from lateen.kit.jsons import Json
from lateen.kube.client import Client, KubeError
from lateen.kube.informer import Informer, Key, OnChange
from lateen.mesh import credentials
from lateen.mesh.model import Mesh
from lateen.wire.node import ROUTER, NodeId

log = logging.getLogger("lateen.control.credentials")

LISTED_S = 3.0
"""Seconds that a request for a Secret waits until its namespace's Secrets have been listed."""


class _Followed:
    def __init__(self, informer: Informer) -> None:
        self.informer = informer
        self.task = tasks.spawn(informer.run(), "informer secrets")
        self.answered = False
        """Whether the API has listed the Secrets or refused to."""
        self.known = False
        """Whether pushes include them."""


class Credentials:
    def __init__(self, client: Client, world: World, namespace: str, on_known: Callable[[], None]) -> None:
        """``on_known`` is called once a namespace's Secrets are known, or known to be unreadable."""
        self._client, self._world, self._own, self._on_known = client, world, namespace, on_known
        self._followed: dict[str, _Followed] = {}
        self._gateways: dict[str, set[Connection]] = {}
        self.refused: set[str] = set()
        """Namespaces whose Secrets are needed but may not be read."""
        self._wanted = {namespace}
        self.changed: OnChange = lambda *_: None
        """Called, in addition to the world, for each change of a Secret."""

    def readable(self) -> dict[str, Informer]:
        """The namespaces whose Secrets are known, with their informers."""
        return {n: f.informer for n, f in self._followed.items() if f.informer.synced.is_set()}

    async def secret(self, key: tuple[str, str]) -> Json | None:
        """A Secret by (namespace, name); None if it does not exist or may not be read. Waits a little for Secrets that
        have not been listed yet."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LISTED_S):
                await self.follow(key[0]).wait()
        found = self.readable().get(key[0])
        return found.objects.get(key) if found else None

    def _on_change(self, kind: kinds.Kind, key: Key, old: Json | None, new: Json | None) -> None:
        self._world.changed(kind, key, old, new)
        self.changed(kind, key, old, new)

    def follow(self, namespace: str) -> asyncio.Event:
        """Start watching a namespace's Secrets; the event is set once they are known."""
        if namespace not in self._followed:
            trouble = partial(self._trouble, namespace)
            made = Informer(self._client, kinds.SECRET, self._on_change, namespace, trouble)
            self._followed[namespace] = _Followed(made)
        return self._followed[namespace].informer.synced

    def known(self, node: NodeId) -> bool:
        """Whether the proxy can be configured: without its Secrets, it would close the TLS servers that it has now."""
        found = self._followed.get(node.namespace)
        return found is None or found.known

    def pushed(self, mesh: Mesh) -> None:
        """Called when the Secrets known so far have become part of the pushed mesh."""
        for found in self._followed.values():
            found.known = found.answered
        self._wanted = {self._own, *credentials.namespaces(mesh)}
        for namespace in self._wanted:
            self.follow(namespace)
        self._forget()

    def connected(self, connection: Connection) -> None:
        if connection.node.kind == ROUTER:
            self._gateways.setdefault(connection.node.namespace, set()).add(connection)
            self.follow(connection.node.namespace)

    def disconnected(self, connection: Connection) -> None:
        self._gateways.get(connection.node.namespace, set()).discard(connection)
        self._forget()

    def _forget(self) -> None:
        """Stop watching Secrets that no proxy needs any more."""
        self._gateways = {n: there for n, there in self._gateways.items() if there}
        for namespace in self._followed.keys() - self._wanted - self._gateways.keys():
            gone = self._followed.pop(namespace)
            gone.task.cancel()
            for key, obj in gone.informer.objects.items():
                self._on_change(kinds.SECRET, key, obj, None)
            self.refused.discard(namespace)

    def _trouble(self, namespace: str, error: KubeError | None) -> None:
        if error is not None and error.code != 403:
            log.warning("watching secrets in %s: %s", namespace, error)
            return
        self._followed[namespace].answered = True
        if error is None:
            self.refused.discard(namespace)
        elif namespace not in self.refused:
            self.refused.add(namespace)
            log.warning("a proxy in %s needs Secrets, which istiod may not read there: %s", namespace, error)
        self._on_known()
