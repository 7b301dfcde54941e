"""Public server certificates: requests, self-signed certificates, ACME proofs, and renewal times. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from lateen.api import cert_manager as cm
from lateen.kit import certs
from lateen.kit.certs import Pair, PrivateKey

RSA_BITS = 2048
"""The default key size, as in cert-manager"""
SHARE = 2 / 3
"""The share of its lifetime after which a certificate is renewed, as in cert-manager"""
JITTER = 0.02
"""Renewal is earlier by up to this share, so that many certificates are not due at once"""
YOUNG = 0.05
"""The share of its lifetime (at least an hour) in which a certificate is not renewed, whatever ``renewBefore``: a CA
may issue a shorter lifetime than requested, and a new certificate must not be due at once"""
_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
"""acmeIdentifier (RFC 8737 section 3)"""
_CURVES: dict[int, type[ec.EllipticCurve]] = {256: ec.SECP256R1, 384: ec.SECP384R1, 521: ec.SECP521R1}


def new_key(wanted: cm.PrivateKey | None) -> PrivateKey:
    """Generate a key; takes up to a second for long RSA keys."""
    given = wanted or cm.PrivateKey()
    if given.algorithm == "ECDSA":
        return ec.generate_private_key(_CURVES[given.size or 256]())
    return rsa.generate_private_key(65537, given.size or RSA_BITS)


def is_of(key: PrivateKey, wanted: cm.PrivateKey | None) -> bool:
    """Whether a key has the requested algorithm and size."""
    given = wanted or cm.PrivateKey()
    if given.algorithm == "ECDSA":
        return isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size == (given.size or 256)
    return isinstance(key, rsa.RSAPrivateKey) and key.key_size == (given.size or RSA_BITS)


def read_key(pem: str) -> PrivateKey | None:
    """Parse a key; None if it is unusable."""
    try:
        key = serialization.load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError):
        return None
    return key if isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)) else None


def request(key: PrivateKey, names: Sequence[str], common: str = "") -> bytes:
    """A certificate request in DER."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else [])
    alternative = x509.SubjectAlternativeName([x509.DNSName(n) for n in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(alternative, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def by_itself(spec: cm.Certificate, key: PrivateKey, now: datetime) -> str:
    """A self-signed certificate, or the root of a CA (``isCA``)."""
    lasts = _lasts(spec)
    if spec.is_ca:
        return certs.authority(
            spec.common_name or spec.dns_names[0], now, lasts / timedelta(days=1), key=key
        ).certificate
    own = certs.authority(spec.common_name or spec.dns_names[0], now, lasts / timedelta(days=1), key=key)
    return certs.sign(own, key.public_key(), list(cm.names(spec)), now, lasts, spec.common_name)


def by_authority(spec: cm.Certificate, key: PrivateKey, ca: Pair, now: datetime) -> str:
    """The chain without the root. Raises ValueError if the CA cannot be used."""
    certs.check_pair(ca.certificate, ca.key)
    path = certs.split(ca.certificate)
    first = Pair(path[0], ca.key)
    if spec.is_ca:
        days = _lasts(spec) / timedelta(days=1)
        leaf = certs.intermediate(first, spec.common_name or spec.dns_names[0], now, days, key, None).certificate
    else:
        names = list(cm.names(spec))
        leaf = certs.sign(first, key.public_key(), names, now, _lasts(spec), spec.common_name)
    return leaf + "".join(c for c in path if not _is_root(c))


def _is_root(pem: str) -> bool:
    found = x509.load_pem_x509_certificate(pem.encode())
    return found.issuer == found.subject


def _lasts(spec: cm.Certificate) -> timedelta:
    return timedelta(seconds=spec.duration.seconds if spec.duration else cm.DURATION_S)


def proof(host: str, authorization: str, now: datetime) -> Pair:
    """The TLS-ALPN-01 certificate for a key authorization (RFC 8737 section 3)."""
    key = certs.new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lateen")])
    digest = hashlib.sha256(authorization.encode()).digest()
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - certs.SKEW)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.UnrecognizedExtension(_IDENTIFIER, b"\x04\x20" + digest), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Pair(made.public_bytes(serialization.Encoding.PEM).decode(), certs.key_pem(key))


def renewal(spec: cm.Certificate, chain: str) -> datetime:
    """When a certificate is due for renewal."""
    start, end = certs.validity(chain)
    life = end - start
    if spec.renew_before is not None and timedelta(seconds=spec.renew_before.seconds) < life:
        at = end - timedelta(seconds=spec.renew_before.seconds)
    elif spec.renew_before_percentage is not None:
        at = end - life * spec.renew_before_percentage / 100
    else:
        at = start + life * SHARE
    early = (at - start) * JITTER * (int(certs.fingerprint(chain)[:8], 16) / 0xFFFFFFFF)
    return max(at - early, start + min(max(life * YOUNG, timedelta(hours=1)), life * SHARE))


def unlike(spec: cm.Certificate, chain: str, key: str) -> str:
    """Why a certificate does not match its specification; empty if it does."""
    try:
        certs.check_pair(chain, key)
    except ValueError as e:
        return f"what the Secret holds cannot be used: {e}"
    leaf, own = x509.load_pem_x509_certificate(chain.encode()), read_key(key)
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = {n.lower() for n in names.get_values_for_type(x509.DNSName)}
    except x509.ExtensionNotFound:
        found = {str(a.value).lower() for a in leaf.subject if a.oid == NameOID.COMMON_NAME}
    if found != set(cm.names(spec)) and not (spec.is_ca and _is_authority(leaf)):
        return f"it is for {', '.join(sorted(found))[:200]}, not for {', '.join(cm.names(spec))[:200]}"
    if own is None or not is_of(own, spec.private_key):
        return "its key is of another kind"
    return ""


def _is_authority(leaf: x509.Certificate) -> bool:
    try:
        return leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def checked(spec: cm.Certificate, chain: str, key: PrivateKey, now: datetime) -> str:
    """Check that an issuer's certificate matches the request, and return it. Raises ValueError."""
    certs.check_pair(chain, certs.key_pem(key))
    if why := unlike(spec, chain, certs.key_pem(key)):
        raise ValueError(why)
    start, end = certs.validity(chain)
    if not start - certs.SKEW <= now < end:
        raise ValueError(f"it is valid from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC only")
    return chain
