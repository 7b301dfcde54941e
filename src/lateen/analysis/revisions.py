"""Each revision's istiod reads its own objects and those without a revision: each has a mesh of its own to analyze."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from lateen.analysis.snapshot import Message, Snapshot, Source, revision_of
from lateen.api import kinds
from lateen.wire.revision import DEFAULT, LABEL

Analysis = Callable[[Snapshot], Iterable[Message]]


def running(sources: Iterable[Source], root: str) -> set[str]:
    """The revisions of the istiods among the objects."""
    pods = (s for s in sources if s.id == kinds.POD.id and s.namespace == root and not s.cluster)
    return {s.labels.get(LABEL, DEFAULT) for s in pods if s.labels.get("app") == "istiod"}


def analyzed(
    sources: Collection[Source], root: str, only: str, make: Callable[[str], Snapshot], run: Analysis
) -> Iterator[tuple[Snapshot, list[Message]]]:
    """The findings of each revision: of those that run, or ``only`` one. Objects of a revision that does not run yet
    are analyzed as if it did. Without an istiod, as with files alone, all objects are one mesh, as in Istio.

    ``make`` returns the snapshot of a revision."""

    def of(revision: str) -> tuple[Snapshot, list[Message]]:
        found = make(revision)
        return found, list(run(found))

    if only:
        yield of(only)
        return
    live = running(sources, root)
    for revision in sorted(live) or [""]:
        yield of(revision)
    for revision in sorted({revision_of(s) for s in sources} - live - {""}) if live else ():
        snapshot, found = of(revision)
        yield snapshot, [m for m in found if revision_of(m.source) == revision]
