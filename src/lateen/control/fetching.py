"""Fetches documents that users' objects name by URL, within limits.

Authors of such objects must not reach istiod's own network through it (SSRF): each address is checked after name
resolution, also on redirects, and exactly the checked address is connected to. The environment is ignored (no proxies),
nothing is kept (no cookies) or decompressed, and responses that are too long or too slow are abandoned.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from lateen.kit import addresses, jwks
from lateen.kit.bodies import TooLong, whole
from lateen.mesh.authentication import KeySource

MAX_BYTES = 1 << 20
MAX_REDIRECTS = 5
TIMEOUT_S, MAX_TIMEOUT_S = 5.0, 60.0
"""The timeout in seconds: Istio's default, and the maximum that a rule can set."""
REFRESH_S = 20 * 60.0
"""Istio's default (``PILOT_JWT_PUB_KEY_REFRESH_INTERVAL``)."""
AT_ONCE = 16
"""The number of concurrent fetches."""
Refuses = Callable[[str], str]
_MOVED = (301, 302, 303, 307, 308)


class NotFetched(Exception):
    """Why a document could not be fetched, as the end of a sentence."""


@dataclass(frozen=True)
class Fetching:
    """Settings for fetching."""

    blocked: tuple[addresses.Network, ...] = ()
    """Networks that are never connected to, in addition to those of ``kit.addresses``."""
    refresh_s: float = REFRESH_S
    insecure: frozenset[str] = frozenset()
    """Registries of Wasm modules (``host:port``) that are contacted without TLS."""


DEFAULT_FETCHING = Fetching()


class _Resolver(AbstractResolver):
    def __init__(self, refuses: Refuses) -> None:
        self._inner, self._refuses = aiohttp.ThreadedResolver(), refuses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for one in found:
            if why := self._refuses(one["host"]):
                raise NotFetched(f"{host} is {one['host']}, where istiod does not connect to: {why}")
        return found

    async def close(self) -> None:
        await self._inner.close()


@dataclass(frozen=True)
class Answer:
    url: URL
    """The final URL, after redirects."""
    status: int
    headers: Mapping[str, str]
    body: bytes


class Fetcher:
    def __init__(self, refuses: Refuses = addresses.refused) -> None:
        """``refuses``: why an address must not be connected to; empty if it may be."""
        self._refuses = refuses
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def keys(self, source: KeySource, timeout_s: float = 0) -> str:
        """A key set (``kit.jwks``), or a provider's endpoints as a JSON object. Raises NotFetched."""
        limit = min(timeout_s or TIMEOUT_S, MAX_TIMEOUT_S)
        async with self._at_once:
            try:
                async with asyncio.timeout(limit), self.session() as session:
                    url = absolute(source.url)
                    if source.endpoints:
                        return _endpoints(await self._document(session, url), url)
                    if source.discovered:
                        url = _advertised(await self._document(session, url), url)
                    return _usable(await self._document(session, url), url)
            except TimeoutError:
                raise NotFetched(f"{shown(source.url)} did not answer within {limit:g} s") from None

    def session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(resolver=_Resolver(self._refuses), use_dns_cache=False, force_close=True)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
        )

    async def _document(self, session: aiohttp.ClientSession, url: URL) -> str:
        answer = await self.get(session, url, {"Accept": "application/json"})
        try:
            return answer.body.decode()
        except UnicodeDecodeError:
            raise NotFetched(f"{shown(answer.url)} is not text") from None

    async def get(
        self,
        session: aiohttp.ClientSession,
        url: URL,
        headers: Mapping[str, str],
        limit: int = MAX_BYTES,
        also: tuple[int, ...] = (),
    ) -> Answer:
        """Fetch a document of at most ``limit`` bytes, following redirects; ``Authorization`` is not sent to other
        hosts. ``also``: status codes besides 200 that the caller handles. Raises NotFetched."""
        for _ in range(MAX_REDIRECTS + 1):
            self.check(url)
            try:
                async with session.get(url, allow_redirects=False, headers=headers) as answer:
                    if answer.status in _MOVED:
                        before, url = url, _moved(url, answer.headers.get("Location", ""))
                        if url.origin() != before.origin():
                            headers = {k: v for k, v in headers.items() if k != "Authorization"}
                        continue
                    if answer.status not in (200, *also):
                        raise NotFetched(f"{shown(url)} answers with status {answer.status}")
                    body = await whole(answer.content.iter_any(), limit)
                    return Answer(url, answer.status, answer.headers, body)
            except TooLong:
                raise NotFetched(f"{shown(url)} has more than {limit} bytes") from None
            except aiohttp.ClientConnectorCertificateError as e:
                raise NotFetched(f"the certificate of {shown(url)} is not trusted: {e.certificate_error}") from None
            except (aiohttp.ClientError, OSError, ssl.SSLError, ValueError) as e:
                raise NotFetched(f"{shown(url)} cannot be read: {str(e) or type(e).__name__}") from None
        raise NotFetched(f"{shown(url)} is behind more than {MAX_REDIRECTS} redirects")

    def check(self, url: URL) -> None:
        """Check a literal address, which is not resolved, so that the resolver would not see it. Raises NotFetched."""
        try:
            why = self._refuses(url.host or "")
        except ValueError:
            return
        if why:
            raise NotFetched(f"istiod does not connect to {url.host}: {why}")


def absolute(text: str, base: URL | None = None) -> URL:
    """An absolute URL; documents fetched with TLS must only refer to URLs with TLS. Raises NotFetched."""
    try:
        url = URL(text)
        url = base.join(url) if base is not None else url
    except ValueError as e:
        raise NotFetched(f"{text[:200]} is not a URL: {e}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise NotFetched(f"{shown(url)} is not an http or https URL")
    if base is not None and base.scheme == "https" and url.scheme != "https":
        raise NotFetched(f"{shown(base)} refers to {shown(url)}, which is not protected by TLS")
    return url


def _moved(url: URL, location: str) -> URL:
    if not location:
        raise NotFetched(f"{shown(url)} redirects without a Location")
    return absolute(location, url)


def _advertised(text: str, url: URL) -> URL:
    keys = _said(text).get("jwks_uri")
    if not isinstance(keys, str):
        raise NotFetched(f"{shown(url)} does not say where the keys are (jwks_uri)")
    return absolute(keys, url)


def _said(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


REQUIRED, _OPTIONAL = ("authorization_endpoint", "token_endpoint"), ("end_session_endpoint",)


def _endpoints(text: str, url: URL) -> str:
    """Source: https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderMetadata and RP-Initiated Logout."""
    said, out = _said(text), {}
    for name in (*REQUIRED, *_OPTIONAL):
        value = said.get(name)
        if isinstance(value, str):
            out[name] = str(absolute(value, url))
        elif name in REQUIRED:
            raise NotFetched(f"{shown(url)} does not contain the {name}")
    return json.dumps(out, sort_keys=True)


def _usable(text: str, url: URL) -> str:
    try:
        return jwks.usable(text)
    except ValueError as e:
        raise NotFetched(f"{shown(url)} is not a usable key set: {e}") from None


def shown(url: str | URL) -> str:
    """The URL without user name and password."""
    try:
        return str(URL(url).with_user(None))[:200] if isinstance(url, str) else str(url.with_user(None))[:200]
    except ValueError:
        return str(url)[:200]


def networks(text: str) -> tuple[addresses.Network, ...]:
    """``10.0.0.0/8,192.168.0.0/16``. Raises ValueError."""
    return tuple(ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())
