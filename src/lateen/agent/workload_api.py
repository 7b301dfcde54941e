"""Externally provided certificates: from SPIRE, by Envoy's secret discovery service on a socket, or from files.

The agent acts in Envoy's place, and writes the files that Envoy watches, so that proxies get the same resources whoever
issues their certificates. ``h2`` speaks HTTP/2; the few messages are parsed by hand. Imported only if there is such a
socket or such files, to keep the agent small. Sources: https://istio.io/latest/docs/ops/integrations/spire/,
https://spiffe.io/docs/latest/microservices/envoy/.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import json
import logging
import random
import struct
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error

from lateen.agent.certificates import Source, Trusted, Write
from lateen.kit import certs, protowire, tasks
from lateen.kit.certs import Pair

log = logging.getLogger("lateen.agent.workload_api")

METHOD = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
VALIDATOR = b".SPIFFECertValidatorConfig"
OWN, ROOTS = "default", "ROOTCA"
"""The names of the workload's certificate and of the roots in SPIRE, as in Istio's documentation."""
MAX_MESSAGE = 4 * 1024 * 1024
LOOK_S, FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 0.2, 10.0
FILES = ("cert-chain.pem", "key.pem", "root-cert.pem")


class Given(abc.ABC):
    """Like ``certificates.Certificates``, for externally provided certificates: ``end`` is when the current one
    expires, or the one for istiod if that is earlier.

    They are for other workloads alone. istiod knows the proxy by a certificate of its own (``istiod``), as in Istio,
    where the pod's token does that: so istiod need not trust the external issuer, whose roots may change any day.
    """

    def __init__(self, directory: Path, write: Write, istiod: Source) -> None:
        self._directory, self._write, self._istiod = directory, write, istiod
        self._there = asyncio.Event()
        self._end = 0.0

    @property
    def end(self) -> float:
        return min(filter(None, (self._end, self._istiod.end)), default=0.0)

    async def first(self) -> float:
        """Wait until there is a certificate. Raises whatever has ended the wait for it."""
        self._following = tasks.spawn(self._follow(), "certificate")
        both = asyncio.gather(self._istiod.first(), self._there.wait())
        try:
            await asyncio.wait((both, self._following), return_when=asyncio.FIRST_COMPLETED)
            if self._following.done():
                self._following.result()
            return (await both)[0]
        finally:
            both.cancel()

    async def renew(self, wait: float) -> None:
        """Never returns."""
        try:
            await asyncio.gather(self._following, self._istiod.renew(wait))
        finally:
            await tasks.cancel(self._following)

    @abc.abstractmethod
    async def _follow(self) -> None:
        """Process certificates as they arrive. Never returns."""

    def _take(self, pair: Pair, trusted: Trusted) -> None:
        """Use a certificate. Raises ValueError for one that Envoy would reject; the former one stays in use."""
        certs.check_pair(pair.certificate, pair.key)
        certs.check_authorities(trusted.root)
        trusted.check()
        self._write(self._directory, pair.certificate, pair.key, trusted)
        end = certs.validity(pair.certificate)[1]
        self._end = end.timestamp()
        self._there.set()
        log.info("a certificate until %s", end.isoformat())


class Mounted(Given):
    """Certificate, key and roots in files that are replaced externally."""

    def __init__(self, source: Path, directory: Path, write: Write, istiod: Source) -> None:
        super().__init__(directory, write, istiod)
        self._source = source
        self._seen: tuple[str, ...] = ()

    async def _follow(self) -> None:
        while True:
            try:
                found = tuple((self._source / name).read_text() for name in FILES)
                if found != self._seen:
                    self._look(found)
                    self._seen = found
            except (OSError, ValueError) as e:  # they are just being replaced, or cannot be written at the moment
                log.info("the certificate in %s cannot be used yet: %s", self._source, e)
            await asyncio.sleep(LOOK_S)

    def _look(self, found: tuple[str, ...]) -> None:
        """Raises OSError."""
        try:
            self._take(Pair(found[0], found[1]), Trusted(found[2]))
        except ValueError as e:
            log.error("the certificate in %s is not used: %s", self._source, e)


class Socket(Given):
    """An SDS server at a socket, such as SPIRE's agent."""

    def __init__(self, path: Path, node: str, directory: Path, write: Write, istiod: Source) -> None:
        super().__init__(directory, write, istiod)
        self._path, self._node = path, node
        self._pair, self._validation = Pair("", ""), b""

    async def _follow(self) -> None:
        """Reconnect whenever the connection is lost."""
        wait = FIRST_WAIT_S
        while True:
            try:
                async with contextlib.aclosing(self._responses()) as responses:
                    async for secrets in responses:
                        wait = FIRST_WAIT_S
                        self._received(secrets)
            except (OSError, EOFError, H2Error, ValueError) as e:
                log.warning("%s: %s (again in %.1f s)", self._path, str(e) or type(e).__name__, wait)
            await asyncio.sleep(wait * random.uniform(0.8, 1.2))
            wait = min(wait * 1.6, LONGEST_WAIT_S)

    def _received(self, secrets: list[bytes]) -> None:
        for raw in secrets:
            secret = dict(_fields(raw))
            name = secret.get(1, b"").decode(errors="replace")
            if name == OWN and 2 in secret:
                own = dict(_fields(secret[2]))
                self._pair = Pair(_data(own.get(1, b"")), _data(own.get(2, b"")))
            elif name == ROOTS and 4 in secret:
                self._validation = secret[4]
        if missing := [n for n, found in ((OWN, self._pair.certificate), (ROOTS, self._validation)) if not found]:
            log.warning("%s has not sent the secret %s yet", self._path, " and ".join(missing))
            return
        try:
            self._take(self._pair, _trusted(self._validation, certs.trust_domain(self._pair.certificate)))
        except ValueError as e:
            log.error("the certificate from %s is not used: %s", self._path, e)

    async def _responses(self) -> AsyncGenerator[list[bytes]]:
        """The secrets of each response, which is acknowledged afterwards. Raises OSError, EOFError, H2Error,
        ValueError."""
        reader, writer = await asyncio.open_unix_connection(str(self._path))
        try:
            h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
            h2.initiate_connection()
            h2.send_headers(1, _HEADERS)
            h2.send_data(1, _framed(self._request("", "")))
            buffer = b""
            while True:
                writer.write(h2.data_to_send())
                await writer.drain()
                data = await reader.read(65536)
                if not data:
                    raise EOFError("the server has closed the connection")
                for event in h2.receive_data(data):
                    _go_on(event)
                    if isinstance(event, DataReceived):
                        h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                        buffer += event.data
                while (whole := _message(buffer)) is not None:
                    buffer = buffer[5 + len(whole) :]
                    yield [dict(_fields(value))[2] for number, value in _fields(whole) if number == 2]
                    found = dict(_fields(whole))
                    version, nonce = found.get(1, b"").decode(), found.get(5, b"").decode()
                    h2.send_data(1, _framed(self._request(version, nonce)))
        finally:
            writer.close()

    def _request(self, version: str, nonce: str) -> bytes:
        """A DiscoveryRequest for both secrets."""
        parts = [
            protowire.message(1, version.encode()),
            protowire.message(2, protowire.message(1, self._node.encode())),
        ]
        parts += [protowire.message(3, name.encode()) for name in (OWN, ROOTS)]
        return b"".join([*parts, protowire.message(4, SECRET.encode()), protowire.message(5, nonce.encode())])


_HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", METHOD),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]


def _go_on(event: Event) -> None:
    """Raises EOFError with the server's reason if the call is over."""
    if isinstance(event, (ResponseReceived, TrailersReceived)):
        found = {str(k): str(v) for k, v in event.headers or ()}
        if found.get("grpc-status", "0") != "0":
            raise EOFError(
                f"the server refuses: {unquote(found.get('grpc-message', ''))[:500] or found['grpc-status']}"
            )
    elif isinstance(event, (StreamEnded, StreamReset, ConnectionTerminated)):
        raise EOFError("the server has ended the call")


def _trusted(validation: bytes, own: str) -> Trusted:
    """The trust anchors in an Envoy CertificateValidationContext. SPIRE sends Envoy's SPIFFE validator with the roots
    of each trust domain, unless it is told not to (``disable_spiffe_cert_validation``); ``own``: the workload's trust
    domain. Raises ValueError."""
    context = dict(_fields(validation))
    if 12 not in context:
        return Trusted(_data(context.get(1, b"")))
    extension = dict(_fields(context[12]))
    config = dict(_fields(extension.get(2, b"")))
    if not config.get(1, b"").endswith(VALIDATOR):
        raise ValueError(f"the secret {ROOTS} has a validator other than Envoy's for SPIFFE")
    domains = {}
    for number, value in _fields(config.get(2, b"")):
        if number == 1:
            one = dict(_fields(value))
            domains[one.get(1, b"").decode(errors="replace")] = _data(one.get(2, b""))
    if not domains.get(own):
        raise ValueError(f"there are no roots for the certificate's own trust domain, {own}")
    return Trusted(domains[own], domains=json.dumps(domains))


def _framed(message: bytes) -> bytes:
    return b"\x00" + struct.pack(">I", len(message)) + message


def _message(buffer: bytes) -> bytes | None:
    """The first complete message; None if there is none yet. Raises ValueError."""
    if len(buffer) < 5:
        return None
    length = int.from_bytes(buffer[1:5], "big")
    if buffer[0] or length > MAX_MESSAGE:
        raise ValueError("the server sends messages that are too long, or compressed")
    return buffer[5 : 5 + length] if len(buffer) >= 5 + length else None


def _fields(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, value) of the length-delimited fields of a protobuf message. Raises ValueError."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        match tag & 7:
            case 0:
                _, at = _varint(raw, at)
            case 1:
                at += 8
            case 2:
                length, at = _varint(raw, at)
                if at + length > len(raw):
                    raise ValueError("the server's message is cut off")
                yield tag >> 3, raw[at : at + length]
                at += length
            case 5:
                at += 4
            case _:
                raise ValueError("the server's message cannot be read")


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(raw) or shift > 63:
            raise ValueError("the server's message cannot be read")
        byte = raw[at]
        value, at, shift = value | (byte & 0x7F) << shift, at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _data(source: bytes) -> str:
    """The text of an inline Envoy DataSource."""
    found = dict(_fields(source))
    return (found.get(2) or found.get(3) or b"").decode(errors="replace")
