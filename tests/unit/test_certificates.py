"""Identities come from tokens, never from requests."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from lateen.ca.authority import Authority, Identity, Refused, identity
from lateen.kit import certs, pkcs10

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WHO = Identity("cluster.local", "default", "bookinfo-reviews")


def test_the_certificate_says_what_the_token_said():
    ca = Authority.create(NOW, "cluster.local")
    pem = ca.sign(pkcs10.request(certs.new_key()), WHO, NOW)
    found = x509.load_pem_x509_certificate(pem.encode())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(WHO)]
    assert found.not_valid_after_utc == NOW + timedelta(hours=24)
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize("size", [1, 127, 128, 255, 256, 700])
def test_a_description_and_a_group_may_have_any_length(size):
    ca = Authority.create(NOW, "cluster.local")
    text = "x" * size
    pem = ca.sign(pkcs10.request(certs.new_key()), WHO, NOW, group=text, description=text)
    found = x509.load_pem_x509_certificate(pem.encode())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (said,) = (n.value for n in names if isinstance(n, x509.OtherName))
    assert said.endswith(text.encode())
    assert certs.machine(found.public_bytes(serialization.Encoding.DER)) == text


def test_names_in_the_request_are_ignored():
    key = certs.new_key()
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://evil/ns/a/sa/b")]), False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
    pem = Authority.create(NOW, "cluster.local").sign(csr, WHO, NOW)
    assert "evil" not in str(x509.load_pem_x509_certificate(pem.encode()).extensions)


def test_requests_that_cannot_be_used_are_refused():
    ca = Authority.create(NOW, "cluster.local")
    weak = rsa.generate_private_key(65537, 1024)
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(weak, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
    for bad in ("", "nonsense", "x" * 100_000, csr):
        with pytest.raises(Refused):
            ca.sign(bad, WHO, NOW)


def test_a_token_for_another_audience_is_refused():
    status = {"authenticated": True, "audiences": ["other"], "user": {"username": "system:serviceaccount:a:b"}}
    with pytest.raises(Refused):
        identity({"status": status}, "cluster.local")
    with pytest.raises(Refused):
        identity({"status": {**status, "audiences": ["istio-ca"], "user": {"username": "admin"}}}, "cluster.local")


def test_keys_do_not_print_themselves():
    assert "PRIVATE" not in repr(certs.authority("x", NOW))
