"""Secrets of the namespaces where proxies need some: istiod's own one, those that gateways connect from, and those
whose DestinationRules name Secrets for chosen workloads.

istiod may read Secrets only where a Role says so (``lateen install`` makes one in each namespace that it puts a gateway
into); where none does, ``lateen check`` names the namespace and the commands that make one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from lateen.ads.server import Connection
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


class _Followed:
    def __init__(self, informer: Informer) -> None:
        self.informer = informer
        self.task = tasks.spawn(informer.run(), "informer secrets")
        self.answered = False
        """Whether the API has shown the Secrets, or said that it will not."""
        self.known = False
        """Whether what is pushed has them."""


class Credentials:
    def __init__(self, client: Client, world: World, namespace: str, on_known: Callable[[], None]) -> None:
        """``on_known`` is called when a namespace's Secrets are known now, or it is known that they will not be."""
        self._client, self._world, self._own, self._on_known = client, world, namespace, on_known
        self._followed: dict[str, _Followed] = {}
        self._gateways: dict[str, set[Connection]] = {}
        self.refused: set[str] = set()
        """Namespaces whose Secrets are needed and may not be read."""
        self._wanted = {namespace}
        self.changed: OnChange = lambda *_: None
        """Told of each change of a Secret, besides the world."""

    def readable(self) -> dict[str, Informer]:
        """The namespaces whose Secrets are known, with their informers."""
        return {n: f.informer for n, f in self._followed.items() if f.informer.synced.is_set()}

    def _on_change(self, kind: kinds.Kind, key: Key, old: Json | None, new: Json | None) -> None:
        self._world.changed(kind, key, old, new)
        self.changed(kind, key, old, new)

    def follow(self, namespace: str) -> asyncio.Event:
        """Know the namespace's Secrets from now on; set once they are known."""
        if namespace not in self._followed:
            trouble = partial(self._trouble, namespace)
            made = Informer(self._client, kinds.SECRET, self._on_change, namespace, trouble)
            self._followed[namespace] = _Followed(made)
        return self._followed[namespace].informer.synced

    def known(self, node: NodeId) -> bool:
        """Whether the proxy can be told what to serve: without its Secrets, it would close what it serves now."""
        found = self._followed.get(node.namespace)
        return found is None or found.known

    def pushed(self, mesh: Mesh) -> None:
        """What is known by now is part of what is pushed."""
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
        """Secrets that no proxy needs any more."""
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
