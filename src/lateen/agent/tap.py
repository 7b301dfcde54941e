"""Streams live requests to watchers: enables Envoy's logger, reads its output, and disables it again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from pathlib import Path

from lateen.agent.bodies import Bodies
from lateen.kit import http, tasks
from lateen.kit.jsons import Json
from lateen.wire import ports, tap

log = logging.getLogger("lateen.agent.tap")

AT_ONCE = 8
"""The most watchers of one proxy."""
WAITING = 2000
"""The queue length per watcher; further requests are counted as lost."""
LOOK_S, RENEW_S = 0.1, 1.0
"""Seconds between reads of the file, and between settings of the runtime key, which a restarted Envoy has lost."""
WRITTEN_S = 2.0
"""After the key has been taken away: Envoy writes what it has gathered twice a second (``options.flush_s``)."""
LARGEST = 8 * 1024 * 1024
"""The file's size in bytes at which it is truncated."""
CHUNK = 256 * 1024


async def _switch(percent: int) -> None:
    """Set the runtime key; 0 removes it."""
    value = str(percent) if percent else ""
    with contextlib.suppress(OSError, TimeoutError):
        await http.fetch("127.0.0.1", ports.ADMIN, f"/runtime_modify?{tap.RUNTIME}={value}", method="POST", timeout=2)


class Tap:
    def __init__(
        self,
        path: Path = Path(tap.FILE),
        switch: Callable[[int], Awaitable[None]] = _switch,
        bodies: Bodies | None = None,
        gateway: bool = False,
    ) -> None:
        """``switch`` sets the share of requests, in percent, that Envoy writes."""
        self._path, self._switch = path, switch
        self._watchers: set[Watcher] = set()
        self._reading: asyncio.Task[None] | None = None
        self._bodies, self._side = bodies or Bodies(), tap.CLIENT if gateway else tap.SERVER
        self._following: asyncio.Task[None] | None = None

    def answer(self, path: str) -> http.Response:
        """A stream of JSON lines, one per request, with empty lines as keepalive. ``?headers`` includes headers,
        ``&secrets`` also those that carry credentials, ``&bodies`` the bodies of requests that come in (at a gateway,
        those that it sends on), after a line ``{"bodies": true}``, or one that says why there are none."""
        if len(self._watchers) >= AT_ONCE:
            return http.Response(429, b"%d others are looking at this proxy already\n" % AT_ONCE)
        asked = path.partition("?")[2].split("&")
        watcher = Watcher("headers" in asked, "secrets" in asked, "bodies" in asked)
        return http.Response(200, headers={"content-type": "application/x-ndjson"}, stream=self._watch(watcher))

    async def _watch(self, watcher: Watcher) -> AsyncGenerator[bytes]:
        self._watchers.add(watcher)
        if watcher.bodies and self._bodies.state:
            watcher.offer(_line(self._bodies.state))
        if self._reading is None or self._reading.done():
            self._reading = tasks.spawn(self._read(), "tap")
        try:
            while True:
                yield await watcher.next()
        finally:
            self._watchers.discard(watcher)

    async def _read(self) -> None:
        while self._watchers:  # a watcher may have come while the key was being removed
            await self._look()
            await self._late_lines()

    async def _late_lines(self) -> None:
        """Wait until Envoy has written the last requests, which may have credentials, and leave none of them behind."""
        end = time.monotonic() + WRITTEN_S
        while not self._watchers and time.monotonic() < end:
            await asyncio.sleep(LOOK_S)
        self._empty()

    def _empty(self) -> None:
        with contextlib.suppress(OSError):
            os.truncate(self._path, 0)

    async def _look(self) -> None:
        """Read the file as long as there are watchers. Never blocks for longer than reading a few lines takes."""
        renewed, rest = 0.0, b""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(file, 0)
            while self._watchers:
                if time.monotonic() - renewed > RENEW_S:
                    renewed = time.monotonic()
                    await self._switch(100)
                    await self._ask_for_bodies()
                    self._tell(self._watchers, b"\n")
                *lines, rest = (rest + os.read(file, CHUNK)).split(b"\n")
                if len(rest) > tap.LONGEST:
                    rest = b""
                for line in lines:
                    self._show(line)
                if not lines:
                    if os.lseek(file, 0, os.SEEK_CUR) > LARGEST:
                        os.ftruncate(file, 0)
                        os.lseek(file, 0, os.SEEK_SET)
                    await asyncio.sleep(LOOK_S)
                else:
                    await asyncio.sleep(0)
        except OSError as e:
            log.error("requests cannot be shown: %s", e)
            self._tell(self._watchers, _line({tap.ERROR: f"the proxy's file cannot be read: {e}"}))
            await asyncio.sleep(RENEW_S)
        finally:
            os.close(file)
            await self._ask_for_bodies()
            await self._switch(0)
            self._empty()

    async def _ask_for_bodies(self) -> None:
        """For as long as somebody wants them."""
        running = self._following is not None and not self._following.done()
        if any(w.bodies for w in self._watchers):
            if not running:
                self._following = tasks.spawn(self._bodies.follow(self._tell_of_bodies), "bodies")
        elif self._following is not None:
            await tasks.cancel(self._following)
            self._following = None

    def _tell_of_bodies(self, state: Json) -> None:
        self._tell((w for w in self._watchers if w.bodies), _line(state))

    def _show(self, line: bytes) -> None:
        try:
            request = json.loads(line)
        except ValueError:
            return  # its first part was written before the file was truncated
        if isinstance(request, dict):
            ours = request.get(tap.SIDE) == self._side
            if ours:
                request |= self._bodies.take(request)
            missed = ours and self._bodies.missed(request)
            for watcher in self._watchers:
                if not (missed and watcher.bodies):
                    watcher.offer(watcher.seen(request))

    def _tell(self, watchers: Iterable[Watcher], line: bytes) -> None:
        for watcher in watchers:
            watcher.offer(line)


class Watcher:
    def __init__(self, headers: bool, secrets: bool, bodies: bool) -> None:
        self._headers, self._secrets, self.bodies = headers, secrets, bodies
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(WAITING)
        self._lost = 0

    def seen(self, request: Json) -> bytes:
        """The line, reduced to what this watcher may see."""
        hidden = {tap.REQUEST_HEADERS, tap.RESPONSE_HEADERS}
        hidden |= set() if self.bodies else {tap.REQUEST_BODY, tap.RESPONSE_BODY}
        out = {k: v for k, v in request.items() if k not in hidden}
        if self._headers:
            for key in (tap.REQUEST_HEADERS, tap.RESPONSE_HEADERS):
                if isinstance(found := request.get(key), dict):
                    out[key] = found if self._secrets else redacted(found)
        return _line(out)

    def offer(self, line: bytes) -> None:
        if not self._waiting.full():
            self._waiting.put_nowait(line)
        elif line.strip():
            self._lost += 1

    async def next(self) -> bytes:
        line = await self._waiting.get()
        if self._lost:
            line += _line({tap.LOST: self._lost})
            self._lost = 0
        return line


def _line(said: Json) -> bytes:
    return json.dumps(said, ensure_ascii=False).encode() + b"\n"


def redacted(headers: Json) -> Json:
    return {k: tap.REDACTED if k.lower() in tap.SECRET_HEADERS else v for k, v in headers.items()}
