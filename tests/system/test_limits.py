"""What clients that never finish may take of the API server: a bounded amount of memory, for a bounded time."""

import base64
import contextlib
import json
import socket
import ssl
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.system

CONNECTIONS, BODIES, WATCHES = 400, 60, 100
GROWTH = 150 * 1024 * 1024
"""Of which 16 MB of history as JSON are half; without bounds it would be several GB."""


class Server:
    """The API server as a client's sockets meet it, and its process."""

    def __init__(self, mesh, tmp):
        config = yaml.safe_load((mesh.home / "kubeconfig").read_text())  # noqa: TID251 - our own file
        self.port = int(config["clusters"][0]["cluster"]["server"].rpartition(":")[2])
        user = config["users"][0]["user"]
        self.context = ssl.create_default_context()
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        for name in ("client-certificate-data", "client-key-data"):
            (tmp / name).write_bytes(base64.b64decode(user[name]))
        self.context.load_cert_chain(tmp / "client-certificate-data", tmp / "client-key-data")
        self.pid = self._daemon(str(mesh.home))

    @staticmethod
    def _daemon(home):
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (process / "cmdline").read_bytes()
                if (
                    b"lateen.cluster.node" in command
                    and f"LATEEN_HOME={home}\0".encode() in (process / "environ").read_bytes() + b"\0"
                ):
                    return process
        raise AssertionError("there is no node daemon")

    def memory(self):
        """Resident bytes of the node daemon."""
        line = next(x for x in (self.pid / "status").read_text().splitlines() if x.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    def open(self, stack, data=None):
        """A connection that has sent this much; without TLS where it is None."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        found = stack.enter_context(plain if data is None else self.context.wrap_socket(plain))
        if data:
            found.sendall(data)
        return found


def is_closed(connection):
    """Whether the server has hung up; what it has sent before is dropped."""
    connection.setblocking(False)
    with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
        try:
            while connection.recv(1 << 20):
                pass
        except (ConnectionError, ssl.SSLError) as e:
            return not isinstance(e, ssl.SSLWantReadError)
        return True
    return False


def head(method, path, *more):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *more]).encode()


def test_clients_that_never_finish_are_closed_and_take_little_memory(mesh, tmp_path):
    server = Server(mesh, tmp_path)
    path = "/api/v1/namespaces/default/configmaps"
    large = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large"}, "data": {"a": "x" * 400_000}}
    file = tmp_path / "large.json"
    mesh.get("configmaps")
    before = server.memory()
    try:
        with contextlib.ExitStack() as stack:
            half = [server.open(stack, None if i % 2 else head("GET", path)) for i in range(CONNECTIONS)]
            body = head("POST", path, "Content-Type: application/json", "Content-Length: 1000000") + b"\r\n\r\n"
            bodies = [server.open(stack, body + b" " * 300_000) for _ in range(BODIES)]
            watch = head("GET", f"{path}?watch=1") + b"\r\n\r\n"
            watches = [server.open(stack, watch) for _ in range(WATCHES)]
            for i in range(30):
                large["data"]["i"] = str(i)
                file.write_text(json.dumps(large))
                mesh.kubectl("replace" if i else "create", "-f", str(file))
            assert server.memory() - before < GROWTH
            for name, connections in (("half-open", half), ("half-sent", bodies)):
                mesh.until(lambda c=connections: all(map(is_closed, c)), limit_s=90, what=f"the end of {name} requests")
            assert "large" in mesh.get("configmaps", "large")
            # Reading them would let them go on; a connection that is closed has nothing left for the kernel to take.
            mesh.until(lambda: all(map(is_reset, watches)), limit_s=90, what="the end of watches that nobody reads")
            assert server.memory() - before < GROWTH
        assert "large" in mesh.get("configmaps", "large")
    finally:
        mesh.kubectl("delete", "configmap", "large", "--ignore-not-found")


def is_reset(connection):
    """Whether the server has hung up, without reading."""
    with socket.socket(fileno=socket.dup(connection.fileno())) as same:
        info = same.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return info[0] != 1  # TCP_ESTABLISHED
