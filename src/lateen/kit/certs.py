"""X.509 with P-256 keys: authorities, leaf certificates, requests. PEM in, PEM out."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SKEW = timedelta(minutes=2)
"""Certificates are valid from a little before the present, because clocks differ."""


@dataclass(frozen=True)
class Pair:
    """A certificate (chain) and its key; the key does not show in ``repr``."""

    certificate: str
    key: str

    def __repr__(self) -> str:
        return "Pair(certificate=…, key=[redacted])"


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _name(common: str, organizations: tuple[str, ...] = ()) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organizations]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else parts)


def authority(common: str, now: datetime, days: int = 3650, organization: str = "") -> Pair:
    """A self-signed CA."""
    key = new_key()
    name = _name(common, (organization,) if organization else ())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(certificate.public_bytes(serialization.Encoding.PEM).decode(), key_pem(key))


def _san(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def sign(
    ca: Pair,
    public_key: ec.EllipticCurvePublicKey,
    names: list[str],
    now: datetime,
    lifetime: timedelta,
    common: str = "",
    organizations: tuple[str, ...] = (),
    client: bool = True,
    server: bool = True,
) -> str:
    """A leaf certificate that does not outlive its CA."""
    issuer = x509.load_pem_x509_certificate(ca.certificate.encode())
    issuer_key = serialization.load_pem_private_key(ca.key.encode(), None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    usages = [
        u
        for u, wanted in ((ExtendedKeyUsageOID.SERVER_AUTH, server), (ExtendedKeyUsageOID.CLIENT_AUTH, client))
        if wanted
    ]
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(common, organizations))
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(min(now + lifetime, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(True, False, True, False, False, False, False, False, False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()),  # type: ignore[arg-type]
            critical=False,
        )
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_san(n) for n in names]), critical=not common and not organizations
        )
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def issue(
    ca: Pair,
    names: list[str],
    now: datetime,
    lifetime: timedelta,
    common: str = "",
    organizations: tuple[str, ...] = (),
    client: bool = True,
    server: bool = True,
) -> Pair:
    """A new key with its certificate."""
    key = new_key()
    return Pair(sign(ca, key.public_key(), names, now, lifetime, common, organizations, client, server), key_pem(key))


def request(key: ec.EllipticCurvePrivateKey) -> str:
    """A certificate request without names: the identity is taken from the caller's token."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )


def requested_key(csr: str) -> ec.EllipticCurvePublicKey:
    """The public key of a request, whose signature proves possession of the private one. Raises ValueError."""
    if len(csr) > 16384:
        raise ValueError("the certificate request is too large")
    try:
        found = x509.load_pem_x509_csr(csr.encode())
        if not found.is_signature_valid:
            raise ValueError("the certificate request's signature is not valid")
    except (InvalidSignature, ValueError, TypeError) as e:
        raise ValueError(f"the certificate request cannot be used: {e}") from e
    key = found.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.key_size < 256:
        raise ValueError("the certificate request must have an elliptic-curve key of at least 256 bits")
    return key


def validity(pem: str) -> tuple[datetime, datetime]:
    certificate = x509.load_pem_x509_certificate(pem.encode())
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


def check_pair(chain: str, key: str) -> None:
    """Check that a certificate chain and a key can be parsed and belong together. Raises ValueError."""
    try:
        leaf = x509.load_pem_x509_certificates(chain.encode())[0]
    except ValueError as e:
        raise ValueError("the certificate is not PEM text of X.509 certificates") from e
    try:
        found = serialization.load_pem_private_key(key.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise ValueError("the key is not the PEM text of a private key without a passphrase") from e
    if found.public_key() != leaf.public_key():
        raise ValueError("the key does not belong to the certificate")


def check_authorities(text: str) -> None:
    """Check certificates by which others are verified. Raises ValueError."""
    try:
        x509.load_pem_x509_certificates(text.encode())
    except ValueError as e:
        raise ValueError("the CA certificates are not PEM text of X.509 certificates") from e
