"""The certificates that a proxy has: rows of ``proxy-config secret``."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

from cryptography import x509

from lateen.dump.config import ConfigDump
from lateen.kit import certs
from lateen.kit.jsons import Json, dig


def rows(dump: ConfigDump, now: datetime) -> list[tuple[list[str], Json]]:
    out = []
    for state, secret in dump.secrets():
        kind, pem = _pem(secret)
        found: list[x509.Certificate | None] = [*certs.parsed(pem)]
        for certificate in found or [None]:
            row = [str(secret.get("name")), kind, state, "false", "", "", ""]
            if certificate is not None:
                start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
                valid = "true" if start <= now <= end else "false"
                row[3:] = [valid, f"{certificate.serial_number:x}", _time(end), _time(start)]
            out.append((row, secret))
    return out


def roots(dump: ConfigDump) -> list[str]:
    """The root certificates as PEM."""
    return [pem for _, s in dump.secrets() if (pem := _pem(s)[1].strip()) and "validation_context" in s]


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _pem(secret: Json) -> tuple[str, str]:
    if "validation_context" in secret:
        return "CA", _data(dig(secret, "validation_context", "trusted_ca", default={}))
    return "Cert Chain", _data(dig(secret, "tls_certificate", "certificate_chain", default={}))


def _data(source: Json) -> str:
    if text := source.get("inline_string"):
        return str(text)
    if raw := source.get("inline_bytes"):
        return base64.b64decode(raw).decode(errors="replace")
    return ""
