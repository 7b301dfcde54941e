"""Certificates, keys and lists of users in the form in which Envoy takes them: normalized PEM, so that indentation, a
byte order mark or missing line breaks do no harm, and nothing is left of what cannot be read.

What Envoy refuses was asked of Envoy 1.40; it would hold up everything else of the same proxy.
"""

from __future__ import annotations

import re

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from lateen.kit import certs, crl
from lateen.kit.pair import Pair

_BEGINS = re.compile(r"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----")


def served(chain: str, key: str) -> Pair:
    """A server's or client's certificate with its chain, and its key. Raises ValueError."""
    try:
        certs.check_pair(chain, key)
        path = _certificates(chain, "the certificate")
        _check_kind(path[0])
    except UnsupportedAlgorithm as e:
        raise ValueError(f"the certificate cannot be used: {e}") from e
    found = certs.private_key(key)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return Pair(
        "".join(map(certs.pem_of, path)), found.private_bytes(encoding, form, serialization.NoEncryption()).decode()
    )


def authorities(text: str) -> str:
    """CA certificates that verify peers. Raises ValueError."""
    certs.check_authorities(text)
    return "".join(map(certs.pem_of, _certificates(text, "one of the CA certificates")))


def lists(text: str) -> str:
    """Revocation lists; empty if there are none. Raises ValueError."""
    crl.check(text)
    return text.strip().removeprefix("\ufeff").strip()


def _certificates(text: str, what: str) -> list[x509.Certificate]:
    found = x509.load_pem_x509_certificates(text.encode())
    if len(found) != len(_BEGINS.findall(text)):
        raise ValueError(f"{what} is cut off: there is a BEGIN CERTIFICATE without its END CERTIFICATE")
    return found


def _check_kind(leaf: x509.Certificate) -> None:
    """Check that Envoy can use the key of a certificate. Raises ValueError."""
    key = leaf.public_key()
    if not isinstance(key, ed25519.Ed25519PublicKey):
        certs.strong(key, "the certificate")
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if key.public_bytes(encoding, form) not in leaf.tbs_certificate_bytes:
        raise ValueError("the key of the certificate is RSA-PSS, or has explicit curve parameters, which Envoy refuses")
    if isinstance(key, ec.EllipticCurvePublicKey):
        try:
            usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
        except (x509.ExtensionNotFound, ValueError, x509.DuplicateExtension):
            return
        if not usage.digital_signature:
            raise ValueError("the certificate may not sign (keyUsage digitalSignature), which TLS needs of its key")
