"""A rehearsal of one HTTPS request inside this process, before it is forked for each agent.

A forked process pays with private memory for everything that it loads or initializes itself: libraries that Python
imports lazily, OpenSSL's tables of algorithms, bytecode that the interpreter specializes at run time. Whatever was
there before the fork is shared. ``bench/pods.py`` and ``bench/gateways.py`` measure it: about 2.7 MB of each agent.
"""

from __future__ import annotations

import asyncio
import encodings.idna  # noqa: F401 - otherwise imported by each agent, at its first look-up of a name
import logging
import socket
import ssl
import tempfile
from datetime import timedelta
from pathlib import Path

from lateen.kit import certs, http, pkcs10, times

log = logging.getLogger("lateen.agent")
NAME, DAY = "rehearsal.invalid", timedelta(days=1)


def rehearse() -> None:
    """Leaves no thread, file or socket behind. A failure only costs memory, so it is merely logged."""
    try:
        asyncio.run(_request(*_contexts()))
    except (OSError, TimeoutError) as e:
        log.warning("agents will need more memory than usual: %s", str(e) or "timeout")


def _contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS contexts of a server and a client, with a throw-away CA."""
    pkcs10.request(certs.new_key(), NAME)
    authority = certs.authority(NAME, times.now())
    leaf = certs.issue(authority, [NAME], times.now(), DAY)
    certs.check_authorities(authority.certificate)
    certs.validity(leaf.certificate)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "server.pem"
        path.write_text(leaf.certificate + leaf.key)
        server.load_cert_chain(path)
    return server, ssl.create_default_context(cadata=authority.certificate)


async def _request(server: ssl.SSLContext, client: ssl.SSLContext) -> http.Response:
    """A request over a socket pair, so that no network interface needs to be up."""
    loop = asyncio.get_running_loop()
    await loop.getaddrinfo("127.0.0.1", 0, type=socket.SOCK_STREAM)
    ours, theirs = socket.socketpair()
    protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader(), _answer)
    _, answer = await asyncio.gather(
        loop.connect_accepted_socket(lambda: protocol, theirs, ssl=server),
        http.fetch(NAME, 443, "/", method="POST", body=b"{}", ssl=client, server_hostname=NAME, sock=ours),
    )
    return answer


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    await writer.drain()
    writer.close()
