"""DaemonSets: one pod on each node that they select and whose taints they tolerate."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.api.reading import is_finished
from lateen.cluster.controllers import revisions
from lateen.cluster.controllers.claims import claim
from lateen.cluster.controllers.loop import Events, Key, Loop, controller_of, set_status
from lateen.cluster.controllers.ownership import Plan, is_ready, pod_of, share, waits_s
from lateen.cluster.rules import fitting
from lateen.kit import times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client

GENERATION = "deprecated.daemonset.template.generation"


class DaemonSets:
    name = "daemonset"
    adopts = kinds.DAEMON_SET
    watches = (kinds.DAEMON_SET, kinds.POD, kinds.NODE)

    def __init__(self, client: Client, loop: Loop, events: Events) -> None:
        self._client, self._loop, self._events = client, loop, events

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:
        if kind != kinds.NODE:
            yield from controller_of(kinds.DAEMON_SET, kind, old, new)
        elif _allowing(old) != _allowing(new):
            for ds in self._loop.objects(kinds.DAEMON_SET):
                yield ds["metadata"]["namespace"], ds["metadata"]["name"]

    async def reconcile(self, key: Key) -> float | None:
        namespace, name = key
        ds = await self._client.get(kinds.DAEMON_SET, namespace, name)
        if ds is None or ds["metadata"].get("deletionTimestamp"):
            return None
        history = await revisions.history(self._client, ds)
        found, _ = await self._client.list(kinds.POD, namespace)
        pods = await claim(self._client, ds, kinds.POD, found, dig(ds, "spec", "selector"))
        nodes, _ = await self._client.list(kinds.NODE)
        now = times.now()
        plan = daemon_set(ds, nodes, pods, revisions.hash_of(history.newest), now)
        for pod in pods:
            self._ended(ds, pod)
        for kind, pod in plan.create:
            made = await self._client.create(kind, pod)
            self._events.event(ds, "Normal", "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")
        for kind, pod_name in plan.delete:
            if await self._client.delete(kind, namespace, pod_name):
                self._events.event(ds, "Normal", "SuccessfulDelete", f"Deleted pod: {pod_name}")
        used = {f"{name}-{_revision(p)}" for p in pods}
        await revisions.prune(self._client, ds, history, used)
        await set_status(self._client, kinds.DAEMON_SET, ds, plan.status)
        waiting = (waits_s(p, _min_ready(ds), now) for p in pods)
        return min((w for w in waiting if w), default=None)

    def _ended(self, ds: Json, pod: Json) -> None:
        """Say why a pod of a node is replaced."""
        phase, meta = dig(pod, "status", "phase"), pod["metadata"]
        where = f"daemon pod {meta['namespace']}/{meta['name']} on node {_node_of(pod)}, will try to"
        if meta.get("deletionTimestamp"):
            return
        if phase == "Failed":
            self._events.event(ds, "Warning", "FailedDaemonPod", f"Found failed {where} kill it")
        elif phase == "Succeeded":
            self._events.event(ds, "Normal", "SucceededDaemonPod", f"Found succeeded {where} delete it")


def _allowing(node: Json | None) -> tuple[object, ...]:
    """The properties of a node that decide which pods may run there."""
    return (dig(node or {}, "metadata", "labels"), dig(node or {}, "spec"), node is None)


def _min_ready(ds: Json) -> int:
    return int(dig(ds, "spec", "minReadySeconds", default=0))


def _revision(pod: Json) -> str:
    return str(dig(pod, "metadata", "labels", revisions.POD_HASH, default=""))


def _node_of(pod: Json) -> str:
    """Where it runs, or is to run."""
    if name := dig(pod, "spec", "nodeName"):
        return str(name)
    required = dig(pod, "spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    for term in (required or {}).get("nodeSelectorTerms") or []:
        for field in term.get("matchFields") or []:
            if field.get("key") == "metadata.name" and field.get("values"):
                return str(field["values"][0])
    return ""


def daemon_set(ds: Json, nodes: list[Json], pods: list[Json], revision: str, now: datetime) -> Plan:
    """One step: a pod where one should be, none where none should be, and old ones replaced within the limits."""
    plan = Plan()
    spec = ds["spec"]["template"]["spec"]
    tolerant = {**spec, "tolerations": [*(spec.get("tolerations") or []), *fitting.DAEMON_TOLERATIONS]}
    placed: dict[str, list[Json]] = {}
    for pod in sorted(pods, key=lambda p: (str(p["metadata"].get("creationTimestamp")), p["metadata"]["name"])):
        placed.setdefault(_node_of(pod), []).append(pod)
    wanted: list[Json] = []
    misscheduled = 0
    for node in nodes:
        name = node["metadata"]["name"]
        here = placed.pop(name, [])
        chosen = fitting.selected(spec, node)
        stays = chosen and fitting.untolerated(tolerant, node, ("NoExecute",)) is None
        if stays and fitting.untolerated(tolerant, node, ("NoSchedule",)) is None:
            wanted.append(node)
            _on_node(plan, ds, name, here, revision, now)
        elif not stays:
            misscheduled += bool(here)
            _delete(plan, here)
    for strangers in placed.values():  # of nodes that are gone
        _delete(plan, strangers)
    _replace(plan, ds, wanted, pods, revision, now)
    plan.status = _status(ds, wanted, pods, revision, misscheduled, now)
    return plan


def _delete(plan: Plan, pods: list[Json]) -> None:
    plan.delete += [(kinds.POD, p["metadata"]["name"]) for p in pods if not p["metadata"].get("deletionTimestamp")]


def _on_node(plan: Plan, ds: Json, node: str, here: list[Json], revision: str, now: datetime) -> None:
    """A pod if there is none. One that has ended is deleted first, and two of one revision are one too many; of two
    revisions the new one must be available before the old one goes (``maxSurge``)."""
    _delete(plan, [p for p in here if is_finished(p)])
    alive = [p for p in here if not is_finished(p)]
    if not here:
        plan.create.append((kinds.POD, _pod(ds, node, revision)))
    new, old = ([p for p in alive if (_revision(p) == revision) is now_] for now_ in (True, False))
    _delete(plan, new[1:])
    _delete(plan, old[1:])
    if old and new and waits_s(new[0], _min_ready(ds), now) == 0.0:
        _delete(plan, old[:1])


def _pod(ds: Json, node: str, revision: str) -> Json:
    labels = {revisions.POD_HASH: revision, "pod-template-generation": _generation(ds)}
    pod = pod_of(ds, ds["spec"]["template"], {"generateName": f"{ds['metadata']['name']}-"}, labels)
    spec = pod["spec"]
    spec["tolerations"] = [*(spec.get("tolerations") or []), *map(dict, fitting.DAEMON_TOLERATIONS)]
    fields = [{"key": "metadata.name", "operator": "In", "values": [node]}]
    required = {"nodeSelectorTerms": [{"matchFields": fields}]}
    affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    affinity["requiredDuringSchedulingIgnoredDuringExecution"] = required
    return pod


def _generation(ds: Json) -> str:
    return str(dig(ds, "metadata", "annotations", GENERATION, default=ds["metadata"].get("generation", 1)))


def _replace(plan: Plan, ds: Json, wanted: list[Json], pods: list[Json], revision: str, now: datetime) -> None:
    """RollingUpdate: the pods of old revisions go within ``maxUnavailable``, or new ones come first (``maxSurge``)."""
    strategy = dig(ds, "spec", "updateStrategy", default={})
    if strategy.get("type") != "RollingUpdate":
        return
    rolling = strategy.get("rollingUpdate") or {}
    nodes = {n["metadata"]["name"] for n in wanted}
    alive = [
        p for p in pods if not p["metadata"].get("deletionTimestamp") and not is_finished(p) and _node_of(p) in nodes
    ]
    deleted = {name for _, name in plan.delete}
    old = [p for p in alive if _revision(p) != revision and p["metadata"]["name"] not in deleted]
    surge = share(rolling.get("maxSurge"), len(nodes), up=True)
    if surge:
        doubled = {_node_of(p) for p in alive if _revision(p) == revision}
        single = [p for p in old if _node_of(p) not in doubled]
        under_way = len({_node_of(p) for p in old} & doubled)
        for pod in single[: max(0, surge - under_way)]:
            plan.create.append((kinds.POD, _pod(ds, _node_of(pod), revision)))
        return
    able = {p["metadata"]["name"] for p in alive if waits_s(p, _min_ready(ds), now) == 0.0} - deleted
    down = len(nodes - {_node_of(p) for p in alive if p["metadata"]["name"] in able})
    spare = share(rolling.get("maxUnavailable", 1), len(nodes), up=True) - down
    idle = [p for p in old if p["metadata"]["name"] not in able]
    busy = [p for p in old if p["metadata"]["name"] in able]
    _delete(plan, idle + busy[: max(0, spare)])


def _status(ds: Json, wanted: list[Json], pods: list[Json], revision: str, misscheduled: int, now: datetime) -> Json:
    """Of several pods on a node, the oldest counts."""
    names = {n["metadata"]["name"] for n in wanted}
    there = [
        p for p in pods if not (p["metadata"].get("deletionTimestamp") and is_finished(p)) and _node_of(p) in names
    ]
    there.sort(key=lambda p: (str(p["metadata"].get("creationTimestamp")), p["metadata"]["name"]), reverse=True)
    alive = list({_node_of(p): p for p in there}.values())
    ready = [p for p in alive if is_ready(p)]
    available = [p for p in ready if waits_s(p, _min_ready(ds), now) == 0.0]
    return {
        "desiredNumberScheduled": len(names),
        "currentNumberScheduled": len(alive),
        "numberMisscheduled": misscheduled,
        "numberReady": len(ready),
        "updatedNumberScheduled": sum(_revision(p) == revision for p in alive) or None,
        "numberAvailable": len(available) or None,
        "numberUnavailable": (len(names) - len(available)) or None,
        "observedGeneration": ds["metadata"].get("generation", 1),
    }
