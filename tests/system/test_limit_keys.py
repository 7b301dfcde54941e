"""By what callers are told apart where each has a limit of its own, in a real Envoy."""

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import grpc
import meshes as mesh
import pytest
from envoy.service.rate_limit_quota.v3 import rlqs_pb2
from google.protobuf.json_format import MessageToDict

from lateen.kit import certs, times
from lateen.wire.quotas import METHOD, NOBODY
from lateen.xds import pb, quotas, rate_limits

pytestmark = pytest.mark.system

POLICY = """
kind: BackendTrafficPolicy
metadata: {name: p}
spec:
  targetRefs: [{group: "", kind: Service, name: productpage}]
  rateLimit:
    local:
      rules:
      - clientSelectors: [{headers: [{name: "@source.principal", type: Distinct}]}]
        limit: {requests: 2, unit: Hour}
"""
V3 = "type.googleapis.com/envoy.extensions"


def limits(shared):
    """The filter of the policy, or of one with the same limit of all proxies together."""
    text = POLICY.replace("local:", "global:") if shared else POLICY
    found = tuple(p for _, p in mesh.objects(text).backend_traffic_policies.items())
    made = quotas.at_port(found, 0) if shared else rate_limits.config(found, rate_limits.ENFORCED)
    return MessageToDict(pb.any_of(made))


def listener(where, port, limit, secure=True):
    """Lets in clients with a certificate, and answers 200 to what the limit lets through."""
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    manager = {
        "@type": f"{V3}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "test",
        "http_filters": [
            {"name": "limit", "typed_config": limit},
            {"name": "router", "typed_config": {"@type": f"{V3}.filters.http.router.v3.Router"}},
        ],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [answer]}]},
    }
    pair = {
        "certificate_chain": {"filename": f"{where}/server.pem"},
        "private_key": {"filename": f"{where}/server.pem"},
    }
    tls = {
        "@type": f"{V3}.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificates": [pair],
            "validation_context": {"trusted_ca": {"filename": f"{where}/ca.pem"}},
        },
    }
    chain = {"filters": [{"name": "manager", "typed_config": manager}]}
    if secure:
        chain["transport_socket"] = {"name": "tls", "typed_config": tls}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"address": address, "filter_chains": [chain]}


def cluster(port):
    """istiod's, which answers at a port."""
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {"@type": f"type.googleapis.com/{kind}", "explicit_http_config": {"http2_protocol_options": {}}}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    assigned = {"cluster_name": "x", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}
    return {
        "name": quotas.CLUSTER,
        "type": "STATIC",
        "load_assignment": assigned,
        "typed_extension_protocol_options": {kind: http2},
    }


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def certificates(directory):
    ca = certs.authority("ca", times.now())
    (directory / "ca.pem").write_text(ca.certificate)
    for name, san in (
        ("server", "localhost"),
        ("one", "spiffe://x/ns/a/sa/one"),
        ("two", "two.test"),
        ("three", "3.test"),
    ):
        made = certs.issue(ca, [san], times.now(), timedelta(hours=1))
        (directory / f"{name}.pem").write_text(made.certificate + made.key)


@contextlib.contextmanager
def running_envoy(directory, port, listeners, clusters=()):
    """``port``: one of its listeners'."""
    config = {"node": {"id": "a", "cluster": "a"}, "static_resources": {"listeners": listeners, "clusters": clusters}}
    (directory / "envoy.json").write_text(json.dumps(config))
    binary = Path(sys.executable).with_name("envoy")
    arguments = ["-c", directory / "envoy.json", "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]
    running = subprocess.Popen([binary, *arguments])
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert running.poll() is None
                time.sleep(0.1)
        yield
    finally:
        running.terminate()
        running.wait()


def answer(port, where, name):
    """To the holder of a certificate; without one, in plain text."""
    connection = http.client.HTTPConnection("localhost", port)
    if name:
        context = ssl.create_default_context(cafile=str(where / "ca.pem"))
        context.load_cert_chain(where / f"{name}.pem")
        connection = http.client.HTTPSConnection("localhost", port, context=context)
    connection.request("GET", "/")
    found = connection.getresponse().status
    connection.close()
    return found


def test_callers_whose_certificates_have_no_identity_are_limited_each_by_its_certificate(tmp_path):
    certificates(tmp_path)
    port = free_port()
    with running_envoy(tmp_path, port, [listener(tmp_path, port, limits(shared=False))]):
        for name in ("one", "two", "three"):
            assert [answer(port, tmp_path, name) for _ in range(3)] == [200, 200, 429], name


class Quotas:
    """A rate limit quota service that counts the requests that are reported to it, by caller."""

    def __init__(self):
        self.counted = Counter()

    def __enter__(self):
        def reported(calls, _):
            for call in calls:
                for usage in call.bucket_quota_usages:
                    self.counted[usage.bucket_id.bucket["value"]] += usage.num_requests_allowed
                yield from ()

        each = grpc.stream_stream_rpc_method_handler(
            reported,
            request_deserializer=rlqs_pb2.RateLimitQuotaUsageReports.FromString,
            response_serializer=rlqs_pb2.RateLimitQuotaResponse.SerializeToString,
        )
        service, _, method = METHOD.strip("/").rpartition("/")
        self._server = grpc.server(ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: each})])
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(0)


def test_limits_of_all_proxies_together_know_callers_by_their_identities_and_all_others_as_one(tmp_path):
    """Also those in plain text, which have no certificate to look into."""
    certificates(tmp_path)
    port, plain = free_port(), free_port()
    limit = limits(shared=True)
    listeners = [listener(tmp_path, port, limit), listener(tmp_path, plain, limit, secure=False)]
    with Quotas() as found, running_envoy(tmp_path, port, listeners, [cluster(found.port)]):
        for at, name in ((port, "one"), (plain, ""), (port, "two")):
            assert answer(at, tmp_path, name) == 200
        wanted = {"spiffe://x/ns/a/sa/one": 1, NOBODY: 2}
        end = time.monotonic() + 20
        while found.counted != wanted and time.monotonic() < end:
            time.sleep(0.05)
        assert found.counted == wanted
