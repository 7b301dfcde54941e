"""Webhooks over HTTPS: where they are, whom to trust, and what may come back."""

from __future__ import annotations

import base64
import os
import ssl
from typing import Any

from lateen.cluster.store.objects import Store
from lateen.kit import bodies, jsons, tls
from lateen.kit.jsons import Json
from lateen.kit.later import aiohttp

MAX_ANSWER = 3 * 1024 * 1024
MAX_CONTEXTS = 64


class Failure(Exception):
    """A webhook could not be called, or has not answered with JSON."""


class Caller:
    """Calls webhooks; connections are kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._session: aiohttp.ClientSession | None = None

    async def post(self, config: Json, body: bytes, seconds: float, most: int = MAX_ANSWER) -> Any:
        """The decoded answer. ``config``: a clientConfig; ``most``: bytes that the answer may have. Raises Failure."""
        try:
            return await self._post(config, body, seconds, most)
        except TimeoutError:
            raise Failure("context deadline exceeded") from None
        except aiohttp.ClientConnectorCertificateError as e:
            raise Failure(f"tls: failed to verify certificate: {e.certificate_error}") from e
        except aiohttp.ClientConnectorDNSError as e:
            raise Failure(f"dial tcp: lookup {e.host}: no such host") from e
        except aiohttp.ClientConnectorError as e:
            why = os.strerror(e.os_error.errno).lower() if e.os_error.errno else str(e.os_error)
            raise Failure(f"dial tcp {e.host}:{e.port}: connect: {why}") from e
        except KeyError as e:
            raise Failure(f"the webhook's clientConfig has no {e.args[0]}") from e
        except (aiohttp.ClientError, OSError, ValueError, TypeError) as e:
            raise Failure(str(e) or type(e).__name__) from e

    async def _post(self, config: Json, body: bytes, seconds: float, most: int) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=32))
        url, hostname = self._target(config)
        async with self._session.post(
            url,
            data=body,
            timeout=aiohttp.ClientTimeout(total=seconds),
            ssl=self._context(config.get("caBundle")),
            server_hostname=hostname,
            allow_redirects=False,
            headers={"Content-Type": "application/json"},
        ) as response:
            raw = await bodies.whole(response.content.iter_any(), most)
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}: {raw[:200].decode(errors='replace')}")
            return jsons.nestable(jsons.loads(raw))

    def _target(self, config: Json) -> tuple[str, str | None]:
        if "url" in config:
            return str(config["url"]), None
        service = config["service"]
        namespace, name = service["namespace"], service["name"]
        found = self._store.get("services", namespace, name)
        if found is None:
            raise ValueError(f'service "{namespace}/{name}" not found')
        port = int(service.get("port") or 443)
        port_name = next((p.get("name") for p in found.obj["spec"].get("ports") or [] if p["port"] == port), None)
        endpoints = self._store.get("endpoints", namespace, name)
        for subset in (endpoints.obj.get("subsets") if endpoints else None) or []:
            for p in subset.get("ports") or []:
                if p.get("name") == port_name and subset.get("addresses"):
                    path, ip = "/" + str(service.get("path") or "").lstrip("/"), str(subset["addresses"][0]["ip"])
                    host = f"[{ip}]" if ":" in ip else ip
                    return f"https://{host}:{p['port']}{path}", f"{name}.{namespace}.svc"
        raise ValueError(f'no endpoints available for service "{namespace}/{name}"')

    def _context(self, bundle: str | None) -> ssl.SSLContext:
        key = bundle or ""
        if key not in self._contexts:
            try:
                made = tls.client_context(base64.b64decode(key).decode() if key else None)
            except (ValueError, ssl.SSLError):
                raise Failure("the caBundle of the webhook is no certificate in PEM form") from None
            while len(self._contexts) >= MAX_CONTEXTS:
                del self._contexts[next(iter(self._contexts))]
            self._contexts[key] = made
        return self._contexts[key]

    async def close(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None


def url(config: Json) -> str:
    """Where a clientConfig leads to, as Kubernetes' messages name it."""
    if "url" in config:
        return str(config["url"])
    service = config.get("service") or {}
    path = "/" + str(service.get("path") or "").lstrip("/")
    return f"https://{service.get('name')}.{service.get('namespace')}.svc:{service.get('port') or 443}{path}"
