"""Namespaces: what each contains from the start, and its removal once it is empty."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers import conditions, served
from lateen.cluster.controllers.loop import Key, collection_of
from lateen.kit import times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError

ROOT_CA = "kube-root-ca.crt"
AGAIN_S = 0.2
AT_ONCE = 32
"""Deletions that become durable together."""


class Namespaces:
    name = "namespace"
    watches = (kinds.NAMESPACE, kinds.SERVICE_ACCOUNT, kinds.CONFIG_MAP)

    def __init__(self, client: Client, root_ca: str) -> None:
        self._client, self._root_ca = client, root_ca

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:
        obj = new or old
        if obj is None:
            return
        if kind == kinds.NAMESPACE:
            yield (obj["metadata"]["name"],)
        elif new is None and obj["metadata"]["name"] in ("default", ROOT_CA):
            yield (obj["metadata"]["namespace"],)

    async def reconcile(self, key: Key) -> float | None:
        (name,) = key
        ns = await self._client.get(kinds.NAMESPACE, "", name)
        if ns is None:
            return None
        if ns["metadata"].get("deletionTimestamp"):
            return await self._empty(name)
        await self._have(kinds.SERVICE_ACCOUNT, name, "default", {})
        await self._have(kinds.CONFIG_MAP, name, ROOT_CA, {"data": {"ca.crt": self._root_ca}})
        return None

    async def _have(self, kind: Kind, namespace: str, name: str, content: Json) -> None:
        if await self._client.get(kind, namespace, name) is None:
            meta = {"name": name, "namespace": namespace}
            await self._client.create(
                kind, {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta} | content
            )

    async def _empty(self, name: str) -> float | None:
        """Delete everything in a namespace, pods after what would make others; remove it when nothing is left."""
        left, failures = dict[str, list[Json]](), list[KubeError]()
        for kind in sorted(await self._namespaced(), key=lambda k: k is kinds.POD):
            try:
                items, _ = await self._client.list(kind, name)
            except KubeError as e:  # the other kinds go all the same, and the namespace says why it stays
                failures.append(e)
                continue
            if items:
                left[collection_of(kind)] = items
            failures += await self._delete(kind, name, items)
        ns = await self._client.get(kinds.NAMESPACE, "", name)
        if ns is not None and (left or failures):
            await self._report(ns, left, failures)
        if failures:
            raise failures[0]
        if left:
            return AGAIN_S
        if ns is not None:
            ns = {**ns, "spec": {**(ns.get("spec") or {}), "finalizers": []}}
            await self._client.update(kinds.NAMESPACE, ns, "finalize")
        return None

    async def _delete(self, kind: Kind, namespace: str, items: list[Json]) -> list[KubeError]:
        """Delete what is not being deleted yet; returns what has failed."""
        names = [i["metadata"]["name"] for i in items if not i["metadata"].get("deletionTimestamp")]
        failures = list[KubeError]()
        for at in range(0, len(names), AT_ONCE):
            deletions = (self._client.delete(kind, namespace, n) for n in names[at : at + AT_ONCE])
            for result in await asyncio.gather(*deletions, return_exceptions=True):
                if isinstance(result, KubeError):
                    failures.append(result)
                elif isinstance(result, BaseException):
                    raise result
        return failures

    async def _report(self, ns: Json, left: dict[str, list[Json]], failures: list[KubeError]) -> None:
        """Say what the namespace waits for, once something stays although it is to go."""
        staying = {c: [o for o in found if o["metadata"].get("deletionTimestamp")] for c, found in left.items()}
        if not failures and not any(staying.values()):
            return
        found = list(dig(ns, "status", "conditions", default=[]))
        for made in remaining(left, failures):
            found = conditions.replace(found, made | {"lastTransitionTime": times.stamp()})
        if found != dig(ns, "status", "conditions", default=[]):
            status = {"status": {"conditions": found}}
            await self._client.patch(kinds.NAMESPACE, "", ns["metadata"]["name"], status, "status")

    async def _namespaced(self) -> list[Kind]:
        crds, _ = await self._client.list(kinds.CRD)
        found = [*kinds.BUILT_IN, *(k for c in crds if (k := served.custom(c)))]
        return [k for k in found if k.namespaced]


def remaining(left: dict[str, list[Json]], failures: list[KubeError]) -> list[Json]:
    """The conditions of a namespace in which objects are left, by collection (Kubernetes' ``namespaceConditions``)."""
    counts = ", ".join(f"{c} has {len(found)} resource instances" for c, found in sorted(_dotted(left).items()))
    waits = Counter(f for found in left.values() for o in found for f in o["metadata"].get("finalizers") or [])
    kept = ", ".join(f"{f} in {n} resource instances" for f, n in sorted(waits.items()))
    failed = "; ".join(sorted({e.message for e in failures}))
    content = "All content successfully deleted, may be waiting on finalization"
    rows: tuple[tuple[str, bool, str, str], ...] = (
        ("DiscoveryFailure", False, "ResourcesDiscovered", "All resources successfully discovered"),
        ("GroupVersionParsingFailure", False, "ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ("ContentFailure", bool(failed), "ContentDeletionFailed" if failed else "ContentDeleted", failed or content),
    )
    out = [_condition(f"NamespaceDeletion{kind}", bad, reason, says) for kind, bad, reason, says in rows]
    says = f"Some resources are remaining: {counts}" if counts else "All content successfully removed"
    out.append(
        _condition(
            "NamespaceContentRemaining", bool(counts), "SomeResourcesRemain" if counts else "ContentRemoved", says
        )
    )
    says = (
        f"Some content in the namespace has finalizers remaining: {kept}"
        if kept
        else "All content-preserving finalizers finished"
    )
    reason = "SomeFinalizersRemain" if kept else "ContentHasNoFinalizers"
    return [*out, _condition("NamespaceFinalizersRemaining", bool(kept), reason, says)]


def _dotted(left: dict[str, list[Json]]) -> dict[str, list[Json]]:
    """The core group's collections are written with a dot at the end."""
    return {c if "." in c else f"{c}.": found for c, found in left.items()}


def _condition(kind: str, state: bool, reason: str, message: str) -> Json:
    return {"type": kind, "status": str(state), "reason": reason, "message": message}
