"""Certificate requests: what may be asked for, what Kubernetes' own signers ask of a request, and their certificates.

Follows pkg/apis/certificates/helpers.go and pkg/controller/certificates (signer, authority, cleaner).
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
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from lateen.kit import times
from lateen.kit.certs import Pair
from lateen.kit.jsons import Json, dig

GROUP = "certificates.k8s.io"
APISERVER_CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
LEGACY = "kubernetes.io/legacy-unknown"
SIGNED_HERE = (APISERVER_CLIENT, KUBELET_CLIENT, KUBELET_SERVING)

LONGEST, BACKDATED = timedelta(days=365), timedelta(minutes=5)
"""kube-controller-manager's --cluster-signing-duration, and how far a certificate begins in the past."""
KEPT, KEPT_PENDING = timedelta(hours=1), timedelta(hours=24)
"""How long a request is kept after it has been answered, and how long without an answer."""
_PEM_BEGINS = "-----BEGIN CERTIFICATE REQUEST-----"

_KEY_USAGES = {
    "signing": "digital_signature",
    "digital signature": "digital_signature",
    "content commitment": "content_commitment",
    "key encipherment": "key_encipherment",
    "key agreement": "key_agreement",
    "data encipherment": "data_encipherment",
    "cert sign": "key_cert_sign",
    "crl sign": "crl_sign",
    "encipher only": "encipher_only",
    "decipher only": "decipher_only",
}
_EXTENDED = {
    "any": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    "server auth": ExtendedKeyUsageOID.SERVER_AUTH,
    "client auth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "code signing": ExtendedKeyUsageOID.CODE_SIGNING,
    "email protection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "s/mime": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "ipsec end system": ObjectIdentifier("1.3.6.1.5.5.7.3.5"),
    "ipsec tunnel": ObjectIdentifier("1.3.6.1.5.5.7.3.6"),
    "ipsec user": ObjectIdentifier("1.3.6.1.5.5.7.3.7"),
    "timestamping": ExtendedKeyUsageOID.TIME_STAMPING,
    "ocsp signing": ExtendedKeyUsageOID.OCSP_SIGNING,
    "microsoft sgc": ObjectIdentifier("1.3.6.1.4.1.311.10.3.3"),
    "netscape sgc": ObjectIdentifier("2.16.840.1.113730.4.1"),
}
USAGES = (*_KEY_USAGES, *_EXTENDED)


@dataclass(frozen=True)
class Subject:
    """Whom a request is about."""

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


def lifetime(spec: Json) -> timedelta:
    asked = spec.get("expirationSeconds")
    return LONGEST if asked is None else min(max(timedelta(seconds=asked), timedelta(minutes=10)), LONGEST)


def sign(ca: Pair, request: x509.CertificateSigningRequest, usages: list[str], life: timedelta, now: datetime) -> str:
    """A certificate (PEM) with the subject and the names of a request, that does not outlive its CA.
    Raises ValueError for a key that certificates cannot have."""
    key = request.public_key()
    if not isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey)):
        raise ValueError(f"a certificate for a key of this kind ({type(key).__name__}) is not issued")
    issuer = x509.load_pem_x509_certificate(ca.certificate.encode())
    bits = {_KEY_USAGES[u] for u in usages if u in _KEY_USAGES}
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
    if extended := list(dict.fromkeys(_EXTENDED[u] for u in usages if u in _EXTENDED)):
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
    return x509.KeyUsage(**{name: name in bits for name in dict.fromkeys(_KEY_USAGES.values())})


# --- the object ------------------------------------------------------------------------------------------------------


def condition(obj: Json, kind: str) -> Json | None:
    found = dig(obj, "status", "conditions", default=[])
    return next((c for c in found if c.get("type") == kind and c.get("status", "True") == "True"), None)


def state(obj: Json) -> str:
    """As ``kubectl get csr`` shows it: ``Approved,Issued``."""
    denied, approved = condition(obj, "Denied"), condition(obj, "Approved")
    out = "Denied" if denied else "Approved" if approved else "Pending"
    failed, issued = condition(obj, "Failed"), dig(obj, "status", "certificate")
    return out + (",Failed" if failed else "") + (",Issued" if issued else "")


def wants_signing(obj: Json) -> bool:
    """Approved, for a signer that is here, and not answered yet."""
    answered = dig(obj, "status", "certificate") or condition(obj, "Denied") or condition(obj, "Failed")
    return bool(condition(obj, "Approved")) and not answered and obj["spec"].get("signerName") in SIGNED_HERE


def kept_until(obj: Json) -> datetime:
    """When a request may be removed."""
    answered = [c for kind in ("Denied", "Failed", "Approved") if (c := condition(obj, kind))]
    if not answered:
        return times.parse(obj["metadata"]["creationTimestamp"]) + KEPT_PENDING
    changed = answered[0].get("lastUpdateTime") or obj["metadata"]["creationTimestamp"]
    return times.parse(changed) + KEPT
