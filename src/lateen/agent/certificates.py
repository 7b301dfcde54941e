"""The workload's certificate: requested from istiod, written where Envoy or a gRPC library watches, renewed in time."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lateen.agent.istiod import FAILURES, Istiod, until_answered
from lateen.kit import certs, times
from lateen.kit.certs import Pair
from lateen.kit.files import write_atomic

log = logging.getLogger("lateen.agent.certificates")

ISSUE_S = 30.0
"""Seconds that a certificate may take: signers of others need some."""
LOOK_S = 2.0
"""How often the mounted roots are looked at, in seconds."""
ASK_S = 60.0
"""How often a machine asks for them, in seconds."""
SPREAD_S = 30.0
"""Seconds over which proxies ask for new certificates after the root under which they are signed has changed."""
SYSTEM_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",
)
"""Where distributions keep the certificate authorities that they trust."""
Write = Callable[[Path, str, str, str], None]
"""(directory, certificate chain, key, root), all PEM."""


class Source(Protocol):
    """Where a certificate comes from. ``end`` is when the present one expires, in seconds since the epoch; 0 before
    there is one."""

    end: float

    async def first(self) -> float:
        """Wait for one; the seconds until its renewal."""

    async def renew(self, wait: float) -> None:
        """Never returns."""


@dataclass(frozen=True)
class Renewal:
    """When a certificate is renewed: at this share of its lifetime before its end, varied so that not all proxies ask
    at once. Istio's variables and defaults (``pkg/security``, ``pilot/cmd/pilot-agent/options``)."""

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
    """``end`` is when the present one expires, in seconds since the epoch; 0 before there is one."""

    def __init__(
        self,
        istiod: Istiod,
        directory: Path,
        write: Write,
        renewal: Renewal = Renewal(),
        asks: bool = False,
        identity: str = "",
        signer: str = "",
        group: str = "",
    ) -> None:
        """``identity``: what the pod believes to be; istiod goes by the token, but signers of others sign what is in
        the request. ``signer``: which of these is wanted. ``group``: the WorkloadGroup of a machine. ``asks``: istiod
        for its roots, as a machine has to; pods have them mounted, and Kubernetes updates them."""
        self._istiod, self._directory, self._write, self._renewal = istiod, directory, write, renewal
        self._asks, self._asked, self._identity, self._signer = asks, 0.0, identity, signer
        self._group = group
        self._pair = Pair("", "")
        self._root = self._mounted = ""
        self.end = 0.0

    async def get(self) -> float:
        """Request a certificate and write it; returns the seconds until its renewal. Raises istiod.FAILURES."""
        key = certs.new_key()
        body = {"csr": certs.request(key, self._identity), "signer": self._signer, "group": self._group}
        found = await self._istiod.ask("/certificates", body, timeout=ISSUE_S)
        pair = Pair(found["certificate"], certs.key_pem(key))
        self._write(self._directory, pair.certificate, pair.key, found["root"])
        self._pair, self._root = pair, found["root"]
        _, end = certs.validity(self._pair.certificate)
        self.end = end.timestamp()
        log.info("certificate for %s until %s", found["identity"], end.isoformat())
        return self._renewal.wait(self._pair.certificate)

    async def first(self) -> float:
        self._mounted = await asyncio.to_thread(self._read)
        return await until_answered(self.get, "no certificate yet", longest=5.0)

    async def renew(self, wait: float) -> None:
        """Renew the certificate in time, and follow the roots that are distributed meanwhile. Never returns."""
        at = time.time() + wait
        while True:
            await asyncio.sleep(min(max(at - time.time(), 0.0), LOOK_S))
            try:
                at = await self._step(at)
            except Exception as e:  # noqa: BLE001 - a full disk, or whatever else: the next attempt may succeed
                log.warning("the certificate is not looked after now: %s: %s", type(e).__name__, e)
                await asyncio.sleep(LOOK_S)

    async def _step(self, at: float) -> float:
        """``at``: when to renew, by the clock, since a machine that sleeps does not count the seconds."""
        if self._asks and abs(time.time() - self._asked) > ASK_S:
            self._asked = time.time()
            await self._ask()
        if self._follow() and not certs.anchored(self._pair.certificate, self._root):
            # Signed under another root than new certificates are, which will not be trusted for ever.
            at = min(at, time.time() + random.uniform(0, min(SPREAD_S, max(self.end - time.time(), 0) / 10)))
        if time.time() >= at:
            at = time.time() + await until_answered(self.get, "the certificate is not renewed yet", longest=5.0)
        return at

    async def _ask(self) -> None:
        try:
            found = str((await self._istiod.ask("/roots", {}))["root"])
            if found != self._read() and certs.split(found):
                write_atomic(self._istiod.root, found)
        except FAILURES as e:
            log.warning("the trusted roots are not known to be current: %s", str(e) or "timeout")

    def _read(self) -> str:
        """The roots in the pod's file; empty if they cannot be read now."""
        try:
            return self._istiod.root.read_text()
        except (OSError, ValueError):
            return ""

    def _follow(self) -> bool:
        """Take the roots of the mounted ConfigMap where they have changed; whether they have."""
        found = self._read()
        if found == self._mounted:
            return False
        try:
            new = found != self._root and bool(certs.split(found))
        except ValueError:
            log.warning("%s is not PEM text of certificates; the former roots stay trusted", self._istiod.root)
            new = False
        if new:
            self._write(self._directory, self._pair.certificate, self._pair.key, found)
            self._root = found
        self._mounted = found  # not before it is written: what fails is tried again
        if not new:
            return False
        log.info("the trusted roots have changed")
        return True


def write_files(directory: Path, certificate: str, key: str, root: str) -> None:
    """Write separate files, as gRPC libraries need them; only the proxy's user can read the key."""
    write_atomic(directory / "cert-chain.pem", certificate, 0o644)
    write_atomic(directory / "key.pem", key, 0o600)
    write_atomic(directory / "root-cert.pem", root, 0o644)


def _inline(pem: str) -> dict[str, str]:
    """As bytes, where ``istioctl proxy-config secret`` looks for it."""
    return {"inline_bytes": base64.b64encode(pem.encode()).decode()}


def _secret(name: str, body: dict[str, object]) -> str:
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    return json.dumps({"resources": [{"@type": kind, "name": name, **body}]})


def write_roots(path: Path, name: str, pem: str) -> None:
    """Authorities as file SDS."""
    write_atomic(path, _secret(name, {"validation_context": {"trusted_ca": _inline(pem)}}), 0o600)


def write_secrets(directory: Path, certificate: str, key: str, root: str) -> None:
    """Certificate, key and root as file SDS; only the proxy's user can read the key."""
    system = next((p for p in SYSTEM_ROOTS if Path(p).exists()), None)
    trusted = {"filename": system} if system else _inline(root)  # no file: then no external server is trusted
    of_system = _secret("system", {"validation_context": {"trusted_ca": trusted}})
    write_atomic(directory / "sds-system.json", of_system, 0o644)
    write_files(directory, certificate, key, root)
    pair = {"certificate_chain": _inline(certificate), "private_key": _inline(key)}
    write_atomic(directory / "sds-default.json", _secret("default", {"tls_certificate": pair}), 0o600)
    write_roots(directory / "sds-rootca.json", "ROOTCA", root)
