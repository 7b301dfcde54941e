"""istiod's core: the current mesh, pushes to proxies, and status reports."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lateen.ads.conversation import Rejection
from lateen.ads.peers import Connection
from lateen.ads.server import AdsServer
from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.domain import TRUST_DOMAIN
from lateen.ca.authority import parse
from lateen.control import dumps
from lateen.control.clusters import NotServed
from lateen.control.credentials import Credentials
from lateen.control.fetching import DEFAULT_FETCHING, Fetcher, Fetching
from lateen.control.keys import Keys
from lateen.control.measures import Measures
from lateen.control.modules import Modules
from lateen.control.offering import Offering, may_be
from lateen.control.patching import Patching
from lateen.control.pulling import Puller
from lateen.control.reach import Reach, reach
from lateen.control.registration import Registrar
from lateen.control.sides import Sides, cluster_of
from lateen.control.world import World
from lateen.kit import addresses
from lateen.kit.jsons import Json
from lateen.kube.client import Client
from lateen.mesh import challenges
from lateen.mesh.dangling import dangling
from lateen.mesh.model import Mesh
from lateen.mesh.settings import Cluster
from lateen.mesh.views import Views
from lateen.wire import names
from lateen.wire.node import IPV6_REDIRECTED, NodeId
from lateen.wire.revision import Revision

log = logging.getLogger("lateen.control")

QUIET_S, LONGEST_S = 0.02, 1.0
"""Debouncing in seconds: a push waits until nothing has changed for the first, but no longer than the second."""
GRACE_S = 0.5
"""Seconds that a push waits for a host or subset that a new rule refers to and that does not exist yet."""


class Control:
    def __init__(
        self,
        client: Client,
        namespace: str,
        revision: Revision,
        cluster: Cluster | None = None,
        fetching: Fetching = DEFAULT_FETCHING,
        trust_domain: str = TRUST_DOMAIN,
        me: str = "istiod",
        insecure: frozenset[str] = frozenset(),
        serves: bool = False,
    ) -> None:
        """``trust_domain``: that of issued certificates. ``me``: the name of this istiod's pod. ``insecure``,
        ``serves``: see ``World``."""
        self._trust_domain = trust_domain
        self.client, self.namespace, self.revision = client, namespace, revision
        self._dirty = asyncio.Event()
        self.world = World(namespace, self._dirty.set, revision, cluster, insecure, serves)
        self.views = Views(Mesh(self.world.objects))
        self.sides = Sides(self.views)
        self.offered = self.world.objects
        """The mesh that proxies have been offered."""
        self._pushed = False
        """Whether proxies have been offered any mesh."""
        self.patching = Patching()
        self.measures = Measures()
        self.registrar = Registrar(client, self.world, self.measures, me)
        self.credentials = Credentials(client, self.world, namespace, self._dirty.set)
        fetcher = Fetcher(partial(addresses.refused, blocked=fetching.blocked))
        self.keys = Keys(self.world, fetcher.keys, fetching.refresh_s)
        self.modules = Modules(self.world, Puller(fetcher, self.credentials.secret, fetching.insecure).module)
        self.offering = Offering(
            self.world.clusters,
            self.sides,
            self.registrar,
            self.credentials,
            lambda: self.modules.awaited,
            self.patching,
        )
        self.ads = AdsServer(self._allow, self.offering.to, self.offering.proxyless, self._rejected)
        self.ads.joined, self.ads.left = self._joined, self._left
        self.changed: Callable[[], None] = lambda: None
        """Called after the mesh has changed."""
        self._measure()

    # --- pushing ---------------------------------------------------------------------------------------------

    def mesh(self) -> Mesh:
        return self.views.mesh

    def newest(self) -> Mesh:
        """The mesh of all known objects, pushed or not; if it cannot be built, the last one that could.
        The admission webhook uses it: if it failed, nobody could apply a fix.
        """
        if self.views.mesh.instant is not self.world.objects:
            try:
                self.sides.advance(self.world.objects)
            except Exception:
                log.exception("the mesh stays as it was before the latest changes")
        return self.views.mesh

    def is_own(self, trust_domain: str) -> bool:
        """Whether it is one of the mesh's. Others' certificates may be under the same root."""
        return trust_domain in (self._trust_domain, *self.world.objects.config.transport.trust_domains)

    def _allow(self, node: NodeId, identity: str, metadata: dict[str, str]) -> str | None:
        """Why a proxy is not admitted: it may only claim the identity in its certificate, and to be what its pod is."""
        try:
            who = parse(identity)
        except ValueError:
            return "a workload certificate is required"
        if not self.is_own(who.trust_domain):
            return f"the certificate is for trust domain {who.trust_domain}, not {self._trust_domain}"
        try:
            pod = self._pod(self.world.clusters.home(cluster_of(metadata)), node)
        except NotServed as e:
            return str(e)
        if who.namespace != node.namespace:
            return f"the certificate is for namespace {who.namespace}, not {node.namespace}"
        if pod is not None and pod.service_account != who.service_account:
            return f"pod {node.pod} runs as {pod.service_account}, not {who.service_account}"
        if pod is not None and not may_be(node.kind, pod, identity):
            return f"pod {node.pod} is no gateway: its proxy does not run as router"
        return self.registrar.refuses(node, metadata, who.service_account)

    def _pod(self, cluster: str, node: NodeId) -> o.Pod | None:
        """``cluster``: see ``Clusters.home``."""
        objects = self.world.objects
        there = objects.others.get(cluster) if cluster else objects
        return there.pods.get((node.namespace, node.pod)) if there else None

    def _joined(self, connection: Connection) -> None:
        self.registrar.connected(connection)
        self.credentials.connected(connection)

    def _left(self, connection: Connection) -> None:
        self.offering.forget(connection)
        self.registrar.disconnected(connection)
        self.credentials.disconnected(connection)

    def _rejected(self, connection: Connection, rejection: Rejection) -> None:
        short = names.SHORT.get(rejection.type_url, rejection.type_url)
        cause = f" (from {', '.join(rejection.origins)})" if rejection.origins else ""
        log.error(
            "%s refused %s %s%s: %s",
            connection.node.pod,
            short,
            ", ".join(rejection.resources),
            cause,
            rejection.message.strip(),
        )
        if self.patching.refused(connection, rejection):
            self._dirty.set()

    async def _settled(self) -> None:
        """Update the mesh once nothing has changed for a moment; a little later if a rule refers to something that does
        not exist yet, or if keys or modules are being fetched. The first push does not wait for referenced objects,
        because all lists have been read before it."""
        first = time.monotonic()
        while True:
            while self._dirty.is_set() and time.monotonic() - first < LONGEST_S:
                self._dirty.clear()
                await asyncio.sleep(QUIET_S)
            self._dirty.clear()
            began = time.monotonic()
            self.sides.advance(self.world.objects)
            self.measures.context.observe(time.monotonic() - began)
            self._follow(self.mesh())
            if self.mesh().instant is not self.world.objects:
                self.sides.advance(
                    self.world.objects
                )  # with the modules that new versions of plugins keep in the meantime
            left = first + GRACE_S - time.monotonic()
            if left <= 0 or not (self._fetching() or (self._pushed and dangling(self.offered, self.mesh()))):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._dirty.wait()

    def _follow(self, mesh: Mesh) -> None:
        self.keys.follow(mesh.fetched_sources())
        self.modules.follow(mesh.module_sources())

    def missing(self, found: o.Resource[Any]) -> list[str] | None:
        """The problems of the documents fetched for an object; None if none are fetched."""
        if found.ref.group_kind in (kinds.REQUEST_AUTHENTICATION.id, kinds.SECURITY_POLICY.id):
            return self.keys.missing(found)
        return self.modules.missing(found)

    def _fetching(self) -> bool:
        return self.keys.pending() or self.modules.pending()

    async def fetch(self, limit_s: float) -> None:
        """Fetch the keys of all issuers and all modules; returns once each server has answered or failed, at the latest
        after ``limit_s`` seconds."""
        self._follow(self.newest())
        await asyncio.gather(self.keys.first(limit_s), self.modules.first(limit_s))

    async def push_loop(self) -> None:
        while True:
            await self._dirty.wait()
            first = time.monotonic()
            try:
                await self._settled()
                self.measures.debounce.observe(time.monotonic() - first)
                self.measures.pushing()
                instant = self.mesh().instant
                self.credentials.pushed(self.mesh())
                await self.ads.push(first)
                self.offered = instant
                self._pushed = True
                self.changed()
            except Exception:  # a failure with one state of the mesh must not affect the next push
                log.exception("this state of the mesh is not pushed; proxies keep what they have")

    # --- status reports -----------------------------------------------------------------------------

    def answers(self, entries: Mapping[str, str]) -> bool:
        """Whether all connected gateways answer exactly these challenges of ACME servers (``mesh.challenges``)."""
        ref = kinds.SECRET.ref(self.namespace, challenges.SECRET)
        found = self.offered.credentials.get((ref.namespace, ref.name))
        if found is None or dict(found.entries) != entries:
            return False
        far = reach(self.ads.connections, {str(ref)}).get(str(ref), Reach())
        return far.have == far.concerned

    def status(self) -> list[Json]:
        """One entry per connected proxy, as shown by proxy-status."""
        out = []
        for c in sorted(self.ads.connections, key=lambda c: str(c.node)):
            out.append(
                {
                    "proxy": dumps.proxy_name(c),
                    "kind": c.node.kind,
                    "cluster": dumps.cluster_name(c, self.world.cluster.name),
                    "version": c.version,
                    "ipv6Redirected": c.metadata.get(IPV6_REDIRECTED) == "true",
                    "connectedAt": c.connected_at,
                    "bytesSent": c.bytes_sent,
                    "types": dumps.types(c),
                    "rejections": {names.SHORT.get(t, t): r.message for t, r in c.session.rejections.items()},
                }
            )
        return out

    def _measure(self) -> None:
        """Register metrics that are computed at each scrape."""
        m, world = self.measures, self.world
        self.ads.measures = m.xds
        world.seen = m.saw
        world.left_out = lambda ref: m.rejected.add(ref.kind, f"{ref.namespace}/{ref.name}")
        m.connected.read = lambda: Counter((c.version,) for c in self.ads.connections)
        for short, gauge in m.rejecting.items():
            gauge.read = partial(self._rejecting, short)
        m.clusters.read = lambda: {("local",): 1, ("remote",): len(world.clusters.others)}
        m.services.read = lambda: {(): len(world.objects.services)}
        m.virtual_services.read = lambda: {(): len(world.objects.virtual_services)}
        m.not_ready.read = lambda: {(): sum(p.meshed and not p.ready for p in world.objects.pods.values())}
        m.without_endpoint.read = self._without_endpoint
        m.without_instances.read = self._without_instances
        m.keys_fetched.read = lambda: {(): self.keys.fetched}
        m.keys_failed.read = lambda: {(): self.keys.failed}

    def _rejecting(self, short: str) -> dict[tuple[str, ...], float]:
        refused = (
            c for c in self.ads.connections for t in c.session.rejections if names.SHORT.get(t, "").lower() == short
        )
        return {(str(c.node), "rejected"): 1 for c in refused}

    def _without_endpoint(self) -> dict[tuple[str, ...], float]:
        sidecars = [
            (c.node.address, self.offering.home(c.metadata)) for c in self.ads.connections if c.node.kind == "sidecar"
        ]
        known: dict[Views, set[str]] = {}
        for views in {views for _, views in sidecars if views is not None}:
            slices = views.mesh.objects.of(kinds.ENDPOINT_SLICE).values()
            known[views] = {e.address for _, ports in slices for endpoints in ports.values() for e in endpoints}
        return {(): sum(views is not None and address not in known[views] for address, views in sidecars)}

    def _without_instances(self) -> dict[tuple[str, ...], float]:
        slices = self.world.objects.of(kinds.ENDPOINT_SLICE).items()
        having = {(ns, service) for (ns, _), (service, ports) in slices if any(ports.values())}
        services = self.world.objects.services.values()
        return {(): sum(bool(s.selector) and (s.namespace, s.name) not in having for s in services)}
