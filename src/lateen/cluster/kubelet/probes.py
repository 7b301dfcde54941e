"""Probes: HTTP, TCP and exec checks with Kubernetes' thresholds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from lateen.kit import http
from lateen.kit.jsons import Json

Exec = Callable[[list[str], float], Awaitable[tuple[int, str]]]


def port_number(container: Json, port: int | str) -> int:
    if isinstance(port, int):
        return port
    for p in container.get("ports") or []:
        if p.get("name") == port:
            return int(p["containerPort"])
    return int(port) if port.isdigit() else 0


async def check(probe: Json, container: Json, address: str, execute: Exec) -> str | None:
    """None where the check passed, else what failed."""
    timeout = float(probe.get("timeoutSeconds") or 1)
    try:
        if get := probe.get("httpGet"):
            return await _http(get, container, address, timeout)
        if tcp := probe.get("tcpSocket"):
            async with asyncio.timeout(timeout):
                _, writer = await asyncio.open_connection(
                    tcp.get("host") or address, port_number(container, tcp["port"])
                )
                writer.close()
            return None
        if command := (probe.get("exec") or {}).get("command"):
            code, output = await execute(command, timeout)
            return None if code == 0 else f"command {' '.join(command)} exited with {code}: {output[:200]}"
        return "the probe has no httpGet, tcpSocket or exec (grpc is not available in the embedded cluster)"
    except TimeoutError:
        return f"no answer within {timeout:g} s"
    except OSError as e:
        return str(e) or type(e).__name__


async def _http(get: Json, container: Json, address: str, timeout: float) -> str | None:
    import ssl

    port = port_number(container, get["port"])
    headers = {h["name"].lower(): h["value"] for h in get.get("httpHeaders") or []}
    headers.setdefault("user-agent", "kube-probe/1.32")
    context = None
    if get.get("scheme") == "HTTPS":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    answer = await http.fetch(
        get.get("host") or address, port, get.get("path") or "/", headers=headers, timeout=timeout, ssl=context
    )
    return None if 200 <= answer.status < 400 else f"HTTP probe failed with statuscode: {answer.status}"


class Threshold:
    """Counts results until they are a verdict: True, False, or None while undecided."""

    def __init__(self, probe: Json) -> None:
        self._need = (int(probe.get("failureThreshold") or 3), int(probe.get("successThreshold") or 1))
        self._run = 0
        self._last: bool | None = None

    def add(self, ok: bool) -> bool | None:
        self._run = self._run + 1 if ok == self._last else 1
        self._last = ok
        return ok if self._run >= self._need[ok] else None
