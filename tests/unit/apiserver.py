"""The embedded API server without a socket: decoding, authorization and verbs as over HTTPS, a store in memory."""

from __future__ import annotations

import asyncio
import json

from lateen.cluster import bootstrap
from lateen.cluster.apiserver import strategies
from lateen.cluster.apiserver.admission import Webhooks
from lateen.cluster.apiserver.api import Api
from lateen.cluster.apiserver.auth import Tokens
from lateen.cluster.apiserver.direct import DirectClient
from lateen.cluster.apiserver.http import Server
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.store.objects import Store


class Peer:
    """The end of a connection whose client certificate names somebody."""

    def __init__(self, user, groups):
        subject = [(("commonName", user),), *[(("organizationName", g),) for g in groups]]
        self.certificate = {"subject": subject} if user else None
        self.sent, self.closed = b"", False

    def get_extra_info(self, name, default=None):
        return self.certificate if name == "peercert" else default

    def write(self, data):
        self.sent += bytes(data)

    def writelines(self, parts):
        self.write(b"".join(parts))

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True

    abort = close

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def get_write_buffer_size(self):
        return 0

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


class Cluster:
    """A server with the namespaces default and kube-system and their service accounts."""

    def __init__(self, persist=lambda _: None):
        self.store = Store(persist)
        self.registry = Registry()
        self.tokens = Tokens(b"k" * 32, self.store)
        allocator = strategies.Allocator(self.store, "10.96.0.0/16")
        self.webhooks = Webhooks(self.store, self.registry)
        self.api = Api(self.store, self.registry, self.webhooks, self.tokens, allocator)
        self.access, self._server, self._loop = None, None, None
        asyncio.run(bootstrap.roles(DirectClient(self.api, "kube-apiserver")))
        for name in ("default", "kube-system"):
            self.must("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
            self.must("POST", f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})

    def must(self, method, path, body=None, **more):
        code, answer = self.ask(method, path, body, **more)
        assert code < 300, answer
        return answer

    def ask(self, method, path, body=None, **more):
        """(status code, decoded body) of one request over a connection of its own."""

        async def run():
            try:
                return await self.send(method, path, body, **more)
            finally:
                await self.webhooks.close()  # its connections belong to this event loop

        return asyncio.run(run())

    def connection(self, user="admin", groups=("system:masters",)):
        """A connection's protocol and the end that it writes to."""
        loop = asyncio.get_running_loop() if asyncio._get_running_loop() else None
        if self._server is None or loop is not self._loop:  # its connections belong to an event loop
            self._server, self._loop = Server(self.api, self.access), loop
        return self._server.protocol(), Peer(user, groups)

    async def send(
        self, method, path, body=None, *, user="admin", groups=("system:masters",), headers=None, content="", seconds=10
    ):
        protocol, peer = self.connection(user, groups)
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        kind = content or ("application/merge-patch+json" if method == "PATCH" else "application/json")
        given = {"Host": "x", "Content-Length": str(len(raw)), "Content-Type": kind, "Connection": "close"}
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in (given | (headers or {})).items())]
        protocol.connection_made(peer)
        protocol.data_received("\r\n".join(lines).encode() + b"\r\n\r\n" + raw)
        async with asyncio.timeout(seconds):
            while not peer.closed:
                await asyncio.sleep(0.001)
        protocol.connection_lost(None)
        head, _, rest = peer.sent.partition(b"\r\n\r\n")
        if b"chunked" in head.lower():
            rest = _joined(rest)
        self.head = head.decode()
        code = int(head.split(b" ", 2)[1])
        try:
            return code, json.loads(rest)
        except ValueError:
            return code, rest.decode(errors="replace")


def _joined(raw):
    out = b""
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        length = int(size, 16)
        out, raw = out + raw[:length], raw[length + 2 :]
        if not length:
            break
    return out
