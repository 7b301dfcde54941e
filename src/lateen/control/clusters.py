"""The other clusters of the mesh: their Secrets, informers, and objects.

A Secret in istiod's namespace with the label ``istio/multiCluster: "true"`` has a kubeconfig for each cluster, by the
cluster's name. Failures of one cluster do not affect others: a cluster joins the mesh once all its lists have been
read, keeps its last known state while its API is unavailable, and leaves with its Secret. A new kubeconfig, for example
with a renewed token, replaces the former one once the lists have been read with it. Source:
https://istio.io/latest/docs/setup/install/multicluster/ and ``pkg/kube/multicluster`` in istio.io/istio.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.api.mesh.config import LabelSelector
from lateen.control.discovery import Discovery, read_again
from lateen.control.inventory import KINDS, Inventory
from lateen.kit import tasks
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient
from lateen.kube.informer import Informer, Key
from lateen.kube.kubeconfig import ConfigError, from_text
from lateen.mesh.objects import Objects
from lateen.mesh.settings import Cluster

log = logging.getLogger("lateen.control.clusters")

LABEL = "istio/multiCluster"
MOST = 100
"""The most clusters that are used, in the order of the Secrets' names."""
SLOW_S = 30.0
"""A cluster that has not been read within this time is reported as ``timeout``; reading continues."""


OnEvent = Callable[[str, Kind, Key, Json | None], None]
"""(cluster, kind, key, the new object)"""


class NotServed(Exception):
    """istiod does not serve a proxy of another cluster; the message says why."""


@dataclass(eq=False)
class Other:
    """One other cluster."""

    name: str
    secret: str
    digest: bytes
    """The digest of its kubeconfig."""
    inventory: Inventory
    discovery: Discovery
    problem: str = ""
    """Why it cannot be used at all."""
    client: HttpClient | None = None
    informers: list[Informer] = field(default_factory=list)
    running: list[asyncio.Task[None]] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)
    former: Other | None = None
    """The same cluster with its former kubeconfig, which is used until this one has been read."""

    @property
    def synced(self) -> bool:
        return bool(self.informers) and all(i.synced.is_set() for i in self.informers)

    @property
    def read(self) -> Other | None:
        """The cluster's state, if it has been read, with this kubeconfig or the former one."""
        return self if self.synced else self.former

    @property
    def trouble(self) -> str:
        """Its current problem; empty if there is none."""
        return self.problem or next((i.problem for i in self.informers if i.problem), "")

    def take(self, kind: Kind, key: Key, new: Json | None) -> bool:
        """Handle an event; returns whether it changes anything."""
        try:
            moved = {key[1]} if kind is kinds.NAMESPACE and self.discovery.named(key[1], new) else set()
            taken = self.inventory.take(kind, key, new if self.discovery.takes(kind, key[0]) else None)
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            log.warning("%s %s of cluster %s cannot be read: %r", kind.kind, "/".join(key), self.name, e)
            return False
        return taken | self.read_again(frozenset(moved))

    def read_again(self, namespaces: frozenset[str]) -> bool:
        return read_again([(i.kind, i.objects) for i in self.informers], namespaces, self.take)

    def services(self) -> dict[Key, Json]:
        """Its Services, as far as they belong to the mesh."""
        known = self.inventory.of(kinds.SERVICE)
        found = (i.objects for i in self.informers if i.kind is kinds.SERVICE)
        return {key: obj for objects in found for key, obj in objects.items() if key in known}

    def describe(self, namespace: str) -> Json:
        """An entry of Istio's page ``clusterz``, with the cluster's problem."""
        slow = time.monotonic() - self.since > SLOW_S
        status = "closed" if self.problem else "synced" if self.synced else "timeout" if slow else "syncing"
        out = {"id": self.name, "secretName": f"{namespace}/{self.secret}", "syncStatus": status}
        return out | ({"problem": self.trouble} if self.trouble else {})


class Clusters:
    def __init__(
        self,
        namespace: str,
        own: Cluster,
        allowed: frozenset[str],
        on_change: Callable[[], None],
        serves: bool = False,
    ) -> None:
        """``own``: istiod's cluster; ``allowed``: normally refused fields that kubeconfigs may have (see
        ``kubeconfig.from_text``); ``serves``: whether istiod is the control plane of other clusters' proxies, too."""
        self._namespace, self._own, self._domain, self._allowed = namespace, own.name, own.domain, allowed
        self._on_change, self.serves = on_change, serves
        self.happened: OnEvent = lambda *_: None
        """Called with each event of another cluster's objects."""
        self.joined: Callable[[Other], None] = lambda _: None
        """Called with each cluster that has been read."""
        self.moved: Callable[[str], None] = lambda _: None
        """Called with the name of each cluster that has left the mesh, or of which other namespaces belong to it."""
        self._selectors: tuple[LabelSelector, ...] = ()
        self._secrets: dict[str, dict[str, bytes]] = {}
        """Secret -> cluster -> its kubeconfig."""
        self.others: dict[str, Other] = {}
        self._gone: set[str] = set()
        """Clusters whose Secrets were deleted; their proxies may still be connected."""

    def home(self, claimed: str) -> str:
        """The cluster that a proxy claims to run in; empty for istiod's own. An unknown name also means istiod's own,
        because proxies keep the old name when their cluster is renamed. Raises NotServed."""
        if claimed in self._gone:
            raise NotServed(f'the cluster "{claimed}" has left the mesh: its Secret is gone')
        if claimed in ("", self._own) or claimed not in self.others:
            return ""
        if not self.serves:
            raise NotServed(
                f'this istiod does not serve proxies of other clusters such as "{claimed}"; install it with '
                "values.global.externalIstiod=true"
            )
        return claimed

    def client(self, name: str) -> HttpClient:
        """The client for another cluster's API, with the former kubeconfig until the lists have been read with the new
        one. Raises NotServed."""
        other = self.others.get(name)
        found = other.read or other if other else None
        if found is None or found.client is None:
            raise NotServed(f'the cluster "{name}" cannot be reached: {found.problem if found else "it has no Secret"}')
        return found.client

    def secret(self, name: str, new: Json | None) -> None:
        """Handle an event of a Secret in istiod's namespace."""
        wanted = new is not None and dig(new, "metadata", "labels", LABEL) == "true"
        found = _configs(new or {}) if wanted else {}
        if found == self._secrets.get(name, {}):
            return
        if found:
            self._secrets[name] = found
        else:
            self._secrets.pop(name, None)
        self._settle()

    def _settle(self) -> None:
        """Follow the clusters that the Secrets name, each by the first Secret that names it."""
        wanted: dict[str, tuple[str, bytes]] = {}
        for secret, found in sorted(self._secrets.items()):
            for name, config in sorted(found.items()):
                if name == self._own:
                    log.warning("Secret %s: its cluster %s is istiod's own, and is ignored", secret, name)
                elif name in wanted:
                    log.warning(
                        "Secret %s: its cluster %s is already defined by Secret %s", secret, name, wanted[name][0]
                    )
                elif len(wanted) >= MOST:
                    log.error("Secret %s: its cluster %s is left out: there are %d others", secret, name, MOST)
                else:
                    wanted[name] = (secret, config)
        for name, other in list(self.others.items()):
            if name not in wanted:
                self._forget(other)
        for name, (secret, config) in wanted.items():
            before = self.others.get(name)
            if before is None or (secret, _digest(config)) != (before.secret, before.digest):
                self._follow(name, secret, config, before)

    def _follow(self, name: str, secret: str, config: bytes, before: Other | None) -> None:
        discovery = Discovery(self._namespace)
        discovery.choose(self._selectors)
        other = Other(name, secret, _digest(config), Inventory(self._domain), discovery)
        if before is not None:
            other.former, unread = (before, before.former) if before.synced else (before.former, before)
            before.former = None
            _close(unread)
        self.others[name] = other
        self._gone.discard(name)
        try:
            other.client = from_text(config.decode(errors="replace"), f"{secret}, cluster {name}", self._allowed)
        except ConfigError as e:
            other.problem = str(e)
            log.error("cluster %s is not used: %s", name, e)
            return
        log.info("cluster %s joins the mesh (Secret %s)", name, secret)

        def changed(kind: Kind, key: Key, _: Json | None, new: Json | None) -> None:
            differs = other.take(kind, key, new)
            self.happened(name, kind, key, new)
            if differs and other.synced:
                self._on_change()

        other.informers = [Informer(other.client, kind, changed) for kind in KINDS]
        other.running = [tasks.spawn(i.run(), f"informer {i.kind.plural} of {name}") for i in other.informers]
        other.running.append(tasks.spawn(self._joined(other), f"cluster {name}"))

    def choose(self, given: tuple[LabelSelector, ...]) -> None:
        """Set which namespaces of the clusters belong to the mesh."""
        self._selectors = given
        for other in self.others.values():
            if other.read_again(other.discovery.choose(given)) and other.synced:
                self.moved(other.name)
                self._on_change()

    async def _joined(self, other: Other) -> None:
        await asyncio.gather(*(i.synced.wait() for i in other.informers))
        log.info("cluster %s has been read: %d services", other.name, len(other.inventory.objects.services))
        former, other.former = other.former, None
        _close(former)
        self.joined(other)
        self._on_change()

    def _forget(self, other: Other) -> None:
        log.info("cluster %s leaves the mesh", other.name)
        del self.others[other.name]
        self._gone.add(other.name)
        _close(other)
        _close(other.former)
        self.moved(other.name)
        self._on_change()

    def objects(self) -> Mapping[str, Objects]:
        """The objects of the clusters that have been read."""
        read = {name: other.read for name, other in self.others.items()}
        return {name: other.inventory.objects for name, other in read.items() if other is not None}

    async def learn(self, limit_s: float) -> None:
        """Returns once all clusters have been read, at the latest after ``limit_s`` seconds."""
        waited = [i.synced.wait() for other in self.others.values() for i in other.informers]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await asyncio.gather(*waited)

    def describe(self) -> list[Json]:
        return [self.others[name].describe(self._namespace) for name in sorted(self.others)]


def _close(other: Other | None) -> None:
    if other is not None:
        tasks.spawn(_closed(other), f"end of cluster {other.name}")


async def _closed(other: Other) -> None:
    await tasks.cancel(*other.running)
    if other.client is not None:
        await other.client.close()


def _configs(secret: Json) -> dict[str, bytes]:
    out = {}
    for name, text in (secret.get("data") or {}).items():
        with contextlib.suppress(ValueError):
            out[str(name)] = base64.b64decode(str(text))
    return out


def _digest(config: bytes) -> bytes:
    return hashlib.sha256(config).digest()
