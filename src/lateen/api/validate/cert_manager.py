"""Validation rules of Issuer, ClusterIssuer and Certificate.

Source: https://cert-manager.io/docs/reference/api-docs/, RFC 8555 and RFC 8737, and what is implemented. Features that
are not implemented are refused, so that no certificate is issued that lacks something that was requested.
"""

from __future__ import annotations

import base64
import contextlib
import urllib.parse

from cryptography import x509

from lateen.api import cert_manager as cm
from lateen.api.config import Duration
from lateen.api.validate import scalars as s
from lateen.api.validate.findings import Findings, no, warn
from lateen.kit import addresses
from lateen.kit.jsons import Json

MAX_NAMES = 100
"""The most names in one certificate (Let's Encrypt's limit)"""
SHORTEST_S = 3600.0
"""As in cert-manager: the shortest ``duration``."""
MARGIN_S = 300.0
"""As in cert-manager: the shortest ``renewBefore``."""
SIZES = {"RSA": (2048, 3072, 4096), "ECDSA": (256, 384, 521)}
TYPES = ("acme", "ca", "selfSigned")
_NOT_THERE = {
    "uris": "no issuer of Lateen puts URIs into certificates",
    "ipAddresses": "no issuer of Lateen puts IP addresses into certificates",
    "emailAddresses": "no issuer of Lateen puts e-mail addresses into certificates",
    "otherNames": "no issuer of Lateen puts other names into certificates",
    "literalSubject": "use commonName",
    "subject": "only a commonName is put into the subject",
    "nameConstraints": "they are not put into certificates",
    "keystores": "the Secret contains only tls.crt and tls.key",
    "additionalOutputFormats": "the Secret contains only tls.crt and tls.key",
}


def issuer(spec: cm.Issuer, _: Json) -> Findings:
    for other, given in (("vault", spec.vault), ("venafi", spec.venafi)):
        if given is not None:
            yield no(f"spec.{other}", f"is not implemented; an issuer is one of {', '.join(TYPES)}")
    found = [name for name, given in zip(TYPES, (spec.acme, spec.ca, spec.self_signed), strict=True) if given]
    if spec.self_signed is not None and "selfSigned" not in found:
        found.append("selfSigned")
    if len(found) != 1 and spec.vault is None and spec.venafi is None:
        yield no("spec", f"give exactly one of {', '.join(TYPES)}" + (f"; it has {', '.join(found)}" if found else ""))
    if spec.acme is not None:
        yield from _acme(spec.acme)
    if spec.ca is not None and not spec.ca.secret_name:
        yield no("spec.ca.secretName", "name the Secret with the CA's certificate and key (tls.crt, tls.key)")


def _acme(acme: cm.ACME) -> Findings:
    yield from _server(acme.server)
    if not acme.private_key_secret_ref.name:
        yield no("spec.acme.privateKeySecretRef.name", "name the Secret in which the account's key is kept")
    if acme.skip_tls_verify:
        says = "is refused: a man-in-the-middle could have certificates issued; give the server's CA in caBundle"
        yield no("spec.acme.skipTLSVerify", says)
    if acme.ca_bundle:
        try:
            x509.load_pem_x509_certificates(base64.b64decode(acme.ca_bundle, validate=True))
        except ValueError:
            yield no("spec.acme.caBundle", "is not the base64 text of PEM certificates")
    bound = acme.external_account_binding
    if bound is not None:
        if not bound.key_id:
            yield no("spec.acme.externalAccountBinding.keyID", "is the identifier that the CA has given you")
        if not (bound.key_secret_ref.name and bound.key_secret_ref.key):
            yield no("spec.acme.externalAccountBinding.keySecretRef", "needs the Secret's name and the key in it")
    if not acme.solvers:
        yield no("spec.acme.solvers", "give at least one, such as {http01: {}}")
    for i, solver in enumerate(acme.solvers):
        yield from _solver(solver, f"spec.acme.solvers[{i}]")


def _server(text: str) -> Findings:
    at = "spec.acme.server"
    try:
        parts = urllib.parse.urlsplit(text)
        _ = parts.port
    except ValueError as e:
        yield no(at, f'"{text[:80]}" is not a URL: {e}')
        return
    if parts.scheme != "https" or not parts.hostname:
        yield no(at, "must be the https URL of an ACME directory, such as that of your CA's documentation")
        return
    with contextlib.suppress(ValueError):  # a name is looked up when a certificate is ordered
        if why := addresses.refused(parts.hostname):
            yield warn(at, f"istiod does not connect to {parts.hostname}: {why}; no certificate can be issued")


def _solver(solver: cm.Solver, at: str) -> Findings:
    if solver.dns01 is not None:
        yield no(f"{at}.dns01", "is not implemented: Lateen changes no DNS records; use http01 or tlsALPN01")
    elif (solver.http01 is None) == (solver.tls_alpn01 is None):
        yield no(at, "give exactly one of http01 and tlsALPN01")
    for i, zone in enumerate(solver.selector.dns_zones if solver.selector else ()):
        yield from s.fqdn(zone, f"{at}.selector.dnsZones[{i}]")


def certificate(spec: cm.Certificate, _: Json) -> Findings:
    if not s.is_label(spec.secret_name.replace(".", "-")) or len(spec.secret_name) > 253:
        yield no("spec.secretName", "name the Secret in which the certificate is kept")
    ref = spec.issuer_ref
    if not ref.name:
        yield no("spec.issuerRef.name", "name the Issuer or ClusterIssuer")
    if ref.whole not in ("Issuer", "ClusterIssuer") or ref.group not in ("", cm.GROUP):
        yield no("spec.issuerRef.kind", f"must be Issuer or ClusterIssuer of {cm.GROUP}")
    yield from _names(spec)
    yield from _times(spec)
    if spec.private_key is not None:
        yield from _key(spec.private_key)
    if spec.secret_template is not None:
        yield from _template(spec.secret_template)
    given = {
        "uris": spec.uris,
        "ipAddresses": spec.ip_addresses,
        "emailAddresses": spec.email_addresses,
        "otherNames": spec.other_names,
        "literalSubject": spec.literal_subject,
        "subject": spec.subject,
        "nameConstraints": spec.name_constraints,
        "keystores": spec.keystores,
        "additionalOutputFormats": spec.additional_output_formats,
    }
    for field, value in given.items():
        if value:
            yield no(f"spec.{field}", f"is not implemented: {_NOT_THERE[field]}")


def _template(template: cm.SecretTemplate) -> Findings:
    at = "spec.secretTemplate"
    yield from s.labels(template.labels, f"{at}.labels")
    yield from s.notes(template.annotations, f"{at}.annotations")


def _names(spec: cm.Certificate) -> Findings:
    found = cm.names(spec)
    if not found:
        yield no("spec.dnsNames", "give at least one name")
    if len(found) > MAX_NAMES:
        yield no("spec.dnsNames", f"may have at most {MAX_NAMES} names; it has {len(found)}")
    for i, name in enumerate(spec.dns_names):
        yield from s.wildcard_domain(name, f"spec.dnsNames[{i}]")
    yield from _common_name(spec)


def _common_name(spec: cm.Certificate) -> Findings:
    """A server's is one of its DNS names; an authority's is free text."""
    name, at = spec.common_name, "spec.commonName"
    if len(name) > 64:
        yield no(at, "may have at most 64 characters")
    elif spec.is_ca and not name.isprintable():
        yield no(at, "must not have control characters")
    elif name and not spec.is_ca:
        yield from s.wildcard_domain(name, at)


def _times(spec: cm.Certificate) -> Findings:
    lasts = spec.duration.seconds if spec.duration else cm.DURATION_S
    if spec.duration is not None and lasts < SHORTEST_S:
        yield no("spec.duration", "must be at least 1h")
    if spec.renew_before is not None and spec.renew_before_percentage is not None:
        yield no("spec.renewBeforePercentage", "give either renewBefore or renewBeforePercentage")
    yield from _margin(spec.renew_before, lasts)
    if spec.renew_before_percentage is not None and not 0 < spec.renew_before_percentage < 100:
        yield no("spec.renewBeforePercentage", "must be from 1 to 99")


def _margin(before: Duration | None, lasts: float) -> Findings:
    if before is None:
        return
    if before.seconds < MARGIN_S:
        yield no("spec.renewBefore", "must be at least 5m")
    elif before.seconds >= lasts:
        yield no("spec.renewBefore", "must be shorter than duration (90 days where nothing is said)")


def _key(key: cm.PrivateKey) -> Findings:
    at = "spec.privateKey"
    if key.algorithm == "Ed25519":
        yield no(f"{at}.algorithm", "Ed25519 is not implemented: Envoy serves no such certificates; use RSA or ECDSA")
    elif key.size and key.size not in (sizes := SIZES[key.algorithm or "RSA"]):
        yield no(f"{at}.size", f"of {key.algorithm or 'RSA'} is one of {', '.join(map(str, sizes))}")
    if key.encoding not in ("", "PKCS1", "PKCS8"):
        yield no(f"{at}.encoding", "must be PKCS1 or PKCS8")
