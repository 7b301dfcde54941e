"""The bodies of requests, as Envoy's tap filter tells them through the admin interface. Istiod puts the filter into the
chains of a pod that has the annotation ``api.annotations.TAP_BODIES``.

Source: https://www.envoyproxy.io/docs/envoy/latest/operations/traffic_tapping and
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/tap_filter
"""

from __future__ import annotations

import asyncio
import base64
import codecs
import contextlib
import json
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator

from lateen.kit.jsons import Json
from lateen.wire import ports, tap

PAUSE_S, TRIES = 0.5, 40
"""Seconds between two attempts; after this many attempts, watchers are told why there are no bodies."""
WORKERS_S = 0.2
"""Seconds until all of Envoy's workers show bodies, once it has answered."""
KEPT = 500
"""Requests whose log line has not come yet."""
LARGEST = 1024 * 1024
"""The most characters of Envoy's report on one request."""
NOT_THERE = (
    "bodies cannot be shown: istiod has not given the proxy the filter for them; lateen proxy-status shows whether "
    "the proxy is connected and takes its configuration"
)
_ORDER = json.dumps(
    {
        "config_id": tap.CONFIG,
        "tap_config": {
            "match": {"any_match": True},
            "output_config": {
                "max_buffered_rx_bytes": tap.MOST_BODY,
                "max_buffered_tx_bytes": tap.MOST_BODY,
                "sinks": [{"format": "JSON_BODY_AS_BYTES", "streaming_admin": {}}],
            },
        },
    }
).encode()


class Bodies:
    def __init__(self, port: int = ports.ADMIN) -> None:
        self._port = port
        self._found: OrderedDict[tuple[str, str], Json] = OrderedDict()
        self.state: Json = {}
        """As a line for watchers: that bodies are shown, or why not; empty while neither is known."""
        self._since = 0.0
        """When they were shown first, in seconds since 1970"""

    def missed(self, request: Json) -> bool:
        """Whether a request of the log, which Envoy writes some time later, is from before bodies were shown."""
        try:
            return float(request.get("start", 0.0)) < self._since
        except (TypeError, ValueError):
            return False

    def take(self, request: Json) -> Json:
        """Those of a request of the log, each once; empty where Envoy has not told them."""
        return self._found.pop((str(request.get("requestId")), str(request.get("path"))), {})

    async def follow(self, tell: Callable[[Json], None]) -> None:
        """Until it is cancelled. ``tell`` hears each state: that Envoy begins, or, once, why nothing comes."""

        def become(state: Json) -> None:
            if tap.BODIES in state and not self._since:
                self._since = time.time() + WORKERS_S
            self.state = state
            tell(state)

        failures = 0
        try:
            while True:
                why = "bodies cannot be shown: Envoy ends the stream of them; the log of the proxy may say why"
                try:
                    async with contextlib.aclosing(_traces(self._port, lambda: become({tap.BODIES: True}))) as traces:
                        async for trace in traces:
                            failures = 0
                            self._keep(trace)
                except _Refused as e:
                    why = NOT_THERE if "config id" in str(e) else f"bodies cannot be shown: Envoy refuses: {e}"
                except (OSError, ValueError, EOFError):
                    pass
                if tap.BODIES in self.state:
                    self.state = {}
                failures += 1
                if failures >= TRIES and not self.state:
                    become({tap.ERROR: why})
                    failures = 0
                await asyncio.sleep(PAUSE_S)
        finally:
            self._found.clear()
            self.state, self._since = {}, 0.0

    def _keep(self, trace: Json) -> None:
        said = trace.get("http_buffered_trace")
        if not said:
            return
        request, response = said.get("request") or {}, said.get("response") or {}
        headers = {h.get("key"): h.get("value", "") for h in request.get("headers", [])}
        key = (headers.get("x-request-id", ""), headers.get("x-envoy-original-path") or headers.get(":path", ""))
        bodies = {tap.REQUEST_BODY: _body(request), tap.RESPONSE_BODY: _body(response)}
        self._found[key] = {name: body for name, body in bodies.items() if body}
        while len(self._found) > KEPT:
            self._found.popitem(last=False)


def _body(message: Json) -> Json:
    """As in ``wire.tap``; empty without one."""
    body = message.get("body") or {}
    raw = base64.b64decode(body.get("as_bytes") or "")
    if not raw:
        return {}
    cut = {"truncated": True} if body.get("truncated") else {}
    text = _text(raw, bool(cut))
    return {"base64": base64.b64encode(raw).decode(), **cut} if text is None else {"text": text, **cut}


def _text(raw: bytes, cut: bool) -> str | None:
    """None where it is no text. ``cut``: the last character may have been cut in two."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(raw, final=not cut)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


class _Refused(Exception):
    """Envoy does not stream; the message is what it answers."""


async def _traces(port: int, begin: Callable[[], None]) -> AsyncGenerator[Json]:
    """Raises _Refused, OSError, ValueError, EOFError."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=LARGEST)
    try:
        writer.write(b"POST /tap HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%s" % (len(_ORDER), _ORDER))
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
        if head.split(b" ", 2)[1] != b"200":
            raise _Refused((await reader.read(300)).decode(errors="replace").strip())
        begin()
        reports = Reports()
        while size := int((await reader.readline()).partition(b";")[0], 16):
            for trace in reports.feed((await reader.readexactly(size + 2))[:-2]):
                yield trace
    finally:
        writer.close()


class Reports:
    """The JSON objects in a stream whose chunks may end anywhere; what is no object is left out."""

    def __init__(self) -> None:
        self._decoder, self._json = codecs.getincrementaldecoder("utf-8")("replace"), json.JSONDecoder()
        self._rest = ""

    def feed(self, chunk: bytes) -> Iterator[Json]:
        """Those that this chunk completes."""
        self._rest += self._decoder.decode(chunk)
        if b"}" not in chunk:
            self._bound()
            return
        at = 0
        while (at := self._rest.find("{", at)) >= 0:
            try:
                found, at = self._json.raw_decode(self._rest, at)
            except json.JSONDecodeError as e:
                if _is_cut(e):
                    self._rest = self._rest[at:]
                    self._bound()
                    return
                at += 1
                continue
            yield found
        self._rest = ""

    def _bound(self) -> None:
        if len(self._rest) > LARGEST:
            self._rest = ""


def _is_cut(e: json.JSONDecodeError) -> bool:
    """Whether the text is wrong only because it ends; an escape or a word that is cut has up to six characters."""
    return e.msg.startswith("Unterminated string") or e.pos >= len(e.doc.rstrip()) - 6
