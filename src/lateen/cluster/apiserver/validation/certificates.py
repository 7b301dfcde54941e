"""CertificateSigningRequests (follows pkg/apis/certificates/validation)."""

from __future__ import annotations

import base64
import binascii

from lateen.cluster.apiserver.validation import names
from lateen.cluster.apiserver.validation.fields import Causes, bad, denied, duplicate, required, unsupported
from lateen.cluster.rules import requests
from lateen.kit.jsons import Json, dig

_DECISIONS = ("Approved", "Denied")
MIN_SECONDS = 600


def request(obj: Json, _: Json | None) -> Causes:
    spec = obj.get("spec") or {}
    out: Causes = []
    from lateen.cluster.rules import signing

    try:
        signing.parse(spec.get("request") or "")
    except ValueError as e:
        out.append(bad("spec.request", spec.get("request") or "", str(e)))
    usages = spec.get("usages") or []
    if not usages:
        out.append(required("spec.usages", "usages must be provided"))
    for i, usage in enumerate(usages):
        if usage not in requests.USAGES:
            out.append(unsupported(f"spec.usages[{i}]", usage, requests.USAGES))
        elif usage in usages[:i]:
            out.append(duplicate(f"spec.usages[{i}]", usage))
    out += _signer(str(spec.get("signerName") or ""))
    seconds = spec.get("expirationSeconds", MIN_SECONDS)
    if seconds < MIN_SECONDS:
        says = f"may not specify a duration less than {MIN_SECONDS} seconds (10 minutes)"
        out.append(bad("spec.expirationSeconds", seconds, says))
    return out


def _signer(name: str) -> Causes:
    at = "spec.signerName"
    if not name:
        return [required(at)]
    if name == requests.LEGACY:
        return [bad(at, name, "the legacy signerName is not allowed via this API version")]
    domain, slash, path = name.partition("/")
    if not slash or "/" in path:
        says = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        return [bad(at, name, says)]
    out = [bad(at, domain, s) for s in names.dns_subdomain(domain)]
    if "." not in domain:
        out.append(bad(at, domain, "should be a domain with at least two segments separated by dots"))
    return out + [bad(at, path, s) for s in names.dns_subdomain(path)]


def decided(obj: Json, old: Json, subresource: str) -> Causes:
    """A change of ``approval`` (conditions) or of ``status`` (certificate, and conditions but for the decision)."""
    found, before = (dig(o, "status", "conditions", default=[]) for o in (obj, old))
    kinds, earlier = [str(c.get("type") or "") for c in found], [str(c.get("type") or "") for c in before]
    at = "status.conditions"
    out: Causes = []
    for i, c in enumerate(found):
        if not kinds[i]:
            out.append(required(f"{at}[{i}].type"))
        elif kinds[i] in kinds[:i]:
            out.append(duplicate(f"{at}[{i}].type", kinds[i]))
        allowed = ("True",) if kinds[i] in (*_DECISIONS, "Failed") else ("False", "True", "Unknown")
        if not c.get("status"):
            out.append(required(f"{at}[{i}].status"))
        elif c["status"] not in allowed:
            out.append(unsupported(f"{at}[{i}].status", c["status"], allowed))
    if set(_DECISIONS) <= set(kinds):
        out.append(bad(at, "Denied", "Approved and Denied conditions are mutually exclusive"))
    for kind in sorted({*_DECISIONS, "Failed"}):
        if kind in earlier and kind not in kinds:
            out.append(denied(at, f'updates may not remove a condition of type "{kind}"'))
        elif kind in _DECISIONS and kind in kinds and kind not in earlier and subresource == "status":
            out.append(denied(at, f'updates may not add a condition of type "{kind}"'))
    return out + _certificate(dig(obj, "status", "certificate"), dig(old, "status", "certificate"))


def _certificate(new: str | None, old: str | None) -> Causes:
    at = "status.certificate"
    if new == old:
        return []
    if old:
        return [denied(at, "updates may not modify certificate content")]
    from cryptography import x509

    try:
        x509.load_pem_x509_certificates(base64.b64decode(str(new), validate=True))
    except (ValueError, binascii.Error):
        return [bad(at, str(new)[:40], "must contain one or more PEM blocks of type CERTIFICATE")]
    return []
