"""istiod's core: what it knows, what it pushes to which proxy, and what it reports about itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import time
from collections.abc import Callable, Mapping
from functools import partial

from lateen import __version__
from lateen.ads.server import AdsServer, Connection
from lateen.ads.session import Rejection, Sets
from lateen.api.domain import TRUST_DOMAIN
from lateen.ca.authority import parse
from lateen.control import dumps
from lateen.control.credentials import Credentials
from lateen.control.fetching import DEFAULT_FETCHING, Fetcher, Fetching
from lateen.control.keys import Keys
from lateen.control.patching import Patching
from lateen.control.registration import Registrar
from lateen.control.webhooks import Webhooks
from lateen.control.world import World
from lateen.kit import addresses
from lateen.kit.jsons import Json
from lateen.kube.client import Client
from lateen.mesh.dangling import dangling
from lateen.mesh.model import Mesh
from lateen.mesh.settings import Cluster
from lateen.mesh.views import Views
from lateen.wire import names
from lateen.wire.node import NodeId
from lateen.wire.revision import Revision
from lateen.xds import proxyless
from lateen.xds.generate import generate

log = logging.getLogger("lateen.control")

QUIET_S, LONGEST_S = 0.02, 1.0
"""Seconds: a push waits until nothing has changed for the first, but no longer than the second."""
GRACE_S = 0.5
"""Seconds that a new rule waits for a host or subset that it refers to and that does not exist yet."""


class Control:
    def __init__(
        self,
        client: Client,
        namespace: str,
        revision: Revision,
        cluster: Cluster | None = None,
        fetching: Fetching = DEFAULT_FETCHING,
        trust_domain: str = TRUST_DOMAIN,
    ) -> None:
        """``trust_domain``: in which certificates are issued."""
        self._trust_domain = trust_domain
        self.client, self.namespace, self.revision = client, namespace, revision
        self._dirty = asyncio.Event()
        self.world = World(namespace, self._dirty.set, revision, cluster)
        self.views = Views(Mesh(self.world.objects))
        self.offered = self.world.objects
        """The mesh that proxies have been offered."""
        self.ads = AdsServer(self._allow, self._sets, self._proxyless, self._rejected)
        self.patching = Patching()
        self.registrar = Registrar(client, self.world)
        self.credentials = Credentials(client, self.world, namespace, self._dirty.set)
        self.keys = Keys(
            self.world, Fetcher(partial(addresses.refused, blocked=fetching.blocked)).keys, fetching.refresh_s
        )
        self.ads.joined, self.ads.left = self._joined, self._left
        self.rejections: dict[tuple[str, str], Rejection] = {}
        self.changed: Callable[[], None] = lambda: None
        """Called after the mesh has changed."""
        self._last_push = 0.0
        self._pushes = 0
        self._started = time.monotonic()

    # --- pushing ---------------------------------------------------------------------------------------------

    def mesh(self) -> Mesh:
        return self.views.mesh

    def newest(self) -> Mesh:
        """Of all that is known, whether it has been pushed or not; where that fails, the last one that could be made.

        The admission webhook asks here: if it failed, nobody could apply what mends the mesh.
        """
        if self.views.mesh.instant is not self.world.objects:
            try:
                self.views.advance(self.world.objects)
            except Exception:
                log.exception("the mesh stays as it was before the latest changes")
        return self.views.mesh

    def _allow(self, node: NodeId, identity: str, metadata: dict[str, str]) -> str | None:
        """A proxy may only claim the identity in its certificate."""
        try:
            who = parse(identity)
        except ValueError:
            return "a workload certificate is required"
        if who.trust_domain not in (self._trust_domain, *self.world.objects.config.transport.trust_domains):
            return f"the certificate is for trust domain {who.trust_domain}, not {self._trust_domain}"
        pod = self.world.objects.pods.get((node.namespace, node.pod))
        if who.namespace != node.namespace:
            return f"the certificate is for namespace {who.namespace}, not {node.namespace}"
        if pod is not None and pod.service_account != who.service_account:
            return f"pod {node.pod} runs as {pod.service_account}, not {who.service_account}"
        return self.registrar.refuses(node, metadata, who.service_account)

    def _joined(self, connection: Connection) -> None:
        self.registrar.connected(connection)
        self.credentials.connected(connection)

    def _left(self, connection: Connection) -> None:
        self.registrar.disconnected(connection)
        self.credentials.disconnected(connection)

    def _sets(self, connection: Connection) -> Mapping[str, Sets]:
        pod = self.registrar.workload(connection) or self.views.mesh.objects.pods.get(
            (connection.node.namespace, connection.node.pod)
        )
        if pod is None or not self.credentials.known(connection.node):
            return {}  # not known yet (or no longer): nothing is sent, and nothing is removed
        view = self.views.of(pod, connection.node.kind, connection.metadata)
        made = self.patching.sets(connection, view, generate(view))
        connection.view = view
        return made

    def _proxyless(self, node: NodeId) -> Mapping[str, Sets]:
        return proxyless.generate(self.views.outbound(node.namespace))

    def _rejected(self, connection: Connection, rejection: Rejection) -> None:
        short = names.SHORT.get(rejection.type_url, rejection.type_url)
        self.rejections[(str(connection.node), short)] = rejection
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
        """Bring the mesh up to date once nothing has changed for a moment; a little later if a rule refers to something
        that does not exist yet, or if the keys of an issuer are being fetched. The first push does not wait for what
        rules refer to: all lists have been read before it."""
        first = time.monotonic()
        while True:
            while self._dirty.is_set() and time.monotonic() - first < LONGEST_S:
                self._dirty.clear()
                await asyncio.sleep(QUIET_S)
            self._dirty.clear()
            self.views.advance(self.world.objects)
            self.keys.follow(self.mesh().key_sources())
            left = first + GRACE_S - time.monotonic()
            if left <= 0 or not (self.keys.pending() or (self._pushes and dangling(self.offered, self.mesh()))):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._dirty.wait()

    async def learn_keys(self, limit_s: float) -> None:
        """Fetch the keys of all issuers; returns once each server has answered or failed, at the latest after
        ``limit_s`` seconds."""
        self.keys.follow(self.newest().key_sources())
        await self.keys.first(limit_s)

    async def push_loop(self) -> None:
        while True:
            await self._dirty.wait()
            started = time.perf_counter()
            try:
                await self._settled()
                started = time.perf_counter()
                instant = self.mesh().instant
                self.credentials.pushed(self.mesh())
                await self.ads.push()
                self.offered = instant
                self.changed()
            except Exception:  # whatever goes wrong with one state of the mesh, the next one is pushed
                log.exception("this state of the mesh is not pushed; proxies keep what they have")
            self._pushes += 1
            self._last_push = time.perf_counter() - started
            log.debug("pushed to %d proxies in %.1f ms", len(self.ads.connections), self._last_push * 1000)

    # --- what it tells of itself -----------------------------------------------------------------------------

    def status(self) -> list[Json]:
        """One entry per connected proxy, as shown by proxy-status."""
        out = []
        for c in sorted(self.ads.connections, key=lambda c: str(c.node)):
            out.append(
                {
                    "proxy": dumps.proxy_name(c),
                    "kind": c.node.kind,
                    "cluster": dumps.cluster_name(c),
                    "version": c.version,
                    "connectedAt": c.connected_at,
                    "bytesSent": c.bytes_sent,
                    "types": dumps.types(c),
                    "rejections": {names.SHORT.get(t, t): r.message for t, r in c.session.rejections.items()},
                }
            )
        return out

    def metrics(self, hooks: Webhooks) -> str:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        lines = [
            f'pilot_info{{version="{__version__}"}} 1',
            f"pilot_xds {len(self.ads.connections)}",
            f"pilot_services {len(self.world.objects.services)}",
            f"pilot_virt_services {len(self.world.objects.virtual_services)}",
            f"pilot_push_total {self._pushes}",
            f"pilot_last_push_seconds {self._last_push:.6f}",
            f"process_cpu_seconds_total {usage.ru_utime + usage.ru_stime:.3f}",
            f"process_resident_memory_bytes {_rss()}",
            f"istiod_uptime_seconds {time.monotonic() - self._started:.1f}",
        ]
        for outcome, count in (("success", self.keys.fetched), ("fail", self.keys.failed)):
            lines.append(f"pilot_jwks_resolver_network_fetch_{outcome}_total {count}")
        lines += [f'pilot_xds_pushes{{type="{t.lower()}"}} {n}' for t, n in sorted(self.ads.pushes.items())]
        lines += [f"pilot_xds_{t.lower()}_reject {n}" for t, n in sorted(self.ads.rejects.items())]
        lines += [
            f"sidecar_injection_success_total {hooks.counts['injected']}",
            f"sidecar_injection_skip_total {hooks.counts['skipped']}",
            f"galley_validation_passed {hooks.counts['valid']}",
            f"galley_validation_failed {hooks.counts['invalid']}",
        ]
        return "\n".join(lines) + "\n"


def _rss() -> int:
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096
