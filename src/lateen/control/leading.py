"""What the istiod that holds the lease does for all of them: statuses, deployments of gateways, servers'
certificates, global quotas, keys that outlive a restart. The components, wired."""

from __future__ import annotations

from functools import partial

from lateen.api import kinds
from lateen.control import relay
from lateen.control.challenges import Challenges
from lateen.control.cookies import Cookies
from lateen.control.deployments import Deployments, Istiod
from lateen.control.fetching import Fetcher
from lateen.control.findings import Child
from lateen.control.identities import Identities
from lateen.control.injection import Injector
from lateen.control.issuers import Issuers
from lateen.control.issuing import Issuing
from lateen.control.kept_keys import KeptKeys
from lateen.control.plane import Control
from lateen.control.quotas import QuotaService
from lateen.control.renewing import Rights, expiry, readiness
from lateen.control.settings import Settings
from lateen.control.status import StatusWriter
from lateen.control.statuses import Statuses
from lateen.inject.deployment import reader, writer
from lateen.kit import addresses, tasks
from lateen.kit.jsons import Json
from lateen.kube.client import Client
from lateen.kube.informer import Informer, Key


class Leading:
    """Every istiod has these components, ready to take over; ``held`` says whether they act."""

    def __init__(
        self, settings: Settings, client: Client, control: Control, injector: Injector, analysis: Child | None
    ) -> None:
        """``analysis``: the analysis process, if it is already running."""
        self._settings, self._client, self._control = settings, client, control
        self.statuses = Statuses(
            control.world, control.ads, control.patching, control.mesh, lambda: control.offered, control.missing
        )
        self.writer = StatusWriter(
            client,
            control.world,
            self.statuses,
            settings.namespace,
            settings.pod,
            control.credentials.readable,
            analysis,
        )
        control.ads.answered = self.writer.answered
        self.deployments = Deployments(
            client,
            injector,
            Istiod(settings.namespace, settings.service_account, reader(settings.revision), settings.revision),
            control.world.writes,
            self.held,
            settings.deploys_gateways,
        )
        self.statuses.undeployed, self.deployments.told = self.deployments.problems, self.writer.gateway
        self.kept_keys = KeptKeys(client, settings.namespace, lambda: control.keys.latest, self.held)
        self.cookies = Cookies(client, settings.namespace)
        self.challenges = Challenges(client, settings.namespace, control.answers)
        self.issuing = Issuing(
            client,
            control.world,
            Issuers(
                client,
                settings.namespace,
                Fetcher(partial(addresses.refused, blocked=settings.fetching.blocked)),
                self.challenges,
            ),
            Rights(settings.namespace, settings.service_account, writer(settings.revision)),
            self.held,
            self._status_of,
            self.writer.pushed,
        )
        self.statuses.issued = self.issuing.states
        self.writer.leadership.gained += [self.deployments.everything, self._issue]
        control.registrar.leads, control.registrar.lives = self.held, self.writer.lives
        control.world.moved += [self.writer.moved, self.deployments.moved, lambda _: self.issuing.wake()]
        control.keys.reported = control.modules.reported = self.writer.pushed
        self._measure()

    def serve(self, identities: Identities) -> QuotaService:
        """The service that distributes global quotas: the leader's, to which other istiods pass requests on."""
        self.writer.leadership.gained += [identities.trust.wake]
        control, certificate = self._control, identities.certificate
        service = QuotaService(
            lambda namespace, name: control.world.objects.backend_traffic_policies.get((namespace, name)),
            control.ads,
            str(self._settings.identity),
            self._leader,
            relay.Channels(
                lambda address: relay.channel(address, certificate, self._settings.host_names[0]),
                lambda: certificate.pair.certificate,
            ).to,
        )
        self.writer.leadership.changed = service.changed
        control.measures.quota_buckets.read = lambda: {(): len(service.quotas)}
        control.measures.quota_requests.read = service.requests
        return service

    def held(self) -> bool:
        """Whether this istiod is the leader."""
        return self.writer.leadership.held

    def changed(self, kind: kinds.Kind, key: Key, old: Json | None, new: Json | None) -> None:
        """Handle an informer's event."""
        tasks.tell((self.writer.changed, self.deployments.changed), kind, key, old, new)

    def secret(self, kind: kinds.Kind, key: Key, old: Json | None, new: Json | None) -> None:
        """Handle an event of a Secret."""
        self.writer.changed(kind, key, old, new)
        self.issuing.secret(*key)

    def pushed(self) -> None:
        """Called after proxies have been offered another mesh."""
        self.issuing.wake()
        self.writer.pushed()
        mesh = self._control.mesh()
        self.deployments.listeners(mesh.added_ports())
        if mesh.has_logins():
            self.cookies.wanted()

    def _measure(self) -> None:
        measures, states = self._control.measures, self.issuing.states
        for code, gauge in measures.conflicts.items():
            gauge.read = partial(self._having, code)
        measures.server_expiry.read = lambda: expiry(states, "notAfter")
        measures.server_renewal.read = lambda: expiry(states, "renewalTime")
        measures.server_ready.read = lambda: readiness(states)

    def _having(self, code: str) -> dict[tuple[str, ...], float]:
        return {(): self.statuses.having(code)}

    def _issue(self) -> None:
        """Issue certificates as the leader, starting with cleaning up after the predecessor."""
        tasks.spawn(tasks.until_done(self.challenges.clear, "challenges"), "challenges")
        self.issuing.wake()

    def _status_of(self, ref: kinds.Ref) -> Json:
        informers: list[Informer] = self.statuses.informers
        found = next((i.objects for i in informers if i.kind.id == ref.group_kind), {})
        return dict(found.get((ref.namespace, ref.name), {}).get("status") or {})

    def _leader(self) -> str | None:
        """The address of the istiod that holds the lease, if it is another one."""
        lease = self.writer.leadership
        pod = self._control.world.objects.pods.get((self._settings.namespace, lease.holder))
        another = lease.holder != self._settings.pod and not lease.held
        return pod.address if another and pod is not None and pod.address else None
