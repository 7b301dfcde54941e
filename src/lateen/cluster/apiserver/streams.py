"""exec, attach and port-forward over WebSocket (v4 and v5 of Kubernetes' channels) and SPDY/3.1."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from lateen.cluster.apiserver.access import PodAccess, Running
from lateen.cluster.apiserver.errors import ApiError, bad_request
from lateen.kit import jsons, tasks
from lateen.kit.digits import digits
from lateen.kit.jsons import Json
from lateen.kit.later import aiohttp, web
from lateen.kit.spdy import Session, Stream

Write = Callable[[bytes], Awaitable[None]]
TUNNEL, CHANNELS = "SPDY/3.1+portforward.k8s.io", "v4.channel.k8s.io"
READY_S = 0.03
"""kubectl discards what comes before it has made its own streams ("Unknown stream id 3, discarding message"), and with
it the exit code of a command that is over at once."""
MAX_PORTS = 64
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255


def exit_status(code: int) -> bytes:
    if code == 0:
        return jsons.dumps({"metadata": {}, "status": "Success"})
    return jsons.dumps(
        {
            "metadata": {},
            "status": "Failure",
            "reason": "NonZeroExitCode",
            "message": f"command terminated with non-zero exit code: exit status {code}",
            "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
        }
    )


async def copy(reader: asyncio.StreamReader | None, write: Write) -> None:
    while reader is not None and (data := await reader.read(65536)):
        await write(data)


async def finish(running: Running, out: Write, err: Write) -> int:
    """Copy the output until it ends; returns the exit code."""
    await asyncio.gather(copy(running.out, out), copy(running.err, err))
    return await running.wait()


def resize(running: Running, data: bytes) -> None:
    try:
        size: Json = jsons.loads(data)
        running.resize(int(size["Height"]), int(size["Width"]))
    except (ValueError, KeyError, TypeError):
        pass  # a size that cannot be parsed changes nothing


def frame(message: aiohttp.WSMessage) -> tuple[int, bytes] | None:
    """Channel and contents. Clients may send text frames as well as binary ones (Python's does for ``str``)."""
    data = message.data.encode() if message.type is aiohttp.WSMsgType.TEXT else message.data
    if message.type not in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT) or not data:
        return None
    return data[0], data[1:]


async def websocket_exec(request: web.Request, running: Running) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(protocols=("v5.channel.k8s.io", CHANNELS), compress=False, max_msg_size=1024 * 1024)
    await ws.prepare(request)

    def channel(number: int) -> Write:
        return lambda data: ws.send_bytes(bytes([number]) + data)

    async def inbound() -> None:
        async for message in ws:
            number, data = frame(message) or (-1, b"")
            if number == STDIN:
                await running.write(data)
            elif number == RESIZE:
                resize(running, data)
            elif number == CLOSE and data[:1] == b"\0":
                running.close_stdin()
        running.kill()

    reading = tasks.spawn(inbound(), "exec stdin")
    try:
        await asyncio.sleep(READY_S)
        code = await finish(running, channel(STDOUT), channel(STDERR))
        await ws.send_bytes(bytes([ERROR]) + exit_status(code))
        await ws.close()
    except (ConnectionError, RuntimeError):
        running.kill()
    finally:
        reading.cancel()
    return ws


def version(headers: list[tuple[str, str]]) -> str:
    """The protocol inside SPDY that a client offers and that is spoken here; empty if there is none."""
    offered = [p.strip() for k, v in headers if k.lower() == "x-stream-protocol-version" for p in v.split(",")]
    return next((v for v in (CHANNELS, "portforward.k8s.io") if v in offered), "")


async def refuse(write: Write, e: ApiError) -> None:
    """Answer a request for an upgrade with a failure."""
    body = jsons.dumps(e.status())
    await write(
        f"HTTP/1.1 {e.code} {e.reason}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


async def upgraded(
    reader: asyncio.StreamReader, write: Write, chosen: str, serve: Callable[[Session], Awaitable[None]]
) -> None:
    """Grant a request for an upgrade to SPDY, and serve what it is for."""
    await write(
        f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        f"X-Stream-Protocol-Version: {chosen}\r\n\r\n".encode()
    )
    session = Session(reader, write)
    pump = tasks.spawn(session.run(), "spdy")
    try:
        await serve(session)
        await asyncio.sleep(0.05)  # the client reads what has been written before the connection ends
    finally:
        await tasks.cancel(pump)


async def spdy_exec(session: Session, running: Running, wanted: int) -> None:
    """``wanted``: how many streams the client opens (error, and the requested ones of stdin, stdout, stderr,
    resize)."""
    found: dict[str, Stream] = {}
    try:
        async with asyncio.timeout(30):
            while len(found) < wanted:
                stream = await session.opened.get()
                if stream is None:
                    running.kill()
                    return
                found[stream.headers.get("streamtype", "")] = stream
    except TimeoutError:
        running.kill()
        return

    async def stdin() -> None:
        while data := await found["stdin"].incoming.get():
            await running.write(data)
        running.close_stdin()

    async def sizes() -> None:
        while data := await found["resize"].incoming.get():
            resize(running, data)

    async def gone() -> None:
        while await session.opened.get() is not None:
            pass
        running.kill()

    async def drop(_: bytes) -> None:
        return

    side = [tasks.spawn(gone(), "exec connection")]
    side += [tasks.spawn(work(), name) for name, work in (("stdin", stdin), ("resize", sizes)) if name in found]
    try:
        code = await finish(
            running,
            found["stdout"].write if "stdout" in found else drop,
            found["stderr"].write if "stderr" in found else drop,
        )
        for name in ("stdout", "stderr"):
            if name in found:
                await found[name].close()
        await found["error"].write(exit_status(code))
        await found["error"].close()
        await session.goaway()
    finally:
        for task in side:
            task.cancel()


async def forward(session: Session, access: PodAccess, namespace: str, pod: str) -> None:
    """Port-forward: pairs of error and data streams, matched by ``requestid``."""
    errors: dict[str, Stream] = {}
    while (stream := await session.opened.get()) is not None:
        key = stream.headers.get("requestid", "")
        if stream.headers.get("streamtype") == "error":
            errors[key] = stream
        else:
            tasks.spawn(_forward_one(stream, errors.pop(key, None), access, namespace, pod), "port-forward")


def _not_forwarded(port: str, pod: str, e: Exception) -> str:
    number = e.errno if isinstance(e, OSError) else None
    why = f"connect: {os.strerror(number).lower()}" if number else str(e.args[0] if e.args else e)
    return f"error forwarding port {port} to pod {pod}: {why}"


async def _forward_one(data: Stream, error: Stream | None, access: PodAccess, namespace: str, pod: str) -> None:
    try:
        port = int(data.headers.get("port", "0"))
        reader, writer = await access.connect(namespace, pod, port)
    except (OSError, LookupError, ValueError) as e:
        if error:
            await error.write(_not_forwarded(data.headers.get("port", ""), pod, e).encode())
            await error.close()
        await data.close()
        return

    async def inbound() -> None:
        while chunk := await data.incoming.get():
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    reading = tasks.spawn(inbound(), "port-forward in")
    try:
        await copy(reader, data.write)
    except ConnectionError:
        pass  # the pod or the client closed; both streams end below
    finally:
        await data.close()
        if error:
            await error.close()
        reading.cancel()
        writer.close()


async def websocket_forward(request: web.Request, access: PodAccess, namespace: str, pod: str) -> web.WebSocketResponse:
    """SPDY frames inside binary WebSocket messages (kubectl 1.31 and later)."""
    ws = web.WebSocketResponse(protocols=(TUNNEL,), compress=False, max_msg_size=2 * 1024 * 1024)
    await ws.prepare(request)
    reader = asyncio.StreamReader(limit=4 * 1024 * 1024)
    session = Session(reader, ws.send_bytes)
    pump = tasks.spawn(session.run(), "port-forward session")
    serve = tasks.spawn(forward(session, access, namespace, pod), "port-forward streams")
    try:
        async for message in ws:
            if message.type is aiohttp.WSMsgType.BINARY:
                reader.feed_data(message.data)
    finally:
        reader.feed_eof()
        await tasks.cancel(pump, serve)
    return ws


async def channels_forward(request: web.Request, access: PodAccess, namespace: str, pod: str) -> web.WebSocketResponse:
    """Port-forward with v4.channel.k8s.io (the Python client, kr8s): the ports are in the query; port number i uses
    channel 2i for data and 2i+1 for its error, and the server begins each with the port (16 bits, little-endian)."""
    given = [p for text in request.query.getall("ports", []) for p in text.split(",")]
    if not given or len(given) > MAX_PORTS or not all(digits(p) and 0 < int(p) < 65536 for p in given):
        raise bad_request('port-forward needs "ports" in its query: numbers from 1 to 65535')
    ws = web.WebSocketResponse(protocols=(CHANNELS,), compress=False, max_msg_size=2 * 1024 * 1024)
    await ws.prepare(request)
    links = [_Link(ws, 2 * i, int(port)) for i, port in enumerate(given)]
    for link in links:
        await link.announce()

    async def serve() -> None:
        await asyncio.gather(*(link.carry(access, namespace, pod) for link in links))
        await ws.close()  # the protocol cannot close a single channel

    serving = tasks.spawn(serve(), "port-forward channels")
    try:
        async for message in ws:
            if (found := frame(message)) and found[0] % 2 == 0 and found[0] // 2 < len(links):
                await links[found[0] // 2].incoming.put(found[1])
    finally:
        await tasks.cancel(serving)
    return ws


class _Link:
    """One forwarded port of a WebSocket."""

    def __init__(self, ws: web.WebSocketResponse, channel: int, port: int) -> None:
        self._ws, self._channel, self._port = ws, channel, port
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue(maxsize=256)

    async def announce(self) -> None:
        for channel in (self._channel, self._channel + 1):
            await self._ws.send_bytes(bytes([channel]) + self._port.to_bytes(2, "little"))

    async def carry(self, access: PodAccess, namespace: str, pod: str) -> None:
        try:
            reader, writer = await access.connect(namespace, pod, self._port)
        except (OSError, LookupError) as e:
            says = _not_forwarded(str(self._port), pod, e)
            await self._ws.send_bytes(bytes([self._channel + 1]) + says.encode())
            return
        reading = tasks.spawn(self._inbound(writer), "port-forward in")
        try:
            await copy(reader, lambda data: self._ws.send_bytes(bytes([self._channel]) + data))
        except ConnectionError:
            pass  # the pod or the client closed
        finally:
            reading.cancel()
            writer.close()

    async def _inbound(self, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(await self.incoming.get())
            await writer.drain()
