"""Workload certificates: the SPIFFE identity is taken from the caller's token, never from the request."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from lateen.ca import revocation, rotation
from lateen.ca.rotation import Pace, State
from lateen.ca.signer import self_signed
from lateen.kit import certs, jsons
from lateen.kit.certs import Pair
from lateen.kit.jsons import Json

DEFAULT_TTL = timedelta(hours=24)
MAX_TTL = timedelta(days=90)
SHORTEST = timedelta(seconds=1)
"""Nothing is signed that would expire sooner."""
ROOT_CONFIG_MAP = "istio-ca-root-cert"
DOMAINS = "trust-domains.json"
"""The key of the ConfigMap beside ``root-cert.pem``."""
AUDIENCE = "istio-ca"

_ACCOUNT = re.compile(r"system:serviceaccount:([a-z0-9-]+):([a-z0-9.-]+)$")


_POD = "authentication.kubernetes.io/pod-name"


class Refused(Exception):
    """No certificate is issued; the message says why."""


class Expired(OSError):
    """No certificate can be issued before there is another authority."""


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


def bound(review: Json) -> str:
    """The name of the pod whose token it is, valid for as long as the pod exists; empty for other tokens."""
    found = (((review.get("status") or {}).get("user") or {}).get("extra") or {}).get(_POD) or []
    return str(found[0]) if found else ""


@dataclass(frozen=True)
class Told:
    """The roots that proxies trust."""

    root: str
    """The roots, PEM."""
    crl: str = ""
    """The revocation lists, PEM."""
    domains: str = ""
    """A JSON object of the roots (PEM) of each trust domain, where they differ; an empty text stands for ``root``."""
    own: str = ""
    """Those of the roots that are the authority's own (PEM), which all revisions have in common."""

    @property
    def maps(self) -> dict[str, dict[str, str]]:
        """The data of the ConfigMaps that have it; empty: there need not be one."""
        root = {"root-cert.pem": self.root} | ({DOMAINS: self.domains} if self.domains else {})
        return {ROOT_CONFIG_MAP: root, revocation.CONFIG_MAP: {revocation.KEY: self.crl} if self.crl else {}}


Domains = tuple[tuple[str, tuple[str, ...]], ...]
"""Each trust domain of the mesh (its own, its aliases) with the roots of others that vouch for it (PEM); empty where
these are the same for all of them."""


class Authority:
    """Signs as the present state says; see ``rotation``."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.others = ""
        """Roots of others that are trusted, too (PEM)."""
        self.domains: Domains = ()
        self._lists: tuple[object, tuple[str, str]] | None = None
        """Those of now, with what they were made from: looking for them costs signatures."""

    @classmethod
    def create(cls, now: datetime, trust_domain: str) -> Authority:
        """With a new self-signed root."""
        made = certs.authority("", now, organization=trust_domain)
        return cls(rotation.begin(self_signed(made), now, Pace()))

    @property
    def root(self) -> str:
        """The roots that are trusted, PEM; the first one is that under which it signs."""
        return self._with((self.others,))

    def _with(self, others: Iterable[str]) -> str:
        own = self.state.bundle
        found = dict.fromkeys(root for pem in others for root in certs.split(pem))
        return own + "".join(root for root in found if root not in own)

    @property
    def lists(self) -> tuple[str, str]:
        """The revocation lists that are in effect (PEM), and why those that the user gives are not."""
        made_of = (self.state, self.others, self.domains)
        if self._lists is None or self._lists[0] != made_of:
            self._lists = made_of, self._revoked()
        return self._lists[1]

    def _revoked(self) -> tuple[str, str]:
        crl, problem = rotation.revoked(self.state, certs.split(self.others))
        if crl and self.domains:
            return "", "the revocation lists are not in effect: Envoy has none where trust domains have their own roots"
        return crl, problem

    @property
    def told(self) -> Told:
        found = {domain: self._with(pems) for domain, pems in self.domains}
        domains = {domain: roots if roots != self.root else "" for domain, roots in found.items()}
        by_domain = jsons.dumps(domains).decode() if domains else ""
        return Told(self.root, self.lists[0], by_domain, self.state.bundle)

    def sign(
        self,
        csr: str,
        who: Identity,
        now: datetime,
        ttl: timedelta = DEFAULT_TTL,
        group: str = "",
        description: str = "",
    ) -> str:
        """A certificate with its chain, without the root; ``group``: the WorkloadGroup of a machine, see
        ``certs.machine``; ``description``: see ``certs.DESCRIPTION``. Raises Refused for an invalid request,
        Expired."""
        try:
            key = certs.requested_key(csr)
        except ValueError as e:
            raise Refused(str(e)) from e
        signer = self.state.signer
        if signer.end - now < SHORTEST:
            raise Expired(f"the certificate authority of Secret {signer.source} has expired at {signer.end} (UTC)")
        ttl = min(ttl, MAX_TTL, signer.end - now)
        return certs.sign(signer.pair, key, [str(who)], now, ttl, group=group, description=description) + signer.chain

    def server_pair(self, names: list[str], who: Identity, now: datetime, ttl: timedelta = DEFAULT_TTL) -> Pair:
        """A certificate, with its chain, for istiod's own servers. Where the authority has expired, it is one that has
        expired as well: nobody accepts it, but istiod runs, says so and takes the next authority."""
        signer = self.state.signer
        now = min(now, signer.end - SHORTEST)
        made = certs.issue(signer.pair, [*names, str(who)], now, min(ttl, signer.end - now))
        return Pair(made.certificate + signer.chain, made.key)
