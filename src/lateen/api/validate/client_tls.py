"""Validation rules of client TLS settings, in DestinationRules and in the mesh configuration.

Source: istio.io/istio ``pkg/config/validation/agent/validation.go``, ValidateTLS.
"""

from __future__ import annotations

from lateen.api import networking as n
from lateen.api.networking.traffic_policy import CONFIG_MAP
from lateen.api.validate.findings import Findings, hint, no

_OWN = ("client_certificate", "private_key", "ca_certificates", "ca_crl", "credential_name")


def client_tls(tls: n.ClientTLS | None, at: str, namespace: str) -> Findings:
    """``namespace``: the object's, which must also be that of a ConfigMap with a CA."""
    if tls is None:
        return
    if tls.credential_name.startswith(CONFIG_MAP):
        yield from _config_map(tls.credential_name, f"{at}.credentialName", namespace)
    if tls.insecure_skip_verify:
        yield from _unverified(tls, at)
    own = [wire for name, wire in _wire(tls) if name in _OWN and getattr(tls, name)]
    if tls.mode in ("DISABLE", "ISTIO_MUTUAL") and own:
        why = "its certificates come from the mesh" if tls.mode == "ISTIO_MUTUAL" else "connections are plain text"
        yield hint(
            at, f"{tls.mode} does not use {', '.join(own)}: {why}; use SIMPLE or MUTUAL for your own certificates"
        )
    if tls.mode not in ("SIMPLE", "MUTUAL"):
        return
    if tls.credential_name:
        if len(own) > 1:
            yield no(at, "cannot specify client certificates or CA certificate or CA CRL If credentialName is set")
    elif tls.mode == "MUTUAL":
        if not tls.client_certificate:
            yield no(f"{at}.clientCertificate", "client certificate required for mutual tls")
        if not tls.private_key:
            yield no(f"{at}.privateKey", "private key required for mutual tls")


def _wire(tls: n.ClientTLS) -> list[tuple[str, str]]:
    return list(zip(tls.__struct_fields__, tls.__struct_encode_fields__, strict=True))


def _unverified(tls: n.ClientTLS, at: str) -> Findings:
    """Settings that say how to verify contradict ``insecureSkipVerify``. With MUTUAL, a credential also has the
    client's own certificate."""
    ca = bool(tls.ca_certificates or (tls.credential_name and tls.mode == "SIMPLE"))
    if tls.mode in ("SIMPLE", "MUTUAL") and (ca or tls.subject_alt_names):
        what = "CaCertificates or CredentialName" if tls.mode == "SIMPLE" else "CaCertificates"
        yield no(at, f"cannot specify {what} or SubjectAltNames when InsecureSkipVerify is set true")


def _config_map(text: str, at: str, namespace: str) -> Findings:
    given, slash, name = text.removeprefix(CONFIG_MAP).partition("/")
    if not slash:
        given, name = namespace, given
    if not name or "/" in name:
        yield no(at, f'invalid configmap:// credentialName: "{text[:80]}" is not {CONFIG_MAP}namespace/name')
    elif given != namespace:
        says = f'namespace must match the configuration namespace "{namespace}"'
        yield no(at, f"invalid configmap:// credentialName: {says}")
