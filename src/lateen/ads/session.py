"""The incremental (delta) xDS protocol for one proxy: requests in, responses out. No I/O, no clock.

Rules (envoyproxy.io, xDS protocol):

* A newly subscribed resource is sent even if it has not changed; unknown names are remembered. Otherwise,
unchanged resources are not sent again.
* One response per type is in flight; later changes are merged into the next one.
* Removed clusters are withdrawn last, once the proxy has accepted the replacement of everything that named them: not
while a response awaits its acknowledgement, nor while the proxy keeps an older version of a rejected resource. Removed
extensions are not withdrawn at all.
* A rejection (``error_detail``) keeps the last good configuration; the same bytes are not offered again.
* Endpoints are sent again with their cluster, because Envoy waits for them.
* New versions of extensions are sent rank by rank (``Resource.rank``): what one of them reads, another one writes.
Where the one that begins to write is rejected, those that read keep their previous versions, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from operator import is_

from lateen.ads.conversation import Conversation, Rejection, Request
from lateen.ads.subscription import Response, Subscription, find
from lateen.wire import names
from lateen.wire.resource import NOTHING, Content, Offer, Resource, Sets, group

WILDCARD = "*"
MAX_NAMES, MAX_NAME = 200_000, 4096
"""How many names of one type a proxy may subscribe to, and how many characters each may have: unknown names take
memory, too."""


class TooMany(ValueError):
    """A proxy subscribes to more names than are allowed."""


def _without_culprits(every: list[str], named: tuple[str, ...]) -> list[frozenset[str]]:
    """The batches to offer again after a rejection: the resources that Envoy's message does not name; if it names none
    of several, each half separately."""
    if len(named) < len(every):
        return [frozenset(every) - frozenset(named)]
    half = len(every) // 2
    return [frozenset(every[:half]), frozenset(every[half:])] if half else []


class Session(Conversation):
    """The server's side of a conversation: answers requests and offers changes."""

    def receive(self, request: Request) -> tuple[list[Response], Rejection | None]:
        """Handle a request; returns the responses to send now, and what the proxy has rejected, if anything. Types that
        are not served are ignored. Raises TooMany."""
        if request.type_url not in names.SHORT:
            return [], None
        state = self._type(request.type_url)
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

    def _subscribe(self, state: Subscription, request: Request) -> None:
        if len(state.names) + len(request.subscribe) > MAX_NAMES or any(len(n) > MAX_NAME for n in request.subscribe):
            raise TooMany(f"a proxy may subscribe to {MAX_NAMES} names of up to {MAX_NAME} characters for each type")
        first = not state.subscribed
        state.subscribed = True
        if first:
            self._subscribed = [found for t in names.ORDER if (found := self._types.get(t)) and found.subscribed]
            state.versions = dict(request.initial)
            if request.type_url == names.ECDS:
                self._mending.resumes(request.initial)
            if not request.subscribe and request.type_url in (names.CDS, names.LDS):
                state.wildcard = True
        known = [s.resources for s in self._sets.get(request.type_url, ())]
        for name in request.subscribe:
            if name == WILDCARD:
                self._subscribe_to_all(state)
            elif request.type_url != names.VHDS:
                # Share string objects between sessions: most of a session's memory is names.
                name = next((found[name].name for found in known if name in found), name)
                state.names.add(name)
                if not (first and request.initial.get(name)):
                    state.forced.add(name)
        if first and request.type_url == names.EDS and (clusters := self._type(names.CDS).pending):
            # A proxy that reconnects asks for its clusters first; those that have changed wait for endpoints, too.
            state.forced |= clusters.content.names & state.names
        if request.type_url == names.RDS:
            self._hosts_of_routes(request, first)
        for name in request.unsubscribe:
            if name == WILDCARD:
                state.wildcard = False
            state.names.discard(name)
            state.forced.discard(name)
            state.drop(name)

    @staticmethod
    def _subscribe_to_all(state: Subscription) -> None:
        """From a wildcard subscription on, it is not known that the proxy's versions are those offered."""
        if not state.wildcard:
            state.listed()
            state.wildcard, state.offered = True, ()

    def _hosts_of_routes(self, request: Request, first: bool) -> None:
        """Envoy subscribes to virtual hosts without naming them, and drops those of a route configuration that it does
        not have yet: they are sent (again) for each route configuration that it requests."""
        hosts = self._type(names.VHDS)
        hosts.names |= set(request.subscribe)
        hosts.forced |= {n for n in request.subscribe if not (first and request.initial.get(n))}
        hosts.names -= set(request.unsubscribe)

    def _answered(self, state: Subscription, request: Request) -> Rejection | None:
        sent, state.pending = state.pending, None
        assert sent is not None
        if not request.error:
            state.acks += 1
            state.taken = sent.nonce
            if request.type_url == names.ECDS:
                self._mending.taken(sent.nonce, [r.name for r in sent.resources])
            self._forgive(request.type_url, state)
            state.answered()
            state.settle()
            return None
        state.nacks += 1
        state.lost(sent.content)
        every = [r.name for r in sent.resources]
        named = tuple(n for n in every if n in request.error) or tuple(every)
        for r in sent.resources:
            if r.name in named and (len(named) < len(every) or len(every) == 1):
                state.refused[r.name] = (r.version, request.error)
        state.batches += _without_culprits(every, named)
        if request.type_url == names.ECDS:
            self._mending.rejected(sent.nonce, [n for n in named if n in state.refused])
        origins = tuple(dict.fromkeys(o for r in sent.resources if r.name in named for o in r.origin))
        rejection = Rejection(request.type_url, request.error, named, origins)
        self.rejections[request.type_url] = rejection
        return rejection

    def _withdrawn(self, type_url: str, state: Subscription, sets: Sets, removed: set[str]) -> set[str]:
        """The removed names that are withdrawn at once.

        Not extensions: filters of draining listeners still use their configurations, and Envoy unsubscribes once
        nothing does; if they were withdrawn earlier, those filters would answer every request with status 500."""
        if type_url == names.CDS:
            state.held |= {n: state.version(n) or "" for n in removed}
            for name in [n for n in state.held if find(sets, n)]:
                del state.held[name]
        return set() if type_url in (names.CDS, names.ECDS) else removed

    def _forget(self, type_url: str, state: Subscription, sets: Sets) -> None:
        """Drop refusals of resources of which the proxy should have no version, or the one that it has; if they come
        back, they are offered again."""
        for name in [n for n in state.refused if (r := find(sets, n)) is None or r.version == state.version(n)]:
            del state.refused[name]
            self._mending.forget(name)
            self._forgive(type_url, state)

    def offer(self, sets: Mapping[str, Sets]) -> list[Response]:
        """Set the resources that the proxy should have now; returns the responses to send."""
        before, self._sets = self._sets, sets
        if self._deferred or self._mending.due:
            return self.flush()
        if sets is before:
            return []
        if isinstance(sets, Offer) and isinstance(before, Offer):
            changed = sets.differing(before)
            return self.flush(changed) if changed else []
        return self.flush()

    def flush(self, changed: Collection[str] | None = None) -> list[Response]:
        """Responses for every type with changes and none in flight; resources are sent before those that refer to
        them. ``changed``: the types whose sets differ from before; None if that is not known."""
        out: list[Response] = []
        self._deferred = False
        for state in self._subscribed:
            type_url = state.type_url
            if changed is not None and type_url not in changed and not state.forced:
                continue
            sets = self._sets.get(type_url)
            if sets is None:
                continue
            mending = type_url == names.ECDS and bool(self._mending.due)
            if state.knows(sets) and not mending:
                continue
            if state.pending is not None or (not mending and self._waits(type_url, state, sets)):
                self._deferred = True
                continue
            response = self._mend(state) if mending else self._respond(type_url, state, sets)
            if response is not None:
                state.pending = response
                state.sent = response.nonce
                out.append(response)
                if type_url == names.CDS and (eds := self._types.get(names.EDS)):
                    eds.forced |= response.content.names & eds.names
            if state.batches or state.forced or mending:
                self._deferred = True
        return [*out, *self._removals()]

    def _mend(self, state: Subscription) -> Response:
        self._nonce += 1
        resources, removed = self._mending.response(str(self._nonce))
        state.listed().update((r.name, r.version) for r in resources)
        return Response(names.ECDS, str(self._nonce), Content(resources, removed))

    def withdraw(self, chosen: frozenset[str]) -> list[Response]:
        """Withdraw those of the chosen clusters that are still held, unless the proxy may still use them."""
        clusters = self._types.get(names.CDS)
        gone = tuple(sorted(chosen & clusters.held.keys())) if clusters else ()
        if clusters is None or not gone or not self._settled():
            return []
        for name in gone:
            clusters.drop(name)
        self._nonce += 1
        clusters.pending = Response(names.CDS, str(self._nonce), Content((), gone))
        clusters.sent = clusters.pending.nonce
        return [clusters.pending]

    def _settled(self) -> bool:
        """Whether the proxy has accepted the offered version of everything that names clusters."""
        if any(t.pending for t in self._types.values()):
            return False
        naming = (t for t in self._subscribed if t.type_url in names.NAMING)
        return not any(t.refused or t.batches or t.unheard for t in naming)

    def _removals(self) -> list[Response]:
        """Removed clusters are withdrawn last: after everything that referred to them has been acknowledged."""
        if self._lingering or not (held := self.holding):
            return []
        self._deferred = self._deferred or not self._settled()
        return self.withdraw(held)

    @staticmethod
    def _hosts(state: Subscription, sets: Sets, changed: set[str]) -> set[str]:
        if state.forced:
            state.forced |= {n for s in sets for n in s.resources if group(n) in state.forced}
        return {n for n in changed if group(n) in state.names} | state.forced

    def _waits(self, type_url: str, state: Subscription, sets: Sets) -> bool:
        """Routes must not refer to clusters that are not there yet. Envoy does not wait for them by itself, but
        acknowledges clusters when they are ready. The same holds for listeners and extensions, but only for those that
        name new clusters: others may be policies, which must not wait. Nor may listeners refer to an extension that may
        turn out to be broken (``ads.mending``)."""
        if type_url == names.LDS and self._in_flight(names.ECDS):
            return True
        if type_url in (names.RDS, names.VHDS):
            return self._in_flight(names.CDS) is not None
        clusters = self._in_flight(names.CDS) if type_url in (names.LDS, names.ECDS) else None
        if clusters is None:
            return False
        late = clusters.added().union(*(c.names for c in clusters.coming(self._sets.get(names.CDS, ()))))
        return bool(late) and not all(late.isdisjoint(c.clusters) for c in state.coming(sets))

    def _in_flight(self, type_url: str) -> Subscription | None:
        found = self._types.get(type_url)
        return found if found is not None and found.pending is not None else None

    def _response(self, type_url: str, content: Content) -> Response:
        self._nonce += 1
        return Response(type_url, str(self._nonce), content)

    def _respond(self, type_url: str, state: Subscription, sets: Sets) -> Response | None:
        """The response for one type; None if there is nothing to send. The first request is always answered, because
        Envoy waits for it."""
        part = bool(state.batches)
        content = state.common(sets)
        if content is None:
            content, asked = self._own_content(type_url, state, sets)
            state.offered = sets
        else:
            asked = False
        if not (content.resources or content.removed or asked) and state.answering:
            # After a part of which nothing is left comes the next one, or what had to wait for it.
            return self._respond(type_url, state, sets) if part else None
        return self._response(type_url, content)

    def _own_content(self, type_url: str, state: Subscription, sets: Sets) -> tuple[Content, bool]:
        """The content for a proxy that is not in step, and whether it has asked for something by name."""
        comparable = len(state.offered) == len(sets)
        if not comparable:
            state.listed()
        elif not (state.forced or state.batches or state.unheard) and all(map(is_, state.offered, sets)):
            return NOTHING, False
        changed: set[str] = set()
        removed: set[str] = set()
        for i, current in enumerate(sets):
            new, gone = current.changes_since(state.offered[i] if comparable else None)
            changed |= new
            removed |= gone
        removed |= state.unheard
        state.unheard.clear()
        if type_url == names.VHDS:
            candidates = self._hosts(state, sets, changed)
        else:
            candidates = (changed if state.wildcard else changed & state.names) | state.forced
        later: set[str] = set()
        if state.batches:
            batch = state.batches.pop(0)
            later = candidates - batch
            candidates = set(batch)
        elif type_url == names.ECDS:
            later = state.later(sets, candidates, self._mending.before)
            candidates = candidates - later
            for name in later:
                self._mending.replaces(find(state.offered, name), state.version(name))
        resources = self._fresh(type_url, state, sets, candidates, removed)
        self._forget(type_url, state, sets)
        if state.wildcard or type_url == names.VHDS:
            removed = {n for n in removed if state.version(n) is not None}
        else:
            removed &= state.names
        removed |= set() if comparable else state.listed().keys()
        removed = self._withdrawn(type_url, state, sets, {n for n in removed if find(sets, n) is None})
        forced, state.forced = state.forced, later
        for name in removed:
            state.drop(name)
        content = Content(tuple(sorted(resources, key=lambda r: r.name)), tuple(sorted(removed)))
        return content, bool(forced - later)

    def _fresh(
        self, type_url: str, state: Subscription, sets: Sets, candidates: set[str], removed: set[str]
    ) -> list[Resource]:
        """Those of the candidates that the proxy lacks or asked for; names that are gone are added to ``removed``."""
        out = []
        for name in candidates:
            found, has = find(sets, name), state.version(name)
            if found is None:
                if has is not None:
                    removed.add(name)
                continue
            if state.due(found):
                if type_url == names.ECDS:
                    self._mending.replaces(find(state.offered, name), has)
                out.append(found)
                if has is not None:
                    state.replaced.add(name)
                if state.versions is not None:
                    state.versions[name] = found.version
                state.refused.pop(name, None)
        return out
