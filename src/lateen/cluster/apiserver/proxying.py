"""Requests that the API server passes on to pods and services (``…/pods/NAME:PORT/proxy/PATH``), as Kubernetes does."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import random
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from lateen.cluster.apiserver import errors, reading
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.errors import ApiError, bad_request
from lateen.cluster.store.objects import Store
from lateen.kit import tasks
from lateen.kit.digits import digits
from lateen.kit.jsons import Json, dig
from lateen.kit.later import aiohttp, web, yarl

CONNECT_S = 30.0
_HOP = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})
_DROPPED = _HOP | {"authorization", "proxy-authenticate", "proxy-authorization", "host", "content-length"}
"""Headers that are set anew, and the caller's identity, which must not reach the application."""


@dataclass(frozen=True)
class Target:
    """``prefix``: the path of the proxy itself, under which the application's own paths are for the client."""

    scheme: str
    host: str
    port: int
    prefix: str

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def target(store: Store, c: Call, raw_path: str) -> tuple[Target, str]:
    """Where a request goes, and the path there. ``c.name`` is NAME, NAME:PORT or SCHEME:NAME:PORT. Raises ApiError."""
    scheme, name, port = split(c.name)
    named = c.on(name=name)
    found = reading.entry(store, named).obj
    host, number = _pod(found, port) if c.resource.kind == "Pod" else _service(store, named, found, port)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ApiError(503, "ServiceUnavailable", f"{c.resource.kind.lower()} {name} has no address yet") from None
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        raise ApiError(403, "Forbidden", "address not allowed")
    parts = raw_path.split("/")  # /api/v1/namespaces/NAMESPACE/RESOURCE/NAME/proxy/…
    return Target(scheme, host, number, "/".join(parts[:8])), "".join(f"/{p}" for p in parts[8:])


def split(text: str) -> tuple[str, str, str]:
    """Scheme, name and port (empty for none) of ``NAME``, ``NAME:PORT`` or ``SCHEME:NAME:PORT``. Raises ApiError."""
    parts = text.split(":")
    if len(parts) == 1:
        return "http", text, ""
    if len(parts) == 2:
        return "http", parts[0], parts[1]
    if len(parts) == 3 and parts[0] in ("", "http", "https"):
        return parts[0] or "http", parts[1], parts[2]
    raise bad_request(f'invalid proxy request "{text}": it has the form [http:|https:]NAME[:PORT]')


def _pod(pod: Json, port: str) -> tuple[str, int]:
    ports = [p for c in dig(pod, "spec", "containers", default=[]) for p in c.get("ports") or []]
    if not port:
        number = ports[0]["containerPort"] if ports else 80
    elif digits(port) and 0 < int(port) < 65536:
        number = int(port)
    else:
        number = next((p["containerPort"] for p in ports if p.get("name") == port), 0)
        if not number:
            raise bad_request(f'pod {pod["metadata"]["name"]} has no port "{port}"')
    return str(dig(pod, "status", "podIP", default="")), int(number)


def _service(store: Store, c: Call, service: Json, port: str) -> tuple[str, int]:
    """One of the service's ready endpoints. Raises ApiError."""
    declared = dig(service, "spec", "ports", default=[])
    chosen = [p for p in declared if port in (p.get("name", ""), str(p["port"]))] if port else declared
    if len(chosen) != 1:
        says = f'no service port "{port}" found for service "{c.name}"'
        raise errors.ApiError(503, "ServiceUnavailable", says)
    wanted = chosen[0].get("name") or ""
    endpoints = store.get("endpoints", c.namespace, c.name)
    found = [
        (str(address["ip"]), int(p["port"]))
        for subset in (endpoints.obj.get("subsets") or [] if endpoints else [])
        for p in subset.get("ports") or []
        if (p.get("name") or "") == wanted
        for address in subset.get("addresses") or []
    ]
    if not found:
        raise ApiError(503, "ServiceUnavailable", f'no endpoints available for service "{c.name}"')
    return random.choice(found)


class Proxy:
    """One client for all applications; certificates of pods are not verified (nobody could have issued them)."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        return self._session

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    async def serve(self, request: web.BaseRequest, to: Target, path: str) -> web.StreamResponse:
        """Raises ApiError if the application cannot be reached."""
        if not path and request.method in ("GET", "HEAD"):
            return web.Response(status=301, headers={"Location": f"{to.prefix}/" + _query(request)})
        headers = [(k, v) for k, v in request.headers.items() if _passes(k)]
        headers.append(("X-Forwarded-Uri", f"{to.prefix}{path}"))
        headers += [("X-Forwarded-Host", request.host), ("X-Forwarded-Proto", "https")]
        url = to.origin + (path or "/") + _query(request)
        try:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._websocket(request, url, headers)
            return await self._request(request, to, url, headers)
        except aiohttp.ClientSSLError as e:
            raise ApiError(503, "ServiceUnavailable", f"error trying to reach service: tls: {_reason(e)}") from e
        except aiohttp.ClientConnectorError as e:
            why = os.strerror(e.os_error.errno).lower() if e.os_error.errno else str(e.os_error)
            says = f"error trying to reach service: dial tcp {to.host}:{to.port}: connect: {why}"
            raise ApiError(503, "ServiceUnavailable", says) from e
        except (aiohttp.ClientError, TimeoutError, ValueError) as e:
            raise ApiError(503, "ServiceUnavailable", f"error trying to reach service: {e}") from e

    async def _request(
        self, request: web.BaseRequest, to: Target, url: str, headers: list[tuple[str, str]]
    ) -> web.StreamResponse:
        data: Any = request.content if request.body_exists else None
        if request.headers.get("Content-Encoding"):  # aiohttp has decoded it
            headers = [(k, v) for k, v in headers if k.lower() != "content-encoding"]
        elif data is not None and request.content_length is not None:
            headers.append(("Content-Length", str(request.content_length)))
        async with self._client().request(
            request.method,
            yarl.URL(url, encoded=True),
            headers=headers,
            data=data,
            allow_redirects=False,
            ssl=False,
        ) as answer:
            out = web.StreamResponse(status=answer.status, reason=answer.reason)
            for key, value in answer.headers.items():
                if key.lower() not in _HOP:
                    out.headers.add(key, _moved(value, to) if key.lower() == "location" else value)
            await out.prepare(request)
            try:
                async for chunk in answer.content.iter_any():
                    await out.write(chunk)
                await out.write_eof()
            except aiohttp.ClientError:  # a truncated response must not look complete
                if request.transport:
                    request.transport.abort()
            return out

    async def _websocket(
        self, request: web.BaseRequest, url: str, headers: list[tuple[str, str]]
    ) -> web.StreamResponse:
        offered = [p.strip() for p in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if p.strip()]
        own = [(k, v) for k, v in headers if not k.lower().startswith("sec-websocket-")]
        async with self._client().ws_connect(url, headers=own, protocols=offered, ssl=False, max_msg_size=0) as there:
            here = web.WebSocketResponse(protocols=[there.protocol] if there.protocol else [], max_msg_size=0)
            await here.prepare(request)
            back = tasks.spawn(_copy(there, here), "proxy of a WebSocket")
            try:
                await _copy(here, there)
            finally:
                await tasks.cancel(back)
            return here


async def _copy(source: Any, target: Any) -> None:
    """Messages of a WebSocket, either side's, until it closes."""
    try:
        async for message in source:
            if message.type is aiohttp.WSMsgType.BINARY:
                await target.send_bytes(message.data)
            elif message.type is aiohttp.WSMsgType.TEXT:
                await target.send_str(message.data)
        await target.close()
    except (ConnectionError, asyncio.CancelledError):
        await target.close()
        raise


def _reason(e: aiohttp.ClientSSLError) -> str:
    """Why there is no TLS connection, in a few words."""
    return str(getattr(e.os_error, "reason", None) or e.os_error).lower().replace("_", " ")


def _passes(header: str) -> bool:
    low = header.lower()
    return low not in _DROPPED and not low.startswith("impersonate-")


def _query(request: web.BaseRequest) -> str:
    raw = request.rel_url.raw_query_string
    return f"?{raw}" if raw else ""


def _moved(location: str, to: Target) -> str:
    """A redirect inside of the application, as a path that leads there for the client."""
    url = urlsplit(location)
    ours = not url.netloc or f"{url.scheme or to.scheme}://{url.netloc}" in (to.origin, f"{to.scheme}://{to.host}")
    if not ours or not url.path.startswith("/"):
        return location
    return to.prefix + url.path + (f"?{url.query}" if url.query else "") + (f"#{url.fragment}" if url.fragment else "")
