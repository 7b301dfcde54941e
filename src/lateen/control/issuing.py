"""Issues and renews server certificates, on the leader: writes what a Certificate requests to its Secret.

Names, annotations and conditions are cert-manager's (https://cert-manager.io/docs/usage/certificate/). If the
cluster has cert-manager itself, everything is left to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.kinds import Ref
from lateen.control.acme import NotReached, Refused
from lateen.control.asking import certificates
from lateen.control.issuers import Issuers, Ordered, Unusable
from lateen.control.issuing_status import Told
from lateen.control.renewing import LONGEST_S, MANAGER, Done, Renewing, Rights
from lateen.control.turns import Turns
from lateen.control.world import World
from lateen.kit import tasks, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError, Unreachable

log = logging.getLogger("lateen.control.issuing")

AT_ONCE, OF_ONE = 4, 2
"""Objects processed concurrently: in total, and of one namespace"""
LOOK_S = 20.0
"""Seconds between checks for due objects"""
AGAIN_S = 300.0
"""The initial retry delay after a failure. Let's Encrypt permits five failures per hour and name."""
MISSING_S = 10.0
"""The initial retry delay if something is missing, doubled up to ``AGAIN_S``"""
PRESENT = ("notBefore", "notAfter", "renewalTime")
"""Fields of a Certificate's status about the current certificate"""
KINDS = (kinds.ISSUER, kinds.CLUSTER_ISSUER, kinds.CERTIFICATE)


@dataclass
class _Known:
    version: str
    again: float = 0.0
    """When it is due, by the event loop's clock"""
    failures: int = 0
    missed: int = 0
    """Consecutive attempts at which the issuer was unreachable, or something was missing in the cluster"""
    failed: Json = field(default_factory=dict)
    """The status's text about failures since the last issued certificate"""
    present: Json = field(default_factory=dict)
    """The status's fields about the current certificate, which failures do not invalidate"""
    waits: bool = False
    """Whether it only waits for something in the cluster"""

    def missing(self) -> float:
        """Seconds until the next attempt."""
        self.missed += 1
        return min(MISSING_S * 2.0 ** min(self.missed - 1, 10), AGAIN_S)


class Issuing:
    def __init__(
        self,
        client: Client,
        world: World,
        issuers: Issuers,
        rights: Rights,
        leads: Callable[[], bool],
        before: Callable[[Ref], Json] = lambda _: {},
        told: Callable[[], None] = lambda: None,
        again_s: float = AGAIN_S,
    ) -> None:
        """``before``: the written status of an object; ``told``: called when a state has changed."""
        self._client, self._world = client, world
        self._leads, self._before, self._again_s = leads, before, again_s
        self._told = Told(client, told)
        self._renewing = Renewing(client, world, issuers, rights, self._told)
        self._woken = asyncio.Event()
        self._turns = Turns(AT_ONCE, OF_ONE)
        self._known: dict[Ref, _Known] = {}
        self._busy: dict[Ref, asyncio.Task[None]] = {}
        self._asked: dict[tuple[str, str], Json] = {}
        """The Certificates applied for Gateways and Ingresses"""
        self.states = self._told.states

    def wake(self) -> None:
        self._woken.set()

    def secret(self, namespace: str, name: str) -> None:
        """A Secret was changed or deleted."""
        for ref, cert in self._certificates():
            if ref.namespace == namespace and cert.spec.secret_name == name and ref in self._known:
                known = self._known[ref]
                if not known.failures:
                    known.again = 0.0
                    self.wake()

    async def run(self) -> None:
        """Never returns."""
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._woken.wait()
                self._woken.clear()
                if self._leads():
                    await self._ask()
                    self._begin()
                else:
                    self._forget(self._known.keys() | self._busy.keys())
        finally:
            await tasks.cancel(*self._busy.values())

    def _objects(self) -> Iterator[o.Resource[Any]]:
        for kind in KINDS:
            if kind not in self._world.foreign:
                yield from self._world.objects.of(kind).values()

    def _mine(self, obj: o.Resource[Any]) -> bool:
        """Whether this revision is responsible for an object."""
        return self._world.writes({"metadata": {"labels": dict(obj.labels)}})

    def _certificates(self) -> Iterator[tuple[Ref, Ordered]]:
        return ((c.ref, c) for c in self._world.objects.certificates.values())

    def _begin(self) -> None:
        """Start processing due objects."""
        found = {r.ref: r for r in self._objects() if self._mine(r)}
        self._forget((self._known.keys() | self._busy.keys()) - found.keys())
        now = asyncio.get_running_loop().time()
        for ref, obj in found.items():
            known = self._known.get(ref)
            if known is None or known.version != obj.version:
                known = self._known[ref] = self._recalled(obj, known)
            if ref not in self._busy and now >= known.again:
                self._busy[ref] = tasks.spawn(self._work(obj, known), f"{ref}")

    async def _ask(self) -> None:
        """Apply the Certificates that Gateways and Ingresses request, if they differ from what was applied last."""
        if kinds.CERTIFICATE in self._world.foreign:
            return
        wanted = {
            (c["metadata"]["namespace"], c["metadata"]["name"]): c
            for c in certificates(self._world.objects, self._mine)
        }
        for key, cert in wanted.items():
            there = self._world.objects.certificates.get(key)
            if self._asked.get(key) == cert and there is not None:
                continue
            if there is not None and key not in self._asked and not await self._owned(key, cert):
                continue  # written by a user
            try:
                await self._client.apply(kinds.CERTIFICATE, cert, MANAGER)
                self._asked[key] = cert
            except (KubeError, Unreachable) as e:
                log.warning("Certificate %s/%s cannot be created: %s", *key, e)
        self._asked = {key: cert for key, cert in self._asked.items() if key in wanted}

    async def _owned(self, key: tuple[str, str], cert: Json) -> bool:
        """Whether a Certificate is owned by the object that requests it."""
        try:
            found = await self._client.get(kinds.CERTIFICATE, *key)
        except (KubeError, Unreachable):
            return False
        owners = dig(found, "metadata", "ownerReferences", default=[]) if found else []
        return cert["metadata"]["ownerReferences"][0]["uid"] in {r.get("uid") for r in owners}

    def _forget(self, gone: set[Ref]) -> None:
        for ref in gone:
            self._known.pop(ref, None)
            self.states.pop(ref, None)
            if task := self._busy.pop(ref, None):
                task.cancel()

    def _recalled(self, obj: o.Resource[Any], known: _Known | None) -> _Known:
        """The state of an object: a changed one is tried at once; a new one inherits the failures recorded by an
        earlier leader, so that a restart does not contact the CA at once."""
        if known is not None:
            return _Known(obj.version, present=known.present)
        status = self._before(obj.ref)
        failures, at = status.get("failedIssuanceAttempts"), times.moment(status.get("lastFailureTime"))
        out = _Known(obj.version, present={k: status[k] for k in PRESENT if times.moment(status.get(k)) is not None})
        if isinstance(failures, int) and failures > 0 and at is not None:
            out.failures = failures
            out.failed = {"lastFailureTime": status["lastFailureTime"], "failedIssuanceAttempts": failures}
            out.again = asyncio.get_running_loop().time() + self._pause(failures) - (times.now() - at).total_seconds()
        return out

    def _pause(self, failures: int) -> float:
        return min(self._again_s * 2.0 ** min(failures - 1, 10), LONGEST_S)

    async def _work(self, obj: o.Resource[Any], known: _Known) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with self._turns.turn(obj.ref.namespace):
                done = await self._one(obj, known)
            known.failures, known.missed, known.again, known.waits = 0, 0, loop.time() + done.next_s, False
            known.failed = {}
            known.present = done.fields if obj.ref.kind == "Certificate" else {}
            await self._told.tell(obj, True, "Ready", done.says, done.fields)
            if obj.ref.kind != "Certificate":
                self._wake_certificates()
        except (Unusable, ValueError, KubeError, OSError) as e:
            known.again, known.waits = loop.time() + known.missing(), True
            await self._not_ready(obj, known, "NotReady", str(e))
        except NotReached as e:
            known.again = loop.time() + known.missing()
            await self._not_ready(obj, known, "NotReached", str(e))
        except Refused as e:
            await self._failed(obj, known, str(e), e.after_s)
        except Exception as e:
            log.exception("%s: an error of istiod", obj.ref)
            await self._failed(obj, known, f"an error of istiod, whose log has more ({type(e).__name__})")
        finally:
            if self._busy.get(obj.ref) is asyncio.current_task():
                del self._busy[obj.ref]
            self.wake()

    async def _one(self, obj: o.Resource[Any], known: _Known) -> Done:
        if obj.ref.kind == "Certificate":
            return await self._renewing.certificate(obj, {**known.present, **known.failed})
        return await self._renewing.issuer(obj)

    async def _failed(self, obj: o.Resource[Any], known: _Known, why: str, after_s: float = 0.0) -> None:
        known.failures += 1
        pause = max(self._pause(known.failures), after_s)
        known.again, known.waits = asyncio.get_running_loop().time() + pause, False
        says = f"{why}; attempt {known.failures} failed at {times.stamp()}, the next one is in {pause / 60:.0f} min"
        if obj.ref.kind == "Certificate":
            known.failed = {"lastFailureTime": times.stamp(), "failedIssuanceAttempts": known.failures}
        await self._not_ready(obj, known, "Failed", says)

    async def _not_ready(self, obj: o.Resource[Any], known: _Known, reason: str, says: str) -> None:
        end = known.present.get("notAfter")
        says += f"; the current certificate expires at {end}" if end else ""
        await self._told.tell(obj, False, reason, says, {**known.present, **known.failed})

    def _wake_certificates(self) -> None:
        for ref, _ in self._certificates():
            if ref in self._known and self._known[ref].waits:
                self._known[ref].again = 0.0
