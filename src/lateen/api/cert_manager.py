"""cert-manager.io: Issuer, ClusterIssuer and Certificate, as far as gateways need them: certificates from ACME servers,
from a CA in a Secret, and self-signed ones.

Field names and meanings are cert-manager's: https://cert-manager.io/docs/reference/api-docs/. ``tlsALPN01`` is ours:
cert-manager has no such solver.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from lateen.api.config import Config, Duration

GROUP = "cert-manager.io"
DAY_S = 24 * 3600.0
DURATION_S = 90 * DAY_S
"""The default validity of certificates issued by a CA in a Secret, as in cert-manager. ACME servers decide
themselves."""
BY_ISSUER, BY_CLUSTER_ISSUER = f"{GROUP}/issuer", f"{GROUP}/cluster-issuer"
"""Annotations of Gateways and Ingresses that name the issuer of their certificates."""


class KeySelector(Config):
    name: str = ""
    key: str = ""


class ExternalAccountBinding(Config):
    key_id: str = msgspec.field(default="", name="keyID")
    key_secret_ref: KeySelector = KeySelector()
    key_algorithm: str = ""


class HTTP01(Config):
    """All gateways of the mesh answer challenges, so no solver pods are created."""

    ingress: dict[str, Any] | None = None
    gateway_http_route: dict[str, Any] | None = msgspec.field(default=None, name="gatewayHTTPRoute")


class TLSALPN01(Config):
    pass


class SolverSelector(Config):
    """The names that a solver applies to; the most specific solver is used."""

    match_labels: dict[str, str] = {}
    dns_names: tuple[str, ...] = ()
    dns_zones: tuple[str, ...] = ()


class Solver(Config):
    selector: SolverSelector | None = None
    http01: HTTP01 | None = None
    tls_alpn01: TLSALPN01 | None = msgspec.field(default=None, name="tlsALPN01")
    dns01: dict[str, Any] | None = None


class ACME(Config):
    server: str = ""
    email: str = ""
    private_key_secret_ref: KeySelector = KeySelector()
    solvers: tuple[Solver, ...] = ()
    ca_bundle: str = ""
    """The CAs that verify the server's certificate: PEM, encoded in Base64."""
    skip_tls_verify: bool = msgspec.field(default=False, name="skipTLSVerify")
    external_account_binding: ExternalAccountBinding | None = None
    preferred_chain: str = ""
    profile: str = ""
    disable_account_key_generation: bool = False
    enable_duration_feature: bool = False


class CA(Config):
    secret_name: str = ""
    crl_distribution_points: tuple[str, ...] = ()
    ocsp_servers: tuple[str, ...] = ()
    issuing_certificate_urls: tuple[str, ...] = msgspec.field(default=(), name="issuingCertificateURLs")


class SelfSigned(Config):
    crl_distribution_points: tuple[str, ...] = ()


class Issuer(Config):
    acme: ACME | None = None
    ca: CA | None = None
    self_signed: SelfSigned | None = None
    vault: dict[str, Any] | None = None
    venafi: dict[str, Any] | None = None


class ClusterIssuer(Issuer):
    """An Issuer for all namespaces; its Secrets are in the control plane's namespace."""


class IssuerReference(Config):
    name: str = ""
    kind: str = ""
    group: str = ""

    @property
    def whole(self) -> str:
        """``ClusterIssuer``, or ``Issuer``, the default."""
        return self.kind or "Issuer"


class PrivateKey(Config):
    """``Never``: the existing key of the Secret is reused."""

    algorithm: Literal["RSA", "ECDSA", "Ed25519"] | None = None
    size: int = 0
    encoding: str = ""
    rotation_policy: Literal["Always", "Never"] | None = None


class SecretTemplate(Config):
    annotations: dict[str, str] = {}
    labels: dict[str, str] = {}


class Certificate(Config):
    secret_name: str = ""
    dns_names: tuple[str, ...] = ()
    common_name: str = ""
    issuer_ref: IssuerReference = IssuerReference()
    duration: Duration | None = None
    renew_before: Duration | None = None
    renew_before_percentage: int | None = None
    private_key: PrivateKey | None = None
    is_ca: bool = msgspec.field(default=False, name="isCA")
    secret_template: SecretTemplate | None = None
    usages: tuple[str, ...] = ()
    subject: dict[str, Any] | None = None
    literal_subject: str = ""
    ip_addresses: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    email_addresses: tuple[str, ...] = ()
    other_names: tuple[dict[str, Any], ...] = ()
    keystores: dict[str, Any] | None = None
    additional_output_formats: tuple[dict[str, Any], ...] = ()
    name_constraints: dict[str, Any] | None = None
    revision_history_limit: int | None = None
    encode_usages_in_request: bool = False
    signature_algorithm: str = ""


def names(certificate: Certificate) -> tuple[str, ...]:
    """All names of a certificate, in lower case, the common name first."""
    found = (certificate.common_name, *certificate.dns_names)
    return tuple(dict.fromkeys(n.lower() for n in found if n))
