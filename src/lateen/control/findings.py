"""The analysis' own process: ``python -m lateen.control.findings ROOT_NAMESPACE``.

Each line that it reads is a batch of changes, ``{"put": [object], "drop": [object], "secrets": [namespace], "more":
whether the question goes on}``; it answers the last one with one line: every object whose findings are others now, with
these. It ends when its input does. It imports no asyncio, which would be a tenth of what it costs.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NamedTuple

from lateen.analysis import Message
from lateen.analysis.standing import Standing
from lateen.api import kinds
from lateen.kit import jsons, memory

UNREAD = frozenset(
    str(kind.id)
    for kind in (
        kinds.DEPLOYMENT,
        kinds.CRD,
        kinds.MUTATING_WEBHOOK,
        kinds.VALIDATING_WEBHOOK,
    )
)
"""Kinds that analyzers look at and istiod does not watch."""
NOT_OURS = {"IST0171"}
"""Findings that repeat what istiod itself writes into a status."""
NICE = 5


class Found(NamedTuple):
    """One finding, as passed between the processes."""

    code: str
    name: str
    level: str
    text: str


class Worker:
    """The process's side: lines in, lines out."""

    def __init__(self, root: str) -> None:
        self._standing = Standing(root, UNREAD)
        self._before: dict[str, list[tuple[str, ...]]] = {}

    def answer(self, line: bytes) -> bytes | None:
        """None where more lines belong to the same question."""
        message = jsons.loads(line)
        for obj in message["put"]:
            self._standing.put(obj)
        for obj in message["drop"]:
            self._standing.drop(obj)
        if message["more"]:
            return None
        self._standing.secrets = frozenset(message["secrets"])
        now = {ref: kept for ref, found in self._standing.findings().items() if (kept := _plain(found))}
        report = {ref: now.get(ref, []) for ref in now.keys() | self._before if now.get(ref) != self._before.get(ref)}
        self._before = now
        return jsons.dumps(report) + b"\n"


def _plain(found: list[Message]) -> list[tuple[str, ...]]:
    """Each once: two analyzers may find the same."""
    kept = ((m.kind.code, m.kind.name, m.kind.level, m.text) for m in found if m.kind.code not in NOT_OURS)
    return list(dict.fromkeys(kept))


def main() -> None:
    os.nice(NICE)  # pushes come first
    memory.settle()
    worker = Worker(sys.argv[1])
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        for line in sys.stdin.buffer:
            answer = worker.answer(line)
            if answer is not None:
                sys.stdout.buffer.write(answer)
                sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
