"""Workload certificates: the SPIFFE identity is taken from the caller's token, never from the request."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from lateen.ca import revocation, rotation
from lateen.ca.rotation import Pace, State
from lateen.ca.signer import self_signed
from lateen.kit import certs, jsons, pkcs10
from lateen.kit.certs import Pair
from lateen.kit.jsons import Json

DEFAULT_TTL = timedelta(hours=24)
MAX_TTL = timedelta(days=90)
SHORTEST = timedelta(seconds=1)
"""The minimum lifetime of issued certificates."""
ROOT_CONFIG_MAP = "istio-ca-root-cert"
DOMAINS = "trust-domains.json"
"""The key of the ConfigMap next to ``root-cert.pem``."""
AUDIENCE = "istio-ca"

_ACCOUNT = re.compile(r"system:serviceaccount:([a-z0-9-]+):([a-z0-9.-]+)$")


_POD = "authentication.kubernetes.io/pod-name"


class Refused(Exception):
    """No certificate is issued; the message says why."""


class Expired(OSError):
    """The authority has expired; no certificate can be issued until there is a new one."""


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
    """The name of the pod that a token is bound to; empty for other tokens."""
    found = (((review.get("status") or {}).get("user") or {}).get("extra") or {}).get(_POD) or []
    return str(found[0]) if found else ""


@dataclass(frozen=True)
class Told:
    """The trust anchors distributed to proxies."""

    root: str
    """The roots, PEM."""
    crl: str = ""
    """The revocation lists, PEM."""
    domains: str = ""
    """A JSON object of the roots (PEM) of each trust domain, if they differ; empty: ``root`` for all."""
    own: str = ""
    """The authority's own roots (PEM), which all revisions share."""

    @property
    def maps(self) -> dict[str, dict[str, str]]:
        """The data of the ConfigMaps for distribution; with empty data, the ConfigMap need not exist."""
        root = {"root-cert.pem": self.root} | ({DOMAINS: self.domains} if self.domains else {})
        return {ROOT_CONFIG_MAP: root, revocation.CONFIG_MAP: {revocation.KEY: self.crl} if self.crl else {}}


Domains = tuple[tuple[str, tuple[str, ...]], ...]
"""Each trust domain of the mesh (its own, its aliases) with its additional roots (PEM); empty if they are the same for
all."""


class Authority:
    """Signs according to the current state; see ``rotation``."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.others = ""
        """Additional trusted roots (PEM)."""
        self.domains: Domains = ()
        self._lists: tuple[object, tuple[str, str]] | None = None
        """The cached revocation lists, with their inputs: computing them requires signatures."""

    @classmethod
    def create(cls, now: datetime, trust_domain: str) -> Authority:
        """An authority with a new self-signed root."""
        made = certs.authority("", now, organization=trust_domain)
        return cls(rotation.begin(self_signed(made), now, Pace()))

    @property
    def root(self) -> str:
        """The trusted roots, PEM; the first one is the signing root."""
        return self._with((self.others,))

    def _with(self, others: Iterable[str]) -> str:
        own = self.state.bundle
        found = dict.fromkeys(root for pem in others for root in certs.split(pem))
        return own + "".join(root for root in found if root not in own)

    @property
    def lists(self) -> tuple[str, str]:
        """The effective revocation lists (PEM), and why the user's are not in effect, if so."""
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
            key = pkcs10.public_key(csr)
        except ValueError as e:
            raise Refused(str(e)) from e
        signer = self.state.signer
        if signer.end - now < SHORTEST:
            raise Expired(f"the certificate authority of Secret {signer.source} has expired at {signer.end} (UTC)")
        ttl = min(ttl, MAX_TTL, signer.end - now)
        return certs.sign(signer.pair, key, [str(who)], now, ttl, group=group, description=description) + signer.chain

    def server_pair(self, names: list[str], who: Identity, now: datetime, ttl: timedelta = DEFAULT_TTL) -> Pair:
        """A certificate with its chain for istiod's own servers. If the authority has expired, the certificate has
        expired, too: nobody accepts it, but istiod can run, report this, and switch to the next authority."""
        signer = self.state.signer
        now = min(now, signer.end - SHORTEST)
        made = certs.issue(signer.pair, [*names, str(who)], now, min(ttl, signer.end - now))
        return Pair(made.certificate + signer.chain, made.key)
