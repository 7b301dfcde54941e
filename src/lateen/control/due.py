"""The objects whose statuses have to be recomputed after a change. Pure.

The inputs of a status come from several sources that only know the current state (sessions, the mesh, the patches), so
the last state of each is kept, and an object is due if the next one differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lateen.api import kinds
from lateen.api.objects import Ref
from lateen.kit.jsons import Json
from lateen.kube.informer import Key

Place = tuple[kinds.Kind, Key]
"""An object: its kind, and its namespace and name."""


def place(ref: str) -> Place | None:
    """The object with this reference (``Gateway default/web``); None for kinds whose status we do not write."""
    name, _, where = ref.partition(" ")
    kind = kinds.named(name)
    namespace, slash, of = where.partition("/")
    namespace, of = (namespace, of) if slash else ("", namespace)
    return (kind, (namespace, of)) if kind is not None and kind.owned else None


class Due:
    def __init__(self) -> None:
        self._marked: dict[Place, None] = {}
        self._unsettled: dict[Place, None] = {}
        self._refused: set[str] = set()
        self._served: set[str] = set()
        self._addresses: Mapping[Key, str] = {}
        self._standings: Mapping[Ref, object] = {}
        self.extras: dict[str, list[Json]] = {}
        """Conditions that only some objects have, by object."""

    def mark(self, places: Iterable[Place]) -> None:
        self._marked.update(dict.fromkeys(places))

    def mark_refs(self, refs: Iterable[str | Ref]) -> None:
        self.mark(p for ref in refs if (p := place(str(ref))))

    def settle(self, where: Place, settled: bool) -> None:
        """An unsettled object stays due until proxies have acknowledged it."""
        if settled:
            self._unsettled.pop(where, None)
        else:
            self._unsettled[where] = None

    def sessions(self, refused: set[str], served: set[str]) -> None:
        """Set the objects that some proxy rejects, and the Gateways that some proxy serves."""
        self.mark_refs(refused ^ self._refused)
        self.mark_refs(served ^ self._served)
        if served != self._served:
            self._mark_standing(kinds.LISTENER_SET)
        self._refused, self._served = refused, served

    def conditions(self, extras: dict[str, list[Json]]) -> None:
        """Conditions that only some objects have."""
        self.mark_refs(r for r in extras.keys() | self.extras.keys() if extras.get(r) != self.extras.get(r))
        self.extras = extras

    def standings(self, found: Mapping[Ref, object]) -> None:
        """Set the standings of Gateway API objects. ``found`` is replaced, never modified."""
        if found is not self._standings:
            refs = found.keys() | self._standings.keys()
            self.mark_refs(r for r in refs if found.get(r) is not self._standings.get(r))
            self._standings = found

    def mark_gateways(self) -> None:
        """Mark Gateways: the addresses of their Services may have changed."""
        self._mark_standing(kinds.KUBERNETES_GATEWAY)
        self._mark_standing(kinds.LISTENER_SET)

    def _mark_standing(self, kind: kinds.Kind) -> None:
        self.mark_refs(r for r in self._standings if r.group_kind == kind.id)

    def addresses(self, given: Mapping[Key, str], entries: Iterable[Key]) -> None:
        """Set the addresses allocated for hosts of ServiceEntries, by (namespace, host), and all ServiceEntries.
        ``given`` is replaced, never modified."""
        if given is not self._addresses:
            changed = {k for k in given.keys() | self._addresses.keys() if given.get(k) != self._addresses.get(k)}
            namespaces = {namespace for namespace, _ in changed}
            self.mark((kinds.SERVICE_ENTRY, key) for key in entries if key[0] in namespaces)
            self._addresses = given

    def take(self) -> list[Place]:
        """The objects that are due, which are then no longer due."""
        out = list(self._marked | self._unsettled)
        self._marked = {}
        return out
