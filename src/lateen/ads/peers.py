"""The connected clients: proxies, and proxyless gRPC clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from lateen.ads import sotw
from lateen.ads.messages import encode, whole
from lateen.ads.rpc import Call
from lateen.ads.session import Session
from lateen.ads.sotw import SotwSession
from lateen.ads.subscription import Response
from lateen.wire.node import NodeId


@dataclass(eq=False)
class Connection:
    """One connected proxy."""

    node: NodeId
    identity: str
    version: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What the proxy reports about itself, limited to text values."""
    session: Session = field(default_factory=Session)
    connected_at: float = field(default_factory=time.time)
    call: Call | None = None
    bytes_sent: int = 0
    sent_at: dict[str, float] = field(default_factory=dict)
    """When the last response of each type was sent, in seconds since the epoch."""
    lingering: asyncio.TimerHandle | None = None
    """The timer until removed clusters are withdrawn."""
    removed_at: dict[str, float] = field(default_factory=dict)
    """Clusters that are still to be withdrawn -> when they were removed, by the event loop's clock."""
    kept: object = None
    """The inputs of the last offer, so that the next one shares what has not changed."""

    def send(self, responses: list[Response]) -> list[int]:
        """Send responses, as far as flow control permits; the rest follows. Returns the size of each in bytes."""
        messages, sizes = [], []
        now = time.time()
        for response in responses:
            parts = encode(response)
            messages.append(parts)
            sizes.append(len(parts[0]) + response.content.size)
            self.sent_at[response.type_url] = now
        if self.call is not None:
            self.bytes_sent += sum(sizes)
            self.call.send(messages)
        return sizes


@dataclass(eq=False)
class Proxyless:
    """A connected gRPC client without a proxy."""

    node: NodeId
    call: Call
    metadata: Mapping[str, str] = field(default_factory=dict)
    session: SotwSession = field(default_factory=SotwSession)

    def send(self, responses: list[sotw.Response]) -> None:
        self.call.send([(whole(r),) for r in responses])


def identity_of(call: Call) -> str:
    """The SPIFFE ID in the verified client certificate; empty if there is none."""
    return next((i for i in call.identities if i.startswith("spiffe://")), "")
