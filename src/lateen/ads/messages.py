"""The protobuf messages of xDS, and what sessions make of them."""

from __future__ import annotations

import re

from envoy.service.discovery.v3 import discovery_pb2

from lateen.ads import sotw
from lateen.ads.conversation import Request
from lateen.ads.subscription import Response
from lateen.kit import protowire
from lateen.wire import names

First = discovery_pb2.DeltaDiscoveryRequest | discovery_pb2.DiscoveryRequest
"""The first request of a stream, which says who asks."""

MAX_REASON = 8192
"""Characters of what a proxy says of a rejection that are kept."""
_VIOLATED = re.compile(r"Proto constraint validation failed(?: \(.*?\)(?=: |\n|$))?")
_QUOTED = "goo.gle/debug"
_SECRET = (names.ECDS, names.SDS)
_TYPES = {t: protowire.message(4, t.encode()) for t in names.SHORT}


# --- requests ------------------------------------------------------------------------------------------------------


def asks(m: discovery_pb2.DeltaDiscoveryRequest) -> bool:
    """Whether it is more than an acknowledgement or a rejection."""
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
    """Of one that does not ask for anything."""
    return Request(m.type_url, m.response_nonce, error=_error(m))


def _error(m: discovery_pb2.DeltaDiscoveryRequest) -> str:
    """Why the proxy rejects what it was sent; empty for an acknowledgement."""
    if not m.HasField("error_detail"):
        return ""
    return told(m.type_url, m.error_detail.message) or f"code {m.error_detail.code}"


def told(type_url: str, reason: str) -> str:
    """What is kept of a rejection's message. Envoy quotes the whole resource before a violated constraint (former
    versions after it), and cuts the message off, so that the constraint may be missing. An extension may have API keys
    and passwords.

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
    """Of the proxy."""
    v = first.node.user_agent_build_version.version
    return f"{v.major_number}.{v.minor_number}.{v.patch}"


# --- responses -----------------------------------------------------------------------------------------------------


def head(response: Response) -> bytes:
    """The fields of a DeltaDiscoveryResponse that differ between proxies; ``Response.content`` has the others."""
    return _TYPES[response.type_url] + protowire.message(5, response.nonce.encode())


def encode(response: Response) -> tuple[bytes, ...]:
    """A DeltaDiscoveryResponse in parts; its resources are the serialized bytes that they already are."""
    return (head(response), *response.content.packed)


def whole(response: sotw.Response) -> bytes:
    """A DiscoveryResponse, for clients of the state-of-the-world protocol."""
    return discovery_pb2.DiscoveryResponse(
        type_url=response.type_url,
        version_info=response.version,
        nonce=response.nonce,
        resources=[discovery_pb2.Resource.FromString(r.wrapped).resource for r in response.resources],
    ).SerializeToString()
