"""What one proxy has subscribed to, and has, of one resource type.

Nearly all proxies nearly always have what they were offered: they are *in step*. That is stored as one fact, not as one
version per resource, and all proxies in step get the same content for a change (``wire.resource.Content``). Proxies
that have rejected something, or that report what they have on connecting, are handled one by one until they are in step
again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from operator import is_
from typing import NamedTuple

from lateen.wire import names
from lateen.wire.resource import NOTHING, Content, Difference, Resource, Sets, Together, group


class Response(NamedTuple):
    """A DeltaDiscoveryResponse, independent of protobuf."""

    type_url: str
    nonce: str
    content: Content

    @property
    def resources(self) -> tuple[Resource, ...]:
        return self.content.resources

    @property
    def removed(self) -> tuple[str, ...]:
        return self.content.removed


def find(sets: Sets, name: str) -> Resource | None:
    for s in sets:
        if (found := s.resources.get(name)) is not None:
            return found
    return None


@dataclass(slots=True)
class Subscription:
    type_url: str
    wildcard: bool = False
    names: set[str] = field(default_factory=set)
    offered: Sets = ()
    """The set that the proxy's versions were last compared with."""
    versions: dict[str, str] | None = field(default_factory=dict)
    """Versions that the proxy has (or was sent and has not rejected); None if it is in step."""
    held: dict[str, str] = field(default_factory=dict)
    """Removed clusters to which routes in flight may still refer, and their versions."""
    pending: Response | None = None
    before: Sets = ()
    """For a proxy in step: the set that was offered before the pending response."""
    replaced: set[str] = field(default_factory=set)
    """For a proxy not in step: the names of which it had another version before the pending response."""
    forced: set[str] = field(default_factory=set)
    """Names that are sent even if the proxy has the current version."""
    unheard: set[str] = field(default_factory=set)
    """Names that were withdrawn in a response that the proxy has rejected as a whole."""
    subscribed: bool = False
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Rejected versions and the proxy's message; they are not offered again."""
    batches: list[frozenset[str]] = field(default_factory=list)
    """Parts of a rejected response that are offered again separately, until the culprits are isolated."""
    acks: int = 0
    nacks: int = 0
    sent: str = ""
    """The nonces of the last response and of the last acknowledged one."""
    taken: str = ""

    @property
    def answering(self) -> bool:
        """Whether the first request has been answered."""
        return bool(self.acks or self.nacks or self.pending)

    def knows(self, sets: Sets) -> bool:
        """Whether nothing has to be sent: these sets were offered before, and nothing was requested since."""
        if self.forced or self.batches or self.unheard or not self.answering:
            return False
        return self.offered is sets or self._same(sets)

    def _same(self, sets: Sets) -> bool:
        return len(self.offered) == len(sets) and all(map(is_, self.offered, sets))

    def coming(self, sets: Sets) -> list[Content]:
        """The changes of these sets since the last offer, whether the proxy subscribes to them or not."""
        if len(sets) != len(self.offered):
            return [s.content for s in sets]
        return [new.since(old).news for new, old in zip(sets, self.offered, strict=True) if new is not old]

    def added(self) -> frozenset[str]:
        """Names in the pending response of which the proxy had no version before."""
        if self.pending is None:
            return frozenset()
        return frozenset(n for n in self.pending.content.names - self.replaced if find(self.before, n) is None)

    # --- what the proxy has -----------------------------------------------------------------------------------------

    def due(self, found: Resource) -> bool:
        """Whether the proxy lacks this version and has not rejected it, or has asked for it."""
        if found.name in self.forced:
            return True
        return self.version(found.name) != found.version != self.refused.get(found.name, ("", ""))[0]

    def later(self, sets: Sets, names_: Collection[str], before: Mapping[str, Resource]) -> set[str]:
        """Those of the names whose new versions have to wait for others (``Resource.rank``), rejected ones included.
        What the proxy does not have yet is not in use, and waits for nothing. ``before``: what it has instead of
        versions that are rejected or have waited."""

        def moves(r: Resource) -> bool:
            old = before.get(r.name) or find(self.offered, r.name)
            return old is None or old.version != self.version(r.name) or old.rank != r.rank

        some = [r for n in names_ if (r := find(sets, n)) and self.version(n) is not None and self.due(r)]
        first = min((r.rank for r in some), default=0)
        rejected = [r for n in self.refused if (r := find(sets, n)) and self.version(n) != r.version]
        # A rejected version whose rank is its predecessor's would not have changed what others may read.
        awaited = [(r.rank, moves(r)) for r in rejected]
        return {
            r.name
            for r in some
            if r.rank > first or any(rank < r.rank and (moved or moves(r)) for rank, moved in awaited)
        }

    def wants(self, name: str) -> bool:
        return self.wildcard or (group(name) if self.type_url == names.VHDS else name) in self.names

    def version(self, name: str) -> str | None:
        """The version that the proxy has; None if it has none."""
        if self.versions is not None:
            return self.versions.get(name)
        if name in self.held:
            return self.held[name]
        found = find(self.offered, name) if self.wants(name) else None
        return found.version if found else None

    def listed(self) -> dict[str, str]:
        """The versions that the proxy has; from now on they are stored one by one."""
        if self.versions is None:
            found = {n: r.version for s in reversed(self.offered) for n, r in s.resources.items() if self.wants(n)}
            self.versions = found | self.held
        return self.versions

    def settle(self) -> None:
        """Mark the proxy as in step if it has everything it was offered. Versions of extensions are always stored one
        by one: a rejected one is replaced by its predecessor (``ads.mending``)."""
        if self.versions is None or self.type_url == names.ECDS:
            return
        if self.forced or self.batches or self.refused or self.unheard:
            return
        has = self.versions
        due = {n: r.version for s in reversed(self.offered) for n, r in s.resources.items()}
        if all(has.get(n) == version for n, version in due.items() if self.wants(n)):
            self.versions = None

    def lost(self, content: Content) -> None:
        """The proxy has rejected the pending response, and keeps what it had before, if anything."""
        has = self.listed()
        for name in content.names:
            if name in self.replaced or (find(self.before, name) is not None and self.wants(name)):
                has[name] = ""
            else:
                has.pop(name, None)
        has.update(dict.fromkeys(content.removed, ""))
        self.unheard.update(content.removed)
        self.answered()

    def answered(self) -> None:
        """The pending response is settled: forget the previous state."""
        self.before = ()
        self.replaced.clear()

    def drop(self, name: str) -> None:
        """The proxy no longer has this resource."""
        self.held.pop(name, None)
        if self.versions is not None:
            self.versions.pop(name, None)

    # --- what all proxies in step get ---------------------------------------------------------------------------

    def common(self, sets: Sets) -> Content | None:
        """The content for a proxy that is in step, or has nothing yet; None for all others."""
        if self.type_url == names.ECDS:
            return None
        if self.versions is None:
            found = self._news(sets)
        elif not (self.versions or self.offered or self.answering):
            found = self._everything(sets)
        else:
            return None
        if found is not None:
            self.before = self.offered if self.versions is None and found.resources else ()
            self.offered, self.versions = sets, None
            self.forced.clear()
        return found

    def _news(self, sets: Sets) -> Content | None:
        if self.forced or self.held or len(sets) != len(self.offered):
            return None
        if len(sets) == 1:
            (new,), (old,) = sets, self.offered
            if new is old:
                return NOTHING
        else:
            differing = [(new, old) for new, old in zip(sets, self.offered, strict=True) if new is not old]
            if len(differing) != 1:
                return None if differing else NOTHING
            ((new, old),) = differing
        found = new.since(old)
        if self._loses(found) or (
            len(sets) > 1 and any(n in s.resources for s in sets if s is not new for n in found.changed)
        ):
            return None
        if self.wildcard:
            return found.news
        asked = found.groups if self.type_url == names.VHDS else found.changed
        if asked <= self.names:
            return found.news
        if asked.isdisjoint(self.names):
            return NOTHING
        if self.type_url == names.VHDS:
            return None
        return Content(tuple(r for r in found.news.resources if r.name in self.names))

    def _loses(self, found: Difference) -> bool:
        """Whether the change removes something that the proxy may have."""
        if self.wildcard or self.type_url == names.VHDS:
            return bool(found.removed)
        return not found.removed.isdisjoint(self.names)

    def _everything(self, sets: Sets) -> Content | None:
        some = [s for s in sets if s.resources]
        if not self.wildcard:
            if self.type_url == names.VHDS:
                if not all(s.groups <= self.names for s in some):
                    return None
            elif not all(s.resources.keys() <= self.names for s in some):
                return None
        if len(some) == 1:
            return some[0].content
        if len(set().union(*(s.resources for s in some))) != sum(len(s.resources) for s in some):
            return None
        return Together(tuple(s.content for s in some))
