"""The verbs of the Kubernetes API: a protocol, and its implementation over HTTP.

Dicts go in and dicts come out. The embedded cluster's controllers use the same protocol without a socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from lateen.api.kinds import POD, Kind
from lateen.kit import jsons, tasks
from lateen.kit.jsons import Json
from lateen.kit.spdy import Session
from lateen.kube import bulk
from lateen.kube.auth import Auth, AuthError, Fixed
from lateen.kube.bulk import Change

MERGE = "application/merge-patch+json"
MAX_LINE = 8 * 1024 * 1024
PAGE = 500
"""Objects per page of a list, as in kubectl."""
WATCH_S, SILENCE_S = 1800, 90.0
"""Seconds that a watch lasts, and that it may be silent: API servers send a bookmark each minute."""


class KubeError(Exception):
    """The API refused a request: code, reason and message of its Status."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


class Unreachable(OSError):
    """No API server answered; the message has its address."""


Failures = list[tuple[Change, KubeError | Unreachable]]


class Client(Protocol):
    """Every method raises KubeError, and Unreachable if nobody answers."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """None if there is no such object."""

    async def list(self, kind: Kind, namespace: str = "", labels: str = "") -> tuple[list[Json], str]:
        """The objects, and the list's resource version."""

    async def create(self, kind: Kind, obj: Json) -> Json: ...

    async def update(self, kind: Kind, obj: Json, subresource: str = "") -> Json: ...

    async def patch(self, kind: Kind, namespace: str, name: str, change: Json, subresource: str = "") -> Json:
        """A JSON merge patch."""

    async def patch_all(self, changes: Sequence[Change], subresource: str = "") -> Failures:
        """Merge patches whose answers do not matter; those that failed."""

    async def delete(self, kind: Kind, namespace: str, name: str, grace: int | None = None) -> bool:
        """False if there was no such object."""

    async def request(self, kind: Kind, namespace: str, name: str, subresource: str, body: Json) -> Json:
        """POST to a subresource, or (with an empty name) a review such as TokenReview."""

    def watch(self, kind: Kind, namespace: str, version: str) -> AsyncIterator[tuple[str, Json]]:
        """(ADDED | MODIFIED | DELETED | BOOKMARK, object) after ``version``; KubeError 410 if that is too old. A
        BOOKMARK has a newer version and nothing else. Ends from time to time; continue from the last version."""


class HttpClient:
    """Over HTTPS; ``context`` may have a client certificate."""

    def __init__(
        self, base: str, context: ssl.SSLContext, auth: Auth | None = None, proxy: str = "", tls_name: str = ""
    ) -> None:
        """``tls_name``: the name in the server's certificate, if it is not the host's."""
        url = URL(base)
        self._url, self._tls_name = url, tls_name
        self._resolver = _Elsewhere(tls_name, str(url.host)) if tls_name else None
        self._base = str(url.with_host(tls_name) if tls_name else url).rstrip("/")
        self._context, self._auth, self._proxy = context, auth or Fixed(), proxy or None
        self._session: aiohttp.ClientSession | None = None
        self.warnings: list[str] = []

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    async def _headers(self, more: dict[str, str] | None = None) -> dict[str, str]:
        try:
            return {"Accept": "application/json", **(more or {}), **await self._auth.headers()}
        except AuthError as e:
            raise KubeError(401, "Unauthorized", str(e)) from e

    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._context, limit=64, resolver=self._resolver)
            self._session = aiohttp.ClientSession(connector=connector, read_bufsize=MAX_LINE, proxy=self._proxy)
        return self._session

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: dict[str, str] | None = None,
        content_type: str = "application/json",
        timeout: float = 30.0,
        accept: str = "application/json",
    ) -> Any:
        """Send one request; returns the decoded response. Raises KubeError and Unreachable."""
        try:
            return await self._call(method, path, body, query, content_type, timeout, accept)
        except KubeError as e:
            if e.code != 401 or not self._auth.refused():
                raise
        # once more with new credentials
        return await self._call(method, path, body, query, content_type, timeout, accept)

    async def _call(
        self,
        method: str,
        path: str,
        body: Any,
        query: dict[str, str] | None,
        content_type: str,
        timeout: float,
        accept: str,
    ) -> Any:
        session = self.session()
        try:
            async with session.request(
                method,
                self._base + path,
                params=query,
                data=None if body is None else jsons.dumps(body),
                headers=await self._headers({"Content-Type": content_type, "Accept": accept}),
                timeout=aiohttp.ClientTimeout(total=timeout),
            ) as response:
                raw = await response.read()
                self.warnings += [_warning(w) for w in response.headers.getall("Warning", [])]
                if response.status >= 400:
                    raise _error(response.status, raw)
                return jsons.loads(raw) if response.content_type == "application/json" else raw
        except (aiohttp.ClientError, TimeoutError) as e:
            raise self._silent(e) from e

    def _silent(self, e: Exception) -> Unreachable:
        return Unreachable(f"the Kubernetes API at {self._base} does not answer: {str(e) or 'timeout'}")

    async def clock(self) -> datetime | None:
        """The API's time, in whole seconds; None if it does not send it."""
        try:
            limit = aiohttp.ClientTimeout(total=10)
            async with self.session().get(
                self._base + "/version", headers=await self._headers(), timeout=limit
            ) as answer:
                return parsedate_to_datetime(answer.headers["Date"])
        except (KeyError, ValueError):
            return None
        except (aiohttp.ClientConnectionError, TimeoutError) as e:
            raise self._silent(e) from e

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        try:
            found: Json = await self.call("GET", kind.path(namespace, name))
            return found
        except KubeError as e:
            if e.code == 404:
                return None
            raise

    async def list(self, kind: Kind, namespace: str = "", labels: str = "") -> tuple[list[Json], str]:
        query = {"limit": str(PAGE)} | ({"labelSelector": labels} if labels else {})
        items: list[Json] = []
        while True:
            try:
                found = await self.call("GET", kind.path(namespace), query=query)
            except KubeError as e:
                if e.code != 410 or "continue" not in query:
                    raise
                items, query = [], {k: v for k, v in query.items() if k not in ("continue", "limit")}
                continue  # the pages have expired in the meantime: list everything at once
            items += found.get("items") or []
            if not (more := found["metadata"].get("continue")):
                return items, found["metadata"]["resourceVersion"]
            query["continue"] = more

    async def create(self, kind: Kind, obj: Json) -> Json:
        out: Json = await self.call("POST", kind.path(obj["metadata"].get("namespace", "")), obj)
        return out

    async def update(self, kind: Kind, obj: Json, subresource: str = "") -> Json:
        meta = obj["metadata"]
        out: Json = await self.call("PUT", kind.path(meta.get("namespace", ""), meta["name"], subresource), obj)
        return out

    async def patch(self, kind: Kind, namespace: str, name: str, change: Json, subresource: str = "") -> Json:
        out: Json = await self.call("PATCH", kind.path(namespace, name, subresource), change, content_type=MERGE)
        return out

    async def patch_all(self, changes: Sequence[Change], subresource: str = "") -> Failures:
        if self._proxy or len(changes) <= bulk.FEW:
            return [f for f in await asyncio.gather(*(self._patched(c, subresource) for c in changes)) if f]
        headers = await self._headers({"Content-Type": MERGE})
        failed = await bulk.patch_all(self._url, self._context, self._tls_name, headers, changes, subresource)
        if any(not isinstance(e, OSError) and e.status == 401 for _, e in failed):
            self._auth.refused()
        return [(c, self._silent(e) if isinstance(e, OSError) else _error(e.status, e.body)) for c, e in failed]

    async def _patched(self, c: Change, subresource: str) -> tuple[Change, KubeError | Unreachable] | None:
        try:
            await self.patch(c.kind, c.namespace, c.name, c.body, subresource)
        except (KubeError, Unreachable) as e:
            return c, e
        return None

    async def delete(self, kind: Kind, namespace: str, name: str, grace: int | None = None) -> bool:
        try:
            body = {"propagationPolicy": "Background"} | ({} if grace is None else {"gracePeriodSeconds": grace})
            await self.call("DELETE", kind.path(namespace, name), body)
            return True
        except KubeError as e:
            if e.code == 404:
                return False
            raise

    async def request(self, kind: Kind, namespace: str, name: str, subresource: str, body: Json) -> Json:
        out: Json = await self.call("POST", kind.path(namespace, name, subresource), body)
        return out

    async def execute(
        self, namespace: str, pod: str, container: str, command: Sequence[str], stdin: bytes, timeout: float = 30.0
    ) -> tuple[bytes, bytes]:
        """Run a command in a container; (standard output, standard error). Raises KubeError and Unreachable."""
        params = [("command", c) for c in command]
        params += [("container", container), ("stdin", "true"), ("stdout", "true"), ("stderr", "true")]
        out = {1: b"", 2: b""}
        try:
            async with (
                asyncio.timeout(timeout),
                self.session().ws_connect(
                    self._base + POD.path(namespace, pod, "exec"),
                    params=params,
                    protocols=("v5.channel.k8s.io",),
                    headers=await self._headers(),
                ) as ws,
            ):
                await ws.send_bytes(b"\x00" + stdin)
                await ws.send_bytes(b"\xff\x00")
                async for message in ws:
                    data = message.data
                    if isinstance(data, bytes) and data[:1] in (b"\x01", b"\x02"):
                        out[data[0]] += data[1:]
        except aiohttp.WSServerHandshakeError as e:
            raise KubeError(e.status, "", f"no command can be run in {pod}: {e.message}") from e
        except (aiohttp.ClientConnectionError, TimeoutError) as e:
            raise self._silent(e) from e
        return out[1], out[2]

    async def logs(
        self, namespace: str, pod: str, container: str, tail: int = 100, follow: bool = False
    ) -> AsyncIterator[bytes]:
        """Lines of a container's log; with ``follow``, as they are written. Raises KubeError and Unreachable."""
        params = {"container": container, "tailLines": str(tail), "follow": "true" if follow else "false"}
        limit = aiohttp.ClientTimeout(total=None, connect=10, sock_read=None if follow else 30)
        url = self._base + POD.path(namespace, pod, "log")
        try:
            async with self.session().get(url, params=params, headers=await self._headers(), timeout=limit) as answer:
                if answer.status >= 400:
                    raise _error(answer.status, await answer.read())
                async for line in answer.content:
                    yield line
        except (aiohttp.ClientConnectionError, TimeoutError) as e:
            raise self._silent(e) from e

    @contextlib.asynccontextmanager
    async def forwarding(self, namespace: str, pod: str) -> AsyncIterator[Session]:
        """A session whose streams lead to ports of a pod (SPDY inside a WebSocket, as kubectl since 1.30)."""
        try:
            async with self.session().ws_connect(
                self._base + POD.path(namespace, pod, "portforward"),
                protocols=("SPDY/3.1+portforward.k8s.io",),
                headers=await self._headers(),
                max_msg_size=4 * 1024 * 1024,
            ) as ws:
                reader = asyncio.StreamReader(limit=4 * 1024 * 1024)
                session = Session(reader, ws.send_bytes)
                running = tasks.spawn(session.run(), "port-forward session")
                receiving = tasks.spawn(_receive(ws, reader), "port-forward receive")
                try:
                    yield session
                finally:
                    await tasks.cancel(running, receiving)
        except aiohttp.WSServerHandshakeError as e:
            raise KubeError(e.status, "", f"no port of {pod} can be forwarded: {e.message}") from e
        except (aiohttp.ClientConnectionError, TimeoutError) as e:
            raise self._silent(e) from e

    async def watch(self, kind: Kind, namespace: str, version: str) -> AsyncIterator[tuple[str, Json]]:
        query = {
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_S),
            "allowWatchBookmarks": "true",
        }
        session = self.session()
        try:
            async with session.get(
                self._base + kind.path(namespace),
                params=query,
                headers=await self._headers(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENCE_S),
            ) as response:
                if response.status >= 400:
                    if response.status == 401:
                        self._auth.refused()
                    raise _error(response.status, await response.read())
                async for line in response.content:
                    event = jsons.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise KubeError(status.get("code", 500), status.get("reason", ""), status.get("message", ""))
                    yield event["type"], event["object"]
        except (TimeoutError, aiohttp.ServerTimeoutError):
            # silent for longer than the interval of bookmarks: the connection may be dead; the caller watches again
            return
        except (aiohttp.ClientError, ValueError) as e:
            raise Unreachable(f"the watch of {kind.plural} ended: {e}") from e


class _Elsewhere(AbstractResolver):
    """Resolves one name to the address of another host."""

    def __init__(self, name: str, host: str) -> None:
        self._name, self._host, self._inner = name, host, aiohttp.DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(self._host if host == self._name else host, port, family)
        return [{**r, "hostname": host} for r in found]

    async def close(self) -> None:
        await self._inner.close()


async def _receive(ws: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader) -> None:
    async for message in ws:
        if message.type is aiohttp.WSMsgType.BINARY:
            reader.feed_data(message.data)
    reader.feed_eof()


def _error(code: int, raw: bytes) -> KubeError:
    try:
        status = jsons.loads(raw)
        return KubeError(code, str(status.get("reason", "")), str(status.get("message", "")))
    except (ValueError, AttributeError):
        return KubeError(code, "", raw[:300].decode(errors="replace") or f"HTTP {code}")


def _warning(header: str) -> str:
    return header.partition('"')[2].rstrip('"').replace('\\"', '"')
