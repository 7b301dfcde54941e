"""By what callers are told apart where each has a limit of its own, in a real Envoy."""

import http.client
import json
import socket
import ssl
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import meshes as mesh
import pytest
from google.protobuf.json_format import MessageToDict

from lateen.kit import certs, times
from lateen.xds import rate_limits

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


def listener(where, port):
    """Lets in clients with a certificate, and answers 200 to what the limit lets through."""
    found = mesh.objects(POLICY).backend_traffic_policies
    limit = MessageToDict(rate_limits.config(tuple(p for _, p in found.items()), rate_limits.ENFORCED))
    limit["@type"] = f"{V3}.filters.http.local_ratelimit.v3.LocalRateLimit"
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
    chain = {
        "filters": [{"name": "manager", "typed_config": manager}],
        "transport_socket": {"name": "tls", "typed_config": tls},
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"address": address, "filter_chains": [chain]}


@pytest.fixture
def envoy(tmp_path):
    """(port, directory of certificates) of an Envoy that limits each caller."""
    ca = certs.authority("ca", times.now())
    (tmp_path / "ca.pem").write_text(ca.certificate)
    for name, san in (
        ("server", "localhost"),
        ("one", "spiffe://x/ns/a/sa/one"),
        ("two", "two.test"),
        ("three", "3.test"),
    ):
        made = certs.issue(ca, [san], times.now(), timedelta(hours=1))
        (tmp_path / f"{name}.pem").write_text(made.certificate + made.key)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    (tmp_path / "envoy.json").write_text(json.dumps({"static_resources": {"listeners": [listener(tmp_path, port)]}}))
    binary = Path(sys.executable).with_name("envoy")
    arguments = ["-c", tmp_path / "envoy.json", "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]
    running = subprocess.Popen([binary, *arguments])
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert running.poll() is None
                time.sleep(0.1)
        yield port, tmp_path
    finally:
        running.terminate()
        running.wait()


@pytest.mark.system
def test_callers_whose_certificates_have_no_identity_are_limited_each_by_its_certificate(envoy):
    port, where = envoy

    def answers(name):
        context = ssl.create_default_context(cafile=str(where / "ca.pem"))
        context.load_cert_chain(where / f"{name}.pem")
        found = []
        for _ in range(3):
            connection = http.client.HTTPSConnection("localhost", port, context=context)
            connection.request("GET", "/")
            found.append(connection.getresponse().status)
            connection.close()
        return found

    for name in ("one", "two", "three"):
        assert answers(name) == [200, 200, 429], name
