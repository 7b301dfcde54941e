"""Rows of pods and of the workloads that create them."""

from __future__ import annotations

from typing import Any

from lateen.cluster.apiserver.tables.cells import NONE, Printer, age, images, name, selector, since
from lateen.kit.jsons import Json, dig

GATED = "SchedulingGated"


class _Tally:
    """The totals over a pod's containers."""

    def __init__(self) -> None:
        self.ready = self.restarts = 0
        self.last = ""

    def add(self, container: Json) -> None:
        self.restarts += container.get("restartCount", 0)
        self.last = max(self.last, str(dig(container, "lastState", "terminated", "finishedAt", default="")))

    def text(self) -> str:
        return f"{self.restarts} ({since(self.last)} ago)" if self.restarts and self.last else str(self.restarts)


def _pod(o: Json) -> list[Any]:
    status, spec = o.get("status") or {}, o["spec"]
    reason, tally = _phase(o)
    gates = [g.get("conditionType") for g in spec.get("readinessGates") or []]
    met = [c.get("type") for c in status.get("conditions") or [] if c.get("status") == "True"]
    total = len(spec["containers"]) + len(_sidecars(spec))
    return [
        name(o),
        f"{tally.ready}/{total}",
        reason,
        tally.text(),
        age(o),
        status.get("podIP") or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        f"{sum(g in met for g in gates)}/{len(gates)}" if gates else NONE,
    ]


def _sidecars(spec: Json) -> set[str]:
    return {c["name"] for c in spec.get("initContainers") or [] if c.get("restartPolicy") == "Always"}


def _phase(o: Json) -> tuple[str, _Tally]:
    """kubectl's STATUS column: the phase, or the most informative reason of a container."""
    status, spec, going = o.get("status") or {}, o["spec"], o["metadata"].get("deletionTimestamp")
    phase = str(status.get("phase") or "Unknown")
    reason, tally = str(status.get("reason") or phase), _Tally()
    if any((c.get("type"), c.get("reason")) == ("PodScheduled", GATED) for c in status.get("conditions") or []):
        reason = GATED
    sidecars = _Tally()
    stopped = _initial(status, spec, tally, sidecars)
    if stopped is not None:
        reason = stopped
    if stopped is None or _condition(status, "Initialized"):
        sidecars.ready = tally.ready
        reason, tally = _main(status, reason, sidecars), sidecars
    return ("Terminating" if going and phase not in ("Succeeded", "Failed") else reason), tally


def _initial(status: Json, spec: Json, tally: _Tally, sidecars: _Tally) -> str | None:
    """The init container that the pod has come to, or None where all of them are through."""
    names, total = _sidecars(spec), len(spec.get("initContainers") or [])
    for i, c in enumerate(status.get("initContainerStatuses") or []):
        ended, waiting = dig(c, "state", "terminated"), dig(c, "state", "waiting", "reason", default="")
        tally.add(c)
        if c.get("name") in names:
            sidecars.add(c)
        if ended is not None and ended.get("exitCode") == 0:
            continue
        if c.get("name") in names and c.get("started"):
            tally.ready += bool(c.get("ready"))
            continue
        if ended is not None:
            return f"Init:{_end(ended)}"
        return f"Init:{waiting}" if waiting not in ("", "PodInitializing") else f"Init:{i}/{total}"
    return None


def _main(status: Json, reason: str, tally: _Tally) -> str:
    running = False
    for c in reversed(status.get("containerStatuses") or []):
        state = c.get("state") or {}
        tally.add(c)
        if dig(state, "waiting", "reason"):
            reason = str(state["waiting"]["reason"])
        elif "terminated" in state:
            reason = _end(state["terminated"])
        elif c.get("ready") and "running" in state:
            running = True
            tally.ready += 1
    if reason == "Completed" and running:
        return "Running" if _condition(status, "Ready") else "NotReady"
    return reason


def _end(terminated: Json) -> str:
    if reason := terminated.get("reason"):
        return str(reason)
    signal = terminated.get("signal")
    return f"Signal:{signal}" if signal else f"ExitCode:{terminated.get('exitCode')}"


def _condition(status: Json, wanted: str) -> bool:
    return any(c.get("type") == wanted and c.get("status") == "True" for c in status.get("conditions") or [])


def _deployment(o: Json) -> list[Any]:
    spec, status = o["spec"], o.get("status") or {}
    return [
        name(o),
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 1)}",
        str(status.get("updatedReplicas", 0)),
        str(status.get("availableReplicas", 0)),
        age(o),
        *images(spec),
        selector(spec.get("selector")),
    ]


def _replica_set(o: Json) -> list[Any]:
    spec, status = o["spec"], o.get("status") or {}
    return [
        name(o),
        spec.get("replicas", 1),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        age(o),
        *images(spec),
        selector(spec.get("selector")),
    ]


PRINTERS = {
    "Pod": Printer(
        ("Name", "Ready", "Status", "Restarts", "Age", "+IP", "+Node", "+Nominated Node", "+Readiness Gates"), _pod
    ),
    "Deployment": Printer(
        ("Name", "Ready", "Up-to-date", "Available", "Age", "+Containers", "+Images", "+Selector"), _deployment
    ),
    "ReplicaSet": Printer(
        ("Name", "#Desired", "#Current", "#Ready", "Age", "+Containers", "+Images", "+Selector"), _replica_set
    ),
}
