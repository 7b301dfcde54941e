"""Server-side TLS settings: https://istio.io/latest/docs/reference/config/networking/gateway/#ServerTLSSettings"""

from __future__ import annotations

from typing import Annotated, Literal

from lateen.api.config import Config, Limits, one_of, rules


class ServerCertificate(Config):
    server_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""


ECDH_CURVES = frozenset(("P-256", "P-384", "P-521", "X25519", "X25519MLKEM768"))
"""The values that the proxy's TLS library supports."""


class ServerTLS(Config):
    RULES = rules(
        one_of("only one of credentialNames or tlsCertificates can be set", "tlsCertificates", "credentialNames"),
        one_of("only one of credentialName or credentialNames can be set", "credentialName", "credentialNames"),
    )

    https_redirect: bool = False
    mode: Literal["PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"] = (
        "PASSTHROUGH"
    )
    server_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""
    ca_crl: str = ""
    credential_name: str = ""
    credential_names: Annotated[tuple[str, ...], Limits(min_items=1, max_items=2)] = ()
    ca_cert_credential_name: str = ""
    tls_certificates: Annotated[tuple[ServerCertificate, ...], Limits(min_items=1, max_items=2)] = ()
    subject_alt_names: tuple[str, ...] = ()
    verify_certificate_spki: tuple[str, ...] = ()
    verify_certificate_hash: tuple[str, ...] = ()
    min_protocol_version: str = ""
    max_protocol_version: str = ""
    cipher_suites: tuple[str, ...] = ()
    ecdh_curves: tuple[str, ...] = ()
    insecure_skip_verify: bool | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Names of the Secrets with the server's certificates; empty if they are in files."""
        return self.credential_names or ((self.credential_name,) if self.credential_name else ())

    @property
    def authorities(self) -> str:
        """The name of the Secret with the CA certificates that verify clients; servers that share a certificate may
        have different ones."""
        return self.ca_cert_credential_name or next(iter(self.secrets), "")
