"""The bodies of requests, as Envoy's tap filter tells them through the admin interface. Istiod puts the filter into the
chains of a pod that has the annotation ``api.annotations.TAP_BODIES``.

Source: https://www.envoyproxy.io/docs/envoy/latest/operations/traffic_tapping and
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/tap_filter
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from typing import Any

from lateen.kit.jsons import Json
from lateen.wire import ports, tap

PAUSE_S, TRIES = 0.5, 40
"""Seconds between two attempts; after this many attempts, clients are told why there are no bodies."""
KEPT = 500
"""Requests whose log line has not come yet."""
LARGEST = 1024 * 1024
"""The most bytes of Envoy's report on one request."""
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

    def take(self, request: Json) -> Json:
        """Those of a request of the log, each once; empty where Envoy has not told them."""
        return self._found.pop((str(request.get("requestId")), str(request.get("path"))), {})

    async def follow(self, complain: Callable[[str], None]) -> None:
        """Until it is cancelled. ``complain`` hears once why nothing comes."""
        failures = 0
        try:
            while True:
                why = "Envoy has ended the stream"
                try:
                    async with contextlib.aclosing(_traces(self._port)) as traces:
                        async for trace in traces:
                            failures = 0
                            self._keep(trace)
                except (OSError, ValueError, EOFError) as e:
                    why = str(e)
                failures += 1
                if failures == TRIES:
                    complain(f"bodies cannot be shown: {why}")
                await asyncio.sleep(PAUSE_S)
        finally:
            self._found.clear()

    def _keep(self, trace: Json) -> None:
        said = trace.get("http_buffered_trace") or {}
        request, response = said.get("request") or {}, said.get("response") or {}
        headers = {h["key"]: h["value"] for h in request.get("headers", [])}
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
    # The last character may have been cut in two.
    text = raw.decode(errors="ignore") if cut else raw.decode(errors="replace")
    binary = "\0" in text or "\ufffd" in text or (cut and len(text.encode()) < len(raw) - 3)
    return {"base64": base64.b64encode(raw).decode(), **cut} if binary else {"text": text, **cut}


async def _traces(port: int) -> AsyncGenerator[Json]:
    """Raises OSError, ValueError, EOFError."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=LARGEST)
    try:
        writer.write(b"POST /tap HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%s" % (len(_ORDER), _ORDER))
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
        if head.split(b" ", 2)[1] != b"200":
            raise OSError((await reader.read(300)).decode(errors="replace").strip())
        rest, decoder = "", json.JSONDecoder()
        while size := int((await reader.readline()).partition(b";")[0], 16):
            rest = (rest + (await reader.readexactly(size + 2))[:-2].decode(errors="replace")).lstrip()
            while rest:
                found = _first(decoder, rest)
                if found is None:
                    break
                trace, end = found
                rest = rest[end:].lstrip()
                yield trace
            if len(rest) > LARGEST:
                raise ValueError(f"a request has more than {LARGEST} bytes")
    finally:
        writer.close()


def _first(decoder: json.JSONDecoder, text: str) -> tuple[Any, int] | None:
    """The first object, and where it ends; None while it is not whole."""
    with contextlib.suppress(ValueError):
        return decoder.raw_decode(text)
    return None
