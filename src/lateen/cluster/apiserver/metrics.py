"""metrics.k8s.io: what pods and the node use at the moment, for ``kubectl top``; nothing of it is stored."""

from __future__ import annotations

from lateen.cluster.apiserver import errors, reading
from lateen.cluster.apiserver.access import Measured, PodAccess
from lateen.cluster.apiserver.call import Call, Listing
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.apiserver.resources import METRICS
from lateen.cluster.store.objects import Store
from lateen.kit import times
from lateen.kit.jsons import Json


async def answer(store: Store, registry: Registry, access: PodAccess, c: Call, verb: str) -> Json | Listing:
    """get and list. Raises ApiError."""
    subject = registry.by_collection(c.resource.plural)
    assert subject is not None
    asked = c.on(resource=subject, version=subject.version)
    found = [reading.entry(store, asked).obj] if verb == "get" else reading.listing(store, asked).items
    measured = await access.usage()
    made = [m for obj in found if (m := _metrics(c, obj, measured))]
    if verb == "list":
        return Listing(made, "")
    if not made:
        raise errors.not_found(c.resource.plural, c.name, METRICS)
    return made[0]


def _metrics(c: Call, obj: Json, measured: Measured) -> Json | None:
    """None for a pod without running containers."""
    meta = obj["metadata"]
    kept = {k: meta[k] for k in ("name", "namespace", "labels") if k in meta}
    now = times.stamp()
    out: Json = {
        "kind": c.resource.kind,
        "apiVersion": c.resource.api_version(c.version),
        "metadata": kept | {"creationTimestamp": now},
        "timestamp": now,
        "window": f"{measured.window:.3f}s",
    }
    if c.resource.kind == "NodeMetrics":
        return out | {"usage": _usage(*measured.node)}
    containers = measured.containers.get((meta["namespace"], meta["name"]))
    if not containers:
        return None
    return out | {"containers": [{"name": name, "usage": _usage(*used)} for name, used in sorted(containers.items())]}


def _usage(cpu: float, memory: int) -> Json:
    return {"cpu": f"{round(cpu * 1e9)}n", "memory": f"{memory // 1024}Ki"}
