"""Incremental analysis: an analyzer runs again only if a kind that it has read has changed. Pure."""

from __future__ import annotations

from lateen.analysis import decoded
from lateen.analysis.registry import Analyzer, gravest_first, run_one, usual
from lateen.analysis.snapshot import EVERYTHING, Key, Message, Snapshot, Source, suppressed
from lateen.api import kinds
from lateen.api.validate import Finding
from lateen.kit.jsons import Json

Findings = dict[str, list[Message]]
"""Object (``Kind namespace/name``) -> its findings, the most severe first."""


class Standing:
    """Objects are put and dropped; ``findings`` returns the current findings."""

    def __init__(self, root: str, unread: frozenset[str], revision: str = "") -> None:
        self._snapshot = Snapshot((), root=root, unread=unread, secrets=frozenset(), revision=revision)
        self._changes: dict[Key, Source | None] = {}
        self._results: dict[str, tuple[list[Message], frozenset[str]]] = {}
        self.secrets: frozenset[str] = frozenset()
        """Namespaces whose Secrets are among the objects."""
        self.runs = 0
        """How many times an analyzer has run."""

    @property
    def snapshot(self) -> Snapshot:
        """The objects of the last ``findings``."""
        return self._snapshot

    def put(self, obj: Json, validated: list[Finding] | None = None, cluster: str = "") -> None:
        """``validated``: the findings of validation, if the object has been validated already; ``cluster``: another
        cluster that it is in."""
        source = Source(obj, cluster=cluster)
        if validated is not None:
            decoded.validated(source, validated)
        self._changes[str(source.id), source.namespace, source.name, cluster] = source

    def drop(self, obj: Json, cluster: str = "") -> None:
        """Remove an object; apiVersion, kind and name suffice."""
        source = Source(obj)
        self._changes[str(source.id), source.namespace, source.name, cluster] = None

    def findings(self) -> Findings:
        changed = {key[0] for key in self._changes}
        if self._snapshot.secrets != self.secrets:
            changed.add(str(kinds.SECRET.id))
        self._snapshot = self._snapshot.replaced(self._changes, self.secrets)
        self._changes = {}
        out: Findings = {}
        for a in usual():
            for m in self._of(a, changed):
                out.setdefault(m.source.ref, []).append(m)
        return {ref: sorted(found, key=gravest_first) for ref, found in out.items()}

    def _of(self, a: Analyzer, changed: set[str]) -> list[Message]:
        known = self._results.get(a.name)
        if known is None or known[1] & changed or (EVERYTHING in known[1] and changed):
            found, read = run_one(a, self._snapshot)
            kept = [] if read & self._snapshot.unread else [m for m in found if not suppressed(m, ())]
            known = self._results[a.name] = (kept, read)
            self.runs += 1
        return known[0]
