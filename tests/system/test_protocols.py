"""Every protocol that applications speak, and every way in which hosts are resolved."""

import json
import socket

import grpc as grpcio
import pytest
from samples import NS, dr, obj, tasks, vs  # noqa: F401 - a fixture of this module

pytestmark = pytest.mark.system

MORE = f"""
apiVersion: v1
kind: Service
metadata: {{name: greeter, namespace: {NS}}}
spec: {{selector: {{app: greeter}}, ports: [{{name: mysql, port: 3306}}, {{name: unnamed, port: 9100}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: socket, namespace: {NS}}}
spec: {{selector: {{app: socket}}, ports: [{{name: http, port: 9200}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: headless, namespace: {NS}}}
spec: {{clusterIP: None, selector: {{app: httpbin}}, ports: [{{name: http, port: 8080}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: headless-tcp, namespace: {NS}}}
spec: {{clusterIP: None, selector: {{app: tcp-echo}}, ports: [{{name: tcp, port: 9000}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: alias, namespace: {NS}}}
spec: {{type: ExternalName, externalName: httpbin.{NS}.svc.cluster.local}}
---
apiVersion: v1
kind: Service
metadata: {{name: guessed, namespace: {NS}}}
spec: {{selector: {{app: httpbin}}, ports: [{{name: web, port: 8001, targetPort: 8080}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: greeter, namespace: {NS}, labels: {{app: greeter}}}}
spec:
  containers:
  - {{name: tcp, image: istio/tcp-echo-server, args: ["3306,9100", hello, --greet], ports: [{{containerPort: 3306}}, {{containerPort: 9100}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: socket, namespace: {NS}, labels: {{app: socket}}}}
spec:
  containers:
  - {{name: tcp, image: istio/tcp-echo-server, args: ["9200", ws, --websocket], ports: [{{containerPort: 9200}}]}}
---
apiVersion: v1
kind: Pod
metadata:
  name: resolver
  namespace: {NS}
  labels: {{app: resolver}}
  annotations:
    proxy.istio.io/config: |
      proxyMetadata: {{ISTIO_META_DNS_CAPTURE: "true"}}
spec:
  containers: [{{name: sleep, image: curlimages/curl, command: [/bin/sleep, infinity]}}]
"""


@pytest.fixture(scope="module")
def more(tasks):
    tasks.mesh.apply(MORE)
    tasks.mesh.kubectl(
        "wait",
        "-n",
        NS,
        "--for=condition=Ready",
        "pod/greeter",
        "pod/socket",
        "pod/resolver",
        "--timeout=60s",
        timeout=90,
    )
    return tasks


def python(tasks, code, app="sleep", container="sleep"):
    name = tasks.mesh.pod(app, NS)
    return tasks.mesh.kubectl(
        "exec", name, "-n", NS, "-c", container, "-i", "--", "python3", "-", stdin=code, ok=False
    ).stdout.strip()


def first_line(host, port, send=""):
    return (
        f"import socket\ns = socket.create_connection(('{host}', {port}), 5)\ns.settimeout(8)\n"
        + (f"s.sendall(b'{send}\\n')\n" if send else "")
        + "print(s.recv(100).decode())"
    )


def test_servers_that_speak_first(more):
    """Also at a port of unknown protocol, where the proxy waits for the client's first bytes for a while."""
    more.until(lambda: python(more, first_line("greeter", 3306)) == "hello ready", what="a greeting")
    assert python(more, first_line("greeter", 9100)) == "hello ready"


def test_websockets_pass_both_sidecars(more):
    code = """
import os, socket
s = socket.create_connection(("socket", 9200), 5); s.settimeout(5)
s.sendall(b"GET /chat HTTP/1.1\\r\\nHost: socket:9200\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
          b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\nSec-WebSocket-Version: 13\\r\\n\\r\\n")
head = b""
while b"\\r\\n\\r\\n" not in head: head += s.recv(1000)
s.sendall(bytes([0x81, 0x85]) + b"\\0\\0\\0\\0" + b"hello")
print(head.split(b" ")[1].decode(), s.recv(100)[2:].decode())
"""
    more.until(lambda: python(more, code) == "101 hello", what="an echo through the upgrade")


def test_a_headless_service_is_called_by_its_endpoints(more):
    more.until(lambda: more.get("headless:8080/get")[0] == 200, what="HTTP")
    assert python(more, first_line("headless-tcp", 9000, "x")).split()[0] in ("one", "two")
    clusters = more.mesh.lateen(
        "pc", "cluster", more.mesh.pod("sleep", NS) + f".{NS}", "--fqdn", f"headless.{NS}.svc.cluster.local"
    ).stdout
    assert "ORIGINAL_DST" in clusters


def test_an_alias_is_its_service(more):
    more.until(lambda: more.get("alias:8000/get")[0] == 200, what="the alias")
    with more.applied(vs("httpbin", "httpbin", "[{directResponse: {status: 418}}]")):
        more.until(lambda: more.get("alias:8000/get")[0] == 418, what="the rule of its service")
        with more.applied(vs("alias", "alias", "[{directResponse: {status: 419}}]")):
            more.until(lambda: more.get("alias:8000/get")[0] == 419, what="a rule of its own")
            assert more.get("httpbin:8000/get")[0] == 418
        more.until(lambda: more.get("alias:8000/get")[0] == 418, what="its service's rule again")
    more.until(lambda: (more.get("alias:8000/get")[0], more.get("httpbin:8000/get")[0]) == (200, 200), what="no rules")


def test_a_rule_leads_to_an_alias_of_a_name_outside_of_the_mesh(more):
    """A pod's name of a headless service: DNS knows it, the mesh has no such host."""
    address = more.mesh.get("pod", more.mesh.pod("httpbin", NS), "-n", NS, "-o", "jsonpath={.status.podIP}")
    outside = f"{address.replace('.', '-')}.headless.{NS}.svc.cluster.local"
    partner = f"""
apiVersion: v1
kind: Service
metadata: {{name: partner, namespace: {NS}}}
spec: {{type: ExternalName, externalName: {outside}, ports: [{{name: http, port: 8080}}]}}
"""
    route = (
        "[{route: [{destination: {host: partner, port: {number: 8080}}}], headers: {response: {set: {x-way: out}}}}]"
    )
    with more.applied(partner), more.applied(vs("partner", "httpbin", route)):
        more.until(lambda: "x-way: out" in more.get("httpbin:8000/get", "-i")[1].lower(), what="the rule's header")
        assert more.get("httpbin:8000/get")[0] == 200
        assert more.get("partner:8080/get")[0] == 200, "called directly, it is passed through"
    more.until(lambda: more.get("httpbin:8000/get")[0] == 200, what="no rules")


def test_a_port_without_a_protocol_is_routed_where_it_speaks_http(more):
    with more.applied(
        vs(
            "guessed",
            "guessed",
            "[{match: [{uri: {prefix: /get}}], directResponse: {status: 418}}, {route: [{destination: {host: guessed}}]}]",
        )
    ):
        more.until(lambda: more.get("guessed:8001/get")[0] == 418, what="the rule")
        assert more.get("guessed:8001/headers")[0] == 200
        # its address is its own, whatever host a request names
        assert more.get("guessed:8001/get", "-H 'Host: elsewhere.test'")[0] == 418


def test_a_pod_calls_itself_and_others_by_address(more):
    name = more.mesh.pod("httpbin", NS)
    own = more.mesh.get("pod", name, "-n", NS, "-o", "jsonpath={.status.podIP}")
    code = f"import urllib.request as u\nprint(u.urlopen('http://{own}:8080/get', timeout=5).status)"
    assert python(more, code, "httpbin", "httpbin") == "200"
    code = (
        "import urllib.request as u\nprint({u.urlopen('http://httpbin:8000/get', timeout=5).status for _ in range(6)})"
    )
    assert python(more, code, "httpbin", "httpbin") == "{200}"
    assert more.get(f"{own}:8080/get")[0] == 200


ENTRY = (
    "{hosts: [db.example.com], location: MESH_INTERNAL, resolution: STATIC,"
    " ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}], workloadSelector: {labels: {app: machine}}}"
)


def test_hosts_without_dns_are_answered_by_the_proxy(more):
    """A host that only a ServiceEntry knows, on a workload that only a WorkloadEntry knows."""
    address = more.mesh.get(
        "pod", "-n", "tasks-outside", "-l", "app=httpbin", "-o", "jsonpath={.items[0].status.podIP}"
    )
    workload = obj("WorkloadEntry", "machine", f"{{address: {address}, labels: {{app: machine}}}}")
    with more.applied(obj("ServiceEntry", "db", ENTRY), workload):
        look = "getent ahostsv4 db.example.com | head -1"
        more.until(lambda: more.sh(look, "resolver").startswith("240.240."), what="an automatic address")
        shown = "{.status.addresses[0].value}"
        more.until(
            lambda: (
                more.sh(look, "resolver").split()[0]
                == more.mesh.get("serviceentry", "db", "-n", NS, "-o", f"jsonpath={shown}")
            ),
            what="the address in the entry's status",
        )
        more.until(
            lambda: more.sh("curl -s -o /dev/null -w '%{http_code}' db.example.com/get", "resolver") == "200",
            what="an answer from the machine",
        )
        # Names of the cluster still come from its own DNS.
        assert more.sh("curl -s -o /dev/null -w '%{http_code}' httpbin:8000/get", "resolver") == "200"
        assert more.sh(look, "sleep") == ""
    more.until(lambda: more.sh(look, "resolver") == "", what="nothing known any more")


LUA = (
    "{workloadSelector: {labels: {app: sleep}}, configPatches: [{applyTo: HTTP_FILTER, match: {context: SIDECAR_OUTBOUND,"
    " listener: {portNumber: 8000}}, patch: {operation: INSERT_FIRST, value: {name: lua, typed_config: {'@type':"
    ' type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua, default_source_code: {inline_string: "%s"}}}}}%s]}'
)
GOOD = "function envoy_on_request(h) h:headers():add('x-patched', 'yes') end"


def patched(more, name):
    found = json.loads(more.mesh.get("envoyfilter", name, "-n", NS, "-o", "json")).get("status") or {}
    return next(((c["reason"], c["message"]) for c in found.get("conditions", []) if c["type"] == "Patched"), ("", ""))


def test_an_envoy_filter_says_what_each_patch_does(more):
    idle = ", {applyTo: CLUSTER, match: {cluster: {service: no.such.host}}, patch: {operation: REMOVE}}"
    with more.applied(obj("EnvoyFilter", "good", LUA % (GOOD, idle), "networking.istio.io/v1alpha3")):
        more.until(lambda: '"X-Patched"' in more.get("httpbin:8000/get")[1], what="the patch")
        applied = "configPatches[0] (HTTP_FILTER): applied to 1 resources on the connected proxies"
        more.until(lambda: applied in patched(more, "good")[1], what="the status")
        reason, says = patched(more, "good")
        assert reason == "NotMatched"
        assert "configPatches[1] (CLUSTER): matches nothing" in says


def test_a_patch_that_envoy_refuses_is_withdrawn_and_named(more):
    """The others stay, the proxy goes on, and other rules still reach it."""
    good = obj("EnvoyFilter", "good", LUA % (GOOD, ""), "networking.istio.io/v1alpha3")
    bad = obj("EnvoyFilter", "bad", LUA % ("this is no program", ""), "networking.istio.io/v1alpha3")
    with more.applied(good):
        more.until(lambda: '"X-Patched"' in more.get("httpbin:8000/get")[1], what="the good patch")
        with more.applied(bad):
            more.until(lambda: patched(more, "bad")[0] == "Rejected", what="the status of the bad one")
            assert "rejected by sleep-" in patched(more, "bad")[1]
            more.until(lambda: patched(more, "good")[0] == "Applied", what="the status of the good one")
            assert '"X-Patched"' in more.get("httpbin:8000/get")[1]
            with more.applied(vs("httpbin", "httpbin", "[{directResponse: {status: 418}}]")):
                more.until(lambda: more.get("httpbin:8000/get")[0] == 418, what="a later rule")
            assert "ERROR" not in more.mesh.lateen("proxy-status").stdout


def test_an_extension_may_come_by_itself_and_a_bootstrap_may_be_patched(more):
    lua = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"
    source = "{config_source: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}, type_urls: ['%s']}" % lua
    spec = (
        "{workloadSelector: {labels: {app: sleep}}, configPatches: ["
        "{applyTo: HTTP_FILTER, match: {context: SIDECAR_OUTBOUND, listener: {portNumber: 8000}}, patch: {operation:"
        " INSERT_FIRST, value: {name: mine, config_discovery: %s}}}, {applyTo: EXTENSION_CONFIG, patch: {operation: ADD,"
        " value: {name: mine, typed_config: {'@type': '%s', default_source_code: {inline_string: \"%s\"}}}}}]}"
    ) % (source, lua, GOOD)
    with more.applied(obj("EnvoyFilter", "extension", spec, "networking.istio.io/v1alpha3")):
        more.until(lambda: '"X-Patched"' in more.get("httpbin:8000/get")[1], what="the extension")
        more.until(lambda: patched(more, "extension")[0] == "Applied", what="the status")
    boot = (
        "{workloadSelector: {labels: {app: booted}}, configPatches: [{applyTo: BOOTSTRAP, patch: {operation: MERGE, value:"
        " {static_resources: {clusters: [{name: from-bootstrap, type: STATIC, connect_timeout: 1s}]}}}}]}"
    )
    pod = f"apiVersion: v1\nkind: Pod\nmetadata: {{name: booted, namespace: {NS}, labels: {{app: booted}}}}\nspec: {{containers: [{{name: sleep, image: lateen/sleep}}]}}"
    with more.applied(obj("EnvoyFilter", "boot", boot, "networking.istio.io/v1alpha3")):
        try:
            more.mesh.apply(pod)
            more.mesh.kubectl("wait", "-n", NS, "--for=condition=Ready", "pod/booted", "--timeout=60s", timeout=90)
            found = more.mesh.kubectl(
                "exec", "booted", "-n", NS, "-c", "istio-proxy", "--", "pilot-agent", "request", "GET", "clusters"
            ).stdout
            assert "from-bootstrap::" in found
            more.until(lambda: "when it starts" in patched(more, "boot")[1], what="the status")
        finally:
            more.mesh.kubectl("delete", "pod", "booted", "-n", NS, "--grace-period=1")


def with_other_lua(old, new):
    return obj("EnvoyFilter", "worse", LUA.replace(old, new) % (GOOD, ""), "networking.istio.io/v1alpha3")


def test_a_value_that_is_none_of_envoys_is_refused_at_apply(more):
    done = more.mesh.apply(with_other_lua("default_source_code: {", "stat_prefix: {"), ok=False)
    assert done.returncode != 0
    assert "spec.configPatches[0].patch.value" in done.stderr
    assert "stat_prefix" in done.stderr


def test_a_field_that_envoy_does_not_know_is_warned_about_as_in_istio(more):
    done = more.mesh.apply(with_other_lua("default_source_code", "no_such_field"))
    more.mesh.kubectl("delete", "envoyfilter", "worse")
    assert 'has no field named "no_such_field"' in done.stderr


def test_a_shadowed_rule_says_so(more):
    first = vs("first", "httpbin", "[{directResponse: {status: 418}}]")
    second = vs("second", "httpbin", "[{directResponse: {status: 419}}]")
    with more.applied(first):
        more.until(lambda: more.get("httpbin:8000/get")[0] == 418, what="the first rule")
        with more.applied(second):

            def says():
                found = (
                    json.loads(more.mesh.get("virtualservice", "second", "-n", NS, "-o", "json")).get("status") or {}
                )
                return next((c for c in found.get("conditions", []) if c["type"] == "Shadowed"), {})

            more.until(lambda: says().get("status") == "True", what="the condition")
            assert f"{NS}/first" in says()["message"]
            assert more.get("httpbin:8000/get")[0] == 418


def test_a_proxy_config_is_what_new_pods_have(more):
    config = obj(
        "ProxyConfig",
        "one",
        "{selector: {matchLabels: {app: one}}, concurrency: 1, environmentVariables: {ISTIO_META_COLOR: red}}",
        "networking.istio.io/v1beta1",
    )
    pod = f"apiVersion: v1\nkind: Pod\nmetadata: {{name: one, namespace: {NS}, labels: {{app: one}}}}\nspec: {{containers: [{{name: sleep, image: lateen/sleep}}]}}"
    with more.applied(config):
        try:
            more.mesh.apply(pod)
            found = json.loads(more.mesh.get("pod", "one", "-n", NS, "-o", "json"))["spec"]["containers"]
            found = next(c for c in found if c["name"] == "istio-proxy")
            settings = next(e["value"] for e in found["env"] if e["name"] == "PROXY_CONFIG")
            assert json.loads(settings)["concurrency"] == 1
            assert {"name": "ISTIO_META_COLOR", "value": "red"} in found["env"]
        finally:
            more.mesh.kubectl("delete", "pod", "one", "-n", NS, "--grace-period=1")


def test_the_tls_of_an_application_passes_through(more):
    """A port of protocol TLS whose server is outside: the name decides."""
    entry = (
        "{hosts: [istiod.istio-system.svc], addresses: [10.250.0.1], location: MESH_EXTERNAL, resolution: DNS, ports: [{number: 443,"
        " name: tls, protocol: TLS}], endpoints: [{address: istiod.istio-system.svc.cluster.local}]}"
    )
    with more.applied(
        obj("ServiceEntry", "through", entry), dr("through", "istiod.istio-system.svc", "{tls: {mode: DISABLE}}")
    ):
        curl = "curl -sk -m 5 -o /dev/null -w '%{http_code}' --connect-to istiod.istio-system.svc:443:10.250.0.1:443 https://istiod.istio-system.svc/inject"
        more.until(lambda: more.sh(curl, ok=False) == "405", what="an answer of the server itself")


MACHINES = f"""
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {{name: machines, namespace: {NS}}}
spec:
  metadata: {{labels: {{app: rack}}}}
  template: {{ports: {{http: 8080}}, serviceAccount: default}}
  probe: {{periodSeconds: 1, failureThreshold: 1, exec: {{command: [test, "!", -f, /etc/istio/proxy/ill]}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: rack, namespace: {NS}}}
spec: {{selector: {{app: rack}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
"""
MACHINE = f"""
apiVersion: v1
kind: Pod
metadata:
  name: machine
  namespace: {NS}
  annotations:
    proxy.istio.io/config: |
      proxyMetadata: {{ISTIO_META_AUTO_REGISTER_GROUP: machines}}
spec:
  containers: [{{name: httpbin, image: mccutchen/go-httpbin, ports: [{{containerPort: 8080}}]}}]
"""


def test_a_machine_joins_is_probed_and_leaves(more, tmp_path):
    """A proxy that names its group is an entry while it is there; no service selects it by itself."""
    mesh = more.mesh
    mesh.apply(MACHINES)
    try:
        done = mesh.lateen(
            "x", "workload", "entry", "configure", "--name", "machines", "-n", NS, "-o", str(tmp_path / "vm")
        )
        assert "written" in done.stdout + done.stderr
        assert "ISTIO_META_AUTO_REGISTER_GROUP=machines" in (tmp_path / "vm" / "cluster.env").read_text()
        assert (tmp_path / "vm" / "istio-token").stat().st_mode & 0o077 == 0
        assert more.get("rack/get")[0] == 503
        mesh.apply(MACHINE)
        more.until(lambda: more.get("rack/get")[0] == 200, what="the machine's answer")
        entry = mesh.get("workloadentry", "-n", NS, "-o", "jsonpath={.items[0].metadata.name}").strip()
        assert entry.startswith("machines-10-")
        sick = ("exec", "machine", "-n", NS, "-c", "istio-proxy", "--")
        mesh.kubectl(*sick, "touch", "/etc/istio/proxy/ill")
        more.until(lambda: more.get("rack/get")[0] == 503, what="no requests for an unhealthy one")
        health = '{.status.conditions[?(@.type=="Healthy")].status}'
        assert mesh.get("workloadentry", entry, "-n", NS, "-o", f"jsonpath={health}") == "False"
        mesh.kubectl(*sick, "rm", "/etc/istio/proxy/ill")
        more.until(lambda: more.get("rack/get")[0] == 200, what="requests again")
        mesh.kubectl("delete", "pod", "machine", "-n", NS)
        more.until(lambda: not mesh.get("workloadentry", "-n", NS, "-o", "name").strip(), 30, "the end of the entry")
    finally:
        mesh.kubectl("delete", "pod", "machine", "-n", NS, "--ignore-not-found")
        mesh.kubectl("delete", "-f", "-", "--ignore-not-found", stdin=MACHINES)


def test_a_gateway_takes_connections_websockets_and_grpc(more):
    """TCP by its port, WebSocket as an upgrade, gRPC over HTTP/2 in plain text."""
    mesh = more.mesh
    grpc = f"""
apiVersion: v1
kind: Service
metadata: {{name: grpc-echo, namespace: {NS}}}
spec: {{selector: {{app: grpc-echo}}, ports: [{{name: grpc, port: 7070}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: grpc-echo, namespace: {NS}, labels: {{app: grpc-echo}}}}
spec: {{containers: [{{name: echo, image: lateen/grpc-echo, ports: [{{containerPort: 7070}}]}}]}}
"""
    mesh.apply(grpc)
    servers = (
        "{port: {number: 31400, name: tcp, protocol: TCP}, hosts: ['*']},"
        " {port: {number: 80, name: http, protocol: HTTP}, hosts: [socket.example.com, grpc.example.com]}"
    )
    gateway = obj("Gateway", "all", f"{{selector: {{istio: ingressgateway}}, servers: [{servers}]}}")
    tcp = obj(
        "VirtualService", "tcp-in",
        "{hosts: ['*'], gateways: [all], tcp: [{match: [{port: 31400}], route: [{destination: {host: tcp-echo, port: {number: 9000}}}]}]}",
    )  # fmt: skip
    rules = [
        vs(
            "socket-in",
            "socket.example.com",
            "[{route: [{destination: {host: socket, port: {number: 9200}}}]}]",
            "[all]",
        ),
        vs(
            "grpc-in",
            "grpc.example.com",
            "[{route: [{destination: {host: grpc-echo, port: {number: 7070}}}]}]",
            "[all]",
        ),
    ]
    try:
        mesh.kubectl("wait", "-n", NS, "--for=condition=Ready", "pod/grpc-echo", "--timeout=60s", timeout=90)
        with more.applied(gateway, tcp, *rules):

            def connection():
                try:
                    with socket.create_connection(("127.0.0.1", mesh.host_port(31400)), 5) as s:
                        s.sendall(b"x\n")
                        return s.recv(20).decode().split()[:1]
                except OSError:
                    return []

            more.until(lambda: connection() in (["one"], ["two"]), what="a connection")

            def upgraded():
                with socket.create_connection(("127.0.0.1", mesh.host_port(80)), 5) as s:
                    s.sendall(
                        b"GET /chat HTTP/1.1\r\nHost: socket.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
                    )
                    return s.recv(1000).split(b" ")[1]

            more.until(lambda: upgraded() == b"101", what="the upgrade")
            with grpcio.insecure_channel(
                f"127.0.0.1:{mesh.host_port(80)}", options=[("grpc.default_authority", "grpc.example.com")]
            ) as channel:
                say = channel.unary_unary("/echo.Echo/Say")
                more.until(lambda: _said(say).startswith(b"hello from "), what="gRPC")
    finally:
        mesh.kubectl("delete", "-f", "-", "--ignore-not-found", "--grace-period=1", stdin=grpc)


def _said(say):
    try:
        return say(b"hello", timeout=5)
    except grpcio.RpcError:
        return b""
