"""Conversion between the protobuf messages of xDS and those of sessions."""

from __future__ import annotations

import re

from envoy.service.discovery.v3 import discovery_pb2

from lateen.ads import sotw
from lateen.ads.conversation import Request
from lateen.ads.subscription import Response
from lateen.kit import protowire
from lateen.wire import names

First = discovery_pb2.DeltaDiscoveryRequest | discovery_pb2.DiscoveryRequest
"""The first request of a stream, which identifies the client."""

MAX_REASON = 8192
"""The number of characters kept of a NACK's message."""
_VIOLATED = re.compile(r"Proto constraint validation failed(?: \(.*?\)(?=: |\n|$))?")
_QUOTED = "goo.gle/debug"
_SECRET = (names.ECDS, names.SDS)
_TYPES = {t: protowire.message(4, t.encode()) for t in names.SHORT}


# --- requests ------------------------------------------------------------------------------------------------------


def asks(m: discovery_pb2.DeltaDiscoveryRequest) -> bool:
    """Whether it is more than an ACK or a NACK."""
    return bool(not m.response_nonce or m.resource_names_subscribe or m.resource_names_unsubscribe)


def request(m: discovery_pb2.DeltaDiscoveryRequest) -> Request:
    return Request(
        m.type_url,
        m.response_nonce,
        tuple(m.resource_names_subscribe),
        tuple(m.resource_names_unsubscribe),
        dict(m.initial_resource_versions),
        _error(m),
    )


def answer(m: discovery_pb2.DeltaDiscoveryRequest) -> Request:
    """The request of a message that only acknowledges or rejects."""
    return Request(m.type_url, m.response_nonce, error=_error(m))


def _error(m: discovery_pb2.DeltaDiscoveryRequest) -> str:
    """Why the proxy rejected the response; empty for an acknowledgement."""
    if not m.HasField("error_detail"):
        return ""
    return told(m.type_url, m.error_detail.message) or f"code {m.error_detail.code}"


def told(type_url: str, reason: str) -> str:
    """The part of a NACK's message that is kept. Envoy quotes the whole resource before a violated constraint (older
    versions: after it) and truncates the message, so that the constraint may be missing. The resource may contain API
    keys and passwords.

    Source: envoyproxy/envoy ``source/common/protobuf/utility.cc`` (ProtoValidationException); a quoted message begins
    with ``goo.gle/debug``, https://protobuf.dev/news/2024-12-04/.
    """
    if type_url in _SECRET:
        if found := _VIOLATED.search(reason):
            reason = found[0]
        elif _QUOTED in reason:
            reason = reason.partition(_QUOTED)[0].strip() or "(left out, since it quotes the resource and its secrets)"
    return reason[:MAX_REASON]


def metadata(first: First) -> dict[str, str]:
    """What a proxy reports about itself, limited to text values."""
    return {k: v.string_value for k, v in first.node.metadata.fields.items() if v.HasField("string_value")}


def version(first: discovery_pb2.DeltaDiscoveryRequest) -> str:
    """The proxy's version, as reported in its node metadata."""
    v = first.node.user_agent_build_version.version
    return f"{v.major_number}.{v.minor_number}.{v.patch}"


# --- responses -----------------------------------------------------------------------------------------------------


def head(response: Response) -> bytes:
    """The serialized fields of a DeltaDiscoveryResponse that differ between proxies; ``Response.content`` has the
    others."""
    return _TYPES[response.type_url] + protowire.message(5, response.nonce.encode())


def encode(response: Response) -> tuple[bytes, ...]:
    """A serialized DeltaDiscoveryResponse in parts; its resources, already serialized, are not copied."""
    return (head(response), *response.content.packed)


def whole(response: sotw.Response) -> bytes:
    """A DiscoveryResponse, for clients of the state-of-the-world protocol."""
    return discovery_pb2.DiscoveryResponse(
        type_url=response.type_url,
        version_info=response.version,
        nonce=response.nonce,
        resources=[discovery_pb2.Resource.FromString(r.wrapped).resource for r in response.resources],
    ).SerializeToString()
