"""Translation of objects to Envoy's resources, all of which the real Envoy accepts."""

import judge
import meshes as mesh
import pytest
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from lateen.api import kinds
from lateen.mesh.model import Mesh
from lateen.mesh.observability import Reporting
from lateen.mesh.settings import MeshConfig, OutboundPolicy, Transport
from lateen.mesh.views import Views
from lateen.wire import names
from lateen.xds.generate import generate

SUBSETS = """
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}, outlierDetection: {consecutive5xxErrors: 3}}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v3, labels: {version: v3}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
"""
EVERYTHING = (
    SUBSETS
    + """---
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - name: jason
    match:
    - headers: {end-user: {exact: jason}}
      uri: {prefix: /reviews}
      queryParams: {a: {regex: "b.*"}}
      method: {exact: GET}
      withoutHeaders: {x: {}}
    route: [{destination: {host: reviews, subset: v3}, headers: {request: {add: {x-a: b}}}}]
    timeout: 2.5s
    retries: {attempts: 3, perTryTimeout: 1s, retryOn: "5xx,503", backoff: 20ms}
    fault: {delay: {fixedDelay: 1s, percentage: {value: 0.5}}, abort: {httpStatus: 503, percentage: {value: 10}}}
    corsPolicy: {allowOrigins: [{regex: ".*"}], allowMethods: [GET], maxAge: 1h, allowCredentials: true}
    mirror: {host: ratings}
    mirrorPercentage: {value: 5}
  - match: [{uri: {exact: /old}}]
    redirect: {uri: /new, redirectCode: 308}
  - match: [{uri: {exact: /teapot}}]
    directResponse: {status: 418, body: {string: short and stout}}
  - match: [{uri: {prefix: /v1/}}]
    rewrite: {uri: /}
    route: [{destination: {host: reviews, subset: v1}}]
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 25}
    - {destination: {host: reviews.default.svc.cluster.local, subset: v3}, weight: 75}
---
kind: Gateway
metadata: {name: gw}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
kind: VirtualService
metadata: {name: bookinfo}
spec:
  hosts: ["*"]
  gateways: [gw]
  http: [{match: [{uri: {exact: /productpage}}, {uri: {prefix: /static}}], route: [{destination: {host: productpage}}]}]
"""
)


@pytest.mark.parametrize("pod", [("default", "productpage-v1"), ("istio-system", "ingress")], ids=lambda p: p[1])
@pytest.mark.parametrize("protocol", ["http", "grpc", "tcp", "auto-x"])
@pytest.mark.parametrize(
    "config",
    [
        MeshConfig(reporting=Reporting("/dev/stdout")),
        MeshConfig(reporting=Reporting(lean=True)),
        MeshConfig(outbound=OutboundPolicy("REGISTRY_ONLY")),
    ],
    ids=["full", "lean", "registry-only"],
)
def test_envoy_accepts_what_is_generated(pod, protocol, config, tmp_path):
    found = mesh.objects(EVERYTHING, config, protocol=protocol)
    judge.validate(mesh.view(found, pod[1], pod[0]), tmp_path)


@pytest.mark.parametrize("mode", ["STRICT", "PERMISSIVE", "DISABLE"])
def test_envoy_accepts_every_mode_of_mutual_tls(mode, tmp_path):
    policy = "kind: PeerAuthentication\nmetadata: {name: default, namespace: istio-system}\n"
    policy += f"spec: {{mtls: {{mode: {mode}}}}}"
    view = mesh.view(mesh.objects(policy))
    judge.validate(view, tmp_path)
    chains = judge.messages(view)[names.LDS][names.VIRTUAL_INBOUND].filter_chains
    mine = [c for c in chains if c.filter_chain_match.destination_port.value == 9080]
    secured = {c.HasField("transport_socket") for c in mine}
    assert secured == {"STRICT": {True}, "PERMISSIVE": {True, False}, "DISABLE": {False}}[mode]


def clusters(view):
    return judge.messages(view)[names.CDS]


def test_http2_only_where_every_endpoint_has_a_sidecar():
    meshed = clusters(mesh.view(mesh.objects()))["outbound|9080||reviews.default.svc.cluster.local"]
    plain = clusters(mesh.view(mesh.objects(meshed=False)))["outbound|9080||reviews.default.svc.cluster.local"]
    assert meshed.HasField("transport_socket")
    assert not plain.HasField("transport_socket")
    assert b"istio-h2" in meshed.SerializeToString()
    assert b"istio-h2" not in plain.SerializeToString()


@pytest.mark.parametrize(("name", "wanted"), [("http", ["istio-h2", "istio"]), ("grpc", ["istio-h2", "istio", "h2"])])
def test_a_port_of_http_takes_what_a_tcp_route_brings_because_its_server_is_not_promised_h2(name, wanted):
    spec = {"clusterIP": "10.96.0.9", "selector": {"app": "reviews"}, "ports": [{"name": name, "port": 9080}]}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "reviews", "namespace": "default"},
        "spec": spec,
    }
    found = clusters(mesh.view(mesh.add(mesh.objects(), service, 0)))[
        "outbound|9080||reviews.default.svc.cluster.local"
    ]
    context = tls_pb2.UpstreamTlsContext()
    found.transport_socket.typed_config.Unpack(context)
    assert context.common_tls_context.alpn_protocols == wanted


def test_the_servers_identity_is_checked():
    raw = clusters(mesh.view(mesh.objects()))["outbound|9080||ratings.default.svc.cluster.local"].SerializeToString()
    assert b"spiffe://cluster.local/ns/default/sa/sa-ratings" in raw


def test_a_subset_has_only_its_own_pods():
    found = judge.messages(mesh.view(mesh.objects(SUBSETS)))[names.EDS]
    group = found["outbound|9080|v3|reviews.default.svc.cluster.local"].endpoints[0]
    assert len(group.lb_endpoints) == 1


def test_routes_keep_the_users_order_and_weights():
    routes = judge.routes(judge.messages(mesh.view(mesh.objects(EVERYTHING))), "9080")
    host = next(h for h in routes.virtual_hosts if h.name == "9080/reviews.default.svc.cluster.local:9080")
    assert [r.name for r in host.routes] == ["jason", "default", "default", "default", "default"]
    assert [c.weight.value for c in host.routes[-1].route.weighted_clusters.clusters] == [25, 75]
    assert host.routes[0].route.timeout.ToMilliseconds() == 2500
    assert host.routes[-1].route.timeout.ToMilliseconds() == 0
    assert "reviews" in host.domains
    assert routes.virtual_hosts[-1].name == "allow_any"


def test_equal_views_share_their_bytes():
    found = mesh.objects(EVERYTHING)
    views = Views(Mesh(found))
    a = generate(views.of(found.pods[("default", "productpage-v1")], "sidecar"))
    b = generate(views.of(found.pods[("default", "ratings-v1")], "sidecar"))
    for type_url in (names.CDS, names.EDS, names.RDS):
        assert a[type_url][0] is b[type_url][0]


def test_a_step_by_step_history_equals_a_build_from_scratch():
    steps = [
        mesh.objects(),
        mesh.objects(SUBSETS),
        mesh.objects(EVERYTHING),
        mesh.objects(SUBSETS, meshed=False),
        mesh.objects(),
    ]
    views = Views(Mesh(steps[0]))
    for found in steps:
        views.advance(found)
        step = views.of(found.pods[("default", "productpage-v1")], "sidecar", mesh.AGENT)
        fresh = mesh.view(found)
        for type_url, sets in generate(step).items():
            assert [s.resources for s in sets] == [s.resources for s in generate(fresh)[type_url]]


def test_one_endpoint_costs_one_resource():
    found = mesh.objects()
    views = Views(Mesh(found))
    before = generate(views.of(found.pods[("default", "productpage-v1")], "sidecar", mesh.AGENT))
    name, ports = found.slices[("default", "reviews")]
    fewer = found.put(kinds.ENDPOINT_SLICE, ("default", "reviews"), (name, {"http": ports["http"][:2]}))
    views.advance(fewer)
    after = generate(views.of(found.pods[("default", "productpage-v1")], "sidecar", mesh.AGENT))
    changed = {t: sum(len(n.changes_since(o)[0]) for n, o in zip(after[t], before[t], strict=True)) for t in after}
    assert sum(changed.values()) == changed[names.EDS] == 1


BALANCED = """
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy: %s
  subsets:
  - {name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
"""


def cluster_with(settings, subset=""):
    found = mesh.view(mesh.objects(BALANCED % settings))
    return found, clusters(found)[f"outbound|9080|{subset}|reviews.default.svc.cluster.local"]


@pytest.mark.parametrize(
    "key",
    [
        "httpHeaderName: x-user",
        "httpCookie: {name: user, path: /, ttl: 1h, attributes: [{name: SameSite, value: Lax}]}",
        "useSourceIp: true",
        "httpQueryParameterName: q, maglev: {tableSize: 1021}",
        "useSourceIp: true, ringHash: {minimumRingSize: 2048}",
    ],
)
def test_a_consistent_hash_is_a_setting_of_the_cluster(key, tmp_path):
    view, found = cluster_with(f"{{loadBalancer: {{consistentHash: {{{key}}}}}}}")
    judge.validate(view, tmp_path)
    wanted = "maglev" if "maglev" in key else "ring_hash"
    assert wanted in found.load_balancing_policy.policies[0].typed_extension_config.name


def test_passthrough_warm_up_and_pools_are_accepted(tmp_path):
    view, found = cluster_with(
        "{loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 30s, minimumPercent: 5, aggression: 2}},"
        " retryBudget: {percent: 25, minRetryConcurrency: 3},"
        " connectionPool: {tcp: {tcpKeepalive: {time: 7200s, interval: 75s, probes: 3}},"
        " http: {useClientProtocol: true, maxConcurrentStreams: 7, http2KeepAlive: {interval: 10s, timeout: 2s}}},"
        " outlierDetection: {splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 2}}"
    )
    judge.validate(view, tmp_path)
    assert found.round_robin_lb_config.slow_start_config.slow_start_window.seconds == 30
    assert found.circuit_breakers.thresholds[0].retry_budget.budget_percent.value == 25
    assert found.outlier_detection.consecutive_local_origin_failure.value == 2
    assert found.upstream_connection_options.tcp_keepalive.keepalive_time.value == 7200
    view, found = cluster_with("{loadBalancer: {simple: PASSTHROUGH}}")
    judge.validate(view, tmp_path)
    assert found.type == found.DiscoveryType.Value("ORIGINAL_DST")


def test_a_ports_settings_replace_the_rules_and_a_subset_overrides_by_group():
    settings = (
        "{connectionPool: {tcp: {maxConnections: 7}}, loadBalancer: {simple: ROUND_ROBIN},"
        " portLevelSettings: [{port: {number: 9080}, connectionPool: {tcp: {maxConnections: 9}}}]}"
    )
    _, found = cluster_with(settings)
    assert found.circuit_breakers.thresholds[0].max_connections.value == 9
    assert found.lb_policy == found.LbPolicy.Value("LEAST_REQUEST")
    _, found = cluster_with(settings, "v1")
    assert found.circuit_breakers.thresholds[0].max_connections.value == 9
    assert found.lb_policy == found.LbPolicy.Value("RANDOM")


def test_a_ports_settings_replace_those_that_only_the_rule_can_have():
    """Also those of a subset, whose port keeps the rule's."""
    both = "proxyProtocol: {version: V2}, retryBudget: {percent: 25}"
    at_port = "portLevelSettings: [{port: {number: 9080}, connectionPool: {tcp: {maxConnections: 9}}}]"
    for settings, wanted in ((f"{{{both}}}", True), (f"{{{both}, {at_port}}}", False)):
        _, found = cluster_with(settings)
        assert found.circuit_breakers.thresholds[0].HasField("retry_budget") is wanted
        assert ("proxy_protocol" in str(found)) is wanted
    subset = f"trafficPolicy: {{retryBudget: {{percent: 7}}, {at_port}}}"
    document = (BALANCED % f"{{{both}}}").replace("trafficPolicy: {loadBalancer: {simple: RANDOM}}", subset)
    found = clusters(mesh.view(mesh.objects(document)))["outbound|9080|v1|reviews.default.svc.cluster.local"]
    limits = found.circuit_breakers.thresholds[0]
    assert (limits.max_connections.value, limits.retry_budget.budget_percent.value) == (9, 25)


def test_a_share_of_no_hosts_is_envoys_default_as_in_istio():
    """Also a count of no failures to connect. Counts of no error responses turn the detection off."""
    _, found = cluster_with(
        "{outlierDetection: {maxEjectionPercent: 0, consecutive5xxErrors: 0,"
        " splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 0}}"
    )
    made = found.outlier_detection
    assert not made.HasField("max_ejection_percent")
    assert not made.HasField("consecutive_local_origin_failure")
    assert not made.HasField("enforcing_consecutive_local_origin_failure")
    assert (made.HasField("enforcing_consecutive_5xx"), made.enforcing_consecutive_5xx.value) == (True, 0)


BY_PROTOCOL = """
kind: ServiceEntry
metadata: {name: stores}
spec:
  hosts: [stores.example.com]
  addresses: [10.1.1.1]
  ports: [{number: 6379, name: redis, protocol: REDIS}, {number: 27017, name: mongo, protocol: MONGO}]
  resolution: STATIC
  endpoints: [{address: 10.2.2.2}]
"""


@pytest.mark.parametrize(("redis", "last"), [(False, "tcp_proxy"), (True, "redis_proxy")])
def test_redis_and_mongo_have_filters_of_their_own(redis, last, tmp_path):
    view = mesh.view(mesh.objects(BY_PROTOCOL, MeshConfig(transport=Transport(redis=redis))))
    judge.validate(view, tmp_path)
    listeners = judge.messages(view)[names.LDS]

    def filters(port):
        return [f.name.rpartition(".")[2] for f in listeners[f"10.1.1.1_{port}"].filter_chains[0].filters]

    assert filters(6379) == ["workload", last]
    assert filters(27017) == ["workload", "mongo_proxy", "tcp_proxy"]
