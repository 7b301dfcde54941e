"""The calls of simulation cases made for real: an Envoy with the generated resources in a network namespace of its own.

Every cluster leads to a port of a recorder on loopback, which says which cluster a call came through. What a client can
see of an error is coarser than what the simulation says; ``FITS`` says which observation goes with which error.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import re
import ssl
import subprocess
import tempfile
from pathlib import Path

from google.protobuf import json_format
from judge import bootstrap, certificates
from simulator import MESH_ALPN, TLS_ALPN, Call

from lateen.cluster.kubelet.images import envoy_binary
from lateen.wire import names

OWN, ELSEWHERE = "1.1.1.1", "10.11.12.13"
FITS = {
    "no listener matched": {"refused", "reset", "unknown"},
    "no filter chains matched": {"reset"},
    "multiple filter chains matched": {"404", "reset"},
    "no virtual host matched": {"404"},
    "no route matched": {"404"},
    "tls required, sending 301": {"301"},
    "protocol error": {"reset", "400"},
    "invalid TLS": {"reset"},
    "invalid mTLS": {"reset"},
}
ORIGINAL = "BlackHoleCluster"


def isolate() -> None:
    """Into a network namespace of our own, where everything outbound is captured as in a pod. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x40000000) != 0:  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), "a network namespace cannot be made (root is needed)")
    commands = (
        "ip link set lo up",
        f"ip addr add {OWN}/32 dev lo",
        "ip route add default dev lo",
        f"iptables -t nat -A OUTPUT -p tcp -d {OWN} -j REDIRECT --to-ports 15006",
        "iptables -t nat -A OUTPUT -p tcp ! -d 127.0.0.0/8 -j REDIRECT --to-ports 15001",
    )
    for command in commands:
        subprocess.run(command.split(), check=True, capture_output=True, timeout=10)


class Recorder:
    """One port for each cluster; the last call's cluster."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self.hit = ""
        self._servers: list[asyncio.Server] = []

    async def start(self, clusters: list[str]) -> None:
        for name in clusters:
            server = await asyncio.start_server(lambda r, w, n=name: self._serve(n, r, w), "127.0.0.1", 0)
            self._servers.append(server)
            self.ports[name] = server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        for server in self._servers:
            server.close()

    async def _serve(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(3):
                while data := await reader.read(4096):
                    self.hit = name
                    if b"HTTP/1.1" in data:
                        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    else:
                        writer.write(b"here\n")
                    await writer.drain()
        writer.close()


def _to_recorder(out, recorder: Recorder) -> None:
    """Every cluster becomes a port on loopback, without TLS and in HTTP/1.1."""
    known = {c.name for c in out.static_resources.clusters}
    for name in set(recorder.ports) - known:
        out.static_resources.clusters.add(name=name)
    for c in out.static_resources.clusters:
        name = c.name
        c.Clear()
        c.name, c.type = name, 0
        c.connect_timeout.seconds = 2
        if name in recorder.ports and name != ORIGINAL:
            address = c.load_assignment.endpoints.add().lb_endpoints.add().endpoint.address.socket_address
            address.address, address.port_value = "127.0.0.1", recorder.ports[name]
        c.load_assignment.cluster_name = name
    for listener in out.static_resources.listeners:
        listener.ClearField("access_log")
    out.admin.address.socket_address.address = "127.0.0.1"
    out.admin.address.socket_address.port_value = 15000


def _clusters(found: dict) -> set[str]:
    """Those that are there, and those that routes lead to without a service."""
    named = re.compile(r'"(outbound\|[^"]+)"')
    messages = [m for t in (names.RDS, names.VHDS, names.LDS) for m in found.get(t, {}).values()]
    return set(found[names.CDS]) | {n for m in messages for n in named.findall(json_format.MessageToJson(m))}


async def _ready(process: asyncio.subprocess.Process) -> None:
    for _ in range(200):
        if process.returncode is not None:
            raise OSError("Envoy has ended")
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", 15000)
            writer.write(b"GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            answer = await reader.read(200)
            writer.close()
            if b" 200 " in answer.split(b"\r\n")[0]:
                return
        await asyncio.sleep(0.05)
    raise OSError("Envoy is not ready after 10 s")


def _request(call: Call) -> bytes:
    host = call.host or "x"
    if call.protocol == "http2":
        fields = ((":method", call.method), (":path", call.path), (":scheme", "http"), (":authority", host))
        block = b"".join(b"\0" + bytes((len(k),)) + k.encode() + bytes((len(v),)) + v.encode() for k, v in fields)
        frame = len(block).to_bytes(3) + b"\x01\x05\0\0\0\x01" + block
        return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0" + frame
    if call.protocol == "http":
        more = "".join(f"{k}: {v}\r\n" for k, v in call.headers.items())
        return f"{call.method} {call.path} HTTP/1.1\r\nhost: {host}\r\n{more}\r\n".encode()
    return b"hello from a client\n"


def _context(call: Call, pem: dict[str, str], directory: Path) -> ssl.SSLContext:
    out = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    out.check_hostname, out.verify_mode = False, ssl.CERT_NONE
    alpn = call.alpn or (MESH_ALPN if call.tls == "mtls" else TLS_ALPN)[call.protocol]
    if alpn:
        out.set_alpn_protocols([alpn])
    if call.tls == "mtls":
        if call.source:
            chain, key = directory / "client.pem", directory / "client-key.pem"
            chain.write_text(pem["cert"])
            key.write_text(pem["key"])
        else:
            chain, key = directory / "cert-chain.pem", directory / "key.pem"
        out.load_cert_chain(chain, key)
    return out


async def _call(call: Call, recorder: Recorder, pem: dict[str, str], directory: Path) -> tuple[str, str]:
    """(cluster, what the client saw)"""
    recorder.hit = ""
    inbound = call.mode == "inbound"
    address = "127.0.0.1" if call.mode == "gateway" else OWN if inbound else call.address or ELSEWHERE
    sni = (call.sni or call.host) if call.tls != "plaintext" else None
    seen = "reset"
    try:
        async with asyncio.timeout(4):
            context = None if call.tls == "plaintext" else _context(call, pem, directory)
            reader, writer = await asyncio.open_connection(
                address, call.port, ssl=context, server_hostname=(sni or "") if context else None
            )
            writer.write(_request(call))
            await writer.drain()
            head = await reader.read(300)
            while call.protocol == "http2" and head and not recorder.hit and await reader.read(300):
                pass  # the first bytes are only settings
            if head.startswith(b"HTTP/1.1 "):
                seen = head[9:12].decode()
            elif head:
                seen = "bytes"
            writer.close()
    except ConnectionRefusedError:
        seen = "refused"
    except (OSError, TimeoutError, ssl.SSLError, asyncio.IncompleteReadError):
        seen = "reset"
    await asyncio.sleep(0.02)
    return recorder.hit, seen


async def run(found: dict, calls: list[Call]) -> list[tuple[str, str]]:
    """(cluster, observation) of each call, through one Envoy."""
    recorder = Recorder()
    await recorder.start([n for n in _clusters(found) if n != ORIGINAL])
    with tempfile.TemporaryDirectory() as name:
        directory, pem = Path(name), certificates()
        path = bootstrap(found, directory, pem, lambda out: _to_recorder(out, recorder))
        process = await asyncio.create_subprocess_exec(
            envoy_binary(), "-c", str(path), "--log-level", "error", "--concurrency", "1", "--disable-hot-restart",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            await _ready(process)
            return [await _call(c, recorder, pem, directory) for c in calls]
        except OSError as e:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            _, errors = await process.communicate()
            raise OSError(f"{e}: {errors.decode(errors='replace')[-800:]}") from None
        finally:
            if process.returncode is None:
                process.terminate()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(5):
                        await process.wait()
                if process.returncode is None:
                    process.kill()
            await recorder.stop()


def verdict(want: dict, got: tuple[str, str], full) -> str | None:
    """None where what was seen is what the case expects, as far as a client can see it."""
    cluster, seen = got
    error, wanted = want.get("error") or "", want.get("clusterMatched") or ""
    said = f"got cluster {cluster!r}, client saw {seen!r}"
    if error:
        return None if not cluster and seen in FITS.get(error, set()) else f"expected {error!r}, {said}"
    if wanted == ORIGINAL:
        return None if not cluster else f"expected {wanted!r}, {said}"
    if wanted and cluster not in (wanted, full(wanted)):
        return f"expected cluster {wanted!r}, {said}"
    return None


def unseen(call: Call, want: dict) -> str | None:
    """Why a case cannot be observed from outside; None where it can."""
    if ":" in call.address:
        return "IPv6"
    if call.source and (want.get("error") or "") == "invalid mTLS" and call.tls == "mtls":
        return "a server that asks for no certificate does not mind one"
    return None
