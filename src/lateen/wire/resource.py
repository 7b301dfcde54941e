"""One xDS resource as delivery sees it: a name, a version, bytes. No protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resource:
    """``wrapped`` is the serialized ``envoy.service.discovery.v3.Resource``; ``origin`` names the user's objects."""

    name: str
    version: str
    wrapped: bytes
    origin: tuple[str, ...] = ()


class ResourceSet:
    """Resources of one type, shared by every proxy with an equal view; compared by identity."""

    __slots__ = ("__weakref__", "_diffs", "resources")

    def __init__(self, resources: Mapping[str, Resource]) -> None:
        self.resources = resources
        self._diffs: dict[int, tuple[ResourceSet, frozenset[str], frozenset[str]]] = {}

    def changes_since(self, old: ResourceSet | None) -> tuple[frozenset[str], frozenset[str]]:
        """(names that are new or changed, names that are gone) since ``old``; worked out once per pair."""
        if old is None:
            return frozenset(self.resources), frozenset()
        if old is self:
            return frozenset(), frozenset()
        known = self._diffs.get(id(old))
        if known is not None and known[0] is old:
            return known[1], known[2]
        changed = frozenset(
            n
            for n, r in self.resources.items()
            if (was := old.resources.get(n)) is not r and (was is None or was.version != r.version)
        )
        removed = frozenset(n for n in old.resources if n not in self.resources)
        if len(self._diffs) >= 4:
            self._diffs.clear()
        self._diffs[id(old)] = (old, changed, removed)
        return changed, removed


EMPTY = ResourceSet({})
