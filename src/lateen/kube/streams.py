"""Long-running requests: commands in containers, logs, port-forwards, watches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from lateen.api.kinds import POD, Kind
from lateen.kit import jsons, tasks
from lateen.kit.digits import digits
from lateen.kit.jsons import Json
from lateen.kit.later import aiohttp
from lateen.kit.spdy import Session
from lateen.kube.connection import Connection, error_of
from lateen.kube.errors import KubeError, Unreachable

WATCH_S, SILENCE_S = 1800, 90.0
"""Seconds that a watch lasts, and that it may be silent: API servers send a bookmark every minute."""
FORBIDDEN = 403


def selecting(labels: str, fields: str) -> dict[str, str]:
    """The query parameters that select objects."""
    return {k: v for k, v in (("labelSelector", labels), ("fieldSelector", fields)) if v}


def _refused(error: Any, says: str, resource: str) -> KubeError:
    """``resource``: what the permission is for. Kubernetes asks for another verb since 1.35."""
    if error.status != FORBIDDEN:
        return KubeError(error.status, "", f"{says}: {error.message}")
    return KubeError(
        error.status,
        "",
        f"{says}: it is forbidden; it takes the verbs get (before Kubernetes 1.35) and create of {resource}",
    )


class Streams(Connection):
    """Raises KubeError and Unreachable."""

    async def execute(
        self, namespace: str, pod: str, container: str, command: Sequence[str], stdin: bytes, timeout: float = 30.0
    ) -> tuple[bytes, bytes]:
        """Run a command in a container; (standard output, standard error). Raises KubeError and Unreachable."""
        out, err, _ = await self.run(namespace, pod, container, command, stdin, timeout)
        return out, err

    async def run(
        self, namespace: str, pod: str, container: str, command: Sequence[str], stdin: bytes, timeout: float = 30.0
    ) -> tuple[bytes, bytes, int]:
        """Like ``execute``, but also returns the exit code. Raises KubeError and Unreachable."""
        params = [("command", c) for c in command]
        params += [
            ("container", container),
            ("stdin", "true" if stdin else "false"),
            ("stdout", "true"),
            ("stderr", "true"),
        ]
        out = {1: b"", 2: b"", 3: b""}
        try:
            async with (
                asyncio.timeout(timeout),
                self.session().ws_connect(
                    self.base + POD.path(namespace, pod, "exec"),
                    params=params,
                    protocols=("v5.channel.k8s.io",),
                    headers=await self.headers(),
                    **self.options,
                ) as ws,
            ):
                with contextlib.suppress(ConnectionResetError):  # the command may have ended without reading its input
                    if stdin:
                        await ws.send_bytes(b"\x00" + stdin)
                        await ws.send_bytes(b"\xff\x00")
                async for message in ws:
                    data = message.data
                    if isinstance(data, bytes) and data[:1] in (b"\x01", b"\x02", b"\x03"):
                        out[data[0]] += data[1:]
        except aiohttp.WSServerHandshakeError as e:
            raise _refused(e, f"no command can be run in {pod}", "pods/exec") from e
        except (aiohttp.ClientConnectionError, TimeoutError) as e:
            raise self.unreachable(e) from e
        return out[1], out[2], _exit_code(out[3])

    async def logs(
        self,
        namespace: str,
        pod: str,
        container: str,
        tail: int | None = 100,
        follow: bool = False,
        timestamps: bool = False,
    ) -> AsyncGenerator[bytes, None]:
        """Lines of a container's log; with ``follow``, as they are written; with ``timestamps``, RFC 3339 and a space
        before each. Raises KubeError and Unreachable."""
        params = {"container": container, "follow": "true" if follow else "false"}
        if tail is not None:
            params["tailLines"] = str(tail)
        if timestamps:
            params["timestamps"] = "true"
        limit = aiohttp.ClientTimeout(total=None, connect=10, sock_read=None if follow else 30)
        url = self.base + POD.path(namespace, pod, "log")
        try:
            async with self.session().get(
                url, params=params, headers=await self.headers(), timeout=limit, **self.options
            ) as answer:
                if answer.status >= 400:
                    raise error_of(answer.status, await answer.read())
                async for line in answer.content:
                    yield line
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError) as e:
            raise self.unreachable(e) from e

    @contextlib.asynccontextmanager
    async def forwarding(self, namespace: str, pod: str) -> AsyncIterator[Session]:
        """A session whose streams are connections to ports of a pod (SPDY inside a WebSocket, as kubectl since
        1.30)."""
        try:
            async with self.session().ws_connect(
                self.base + POD.path(namespace, pod, "portforward"),
                protocols=("SPDY/3.1+portforward.k8s.io",),
                headers=await self.headers(),
                max_msg_size=4 * 1024 * 1024,
                **self.options,
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
            raise _refused(e, f"no port of {pod} can be forwarded", "pods/portforward") from e
        except (aiohttp.ClientConnectionError, TimeoutError) as e:
            raise self.unreachable(e) from e

    async def watch(
        self, kind: Kind, namespace: str, version: str, labels: str = "", fields: str = ""
    ) -> AsyncIterator[tuple[str, Json]]:
        query = {
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_S),
            "allowWatchBookmarks": "true",
            **selecting(labels, fields),
        }
        session = self.session()
        try:
            async with session.get(
                self.base + kind.path(namespace),
                params=query,
                headers=await self.headers(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENCE_S),
                **self.options,
            ) as response:
                if response.status >= 400:
                    if response.status == 401:
                        self.auth.refused()
                    raise error_of(response.status, await response.read())
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


async def _receive(ws: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader) -> None:
    async for message in ws:
        if message.type is aiohttp.WSMsgType.BINARY:
            reader.feed_data(message.data)
    reader.feed_eof()


def _exit_code(status: bytes) -> int:
    """The exit code in the Status that ends a command. Raises KubeError if the command was not run at all."""
    try:
        found = jsons.loads(status)
    except ValueError:
        raise KubeError(500, "InternalError", "the connection ended before the command did") from None
    if found.get("status") == "Success":
        return 0
    causes = {c.get("reason"): c.get("message") for c in (found.get("details") or {}).get("causes") or []}
    if found.get("reason") != "NonZeroExitCode" or not digits(str(causes.get("ExitCode", ""))):
        raise KubeError(int(found.get("code") or 500), str(found.get("reason") or ""), str(found.get("message") or ""))
    return int(causes["ExitCode"])
