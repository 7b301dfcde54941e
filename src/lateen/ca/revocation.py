"""Revocation lists of the mesh: the user's for a plugged-in CA, and empty ones for CAs whose keys istiod has, so that
nobody has to issue these.

Verifiers such as Envoy require a list of every CA on the path from a certificate to its root
(``X509_V_FLAG_CRL_CHECK_ALL``). Incomplete lists would therefore reject everything under the missing CA: they are not
used, and the missing one is reported. Source of the Secret's key and of the ConfigMap:
https://github.com/istio/istio/pull/56308.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from lateen.kit import certs
from lateen.kit.certs import Pair

CONFIG_MAP, KEY = "istio-ca-crl", "ca-crl.pem"
MAX_BYTES = 500_000
"""The size limit of a ConfigMap and of the record."""
SOON = timedelta(days=7)
_END = "-----END X509 CRL-----"


def split(text: str) -> tuple[str, ...]:
    """The individual lists. Raises ValueError."""
    parts = text.split(_END)
    if parts[-1].strip():
        raise ValueError("it is not PEM text of revocation lists")
    return tuple(_pem(_read(f"{part}{_END}\n".lstrip())) for part in parts[:-1])


def usable(text: str, now: datetime) -> str:
    """The lists in a normalized form. Raises ValueError."""
    if len(text) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes, which is more than a ConfigMap holds")
    lists = split(text)
    for one in lists:
        found = _read(one)
        if not found.last_update_utc <= now + certs.SKEW:
            raise ValueError(f"the list of {_issuer(found)} is valid from {found.last_update_utc} (UTC) on, not now")
        if found.next_update_utc is not None and found.next_update_utc <= now:
            raise ValueError(f"the list of {_issuer(found)} has expired at {found.next_update_utc} (UTC)")
    return "".join(lists)


def empty(ca: Pair, now: datetime) -> str:
    """An empty list of a CA, valid as long as the CA."""
    certificate = x509.load_pem_x509_certificate(ca.certificate.encode())
    key = serialization.load_pem_private_key(ca.key.encode(), None)
    assert isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey))
    builder = x509.CertificateRevocationListBuilder().issuer_name(certificate.subject)
    start = now - certs.SKEW
    return _pem(
        builder.last_update(start)
        .next_update(max(certificate.not_valid_after_utc, start + certs.SKEW))
        .add_extension(x509.CRLNumber(1), critical=False)
        .sign(key, hashes.SHA256())
    )


def of(lists: Iterable[str], authority: str) -> str | None:
    """The first list issued by a CA."""
    certificate = x509.load_pem_x509_certificate(authority.encode())
    return next((one for one in lists if _issued(_read(one), certificate)), None)


def without(lists: Iterable[str], path: Sequence[str]) -> str:
    """Why certificates under the first CA of a path (whose last one is trusted) would be rejected for lack of a list;
    empty if they would not."""
    known = tuple(lists)
    for pem in path:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        name = f'"{certificate.subject.rfc4514_string()}"'
        if of(known, pem) is None:
            return f"there is none of the certificate authority {name}"
        if pem == path[-1] and certificate.subject != certificate.issuer:
            return f"{name} is a trusted root but not self-signed, so the list of its issuer cannot be verified"
    return ""


def count(lists: Iterable[str]) -> int:
    """The number of revoked certificates."""
    return sum(len(_read(one)) for one in lists)


def ends(lists: Iterable[str]) -> datetime | None:
    """When the first list expires; None: never."""
    found = [end for one in lists if (end := _read(one).next_update_utc) is not None]
    return min(found) if found else None


def _read(pem: str) -> x509.CertificateRevocationList:
    try:
        return x509.load_pem_x509_crl(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as e:
        raise ValueError(f"it is not PEM text of revocation lists: {e}") from None


def _pem(found: x509.CertificateRevocationList) -> str:
    return found.public_bytes(serialization.Encoding.PEM).decode()


def _issued(found: x509.CertificateRevocationList, by: x509.Certificate) -> bool:
    key = by.public_key()
    if found.issuer != by.subject or not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
        return False
    try:
        return found.is_signature_valid(key)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def _issuer(found: x509.CertificateRevocationList) -> str:
    return f'"{found.issuer.rfc4514_string()}"'
