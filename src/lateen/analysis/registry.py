"""Analyzers by name: each a pure function from a snapshot to findings."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from lateen.analysis.snapshot import Message, Snapshot, Source, message, suppressed

Run = Callable[[Snapshot], Iterable[Message]]


class Analyzer(NamedTuple):
    name: str
    description: str
    run: Run
    on_demand: bool = False
    """Runs only if it is chosen by name: its findings would be noise to most users, or duplicate another analyzer's."""


_FOUND: dict[str, Analyzer] = {}
_MODULES = (
    "annotations",
    "certificate",
    "definitions",
    "destination_rule",
    "effect",
    "envoy_filter",
    "gateway",
    "injection",
    "mesh",
    "mesh_config",
    "outcomes",
    "policy",
    "ports",
    "routing",
    "schema",
    "service",
    "targets",
    "telemetry",
    "undeclared",
    "virtual_service",
    "webhook",
)


def analyzer(name: str, description: str, on_demand: bool = False) -> Callable[[Run], Run]:
    """Register a function under a name (``--analyzer``). One with Istio's name reports what Istio's does; findings of
    our own come from others."""

    def add(run: Run) -> Run:
        _FOUND[name] = Analyzer(name, description, run, on_demand)
        return run

    return add


def analyzers() -> dict[str, Analyzer]:
    for module in _MODULES:
        importlib.import_module(f"lateen.analysis.rules.{module}")
    return _FOUND


def usual() -> list[Analyzer]:
    """The analyzers that run unless some are chosen by name."""
    return [a for a in analyzers().values() if not a.on_demand]


def analyze(snapshot: Snapshot, names: Iterable[str] = (), suppress: Iterable[tuple[str, str]] = ()) -> list[Message]:
    """Findings of the analyzers named, or of the usual ones, the most severe first. KeyError for an unknown name.

    An analyzer that reads a kind which the snapshot lacks is skipped and listed in ``snapshot.incomplete``.
    """
    known = analyzers()
    chosen = [known[n] for n in names] or usual()
    given = list(suppress)
    found = [m for m in _run(chosen, snapshot) if not suppressed(m, given)]
    return sorted(found, key=gravest_first)


def gravest_first(m: Message) -> tuple[int, str, str, str]:
    """A sort key."""
    return ("Error", "Warning", "Info").index(m.kind.level), m.kind.code, m.source.ref, m.text


def _run(chosen: list[Analyzer], snapshot: Snapshot) -> Iterator[Message]:
    for a in chosen:
        found, read = run_one(a, snapshot)
        if lacking := sorted(read & snapshot.unread):
            snapshot.incomplete[a.name] = lacking
        else:
            yield from found


def run_one(a: Analyzer, snapshot: Snapshot) -> tuple[list[Message], frozenset[str]]:
    """An analyzer's findings and the kinds that it has read. Findings with the same text about one object are reported
    once, at the first position, except those that Istio reports once for each line (``Message.each``)."""
    snapshot.read.clear()
    try:
        found = list({m.place: m for m in reversed(list(a.run(snapshot)))}.values())[::-1]
    except Exception as e:  # noqa: BLE001 - a bug in one analyzer must not suppress all others' findings
        source = Source({"kind": "Analyzer", "metadata": {"name": a.name}})
        found = [message("IST0001", source, f"{a.name} failed: {type(e).__name__}: {e}")]
    return found, frozenset(snapshot.read)
