"""The implementation of issuers: ACME accounts, and certificates from each kind of issuer."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lateen.api import cert_manager as cm
from lateen.api import kinds
from lateen.api import objects as o
from lateen.ca import serving
from lateen.ca.signer import KEPT_BACK, decoded
from lateen.control.acme import HTTP, TLS, Account, Acme, Challenge, Refused
from lateen.control.challenges import Challenges
from lateen.control.fetching import Fetcher, NotFetched
from lateen.kit import certs, jose, times
from lateen.kit.certs import Pair, PrivateKey
from lateen.kit.jsons import Json
from lateen.kube.client import Client, KubeError
from lateen.mesh.challenges import MAX_HOST, is_host

KEY = "tls.key"
Found = o.Resource[cm.Issuer] | o.Resource[cm.ClusterIssuer]
Ordered = o.Resource[cm.Certificate]


class Unusable(ValueError):
    """Something in the cluster is missing or invalid; the message says what."""


class Made(NamedTuple):
    chain: str
    authorities: str = ""
    """The CA certificates that verify it; empty for a public CA"""


class Issuers:
    def __init__(self, client: Client, namespace: str, fetcher: Fetcher, challenges: Challenges) -> None:
        self._client, self._namespace = client, namespace
        self._fetcher, self._challenges = fetcher, challenges

    def space(self, issuer: Found) -> str:
        """The namespace of an issuer's Secrets."""
        return issuer.ref.namespace or self._namespace

    async def ready(self, issuer: Found) -> Json:
        """Make an issuer ready; returns fields of its status. Raises Refused, Unusable, KubeError, Unreachable."""
        spec = issuer.spec
        if spec.acme is not None:
            async with Acme(self._fetcher, await self._account(issuer, spec.acme)) as acme:
                try:
                    uri = await acme.register()
                except NotFetched as e:
                    raise Refused(str(e)) from None
            return {"acme": {"uri": uri, "lastRegisteredEmail": spec.acme.email}}
        if spec.ca is not None:
            await self._authority(issuer, spec.ca)
        return {}

    async def issue(self, issuer: Found, wanted: Ordered, key: PrivateKey) -> Made:
        """Issue a certificate. Raises Refused, Unusable, KubeError, Unreachable, and ValueError for a certificate that
        does not match the request."""
        spec, now = wanted.spec, times.now()
        if issuer.spec.acme is not None:
            made = Made(await self._ordered(issuer, issuer.spec.acme, wanted, key))
        elif issuer.spec.ca is not None:
            ca = await self._authority(issuer, issuer.spec.ca)
            made = Made(serving.by_authority(spec, key, ca, now), certs.split(ca.certificate)[-1])
        else:
            chain = serving.by_itself(spec, key, now)
            made = Made(chain, chain)
        serving.checked(spec, made.chain, key, times.now())
        return made

    # --- ACME --------------------------------------------------------------------------------------------------------

    async def _ordered(self, issuer: Found, acme: cm.ACME, wanted: Ordered, key: PrivateKey) -> str:
        names, labels = cm.names(wanted.spec), dict(wanted.labels)
        if wanted.spec.is_ca:
            raise Unusable("an ACME server issues no certificates of authorities (isCA)")
        shown: list[Challenge] = []

        async def show(found: Sequence[Challenge]) -> None:
            self._challenges.add(found)
            shown.extend(found)
            await self._challenges.show()

        for name in names:
            chosen(acme, name, labels)  # checked before anything is ordered
        csr = serving.request(key, names, wanted.spec.common_name)
        async with (
            self._challenges.alone(names),
            _hiding(self._challenges, shown),
            Acme(self._fetcher, await self._account(issuer, acme)) as client,
        ):
            return await client.order(names, csr, lambda host: chosen(acme, host, labels), show)

    async def _account(self, issuer: Found, acme: cm.ACME) -> Account:
        bundle = _bundle(acme.ca_bundle) if acme.ca_bundle else ""
        key = await self._account_key(issuer, acme)
        binding = await self._binding(issuer, acme.external_account_binding) if acme.external_account_binding else None
        return Account(acme.server, key, acme.email, bundle, binding)

    async def _account_key(self, issuer: Found, acme: cm.ACME) -> ec.EllipticCurvePrivateKey:
        """The account's key from its Secret, which is created if it does not exist."""
        space, ref = self.space(issuer), acme.private_key_secret_ref
        entry = ref.key or KEY
        found = await self._secret(space, ref.name)
        if found is None:
            if acme.disable_account_key_generation:
                raise Unusable(f"there is no Secret {space}/{ref.name} with the account's key")
            key = certs.new_key()
            data = {entry: base64.b64encode(certs.key_pem(key).encode()).decode()}
            meta: Json = {"name": ref.name, "namespace": space}
            body = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": meta, "data": data}
            try:
                await self._client.create(kinds.SECRET, body)
                return key
            except KubeError as e:
                if e.code != 409:
                    raise
                found = await self._secret(space, ref.name) or {}
        kept = serving.read_key(decoded(found).get(entry, ""))
        if not isinstance(kept, ec.EllipticCurvePrivateKey) or not isinstance(kept.curve, ec.SECP256R1):
            raise Unusable(f"{entry} in Secret {space}/{ref.name} is not a P-256 key; delete it, and a new one is made")
        return kept

    async def _binding(self, issuer: Found, bound: cm.ExternalAccountBinding) -> tuple[str, bytes]:
        space, ref = self.space(issuer), bound.key_secret_ref
        found = decoded(await self._secret(space, ref.name) or {}).get(ref.key, "")
        try:
            secret = jose.decode(found.strip().rstrip("="))
        except ValueError:
            secret = b""
        if not secret:
            raise Unusable(f"{ref.key} in Secret {space}/{ref.name} is not the base64url text of the binding's key")
        return bound.key_id, secret

    async def _authority(self, issuer: Found, ca: cm.CA) -> Pair:
        space = self.space(issuer)
        found = decoded(await self._secret(space, ca.secret_name) or {})
        pair = Pair(found.get("tls.crt", ""), found.get(KEY, ""))
        try:
            certs.check_pair(pair.certificate, pair.key)
        except ValueError as e:
            raise Unusable(f"Secret {space}/{ca.secret_name} (tls.crt, tls.key) cannot be used as a CA: {e}") from None
        return pair

    async def _secret(self, namespace: str, name: str) -> Json | None:
        if namespace == self._namespace and name in KEPT_BACK:
            raise Unusable(f"Secret {namespace}/{name} is the mesh's own")
        return await self._client.get(kinds.SECRET, namespace, name)


@asynccontextmanager
async def _hiding(challenges: Challenges, shown: Sequence[Challenge]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        if shown:
            await asyncio.shield(challenges.hide(shown))


def _bundle(text: str) -> str:
    """The bare certificates, without comments in between, which Python's ``ssl`` accepts only in ASCII. Raises
    Unusable."""
    try:
        found = x509.load_pem_x509_certificates(base64.b64decode(text))
    except ValueError:
        raise Unusable("spec.acme.caBundle is not the base64 text of PEM certificates") from None
    return "".join(c.public_bytes(serialization.Encoding.PEM).decode() for c in found)


def chosen(acme: cm.ACME, host: str, labels: dict[str, str]) -> str:
    """The kind of challenge for a name. Raises Unusable.

    As in cert-manager, the solver with the most specific selector: by name, then by the longest zone, then by labels.
    """
    if "*" in host:
        raise Unusable(f"{host}: a wildcard needs a DNS challenge (dns01), which Lateen does not support")
    if not is_host(host):
        raise Unusable(f"{host[:80]!r} is not a DNS name of at most {MAX_HOST} characters; change the Certificate")
    best: tuple[tuple[int, int, int], cm.Solver] | None = None
    for solver in acme.solvers:
        rank = _rank(solver.selector or cm.SolverSelector(), host, labels)
        if rank is not None and (best is None or rank > best[0]):
            best = (rank, solver)
    if best is None:
        raise Unusable(f"no solver of the issuer applies to {host}")
    return TLS if best[1].tls_alpn01 is not None else HTTP


def _rank(wanted: cm.SolverSelector, host: str, labels: dict[str, str]) -> tuple[int, int, int] | None:
    if any(labels.get(k) != v for k, v in wanted.match_labels.items()):
        return None
    zones = [z.lower() for z in wanted.dns_zones]
    longest = max((len(z) for z in zones if host == z or host.endswith(f".{z}")), default=0)
    named = host in {n.lower() for n in wanted.dns_names}
    if (wanted.dns_names or zones) and not named and not longest:
        return None
    return int(named), longest, len(wanted.match_labels)


def identity(issuer: Found) -> Json:
    """The annotations of a Secret that identify its issuer, as in cert-manager."""
    kind = issuer.ref.kind
    return {
        f"{cm.GROUP}/issuer-name": issuer.ref.name,
        f"{cm.GROUP}/issuer-kind": kind,
        f"{cm.GROUP}/issuer-group": cm.GROUP,
        ISSUED_FOR: fingerprint(issuer),
    }


ISSUED_FOR = "lateen.dev/issuer"
"""Annotation of a Secret: a hash of the issuer's configuration, so that a certificate from another CA is replaced."""


def fingerprint(issuer: Found) -> str:
    spec = issuer.spec
    said = spec.acme.server if spec.acme else spec.ca.secret_name if spec.ca else "itself"
    return hashlib.sha256(said.encode()).hexdigest()[:16]
