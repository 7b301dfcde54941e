"""Certificate revocation lists, as concatenated PEM."""

from __future__ import annotations

from cryptography import x509

END = "-----END X509 CRL-----"


def check(lists: str) -> None:
    """Check that the lists can be parsed. Raises ValueError."""
    try:
        _parsed(lists)
    except ValueError as e:
        raise ValueError("the revocation lists are not PEM text") from e


def revoked(chain: str, lists: str) -> bool:
    """Whether a certificate of the chain (PEM) is on one of the lists. Raises ValueError."""
    known = _parsed(lists)
    return any(
        one.issuer == found.issuer and one.get_revoked_certificate_by_serial_number(found.serial_number) is not None
        for found in x509.load_pem_x509_certificates(chain.encode())
        for one in known
    )


def _parsed(lists: str) -> list[x509.CertificateRevocationList]:
    """Proxies skip silently what is no list, so that it is an error. Raises ValueError."""
    *found, rest = lists.removeprefix("\ufeff").split(END)
    if rest.strip():
        raise ValueError("there is more than revocation lists")
    return [x509.load_pem_x509_crl(f"{part}{END}\n".lstrip().encode()) for part in found]
