"""tcp-echo of Istio's samples: answers each line with a prefix.

``python -m lateen.samples.bookinfo.tcp_echo PORT[,PORT…] PREFIX``.
With ``--greet`` it speaks first, as MySQL and SMTP servers do; with ``--websocket`` it is a WebSocket server.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys

MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, section 1.3."""


def accept(key: str) -> str:
    """The answer to a WebSocket client's key."""
    return base64.b64encode(hashlib.sha1(f"{key}{MAGIC}".encode()).digest()).decode()


async def _upgraded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One unmasked echo of short frames (RFC 6455, section 5)."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    key = next(
        line.split(":", 1)[1].strip() for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key")
    )
    writer.write(
        f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept(key)}\r\n\r\n".encode()
    )
    while True:
        first, second = await reader.readexactly(2)
        size = second & 0x7F
        mask = await reader.readexactly(4) if second & 0x80 else b"\0" * 4
        body = bytes(b ^ mask[i % 4] for i, b in enumerate(await reader.readexactly(size)))
        writer.write(bytes((first, size)) + body)
        await writer.drain()


async def main(ports: list[int], prefix: str, greet: bool, websocket: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if websocket:
                await _upgraded(reader, writer)
            if greet:
                writer.write(f"{prefix} ready\n".encode())
                await writer.drain()
            while line := await reader.readline():
                writer.write(prefix.encode() + b" " + line)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    servers = [await asyncio.start_server(serve, "0.0.0.0", port) for port in ports]
    await asyncio.gather(*(s.serve_forever() for s in servers))


if __name__ == "__main__":
    plain = [a for a in sys.argv[1:] if not a.startswith("--")]
    numbers = [int(p) for p in plain[0].split(",")]
    asyncio.run(main(numbers, (plain[1:] or ["hello"])[0], "--greet" in sys.argv, "--websocket" in sys.argv))
