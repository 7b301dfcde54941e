"""The certificate authority of a running istiod: which CA is wanted, what is in effect, and who has to know.

What is in effect is kept in the Secret ``lateen-ca``, by which all replicas go. The leader alone takes the next step
(``ca.rotation``), and makes a new self-signed root in time before the present one expires, or when it is asked to. A
wanted CA that cannot be used changes nothing: ``problem`` says why.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from lateen.api import kinds
from lateen.ca import revocation, rotation, signer
from lateen.ca.authority import ROOT_CONFIG_MAP, Authority, Domains, Told
from lateen.ca.rotation import PACE, Pace, State
from lateen.ca.signer import KEPT_BACK, PLUGGED, RECORD, SELF_SIGNED, Signer, Unusable
from lateen.control.measures import Measures
from lateen.kit import certs, tasks, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError, Unreachable

log = logging.getLogger("lateen.control.roots")

RECORD_KEY = "state.json"
ASKED = "lateen.dev/rotate"
"""The annotation of the record whose value, when it changes, asks for a new self-signed root."""
DISTRUSTED = "lateen.dev/distrust"
"""The annotation with the fingerprint of a former root that is not to be trusted any more."""
RETRY_S = 5.0


@dataclass(frozen=True)
class Settings:
    pace: Pace = PACE
    root_ttl: timedelta = timedelta(days=3650)
    check: timedelta = timedelta(hours=1)
    """How often it is checked whether the self-signed root has to be replaced."""
    grace_percent: float = 20.0
    """A self-signed root is replaced when less than this share of its lifetime is left."""
    jitter: bool = True


DEFAULTS = Settings()


class Roots:
    def __init__(
        self, client: Client, namespace: str, trust_domain: str, settings: Settings, leads: Callable[[], bool]
    ) -> None:
        """``leads``: whether this istiod may take the next step."""
        self._client, self._namespace, self._trust_domain = client, namespace, trust_domain
        self._settings, self._leads = settings, leads
        self._secrets: dict[str, Json] = {}
        self._woken = asyncio.Event()
        self.authority: Authority
        self.problem = ""
        """What is wrong with the CA that is wanted."""
        self._unlisted = ""
        """What is wrong with the revocation lists that are wanted."""
        self._everywhere: Told | None = None
        """What everybody has been told, of the present state."""
        self._unknown = ""
        """Why not everybody has."""
        self._foreign: datetime | None = None
        """Since when the record is not what is in effect, and has to be written anew by the leader."""
        self.changed: list[Callable[[], None]] = []
        """Called when what is trusted, or what signs, has changed."""

    # --- what is known ---------------------------------------------------------------------------------------------

    def secret(self, name: str, new: Json | None) -> None:
        """An event of a Secret of istiod's namespace."""
        if name not in KEPT_BACK:
            return
        if new is None:
            self._secrets.pop(name, None)
        else:
            self._secrets[name] = new
            if name == RECORD:
                self._adopt_record()
        self.wake()

    def also(self, others: str, domains: Domains = ()) -> None:
        """Trust roots of others (PEM), from now on; ``domains``: see ``Authority``."""
        if (others, domains) != (self.authority.others, self.authority.domains):
            self.authority.others, self.authority.domains = others, domains
            self._tell()

    def distributed(self, told: Told, problem: str) -> None:
        """This has been told to everybody; ``problem``: not yet, and why."""
        self._unknown = problem
        if not problem and told != self._everywhere:
            self._everywhere = told
            self.wake()

    def _tell(self) -> None:
        log.info("%d root certificates are trusted now", len(certs.split(self.authority.root)))
        tasks.tell(self.changed)

    def wake(self) -> None:
        self._woken.set()

    def _adopt_record(self) -> None:
        present = self.authority.state
        try:
            found = rotation.load(signer.decoded(self._secrets.get(RECORD, {})).get(RECORD_KEY, ""))
            if present.signer.end > times.now():
                signer.check(found.signer, times.now())
        except ValueError as e:
            log.error("Secret %s is not used, the former state stays in force: %s", RECORD, e)
            self._foreign = times.now()
            return
        taken = rotation.adopted(present, found)
        self._foreign = None if taken == found else times.now()
        if self._foreign:
            log.warning("Secret %s was written by somebody else: its root is trusted, but signs nothing yet", RECORD)
        self._adopt(taken)

    def _adopt(self, state: State) -> None:
        before, self.authority.state = self.authority.state, state
        if _told(before) == _told(state):
            return
        if before.signer != state.signer:
            log.info("certificates are signed by %s now", _named(state.signer))
        self._everywhere = None
        self._tell()

    def measure(self, m: Measures) -> None:
        """When the root and the chain under it expire, and how it stands with them."""

        def left(at: datetime) -> float:
            return at.timestamp() - times.now().timestamp()

        m.root_expiry.read = lambda: {(): rotation.roots_expire(self.authority.state).timestamp()}
        m.root_left.read = lambda: {(): left(rotation.roots_expire(self.authority.state))}
        m.chain_expiry.read = lambda: {(): self.authority.state.signer.end.timestamp()}
        m.chain_left.read = lambda: {(): left(self.authority.state.signer.end)}
        m.trusted_roots.read = lambda: {(): len(self.authority.state.trusted)}
        m.ca_problem.read = lambda: {(): int(bool(self._all_problems()))}

    def status(self) -> Json:
        """For ``lateen check`` and ``lateen x ca status``; nothing of it is secret."""
        state = self.authority.state
        wanted = self._wanted()
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

    def _all_problems(self) -> str:
        crl, why = self.authority.lists
        ends = revocation.ends(revocation.split(crl))
        if ends is not None and ends - times.now() < revocation.SOON:
            why = f"a revocation list expires at {ends:%Y-%m-%d %H:%M} UTC, and then nobody accepts anything by it"
        return self.problem or self._unknown or why

    def _revocation(self) -> Json:
        """How many lists are in effect, how many certificates are on them, and when the first of them expires."""
        lists = revocation.split(self.authority.lists[0])
        ends = revocation.ends(lists)
        return {"lists": len(lists), "revoked": revocation.count(lists), "end": times.stamp(ends) if ends else None}

    # --- the start -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make or read the authority. Raises Unusable, KubeError, OSError."""
        while True:
            for name in KEPT_BACK:
                found = await self._client.get(kinds.SECRET, self._namespace, name)
                if found is not None:
                    self._secrets[name] = found
            if (state := self._recorded()) is not None or (state := await self._begun()) is not None:
                self.authority = Authority(state)
                return

    def _recorded(self) -> State | None:
        if RECORD not in self._secrets:
            return None
        try:
            return rotation.load(signer.decoded(self._secrets[RECORD]).get(RECORD_KEY, ""))
        except ValueError as e:
            raise Unusable(f"Secret {RECORD}: {e}; restore it, or delete it to begin with the CA that is wanted") from e

    async def _begun(self) -> State | None:
        """The first state; None if another istiod was faster."""
        if PLUGGED not in self._secrets and SELF_SIGNED not in self._secrets and not await self._make_root():
            return None
        name = PLUGGED if PLUGGED in self._secrets else SELF_SIGNED
        wanted = self._with_lists(signer.read(signer.decoded(self._secrets[name]), name, times.now()), "")
        state = rotation.begin(wanted, _now(), self._settings.pace, await self._distributed())
        meta = {"name": RECORD, "namespace": self._namespace}
        body = {"apiVersion": "v1", "kind": "Secret", "type": "istio.io/ca-root", "metadata": meta}
        try:
            self._secrets[RECORD] = await self._client.create(kinds.SECRET, {**body, "data": _record(state)})
        except KubeError as e:
            if e.code != 409:
                raise
            return None
        return state

    async def _distributed(self) -> tuple[str, ...]:
        """The roots that proxies trust by what was distributed before."""
        found = await self._client.get(kinds.CONFIG_MAP, self._namespace, ROOT_CONFIG_MAP)
        try:
            return certs.split(str(dig(found or {}, "data", "root-cert.pem", default="")))
        except ValueError:
            return ()

    # --- step by step ----------------------------------------------------------------------------------------------

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
                    self._adopt_record()  # the leader has not written another one, and by now everybody knows its root
                wanted = self._wanted() or self.authority.state.signer
                at = rotation.due(self.authority.state, wanted, times.now(), self._settings.pace)
                wait = min(wait, (at - times.now()).total_seconds() + 1) if at else wait
            except (KubeError, Unreachable, OSError) as e:
                log.warning("the certificate authority stays as it is for now: %s", e)
                wait = RETRY_S
            try:
                async with asyncio.timeout(max(wait, 1.0)):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()

    async def advance(self) -> None:
        """One step, if one is due. Raises KubeError, OSError."""
        state = self.authority.state
        if (told := self._everywhere) is not None:
            state = rotation.announced(state, certs.split(told.root), _now(), told.crl)
        asked, distrusted = self._note(ASKED), self._note(DISTRUSTED)
        if PLUGGED in self._secrets:
            state = replace(state, follows=PLUGGED)
        elif asked or (state.follows == SELF_SIGNED and self._root_expires()):
            if not await self._make_root(asked):
                return
            state = replace(state, follows=SELF_SIGNED)
        wanted = self._wanted(state)
        if distrusted:
            state = rotation.distrust(state, distrusted, _now())
        state = rotation.step(state, wanted or state.signer, _now(), self._settings.pace)
        if state != self.authority.state or RECORD not in self._secrets or self._foreign or asked or distrusted:
            await self._keep(state)

    def _note(self, name: str) -> str:
        """An annotation of the record, which is removed with the state in which it has been met."""
        return str(dig(self._secrets.get(RECORD, {}), "metadata", "annotations", name, default=""))

    def _root_expires(self) -> bool:
        """Whether the self-signed root is about to, or is not there at all."""
        if SELF_SIGNED not in self._secrets:
            return True
        try:
            found = signer.read(signer.decoded(self._secrets[SELF_SIGNED]), SELF_SIGNED, times.now())
        except Unusable as e:
            log.error("a new root certificate is made, because the present one cannot be used: %s", e)
            return True
        start, end = certs.validity(found.anchor)
        return end - times.now() < (end - start) * (self._settings.grace_percent / 100)

    def _wanted(self, state: State | None = None) -> Signer | None:
        """None, and ``problem``, if it cannot be used."""
        follows = PLUGGED if PLUGGED in self._secrets else (state or self.authority.state).follows
        try:
            if follows not in self._secrets:
                raise Unusable(f"Secret {follows} is gone")
            found = signer.read(signer.decoded(self._secrets[follows]), follows, times.now())
            present = self.authority.state.signer
            found = self._with_lists(found, present.crl if present.source == found.source else "")
        except Unusable as e:
            self._trouble(f"{e}; {self._meanwhile()}")
            return None
        self._trouble(self._unlisted)
        return found

    def _with_lists(self, found: Signer, former: str) -> Signer:
        """With its revocation lists. Ones that cannot be used keep nobody from the CA that they came with: the former
        ones stay, since nobody meant to revoke less."""
        self._unlisted = ""
        if not found.crl:
            return found
        try:
            crl = revocation.usable(found.crl, times.now())
            if why := revocation.without(revocation.split(crl), found.path[1:]):
                raise ValueError(why)
        except ValueError as e:
            self._unlisted = f"{found.source}/{revocation.KEY} is not used: {e}"
            return replace(found, crl=former)
        return replace(found, crl=crl)

    def _meanwhile(self) -> str:
        end = self.authority.state.signer.end
        if end > times.now():
            return f"the former CA stays in use until {end:%Y-%m-%d %H:%M} UTC"
        return f"the former CA has expired at {end:%Y-%m-%d %H:%M} UTC, so that no certificates are issued"

    def _trouble(self, problem: str) -> None:
        if problem and problem != self.problem:
            log.error("what is wanted of the certificate authority is not done: %s", problem)
        self.problem = problem

    async def _make_root(self, asked: str = "") -> bool:
        """Write a new self-signed root, once for each request; False if another istiod was faster."""
        before = self._secrets.get(SELF_SIGNED)
        if before and asked and dig(before, "metadata", "annotations", ASKED, default="") == asked:
            return True
        days = self._settings.root_ttl / timedelta(days=1)
        pair = certs.authority("", times.now(), days, organization=self._trust_domain)
        data = _encoded({"ca-cert.pem": pair.certificate, "ca-key.pem": pair.key})
        meta: Json = {"name": SELF_SIGNED, "namespace": self._namespace, "annotations": {ASKED: asked} if asked else {}}
        body = {"apiVersion": "v1", "kind": "Secret", "type": "istio.io/ca-root", "metadata": meta, "data": data}
        try:
            if before:
                notes = dig(before, "metadata", "annotations", default={}) | meta["annotations"]
                changed = {**before, "metadata": {**before["metadata"], "annotations": notes}, "data": data}
                made = await self._client.update(kinds.SECRET, changed)
            else:
                made = await self._client.create(kinds.SECRET, body)
        except KubeError as e:
            if e.code != 409:
                raise
            return False
        self._secrets[SELF_SIGNED] = made
        log.info("made a new root certificate (secret %s)", SELF_SIGNED)
        return True

    async def _keep(self, state: State) -> None:
        """Nothing takes effect before it is kept: after a crash, the next istiod goes on where this one was."""
        before = self._secrets.get(RECORD)
        if before is None:
            meta = {"name": RECORD, "namespace": self._namespace}
            body = {"apiVersion": "v1", "kind": "Secret", "type": "istio.io/ca-root", "metadata": meta}
            made = await self._client.create(kinds.SECRET, {**body, "data": _record(state)})
        else:
            notes = dig(before, "metadata", "annotations", default={})
            left = {k: v for k, v in notes.items() if k not in (ASKED, DISTRUSTED)}
            changed = {**before, "metadata": {**before["metadata"], "annotations": left}, "data": _record(state)}
            made = await self._client.update(kinds.SECRET, changed)
        self._secrets[RECORD] = made
        self._foreign = None
        self._adopt(state)


def _told(state: State) -> tuple[object, ...]:
    """What others have to know of a state."""
    return state.bundle, state.signer, tuple((x.ca, x.crl) for x in state.lists)


def _now() -> datetime:
    """In whole seconds, as it is kept."""
    return times.now().replace(microsecond=0)


def _named(found: Signer) -> str:
    return f"{found.source} ({certs.fingerprint(found.pair.certificate)[:16]}, until {found.end:%Y-%m-%d})"


def _shown(certificate: str) -> Json:
    return {
        "fingerprint": certs.fingerprint(certificate),
        "subject": certs.subject(certificate),
        "end": times.stamp(certs.validity(certificate)[1]),
    }


def _encoded(data: dict[str, str]) -> dict[str, str]:
    return {k: base64.b64encode(v.encode()).decode() for k, v in data.items()}


def _record(state: State) -> dict[str, str]:
    return _encoded({RECORD_KEY: rotation.dump(state)})
