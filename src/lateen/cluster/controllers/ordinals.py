"""Which pod of a StatefulSet comes or goes next. Pure; follows Kubernetes' ``updateStatefulSet``."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from lateen.api.reading import is_finished
from lateen.cluster.controllers import revisions
from lateen.cluster.controllers.ownership import is_ready, share, waits_s
from lateen.kit.jsons import Json, dig

BURST = 50
"""The most pods that are created at once, however many replicas are asked for."""


@dataclass
class Pods:
    """The pods of a set by ordinal, those that it should have (``wanted``), and the names of the revisions that its
    present and its new pods are of."""

    sts: Json
    found: dict[int, Json]
    current: str
    update: str
    now: datetime
    wanted: range = field(init=False)

    def __post_init__(self) -> None:
        start = int(dig(self.sts, "spec", "ordinals", "start", default=0))
        self.wanted = range(start, start + int(dig(self.sts, "spec", "replicas", default=1)))

    @property
    def strategy(self) -> Json:
        found: Json = dig(self.sts, "spec", "updateStrategy", default={})
        return found

    @property
    def partition(self) -> int:
        return int(dig(self.strategy, "rollingUpdate", "partition", default=0))

    def available(self, ordinal: int) -> bool:
        pod = self.found.get(ordinal)
        return (
            pod is not None and waits_s(pod, int(dig(self.sts, "spec", "minReadySeconds", default=0)), self.now) == 0.0
        )

    def going(self, ordinal: int) -> bool:
        return bool(self.found[ordinal]["metadata"].get("deletionTimestamp"))

    def revision_for(self, ordinal: int) -> str:
        """Of a new pod: below the partition it is still the present one."""
        if self.strategy.get("type") == "RollingUpdate" and ordinal < self.wanted.start + self.partition:
            return self.current
        return self.update


@dataclass
class Step:
    """``create``: ordinal and revision; ``delete``: ordinals."""

    create: list[tuple[int, str]] = field(default_factory=list)
    delete: list[int] = field(default_factory=list)


def revision_of(pod: Json) -> str:
    return str(dig(pod, "metadata", "labels", revisions.POD_HASH, default=""))


def step(pods: Pods) -> Step:
    """What is done now; what follows waits for the next change of a pod."""
    out = Step()
    ordered = dig(pods.sts, "spec", "podManagementPolicy") != "Parallel"
    if _fill(pods, out, ordered) or _shrink(pods, out, ordered):
        return out
    if pods.strategy.get("type") == "RollingUpdate":
        _replace(pods, out)
    return out


def _fill(pods: Pods, out: Step, ordered: bool) -> bool:
    """Create what is missing, in order; True if nothing else may happen before that is done."""
    for ordinal in pods.wanted:
        pod = pods.found.get(ordinal)
        if pod is None:
            out.create.append((ordinal, pods.revision_for(ordinal)))
            if ordered or len(out.create) == BURST:
                return True
        elif is_finished(pod) and not pods.going(ordinal):
            out.delete.append(ordinal)
            if ordered:
                return True
        elif ordered and not pods.available(ordinal):
            return True
    return False


def _shrink(pods: Pods, out: Step, ordered: bool) -> bool:
    """Delete what is too many, the highest ordinal first."""
    condemned = sorted((o for o in pods.found if o not in pods.wanted), reverse=True)
    for ordinal in condemned:
        if not pods.going(ordinal):
            out.delete.append(ordinal)
        if ordered:
            return True
    return bool(out.create or out.delete)


def _replace(pods: Pods, out: Step) -> None:
    """Pods of other revisions, the highest ordinal first, down to the partition; the next one when all above it are
    available (or as many at once as ``maxUnavailable`` allows)."""
    spare = max(1, share(dig(pods.strategy, "rollingUpdate", "maxUnavailable", default=1), len(pods.wanted), up=True))
    spare -= sum(not pods.available(o) for o in pods.wanted)
    for ordinal in reversed(pods.wanted):
        if ordinal < pods.wanted.start + pods.partition:
            return
        pod = pods.found[ordinal]
        if revision_of(pod) == pods.update or pods.going(ordinal):
            if not pods.available(ordinal) and spare <= 0:
                return
            continue
        if pods.available(ordinal):
            if spare <= 0:
                return
            spare -= 1
        out.delete.append(ordinal)


def status(pods: Pods) -> Json:
    alive = [p for o, p in pods.found.items() if not p["metadata"].get("deletionTimestamp")]
    every = list(pods.found.values())
    ready = [p for p in alive if is_ready(p)]
    of = {r: sum(revision_of(p) == r for p in alive) for r in (pods.current, pods.update)}
    replicas, updated, current = len(every), of[pods.update], pods.current
    rolling = pods.strategy.get("type") == "RollingUpdate"
    if rolling and updated == replicas == len(ready) == len(pods.wanted):
        current = pods.update
    return {
        "observedGeneration": pods.sts["metadata"].get("generation", 1),
        "replicas": replicas,
        "readyReplicas": len(ready) or None,
        "availableReplicas": sum(pods.available(o) for o in pods.found),
        "currentReplicas": (of[pods.update] if current == pods.update else of[pods.current]) or None,
        "updatedReplicas": updated or None,
        "currentRevision": current,
        "updateRevision": pods.update,
        "collisionCount": 0,
    }
