"""Workload certificates: the SPIFFE identity is taken from the caller's token, never from the request."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from lateen.kit import certs
from lateen.kit.certs import Pair
from lateen.kit.jsons import Json

DEFAULT_TTL = timedelta(hours=24)
MAX_TTL = timedelta(days=90)
SECRET = "istio-ca-secret"
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
    """Signs with a self-signed root that is kept in the Secret ``istio-ca-secret``."""

    def __init__(self, root: Pair) -> None:
        self._root = root

    @classmethod
    def create(cls, now: datetime, trust_domain: str) -> Authority:
        return cls(certs.authority("", now, organization=trust_domain))

    @property
    def root(self) -> str:
        return self._root.certificate

    def secret_data(self) -> dict[str, str]:
        return {"ca-cert.pem": self._root.certificate, "ca-key.pem": self._root.key}

    def sign(self, csr: str, who: Identity, now: datetime, ttl: timedelta = DEFAULT_TTL) -> str:
        """Sign a request. Raises Refused for an invalid one."""
        try:
            key = certs.requested_key(csr)
        except ValueError as e:
            raise Refused(str(e)) from e
        return certs.sign(self._root, key, [str(who)], now, min(ttl, MAX_TTL))

    def server_pair(self, names: list[str], who: Identity, now: datetime) -> Pair:
        """A certificate for istiod's own servers."""
        return certs.issue(self._root, [*names, str(who)], now, DEFAULT_TTL)
