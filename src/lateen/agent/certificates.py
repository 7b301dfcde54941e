"""The workload's certificate: requested from istiod, written where Envoy or a gRPC library watches, renewed in time."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
from collections.abc import Callable
from pathlib import Path

from lateen.agent.istiod import Istiod, until_answered
from lateen.kit import certs, times
from lateen.kit.files import write_atomic

log = logging.getLogger("lateen.agent.certificates")

RENEW_AT = 0.5
SYSTEM_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",
)
"""Where distributions keep the certificate authorities that they trust."""
Write = Callable[[Path, str, str, str], None]
"""(directory, certificate chain, key, root), all PEM."""


class Certificates:
    def __init__(self, istiod: Istiod, directory: Path, write: Write) -> None:
        self._istiod, self._directory, self._write = istiod, directory, write

    async def get(self) -> float:
        """Request a certificate and write it; returns the seconds until its renewal. Raises istiod.FAILURES."""
        key = certs.new_key()
        found = await self._istiod.ask("/certificates", {"csr": certs.request(key)})
        self._write(self._directory, found["certificate"], certs.key_pem(key), found["root"])
        _, end = certs.validity(found["certificate"])
        log.info("certificate for %s until %s", found["identity"], end.isoformat())
        # At about half of its lifetime, so that not all proxies renew at once.
        return max(1.0, (end - times.now()).total_seconds() * random.uniform(RENEW_AT - 0.01, RENEW_AT + 0.01))

    async def first(self) -> float:
        return await until_answered(self.get, "no certificate yet", longest=5.0)

    async def renew(self, wait: float) -> None:
        """Never returns."""
        while True:
            await asyncio.sleep(wait)
            wait = await self.first()


def write_files(directory: Path, certificate: str, key: str, root: str) -> None:
    """Write separate files, as gRPC libraries need them; only the proxy's user can read the key."""
    write_atomic(directory / "cert-chain.pem", certificate, 0o644)
    write_atomic(directory / "key.pem", key, 0o600)
    write_atomic(directory / "root-cert.pem", root, 0o644)


def _inline(pem: str) -> dict[str, str]:
    """As bytes, where ``istioctl proxy-config secret`` looks for it."""
    return {"inline_bytes": base64.b64encode(pem.encode()).decode()}


def write_secrets(directory: Path, certificate: str, key: str, root: str) -> None:
    """Certificate, key and root as file SDS; only the proxy's user can read the key."""

    def secret(name: str, body: dict[str, object]) -> str:
        return json.dumps(
            {
                "resources": [
                    {
                        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
                        "name": name,
                        **body,
                    }
                ]
            }
        )

    system = next((p for p in SYSTEM_ROOTS if Path(p).exists()), None)
    trusted = {"filename": system} if system else _inline(root)  # no file: then no external server is trusted
    write_atomic(
        directory / "sds-system.json", secret("system", {"validation_context": {"trusted_ca": trusted}}), 0o644
    )
    write_files(directory, certificate, key, root)
    write_atomic(
        directory / "sds-default.json",
        secret(
            "default",
            {
                "tls_certificate": {
                    "certificate_chain": _inline(certificate),
                    "private_key": _inline(key),
                }
            },
        ),
        0o600,
    )
    write_atomic(
        directory / "sds-rootca.json",
        secret("ROOTCA", {"validation_context": {"trusted_ca": _inline(root)}}),
        0o600,
    )
