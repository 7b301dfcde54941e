"""Certificate requests (PKCS #10), as PEM."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization

from lateen.kit import certs
from lateen.kit.certs import PrivateKey, PublicKey

LARGEST = 16384
"""Characters of a request that is read."""


def request(key: PrivateKey, name: str = "") -> str:
    """A request with one name or none."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if name:
        builder = builder.add_extension(x509.SubjectAlternativeName([certs.general_name(name)]), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def public_key(pem: str) -> PublicKey:
    """The public key of a request, whose signature proves possession of the private one. Raises ValueError."""
    return certs.strong(_parsed(pem).public_key(), "the certificate request")


def names(pem: str) -> list[str]:
    """All names that a request asks for, and ``CA`` if it asks for a CA certificate. Raises ValueError."""
    public_key(pem)
    found = _parsed(pem)
    try:
        out = [str(a.value) for a in found.subject]
        for extension in found.extensions:
            match extension.value:
                case x509.SubjectAlternativeName() as sans:
                    out += [str(n.value) for n in sans]
                case x509.BasicConstraints() as basic if basic.ca:
                    out.append("CA")
    except (ValueError, x509.DuplicateExtension) as e:
        raise ValueError(f"the certificate request cannot be used: {e}") from e
    return out


def _parsed(pem: str) -> x509.CertificateSigningRequest:
    """Raises ValueError where it is no request, or not signed with its own key."""
    if len(pem) > LARGEST:
        raise ValueError("the certificate request is too large")
    try:
        found = x509.load_pem_x509_csr(pem.encode())
        if not found.is_signature_valid:
            raise ValueError("the certificate request's signature is not valid")
    except (InvalidSignature, ValueError, TypeError) as e:
        raise ValueError(f"the certificate request cannot be used: {e}") from e
    return found
