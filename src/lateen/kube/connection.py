"""The connection to an API server: TLS, credentials, one request and its response."""

from __future__ import annotations

import ssl
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Self, TypedDict

from lateen import __version__
from lateen.kit import jsons
from lateen.kit.later import aiohttp, yarl
from lateen.kube.auth import Auth, AuthError, Fixed
from lateen.kube.errors import KubeError, Stranger, Unreachable

if TYPE_CHECKING:
    from multidict import CIMultiDict

MAX_LINE = 8 * 1024 * 1024
CONNECTIONS = 64
"""At the same time; further requests wait."""
USER_AGENT = f"lateen/{__version__}"
"""Servers name the manager of fields by it.
https://kubernetes.io/docs/reference/using-api/server-side-apply/#managers"""


class Options(TypedDict):
    """What every request of aiohttp is given."""

    proxy: str | None
    server_hostname: str | None


class Connection:
    """HTTPS; ``context`` may have a client certificate."""

    def __init__(
        self, base: str, context: ssl.SSLContext, auth: Auth | None = None, proxy: str = "", tls_name: str = ""
    ) -> None:
        """``tls_name``: the name in the server's certificate, if it is not the host's."""
        url = yarl.URL(base)
        self.url, self.tls_name = url, tls_name
        self.base = str(url).rstrip("/")
        self.context, self.auth, self.proxy = context, auth or Fixed(), proxy or None
        self.options: Options = {"proxy": self.proxy, "server_hostname": tls_name or None}
        self._session: aiohttp.ClientSession | None = None
        self.warnings: list[str] = []

    def another(self, auth: Auth | None = None) -> Self:
        """A client of the same API with connections of its own; as somebody else where ``auth`` says so."""
        return type(self)(str(self.url), self.context, auth or self.auth, self.proxy or "", self.tls_name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    async def headers(self, more: dict[str, str] | None = None) -> CIMultiDict[str]:
        from multidict import CIMultiDict  # aiohttp's, imported as late

        out = CIMultiDict({"Accept": "application/json", "User-Agent": USER_AGENT, **(more or {})})
        try:
            out.extend(await self.auth.headers())
            return out
        except AuthError as e:
            raise KubeError(401, "Unauthorized", str(e)) from e

    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self.context, limit=CONNECTIONS)
            self._session = aiohttp.ClientSession(connector=connector, read_bufsize=MAX_LINE)
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
            if e.code != 401 or not self.auth.refused():
                raise
        return await self._call(method, path, body, query, content_type, timeout, accept)  # with new credentials

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
                self.base + path,
                params=query,
                data=None if body is None else jsons.dumps(body),
                headers=await self.headers({"Content-Type": content_type, "Accept": accept}),
                timeout=aiohttp.ClientTimeout(total=timeout),
                **self.options,
            ) as response:
                raw = await response.read()
                self.warnings += [_warning(w) for w in response.headers.getall("Warning", [])]
                if response.status >= 400:
                    raise error_of(response.status, raw)
                return self._decoded(raw, response.content_type)
        except (aiohttp.ClientError, TimeoutError) as e:
            raise self.unreachable(e) from e

    def _decoded(self, raw: bytes, content_type: str) -> Any:
        try:
            found = jsons.loads(raw)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self.stranger(content_type if raw.strip() else "nothing")
        return found

    def stranger(self, what: str) -> Stranger:
        says = "it is not a Kubernetes API, or something in front of it responds instead, such as a login page"
        return Stranger(
            f"{self.base} did not answer as expected, but with {what}: {says}; check the kubeconfig's server"
        )

    def unreachable(self, e: Exception) -> Unreachable:
        return Unreachable(f"the Kubernetes API at {self.base} does not answer: {str(e) or 'timeout'}")

    async def clock(self) -> datetime | None:
        """The API server's clock, in whole seconds; None if it sends no Date header."""
        try:
            limit = aiohttp.ClientTimeout(total=10)
            async with self.session().get(
                self.base + "/version", headers=await self.headers(), timeout=limit, **self.options
            ) as answer:
                return parsedate_to_datetime(answer.headers["Date"])
        except (KeyError, ValueError):
            return None
        except (aiohttp.ClientConnectionError, TimeoutError) as e:
            raise self.unreachable(e) from e


def error_of(code: int, raw: bytes) -> KubeError:
    try:
        status = jsons.loads(raw)
        said = (str(status.get("reason", "")), str(status.get("message", "")))
        return KubeError(code, *said, status.get("details"))
    except (ValueError, AttributeError):
        text = " ".join(raw[:300].decode(errors="replace").split())
        return KubeError(code, "", f"HTTP {code}{': ' if text else ''}{text}")


def _warning(header: str) -> str:
    return header.partition('"')[2].rstrip('"').replace('\\"', '"')
