"""The certificate authority of a running istiod: the desired CA, the effective state, and its distribution.

The effective state is stored in the Secret ``lateen-ca``, which all replicas follow. Only the leader takes the next
step (``ca.rotation``), and creates a new self-signed root in time before the current one expires, or on request. A
desired CA that cannot be used changes nothing: ``problem`` says why.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from lateen.api import kinds
from lateen.ca import revocation, rotation, signer
from lateen.ca.authority import ROOT_CONFIG_MAP, Authority, Domains, Told
from lateen.ca.rotation import State
from lateen.ca.signer import KEPT_BACK, PLUGGED, RECORD, SELF_SIGNED, Signer, Unusable
from lateen.control.measures import Measures
from lateen.control.telling import Reached
from lateen.control.wanted import ASKED, DISTRUSTED, Settings, Wanted, encoded
from lateen.kit import certs, tasks, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError, Unreachable

log = logging.getLogger("lateen.control.roots")

RECORD_KEY = "state.json"
RETRY_S = 5.0


class Roots:
    def __init__(
        self, client: Client, namespace: str, trust_domain: str, settings: Settings, leads: Callable[[], bool]
    ) -> None:
        """``leads``: whether this istiod may take the next step."""
        self._client, self._namespace = client, namespace
        self._settings, self._leads = settings, leads
        self._wanted = Wanted(client, namespace, trust_domain, settings)
        self._woken = asyncio.Event()
        self.authority: Authority
        self._everywhere: Told | None = None
        """The part of the current state that has been distributed everywhere."""
        self._unknown = ""
        """Why it has not been distributed everywhere."""
        self._foreign: datetime | None = None
        """Since when the record differs from the effective state and has to be rewritten by the leader."""
        self.changed: list[Callable[[], None]] = []
        """Called when the trusted roots or the signer have changed."""

    # --- inputs ---------------------------------------------------------------------------------------------

    def secret(self, name: str, new: Json | None) -> None:
        """Handle an event of a Secret in istiod's namespace."""
        if name not in KEPT_BACK:
            return
        if new is None:
            self._wanted.secrets.pop(name, None)
        else:
            self._wanted.secrets[name] = new
            if name == RECORD:
                self._adopt_record()
        self.wake()

    def also(self, others: str, domains: Domains = ()) -> None:
        """Set additional trusted roots (PEM); ``domains``: see ``Authority``."""
        if (others, domains) != (self.authority.others, self.authority.domains):
            self.authority.others, self.authority.domains = others, domains
            self._tell()

    def distributed(self, told: Told, reached: Reached) -> None:
        """Called when ``told`` was distributed, with its reach."""
        self._unknown = reached.problem or reached.refused
        if not reached.problem and told != self._everywhere:
            self._everywhere = told
            self.wake()

    def _tell(self) -> None:
        log.info("%d root certificates are now trusted", len(certs.split(self.authority.root)))
        tasks.tell(self.changed)

    def wake(self) -> None:
        self._woken.set()

    def _adopt_record(self) -> None:
        present = self.authority.state
        try:
            found = rotation.load(signer.decoded(self._wanted.secrets.get(RECORD, {})).get(RECORD_KEY, ""))
            if present.signer.end > times.now():
                signer.check(found.signer, times.now())
        except ValueError as e:
            log.error("Secret %s is not used; the previous CA stays in use: %s", RECORD, e)
            self._foreign = times.now()
            return
        taken = rotation.adopted(present, found)
        self._foreign = None if taken == found else times.now()
        if self._foreign:
            log.warning("Secret %s was not written by this istiod: its root is trusted, but does not sign yet", RECORD)
        self._adopt(taken)

    def _adopt(self, state: State) -> None:
        before, self.authority.state = self.authority.state, state
        if _told(before) == _told(state):
            return
        if before.signer != state.signer:
            log.info("certificates are now signed by %s", _named(state.signer))
        self._everywhere = None
        self._tell()

    def measure(self, m: Measures) -> None:
        """Set the metrics of the root and its chain."""

        def left(at: datetime) -> float:
            return at.timestamp() - times.now().timestamp()

        m.root_expiry.read = lambda: {(): rotation.roots_expire(self.authority.state).timestamp()}
        m.root_left.read = lambda: {(): left(rotation.roots_expire(self.authority.state))}
        m.chain_expiry.read = lambda: {(): self.authority.state.signer.end.timestamp()}
        m.chain_left.read = lambda: {(): left(self.authority.state.signer.end)}
        m.trusted_roots.read = lambda: {(): len(self.authority.state.trusted)}
        m.ca_problem.read = lambda: {(): int(bool(self._all_problems()))}

    def status(self) -> Json:
        """The state for ``lateen check`` and ``lateen x ca status``; it contains no secrets."""
        state = self.authority.state
        wanted = self._wanted.signer(self.authority.state)
        at = rotation.due(state, wanted or state.signer, times.now(), self._settings.pace)
        waits = wanted is not None and any(t.root == wanted.anchor and t.since is None for t in state.trusted)
        return {
            "source": state.signer.source,
            "signer": {**_shown(state.signer.pair.certificate), "end": times.stamp(state.signer.end)},
            "roots": [
                {
                    **_shown(t.root),
                    "signs": t.root == state.signer.anchor,
                    "since": times.stamp(t.since) if t.since else None,
                    "until": times.stamp(t.until) if t.until else None,
                }
                for t in state.trusted
            ],
            "next": _shown(wanted.pair.certificate) if wanted and wanted != state.signer else None,
            "nextAt": times.stamp(at) if at and not waits else None,
            "revocation": self._revocation(),
            "problem": self._all_problems(),
        }

    @property
    def problem(self) -> str:
        """The problem of the desired CA; empty if there is none."""
        return self._wanted.problem

    def _all_problems(self) -> str:
        crl, why = self.authority.lists
        ends = revocation.ends(revocation.split(crl))
        if ends is not None and ends - times.now() < revocation.SOON:
            why = f"a revocation list expires at {ends:%Y-%m-%d %H:%M} UTC; then its certificates are rejected"
        return self.problem or self._unknown or why

    def _revocation(self) -> Json:
        """The number of revocation lists, of certificates on them, and when the first list expires."""
        lists = revocation.split(self.authority.lists[0])
        ends = revocation.ends(lists)
        return {"lists": len(lists), "revoked": revocation.count(lists), "end": times.stamp(ends) if ends else None}

    # --- startup -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Create or read the authority. Raises Unusable, KubeError, OSError."""
        while True:
            await self._wanted.read()
            if (state := self._recorded()) is not None or (state := await self._begun()) is not None:
                self.authority = Authority(state)
                return

    def _recorded(self) -> State | None:
        if RECORD not in self._wanted.secrets:
            return None
        try:
            return rotation.load(signer.decoded(self._wanted.secrets[RECORD]).get(RECORD_KEY, ""))
        except ValueError as e:
            raise Unusable(f"Secret {RECORD}: {e}; restore it, or delete it to start with the configured CA") from e

    async def _begun(self) -> State | None:
        """The first state; None if another istiod was faster."""
        wanted = await self._wanted.first()
        if wanted is None:
            return None
        state = rotation.begin(wanted, _now(), self._settings.pace, await self._distributed())
        meta = {"name": RECORD, "namespace": self._namespace}
        body = {"apiVersion": "v1", "kind": "Secret", "type": "istio.io/ca-root", "metadata": meta}
        try:
            self._wanted.secrets[RECORD] = await self._client.create(kinds.SECRET, {**body, "data": _record(state)})
        except KubeError as e:
            if e.code != 409:
                raise
            return None
        return state

    async def _distributed(self) -> tuple[str, ...]:
        """The roots that proxies trust according to earlier distributions."""
        found = await self._client.get(kinds.CONFIG_MAP, self._namespace, ROOT_CONFIG_MAP)
        try:
            return certs.split(str(dig(found or {}, "data", "root-cert.pem", default="")))
        except ValueError:
            return ()

    # --- steps ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Never returns."""
        while True:
            wait = self._settings.check.total_seconds()
            if self._settings.jitter:
                wait *= random.uniform(0.5, 1.0)
            try:
                if self._leads():
                    await self.advance()
                elif self._foreign and times.now() - self._foreign >= self._settings.pace.announce:
                    self._adopt_record()  # the leader has not replaced the record; its root is known by now
                wanted = self._wanted.signer(self.authority.state) or self.authority.state.signer
                at = rotation.due(self.authority.state, wanted, times.now(), self._settings.pace)
                wait = min(wait, (at - times.now()).total_seconds() + 1) if at else wait
            except (KubeError, Unreachable, OSError) as e:
                log.warning("the certificate authority stays unchanged for now: %s", e)
                wait = RETRY_S
            try:
                async with asyncio.timeout(max(wait, 1.0)):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()

    async def advance(self) -> None:
        """Take a step if one is due. Raises KubeError, OSError."""
        state = self.authority.state
        if (told := self._everywhere) is not None:
            state = rotation.announced(state, certs.split(told.root), _now(), told.crl)
        asked, distrusted = self._wanted.note(ASKED), self._wanted.note(DISTRUSTED)
        if PLUGGED in self._wanted.secrets:
            state = replace(state, follows=PLUGGED)
        elif asked or (state.follows == SELF_SIGNED and self._wanted.root_expires()):
            if not await self._wanted.make_root(asked):
                return
            state = replace(state, follows=SELF_SIGNED)
        wanted = self._wanted.signer(state)
        if distrusted:
            state = rotation.distrust(state, distrusted, _now())
        state = rotation.step(state, wanted or state.signer, _now(), self._settings.pace)
        if state != self.authority.state or RECORD not in self._wanted.secrets or self._foreign or asked or distrusted:
            await self._keep(state)

    async def _keep(self, state: State) -> None:
        """Store a state before it takes effect: after a crash, the next istiod continues from it."""
        before = self._wanted.secrets.get(RECORD)
        if before is None:
            meta = {"name": RECORD, "namespace": self._namespace}
            body = {"apiVersion": "v1", "kind": "Secret", "type": "istio.io/ca-root", "metadata": meta}
            made = await self._client.create(kinds.SECRET, {**body, "data": _record(state)})
        else:
            notes = dig(before, "metadata", "annotations", default={})
            left = {k: v for k, v in notes.items() if k not in (ASKED, DISTRUSTED)}
            changed = {**before, "metadata": {**before["metadata"], "annotations": left}, "data": _record(state)}
            made = await self._client.update(kinds.SECRET, changed)
        self._wanted.secrets[RECORD] = made
        self._foreign = None
        self._adopt(state)


def _told(state: State) -> tuple[object, ...]:
    """The part of a state that has to be distributed."""
    return state.bundle, state.signer, tuple((x.ca, x.crl) for x in state.lists)


def _now() -> datetime:
    """The time in whole seconds, as it is stored."""
    return times.now().replace(microsecond=0)


def _named(found: Signer) -> str:
    return f"{found.source} ({certs.fingerprint(found.pair.certificate)[:16]}, until {found.end:%Y-%m-%d})"


def _shown(certificate: str) -> Json:
    return {
        "fingerprint": certs.fingerprint(certificate),
        "subject": certs.subject(certificate),
        "end": times.stamp(certs.validity(certificate)[1]),
    }


def _record(state: State) -> dict[str, str]:
    return encoded({RECORD_KEY: rotation.dump(state)})
