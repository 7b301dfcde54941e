"""X.509: CAs and leaf certificates, made and read. PEM in, PEM out. Generated keys are P-256; given ones may be
RSA."""

from __future__ import annotations

import ipaddress
import warnings
from datetime import datetime, timedelta
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lateen.kit.pair import Pair as Pair

warnings.filterwarnings("ignore", "Parsed a serial number", CryptographyDeprecationWarning)
# Istio's tasks make certificates with the serial number 0 (openssl x509 -set_serial 0), which Envoy takes.

SKEW = timedelta(minutes=2)
"""Certificates become valid slightly in the past, to tolerate clock skew."""
RSA_BITS = 2048
"""The minimum size of RSA keys"""
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
"""The curves that Envoy knows"""
MACHINE = x509.ObjectIdentifier("2.25.279862249368158230209448911899279130912")
"""The extension that marks certificates issued to machines; its value is the name of a WorkloadGroup. (2.25 is the arc
for OIDs derived from a UUID.)"""
DESCRIPTION = x509.ObjectIdentifier("2.25.329872934461926714136529609444938449983")
"""The type of alternative name (RFC 5280, ``otherName``) that describes the workload a certificate was issued to."""
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def parsed(pem: str) -> list[x509.Certificate]:
    """The certificates in a text; none if it is not PEM of certificates."""
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        return []


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: PrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _name(common: str, organizations: tuple[str, ...] = ()) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organizations]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else parts)


def authority(
    common: str, now: datetime, days: float = 3650, organization: str = "", key: PrivateKey | None = None
) -> Pair:
    """A self-signed CA."""
    key = key or new_key()
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
    return Pair(pem_of(certificate), key_pem(key))


def general_name(name: str) -> x509.GeneralName:
    """An alternative name: a URI, an IP address or a DNS name, as the text looks like."""
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _utf8(text: str) -> bytes:
    """A DER UTF8String; its length must be encoded in as few bytes as possible (X.690, 10.1)."""
    raw = text.encode()
    size = len(raw).to_bytes((len(raw).bit_length() + 7) // 8, "big")
    length = bytes([len(raw)]) if len(raw) < 128 else bytes([0x80 | len(size)]) + size
    return b"\x0c" + length + raw


def intermediate(
    ca: Pair, common: str, now: datetime, days: float = 365, key: PrivateKey | None = None, path_length: int | None = 0
) -> Pair:
    """A CA signed by another one; returns its certificate alone, without the chain."""
    key = key or new_key()
    issuer, issuer_key = _parsed(ca)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(common))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(min(now + timedelta(days=days), issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_issued_by(issuer), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return Pair(pem_of(certificate), key_pem(key))


def pem_of(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


@lru_cache(maxsize=8)
def _parsed(ca: Pair) -> tuple[x509.Certificate, PrivateKey]:
    """Cached, because parsing (and checking) a key costs more than signing with it."""
    key = serialization.load_pem_private_key(ca.key.encode(), None)
    assert isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey))
    return x509.load_pem_x509_certificate(ca.certificate.encode()), key


def _issued_by(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def sign(
    ca: Pair,
    public_key: PublicKey,
    names: list[str],
    now: datetime,
    lifetime: timedelta,
    common: str = "",
    organizations: tuple[str, ...] = (),
    client: bool = True,
    server: bool = True,
    group: str = "",
    description: str = "",
) -> str:
    """A leaf certificate (PEM) that does not outlive its CA. ``group``: see ``machine``; ``description``: see
    ``DESCRIPTION``."""
    issuer, issuer_key = _parsed(ca)
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
        .add_extension(_issued_by(issuer), critical=False)
    )
    if names:
        sans = [general_name(n) for n in names]
        sans += [x509.OtherName(DESCRIPTION, _utf8(description))] if description else []
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=not common and not organizations)
    if group:
        builder = builder.add_extension(x509.UnrecognizedExtension(MACHINE, _utf8(group)), critical=False)
    return pem_of(builder.sign(issuer_key, hashes.SHA256()))


def machine(der: bytes) -> str:
    """The WorkloadGroup of the machine that a certificate was issued to; empty for those of pods. Raises ValueError."""
    try:
        found = x509.load_der_x509_certificate(der).extensions.get_extension_for_oid(MACHINE).value
    except x509.ExtensionNotFound:
        return ""
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as e:
        raise ValueError(f"the certificate cannot be read: {e}") from e
    raw = found.value if isinstance(found, x509.UnrecognizedExtension) else b""
    long = raw[1] & 0x7F if raw[1:2] >= b"\x80" else 0
    return raw[2 + long :].decode()


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


def verify(chain: str, roots: str, key: PublicKey, name: str, now: datetime) -> None:
    """Check that a leaf with its chain is valid now, belongs to this key, has exactly this name, and chains to one of
    the roots. Raises ValueError."""
    try:
        path = x509.load_pem_x509_certificates(chain.encode())
        known = x509.load_pem_x509_certificates(roots.encode())
    except ValueError as e:
        raise ValueError("it is not PEM text of X.509 certificates") from e
    leaf = path[0]
    if leaf.public_key() != key:
        raise ValueError("it is for another key")
    try:
        sans = [str(n.value) for n in leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value]
    except x509.ExtensionNotFound:
        sans = []
    if sans != [name]:
        raise ValueError(f"it is for {', '.join(sans) or 'no name'}")
    for here in path:
        if not here.not_valid_before_utc <= now < here.not_valid_after_utc:
            raise ValueError("it is not valid now")
        if here in known or any(issued(here, root) for root in known):
            return
        above = path[path.index(here) + 1 : path.index(here) + 2]
        if not above or not issued(here, above[0]):
            break
    raise ValueError("it does not lead to a root that is trusted")


def strong(key: object, whose: str) -> PublicKey:
    """``key``, if its type and size are acceptable. Raises ValueError."""
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, CURVES):
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_BITS:
        return key
    raise ValueError(
        f"{whose} must have an elliptic-curve key of P-256, P-384 or P-521, or an RSA key of at least {RSA_BITS} bits"
    )


def validity(pem: str) -> tuple[datetime, datetime]:
    """When the first certificate starts and ceases to be valid."""
    certificate = x509.load_pem_x509_certificate(pem.encode())
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


def split(pem: str) -> tuple[str, ...]:
    """The certificates one by one, in a normalized form, so that equal certificates compare equal. Raises
    ValueError."""
    return tuple(pem_of(c) for c in x509.load_pem_x509_certificates(pem.encode())) if pem.strip() else ()


def fingerprint(pem: str) -> str:
    """The SHA-256 fingerprint of the first certificate, in hexadecimal."""
    return x509.load_pem_x509_certificate(pem.encode()).fingerprint(hashes.SHA256()).hex()


def subject(pem: str) -> str:
    """The subject of the first certificate, as in RFC 4514."""
    return x509.load_pem_x509_certificate(pem.encode()).subject.rfc4514_string()


def trust_domain(pem: str) -> str:
    """The trust domain of the first certificate's SPIFFE identity; empty if it has none."""
    try:
        names = parsed(pem)[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (IndexError, ValueError, x509.ExtensionNotFound):
        return ""
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return next((u.split("/")[2] for u in uris if u.startswith("spiffe://")), "")


def anchored(chain: str, root: str) -> bool:
    """Whether the last certificate of a chain was issued by the first one of ``root`` (or is it)."""
    last, first = x509.load_pem_x509_certificates(chain.encode())[-1], x509.load_pem_x509_certificate(root.encode())
    return last == first or issued(last, first)


def issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    """Whether the first certificate was signed with the second one's key."""
    try:
        certificate.verify_directly_issued_by(by)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def private_key(pem: str) -> PrivateKeyTypes:
    """A key without a passphrase. OpenSSL would test whether the factors of RSA keys are prime, which takes 40 ms with
    2048 bits and 300 ms with 4096; Envoy checks no more than these equations. Raises ValueError."""
    try:
        key = serialization.load_pem_private_key(pem.encode(), None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise ValueError("the key is not the PEM text of a private key without a passphrase") from e
    if isinstance(key, rsa.RSAPrivateKey):
        x = key.private_numbers()
        product, inverse = x.d * x.public_numbers.e - 1, x.iqmp * x.q % x.p
        if x.p * x.q != x.public_numbers.n or product % (x.p - 1) or product % (x.q - 1) or inverse != 1:
            raise ValueError("the parts of the RSA key do not belong together")
        if (x.dmp1, x.dmq1) != (x.d % (x.p - 1), x.d % (x.q - 1)):
            raise ValueError("the parts of the RSA key do not belong together")
    return key


def check_pair(chain: str, key: str) -> None:
    """Check that a certificate chain and a key can be parsed and belong together. Raises ValueError."""
    try:
        leaf = x509.load_pem_x509_certificates(chain.encode())[0]
    except ValueError as e:
        raise ValueError("the certificate is not PEM text of X.509 certificates") from e
    found = private_key(key)
    if found.public_key() != leaf.public_key():
        raise ValueError("the key does not belong to the certificate")


def check_authorities(text: str) -> None:
    """Check that trusted CA certificates (PEM) can be parsed. Raises ValueError."""
    try:
        x509.load_pem_x509_certificates(text.encode())
    except ValueError as e:
        raise ValueError("the CA certificates are not PEM text of X.509 certificates") from e
