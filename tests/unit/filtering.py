"""A real Envoy with filters for requests."""

import contextlib
import http.client
import json
import socket
import subprocess
import time

from google.protobuf import json_format

from lateen.agent.statistics import runtime
from lateen.cluster.kubelet.images import envoy_binary
from lateen.xds import pb

KINDS = "type.googleapis.com/envoy.extensions.filters"
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
HTTP2 = {
    "typed_extension_protocol_options": {
        _HTTP: {
            "@type": f"type.googleapis.com/{_HTTP}",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
}


@contextlib.contextmanager
def behind(directory, filters, seen=()):
    """Asks a server behind filters (messages): method, path, headers -> status, and those headers of ``seen`` that the
    server sees."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    added = [{"header": {"key": f"seen-{name}", "value": f"%REQ({name})%"}} for name in seen]
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200}, "response_headers_to_add": added}
    manager = {
        "@type": f"{KINDS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            *({"name": f.DESCRIPTOR.name, "typed_config": json_format.MessageToDict(pb.any_of(f))} for f in filters),
            {"name": "router", "typed_config": {"@type": f"{KINDS}.http.router.v3.Router"}},
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    static = {
        "listeners": [{"name": "in", "address": address, "filter_chains": [chain]}],
        "clusters": [{"name": name, "type": "STATIC", **HTTP2} for name in ("BlackHoleCluster", "xds-grpc")],
    }
    bootstrap = {
        "node": {"id": "test", "cluster": "test"},
        "static_resources": static,
        "layered_runtime": {"layers": [{"name": "static", "static_layer": runtime({})}]},
    }
    path, log = directory / "envoy.json", directory / "log"
    path.write_text(json.dumps(bootstrap))
    command = [envoy_binary(), "-c", str(path), "--use-dynamic-base-id", "--concurrency", "1"]

    def ask(method="GET", path="/", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        found = {name: answer.headers.get(f"seen-{name}") for name in seen}
        return answer.status, {name: value for name, value in found.items() if value not in (None, "-")}

    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            while not _listens(port):
                assert process.poll() is None, log.read_text()[-2000:]
                time.sleep(0.02)
            yield ask
        finally:
            process.terminate()
            process.wait(10)


def _listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except ConnectionRefusedError:
        return False
    return True
