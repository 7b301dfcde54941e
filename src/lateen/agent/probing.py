"""Probes the application on the kubelet's behalf, bypassing the proxy: HTTP, TCP, gRPC.

Connections come from 127.0.0.6 or ::6, which the redirection rules exempt (as those of Istio's agent do), so that
neither mutual TLS nor a policy of the pod's own proxy applies to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Mapping
from typing import Any

from lateen.agent import grpc_health
from lateen.kit import http
from lateen.wire import ports

TIMEOUT_S = 10.0
"""Seconds, for a probe without a timeout of its own; the kubelet applies its own timeout."""
_HOP = {"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "upgrade"}


class Prober:
    """``probers``: path -> {httpGet | tcpSocket | grpc, timeoutSeconds}, see ``inject.probes``."""

    def __init__(self, probers: Mapping[str, Any], address: str) -> None:
        self._probers, self._address = probers, address
        self._authority = f"[{address}]" if ":" in address else address

    async def handle(self, path: str, headers: Mapping[str, str]) -> http.Response:
        """The application's status for HTTP, otherwise 200 or 500; 404 for an unknown probe."""
        probe = self._probers.get(path)
        if probe is None:
            return http.Response(404, f"the pod has no probe {path}".encode())
        limit = float(probe.get("timeoutSeconds") or TIMEOUT_S)
        try:
            if get := probe.get("httpGet"):
                return await self._get(get, headers, limit)
            if tcp := probe.get("tcpSocket"):
                async with asyncio.timeout(limit):
                    (await self._connect(int(tcp["port"]))).close()
                return http.Response(200)
            if rpc := probe.get("grpc"):
                async with asyncio.timeout(limit):
                    sock = await self._connect(int(rpc["port"]))
                    wrong = await grpc_health.check(sock, str(rpc.get("service") or ""))
                return http.Response(500, wrong.encode()) if wrong else http.Response(200)
        except TimeoutError:
            return http.Response(500, f"no answer within {limit:g} s".encode())
        except OSError as e:
            return http.Response(500, str(e).encode())
        return http.Response(500, b"the probe has no httpGet, tcpSocket or grpc")

    async def _get(self, get: Mapping[str, Any], headers: Mapping[str, str], limit: float) -> http.Response:
        port, path = int(get["port"]), str(get.get("path") or "/")
        path = path if path.startswith("/") else f"/{path}"
        own = {str(h["name"]).lower(): str(h.get("value") or "") for h in get.get("httpHeaders") or []}
        sent = {"host": f"{self._authority}:{port}", **{k: v for k, v in headers.items() if k not in _HOP}, **own}
        context = None
        if str(get.get("scheme") or "").upper() == "HTTPS":  # as the kubelet: the certificate is not verified
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        async with asyncio.timeout(limit):
            answer = await http.fetch(
                self._address,
                port,
                path,
                headers=sent,
                timeout=limit,
                ssl=context,
                server_hostname=self._address if context else None,
                sock=await self._connect(port),
            )
        return http.Response(answer.status, answer.body[:1024])

    async def _connect(self, port: int) -> socket.socket:
        v6 = ":" in self._address
        sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if v6:
                with contextlib.suppress(OSError):  # the source is added with the rules (``capture``)
                    sock.bind((ports.GUARD_V6, 0))
            elif not self._address.startswith("127."):
                sock.bind((ports.GUARD, 0))
            await asyncio.get_running_loop().sock_connect(sock, (self._address, port))
        except BaseException:
            sock.close()
            raise
        return sock
