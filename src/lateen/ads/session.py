"""One proxy's conversation in the incremental protocol: what it has, wants and has rejected. No I/O, no clock.

Rules (envoyproxy.io, xDS protocol): a resource that was asked for is sent even if unchanged; unknown names are
remembered; an unchanged resource is not sent again; one response per type is in flight, and later changes are merged
into the next; clusters are removed last, when no acknowledgement of what referred to them is pending, and filters'
configurations not at all; a rejection (``error_detail``) keeps the last good configuration, and the same bytes are not
offered again; changed clusters get their endpoints again, because Envoy waits for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import is_
from types import MappingProxyType
from typing import NamedTuple

from lateen.ads.mending import Mending
from lateen.wire import names
from lateen.wire.resource import Resource, ResourceSet

Sets = tuple[ResourceSet, ...]
WILDCARD = "*"
MAX_NAMES, MAX_NAME = 200_000, 4096
"""Names of one type that a proxy may subscribe to, and characters of one: those that nobody knows are remembered."""


class TooMany(ValueError):
    """A proxy subscribes to more than can be remembered for it."""


class Request(NamedTuple):  # as the next one: made for each message, and tuples cost a quarter of frozen dataclasses
    """A DeltaDiscoveryRequest, independent of protobuf."""

    type_url: str
    nonce: str = ""
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial: Mapping[str, str] = MappingProxyType({})
    error: str = ""


class Response(NamedTuple):
    type_url: str
    nonce: str
    resources: tuple[Resource, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True)
class Rejection:
    """What a proxy has rejected: its own message, and the resources of that response with their origins."""

    type_url: str
    message: str
    resources: tuple[str, ...]
    origins: tuple[str, ...]


def _without_culprits(every: list[str], named: tuple[str, ...]) -> list[frozenset[str]]:
    """What to offer again after a rejection: the resources that Envoy does not complain about; if it names none of
    several, each half separately."""
    if len(named) < len(every):
        return [frozenset(every) - frozenset(named)]
    half = len(every) // 2
    return [frozenset(every[:half]), frozenset(every[half:])] if half else []


def _find(sets: Sets, name: str) -> Resource | None:
    return next((s.resources[name] for s in sets if name in s.resources), None)


@dataclass
class _Type:
    wildcard: bool = False
    names: set[str] = field(default_factory=set)
    acked: dict[str, str] = field(default_factory=dict)
    """Versions that the proxy has (or was sent and has not rejected)."""
    offered: Sets = ()
    pending: Response | None = None
    forced: set[str] = field(default_factory=set)
    subscribed: bool = False
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Versions that it has rejected, with its message; they are not offered again."""
    batches: list[frozenset[str]] = field(default_factory=list)
    """Parts of a rejected response that are offered again separately, until the culprits are isolated."""
    held: set[str] = field(default_factory=set)
    """Removed clusters to which routes in flight may still refer."""
    acks: int = 0
    nacks: int = 0
    sent: str = ""
    """The nonce of the last response, and of the last one that was taken."""
    taken: str = ""

    def has(self, sets: Sets) -> bool:
        """Whether there is nothing to say about these: they were offered before, and nothing was asked since."""
        if self.forced or self.batches or not (self.acks or self.nacks or self.pending):
            return False
        if self.offered is sets:
            return True
        return len(self.offered) == len(sets) and all(map(is_, self.offered, sets))


class Session:
    """State of one stream."""

    def __init__(self) -> None:
        self._types: dict[str, _Type] = {}
        self._sets: dict[str, Sets] = {}
        self._nonce = 0
        self._deferred = False
        """Whether something waits for an acknowledgement."""
        self._mending = Mending()
        self.rejections: dict[str, Rejection] = {}

    def subscribed(self) -> tuple[str, ...]:
        return tuple(t for t, state in self._types.items() if state.subscribed)

    def synced(self, type_url: str) -> str:
        """NOT SENT, SYNCED, STALE (sent, not acknowledged) or ERROR, as shown by proxy-status."""
        state = self._types.get(type_url)
        if state is None or not (state.acks or state.nacks or state.pending):
            return "NOT SENT"
        if type_url in self.rejections:
            return "ERROR"
        return "STALE" if state.pending else "SYNCED"

    def sets(self) -> Mapping[str, Sets]:
        """What the proxy should have."""
        return self._sets

    def names(self, type_url: str) -> tuple[str, ...]:
        """The names that the proxy asked for."""
        state = self._types.get(type_url)
        return tuple(sorted(state.names)) if state else ()

    def nonces(self, type_url: str) -> tuple[str, str]:
        """Of the last response of a type, and of the last one that the proxy has taken; empty where there is none."""
        state = self._types.get(type_url)
        return (state.sent, state.taken) if state else ("", "")

    @property
    def refusing(self) -> bool:
        """Whether the proxy has refused resources that it shall still have."""
        return any(state.refused for state in self._types.values())

    def missing(self, type_url: str) -> tuple[frozenset[str], frozenset[str]]:
        """(names of resources in flight, names of those that it has rejected)"""
        state = self._types.get(type_url)
        if state is None:
            return frozenset(), frozenset()
        waiting = {r.name for r in state.pending.resources} if state.pending else set()
        return frozenset(waiting.union(*state.batches)), frozenset(state.refused)

    def receive(self, request: Request) -> tuple[list[Response], Rejection | None]:
        """Handle a request of the proxy; returns what to send now, and what it has rejected. Types that are not served
        are ignored. Raises TooMany."""
        if request.type_url not in names.SHORT:
            return [], None
        state = self._types.setdefault(request.type_url, _Type())
        rejection = None
        if request.nonce:
            if state.pending is None or request.nonce != state.pending.nonce:
                if not (request.subscribe or request.unsubscribe):
                    return [], None
            else:
                rejection = self._answered(state, request)
                if not (self._deferred or request.error or request.subscribe or request.unsubscribe):
                    return [], None
        self._subscribe(state, request)
        return self.flush(), rejection

    def _subscribe(self, state: _Type, request: Request) -> None:
        if len(state.names) + len(request.subscribe) > MAX_NAMES or any(len(n) > MAX_NAME for n in request.subscribe):
            raise TooMany(f"a proxy subscribes to up to {MAX_NAMES} names of up to {MAX_NAME} characters for each type")
        first = not state.subscribed
        state.subscribed = True
        if first:
            state.acked |= dict(request.initial)
            if request.type_url == names.ECDS:
                self._mending.resumes(request.initial)
            if not request.subscribe and request.type_url in (names.CDS, names.LDS):
                state.wildcard = True
        for name in request.subscribe:
            if name == WILDCARD:
                state.wildcard = True
            elif request.type_url != names.VHDS:
                name = self._own_name(request.type_url, name)
                state.names.add(name)
                if not (first and request.initial.get(name)):
                    state.forced.add(name)
        if request.type_url == names.RDS:
            self._hosts_of_routes(request, first)
        for name in request.unsubscribe:
            if name == WILDCARD:
                state.wildcard = False
            state.names.discard(name)
            state.forced.discard(name)
            state.acked.pop(name, None)
        if first or request.subscribe:
            state.offered = ()

    def _own_name(self, type_url: str, name: str) -> str:
        """The same string object for all sessions if the resource is known: most of a session's memory is names."""
        found = _find(self._sets.get(type_url, ()), name)
        return found.name if found else name

    def _hosts_of_routes(self, request: Request, first: bool) -> None:
        """Envoy asks for virtual hosts without naming them, and drops those of a route configuration that it does
        not have yet: they are sent (again) for each configuration that it asks for."""
        hosts = self._types.setdefault(names.VHDS, _Type())
        hosts.names |= set(request.subscribe)
        hosts.forced |= {n for n in request.subscribe if not (first and request.initial.get(n))}
        hosts.names -= set(request.unsubscribe)

    def _answered(self, state: _Type, request: Request) -> Rejection | None:
        sent, state.pending = state.pending, None
        assert sent is not None
        if not request.error:
            state.acks += 1
            state.taken = sent.nonce
            if request.type_url == names.ECDS:
                self._mending.taken(sent.nonce, [r.name for r in sent.resources])
            self._forgive(request.type_url, state)
            return None
        state.nacks += 1
        every = [r.name for r in sent.resources]
        named = tuple(n for n in every if n in request.error) or tuple(every)
        for r in sent.resources:
            state.acked.pop(r.name, None)
            if r.name in named and (len(named) < len(every) or len(every) == 1):
                state.refused[r.name] = (r.version, request.error)
        state.batches += _without_culprits(every, named)
        if request.type_url == names.ECDS:
            self._mending.rejected(sent.nonce, [n for n in named if n in state.refused])
        origins = tuple(dict.fromkeys(o for r in sent.resources if r.name in named for o in r.origin))
        rejection = Rejection(request.type_url, request.error, named, origins)
        self.rejections[request.type_url] = rejection
        return rejection

    def _forgive(self, type_url: str, state: _Type) -> None:
        """A rejection stands until nothing that it was about is refused any more: the proxy may have taken others."""
        rejection = self.rejections.get(type_url)
        if rejection is not None and state.refused.keys().isdisjoint(rejection.resources):
            del self.rejections[type_url]

    def _withdrawn(self, type_url: str, state: _Type, removed: set[str]) -> set[str]:
        """What the proxy is told at once of what it shall no longer have.

        Filters of listeners that drain still use their configurations, and Envoy unsubscribes once nothing does;
        withdrawn before, they would answer every request with status 500."""
        if type_url == names.CDS:
            state.held |= removed
            state.held -= {n for s in state.offered for n in state.held if n in s.resources}
        return set() if type_url in (names.CDS, names.ECDS) else removed

    def _forget(self, type_url: str, state: _Type, sets: Sets) -> None:
        """What the proxy shall no longer have is not refused any more; if it comes back, it is offered anew."""
        for name in [n for n in state.refused if not any(n in s.resources for s in sets)]:
            del state.refused[name]
            self._mending.forget(name)
            self._forgive(type_url, state)

    def refusals(self, type_url: str) -> Mapping[str, str]:
        """Name of a resource that the proxy has rejected -> its message."""
        state = self._types.get(type_url)
        return {name: says for name, (_, says) in state.refused.items()} if state else {}

    def offer(self, sets: Mapping[str, Sets]) -> list[Response]:
        """Set the resources that the proxy should have now; returns what to send."""
        self._sets = dict(sets)
        return self.flush()

    def flush(self) -> list[Response]:
        """Responses for every type with changes and none in flight; resources are sent before those that refer to
        them."""
        out: list[Response] = []
        self._deferred = False
        for type_url in names.ORDER:
            state = self._types.get(type_url)
            sets = self._sets.get(type_url)
            if state is None or sets is None or not state.subscribed:
                continue
            mending = type_url == names.ECDS and bool(self._mending.due)
            if state.has(sets) and not mending:
                continue
            if state.pending is not None or self._waits(type_url):
                self._deferred = True
                continue
            response = self._mend(state) if mending else self._respond(type_url, state, sets)
            if response is not None:
                state.pending = response
                state.sent = response.nonce
                out.append(response)
                if type_url == names.CDS and (eds := self._types.get(names.EDS)):
                    sent = {r.name for r in response.resources}
                    eds.forced |= sent & eds.names
            if state.batches or state.forced or mending:
                self._deferred = True
        return [*out, *self._removals()]

    def _mend(self, state: _Type) -> Response:
        self._nonce += 1
        resources, removed = self._mending.response(str(self._nonce))
        state.acked |= {r.name: r.version for r in resources}
        return Response(names.ECDS, str(self._nonce), resources, removed)

    def _removals(self) -> list[Response]:
        """Removed clusters are withdrawn last: after everything that referred to them has been acknowledged."""
        clusters = self._types.get(names.CDS)
        if clusters is None or not clusters.held:
            return []
        if any(t.pending for t in self._types.values()):
            self._deferred = True
            return []
        gone, clusters.held = clusters.held, set()
        for name in gone:
            clusters.acked.pop(name, None)
        self._nonce += 1
        clusters.pending = Response(names.CDS, str(self._nonce), (), tuple(sorted(gone)))
        clusters.sent = clusters.pending.nonce
        return [clusters.pending]

    @staticmethod
    def _hosts(state: _Type, sets: Sets, changed: set[str]) -> set[str]:
        """Virtual hosts are subscribed to by the name of their route configuration, which is a prefix of theirs."""
        if state.forced:
            state.forced |= {n for s in sets for n in s.resources if n.partition("/")[0] in state.forced}
        return {n for n in changed if n.partition("/")[0] in state.names} | state.forced

    def _waits(self, type_url: str) -> bool:
        """Routes must not refer to clusters that are not there yet; Envoy does not wait for them by itself. Nor must
        listeners to an extension that may turn out to be broken (``ads.mending``)."""
        before = self._types.get(names.CDS if type_url in (names.RDS, names.VHDS) else names.ECDS)
        return type_url in (names.LDS, names.RDS, names.VHDS) and before is not None and before.pending is not None

    def _nothing(self, type_url: str) -> Response:
        """The empty response to a first request for which there is nothing: Envoy waits for one."""
        self._nonce += 1
        return Response(type_url, str(self._nonce), (), ())

    def _fresh(self, type_url: str, state: _Type, candidates: set[str], old: Sets, removed: set[str]) -> list[Resource]:
        """Of the candidates, those that the proxy lacks or asked for; what is gone is added to ``removed``. ``old``:
        what was offered before."""
        out = []
        for name in candidates:
            found = _find(state.offered, name)
            if found is None:
                if name in state.acked:
                    removed.add(name)
                continue
            if state.refused.get(name, ("", ""))[0] == found.version and name not in state.forced:
                continue
            if name in state.forced or state.acked.get(name) != found.version:
                if type_url == names.ECDS:
                    self._mending.replaces(_find(old, name), state.acked.get(name))
                out.append(found)
                state.acked[name] = found.version
                state.refused.pop(name, None)
        return out

    def _respond(self, type_url: str, state: _Type, sets: Sets) -> Response | None:
        comparable = len(state.offered) == len(sets)
        if comparable and not state.forced and not state.batches and all(map(is_, state.offered, sets)):
            return self._nothing(type_url)
        changed: set[str] = set()
        removed: set[str] = set()
        for i, current in enumerate(sets):
            new, gone = current.changes_since(state.offered[i] if comparable else None)
            changed |= new
            removed |= gone
        old, state.offered = state.offered, sets
        if type_url == names.VHDS:
            candidates = self._hosts(state, sets, changed)
        else:
            candidates = (changed if state.wildcard else changed & state.names) | state.forced
        later: set[str] = set()
        if state.batches:
            batch = state.batches.pop(0)
            later = candidates - batch
            candidates = set(batch)
        resources = self._fresh(type_url, state, candidates, old, removed)
        self._forget(type_url, state, sets)
        known = state.acked.keys() if state.wildcard or type_url == names.VHDS else state.names
        removed &= known
        removed |= set() if comparable else state.acked.keys()
        removed = self._withdrawn(type_url, state, {n for n in removed if not any(n in s.resources for s in sets)})
        forced, state.forced = state.forced, later
        for name in removed:
            state.acked.pop(name, None)
        if not resources and not removed and not forced and (state.acks or state.nacks or state.pending):
            return None
        self._nonce += 1
        return Response(
            type_url, str(self._nonce), tuple(sorted(resources, key=lambda r: r.name)), tuple(sorted(removed))
        )
