"""What one proxy wants and has of one type of resources.

Nearly all proxies nearly always have what they were offered: they are *in step*. That is remembered as one fact and not
as a version of each resource, and proxies in step are told the same about a change (``wire.resource.Content``). Proxies
that have rejected something, or say on connecting what they have, are cases of their own until they are in step again.
"""

from __future__ import annotations

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
    """With what the proxy's versions were last compared."""
    versions: dict[str, str] | None = field(default_factory=dict)
    """That the proxy has (or was sent and has not rejected); None if it is in step."""
    held: dict[str, str] = field(default_factory=dict)
    """Removed clusters to which routes in flight may still refer, and their versions."""
    pending: Response | None = None
    before: Sets = ()
    """What had been offered to a proxy in step before what is pending."""
    replaced: set[str] = field(default_factory=set)
    """Of a proxy that is a case of its own: what it had another version of before what is pending."""
    forced: set[str] = field(default_factory=set)
    """Names that are sent whatever the proxy has."""
    unheard: set[str] = field(default_factory=set)
    """Names that were withdrawn in a response that the proxy has rejected as a whole."""
    subscribed: bool = False
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Versions that it has rejected, with its message; they are not offered again."""
    batches: list[frozenset[str]] = field(default_factory=list)
    """Parts of a rejected response that are offered again separately, until the culprits are isolated."""
    acks: int = 0
    nacks: int = 0
    sent: str = ""
    """The nonce of the last response, and of the last one that was taken."""
    taken: str = ""

    @property
    def answering(self) -> bool:
        """Whether the first request has been answered."""
        return bool(self.acks or self.nacks or self.pending)

    def knows(self, sets: Sets) -> bool:
        """Whether there is nothing to say about these: they were offered before, and nothing was asked since."""
        if self.forced or self.batches or self.unheard or not self.answering:
            return False
        return self.offered is sets or self._same(sets)

    def _same(self, sets: Sets) -> bool:
        return len(self.offered) == len(sets) and all(map(is_, self.offered, sets))

    def coming(self, sets: Sets) -> list[Content]:
        """What is new in these since the last offer, whether the proxy wants it or not."""
        if len(sets) != len(self.offered):
            return [s.content for s in sets]
        return [new.since(old).news for new, old in zip(sets, self.offered, strict=True) if new is not old]

    def added(self) -> frozenset[str]:
        """Names of what is pending that it had no version of before."""
        if self.pending is None:
            return frozenset()
        return frozenset(n for n in self.pending.content.names - self.replaced if find(self.before, n) is None)

    # --- what it has -----------------------------------------------------------------------------------------

    def wants(self, name: str) -> bool:
        return self.wildcard or (group(name) if self.type_url == names.VHDS else name) in self.names

    def version(self, name: str) -> str | None:
        """That the proxy has."""
        if self.versions is not None:
            return self.versions.get(name)
        if name in self.held:
            return self.held[name]
        found = find(self.offered, name) if self.wants(name) else None
        return found.version if found else None

    def listed(self) -> dict[str, str]:
        """What the proxy has, from now on one by one."""
        if self.versions is None:
            found = {n: r.version for s in reversed(self.offered) for n, r in s.resources.items() if self.wants(n)}
            self.versions = found | self.held
        return self.versions

    def settle(self) -> None:
        """Notice that the proxy has everything that it was offered. Of extensions, versions are remembered one by one:
        a rejected one is replaced by the one before (``ads.mending``)."""
        if self.versions is None or self.type_url == names.ECDS:
            return
        if self.forced or self.batches or self.refused or self.unheard:
            return
        has = self.versions
        due = {n: r.version for s in reversed(self.offered) for n, r in s.resources.items()}
        if all(has.get(n) == version for n, version in due.items() if self.wants(n)):
            self.versions = None

    def lost(self, content: Content) -> None:
        """The proxy has rejected what is pending, and has what it had before, if it had something."""
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
        """What was before does not matter any more."""
        self.before = ()
        self.replaced.clear()

    def drop(self, name: str) -> None:
        """The proxy has it no longer."""
        self.held.pop(name, None)
        if self.versions is not None:
            self.versions.pop(name, None)

    # --- what is told to all alike ---------------------------------------------------------------------------

    def common(self, sets: Sets) -> Content | None:
        """What a proxy is told about these that is in step, or has nothing yet; None for all others."""
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
        """Whether something may go that the proxy has."""
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
