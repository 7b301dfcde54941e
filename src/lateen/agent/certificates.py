"""The workload's certificate: requested from istiod, written to files that Envoy or a gRPC library watches, renewed in
time."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from lateen.agent.bootstrap import CLIENT, ISTIOD
from lateen.agent.istiod import CRL, FAILURES, Istiod, until_answered
from lateen.kit import certs, crl, pkcs10, times
from lateen.kit.certs import Pair
from lateen.kit.files import write_atomic

log = logging.getLogger("lateen.agent.certificates")

ISSUE_S = 30.0
"""The timeout of a certificate request in seconds: external signers take a while."""
LOOK_S = 2.0
"""Seconds between checks of the mounted roots."""
ASK_S = 60.0
"""Seconds between a machine's requests for the roots."""
SPREAD_S = 30.0
"""Seconds over which proxies spread their renewals after the signing root has changed."""
SYSTEM_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",
)
"""Where distributions keep their trusted CA certificates."""
Asks = Literal["nothing", "lists", "everything"]
DOMAINS = "trust-domains.json"
"""A file next to the mounted roots: the roots of each trust domain, if they differ (``ca.authority.Told``)."""


@dataclass(frozen=True)
class Trusted:
    """The trust anchors for verifying peers."""

    root: str = ""
    """PEM."""
    crl: str = ""
    """Revocation lists, PEM."""
    domains: str = ""
    """A JSON object of the roots of each trust domain, if they differ; empty: ``root`` for all."""

    def check(self) -> None:
        """Raises ValueError for values that Envoy would reject."""
        if not certs.split(self.root):
            raise ValueError("there are no root certificates")
        if self.crl:
            crl.check(self.crl)
        for pem in self.bundles().values():
            certs.check_authorities(pem)

    def bundles(self) -> dict[str, str]:
        """The roots (PEM) by trust domain; empty if all have the same. Raises ValueError."""
        found = json.loads(self.domains) if self.domains else {}
        if not isinstance(found, dict):
            raise ValueError(f"{DOMAINS} is not a JSON object")
        return {str(domain): str(pem) or self.root for domain, pem in found.items()}


Write = Callable[[Path, str, str, Trusted], None]
"""(directory, certificate chain, key, trust anchors), PEM."""


class Source(Protocol):
    """A source of certificates. ``end`` is when the current one expires, in seconds since the epoch; 0 before there is
    one."""

    @property
    def end(self) -> float: ...

    async def first(self) -> float:
        """Wait for the first certificate; returns the seconds until its renewal."""

    async def renew(self, wait: float) -> None:
        """Never returns."""


@dataclass(frozen=True)
class Renewal:
    """When a certificate is renewed: when this share of its lifetime is left, with jitter so that proxies do not all
    renew at once. Istio's variables and defaults (``pkg/security``, ``pilot/cmd/pilot-agent/options``)."""

    ratio: float = 0.5
    jitter: float = 0.01

    def wait(self, certificate: str) -> float:
        """Seconds from now."""
        start, end = certs.validity(certificate)
        life = (end - start - certs.SKEW).total_seconds()
        grace = min(max(self.ratio + random.uniform(-self.jitter, self.jitter), 0.0), 1.0)
        return max(1.0, (end - times.now()).total_seconds() - life * grace)


def renewal(env: Mapping[str, str]) -> Renewal:
    """``SECRET_GRACE_PERIOD_RATIO`` and ``SECRET_GRACE_PERIOD_RATIO_JITTER``. Raises ValueError."""
    default = Renewal()
    return Renewal(
        _share(env, "SECRET_GRACE_PERIOD_RATIO", default.ratio),
        _share(env, "SECRET_GRACE_PERIOD_RATIO_JITTER", default.jitter),
    )


def _share(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name) or str(default)
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise ValueError(f'the environment variable {name}: "{text}" is not a number from 0 to 1')
    return found


class Certificates:
    """``end`` is when the current certificate expires, in seconds since the epoch; 0 before there is one."""

    def __init__(
        self,
        istiod: Istiod,
        directory: Path,
        write: Write,
        renewal: Renewal = Renewal(),
        asks: Asks = "nothing",
        identity: str = "",
        signer: str = "",
        group: str = "",
    ) -> None:
        """``identity``: the pod's presumed identity; istiod uses the token's, but external signers sign the one in the
        request. ``signer``: the requested external signer. ``group``: the WorkloadGroup of a machine. ``asks``: whether
        roots and revocation lists are requested from istiod, as by machines; pods have the roots mounted, but gateways
        have no revocation lists there."""
        self._istiod, self._directory, self._write, self._renewal = istiod, directory, write, renewal
        self._asks: Asks = asks
        self._asked, self._identity, self._signer, self._lists = 0.0, identity, signer, ""
        self._group = group
        self._pair = Pair("", "")
        self._trusted = self._mounted = Trusted()
        self.end = 0.0

    async def get(self) -> float:
        """Request a certificate and write it; returns the seconds until its renewal. Raises istiod.FAILURES."""
        key = certs.new_key()
        body = {"csr": pkcs10.request(key, self._identity), "signer": self._signer, "group": self._group}
        found = await self._istiod.ask("/certificates", body, timeout=ISSUE_S)
        pair = Pair(found["certificate"], certs.key_pem(key))
        trusted = Trusted(found["root"], found.get("crl", ""), found.get("domains", ""))
        trusted.check()
        self._write(self._directory, pair.certificate, pair.key, trusted)
        self._pair, self._trusted, self._lists = pair, trusted, trusted.crl if self._asks != "nothing" else ""
        _, end = certs.validity(self._pair.certificate)
        self.end = end.timestamp()
        log.info("certificate for %s until %s", found["identity"], end.isoformat())
        return self._renewal.wait(self._pair.certificate)

    async def first(self) -> float:
        self._mounted = await asyncio.to_thread(self._read)
        return await until_answered(self.get, "no certificate yet", longest=5.0)

    async def renew(self, wait: float) -> None:
        """Renew the certificate in time, and follow changes of the distributed roots. Never returns."""
        at = time.time() + wait
        while True:
            await asyncio.sleep(min(max(at - time.time(), 0.0), LOOK_S))
            try:
                at = await self._step(at)
            except Exception as e:  # noqa: BLE001 - a full disk, or whatever else: the next attempt may succeed
                log.warning("certificate renewal failed, will be retried: %s: %s", type(e).__name__, e)
                await asyncio.sleep(LOOK_S)

    async def _step(self, at: float) -> float:
        """``at``: when to renew, by the wall clock, because monotonic time stops while a machine sleeps."""
        if self._asks != "nothing" and abs(time.time() - self._asked) > ASK_S:
            self._asked = time.time()
            await self._ask()
        lists = self._trusted.crl
        changed = self._follow()
        if self._trusted.crl != lists and crl.revoked(self._pair.certificate, self._trusted.crl):
            log.warning("the certificate, or a CA above it, is revoked")
            at = time.time()
        elif changed and not certs.anchored(self._pair.certificate, self._trusted.root):
            # signed under a root that is being replaced, and will not be trusted forever
            at = min(at, time.time() + random.uniform(0, min(SPREAD_S, max(self.end - time.time(), 0) / 10)))
        if time.time() >= at:
            at = time.time() + await until_answered(self.get, "the certificate is not renewed yet", longest=5.0)
        return at

    async def _ask(self) -> None:
        """Request the roots from istiod and store them, on a machine at the path where pods have them mounted."""
        try:
            found = await self._istiod.ask("/roots", {})
            trusted = Trusted(str(found["root"]), str(found.get("crl", "")), str(found.get("domains", "")))
            trusted.check()
            self._lists = trusted.crl
            if self._asks == "everything" and trusted != self._read():
                for path, text in self._files(trusted):
                    path.parent.mkdir(exist_ok=True)
                    write_atomic(path, text)
        except FAILURES as e:
            log.warning("the trusted roots may be outdated: %s", str(e) or "timeout")

    def _files(self, trusted: Trusted) -> tuple[tuple[Path, str], ...]:
        root = self._istiod.root
        return (root.with_name(DOMAINS), trusted.domains), (root.parent / CRL, trusted.crl), (root, trusted.root)

    def _read(self) -> Trusted:
        """The trust anchors in the pod's files; empty where they cannot be read."""
        texts = []
        for path, _ in self._files(Trusted()):
            try:
                texts.append(path.read_text())
            except (OSError, ValueError):
                texts.append("")
        domains, crl, root = texts
        return Trusted(root, crl or self._lists, domains)

    def _follow(self) -> bool:
        """Load the mounted roots if they have changed; returns whether they have."""
        found = self._read()
        if found == self._mounted:
            return False
        before = self._trusted
        try:
            if found != before and found.root:
                found.check()
                self._write(self._directory, self._pair.certificate, self._pair.key, found)
                self._trusted = found
                log.info("the trusted roots have changed")
        except ValueError as e:
            log.warning(
                "the roots mounted in %s are not used, the previous roots stay: %s", self._istiod.root.parent, e
            )
        self._mounted = found  # only after it was written, so that failures are retried
        return before.root != self._trusted.root


def write_files(directory: Path, certificate: str, key: str, trusted: Trusted) -> None:
    """Write separate files, as gRPC libraries need them; only the proxy's user can read the key."""
    write_atomic(directory / "cert-chain.pem", certificate, 0o644)
    write_atomic(directory / "key.pem", key, 0o600)
    write_atomic(directory / "root-cert.pem", trusted.root, 0o644)


def _inline(pem: str) -> dict[str, str]:
    """PEM as inline bytes, the form that ``istioctl proxy-config secret`` expects."""
    return {"inline_bytes": base64.b64encode(pem.encode()).decode()}


def _secret(name: str, body: dict[str, object]) -> str:
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    return json.dumps({"resources": [{"@type": kind, "name": name, **body}]})


def write_roots(path: Path, name: str, trusted: Trusted) -> None:
    """Write CA certificates as file SDS. If trust domains have their own, Envoy's SPIFFE validator chooses by the trust
    domain of the peer's identity; it does not support revocation lists."""
    context: dict[str, object] = {"trusted_ca": _inline(trusted.root)}
    if bundles := trusted.bundles():
        config = {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
            "trust_domains": [{"name": d, "trust_bundle": _inline(pem)} for d, pem in sorted(bundles.items())],
        }
        context["custom_validator_config"] = {"name": "envoy.tls.cert_validator.spiffe", "typed_config": config}
    elif trusted.crl:
        context["crl"] = _inline(trusted.crl)
    write_atomic(path, _secret(name, {"validation_context": context}), 0o600)


def write_secrets(directory: Path, certificate: str, key: str, trusted: Trusted) -> None:
    """Write certificate, key and roots as file SDS; only the proxy's user can read the key."""
    system = next((p for p in SYSTEM_ROOTS if Path(p).exists()), None)
    known = {"filename": system} if system else _inline(trusted.root)  # without the file, no external server is trusted
    of_system = _secret("system", {"validation_context": {"trusted_ca": known}})
    write_atomic(directory / "sds-system.json", of_system, 0o644)
    write_files(directory, certificate, key, trusted)
    _write_pair(directory / "sds-default.json", "default", certificate, key)
    write_roots(directory / "sds-rootca.json", "ROOTCA", trusted)


def _write_pair(path: Path, name: str, certificate: str, key: str) -> None:
    pair = {"certificate_chain": _inline(certificate), "private_key": _inline(key)}
    write_atomic(path, _secret(name, {"tls_certificate": pair}), 0o600)


def write_client(directory: Path, certificate: str, key: str, trusted: Trusted) -> None:
    """Write what a proxy needs as a client of istiod alone, because its other certificates come from elsewhere."""
    write_files(directory, certificate, key, trusted)
    _write_pair(directory / f"sds-{CLIENT.lower()}.json", CLIENT, certificate, key)
    write_roots(directory / f"sds-{ISTIOD.lower()}.json", ISTIOD, replace(trusted, domains=""))


def write_all(directory: Path, certificate: str, key: str, trusted: Trusted) -> None:
    """Like ``write_secrets``, plus the roots that verify istiod: the same for all trust domains, because istiod is
    verified by its DNS name."""
    write_roots(directory / f"sds-{ISTIOD.lower()}.json", ISTIOD, replace(trusted, domains=""))
    write_secrets(directory, certificate, key, trusted)
