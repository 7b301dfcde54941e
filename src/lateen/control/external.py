"""Certificates from an external CA, through Kubernetes' CertificateSigningRequests: istiod authenticates the caller,
creates the request and approves it; the cluster's signer of that name (such as cert-manager) signs it.

Source: https://istio.io/latest/docs/tasks/security/cert-management/custom-ca-k8s/ and security/pkg/k8s/chiron.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from lateen.api import kinds
from lateen.ca.authority import Identity, Refused
from lateen.kit import certs, pkcs10, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError

log = logging.getLogger("lateen.control.external")

MODE = "ISTIOD_RA_KUBERNETES_API"
"""The only value of EXTERNAL_CA."""
CLUSTER_CA = Path("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")
USAGES = ["digital signature", "key encipherment", "server auth", "client auth"]
ANSWER_S, POLL_S = 20.0, 0.3
SHORTEST = timedelta(minutes=10)
"""Kubernetes' lower bound of ``expirationSeconds``."""
_SIGNER = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


@dataclass(frozen=True)
class Signers:
    default: str = ""
    """K8S_SIGNER: the default signer."""
    domain: str = ""
    """CERT_SIGNER_DOMAIN: the domain within which workloads choose a signer with ISTIO_META_CERT_SIGNER."""

    def chosen(self, asked: str) -> str:
        """Raises Refused."""
        if asked and not self.domain:
            raise Refused(f'the workload asks for the signer "{asked[:100]}", but istiod has no CERT_SIGNER_DOMAIN')
        if asked and not _SIGNER.fullmatch(asked):
            raise Refused(f'"{asked[:100]}" is not the name of a signer')
        found = f"{self.domain}/{asked}" if asked else self.default
        if not found:
            raise Refused("the workload names no signer (proxyMetadata ISTIO_META_CERT_SIGNER), nor does K8S_SIGNER")
        return found


class External:
    def __init__(self, client: Client, signers: Signers, roots: Callable[[str], str]) -> None:
        """``roots``: the trusted roots (PEM) of a signer's certificates."""
        self._client, self._signers, self._roots = client, signers, roots

    async def sign(self, csr: str, who: Identity, asked: str, ttl: timedelta) -> str:
        """The certificate with its chain. Raises Refused, KubeError, OSError."""
        self._check(csr, who)
        signer = self._signers.chosen(asked)
        name = f"csr-workload-{uuid.uuid4().hex[:20]}"
        try:
            await self._client.create(kinds.CERTIFICATE_REQUEST, _request(name, csr, signer, ttl))
            await self._approve(name, who)
            chain = await self._answer(name, signer)
        finally:
            await self._forget(name)
        self._verify(chain, csr, who, signer)
        return chain

    def _check(self, csr: str, who: Identity) -> None:
        """The signer signs whatever the request contains, so it must ask for exactly the caller's identity."""
        try:
            found = pkcs10.names(csr)
        except ValueError as e:
            raise Refused(str(e)) from e
        if found != [str(who)]:
            raise Refused(f"the request is for {', '.join(found) or 'no identity'}, the token is that of {who}")

    async def _approve(self, name: str, who: Identity) -> None:
        found = await self._client.get(kinds.CERTIFICATE_REQUEST, "", name)
        now = times.stamp()
        condition = {"type": "Approved", "status": "True", "reason": "AutoApproved", "lastUpdateTime": now}
        condition |= {"message": f"istiod has verified the token of {who}", "lastTransitionTime": now}
        approved = {**(found or {}), "status": {"conditions": [condition]}}
        await self._client.update(kinds.CERTIFICATE_REQUEST, approved, "approval")

    async def _answer(self, name: str, signer: str) -> str:
        try:
            async with asyncio.timeout(ANSWER_S):
                while True:
                    found = await self._client.get(kinds.CERTIFICATE_REQUEST, "", name) or {}
                    if text := dig(found, "status", "certificate", default=""):
                        return base64.b64decode(text).decode(errors="replace")
                    for c in dig(found, "status", "conditions", default=[]):
                        if c.get("type") in ("Denied", "Failed"):
                            raise Refused(f"the signer {signer} refuses: {c.get('message') or c['type']}")
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise OSError(f"the signer {signer} did not sign within {ANSWER_S:.0f} s") from None

    async def _forget(self, name: str) -> None:
        try:
            await self._client.delete(kinds.CERTIFICATE_REQUEST, "", name)
        except (KubeError, OSError) as e:
            log.warning("the certificate request %s is left for Kubernetes to delete: %s", name, e)

    def _verify(self, chain: str, csr: str, who: Identity, signer: str) -> None:
        """Check that a certificate is the requested one and that peers will accept it. Raises Refused."""
        try:
            certs.verify(chain, self._roots(signer), pkcs10.public_key(csr), str(who), times.now())
        except ValueError as e:
            raise Refused(
                f"the certificate from {signer} is not used: {e}; its root must be in meshConfig.caCertificates"
            ) from e


def _request(name: str, csr: str, signer: str, ttl: timedelta) -> Json:
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name, "labels": {"app": "istiod"}},
        "spec": {
            "request": base64.b64encode(csr.encode()).decode(),
            "signerName": signer,
            "usages": USAGES,
            "expirationSeconds": int(max(ttl, SHORTEST).total_seconds()),
        },
    }


def cluster_roots() -> str:
    """The cluster's own CA, used by Kubernetes' built-in signers; empty if there is none."""
    try:
        return CLUSTER_CA.read_text()
    except OSError:
        return ""
