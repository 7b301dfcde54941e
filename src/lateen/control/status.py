"""The conditions of the mesh's objects: accepted or not, what the analysis finds, which proxies have them.

Written after every change has settled, and only where something differs from what is written already.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from lateen.ads.server import AdsServer, Connection
from lateen.analysis import Message, Snapshot, Source, analyze, analyzers
from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.effective import IDLE
from lateen.control.patching import Patching
from lateen.control.world import COLLECTIONS, World
from lateen.kit import times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError, Unreachable
from lateen.kube.informer import Informer, Key
from lateen.mesh.model import Mesh
from lateen.mesh.shadow import gateway_conflicts, shadowed
from lateen.wire.resource import ResourceSet

log = logging.getLogger("lateen.control.status")

QUIET_S = 0.3
"""Nothing is written before things have been quiet for this long."""
SHARE = 0.1
"""Of the time, that analysing may take; where it takes more, it is done less often."""
AT_ONCE = 8
UNSEEN = {"gateway.SecretAnalyzer", "deployment.MultiServiceAnalyzer", "injection.ImageAnalyzer"}
"""Analyzers of what istiod cannot see: it may not read secrets, and does not watch Deployments."""
DOCUMENTS = "https://istio.io/latest/docs/reference/config/analysis"


class Reach(NamedTuple):
    """How far an object has come: proxies that are concerned, those that have it, and what was refused."""

    concerned: int = 0
    have: int = 0
    refused: tuple[tuple[str, str], ...] = ()
    """(proxy, its words)"""


_origins: weakref.WeakKeyDictionary[ResourceSet, dict[str, frozenset[str]]] = weakref.WeakKeyDictionary()


def origins(resources: ResourceSet) -> dict[str, frozenset[str]]:
    """User's object -> names of the resources made from it; worked out once per set."""
    found = _origins.get(resources)
    if found is None:
        collected: dict[str, set[str]] = {}
        for r in resources.resources.values():
            for origin in r.origin:
                collected.setdefault(origin, set()).add(r.name)
        found = _origins[resources] = {origin: frozenset(n) for origin, n in collected.items()}
    return found


def reach(connections: Iterable[Connection]) -> dict[str, Reach]:
    """Of every object that some proxy's resources are made from."""
    concerned: dict[str, int] = {}
    have: dict[str, int] = {}
    refused: dict[str, list[tuple[str, str]]] = {}
    alike: dict[tuple[int, ...], tuple[Connection, int]] = {}
    """Proxies that have all of the same sets are counted together."""
    different = []
    for c in connections:
        if any(any(c.session.missing(t)) for t in c.session.sets()):
            different.append(c)
            continue
        key = tuple(id(s) for sets in c.session.sets().values() for s in sets)
        alike[key] = (c, alike[key][1] + 1 if key in alike else 1)
    for c, number in alike.values():
        for ref in {r for sets in c.session.sets().values() for s in sets for r in origins(s)}:
            concerned[ref] = concerned.get(ref, 0) + number
            have[ref] = have.get(ref, 0) + number
    for c in different:
        mine: dict[str, bool] = {}
        for type_url, sets in c.session.sets().items():
            waiting, bad = c.session.missing(type_url)
            for resources in sets:
                for ref, made in origins(resources).items():
                    mine[ref] = mine.get(ref, True) and not (made & waiting) and not (made & bad)
                    if made & bad:
                        says = c.session.rejections.get(type_url)
                        text = says.message.strip() if says else "refused"
                        refused.setdefault(ref, []).append((f"{c.node.pod}.{c.node.namespace}", text))
        for ref, there in mine.items():
            concerned[ref] = concerned.get(ref, 0) + 1
            have[ref] = have.get(ref, 0) + there
    return {ref: Reach(n, have[ref], tuple(refused.get(ref, ()))) for ref, n in concerned.items()}


def conditions(obj: Json, kind: str, bad: str, found: list[Message], far: Reach) -> list[Json]:
    """Without their times."""
    out = [_accepted(kind, bad)]
    worst = next((m for m in found if m.kind.level == "Error"), None)
    if found:
        text = "; ".join(f"[{m.kind.code}] {m.text}" for m in found[:5])
        out.append(_condition("Analyzed", "True", "Findings" if worst is None else "Errors", text))
    else:
        out.append(_condition("Analyzed", "True", "NoFindings", "the analysis finds nothing"))
    if far.refused:
        proxy, text = far.refused[-1]
        says = f"{far.have}/{far.concerned} proxies up to date; {proxy} refused it: {text}"
        out.append(_condition("Reconciled", "False", "Refused", says))
    else:
        done = far.have == far.concerned
        says = f"{far.have}/{far.concerned} proxies up to date."
        out.append(_condition("Reconciled", "True" if done else "Unknown", "UpToDate" if done else "Pushing", says))
    generation = dig(obj, "metadata", "generation")
    return [c | {"observedGeneration": generation} for c in out]


def _accepted(kind: str, bad: str) -> Json:
    if bad:
        return _condition("Accepted", "False", "Invalid", bad)
    if kind in IDLE:
        return _condition("Accepted", "False", "NotImplemented", f"{kind} has no effect yet: {IDLE[kind]}")
    return _condition("Accepted", "True", "Accepted", "the object is valid")


def _condition(kind: str, status: str, reason: str, text: str) -> Json:
    return {"type": kind, "status": status, "reason": reason, "message": text[:2000]}


def _shadowed(found: list[tuple[str, o.Ref]]) -> Json:
    text = "; ".join(f"{host}: all requests are taken by the older {by}" for host, by in found[:5])
    return _condition("Shadowed", "True", "OlderRule", f"{text}. Join the two, or give the older one a match.")


def _patched(says: list[str]) -> Json:
    """What each patch does."""
    if not says:
        return _condition("Patched", "Unknown", "NoProxies", "no connected proxy is concerned")
    bad = any(": rejected" in s for s in says)
    idle = any(": matches nothing" in s for s in says)
    reason = "Rejected" if bad else "NotMatched" if idle else "Applied"
    return _condition("Patched", "False" if bad or idle else "True", reason, "; ".join(says))


def merged(old: list[Json], new: list[Json], now: str) -> list[Json]:
    """With the time at which each condition took its present status."""
    before = {c.get("type"): c for c in old}
    out = []
    for c in new:
        was = before.get(c["type"], {})
        since = was.get("lastTransitionTime") if was.get("status") == c["status"] else None
        out.append(c | {"lastTransitionTime": since or now})
    return out


def validation_messages(found: list[Message]) -> list[Json]:
    """In the form of Istio's status."""
    return [
        {
            "type": {"code": m.kind.code, "name": m.kind.name},
            "level": m.kind.level.upper(),
            "documentationUrl": f"{DOCUMENTS}/{m.kind.code.lower()}/",
            "message": m.text,
        }
        for m in found[:20]
    ]


class StatusWriter:
    """Marks itself dirty by ``changed`` and ``pushed``; ``run`` writes."""

    def __init__(
        self, client: Client, world: World, ads: AdsServer, patching: Patching, pushed: Callable[[], Mesh]
    ) -> None:
        """``pushed``: the mesh as proxies have it, whose indexes are used where nothing has changed since."""
        self._client, self._world, self._ads, self._patching = client, world, ads, patching
        self._pushed = pushed
        self._dirty, self._stale = asyncio.Event(), True
        self._found: dict[str, list[Message]] = {}
        self._shadowed: dict[str, list[tuple[str, o.Ref]]] = {}
        self._patches: dict[str, list[str]] = {}
        self._addresses: dict[Key, str] = {}
        self._conflicts: dict[str, list[str]] = {}
        self.informers: list[Informer] = []
        ads.answered = self._dirty.set

    def pushed(self) -> None:
        """Proxies have been offered another mesh."""
        self._dirty.set()

    def changed(self, kind: kinds.Kind, _: Key, old: Json | None, new: Json | None) -> None:
        """An informer's report; changes of a status are not changes."""
        if old is None or new is None or _substance(kind, old) != _substance(kind, new):
            self._stale = True
            self._dirty.set()

    async def run(self) -> None:
        """Never returns."""
        chosen = sorted(analyzers().keys() - UNSEEN)
        rest = 0.0
        while True:
            await self._dirty.wait()
            await asyncio.sleep(QUIET_S)
            self._dirty.clear()
            if self._stale:
                self._stale = False
                began = asyncio.get_running_loop().time()
                self._found = await asyncio.to_thread(_analyzed, self._sources(), chosen)
                rest = (asyncio.get_running_loop().time() - began) / SHARE
            await self._write()
            await asyncio.sleep(rest)
            rest = 0.0

    def _sources(self) -> list[Source]:
        return [
            Source({"apiVersion": i.kind.api_version, "kind": i.kind.kind, **obj})
            for i in self.informers
            if i.kind is not kinds.ENDPOINT_SLICE
            for obj in i.objects.values()
        ]

    async def _write(self) -> None:
        far = reach(self._ads.connections)
        mesh = Mesh(self._world.objects, self._pushed())
        self._shadowed = shadowed(mesh)
        self._addresses = mesh.automatic()
        self._conflicts = gateway_conflicts(mesh)
        self._patches = self._patching.report(self._ads.connections)
        wanted: list[tuple[kinds.Kind, Json, Json]] = []
        for informer in self.informers:
            if informer.kind in kinds.MESH:
                for key, obj in informer.objects.items():
                    if self._ahead(informer.kind, key):
                        continue  # the push that brings it to proxies has its status written, too
                    status = self._status(informer.kind.kind, obj, far)
                    if status is not None:
                        wanted.append((informer.kind, obj, status))
        wanted += self._ingresses(mesh)
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(kind: kinds.Kind, obj: Json, status: Json) -> None:
            meta = obj["metadata"]
            async with gate:
                try:
                    await self._client.patch(kind, meta["namespace"], meta["name"], {"status": status}, "status")
                except (KubeError, Unreachable) as e:
                    if not isinstance(e, KubeError) or e.code not in (404, 409):
                        log.warning("status of %s %s/%s: %s", kind.kind, meta["namespace"], meta["name"], e)

        await asyncio.gather(*(one(*w) for w in wanted))

    def _ahead(self, kind: kinds.Kind, key: Key) -> bool:
        """Whether the object is another one than what proxies have been offered."""
        name = COLLECTIONS.get(kind.kind)
        if name is None:
            return False
        known, pushed = self._world.objects, self._pushed().objects
        return known is not pushed and getattr(known, name).get(key) is not getattr(pushed, name).get(key)

    def _ingresses(self, mesh: Mesh) -> list[tuple[kinds.Kind, Json, Json]]:
        """An Ingress is reached where its gateway is."""
        objects = {i.kind: i.objects for i in self.informers}
        ours = {(i.ref.namespace, i.ref.name) for i in mesh.ingresses()}
        found = [
            s
            for s in objects[kinds.SERVICE].values()
            if s["metadata"]["namespace"] == mesh.config.root_namespace
            and dig(s, "spec", "selector", "istio") == mesh.config.ingress_selector
        ]
        at: list[Json] = [{"ip": i["ip"]} if "ip" in i else i for s in found for i in _addresses(s)]
        out: list[tuple[kinds.Kind, Json, Json]] = []
        for obj in objects[kinds.INGRESS].values():
            mine = (obj["metadata"]["namespace"], obj["metadata"]["name"]) in ours  # others are other controllers'
            if mine and dig(obj, "status", "loadBalancer", "ingress", default=[]) != at:
                out.append((kinds.INGRESS, obj, {"loadBalancer": {"ingress": at}}))
        return out

    def _status(self, kind: str, obj: Json, far: dict[str, Reach]) -> Json | None:
        """What to write; None where it is written already."""
        meta = obj["metadata"]
        ref = f"{kind} {meta['namespace']}/{meta['name']}"
        found = self._found.get(ref, [])
        new = conditions(obj, kind, self._world.bad.get(ref, ""), found, far.get(ref, Reach()))
        if ref in self._shadowed:
            new.append(_shadowed(self._shadowed[ref]) | {"observedGeneration": meta.get("generation")})
        if ref in self._conflicts:
            text = "; ".join(self._conflicts[ref][:5]) + ". Give it another port, or other workloads."
            made = _condition("Conflicted", "True", "OlderGateway", text)
            new.append(made | {"observedGeneration": meta.get("generation")})
        if kind == "EnvoyFilter":
            new.append(_patched(self._patches.get(ref, [])) | {"observedGeneration": meta.get("generation")})
        status: Json = dig(obj, "status", default={})
        old = status.get("conditions") or []
        new += [
            {k: v for k, v in c.items() if k != "lastTransitionTime"} for c in old if c.get("type") == "Healthy"
        ]  # the probe's, not ours
        messages = validation_messages(found)
        given = [
            {"host": h, "value": ip}
            for h in (dig(obj, "spec", "hosts", default=[]) if kind == "ServiceEntry" else [])
            if (ip := self._addresses.get((meta["namespace"], h)))
        ]
        bare = [{k: v for k, v in c.items() if k != "lastTransitionTime"} for c in old]
        same = (status.get("validationMessages") or []) == messages and (status.get("addresses") or []) == given
        if bare == new and same:
            return None
        now = times.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "conditions": merged(old, new, now),
            "observedGeneration": meta.get("generation"),
            "validationMessages": messages,
            **({"addresses": given} if given or status.get("addresses") else {}),
        }


def _addresses(service: Json) -> list[Json]:
    found: list[Json] = dig(service, "status", "loadBalancer", "ingress", default=[])
    return found


def _substance(kind: kinds.Kind, obj: Json) -> Any:
    """What the analysis looks at in an object of the cluster."""
    meta = obj["metadata"]
    if kind is kinds.POD:
        return meta.get("labels"), meta.get("annotations"), bool(meta.get("deletionTimestamp"))
    return meta.get("labels"), meta.get("annotations"), obj.get("spec"), obj.get("data")


def _analyzed(sources: list[Source], chosen: list[str]) -> dict[str, list[Message]]:
    out: dict[str, list[Message]] = {}
    for m in analyze(Snapshot(sources), chosen):
        if m.kind.code != "IST0171":  # that is what is written here
            out.setdefault(m.source.ref, []).append(m)
    return out
