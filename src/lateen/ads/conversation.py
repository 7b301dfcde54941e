"""The state of one proxy's conversation in the incremental protocol, as statuses and debug pages read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from lateen.ads.mending import Mending
from lateen.ads.subscription import Subscription, find
from lateen.wire import names
from lateen.wire.resource import Sets


class Request(NamedTuple):  # one for each message: a quarter of a dataclass's cost
    """A DeltaDiscoveryRequest, independent of protobuf."""

    type_url: str
    nonce: str = ""
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial: Mapping[str, str] = MappingProxyType({})
    error: str = ""


@dataclass(frozen=True)
class Rejection:
    """A NACK: the proxy's message, and the resources of the rejected response with their origins."""

    type_url: str
    message: str
    resources: tuple[str, ...]
    origins: tuple[str, ...]


class Conversation:
    """The state of one stream."""

    def __init__(self, lingering: bool = False) -> None:
        """``lingering``: removed clusters are withdrawn only by ``withdraw``."""
        self._lingering = lingering
        self._types: dict[str, Subscription] = {}
        self._subscribed: list[Subscription] = []
        """In the order in which they are sent."""
        self._sets: Mapping[str, Sets] = {}
        self._nonce = 0
        self._deferred = False
        """Whether a response is held back until an acknowledgement arrives."""
        self._mending = Mending()
        self.rejections: dict[str, Rejection] = {}

    def _type(self, type_url: str) -> Subscription:
        found = self._types.get(type_url)
        if found is None:
            found = self._types[type_url] = Subscription(type_url)
        return found

    def subscribed(self) -> tuple[str, ...]:
        return tuple(state.type_url for state in self._subscribed)

    def synced(self, type_url: str) -> str:
        """NOT SENT, SYNCED, STALE (sent, not acknowledged) or ERROR, as shown by proxy-status."""
        state = self._types.get(type_url)
        if state is None or not state.answering:
            return "NOT SENT"
        if type_url in self.rejections:
            return "ERROR"
        return "STALE" if state.pending else "SYNCED"

    def _forgive(self, type_url: str, state: Subscription) -> None:
        """Clear a type's error once none of its resources is refused any more; an earlier one may still be there."""
        rejection = self.rejections.get(type_url)
        if rejection is None or not state.refused.keys().isdisjoint(rejection.resources):
            return
        del self.rejections[type_url]
        for name, (_, says) in state.refused.items():
            found = find(self._sets.get(type_url, ()), name)
            self.rejections[type_url] = Rejection(type_url, says, (name,), found.origin if found else ())

    def sets(self) -> Mapping[str, Sets]:
        """What the proxy should have."""
        return self._sets

    def names(self, type_url: str) -> tuple[str, ...]:
        """The names that the proxy asked for."""
        state = self._types.get(type_url)
        return tuple(sorted(state.names)) if state else ()

    def nonces(self, type_url: str) -> tuple[str, str]:
        """The nonces of the last response of a type and of the last one acknowledged; empty if there is none."""
        state = self._types.get(type_url)
        return (state.sent, state.taken) if state else ("", "")

    @property
    def refusing(self) -> bool:
        """Whether the proxy has rejected resources that it should still have."""
        return any(state.refused for state in self._types.values())

    def missing(self, type_url: str) -> tuple[frozenset[str], frozenset[str]]:
        """(names of resources in flight or waiting to be sent, names of rejected ones)"""
        state = self._types.get(type_url)
        if state is None:
            return frozenset(), frozenset()
        waiting = {r.name for r in state.pending.resources} if state.pending else set()
        sets = self._sets.get(type_url, ())
        waiting |= {n for n in state.forced if (r := find(sets, n)) and r.version != state.version(n)}
        return frozenset(waiting.union(*state.batches)), frozenset(state.refused)

    def refusals(self, type_url: str) -> Mapping[str, str]:
        """Name of a resource that the proxy has rejected -> its message."""
        state = self._types.get(type_url)
        return {name: says for name, (_, says) in state.refused.items()} if state else {}

    @property
    def holding(self) -> frozenset[str]:
        """Removed clusters that are not withdrawn yet."""
        clusters = self._types.get(names.CDS)
        return frozenset(clusters.held) if clusters else frozenset()
