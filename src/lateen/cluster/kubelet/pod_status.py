"""A pod's status, computed from the states of its containers. Pure; follows Kubernetes' pod lifecycle documentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from lateen.cluster.kubelet.container import Container, Role, Running, Terminated, Waiting
from lateen.cluster.rules import amounts
from lateen.kit import times
from lateen.kit.jsons import Json, dig

OWN_CONDITIONS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
RESIZE = "PodResizePending"
EVICTED, DISRUPTED = "Evicted", "DisruptionTarget"
"""The reason of a pod that the kubelet evicts, and the condition that a Job's podFailurePolicy may name."""


@dataclass(frozen=True)
class Facts:
    """A pod's state apart from its containers. ``failure``: reason and message if it was stopped as a whole. ``over``:
    nothing is started any more, whatever the restart policy. ``infeasible``: why it cannot have the resources that it
    asks for."""

    policy: str
    started_at: str
    address: str
    node_address: str
    initialized: bool
    failure: tuple[str, str] | None = None
    over: bool = False
    infeasible: str = ""


def _time(at: float) -> str:
    return times.stamp(datetime.fromtimestamp(at, UTC))


def phase(facts: Facts, init: Sequence[Container], main: Sequence[Container]) -> str:
    if facts.failure:
        return "Failed"
    if facts.over and not any(c.running for c in [*init, *main]):  # as the kubelet's SyncTerminatedPod
        return "Succeeded" if all(c.succeeded for c in main) else "Failed"
    if not facts.initialized:
        failed = any(c.ended and c.ended.code for c in init if c.role is Role.INIT and not c.restarts(facts.policy))
        return "Failed" if failed else "Pending"
    if any(c.attempt < 0 for c in main):
        return "Pending"
    if any(c.restarts(facts.policy) or not isinstance(c.state, Terminated) for c in main):
        return "Running"
    if any(c.running for c in init):
        return "Running"  # its sidecars have yet to stop
    return "Succeeded" if all(c.succeeded for c in main) else "Failed"


def is_disowned(pod: Json) -> bool:
    """Whether the control plane has taken the node for dead and the pod for unready, which nobody but the kubelet takes
    back."""
    said = {c["type"]: c["status"] for c in dig(pod, "status", "conditions", default=[])}
    return said.get("ContainersReady") == "True" and said.get("Ready") == "False"


def terminated(t: Terminated) -> Json:
    out: Json = {
        "exitCode": t.code,
        "reason": t.reason,
        "startedAt": _time(t.started_at),
        "finishedAt": _time(t.finished_at),
    }
    if t.id:
        out["containerID"] = f"lateen://{t.id}"
    if t.message:
        out["message"] = t.message
    return out


def parse(found: Json | None) -> Terminated | None:
    """The inverse of ``terminated``: reads a ``state`` or ``lastState``."""
    t = (found or {}).get("terminated")
    if not isinstance(t, dict):
        return None
    at = [times.parse(t[k]).timestamp() if t.get(k) else 0.0 for k in ("startedAt", "finishedAt")]
    key = str(t.get("containerID") or "").removeprefix("lateen://")
    return Terminated(key, int(t.get("exitCode") or 0), at[0], at[1], str(t.get("reason")), str(t.get("message") or ""))


def container_status(c: Container, initialized: bool, over: bool = False) -> Json:
    """``over``: the pod has terminated."""
    state: Json = {}
    match c.state:
        case Running(started_at=at):
            state = {"running": {"startedAt": _time(at)}}
        case Terminated():
            state = {"terminated": terminated(c.state)}
        case Waiting(reason, message):
            if reason == "ContainerCreating" and c.role is Role.MAIN and not initialized:
                reason = "PodInitializing"
            state = {"waiting": {"reason": reason} | ({"message": message} if message else {})}
    key = c.state.id if not isinstance(c.state, Waiting) else c.last.id if c.last else ""
    out: Json = {
        "name": c.name,
        "image": c.spec["image"],
        "imageID": f"lateen://{c.spec['image']}",
        "restartCount": max(c.attempt, 0),
        "ready": c.ready or (c.role is Role.INIT and c.succeeded),
        "started": c.started or (c.role is Role.INIT and c.running is not None and not over),
        "state": state,
        "lastState": {"terminated": terminated(c.last)} if c.last else {},
    }
    if key:
        out["containerID"] = f"lateen://{key}"
    if c.resources:
        out["resources"] = {k: v for k, v in c.resources.items() if k in ("limits", "requests")}
        out |= {"allocatedResources": c.resources["requests"]} if c.resources.get("requests") else {}
    return out


def conditions(pod: Json, init: Sequence[Container], main: Sequence[Container], facts: Facts, now: str) -> list[Json]:
    """The kubelet's own conditions; those of others (readiness gates among them) are kept as they are."""
    before = {c["type"]: c for c in dig(pod, "status", "conditions", default=[])}
    waited = [c.name for c in init if not (c.succeeded or c.started)]
    unready = [c.name for c in [*init, *main] if c.role is not Role.INIT and not c.ready]
    over = phase(facts, init, main) in ("Succeeded", "Failed")
    gates = [str(g.get("conditionType")) for g in dig(pod, "spec", "readinessGates", default=[])]
    closed = [g for g in gates if dig(before, g, "status") != "True"]
    initialized = _condition(facts.initialized, "ContainersNotInitialized", "incomplete status", waited)
    containers = _condition(facts.initialized and not unready, "ContainersNotReady", "unready status", unready)
    ready = containers
    if over:
        reason = "PodCompleted" if phase(facts, init, main) == "Succeeded" else "PodFailed"
        containers = ready = {"status": "False", "reason": reason}
    elif closed and containers["status"] == "True":
        says = f'corresponding condition of pod readiness gate "{closed[0]}" does not exist or is not "True".'
        ready = {"status": "False", "reason": "ReadinessGatesNotReady", "message": says}
    connected = {"status": "True" if facts.address and not over else "False"}
    own = dict(zip(OWN_CONDITIONS, (connected, initialized, ready, containers, {"status": "True"}), strict=True))
    if facts.infeasible and not over:
        own[RESIZE] = {"status": "True", "reason": "Infeasible", "message": facts.infeasible}
    if facts.failure and facts.failure[0] == EVICTED:
        own[DISRUPTED] = {"status": "True", "reason": "TerminationByKubelet", "message": facts.failure[1]}
    out = [c for c in before.values() if c["type"] not in (*own, RESIZE)]
    for kind, value in own.items():
        was = before.get(kind)
        at = was["lastTransitionTime"] if was and was["status"] == value["status"] else now
        out.append({"type": kind, "lastTransitionTime": at, **value})
    return out


def _condition(ok: bool, reason: str, what: str, names: list[str]) -> Json:
    if ok:
        return {"status": "True"}
    return {"status": "False", "reason": reason, "message": f"containers with {what}: [{' '.join(names)}]"}


def status(pod: Json, init: Sequence[Container], main: Sequence[Container], facts: Facts, now: str) -> Json:
    """``now``: the timestamp for conditions that change."""
    is_over = phase(facts, init, main) in ("Succeeded", "Failed")
    out: Json = {
        "phase": phase(facts, init, main),
        "qosClass": amounts.qos(pod["spec"]),
        "conditions": conditions(pod, init, main, facts, now),
        "hostIP": facts.node_address,
        "hostIPs": [{"ip": facts.node_address}],
        "startTime": facts.started_at,
        "containerStatuses": [container_status(c, facts.initialized, is_over) for c in main],
    }
    if facts.failure:
        out |= {"reason": facts.failure[0], "message": facts.failure[1]}
    if init:
        out["initContainerStatuses"] = [container_status(c, facts.initialized, is_over) for c in init]
    if facts.address:
        out |= {"podIP": facts.address, "podIPs": [{"ip": facts.address}]}
    return out
