"""Wires up istiod: watch -> objects -> mesh -> views -> resources -> push; certificates; webhooks."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from functools import partial

from aiohttp import web

from lateen import __version__
from lateen.ads import listening, rpc
from lateen.ads.debug import NotAnswered, Questions, TokenServer
from lateen.api import kinds
from lateen.ca.authority import Refused
from lateen.control import controlz, relay, serving
from lateen.control.agents import Agents
from lateen.control.ca_service import CaService
from lateen.control.challenges import Challenges
from lateen.control.cookies import Cookies
from lateen.control.debug import Debug
from lateen.control.definitions import Definitions
from lateen.control.deployments import Deployments
from lateen.control.deployments import Istiod as Shown
from lateen.control.external import External, cluster_roots
from lateen.control.fetching import Fetcher
from lateen.control.findings import Child
from lateen.control.injection import Injector
from lateen.control.issuers import Issuers
from lateen.control.issuing import Issuing
from lateen.control.kept_keys import KeptKeys
from lateen.control.monitoring import Monitoring, Readiness
from lateen.control.plane import Control
from lateen.control.quotas import QuotaService
from lateen.control.remotes import Remotes
from lateen.control.renewing import Rights, expiry, readiness
from lateen.control.roots import Roots
from lateen.control.settings import Settings
from lateen.control.status import StatusWriter
from lateen.control.trust import Trust
from lateen.control.webhooks import Webhooks
from lateen.inject import deployment
from lateen.inject.deployment import reader
from lateen.kit import addresses, jsons, memory, tasks
from lateen.kit import log as logs
from lateen.kit.jsons import Json
from lateen.kube.client import Client, KubeError
from lateen.kube.informer import Informer, Key
from lateen.kube.kubeconfig import in_cluster
from lateen.mesh import workloads
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
        self,
        settings: Settings,
        client: Client,
        roots: Roots,
        control: Control,
        analysis: Child | None = None,
    ) -> None:
        """``analysis``: the analysis process, if it is already running."""
        self.settings, self.client, self.roots, self.control = settings, client, roots, control
        self.readiness = Readiness()
        self._learned = False
        """Whether the additional trusted roots are known."""
        authority = roots.authority
        self.trust = Trust(
            client,
            settings.revision,
            lambda: authority.told,
            lambda: list(self._namespaces().values()) if self.leads else None,
            roots.distributed,
            control.measures,
            settings.namespace,
            control.world.revisions,
        )
        self.remotes = Remotes(
            control.world.clusters, settings.cluster.name, settings.namespace, self.trust.teller, self.trust.wake
        )
        self.trust.others, self.trust.unread = self.remotes.tellers, self.remotes.unread
        control.world.clusters.joined = self.remotes.joined
        control.world.clusters.happened = self._elsewhere
        self.certificate = serving.Certificate(authority, settings.host_names, settings.identity)
        roots.changed += [self.certificate.replace, self.trust.wake]
        roots.measure(control.measures)
        self.external = External(client, settings.signers, self._roots_of) if settings.signers else None
        self.ca = CaService(
            client,
            authority,
            settings.trust_domain,
            settings.certificate_ttl,
            self.external,
            control.measures,
            control.registrar.admits,
            lambda: control.world.objects.config.transport.aliases,
            self._described,
            control.world.clusters,
        )
        self.debug = Debug(control, roots)
        me = {"Component": "istiod", "ID": settings.pod, "Info": {"version": __version__}}
        self.questions = control.ads.questions = Questions(self.debug.answer, jsons.dumps(me).decode())
        self.agents = Agents(self.ca, control.sides.of, control.registrar)
        self.injector = Injector(
            control.mesh,
            lambda: control.world.mesh_config.accepted,
            settings.namespace,
            settings.revision,
            settings.proxy_image,
            settings.native_sidecars,
            control.world.accepted,
        )
        self.hooks = Webhooks(
            self.injector,
            control.newest,
            settings.revision.config_map,
            control.measures,
            lambda: control.world.foreign,
        )
        self.writer = StatusWriter(
            client,
            control.world,
            control.ads,
            control.patching,
            control.mesh,
            lambda: control.offered,
            settings.namespace,
            settings.pod,
            control.credentials.readable,
            control.missing,
            analysis,
        )
        for code, gauge in control.measures.conflicts.items():
            gauge.read = partial(self._having, code)
        self.quotas = QuotaService(
            lambda namespace, name: control.world.objects.backend_traffic_policies.get((namespace, name)),
            control.ads,
            str(settings.identity),
            self._leader,
            relay.Channels(
                lambda address: relay.channel(address, self.certificate, settings.host_names[0]),
                lambda: self.certificate.pair.certificate,
            ).to,
        )
        self.cookies = Cookies(client, settings.namespace)
        self.writer.leadership.changed = self.quotas.changed
        control.registrar.leads, control.registrar.lives = (lambda: self.leads), self.writer.lives
        control.measures.quota_buckets.read = lambda: {(): len(self.quotas.quotas)}
        control.measures.quota_requests.read = self.quotas.requests
        self.deployments = Deployments(
            client,
            self.injector,
            Shown(settings.namespace, settings.service_account, reader(settings.revision)),
            control.world.writes,
            lambda: self.writer.leadership.held,
            settings.deploys_gateways,
        )
        self.writer.leadership.gained += [self.deployments.everything, roots.wake, self.trust.wake]
        self.writer.undeployed, self.deployments.told = self.deployments.problems, self.writer.gateway
        self.kept_keys = KeptKeys(client, settings.namespace, lambda: control.keys.latest, lambda: self.leads)
        self.informers = [
            Informer(client, kind, self._changed, optional=kind.group in kinds.OTHERS) for kind in kinds.watched()
        ]
        control.world.held = lambda: [(i.kind, i.objects) for i in self.informers]
        self.definitions = Definitions(client, control.world.define, self._lend)
        fetcher = Fetcher(partial(addresses.refused, blocked=settings.fetching.blocked))
        self.challenges = Challenges(client, settings.namespace, control.answers)
        self.issuing = Issuing(
            client,
            control.world,
            Issuers(client, settings.namespace, fetcher, self.challenges),
            Rights(settings.namespace, settings.service_account, deployment.writer(settings.revision)),
            lambda: self.leads,
            self._status_of,
            self.writer.pushed,
        )
        states = self.writer.issued = self.issuing.states
        control.measures.server_expiry.read = lambda: expiry(states, "notAfter")
        control.measures.server_renewal.read = lambda: expiry(states, "renewalTime")
        control.measures.server_ready.read = lambda: readiness(states)
        self.writer.leadership.gained.append(self._issue)
        self.writer.informers = self.informers
        control.world.moved += [self.writer.moved, self.deployments.moved, lambda _: self.issuing.wake()]
        control.credentials.changed = self._secret_changed
        control.keys.reported = control.modules.reported = self.writer.pushed
        control.changed = self._pushed

    @property
    def leads(self) -> bool:
        return self.writer.leadership.held

    def _changed(self, kind: kinds.Kind, key: Key, old: Json | None, new: Json | None) -> None:
        tasks.tell((self.injector.changed, self.control.registrar.changed), kind, key, new)
        tasks.tell((self.control.world.changed, self.writer.changed, self.deployments.changed), kind, key, old, new)
        if kind is kinds.NAMESPACE and new is not None and self._learned:
            tasks.spawn(self.trust.namespace(new), "root certificates")
        elif kind is kinds.CONFIG_MAP and self.leads and self.trust.altered(key, new):
            for space in (n for k, n in self._namespaces().items() if k[1] == key[0]):
                tasks.spawn(self.trust.namespace(space), "root certificates")

    def _elsewhere(self, cluster: str, kind: kinds.Kind, key: Key, new: Json | None) -> None:
        tasks.tell((self.injector.elsewhere, self.remotes.happened), cluster, kind, key, new)

    def _secret_changed(self, kind: kinds.Kind, key: Key, old: Json | None, new: Json | None) -> None:
        self.writer.changed(kind, key, old, new)
        self.issuing.secret(*key)
        if key[0] == self.settings.namespace:
            self.roots.secret(key[1], new)
            self.control.world.clusters.secret(key[1], new)

    def _lend(self, foreign: frozenset[kinds.Kind]) -> None:
        self.control.world.foreign = foreign
        self.issuing.wake()

    def _issue(self) -> None:
        """Issue certificates as the leader, starting with cleaning up after the predecessor."""
        tasks.spawn(tasks.until_done(self.challenges.clear, "challenges"), "challenges")
        self.issuing.wake()

    def _status_of(self, ref: kinds.Ref) -> Json:
        found = next((i.objects for i in self.informers if i.kind.id == ref.group_kind), {})
        return dict(found.get((ref.namespace, ref.name), {}).get("status") or {})

    def _namespaces(self) -> dict[Key, Json]:
        return next(i.objects for i in self.informers if i.kind is kinds.NAMESPACE)

    def _roots_of(self, signer: str) -> str:
        """The roots that verify certificates of an external signer; an empty name: of any."""
        anchors = self.control.world.mesh_config.settings.trust.anchors
        found = [a.pem for a in anchors if not (signer and a.signers) or signer in a.signers]
        asked = signer or (self.settings.signers.default if self.settings.signers else "")
        return "".join([*found, cluster_roots() if asked.startswith("kubernetes.io/") else ""])

    def _pushed(self) -> None:
        self.roots.also(self._roots_of(""), self.control.world.mesh_config.settings.trust.domains)
        self.agents.changed()
        self.issuing.wake()
        self.writer.pushed()
        self.deployments.listeners(self.control.mesh().added_ports())
        self.quotas.changed()
        if self.control.mesh().has_logins():
            self.cookies.wanted()

    def _described(self, cluster: str, namespace: str, name: str) -> str:
        objects = self.control.world.objects
        there = objects.others.get(cluster) if cluster else objects
        pod = there.pods.get((namespace, name)) if there else None
        return workloads.said(pod, cluster or self.control.mesh().cluster.name)

    def _having(self, code: str) -> dict[tuple[str, ...], float]:
        return {(): self.writer.having(code)}

    def _leader(self) -> str | None:
        """The address of the istiod that holds the lease, if it is another one."""
        lease = self.writer.leadership
        pod = self.control.world.objects.pods.get((self.settings.namespace, lease.holder))
        another = lease.holder != self.settings.pod and not lease.held
        return pod.address if another and pod is not None and pod.address else None

    async def learn(self) -> None:
        """Wait for everything that proxies may depend on. Raises TimeoutError."""
        memory.settle()  # these objects are long-lived: exempt them from cyclic garbage collection
        for informer in self.writer.informers:
            tasks.spawn(informer.run(), f"informer {informer.kind.plural}")
        secrets = self.control.credentials.follow(self.settings.namespace)
        async with asyncio.timeout(SYNC_S):
            await asyncio.gather(*(i.synced.wait() for i in self.informers), secrets.wait())
            await self.control.world.clusters.learn(CLUSTERS_S)
            await self.definitions.look()
        self._learned = True
        tasks.spawn(tasks.forever(self.definitions.run, "definitions"), "definitions")
        self.roots.also(self._roots_of(""), self.control.world.mesh_config.settings.trust.domains)
        for space in self._namespaces().values():
            tasks.spawn(self.trust.namespace(space), "root certificates")
        self.control.keys.former = await self.kept_keys.read()
        await self.control.fetch(FETCHING_S)
        memory.settle()

    async def serve(self) -> list[web.AppRunner | listening.Server]:
        """Open all ports; the servers must be closed in reverse order."""
        memory.bound_connections()
        to_agents = [
            web.post("/certificates", self.ca.sign),
            web.post("/roots", self.ca.roots),
            web.post("/names", self.agents.names),
            web.post("/bootstrap", self.agents.bootstrap),
            web.post("/probe", self.agents.probe),
            web.post("/health", self.agents.health),
        ]
        monitoring = Monitoring(self.control, self.ca, self.readiness, self.debug)
        self.quotas.begin()
        return [
            await serving.http(to_agents, ports.CA, self.certificate.asking),
            await serving.http(self.hooks.routes(), ports.WEBHOOK, self.certificate.context),
            await serving.http(monitoring.routes(), ports.MONITORING, None),
            await serving.http(controlz.routes(), ports.CONTROLZ, None, "127.0.0.1"),
            await serving.xds(self.certificate, self.control.ads.accept, self.quotas.accept),
            await serving.debug_xds(TokenServer(self._whose, self.questions), self.certificate),
        ]

    async def _whose(self, token: str) -> str:
        try:
            return str(await self.ca.whose(token))
        except Refused as e:
            raise NotAnswered(rpc.Status.UNAUTHENTICATED, str(e)) from None
        except (KubeError, OSError) as e:
            raise NotAnswered(rpc.Status.UNAVAILABLE, f"the token cannot be verified at the moment: {e}") from None

    def work(self) -> list[asyncio.Task[None]]:
        """The tasks that run until istiod exits."""
        control = self.control
        return [
            tasks.spawn(control.world.accepted.keep(self.client), "configuration in effect"),
            tasks.spawn(control.push_loop(), "push"),
            tasks.spawn(tasks.forever(control.registrar.sweep, "sweep"), "sweep"),
            tasks.spawn(tasks.forever(control.world.end_taps, "taps of bodies"), "taps of bodies"),
            tasks.spawn(tasks.forever(self.writer.run, "status"), "status"),
            tasks.spawn(tasks.forever(self.certificate.renew, "server certificate"), "server certificate"),
            tasks.spawn(tasks.forever(self.roots.run, "certificate authority"), "certificate authority"),
            tasks.spawn(tasks.forever(self.trust.run, "root certificates"), "root certificates"),
            tasks.spawn(tasks.forever(self.kept_keys.run, "keys of issuers"), "keys of issuers"),
            tasks.spawn(tasks.forever(self.quotas.run, "quotas"), "quotas"),
            tasks.spawn(tasks.forever(self.issuing.run, "certificates"), "certificates"),
            tasks.spawn(tasks.forever(self.deployments.run, "deployments"), "deployments"),
        ]

    async def announce(self) -> None:
        """Set the webhooks' CA bundle; this may take a few attempts while the cluster starts."""
        while True:
            try:
                return await self.trust.webhooks()
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
    roots = Roots(client, settings.namespace, settings.trust_domain, settings.ca, lambda: istiod.leads)
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
    await istiod.writer.close()
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
