"""``nodes/NAME/proxy``: what a kubelet answers at its own port about itself and its pods, as far as it is read here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lateen.cluster.apiserver import answers, proxying, reading
from lateen.cluster.apiserver.access import Measured, PodAccess
from lateen.cluster.apiserver.answers import Answer
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.errors import ApiError, unknown_path
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.store.objects import Store
from lateen.kit import jsons, times
from lateen.kit.jsons import Json, dig


async def answer(store: Store, registry: Registry, access: PodAccess, c: Call, method: str, path: str) -> Answer:
    """``path``: what follows ``proxy``. Raises ApiError."""
    name = proxying.split(c.name)[1]
    node = reading.entry(store, c.on(name=name)).obj
    if method not in ("GET", "HEAD"):
        raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    pods = registry.by_collection("pods")
    assert pods is not None
    mine = c.on(resource=pods, version="v1", name="", subresource="", query={"fieldSelector": f"spec.nodeName={name}"})
    match path.rstrip("/"):
        case "/healthz":
            return _text("ok")
        case "/pods":
            found = reading.listing(store, mine).items
            return answers.made(jsons.dumps({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": found}))
        case "/stats/summary":
            return answers.made(jsons.dumps(_summary(node, reading.listing(store, mine).items, await access.usage())))
        case "/metrics/resource":
            return _text(_metrics(await access.usage()))
    raise unknown_path()


def _text(text: str) -> Answer:
    return answers.made(text.encode(), kind="text/plain")


def _used(now: str, used: tuple[float, int]) -> Json:
    cpu, memory = used
    return {
        "cpu": {"time": now, "usageNanoCores": round(cpu * 1e9)},
        "memory": {"time": now, "usageBytes": memory, "workingSetBytes": memory},
    }


def _summary(node: Json, pods: list[Json], measured: Measured) -> Json:
    """stats/v1alpha1: only CPUs and memory in use."""
    now, out = times.stamp(), []
    for pod in pods:
        meta = pod["metadata"]
        found = measured.containers.get((meta["namespace"], meta["name"])) or {}
        start = dig(pod, "status", "startTime") or meta["creationTimestamp"]
        total = (sum(cpu for cpu, _ in found.values()), sum(memory for _, memory in found.values()))
        out.append(
            {
                "podRef": {key: meta[key] for key in ("name", "namespace", "uid")},
                "startTime": start,
                "containers": [{"name": n, "startTime": start, **_used(now, u)} for n, u in sorted(found.items())],
                **_used(now, total),
            }
        )
    meta = node["metadata"]
    of_node = {"nodeName": meta["name"], "startTime": meta["creationTimestamp"], **_used(now, measured.node)}
    return {"node": of_node, "pods": out}


def _metrics(measured: Measured) -> str:
    """Kubernetes' resource metrics of the node and of containers."""
    cpu, memory = "cpu_usage_seconds_total", "memory_working_set_bytes"
    lines = [f"# TYPE node_{cpu} counter", f"node_{cpu} {round(measured.node_seconds, 2)}"]
    lines += [f"# TYPE container_{cpu} counter", *_of_containers(f"container_{cpu}", measured.seconds)]
    lines += [f"# TYPE node_{memory} gauge", f"node_{memory} {measured.node[1]}"]
    used = {pod: {c: size for c, (_, size) in found.items()} for pod, found in measured.containers.items()}
    lines += [f"# TYPE container_{memory} gauge", *_of_containers(f"container_{memory}", used)]
    return "\n".join([*lines, ""])


def _of_containers(metric: str, values: Mapping[tuple[str, str], Mapping[str, float]]) -> Iterator[str]:
    for (namespace, pod), containers in sorted(values.items()):
        for name, value in sorted(containers.items()):
            yield f'{metric}{{container="{name}",namespace="{namespace}",pod="{pod}"}} {round(value, 2)}'
