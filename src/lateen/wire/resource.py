"""xDS resources as seen by delivery: name, version, bytes. No protobuf."""

from __future__ import annotations

import re
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import is_
from typing import Any, cast

from lateen.kit import protowire

_CLUSTER = re.compile(rb"outbound\|\d+\|[\w.-]*\|[\w.*-]+", re.ASCII)


def _texts(message: bytes) -> Iterable[bytes]:
    """Candidates for names of clusters (``names.outbound``): strings preceded by their length, and those embedded in
    longer strings."""
    for found in _CLUSTER.finditer(message):
        at = found.start()
        yield found[0]
        yield message[at : at + message[at - 1]]
        yield message[at : at + (message[at - 2] & 0x7F) + (message[at - 1] << 7)]


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Resource:
    """``wrapped`` is the serialized ``envoy.service.discovery.v3.Resource``; ``origin`` names the user's objects."""

    name: str
    version: str
    wrapped: bytes
    origin: tuple[str, ...] = ()
    rank: int = 0
    """The order of new versions of what a proxy has: higher ranks follow once lower ones are acknowledged. What is
    written has a lower rank than what reads it, and a higher one if it is not written any more."""
    _clusters: frozenset[str] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def clusters(self) -> frozenset[str]:
        """The names of services' clusters anywhere in the message, possibly with other strings that are not cluster
        names. Dozens of fields contain names of clusters, some of them in nested messages (Any)."""
        if self._clusters is None:
            found = frozenset(t.decode(errors="replace") for t in _texts(self.wrapped))
            object.__setattr__(self, "_clusters", found)
        assert self._clusters is not None
        return self._clusters


class Content:
    """The content of a response, created and serialized once for all proxies that get the same."""

    LARGE = 4096
    """The size in bytes from which a field is not copied on serialization."""

    def __init__(self, resources: tuple[Resource, ...], removed: tuple[str, ...] = ()) -> None:
        self.resources, self.removed = resources, removed

    def _fields(self) -> Iterable[bytes]:
        for r in self.resources:
            yield protowire.head(2, len(r.wrapped))
            yield r.wrapped
        for name in self.removed:
            yield protowire.message(6, name.encode())

    @cached_property
    def packed(self) -> tuple[bytes, ...]:
        """The fields ``resources`` and ``removed_resources`` of a DeltaDiscoveryResponse, in parts."""
        out: list[bytes] = []
        small: list[bytes] = []
        for part in self._fields():
            if len(part) < self.LARGE:
                small.append(part)
            else:
                out += (b"".join(small), part)
                small = []
        return (*out, b"".join(small)) if small else tuple(out)

    @cached_property
    def size(self) -> int:
        """The serialized size in bytes."""
        return sum(map(len, self.packed))

    @cached_property
    def names(self) -> frozenset[str]:
        """The resources' names."""
        return frozenset(r.name for r in self.resources)

    @cached_property
    def clusters(self) -> frozenset[str]:
        """See ``Resource.clusters``."""
        return frozenset[str]().union(*(r.clusters for r in self.resources))


class Together(Content):
    """Several contents as one, reusing their serialized parts."""

    def __init__(self, of: tuple[Content, ...]) -> None:
        super().__init__(tuple(r for c in of for r in c.resources))
        self._of = of

    @cached_property
    def packed(self) -> tuple[bytes, ...]:
        return tuple(p for c in self._of for p in c.packed)


NOTHING = Content(())


Changes = tuple[frozenset[str], frozenset[str]]
"""(names that are new or changed, names that are removed)"""


class Difference:
    """The difference between two sets."""

    def __init__(self, changed: frozenset[str], removed: frozenset[str], news: Content) -> None:
        self.changed, self.removed, self.news = changed, removed, news
        """Names that are new or changed, names that are removed; the resources that are new or changed."""

    @cached_property
    def groups(self) -> frozenset[str]:
        """See ``ResourceSet.groups``; only of changed resources."""
        return frozenset(map(group, self.changed))


class ResourceSet:
    """Resources of one type, shared by every proxy with an equal view; compared by identity.

    A set can be the union of parts whose names do not overlap; changes between two unions are then looked for only in
    the parts that differ.
    """

    __slots__ = ("__weakref__", "_clusters", "_content", "_groups", "_last", "_resources", "parts")

    def __init__(self, resources: Mapping[str, Resource], parts: tuple[ResourceSet, ...] = ()) -> None:
        self._resources: Mapping[str, Resource] | None = None if parts else resources
        self.parts = parts
        self._last: tuple[weakref.ref[ResourceSet], Difference] | None = None
        self._content: Content | None = None
        self._groups: frozenset[str] | None = None
        self._clusters: frozenset[str] | None = None

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

    @property
    def content(self) -> Content:
        """The content with all resources."""
        if self._content is None:
            # a host in two groups is included once: Envoy rejects messages with duplicate resources
            if self.parts and sum(len(p.resources) for p in self.parts) == len(self.resources):
                self._content = Together(tuple(p.content for p in self.parts))
            else:
                found = self.resources
                self._content = Content(tuple(found[n] for n in sorted(found)))
        return self._content

    @property
    def groups(self) -> frozenset[str]:
        """For virtual hosts: the names of the route configurations that they belong to."""
        if self._groups is None:
            self._groups = frozenset(map(group, self.resources))
        return self._groups

    @property
    def clusters(self) -> frozenset[str]:
        """See ``Resource.clusters``."""
        if self._clusters is None:
            found: Iterable[ResourceSet | Resource] = self.parts or self.resources.values()
            self._clusters = frozenset[str]().union(*(f.clusters for f in found))
        return self._clusters

    def changes_since(self, old: ResourceSet | None) -> Changes:
        """The difference to ``old``, as names."""
        if old is None:
            return frozenset(self.resources), frozenset()
        if old is self:
            return frozenset(), frozenset()
        found = self.since(old)
        return found.changed, found.removed

    def since(self, old: ResourceSet) -> Difference:
        """The difference to another set, computed once for all proxies that had it; does not keep ``old`` alive."""
        if self._last is not None and self._last[0]() is old:
            return self._last[1]
        made = self._compared(old)
        self._last = (weakref.ref(old), made)
        return made

    def _compared(self, old: ResourceSet) -> Difference:
        if self.parts and old.parts:
            known, kept = set(old.parts), set(self.parts)
            new, left = [p for p in self.parts if p not in known], [p for p in old.parts if p not in kept]
            if len(new) == len(left) == 1 and not (found := new[0].since(left[0])).removed:
                return found  # one for all unions with these parts
            after = {n: r for p in new for n, r in p.resources.items()}
            before = {n: r for p in left for n, r in p.resources.items()}
        else:
            before, after = dict(old.resources), dict(self.resources)
        changed = sorted(
            n for n, r in after.items() if (was := before.get(n)) is not r and (was is None or was.version != r.version)
        )
        gone = [n for n in before if n not in after]
        removed = frozenset(n for n in gone if n not in self.resources) if gone else frozenset[str]()
        return Difference(frozenset(changed), removed, Content(tuple(after[n] for n in changed)))


Sets = tuple[ResourceSet, ...]


class Part(dict[str, Sets]):
    """Type URL -> sets, shared by many proxies or owned by one. Immutable."""

    def __init__(self, sets: Mapping[str, Sets]) -> None:
        super().__init__(sets)
        self._last: tuple[weakref.ref[Part], frozenset[str]] | None = None

    def differing(self, old: Part) -> Collection[str]:
        """The types whose sets are not the same objects; computed once for all proxies that had ``old``, which is not
        kept alive."""
        if old is self:
            return ()
        if self._last is None or self._last[0]() is not old:
            found = frozenset(t for t in self.keys() | old.keys() if not _same(self.get(t, ()), old.get(t, ())))
            self._last = (weakref.ref(old), found)
        return self._last[1]


class Offer(Mapping[str, Sets]):
    """Type URL -> the sets whose union a proxy should have: outbound sets, then its own."""

    __slots__ = ("called", "served")

    def __init__(self, called: Part, served: Part) -> None:
        self.called, self.served = called, served

    def __getitem__(self, type_url: str) -> Sets:
        if (found := self.get(type_url)) is None:
            raise KeyError(type_url)
        return cast("Sets", found)

    def get(self, type_url: str, default: Any = None) -> Any:
        called, served = self.called.get(type_url), self.served.get(type_url)
        if served is None:
            return default if called is None else called
        return served if called is None else called + served

    def __iter__(self) -> Iterator[str]:
        yield from self.called
        yield from (t for t in self.served if t not in self.called)

    def __len__(self) -> int:
        return len(self.called.keys() | self.served.keys())

    def differing(self, old: Offer) -> Collection[str]:
        """See ``Part.differing``."""
        called, served = self.called.differing(old.called), self.served.differing(old.served)
        return {*called, *served} if called and served else called or served


def _same(new: Sets, old: Sets) -> bool:
    return new is old or (len(new) == len(old) and all(map(is_, new, old)))


def group(name: str) -> str:
    """The route configuration of a virtual host, which is a prefix of its name and is what proxies subscribe to."""
    return name.partition("/")[0]


EMPTY = ResourceSet({})
