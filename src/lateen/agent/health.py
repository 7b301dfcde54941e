"""The health of a machine's application, by the probe of its WorkloadGroup: HTTP, TCP, gRPC or a command."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from lateen.agent import grpc_health
from lateen.kit import http

AGAIN = 6
"""The state is reported again after this many probes, in case a report was lost."""
Report = Callable[[bool, str], Awaitable[None]]


async def once(probe: dict[str, Any]) -> str | None:
    """None if the application is healthy, otherwise the problem."""
    limit = float(probe.get("timeoutSeconds") or 1)
    try:
        if get := probe.get("httpGet"):
            return await _get(get, limit)
        if tcp := probe.get("tcpSocket"):
            async with asyncio.timeout(limit):
                _, writer = await asyncio.open_connection(tcp.get("host") or "127.0.0.1", int(tcp["port"]))
                writer.close()
            return None
        if rpc := probe.get("grpc"):
            async with asyncio.timeout(limit):
                sock = await asyncio.to_thread(socket.create_connection, ("127.0.0.1", int(rpc["port"])), limit)
                sock.setblocking(False)
                return await grpc_health.check(sock, str(rpc.get("service") or "")) or None
        if command := dict(probe.get("exec") or {}).get("command"):
            process = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
            )
            try:
                async with asyncio.timeout(limit):
                    code = await process.wait()
            except TimeoutError:
                process.kill()
                raise
            return None if code == 0 else f"{command[0]} exited with {code}"
    except TimeoutError:
        return f"no answer within {limit:g} s"
    except OSError as e:
        return str(e)
    return None


async def _get(get: dict[str, Any], limit: float) -> str | None:
    context = None
    if str(get.get("scheme") or "").upper() == "HTTPS":  # as the kubelet: the certificate is not verified
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    answer = await http.fetch(
        str(get.get("host") or "127.0.0.1"),
        int(get["port"]),
        str(get.get("path") or "/"),
        timeout=limit,
        ssl=context,
        headers={str(h["name"]): str(h["value"]) for h in get.get("httpHeaders") or []},
    )
    return None if 200 <= answer.status < 400 else f"HTTP status {answer.status}"


async def watch(probe: dict[str, Any], report: Report) -> None:
    """Report each change between healthy and unhealthy once the probe's thresholds are reached, and repeat the last
    report periodically. Never returns."""
    await asyncio.sleep(float(probe.get("initialDelaySeconds") or 0))
    well: bool | None = None
    row, last = 0, None
    while True:
        wrong = await once(probe)
        row = row + 1 if (wrong is None) == (last is None) and row else 1
        last = wrong
        needed = probe.get("successThreshold") or 1 if wrong is None else probe.get("failureThreshold") or 3
        if row >= int(needed) and (well is not (wrong is None) or row % AGAIN == 0):
            try:
                await report(wrong is None, wrong or "the probe succeeds")
                well = wrong is None
            except (OSError, TimeoutError, ValueError):
                pass  # istiod does not answer: report again with the next probe
        await asyncio.sleep(float(probe.get("periodSeconds") or 10))
