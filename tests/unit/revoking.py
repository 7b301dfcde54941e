"""Revocation lists as a user makes them with openssl."""

from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from lateen.kit import times


def listing(ca, *revoked, now=None, days=30.0):
    """The list of a CA (a pair) with these certificates (PEM) on it."""
    now = now or times.now()
    certificate = x509.load_pem_x509_certificate(ca.certificate.encode())
    builder = x509.CertificateRevocationListBuilder().issuer_name(certificate.subject)
    builder = builder.last_update(now - timedelta(minutes=1)).next_update(now + timedelta(days=days))
    for pem in revoked:
        number = x509.load_pem_x509_certificate(pem.encode()).serial_number
        one = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now)
        builder = builder.add_revoked_certificate(one.build())
    key = serialization.load_pem_private_key(ca.key.encode(), None)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
