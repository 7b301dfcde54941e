"""What becomes of the single indexes of an Indexed Job. Pure; follows Kubernetes' job controller."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from lateen.kit.digits import digits
from lateen.kit.jsons import Json, dig

INDEX = "batch.kubernetes.io/job-completion-index"
IGNORED = "batch.kubernetes.io/job-index-ignored-failure-count"
"""How often the index had failed before the pod in a way that does not count."""
FAILURES = "batch.kubernetes.io/job-index-failure-count"
"""How often the index had failed before the pod."""


class Failures(NamedTuple):
    """Of an index: all of them, those that count, and when the last pod ended."""

    all: int = 0
    counted: int = 0
    last: str = ""

    def notes(self) -> dict[str, str]:
        """The annotations of its next pod."""
        ignored = self.all - self.counted
        return {FAILURES: str(self.counted)} | ({IGNORED: str(ignored)} if ignored else {})


@dataclass
class Indexes:
    """``failed``: indexes that are given up (``backoffLimitPerIndex``); ``failures``: of the others."""

    succeeded: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    failures: dict[int, Failures] = field(default_factory=dict)

    def fails(self, spec: Json, pod: Json, action: str, ended_at: str) -> None:
        """Note that a pod has failed, and what its Job's policy says of that."""
        index, limit = index_of(pod), spec.get("backoffLimitPerIndex")
        if index is None or limit is None:
            return
        count = _number(pod, FAILURES, 0) + (action != "Ignore")
        ignored = _number(pod, IGNORED, 0) + (action == "Ignore")
        last = self.failures.get(index, Failures())
        self.failures[index] = max(last, Failures(count + ignored, count, ended_at))
        if action == "FailIndex" or count > int(limit):
            self.failed.add(index)


def index_of(pod: Json) -> int | None:
    found = _number(pod, INDEX, -1)
    return found if found >= 0 else None


def _number(pod: Json, annotation: str, default: int) -> int:
    text = str(dig(pod, "metadata", "annotations", annotation, default=""))
    return int(text) if digits(text) and len(text) < 7 else default


def failure(spec: Json, indexes: Indexes) -> tuple[str, str] | None:
    """Reason and message where too many indexes are given up."""
    failed, most = len(indexes.failed), spec.get("maxFailedIndexes")
    if most is not None and failed > int(most):
        return "MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes"
    if failed and failed + len(indexes.succeeded) >= int(spec["completions"]):
        return "FailedIndexes", "Job has failed indexes"
    return None


def success(spec: Json, indexes: Indexes) -> tuple[str, str] | None:
    """Reason and message where the successPolicy is met."""
    for i, rule in enumerate(dig(spec, "successPolicy", "rules", default=[])):
        wanted = rule.get("succeededIndexes")
        listed = parse(wanted) if wanted is not None else indexes.succeeded
        count = rule.get("succeededCount")
        needed = int(count) if count is not None else len(listed)
        if (wanted is not None or count is not None) and len(listed & indexes.succeeded) >= needed > 0:
            return "SuccessPolicy", f"Matched rules at index {i}"
    return None


def parse(text: str) -> set[int]:
    """``0-2,5``; what cannot be read is left out."""
    out: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if digits(first) and digits(last or first):
            out.update(range(int(first), min(int(last or first), 100_000) + 1))
    return out


def shown(values: Iterable[int]) -> str:
    spans: list[tuple[int, int]] = []
    for value in sorted(values):
        if spans and spans[-1][1] == value - 1:
            spans[-1] = (spans[-1][0], value)
        else:
            spans.append((value, value))
    return ",".join(str(a) if a == b else f"{a}{'-' if b > a + 1 else ','}{b}" for a, b in spans)
