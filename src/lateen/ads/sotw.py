"""The state-of-the-world protocol, which gRPC's xDS client speaks: every response contains all subscribed resources.

Pure, like ``session``: requests in, responses out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from lateen.ads.session import MAX_NAME, MAX_NAMES, TooMany
from lateen.wire import names
from lateen.wire.resource import Resource, Sets


@dataclass(frozen=True)
class Response:
    type_url: str
    version: str
    nonce: str
    resources: tuple[Resource, ...]


@dataclass
class _Type:
    wanted: frozenset[str] = frozenset()
    subscribed: bool = False
    sent: str = ""
    nonce: str = ""
    pending: bool = False
    """Whether the last response is still unacknowledged: nothing is sent until then, so that nothing piles up for a
    client that does not read."""


@dataclass
class SotwSession:
    """State of one stream."""

    _types: dict[str, _Type] = field(default_factory=dict)
    _sets: Mapping[str, Sets] = field(default_factory=dict)
    _nonce: int = 0

    def receive(self, type_url: str, wanted: tuple[str, ...], nonce: str) -> list[Response]:
        """A request: the first one, an acknowledgement, or a change of subscriptions. Raises TooMany."""
        if type_url not in names.SHORT:
            return []
        if len(wanted) > MAX_NAMES or any(len(n) > MAX_NAME for n in wanted):
            raise TooMany(f"a client may subscribe to {MAX_NAMES} names of up to {MAX_NAME} characters for each type")
        state = self._types.setdefault(type_url, _Type())
        if nonce and nonce != state.nonce:
            return []
        state.pending = False
        if not state.subscribed or frozenset(wanted) != state.wanted:
            state.subscribed, state.wanted, state.sent = True, frozenset(wanted), ""
        return self.flush()

    def offer(self, sets: Mapping[str, Sets]) -> list[Response]:
        self._sets = dict(sets)
        return self.flush()

    def flush(self) -> list[Response]:
        out = []
        for type_url in names.ORDER:
            state, sets = self._types.get(type_url), self._sets.get(type_url)
            if state is None or sets is None or not state.subscribed or state.pending:
                continue
            found = {n: r for s in sets for n, r in s.resources.items() if not state.wanted or n in state.wanted}
            version = hashlib.blake2b(
                "".join(f"{n}={r.version};" for n, r in sorted(found.items())).encode(), digest_size=8
            ).hexdigest()
            if version != state.sent:
                self._nonce += 1
                state.sent, state.nonce, state.pending = version, str(self._nonce), True
                out.append(Response(type_url, version, state.nonce, tuple(found[n] for n in sorted(found))))
        return out
