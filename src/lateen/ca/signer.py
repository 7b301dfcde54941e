"""A signer: a key, its certificate, the chain to its root, and the roots to be trusted.

Read from Secrets with Istio's keys. Unusable CAs are refused with a sentence before anything depends on them.
Sources: https://istio.io/latest/docs/tasks/security/cert-management/plugin-ca-cert/ and, for Secrets of type
kubernetes.io/tls, ``detectSigningCABundle`` in pilot/pkg/bootstrap/istio_ca.go.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from lateen.ca import constraints
from lateen.ca.revocation import KEY
from lateen.kit import certs
from lateen.kit.certs import Pair
from lateen.kit.jsons import Json, dig

PLUGGED, SELF_SIGNED = "cacerts", "istio-ca-secret"
"""The Secrets: the user's own CA, which takes precedence, and the one that istiod creates."""
RECORD = "lateen-ca"
"""The Secret with the effective state; see ``rotation``."""
KEPT_BACK = (PLUGGED, SELF_SIGNED, RECORD)
KEYS = ("ca-cert.pem", "ca-key.pem", "root-cert.pem")
TLS_KEYS = ("tls.crt", "tls.key", "ca.crt")
CHAIN = "cert-chain.pem"


class Unusable(ValueError):
    """A CA that cannot be used; the message has the fault and its place."""


@dataclass(frozen=True)
class Signer:
    pair: Pair
    """The signing certificate, without its chain, and its key."""
    between: tuple[str, ...]
    """The certificates between it and its root, nearest first; empty if it is the root."""
    roots: tuple[str, ...]
    """The roots to be trusted; the first one is its own."""
    source: str = SELF_SIGNED
    """The Secret that it was read from."""
    crl: str = ""
    """Revocation lists, PEM, not validated yet (see ``revocation``)."""

    @property
    def anchor(self) -> str:
        return self.roots[0]

    @property
    def chain(self) -> str:
        """The chain that follows each certificate that it signs."""
        return "" if self.pair.certificate == self.anchor else "".join((self.pair.certificate, *self.between))

    @property
    def path(self) -> tuple[str, ...]:
        """The signing certificate and those above it, including the root."""
        return tuple(dict.fromkeys((self.pair.certificate, *self.between, self.anchor)))

    @property
    def end(self) -> datetime:
        """When the first certificate on the path to the root expires, and with it everything signed."""
        return min(certs.validity(c)[1] for c in self.path)


def self_signed(pair: Pair) -> Signer:
    certificate = certs.split(pair.certificate)[0]
    return Signer(Pair(certificate, pair.key), (), (certificate,))


def decoded(secret: Json) -> dict[str, str]:
    """The data of a Secret. Raises Unusable."""
    try:
        return {k: base64.b64decode(v).decode(errors="replace") for k, v in (secret.get("data") or {}).items()}
    except (ValueError, TypeError, AttributeError) as e:
        raise Unusable(f"the data of Secret {dig(secret, 'metadata', 'name', default='')} is not base64: {e}") from e


def read(
    data: Mapping[str, str], source: str, now: datetime, trust_domain: str = "", hosts: Iterable[str] = ()
) -> Signer:
    """The CA in a Secret's (decoded) data. ``trust_domain``, ``hosts``: what it has to sign (``constraints``). Raises
    Unusable."""
    try:
        found = _read(data, source, now)
        path = [x509.load_pem_x509_certificate(c.encode()) for c in found.path]
        if why := constraints.violated(path, trust_domain, hosts):
            raise Unusable(f"Secret {source}: {why}")
        return found
    except Unusable:
        raise
    except (
        Exception
    ) as e:  # libraries raise various exceptions for odd certificates: unknown algorithms, extensions, curves
        raise Unusable(f"the certificates of Secret {source} cannot be used: {str(e) or type(e).__name__}") from e


def check(found: Signer, now: datetime | None = None) -> None:
    """Check that a signer that was not read from its Secret can sign: its key, its path to the root, that all
    certificates are CAs and, with ``now``, their dates. Raises Unusable."""
    path = [x509.load_pem_x509_certificate(c.encode()) for c in found.path]
    where = f"the certificate of {found.source}"
    _check_key(path[0], found.pair.key, where, f"the key of {found.source}")
    for certificate, above in itertools.pairwise(path):
        if not certs.issued(certificate, above):
            raise Unusable(f'"{above.subject.rfc4514_string()}" has not issued {where}, or one on the way to its root')
    for certificate in path:
        _check_authority(certificate, found.source, now)


def _read(data: Mapping[str, str], source: str, now: datetime) -> Signer:
    tls = TLS_KEYS[0] in data
    names = TLS_KEYS if tls else KEYS if source == PLUGGED else KEYS[:2]
    if missing := [n for n in names if not data.get(n, "").strip()]:
        raise Unusable(f"Secret {source} has no {missing[0]}; it must have {', '.join(names)}")
    signing = _certificates(data, names[0], source)
    root_name = names[-1] if len(names) > 2 else names[0]
    roots = _certificates(data, root_name, source)
    known = [*signing[1:], *(_certificates(data, CHAIN, source) if data.get(CHAIN, "").strip() else [])]
    _check_key(signing[0], data[names[1]], f"{source}/{names[0]}", f"{source}/{names[1]}")
    current = sorted(known, key=lambda c: not _valid(c, now)), sorted(roots, key=lambda c: not _valid(c, now))
    path, anchor = _path(signing[0], *current, f"{source}/{names[0]}", f"{source}/{root_name}")
    for certificate in (signing[0], *path, anchor):
        _check_authority(certificate, source, now)
    ordered = dict.fromkeys((certs.pem_of(anchor), *map(certs.pem_of, roots)))
    pair = Pair(certs.pem_of(signing[0]), data[names[1]].strip() + "\n")
    return Signer(pair, tuple(map(certs.pem_of, path)), tuple(ordered), source, data.get(KEY, "").strip())


def _certificates(data: Mapping[str, str], name: str, source: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data[name].encode())
    except ValueError:
        raise Unusable(f"{source}/{name} is not PEM text of X.509 certificates") from None


def _check_key(certificate: x509.Certificate, key: str, where: str, key_where: str) -> None:
    try:
        found = certs.private_key(key.strip())
    except Exception as e:  # libraries raise various exceptions for bad keys
        raise Unusable(f"{key_where} is not the PEM text of a private key without a passphrase") from e
    try:
        public = certs.strong(found.public_key(), where)
    except ValueError as e:
        raise Unusable(str(e)) from None
    if public != certificate.public_key():
        raise Unusable(f"{key_where} does not belong to {where}")


def _path(
    signing: x509.Certificate, known: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], at: str, root: str
) -> tuple[list[x509.Certificate], x509.Certificate]:
    """The intermediates above the signing certificate, and its root. A certificate may be there several times, renewed
    or signed by different authorities (cross-signed), so that not every way leads to a root."""
    ways: list[list[x509.Certificate]] = [[signing]]
    seen, missing = {signing}, signing
    while ways:
        way = ways.pop()
        here = way[-1]
        for anchor in roots:
            if here == anchor or certs.issued(here, anchor):
                return (way[1:-1] if here == anchor else way[1:]), anchor
        above = [c for c in known if c not in seen and certs.issued(here, c)]
        seen.update(above)
        missing = here if not above else missing
        ways += [[*way, c] for c in reversed(above)]  # the first one is tried first
    raise Unusable(
        f"no certificate of {root} has issued {at}, nor is there a way to one through {CHAIN}: "
        f'"{missing.issuer.rfc4514_string()}" is missing'
    )


def _valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc


def _check_authority(certificate: x509.Certificate, source: str, now: datetime | None) -> None:
    name = f'the certificate "{certificate.subject.rfc4514_string()}" of Secret {source}'
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now is not None and not _valid(certificate, now):
        raise Unusable(f"{name} is valid from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} (UTC), not now")
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, ValueError):
        basic = None
    if basic is None or not basic.ca:
        raise Unusable(f"{name} is not that of a CA (basicConstraints CA:TRUE)")
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.key_cert_sign:
        raise Unusable(f"{name} may not sign certificates (keyUsage keyCertSign)")
