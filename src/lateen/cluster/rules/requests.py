"""CertificateSigningRequest objects: their signers, the usages they may request, and their state.

Follows pkg/controller/certificates (signer, cleaner). The contents of requests, and certificates, are in ``signing``.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from lateen.kit import times
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

KEY_USAGES = {
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
EXTENDED = {
    "any": "2.5.29.37.0",
    "server auth": "1.3.6.1.5.5.7.3.1",
    "client auth": "1.3.6.1.5.5.7.3.2",
    "code signing": "1.3.6.1.5.5.7.3.3",
    "email protection": "1.3.6.1.5.5.7.3.4",
    "s/mime": "1.3.6.1.5.5.7.3.4",
    "ipsec end system": "1.3.6.1.5.5.7.3.5",
    "ipsec tunnel": "1.3.6.1.5.5.7.3.6",
    "ipsec user": "1.3.6.1.5.5.7.3.7",
    "timestamping": "1.3.6.1.5.5.7.3.8",
    "ocsp signing": "1.3.6.1.5.5.7.3.9",
    "microsoft sgc": "1.3.6.1.4.1.311.10.3.3",
    "netscape sgc": "2.16.840.1.113730.4.1",
}
"""Object identifiers (RFC 5280, 4.2.1.12)."""
USAGES = (*KEY_USAGES, *EXTENDED)


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
    """Whether it is approved, for a signer of this cluster, and not issued or failed yet."""
    answered = dig(obj, "status", "certificate") or condition(obj, "Denied") or condition(obj, "Failed")
    return bool(condition(obj, "Approved")) and not answered and obj["spec"].get("signerName") in SIGNED_HERE


def kept_until(obj: Json) -> datetime:
    """When a request may be removed."""
    answered = [c for kind in ("Denied", "Failed", "Approved") if (c := condition(obj, kind))]
    if not answered:
        return times.parse(obj["metadata"]["creationTimestamp"]) + KEPT_PENDING
    changed = answered[0].get("lastUpdateTime") or obj["metadata"]["creationTimestamp"]
    return times.parse(changed) + KEPT


def lifetime(spec: Json) -> timedelta:
    asked = spec.get("expirationSeconds")
    return LONGEST if asked is None else min(max(timedelta(seconds=asked), timedelta(minutes=10)), LONGEST)
