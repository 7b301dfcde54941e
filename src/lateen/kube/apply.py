"""Create objects or merge into existing ones; wait for them; delete them."""

from __future__ import annotations

import asyncio

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.kit import jsons
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def kind_of(obj: Json) -> Kind:
    """The kind of an object. Raises LookupError for a kind that is not in our table."""
    found = kinds.of(obj)
    if found is None:
        raise LookupError(f"{obj.get('apiVersion')} {obj.get('kind')} is not known")
    return found


def declared(obj: Json) -> Json:
    """The object, with the annotation in which ``kubectl apply`` records what was applied."""
    meta = obj["metadata"]
    bare = {**obj, "metadata": {**meta, "annotations": meta.get("annotations") or {}}}
    annotations = {**bare["metadata"]["annotations"], LAST_APPLIED: jsons.dumps(bare).decode() + "\n"}
    return {**obj, "metadata": {**meta, "annotations": annotations}}


async def apply(client: Client, obj: Json, before: Json | None = None) -> str:
    """``created``, ``configured`` or ``unchanged``. ``before``: what was applied last; an object that exists loses what
    this has and ``obj`` has not."""
    kind, meta = kind_of(obj), obj["metadata"]
    namespace, name = meta.get("namespace", ""), meta["name"]
    found = await client.get(kind, namespace, name)
    if found is None:
        try:
            await client.create(kind, obj)
            return "created"
        except KubeError as e:
            if e.code != 409:
                raise
    change = _patch(before or {}, {k: v for k, v in obj.items() if k != "status"})
    if found is not None and "webhooks" in found:
        change["webhooks"] = _with_bundles(change["webhooks"], found["webhooks"])
    after = await client.patch(kind, namespace, name, change)
    same = found is not None and dig(found, "metadata", "resourceVersion") == dig(after, "metadata", "resourceVersion")
    return "unchanged" if same else "configured"


def _patch(before: Json, after: Json) -> Json:
    """The merge patch that sets ``after`` and removes what only ``before`` has."""
    inner = {
        k: _patch(before[k], v) for k, v in after.items() if isinstance(v, dict) and isinstance(before.get(k), dict)
    }
    return {**dict.fromkeys(before.keys() - after.keys() - {"status"}), **after, **inner}


def _with_bundles(wanted: list[Json], found: list[Json]) -> list[Json]:
    """A webhook's CA bundle is set by its server; applying its configuration again must not remove it."""
    bundles = {h["name"]: dig(h, "clientConfig", "caBundle") for h in found}
    return [
        {
            **h,
            "clientConfig": {
                **h["clientConfig"],
                **({"caBundle": bundles[h["name"]]} if bundles.get(h["name"]) else {}),
            },
        }
        for h in wanted
    ]


async def wait_available(
    client: Client, namespace: str, names: list[str], limit_s: float = 120.0, kind: Kind = kinds.DEPLOYMENT
) -> None:
    """Wait until all pods of every deployment (or DaemonSet) are ready. Raises TimeoutError with the names of those
    that are not."""
    left = list(names)
    try:
        async with asyncio.timeout(limit_s):
            while left:
                found, _ = await client.list(kind, namespace)
                done = {d["metadata"]["name"] for d in found if _available(d)}
                left = [n for n in left if n not in done]
                if left:
                    await asyncio.sleep(0.05)
    except TimeoutError:
        raise TimeoutError(
            f"not ready after {limit_s:.0f} s: {', '.join(left)}; see: kubectl describe pods -n {namespace}"
        ) from None


def _available(d: Json) -> bool:
    want, status = dig(d, "spec", "replicas", default=1), d.get("status") or {}
    if status.get("observedGeneration", 0) < d["metadata"].get("generation", 1):
        return False
    if "desiredNumberScheduled" in status:  # a DaemonSet
        return all(
            status.get(key, 0) == status["desiredNumberScheduled"] for key in ("updatedNumberScheduled", "numberReady")
        )
    return all(status.get(key, 0) == want for key in ("updatedReplicas", "readyReplicas", "replicas"))
