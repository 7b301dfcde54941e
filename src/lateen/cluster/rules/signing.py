"""What is in a certificate request, what Kubernetes' own signers ask of it, and their certificates.

Follows pkg/apis/certificates/helpers.go and pkg/controller/certificates (signer, authority). Imported when the first
request comes: few clusters have one, and the start of all would wait for the library.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID, ObjectIdentifier

from lateen.cluster.rules.requests import APISERVER_CLIENT, BACKDATED, EXTENDED, KEY_USAGES, KUBELET_SERVING
from lateen.kit.pair import Pair

_PEM_BEGINS = "-----BEGIN CERTIFICATE REQUEST-----"


@dataclass(frozen=True)
class Subject:
    """The subject of a request."""

    common: str
    organizations: tuple[str, ...]


def parse(text: object) -> x509.CertificateSigningRequest:
    """``spec.request``: base64 of PEM. Raises ValueError."""
    try:
        raw = base64.b64decode(str(text or ""), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("illegal base64 data") from None
    if not raw.lstrip().startswith(_PEM_BEGINS.encode()):
        raise ValueError("PEM block type must be CERTIFICATE REQUEST")
    try:
        found = x509.load_pem_x509_csr(raw)
        found.public_key()
        _ = found.subject, [e.oid for e in found.extensions]
        return found
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension) as e:
        raise ValueError(f"the certificate request cannot be parsed: {e}") from None


def subject(request: x509.CertificateSigningRequest) -> Subject:
    def of(oid: ObjectIdentifier) -> list[str]:
        return [str(a.value) for a in request.subject.get_attributes_for_oid(oid)]

    return Subject("".join(of(NameOID.COMMON_NAME)[-1:]), tuple(of(NameOID.ORGANIZATION_NAME)))


def _names(request: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        return list(request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def unfit(signer: str, request: x509.CertificateSigningRequest, usages: list[str]) -> str:
    """Why one of Kubernetes' signers refuses a request; empty if it signs it."""
    try:
        if not request.is_signature_valid:
            return "unable to verify certificate request signature"
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError) as e:
        return f"unable to verify certificate request signature: {e}"
    if signer == APISERVER_CLIENT:
        return _client_usages(usages)
    return _of_node(signer == KUBELET_SERVING, request, set(usages))


def _client_usages(usages: list[str]) -> str:
    for usage in usages:
        if usage not in ("client auth", "digital signature", "key encipherment"):
            return f"invalid usage for client certificate: {usage}"
    return "" if "client auth" in usages else "missing required usage for client certificate: client auth"


def _of_node(serving: bool, request: x509.CertificateSigningRequest, usages: set[str]) -> str:
    about, names = subject(request), _names(request)
    if about.organizations != ("system:nodes",):
        return "subject organization is not system:nodes"
    kinds = {type(n) for n in names}
    if serving and not kinds & {x509.DNSName, x509.IPAddress}:
        return "DNS or IP subjectAltName is required"
    for kind, called, allowed in (
        (x509.DNSName, "DNS", serving),
        (x509.RFC822Name, "Email", False),
        (x509.IPAddress, "IP", serving),
        (x509.UniformResourceIdentifier, "URI", False),
    ):
        if kind in kinds and not allowed:
            return f"{called} subjectAltNames are not allowed"
    if usages - {"key encipherment"} != {"digital signature", "server auth" if serving else "client auth"}:
        wanted = f"{'server' if serving else 'client'} auth"
        return f"usages did not match [digital signature, {wanted}] or [digital signature, key encipherment, {wanted}]"
    if not about.common.startswith("system:node:"):
        return "subject common name does not begin with system:node: "
    return ""


def sign(ca: Pair, request: x509.CertificateSigningRequest, usages: list[str], life: timedelta, now: datetime) -> str:
    """A certificate (PEM) with the subject and the names of a request, that does not outlive its CA.
    Raises ValueError for a key that certificates cannot have."""
    key = request.public_key()
    if not isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey)):
        raise ValueError(f"a certificate for a key of this kind ({type(key).__name__}) is not issued")
    issuer = x509.load_pem_x509_certificate(ca.certificate.encode())
    bits = {KEY_USAGES[u] for u in usages if u in KEY_USAGES}
    begins = now - (BACKDATED if life > timedelta(hours=8) else min(BACKDATED, life))
    builder = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(issuer.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(min(now + life, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(_public(issuer)), critical=False)
    )
    if bits:
        builder = builder.add_extension(_key_usage(bits), critical=True)
    if extended := list(dict.fromkeys(ObjectIdentifier(EXTENDED[u]) for u in usages if u in EXTENDED)):
        builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
    if names := _names(request):
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not list(request.subject))
    issuer_key = serialization.load_pem_private_key(ca.key.encode(), None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _public(issuer: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key: CertificatePublicKeyTypes = issuer.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


def _key_usage(bits: set[str]) -> x509.KeyUsage:
    if not bits & {"key_agreement"}:
        bits = bits - {"encipher_only", "decipher_only"}
    return x509.KeyUsage(**{name: name in bits for name in dict.fromkeys(KEY_USAGES.values())})
