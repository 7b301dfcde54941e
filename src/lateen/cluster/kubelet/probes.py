"""Probes and lifecycle hooks: HTTP, TCP, gRPC and exec checks with Kubernetes' thresholds and words."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import Awaitable, Callable
from urllib.parse import urljoin, urlsplit

from lateen.kit import http
from lateen.kit.digits import digits
from lateen.kit.jsons import Json

Exec = Callable[[list[str], float], Awaitable[tuple[int, str]]]
AGENT = "kube-probe/1.32"
MAX_REDIRECTS = 10
SERVING = 1
HEALTH = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
"""grpc.health.v1.HealthCheckResponse.ServingStatus"""


class BadProbe(Exception):
    """The probe cannot be run; the message says why."""


def port_number(container: Json, port: int | str) -> int:
    """The port as a number, given as a number, as text, or by the name of a container port. Raises BadProbe."""
    number = port if isinstance(port, int) else int(port) if digits(str(port)) else None
    if number is None:
        found = [p.get("containerPort") for p in container.get("ports") or [] if p.get("name") == port]
        if not found:
            raise BadProbe(f"couldn't find port: {port!r} in the container's ports")
        number = int(found[0])
    if not 0 < number < 65536:
        raise BadProbe(f"invalid port number: {number}")
    return number


async def check(probe: Json, container: Json, address: str, execute: Exec) -> str | None:
    """None if the check passed, otherwise what failed."""
    timeout = float(probe.get("timeoutSeconds") or 1)
    try:
        if get := probe.get("httpGet"):
            return await _http(get, container, address, timeout)
        if tcp := probe.get("tcpSocket"):
            return await _tcp(tcp.get("host") or address, port_number(container, tcp["port"]), timeout)
        if grpc := probe.get("grpc"):
            return await _grpc(address, port_number(container, grpc["port"]), str(grpc.get("service") or ""), timeout)
        if command := (probe.get("exec") or {}).get("command"):
            return await _exec(command, execute, timeout)
        return "missing probe handler"
    except (BadProbe, OSError) as e:
        return str(e) or type(e).__name__


async def _exec(command: list[str], execute: Exec, timeout: float) -> str | None:
    try:
        code, output = await execute(command, timeout)
    except TimeoutError:
        return f'command "{" ".join(command)}" timed out after {timeout:g}s'
    return None if code == 0 else output[:1024] or f"command exited with {code}"


async def _tcp(host: str, port: int, timeout: float) -> str | None:
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
        return None
    except TimeoutError:
        return f"dial tcp {host}:{port}: i/o timeout"
    except OSError as e:
        return _dial(host, port, e)


def _dial(host: str, port: int, e: OSError) -> str:
    """The failure in Go's words, which users search for."""
    known = {errno.ECONNREFUSED: "connection refused", errno.EHOSTUNREACH: "no route to host"}
    why = known.get(e.errno or 0) or (os.strerror(e.errno).lower() if e.errno else str(e))
    return f"dial tcp {host}:{port}: connect: {why}"


async def _http(get: Json, container: Json, address: str, timeout: float) -> str | None:
    """2xx and 3xx pass; redirects to the same host are followed, as the kubelet does."""
    port = port_number(container, get["port"])
    scheme = str(get.get("scheme") or "HTTP").lower()
    path = str(get.get("path") or "/")
    url = f"{scheme}://{get.get('host') or address}:{port}{path if path.startswith('/') else '/' + path}"
    headers = {"user-agent": AGENT, "accept": "*/*"}
    headers |= {str(h["name"]).lower(): str(h.get("value") or "") for h in get.get("httpHeaders") or []}
    if bad := next((h for pair in headers.items() for h in pair if "\r" in h or "\n" in h), None):
        return f"invalid header {bad!r:.80}"
    first = url
    try:
        async with asyncio.timeout(timeout):
            for _ in range(MAX_REDIRECTS):
                answer = await _fetch(url, headers, timeout)
                target = urljoin(url, answer.headers.get("location", ""))
                redirected = answer.status in (301, 302, 303, 307, 308) and target != url
                if not redirected or urlsplit(target).hostname != urlsplit(url).hostname:
                    break
                url = target
            else:
                return f'Get "{first}": stopped after {MAX_REDIRECTS} redirects'
    except TimeoutError:
        return f'Get "{first}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
    except ValueError as e:
        return f'Get "{url}": {e}'
    except OSError as e:
        host = urlsplit(url).hostname or ""
        return f'Get "{first}": {_dial(host, port, e) if isinstance(e, ConnectionRefusedError) else e}'
    return None if 200 <= answer.status < 400 else f"HTTP probe failed with statuscode: {answer.status}"


async def _fetch(url: str, headers: dict[str, str], timeout: float) -> http.Response:
    parts = urlsplit(url)
    context = None
    if parts.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    port = parts.port or (443 if context else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    shown = {"host": f"{parts.hostname}:{port}", **headers}
    return await http.fetch(parts.hostname or "", port, target, headers=shown, timeout=timeout, ssl=context)


async def _grpc(address: str, port: int, service: str, timeout: float) -> str | None:
    """Ask the standard health service. Its two messages have one field each, so they are encoded by hand here."""
    import grpc  # imported late: 15 MB that only clusters with such probes need

    name = service.encode()
    if len(name) > 127:
        return f"the service name is longer than 127 bytes: {service:.80}"
    request = b"\x0a" + bytes([len(name)]) + name if name else b""
    options = [("grpc.primary_user_agent", AGENT), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(f"{address}:{port}", options) as channel:
        call = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            answer: bytes = await call(request, timeout=timeout)
        except grpc.aio.AioRpcError as e:
            return _grpc_error(e.code().name, e.details() or "", address, port, timeout)
    status = answer[1] if answer[:1] == b"\x08" and len(answer) > 1 else 0
    return None if status == SERVING else f'service unhealthy (responded with "{HEALTH.get(status, status)}")'


def _grpc_error(code: str, details: str, address: str, port: int, timeout: float) -> str:
    if code == "UNIMPLEMENTED":
        return f"this server does not implement the grpc health protocol (grpc.health.v1.Health): {details}"
    if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        return f'timeout: failed to connect service "{address}:{port}" within {timeout:g}s: {details}'
    return f"error: health rpc probe failed: {code}: {details}"


class Threshold:
    """Counts results until a threshold is reached: True, False, or None while undecided."""

    def __init__(self, probe: Json) -> None:
        self._need = (int(probe.get("failureThreshold") or 3), int(probe.get("successThreshold") or 1))
        self._run = 0
        self._last: bool | None = None

    def add(self, ok: bool) -> bool | None:
        self._run = self._run + 1 if ok == self._last else 1
        self._last = ok
        return ok if self._run >= self._need[ok] else None
