"""The analysis process, separate so that neither pushes nor istiod's exit wait for it.

It is forked from istiod before istiod has threads, an event loop or gRPC (``fork``), so that both share the modules
that have been loaded by then. If it dies, another one is started: ``python -m lateen.control.findings`` with the
connection as its standard input.

Each line that it reads is a batch of changes: ``{"root": the root namespace, "revision": istiod's, "put": [[object,
its validation findings or null, its cluster]], "drop": [[object, its cluster]], "secrets": [namespace], "more": whether
the question goes on}``; istiod's own cluster is "". It answers the last line of a question with one line: each object
whose findings differ from the previous answer, with its findings. It exits when its input ends. It does not import
asyncio, which would add a tenth to its cost.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import traceback
from typing import NamedTuple

from lateen.analysis import Message
from lateen.analysis.standing import Standing
from lateen.api import kinds
from lateen.api.validate import Finding
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
"""Kinds that analyzers need and istiod does not watch."""
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
    """The child's side: lines in, lines out."""

    def __init__(self) -> None:
        self._standing: Standing | None = None
        self._before: dict[str, list[tuple[str, ...]]] = {}

    def answer(self, line: bytes) -> bytes | None:
        """Handle a line; returns None if more lines belong to the same request."""
        message = jsons.loads(line)
        standing = self._standing
        if standing is None:
            standing = self._standing = Standing(message["root"], UNREAD, message["revision"])
        for obj, said, cluster in message["put"]:
            standing.put(obj, None if said is None else [Finding(*f) for f in said], cluster)
        for obj, cluster in message["drop"]:
            standing.drop(obj, cluster)
        if message["more"]:
            return None
        standing.secrets = frozenset(message["secrets"])
        now = {ref: kept for ref, found in standing.findings().items() if (kept := _plain(found))}
        report = {ref: now.get(ref, []) for ref in now.keys() | self._before if now.get(ref) != self._before.get(ref)}
        self._before = now
        return jsons.dumps(report) + b"\n"


def _plain(found: list[Message]) -> list[tuple[str, ...]]:
    """The findings without duplicates: two analyzers may report the same."""
    kept = ((m.kind.code, m.kind.name, m.kind.level, m.text) for m in found if m.kind.code not in NOT_OURS)
    return list(dict.fromkeys(kept))


class Child(NamedTuple):
    """The parent's handle of the process."""

    pid: int
    connection: socket.socket


def fork() -> Child:
    """Fork the process; the caller must have no threads and no event loop."""
    ours, theirs = socket.socketpair()
    importlib.import_module("lateen.analysis.model")  # load the mesh, which both processes need
    memory.settle()  # otherwise garbage collection would write to shared pages and so copy them
    pid = os.fork()
    if pid:
        theirs.close()
        return Child(pid, ours)
    ours.close()
    code = 1
    try:
        serve(theirs)
        code = 0
    except BaseException:  # noqa: BLE001 - the child must never return into the parent's code
        traceback.print_exc()
    finally:
        os._exit(code)


def serve(connection: socket.socket) -> None:
    """Answer until the connection is closed."""
    os.nice(NICE)  # pushes have priority
    memory.settle()
    worker = Worker()
    with contextlib.suppress(KeyboardInterrupt, OSError), connection, connection.makefile("rb") as lines:
        for line in lines:
            answer = worker.answer(line)
            if answer is not None:
                connection.sendall(answer)


if __name__ == "__main__":
    serve(socket.socket(fileno=0))
