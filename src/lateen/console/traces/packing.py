"""The bytes of a stored span: MessagePack, compressed with what most spans have in common. Pure."""

from __future__ import annotations

import zlib

import msgspec

from lateen.api.domain import CLUSTER_DOMAIN, CLUSTER_NAME, TRUST_DOMAIN
from lateen.console.traces.spans import Kind, Span

LEVEL = 1
_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Span)
_APPLICATION = (
    "db.system db.statement rpc.system rpc.service rpc.method rpc.grpc.status_code server.address server.port "
    "client.address network.peer.address network.protocol.version url.path url.full url.scheme user_agent.original "
    "http.route http.request.method http.response.status_code otel.status_code otel.library.name error"
)
_ENVOY = {
    "http.url": "http://:9080/",
    "http.method": "GET",
    "component": "proxy",
    "http.protocol": "HTTP/1.1",
    "guid:x-request-id": "-9-",
    "upstream_cluster": "inbound|9080||",
    "upstream_cluster.name": f"outbound|9080||.default.svc.{CLUSTER_DOMAIN}",
    "http.status_code": "200",
    "response_flags": "-",
    "request_size": "0",
    "response_size": "",
    "node_id": f"sidecar~10.244.0.1~-v1-.default~default.svc.{CLUSTER_DOMAIN}",
    "peer.address": "10.244.0.1",
    "upstream_address": "10.244.0.1:9080",
    "downstream_cluster": "-",
    "user_agent": "python-requests/2.",
    "istio.canonical_revision": "v1",
    "istio.canonical_service": "",
    "istio.cluster_id": CLUSTER_NAME,
    "istio.mesh_id": TRUST_DOMAIN,
    "istio.namespace": "default",
}


def _sample(kind: Kind, tags: dict[str, str]) -> bytes:
    return _encoder.encode(
        Span(
            "0" * 32,
            "0" * 16,
            "0" * 16,
            ".default",
            f"default.svc.{CLUSTER_DOMAIN}:9080/*",
            kind,
            1 << 50,
            9000,
            tags,
            [],
            False,
        )
    )


COMMON = b"".join(
    (
        _sample("INTERNAL", dict.fromkeys(_APPLICATION.split(), "")),
        _sample("SERVER", _ENVOY | {"http.protocol": "HTTP/2"}),
        _sample("CLIENT", _ENVOY),
    )
)
"""A file that was written with another text cannot be read: ``store.VERSION`` has to change with it,
and with the fields of a span."""


def pack(span: Span) -> tuple[bytes, int]:
    """What is stored, and the number of bytes that it stands for."""
    plain = _encoder.encode(span)
    deflate = zlib.compressobj(LEVEL, zdict=COMMON)
    return deflate.compress(plain) + deflate.flush(), len(plain)


def unpack(packed: bytes) -> Span:
    inflate = zlib.decompressobj(zdict=COMMON)
    return _decoder.decode(inflate.decompress(packed) + inflate.flush())
