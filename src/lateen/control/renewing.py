"""Processes one Issuer or Certificate: its readiness, and the Secret with the requested certificate.

Raises ``Unusable`` if something in the cluster is missing, ``NotReached`` if the issuer does not answer, and
``Refused`` if an order failed; ``issuing`` decides when to retry.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from lateen.api import cert_manager as cm
from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.kinds import Ref
from lateen.ca import serving
from lateen.ca.signer import KEPT_BACK, decoded
from lateen.control import issued as secrets
from lateen.control.acme import Refused
from lateen.control.issuers import Found, Issuers, Made, Ordered, Unusable
from lateen.control.issuing_status import State, Told
from lateen.control.offered import unserved
from lateen.control.world import World
from lateen.inject import deployment
from lateen.kit import certs, times
from lateen.kit.certs import PrivateKey
from lateen.kit.jsons import Json
from lateen.kube.client import Client, KubeError

log = logging.getLogger("lateen.control.issuing")

MANAGER = "lateen-certificates"
WHOLE_S = 600.0
"""The time limit for an order or an account registration, in seconds"""
CONFLICTS = 5
"""Attempts at writing a Secret in case of conflicts"""
LONGEST_S = 8 * 3600.0
"""The longest interval between checks of an object, in seconds"""


class Rights(NamedTuple):
    """Grants istiod write access to Secrets in namespaces with Certificates."""

    namespace: str
    account: str
    role: str


class Done(NamedTuple):
    says: str
    fields: Json
    next_s: float = LONGEST_S
    """Seconds until the next check, unless something changes"""


def expiry(states: Mapping[Ref, State], field: str) -> dict[tuple[str, ...], float]:
    """(name, namespace) of each Certificate whose status has a field with a time -> that time (Unix)."""
    return {
        (ref.name, ref.namespace): at.timestamp()
        for ref, state in states.items()
        if ref.kind == kinds.CERTIFICATE.kind and (at := times.moment(state.fields.get(field))) is not None
    }


def readiness(states: Mapping[Ref, State]) -> dict[tuple[str, ...], float]:
    """(name, namespace) of each Certificate -> 1 where it is ready."""
    found = ((ref, state) for ref, state in states.items() if ref.kind == kinds.CERTIFICATE.kind)
    return {
        (ref.name, ref.namespace): float(("Ready", "True") in {c[:2] for c in state.conditions}) for ref, state in found
    }


class Renewing:
    def __init__(self, client: Client, world: World, issuers: Issuers, rights: Rights, told: Told) -> None:
        self._client, self._world, self._issuers, self._rights, self._told = client, world, issuers, rights, told

    async def issuer(self, issuer: Found) -> Done:
        if issuer.ref.namespace:
            await self._allow(issuer)
        async with _bounded():
            fields = await self._issuers.ready(issuer)
        says = "the account is registered" if issuer.spec.acme else "certificates can be issued"
        return Done(says, fields, LONGEST_S)

    async def certificate(self, wanted: Ordered, said: Json) -> Done:
        """``said``: the former status, which is kept while a certificate is being ordered."""
        namespace, name = wanted.ref.namespace, wanted.spec.secret_name
        if namespace == self._rights.namespace and name in KEPT_BACK:
            raise Unusable(f"Secret {namespace}/{name} is the mesh's own; name another one in spec.secretName")
        issuer = self._issuer_of(wanted)
        await self._allow(wanted)
        before = await self._client.get(kinds.SECRET, namespace, name)
        why = secrets.due(wanted, issuer, before, times.now())
        if why:
            if not self._told.is_ready(issuer):
                raise Unusable(f"{why}, and {issuer.ref} is not ready")
            if issuer.spec.acme is not None:
                self._check_hosts(wanted)
            log.info("%s: issuing a certificate: %s", wanted.ref, why)
            self._told.say(wanted, State((*self._told.ready(wanted), ("Issuing", "True", "Issuing", why)), said))
            before = await self._issued(wanted, issuer, before)
            await self._told.event(wanted, "Normal", "Issued", f"the certificate is in Secret {name}")
        return _valid(wanted, decoded(before or {}).get("tls.crt", ""))

    async def _issued(self, wanted: Ordered, issuer: Found, before: Json | None) -> Json:
        """The Secret with a new certificate. Any failure after an order may have been placed counts as a refusal, to
        delay the next order: CAs limit the number of certificates per name."""
        key = await secrets.key_for(wanted.spec, before)
        try:
            async with _bounded():
                made = await self._issuers.issue(issuer, wanted, key)
            return await self._keep(wanted, issuer, before, made, key)
        except Unusable:
            raise
        except (ValueError, KubeError, OSError) as e:
            raise Refused(f"the certificate could not be issued or kept: {e}") from e

    def _check_hosts(self, wanted: Ordered) -> None:
        """Raises Unusable for hosts that the namespace does not serve. Wildcards are refused by the solvers."""
        space, secret = wanted.ref.namespace, wanted.spec.secret_name
        names = [n for n in cm.names(wanted.spec) if "*" not in n]
        if missing := unserved(self._world.objects, (space, secret), self._rights.namespace, names):
            raise Unusable(
                f"no Gateway or Ingress of namespace {space} serves {', '.join(missing)[:200]}; add the host to one, "
                f"or name Secret {secret} of this namespace in the TLS settings of the Gateway that serves it"
            )

    def _issuer_of(self, wanted: Ordered) -> Found:
        """Raises Unusable."""
        ref, objects = wanted.spec.issuer_ref, self._world.objects
        found: Found | None
        if ref.whole == "ClusterIssuer":
            found = objects.cluster_issuers.get(("", ref.name))
        else:
            found = objects.issuers.get((wanted.ref.namespace, ref.name))
        if found is None:
            where = "" if ref.whole == "ClusterIssuer" else f" in namespace {wanted.ref.namespace}"
            raise Unusable(f'there is no {ref.whole} "{ref.name}"{where}')
        return found

    async def _keep(self, wanted: Ordered, issuer: Found, before: Json | None, made: Made, key: PrivateKey) -> Json:
        """Write the Secret, with retries in case of conflicts."""
        for left in reversed(range(CONFLICTS)):
            try:
                body = secrets.content(wanted, issuer, before, made, key)
                if before is None:
                    return await self._client.create(kinds.SECRET, body)
                return await self._client.update(kinds.SECRET, body)
            except KubeError as e:
                if e.code not in (404, 409) or not left:
                    raise
            before = await self._client.get(kinds.SECRET, wanted.ref.namespace, wanted.spec.secret_name)
            if before is not None:
                secrets.check(wanted, before)
        raise AssertionError

    async def _allow(self, owner: o.Resource[Any]) -> None:
        """Let istiod write Secrets in the object's namespace as long as the object exists."""
        root, account, role = self._rights
        meta = {"name": owner.ref.name, "namespace": owner.ref.namespace, "uid": owner.uid}
        typed = {"apiVersion": f"{cm.GROUP}/v1", "kind": owner.ref.kind, "metadata": meta}
        name = f"{owner.ref.kind.lower()}-{owner.ref.name}-secrets"
        bound = deployment.reading_secrets(typed, name, role, account, root)
        await self._client.apply(kinds.ROLE_BINDING, bound, MANAGER)


def _valid(wanted: Ordered, chain: str) -> Done:
    start, end = certs.validity(chain)
    at = serving.renewal(wanted.spec, chain)
    fields = {"notBefore": times.stamp(start), "notAfter": times.stamp(end), "renewalTime": times.stamp(at)}
    left = (at - times.now()) / timedelta(seconds=1)
    says = f"the certificate is valid until {end:%Y-%m-%d %H:%M} UTC and is renewed from {at:%Y-%m-%d %H:%M} on"
    return Done(says, fields, min(max(left, 60.0), LONGEST_S))


@contextlib.asynccontextmanager
async def _bounded() -> AsyncIterator[None]:
    """Raises Refused if the CA takes too long, because other objects are waiting."""
    limit = asyncio.timeout(WHOLE_S)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise Refused(f"the issuer has not finished within {WHOLE_S / 60:.0f} min") from None
