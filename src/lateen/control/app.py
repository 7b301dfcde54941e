"""Wires up istiod: watch -> objects -> mesh -> views -> resources -> push; certificates; webhooks."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from dataclasses import replace

from aiohttp import web

from lateen import __version__
from lateen.ads import listening
from lateen.ads.debug import Questions, TokenServer
from lateen.api import kinds
from lateen.control import controlz, serving
from lateen.control.agents import Agents
from lateen.control.clusters import Other
from lateen.control.debug import Debug
from lateen.control.definitions import Definitions
from lateen.control.findings import Child
from lateen.control.identities import Identities
from lateen.control.injection import Injector
from lateen.control.leading import Leading
from lateen.control.monitoring import Monitoring, Readiness
from lateen.control.plane import Control
from lateen.control.roots import Roots
from lateen.control.settings import Settings
from lateen.control.webhooks import Webhooks
from lateen.kit import jsons, memory, tasks
from lateen.kit import log as logs
from lateen.kit.jsons import Json
from lateen.kube.client import Client, KubeError
from lateen.kube.informer import Informer, Key
from lateen.kube.kubeconfig import in_cluster
from lateen.wire import ports

log = logging.getLogger("lateen.control")

SYNC_S = 60.0
"""Seconds that the initial lists of all kinds may take."""
CLUSTERS_S = 10.0
"""Seconds that proxies wait for other clusters after a restart of istiod; otherwise they would lose those endpoints."""
FETCHING_S = 6.0
"""Seconds that proxies (which still have the former keys) wait for keys that istiod has to fetch again after a
restart."""


class Istiod:
    """The components, and how they notify each other."""

    def __init__(
        self, settings: Settings, client: Client, roots: Roots, control: Control, analysis: Child | None = None
    ) -> None:
        """``analysis``: the analysis process, if it is already running."""
        self.settings, self.client, self.roots, self.control = settings, client, roots, control
        self.readiness = Readiness()
        self.injector = Injector(
            control.mesh,
            lambda: control.world.mesh_config.accepted,
            settings.namespace,
            settings.revision,
            settings.proxy_image,
            settings.native_sidecars,
            control.world.accepted,
        )
        self.leading = Leading(settings, client, control, self.injector, analysis)
        self.identities = Identities(settings, client, roots, control, self.leading.held, self._namespaces)
        self.leading.writer.leadership.gained.append(roots.wake)
        self.quotas = self.leading.serve(self.identities)
        self.debug = Debug(control, roots)
        me = {"Component": "istiod", "ID": settings.pod, "Info": {"version": __version__}}
        self.questions = control.ads.questions = Questions(self.debug.answer, jsons.dumps(me).decode())
        self.agents = Agents(self.identities.ca, control.sides.of, control.registrar)
        self.hooks = Webhooks(
            self.injector,
            control.newest,
            settings.revision.config_map,
            control.measures,
            lambda: control.world.foreign,
        )
        self.informers = self.leading.statuses.informers = [
            Informer(client, kind, self._changed, optional=kind.group in kinds.OTHERS) for kind in kinds.watched()
        ]
        control.world.held = lambda: [(i.kind, i.objects) for i in self.informers]
        self.definitions = Definitions(client, control.world.define, self._lend)
        clusters = control.world.clusters
        clusters.happened, clusters.joined, clusters.moved = (
            self._elsewhere,
            self._joined,
            self.leading.writer.elsewhere,
        )
        control.credentials.changed = self._secret_changed
        control.changed = self._pushed

    def _changed(self, kind: kinds.Kind, key: Key, old: Json | None, new: Json | None) -> None:
        tasks.tell((self.injector.changed, self.control.registrar.changed, self.identities.changed), kind, key, new)
        tasks.tell((self.control.world.changed, self.leading.changed), kind, key, old, new)

    def _elsewhere(self, cluster: str, kind: kinds.Kind, key: Key, new: Json | None) -> None:
        told = (self.injector.elsewhere, self.identities.remotes.happened, self.leading.writer.elsewhere)
        tasks.tell(told, cluster, kind, key, new)

    def _joined(self, other: Other) -> None:
        tasks.tell((self.identities.remotes.joined,), other)
        tasks.tell((self.leading.writer.elsewhere,), other.name)

    def _secret_changed(self, kind: kinds.Kind, key: Key, old: Json | None, new: Json | None) -> None:
        self.leading.secret(kind, key, old, new)
        if key[0] == self.settings.namespace:
            self.identities.secret(key[1], new)

    def _lend(self, foreign: frozenset[kinds.Kind]) -> None:
        self.control.world.foreign = foreign
        self.leading.issuing.wake()

    def _namespaces(self) -> dict[Key, Json]:
        return next(i.objects for i in self.informers if i.kind is kinds.NAMESPACE)

    def _pushed(self) -> None:
        self.identities.configured()
        self.agents.changed()
        self.leading.pushed()
        self.quotas.changed()

    async def learn(self) -> None:
        """Wait for everything that proxies may depend on. Raises TimeoutError."""
        memory.settle()  # these objects are long-lived: exempt them from cyclic garbage collection
        for informer in self.informers:
            tasks.spawn(informer.run(), f"informer {informer.kind.plural}")
        secrets = self.control.credentials.follow(self.settings.namespace)
        async with asyncio.timeout(SYNC_S):
            await asyncio.gather(*(i.synced.wait() for i in self.informers), secrets.wait())
            await self.control.world.clusters.learn(CLUSTERS_S)
            await self.definitions.look()
        tasks.spawn(tasks.forever(self.definitions.run, "definitions"), "definitions")
        self.identities.learned()
        self.control.keys.former = await self.leading.kept_keys.read()
        await self.control.fetch(FETCHING_S)
        memory.settle()

    async def serve(self) -> list[web.AppRunner | listening.Server]:
        """Open all ports; the servers must be closed in reverse order."""
        memory.bound_connections()
        ca, certificate = self.identities.ca, self.identities.certificate
        to_agents = [
            web.post("/certificates", ca.sign),
            web.post("/roots", ca.roots),
            web.post("/names", self.agents.names),
            web.post("/bootstrap", self.agents.bootstrap),
            web.post("/probe", self.agents.probe),
            web.post("/health", self.agents.health),
        ]
        monitoring = Monitoring(self.control, ca, self.readiness, self.debug)
        self.quotas.begin()
        return [
            await serving.http(to_agents, ports.CA, certificate.asking),
            await serving.http(self.hooks.routes(), ports.WEBHOOK, certificate.context),
            await serving.http(monitoring.routes(), ports.MONITORING, None),
            await serving.http(monitoring.routes(), ports.READINESS, None),
            await serving.http(controlz.routes(), ports.CONTROLZ, None, "127.0.0.1"),
            await serving.xds(certificate, self.control.ads.accept, self.quotas.accept),
            await serving.debug_xds(TokenServer(self.identities.whose, self.questions), certificate),
        ]

    def work(self) -> list[asyncio.Task[None]]:
        """The tasks that run until istiod exits."""
        control, leading, identities = self.control, self.leading, self.identities
        return [
            tasks.spawn(control.world.accepted.keep(self.client), "configuration in effect"),
            tasks.spawn(control.push_loop(), "push"),
            tasks.spawn(tasks.forever(control.registrar.sweep, "sweep"), "sweep"),
            tasks.spawn(tasks.forever(control.world.end_taps, "taps of bodies"), "taps of bodies"),
            tasks.spawn(tasks.forever(leading.writer.run, "status"), "status"),
            tasks.spawn(tasks.forever(identities.certificate.renew, "server certificate"), "server certificate"),
            tasks.spawn(tasks.forever(self.roots.run, "certificate authority"), "certificate authority"),
            tasks.spawn(tasks.forever(identities.trust.run, "root certificates"), "root certificates"),
            tasks.spawn(tasks.forever(identities.trust.watch, "webhooks"), "webhooks"),
            tasks.spawn(tasks.forever(leading.kept_keys.run, "keys of issuers"), "keys of issuers"),
            tasks.spawn(tasks.forever(self.quotas.run, "quotas"), "quotas"),
            tasks.spawn(tasks.forever(leading.issuing.run, "certificates"), "certificates"),
            tasks.spawn(tasks.forever(leading.deployments.run, "deployments"), "deployments"),
        ]

    async def announce(self) -> None:
        """Set the webhooks' CA bundle; this may take a few attempts while the cluster starts."""
        while True:
            try:
                return await self.identities.trust.webhooks()
            except (KubeError, OSError) as e:
                log.warning("webhooks not announced yet: %s", e)
                await asyncio.sleep(1)


async def run(settings: Settings, analysis: Child | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    client = in_cluster()
    control = Control(
        client,
        settings.namespace,
        settings.revision,
        settings.cluster,
        settings.fetching,
        settings.trust_domain,
        settings.pod,
        settings.insecure,
        settings.serves,
    )
    authority = replace(settings.ca, hosts=tuple(settings.host_names))
    roots = Roots(client, settings.namespace, settings.trust_domain, authority, lambda: istiod.leading.held())
    await roots.start()
    istiod = Istiod(settings, client, roots, control, analysis)
    await istiod.learn()
    working = istiod.work()
    servers = await istiod.serve()
    await istiod.announce()
    istiod.readiness.ready = True
    control.measures.ready()
    log.info(
        "istiod %s, revision %s, is ready: %d services, %d pods",
        __version__,
        settings.revision.name,
        len(control.world.objects.services),
        len(control.world.objects.pods),
    )
    await stop.wait()
    await istiod.leading.writer.close()
    await tasks.cancel(*working)
    for server in reversed(servers):
        await (server.cleanup() if isinstance(server, web.AppRunner) else server.stop())
    await client.close()


def main(analysis: Child | None = None) -> None:
    """``analysis``: the analysis process, if it is already running."""
    logs.setup()
    try:
        asyncio.run(run(Settings.of(os.environ), analysis))
    except (KubeError, OSError, ValueError) as e:
        log.error("istiod cannot continue: %s", e)
        raise SystemExit(1) from None
