"""Workload certificates: the SPIFFE identity is taken from the caller's token, never from the request."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from lateen.ca import rotation
from lateen.ca.rotation import Pace, State
from lateen.ca.signer import self_signed
from lateen.kit import certs
from lateen.kit.certs import Pair
from lateen.kit.jsons import Json

DEFAULT_TTL = timedelta(hours=24)
MAX_TTL = timedelta(days=90)
ROOT_CONFIG_MAP = "istio-ca-root-cert"
AUDIENCE = "istio-ca"

_ACCOUNT = re.compile(r"system:serviceaccount:([a-z0-9-]+):([a-z0-9.-]+)$")


class Refused(Exception):
    """No certificate is issued; the message says why."""


@dataclass(frozen=True)
class Identity:
    trust_domain: str
    namespace: str
    service_account: str

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"


def parse(uri: str) -> Identity:
    """Raises ValueError."""
    m = re.match(r"spiffe://([^/]+)/ns/([^/]+)/sa/([^/]+)$", uri)
    if not m:
        raise ValueError(f'"{uri[:200]}" is not a workload identity')
    return Identity(m[1], m[2], m[3])


def identity(review: Json, trust_domain: str) -> Identity:
    """The identity of a token's bearer, from the API server. Raises Refused."""
    status = review.get("status") or {}
    if not status.get("authenticated") or AUDIENCE not in (status.get("audiences") or []):
        raise Refused(
            f"the token is not valid for the audience {AUDIENCE}: {status.get('error') or 'not authenticated'}"
        )
    m = _ACCOUNT.match(str((status.get("user") or {}).get("username", "")))
    if not m:
        raise Refused("the token is not that of a service account")
    return Identity(trust_domain, m[1], m[2])


class Authority:
    """Signs as the present state says; see ``rotation``."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.others = ""
        """Roots of others that are trusted, too (PEM)."""

    @classmethod
    def create(cls, now: datetime, trust_domain: str) -> Authority:
        """With a new self-signed root."""
        made = certs.authority("", now, organization=trust_domain)
        return cls(rotation.begin(self_signed(made), now, Pace()))

    @property
    def root(self) -> str:
        """The roots that are trusted, PEM; the first one is that under which it signs."""
        own = self.state.bundle
        return own + "".join(r for r in dict.fromkeys(certs.split(self.others)) if r not in own)

    def sign(self, csr: str, who: Identity, now: datetime, ttl: timedelta = DEFAULT_TTL) -> str:
        """A certificate with its chain, without the root. Raises Refused for an invalid request."""
        try:
            key = certs.requested_key(csr)
        except ValueError as e:
            raise Refused(str(e)) from e
        signer = self.state.signer
        return certs.sign(signer.pair, key, [str(who)], now, min(ttl, MAX_TTL, signer.end - now)) + signer.chain

    def server_pair(self, names: list[str], who: Identity, now: datetime, ttl: timedelta = DEFAULT_TTL) -> Pair:
        """A certificate, with its chain, for istiod's own servers."""
        signer = self.state.signer
        made = certs.issue(signer.pair, [*names, str(who)], now, min(ttl, signer.end - now))
        return Pair(made.certificate + signer.chain, made.key)
