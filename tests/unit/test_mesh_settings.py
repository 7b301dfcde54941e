"""Settings of the mesh configuration for all proxies."""

import asyncio
import json
import socket as socket_of
from dataclasses import replace

import judge
import meshes as mesh
import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.clusters.dynamic_forward_proxy.v3 import cluster_pb2 as forward_cluster_pb2
from envoy.extensions.filters.http.dynamic_forward_proxy.v3 import dynamic_forward_proxy_pb2 as forward_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2 as upstream

from lateen.agent import bootstrap, options, statistics
from lateen.analysis.rules.mesh import http_proxies
from lateen.analysis.snapshot import Snapshot, Source
from lateen.api import kinds, proxy_ports
from lateen.api import networking as n
from lateen.api.mesh.reading import mesh_config, proxy_config_problems
from lateen.api.validate.envoy_filter import proxy_config
from lateen.kit import certs, times, yamldoc
from lateen.mesh.configuration import settings
from lateen.wire import names, ports
from lateen.xds.pools import HTTP_OPTIONS

OUTSIDE = """
kind: ServiceEntry
metadata: {name: out}
spec:
  hosts: [out.test]
  ports: [{number: 443, name: http, protocol: HTTP}]
  resolution: DNS
---
kind: DestinationRule
metadata: {name: out}
spec: {host: out.test, trafficPolicy: {tls: TLS}}
"""


def made(text, *documents, name="productpage-v1", agent=mesh.AGENT):
    found = mesh.objects("---".join(documents), config=settings(mesh_config(text), "istio-system"))
    return judge.messages(mesh.view(found, name, "default" if name != "ingress" else "istio-system", agent))


def socket(cluster):
    found = judge.tls_pb2.UpstreamTlsContext()
    cluster.transport_socket.typed_config.Unpack(found)
    return found.common_tls_context


@pytest.mark.parametrize(
    ("text", "tls", "verified"),
    [
        ("{}", "{mode: SIMPLE}", True),
        ("verifyCertificateAtClient: true", "{mode: SIMPLE}", True),
        ("verifyCertificateAtClient: false", "{mode: SIMPLE}", False),
        ("verifyCertificateAtClient: false", "{mode: MUTUAL, clientCertificate: /c, privateKey: /k}", False),
        ("verifyCertificateAtClient: false", "{mode: SIMPLE, caCertificates: /ca}", True),
        ("verifyCertificateAtClient: false", "{mode: SIMPLE, caCertificates: system}", True),
        ("verifyCertificateAtClient: true", "{mode: SIMPLE, insecureSkipVerify: true}", False),
    ],
)
def test_servers_of_rules_without_authorities_are_verified_unless_the_mesh_says_otherwise(text, tls, verified):
    found = made(text, OUTSIDE.replace("TLS}", f"{tls}}}"))[names.CDS]["outbound|443||out.test"]
    assert socket(found).HasField("combined_validation_context") == verified


def test_without_automatic_mutual_tls_only_a_rule_asks_for_it():
    reviews, ratings = (f"outbound|9080||{n}.default.svc.cluster.local" for n in ("reviews", "ratings"))
    policy = "{tls: {mode: ISTIO_MUTUAL}}"
    rule = f"kind: DestinationRule\nmetadata: {{name: r}}\nspec: {{host: ratings, trafficPolicy: {policy}}}\n"
    found = made("enableAutoMtls: false", rule)[names.CDS]
    assert not found[reviews].HasField("transport_socket")
    assert not found[reviews].transport_socket_matches
    assert found[ratings].HasField("transport_socket")
    assert made("{}", rule)[names.CDS][reviews].HasField("transport_socket")
    at_gateway = made("enableAutoMtls: false", rule, mesh.FRONT, name="ingress")[names.CDS]
    assert not at_gateway[reviews].HasField("transport_socket")


def test_applications_find_an_http_proxy_at_the_port_that_the_mesh_has_for_it():
    found = made("proxyHttpPort: 15007", OUTSIDE.replace("TLS}", "{mode: SIMPLE}}"))
    listener = found[names.LDS]["127.0.0.1_15007"]
    assert not listener.HasField("bind_to_port") or listener.bind_to_port.value
    to = {d: h.routes[0].route.cluster for h in judge.routes(found, "http_proxy").virtual_hosts for d in h.domains}
    assert to["reviews:9080"] == "outbound|9080||reviews.default.svc.cluster.local"
    assert to["out.test:443"] == "outbound|443||out.test"
    assert "127.0.0.1_15007" not in made("{}")[names.LDS]
    for port, wanted in (("15008", "127.0.0.1_15008"), ("0", None), ("15001", "127.0.0.1_15007")):
        of_proxy = made("proxyHttpPort: 15007", agent=mesh.AGENT | {"HTTP_PROXY_PORT": port})[names.LDS]
        assert [n for n in of_proxy if n.startswith("127.")] == [n for n in (wanted,) if n]
    assert "127.0.0.1_15007" not in made("proxyHttpPort: 15007", mesh.FRONT, name="ingress")[names.LDS]


@pytest.mark.parametrize(("more", "logged"), [("", True), ("disableEnvoyListenerLog: true", False)])
def test_connections_that_nothing_takes_are_logged_unless_the_mesh_says_otherwise(more, logged):
    text = "accessLogFile: /dev/stdout\n" + more
    assert bool(made(text)[names.LDS][names.VIRTUAL_INBOUND].access_log) == logged
    assert bool(made(text, mesh.FRONT, name="ingress")[names.LDS]["0.0.0.0_8080"].access_log) == logged


@pytest.mark.parametrize("port", [80000, -1, *sorted(proxy_ports.OWN)])
def test_a_port_that_cannot_be_bound_is_refused(port):
    with pytest.raises(ValueError, match="proxyHttpPort"):
        mesh_config(f"proxyHttpPort: {port}")


@pytest.mark.parametrize(
    ("port", "says"),
    [
        ("15001", "the proxy itself listens at 15001"),
        ("65536", "must be in the range"),
        ("-1", "is not the number of a port"),
        ("any", "is not the number of a port"),
        ("0", None),
        ("15007", None),
        ("", None),
    ],
)
def test_a_workloads_own_port_of_the_http_proxy_is_refused_if_it_cannot_be_bound(port, says):
    """In the mesh's defaultConfig, in the annotation of a pod, and in a ProxyConfig."""
    variables = {proxy_ports.VARIABLE: port}
    found = [str(p) for p in proxy_config_problems({"proxyMetadata": variables})]
    found += [f.says for f in proxy_config(n.ProxyConfig(environment_variables=variables), {})]
    assert len(found) == (2 if says else 0)
    assert all(says in text for text in found)


def test_the_ports_of_the_proxy_are_those_where_it_listens():
    named = (ports.ADMIN, ports.OUTBOUND, ports.INBOUND, ports.DNS, *ports.EXCLUDED_INBOUND)
    assert frozenset(named) == proxy_ports.OWN


SERVED = """
kind: ServiceEntry
metadata: {name: served}
spec:
  hosts: [served.test]
  ports: [{number: 15007, name: tcp, protocol: TCP}, {number: 15008, name: other, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 10.9.9.9}]
"""
LISTENER = """
kind: Sidecar
metadata: {name: s}
spec: {egress: [{port: {number: 15007, protocol: TCP, name: tcp}, %s, hosts: ["./*"]}, {hosts: ["./*"]}]}
"""


@pytest.mark.parametrize("documents", [[SERVED], [SERVED, LISTENER % "captureMode: NONE"]], ids=["service", "Sidecar"])
@pytest.mark.parametrize("port", [0, 15007])
def test_where_nothing_is_redirected_the_http_proxy_has_its_port(documents, port):
    """And no listener of a service takes it away."""
    view = mesh.view(
        mesh.objects("---".join(documents), config=settings(mesh_config(f"proxyHttpPort: {port}"), "istio-system")),
        agent=mesh.AGENT | {"INTERCEPTION_MODE": "NONE"},
    )
    bound = [(b.port, b.own == "http_proxy") for b in view.outbound.binds if b.port in (15007, 15008)]
    assert sorted(bound) == [(15007, bool(port)), (15008, False)]


@pytest.mark.parametrize(
    ("place", "port", "told"),
    [("captureMode: NONE", 15007, True), ("bind: 127.0.0.1", 15007, True), ("bind: 127.0.0.2", 15007, False),
     ("captureMode: DEFAULT", 15007, False), ("captureMode: NONE", 15008, False)],
)  # fmt: skip
def test_a_sidecar_is_told_of_a_listener_where_the_mesh_has_its_http_proxy(place, port, told):
    sidecar = {"apiVersion": "networking.istio.io/v1", **yamldoc.load(LISTENER % place)}
    snapshot = Snapshot([Source(sidecar)], {"proxyHttpPort": port})
    assert [m.kind.code for m in http_proxies(snapshot)] == (["LAT0109"] if told else [])


CA = certs.authority("outside", times.now()).certificate
RULE = OUTSIDE.replace("TLS}", "{mode: SIMPLE, credentialName: 'configmap://%s'}}")


@pytest.mark.parametrize(
    ("named", "selected", "given"),
    [("default/ca", True, True), ("ca", True, True), ("default/none", True, False), ("default/ca", False, False)],
)
def test_a_rule_may_name_a_config_map_with_the_authorities_of_its_servers(named, selected, given):
    """As with Secrets, for gateways and for the workloads that the rule selects."""
    rule = RULE % named
    if selected:
        rule = rule.replace("spec: {host:", "spec: {workloadSelector: {matchLabels: {app: productpage}}, host:")
    found = mesh.objects(rule, config=settings(mesh_config("{}"), "istio-system"))
    found = found.put(kinds.CONFIG_MAP, ("default", "ca"), CA)
    for name, space, wanted in (("productpage-v1", "default", given), ("reviews-v1", "default", False)):
        made = judge.messages(mesh.view(found, name, space))
        held = [s.validation_context.trusted_ca.inline_bytes for s in made[names.SDS].values()]
        assert held == ([CA.encode()] if wanted else [])
        context = socket(made[names.CDS]["outbound|443||out.test"]).combined_validation_context
        source = context.validation_context_sds_secret_config.name
        assert (source in made[names.SDS]) == wanted
    at_gateway = judge.messages(mesh.view(found, "ingress", "istio-system"))
    assert bool(at_gateway[names.SDS]) == (not selected and named == "default/ca")


ROUTED = """
kind: Gateway
metadata: {name: web, namespace: istio-system}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
kind: VirtualService
metadata: {name: web, namespace: istio-system}
spec:
  hosts: ["*"]
  gateways: [web]
  http:
  - {match: [{uri: {prefix: /a}}], route: [{destination: {host: aa.test}}]}
  - {route: [{destination: {host: bb.test}}]}
"""


@pytest.mark.parametrize("there", [("aa", "bb"), ("aa",), ("bb",)])
@pytest.mark.parametrize("level", ["{tls: %s}", "{portLevelSettings: [{port: {number: 443}, tls: %s}]}"])
def test_a_config_map_of_one_namespace_says_nothing_about_servers_of_another(there, level):
    """Both rules name their ConfigMap ``ca``, each that of its own namespace."""
    tls = level % "{mode: SIMPLE, credentialName: 'configmap://ca'}"
    text = OUTSIDE.replace("{tls: TLS}", tls).replace("metadata: {", "metadata: {namespace: SPACE, ")
    outside = [text.replace("SPACE", space).replace("out.test", f"{space}.test") for space in ("aa", "bb")]
    found = mesh.objects("---".join([*outside, ROUTED]), config=settings(mesh_config("{}"), "istio-system"))
    authorities = {space: certs.authority(space, times.now()).certificate for space in there}
    for space, ca in authorities.items():
        found = found.put(kinds.CONFIG_MAP, (space, "ca"), ca)
    made = judge.messages(mesh.view(found, "ingress", "istio-system"))
    for space in ("aa", "bb"):
        context = socket(made[names.CDS][f"outbound|443||{space}.test"]).combined_validation_context
        secret = made[names.SDS].get(context.validation_context_sds_secret_config.name)
        ca = secret.validation_context.trusted_ca.inline_bytes.decode() if secret else None
        assert ca == authorities.get(space)


RESOLVED = "outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS%s}"
DYNAMIC = "envoy.filters.http.dynamic_forward_proxy"


def manager(chain):
    found = judge.http_connection_manager_pb2.HttpConnectionManager()
    chain.filters[-1].typed_config.Unpack(found)
    return found


def test_requests_to_unknown_hosts_go_where_the_proxy_resolves_them_to():
    found = made(RESOLVED % "")
    rest = next(h for h in judge.routes(found, "9080").virtual_hosts if list(h.domains) == ["*"])
    assert rest.routes[0].route.cluster == names.DYNAMIC
    assert DYNAMIC in rest.routes[0].typed_per_filter_config
    cluster = found[names.CDS][names.DYNAMIC]
    assert cluster.cluster_type.name == "envoy.clusters.dynamic_forward_proxy"
    protocols = upstream.HttpProtocolOptions()
    assert cluster.typed_extension_protocol_options[HTTP_OPTIONS].Unpack(protocols)
    assert protocols.use_downstream_protocol_config.HasField("http2_protocol_options"), "gRPC needs its trailers"
    assert not cluster.HasField("transport_socket")
    listener = found[names.LDS]["0.0.0.0_9080"]
    assert DYNAMIC in [f.name for f in manager(listener.filter_chains[0]).http_filters]
    to = listener.default_filter_chain.filters[-1].typed_config.value
    assert names.PASSTHROUGH.encode() in to, "connections keep their destination"
    known = next(h for h in judge.routes(found, "9080").virtual_hosts if "reviews" in h.domains)
    assert known.routes[0].route.cluster == "outbound|9080||reviews.default.svc.cluster.local"


@pytest.mark.parametrize("text", ["{}", "outboundTrafficPolicy: {mode: ALLOW_ANY}"])
def test_otherwise_they_keep_the_address_that_they_were_sent_to(text):
    found = made(text)
    rest = next(h for h in judge.routes(found, "9080").virtual_hosts if list(h.domains) == ["*"])
    assert rest.routes[0].route.cluster == names.PASSTHROUGH
    assert names.DYNAMIC not in found[names.CDS]


def test_requests_to_unknown_hosts_may_begin_tls():
    tls = ", tls: {mode: MUTUAL, clientCertificate: /c/cert, privateKey: /c/key, caCertificates: /c/ca}"
    found = made(RESOLVED % tls)
    context = socket(found[names.CDS][names.DYNAMIC])
    assert context.tls_certificate_sds_secret_configs[0].name in found[names.SDS]
    assert context.combined_validation_context.validation_context_sds_secret_config.name in found[names.SDS]


def test_a_sidecar_or_a_gateway_resolves_no_unknown_hosts_if_it_has_a_policy_of_its_own():
    closed = "kind: Sidecar\nmetadata: {name: s}\nspec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}\n"
    found = made(RESOLVED % "", closed)
    rest = next(h for h in judge.routes(found, "9080").virtual_hosts if list(h.domains) == ["*"])
    assert rest.routes[0].direct_response.status == 502
    assert names.DYNAMIC not in found[names.CDS]
    assert names.DYNAMIC not in made(RESOLVED % "", mesh.FRONT, name="ingress")[names.CDS]


@pytest.mark.parametrize(("addresses", "family"), [("10.0.0.1,fd00::2", "V4_PREFERRED"), ("fd00::2", "V6_ONLY")])
def test_unknown_hosts_are_looked_up_for_addresses_that_the_proxy_reaches(addresses, family):
    """One family for cluster and filters, which share a cache: Envoy rejects what differs."""
    found = made(RESOLVED % "", agent=mesh.AGENT | {"INSTANCE_IPS": addresses})
    cluster, filters = forward_cluster_pb2.ClusterConfig(), []
    found[names.CDS][names.DYNAMIC].cluster_type.typed_config.Unpack(cluster)
    for f in manager(found[names.LDS]["0.0.0.0_9080"].filter_chains[0]).http_filters:
        config = forward_pb2.FilterConfig()
        filters += [config] if f.typed_config.Unpack(config) else []
    (config,) = filters
    assert config.dns_cache_config == cluster.dns_cache_config
    assert cluster_pb2.Cluster.DnsLookupFamily.Name(config.dns_cache_config.dns_lookup_family) == family


def test_real_envoy_resolves_unknown_hosts(tmp_path):
    config = settings(mesh_config(RESOLVED % ", tls: {mode: SIMPLE}"), "istio-system")
    judge.validate(mesh.view(mesh.objects(config=config)), tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("fileFlushInterval", "1ms", True),
        ("fileFlushInterval", "0s", False),
        ("fileFlushInterval", "0.0001s", False),
        ("fileFlushInterval", "-1s", False),
        ("fileFlushInterval", "1200h", False),
        ("fileFlushMinSizeKb", 0, True),
        ("fileFlushMinSizeKb", -1, False),
        ("fileFlushMinSizeKb", 1 << 22, False),
    ],
)
def test_how_often_files_are_written_is_something_that_envoy_can_do(name, value, taken):
    found = proxy_config_problems({name: value})
    assert ([f for f in found if name in str(f)] == []) == taken


# --- what the agent makes of a proxy's configuration ------------------------------------------------------------


def agent(monkeypatch, **config):
    assert proxy_config_problems(config) == []
    monkeypatch.setenv("PROXY_CONFIG", json.dumps(config))
    return options.read(["sidecar"], None)[0]


def started(o):
    more = {"statistics": o.statistics, "runtime": o.runtime, "most_connections": o.most_connections}
    return bootstrap.bootstrap(bootstrap.Proxy(o.node, {}, "c", "istiod", **more))


def limit(found):
    (monitor,) = found["overload_manager"]["resource_monitors"]
    return monitor["typed_config"]["max_active_downstream_connections"]


def test_a_proxy_has_at_most_the_connections_that_its_configuration_says(monkeypatch):
    assert limit(started(agent(monkeypatch))) == statistics.MOST_CONNECTIONS
    asked = {"connectionSettings": {"globalDownstreamConnectionLimit": 77}}
    assert limit(started(agent(monkeypatch, **asked))) == 77
    assert limit(started(agent(monkeypatch, **asked, runtimeValues={statistics.CONNECTIONS: "5"}))) == 5


ANSWERS = {"four.test": ["192.0.2.1"], "six.test": ["2001:db8::1"], "both.test": ["2001:db8::1", "192.0.2.1"]}


def sink(monkeypatch, server, own=("10.0.0.1",), after=0):
    """The address in Envoy's sink, None without one, and what was looked up; DNS answers after so many failures."""
    asked = []

    def look_up(host, port, *kind):
        asked.append(host)
        known = ANSWERS.get(host, [] if "." in host else [host])
        if len(asked) <= after or not known:
            raise OSError("no such host")
        return [
            (socket_of.AF_INET6 if ":" in a else socket_of.AF_INET, socket_of.SOCK_DGRAM, 17, "", (a, port))
            for a in known
        ]

    monkeypatch.setattr(socket_of, "getaddrinfo", look_up)
    given = replace(agent(monkeypatch, statsdUdpAddress=server), env={"INSTANCE_IP": own[0]}, found=own)
    assert asked == [], "the agent answers while DNS does not"
    ipv4 = any("." in a for a in given.addresses)
    found = asyncio.run(statistics.located(given.statistics, ipv4=ipv4))
    sinks = started(replace(given, statistics=found)).get("stats_sinks", [])
    places = [s["typed_config"]["address"]["socket_address"] for s in sinks]
    assert all((p["protocol"], p["port_value"]) == ("UDP", 9125) for p in places)
    return next((p["address"] for p in places), None), asked


@pytest.mark.parametrize(
    ("server", "own", "address"),
    [
        ("four.test:9125", ("10.0.0.1",), "192.0.2.1"),
        ("six.test:9125", ("10.0.0.1",), "2001:db8::1"),
        ("both.test:9125", ("10.0.0.1", "fd00::1"), "192.0.2.1"),
        ("both.test:9125", ("fd00::1",), "2001:db8::1"),
        ("[::1]:9125", ("10.0.0.1",), "::1"),
    ],
)
def test_statistics_are_sent_to_statsd_by_its_address(monkeypatch, server, own, address):
    assert "stats_sinks" not in started(agent(monkeypatch))
    assert sink(monkeypatch, server, own)[0] == address


def test_a_statsd_server_that_dns_knows_a_little_later_is_found(monkeypatch):
    monkeypatch.setattr(statistics, "PAUSE_S", 0.0)
    assert sink(monkeypatch, "four.test:9125", after=2) == ("192.0.2.1", ["four.test"] * 3)


def test_a_statsd_server_that_nobody_knows_does_not_keep_the_proxy_from_starting(monkeypatch, caplog):
    monkeypatch.setattr(statistics, "LOOKUP_S", 0.05)
    assert sink(monkeypatch, "nowhere.test:9125")[0] is None
    assert "nowhere.test" in caplog.text


def test_dns_that_does_not_answer_does_not_keep_the_proxy_from_starting(monkeypatch, caplog):
    monkeypatch.setattr(statistics, "LOOKUP_S", 0.05)

    async def looked_up():
        async def silent(*_, **__):
            await asyncio.Event().wait()

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", silent)
        return await statistics.located(statistics.Statistics(statsd=("four.test", 9125)), ipv4=True)

    assert asyncio.run(looked_up()).statsd is None
    assert "four.test: timeout" in caplog.text


def test_files_are_written_as_often_as_the_proxys_configuration_says(monkeypatch):
    assert (agent(monkeypatch).flush_s, agent(monkeypatch).flush_kb) == (0.5, 0)
    found = agent(monkeypatch, fileFlushInterval="5s", fileFlushMinSizeKb=128)
    assert (found.flush_s, found.flush_kb) == (5, 128)


def test_a_machines_probe_may_come_with_its_own_configuration(monkeypatch):
    found = agent(monkeypatch, readinessProbe={"grpc": {"port": 9000}})
    assert found.probe == {"grpc": {"port": 9000}}
