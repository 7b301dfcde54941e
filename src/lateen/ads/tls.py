"""TLS over asyncio for thousands of connections with one shared receive buffer; asyncio's own TLS keeps 256 KiB for
each."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import cast

log = logging.getLogger("lateen.ads")

HANDSHAKE_S = 15.0
"""Seconds that a client has for the TLS handshake."""
CLOSE_S = 10.0
"""Seconds that a client has to read the rest of the data when its connection is closed."""
READ = 1 << 14
_buffer = memoryview(bytearray(READ))
"""The receive buffer shared by all connections; its contents are consumed before the next socket is read."""


class Link(asyncio.BufferedProtocol):
    """The server's end of one TLS connection. Subclasses override ``established``, ``received``, ``writable`` and
    ``lost``, none of which may raise."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.shaken = self._busy = False
        """Whether the handshake is complete; whether output is held until the current input has been processed."""
        self.closing = False
        """The connection is being closed: nothing is read or written any more."""
        self.paused = False
        """Whether the transport's write buffer is full; non-urgent data should wait."""
        self.transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    # --- for subclasses -------------------------------------------------------------------------------

    def established(self) -> None:
        """The handshake is complete, and the client's certificate, if required, is verified."""

    def received(self, data: bytes) -> None: ...

    def writable(self) -> None:
        """``paused`` no longer holds."""

    def lost(self) -> None: ...

    def identities(self) -> tuple[str, ...]:
        """The URI SANs of the client's verified certificate; empty if it has none."""
        certificate = self._tls.getpeercert() or {}
        names = cast("tuple[tuple[str, str], ...]", certificate.get("subjectAltName", ()))
        return tuple(value for kind, value in names if kind == "URI")

    def valid_until(self) -> float | None:
        """The end of the client's certificate, in seconds since the epoch; None if it has none."""
        end = (self._tls.getpeercert() or {}).get("notAfter")
        return ssl.cert_time_to_seconds(end) if isinstance(end, str) else None

    def write(self, data: bytes) -> None:
        """Encrypt and send; writes made while input is processed are sent together."""
        if self.transport is None or self.closing or not data:
            return
        try:
            written = self._tls.write(data)
            while written < len(data):
                written += self._tls.write(data[written:])
        except ssl.SSLError as e:
            log.debug("connection lost: %s", e)
            self.abort()
            return
        if not self._busy or self._outgoing.pending >= READ:  # bounded, because a BIO never shrinks
            self._leave()

    def close(self) -> None:
        """Close once what has been written is sent; the client has ``CLOSE_S`` to read it."""
        if self.transport is None:
            self.closing = True
        elif not self.closing:
            self._leave()
            self.closing = True
            self.transport.close()
            self._expect(CLOSE_S)

    def abort(self) -> None:
        """Close without sending what has been written."""
        self.closing = True
        if self.transport is not None:
            self.transport.abort()

    def _expect(self, seconds: float) -> None:
        """Abort the connection after this time unless the timer is replaced before."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(seconds, self.abort)

    # --- asyncio's side --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self.closing:  # closed before it was established
            self.abort()
        self._expect(HANDSHAKE_S)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        assert self.transport is not None
        self._incoming.write(_buffer[:nbytes])
        self._busy = True
        try:
            self._read()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as e:
            log.info("connection from %s refused: %s", self.transport.get_extra_info("peername"), e.reason or e)
            self.close()  # with the TLS alert that gives the reason
        finally:
            self._busy = False
            self._leave()

    def _read(self) -> None:
        if not self.shaken:
            self._tls.do_handshake()
            self.shaken = True
            if self._deadline is not None:
                self._deadline.cancel()
            self.established()
        while not self.closing and (self._incoming.pending or self._tls.pending()):
            data = self._tls.read(READ)
            if not data:
                self.close()
                return
            self.received(data)

    def _leave(self) -> None:
        if self._outgoing.pending and self.transport is not None and not self.closing:
            self.transport.write(self._outgoing.read())

    def pause_writing(self) -> None:
        """Stop reading from a client that does not read, so that responses to it do not pile up."""
        self.paused = True
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.paused = False
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
            self.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        log.debug("connection ended: %s", exc or "closed")
        if self._deadline is not None:
            self._deadline.cancel()
        self.transport, self.closing = None, True
        self.lost()
