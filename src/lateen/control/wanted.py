"""The desired CA, by the Secrets in istiod's namespace: a plugged-in CA, otherwise a self-signed root, which is created
if missing, in time before the current one expires, and on request."""

from __future__ import annotations

import base64
import logging
from dataclasses import dataclass, replace
from datetime import timedelta

from lateen.api import kinds
from lateen.ca import revocation, signer
from lateen.ca.rotation import PACE, Pace, State
from lateen.ca.signer import KEPT_BACK, PLUGGED, RECORD, SELF_SIGNED, Signer, Unusable
from lateen.kit import certs, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError

log = logging.getLogger("lateen.control.wanted")

ASKED = "lateen.dev/rotate"
"""The record's annotation that requests a new self-signed root when its value changes."""
DISTRUSTED = "lateen.dev/distrust"
"""The record's annotation with the fingerprint of a former root that should no longer be trusted."""


@dataclass(frozen=True)
class Settings:
    pace: Pace = PACE
    root_ttl: timedelta = timedelta(days=3650)
    check: timedelta = timedelta(hours=1)
    """The interval of checks whether the self-signed root has to be replaced."""
    grace_percent: float = 20.0
    """A self-signed root is replaced when less than this share of its lifetime is left."""
    jitter: bool = True
    hosts: tuple[str, ...] = ()
    """The DNS names of istiod, whose certificate the CA signs."""


DEFAULTS = Settings()


class Wanted:
    def __init__(self, client: Client, namespace: str, trust_domain: str, settings: Settings) -> None:
        self._client, self._namespace, self._trust_domain = client, namespace, trust_domain
        self._settings = settings
        self.secrets: dict[str, Json] = {}
        """The CA's Secrets by name, including the record of the effective state."""
        self.problem = ""
        """The problem of the desired CA."""
        self._unlisted = ""
        """The problem of the desired revocation lists."""

    async def read(self) -> None:
        """Raises KubeError, OSError."""
        for name in KEPT_BACK:
            found = await self._client.get(kinds.SECRET, self._namespace, name)
            if found is not None:
                self.secrets[name] = found

    async def first(self) -> Signer | None:
        """The first signer of a mesh; None if another istiod was faster. Raises Unusable, KubeError, OSError."""
        if PLUGGED not in self.secrets and SELF_SIGNED not in self.secrets and not await self.make_root():
            return None
        name = PLUGGED if PLUGGED in self.secrets else SELF_SIGNED
        return self.with_lists(self._read(name), "")

    def _read(self, name: str) -> Signer:
        """Raises Unusable."""
        data = signer.decoded(self.secrets[name])
        return signer.read(data, name, times.now(), self._trust_domain, self._settings.hosts)

    def note(self, name: str) -> str:
        """An annotation of the record, which is removed when the state that fulfils it is stored."""
        return str(dig(self.secrets.get(RECORD, {}), "metadata", "annotations", name, default=""))

    def root_expires(self) -> bool:
        """Whether the self-signed root is about to expire, or is missing."""
        if SELF_SIGNED not in self.secrets:
            return True
        try:
            found = self._read(SELF_SIGNED)
        except Unusable as e:
            log.error("a new root certificate is made, because the current one cannot be used: %s", e)
            return True
        start, end = certs.validity(found.anchor)
        return end - times.now() < (end - start) * (self._settings.grace_percent / 100)

    def signer(self, state: State) -> Signer | None:
        """The desired signer for a state; None, with ``problem`` set, if it cannot be used."""
        follows = PLUGGED if PLUGGED in self.secrets else state.follows
        try:
            if follows not in self.secrets:
                raise Unusable(f"Secret {follows} is gone")
            found = self._read(follows)
            present = state.signer
            found = self.with_lists(found, present.crl if present.source == found.source else "")
        except Unusable as e:
            self._trouble(f"{e}; {_meanwhile(state.signer)}")
            return None
        self._trouble(self._unlisted)
        return found

    def with_lists(self, found: Signer, former: str) -> Signer:
        """The signer with its revocation lists. Invalid lists do not block the CA they came with: the former lists stay
        in use, so that nothing is un-revoked."""
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

    def _trouble(self, problem: str) -> None:
        if problem and problem != self.problem:
            log.error("the configured certificate authority is not in effect: %s", problem)
        self.problem = problem

    async def make_root(self, asked: str = "") -> bool:
        """Write a new self-signed root, once for each request; False if another istiod was faster."""
        before = self.secrets.get(SELF_SIGNED)
        if before and asked and dig(before, "metadata", "annotations", ASKED, default="") == asked:
            return True
        days = self._settings.root_ttl / timedelta(days=1)
        pair = certs.authority("", times.now(), days, organization=self._trust_domain)
        data = encoded({"ca-cert.pem": pair.certificate, "ca-key.pem": pair.key})
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
        self.secrets[SELF_SIGNED] = made
        log.info("made a new root certificate (secret %s)", SELF_SIGNED)
        return True


def _meanwhile(present: Signer) -> str:
    end = present.end
    if end > times.now():
        return f"the previous CA stays in use until {end:%Y-%m-%d %H:%M} UTC"
    return f"the previous CA expired at {end:%Y-%m-%d %H:%M} UTC, so that no certificates are issued"


def encoded(data: dict[str, str]) -> dict[str, str]:
    return {k: base64.b64encode(v.encode()).decode() for k, v in data.items()}
