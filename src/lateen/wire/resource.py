"""One xDS resource as delivery sees it: a name, a version, bytes. No protobuf."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Resource:
    """``wrapped`` is the serialized ``envoy.service.discovery.v3.Resource``; ``origin`` names the user's objects."""

    name: str
    version: str
    wrapped: bytes
    origin: tuple[str, ...] = ()


Changes = tuple[frozenset[str], frozenset[str]]
"""(names that are new or changed, names that are removed)"""


class ResourceSet:
    """Resources of one type, shared by every proxy with an equal view; compared by identity.

    A set can be the union of parts whose names do not overlap; changes between two unions are then looked for only in
    the parts that differ.
    """

    __slots__ = ("__weakref__", "_last", "_resources", "parts")

    def __init__(self, resources: Mapping[str, Resource], parts: tuple[ResourceSet, ...] = ()) -> None:
        self._resources: Mapping[str, Resource] | None = None if parts else resources
        self.parts = parts
        self._last: tuple[weakref.ref[ResourceSet], Changes] | None = None

    @classmethod
    def union(cls, parts: tuple[ResourceSet, ...]) -> ResourceSet:
        found = tuple(p for p in parts if p is not EMPTY)
        return found[0] if len(found) == 1 else cls({}, found) if found else EMPTY

    @property
    def resources(self) -> Mapping[str, Resource]:
        if self._resources is None:
            found: dict[str, Resource] = {}
            for p in self.parts:
                found.update(p.resources)
            self._resources = found
        return self._resources

    def changes_since(self, old: ResourceSet | None) -> Changes:
        """The difference to ``old``, computed once for all proxies that had it; does not keep ``old`` alive."""
        if old is None:
            return frozenset(self.resources), frozenset()
        if old is self:
            return frozenset(), frozenset()
        if self._last is not None and self._last[0]() is old:
            return self._last[1]
        made = self._compared(old)
        self._last = (weakref.ref(old), made)
        return made

    def _compared(self, old: ResourceSet) -> Changes:
        before, after = old.resources, self.resources
        if self.parts and old.parts:
            known, kept = set(old.parts), set(self.parts)
            after = {n: r for p in self.parts if p not in known for n, r in p.resources.items()}
            before = {n: r for p in old.parts if p not in kept for n, r in p.resources.items()}
        changed = frozenset(
            n for n, r in after.items() if (was := before.get(n)) is not r and (was is None or was.version != r.version)
        )
        return changed, frozenset(n for n in before if n not in self.resources)


EMPTY = ResourceSet({})
