"""Labels of Envoy's own metrics, as the real Envoy takes them out of names."""

import json
import re
import subprocess
import time
import urllib.request

import pytest

from lateen.agent import stat_tags
from lateen.agent.statistics import Statistics
from lateen.cluster.kubelet.images import envoy_binary

REVIEWS = "outbound|9080|v1|reviews.default.svc.cluster.local"
HOSTS = (REVIEWS, "outbound|443||api.example.com", "outbound_.80_._.ssl.my.org", "outbound|80||a.google.internal")
CLUSTERS = (*HOSTS, "inbound|9080||", "PassthroughCluster", "xds-grpc")
RBAC = "type.googleapis.com/envoy.extensions.filters.{}.rbac.v3.RBAC"
FILTERS = "type.googleapis.com/envoy.extensions.filters"
ADDRESS = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}


def manager(prefix):
    """A connection manager with a policy that is enforced, one in a dry run, and one that audits."""
    shadows = [{"rules": {}, "shadow_rules": {}, "shadow_rules_stat_prefix": "istio_dry_run_deny_"}]
    shadows.append({"shadow_rules": {}, "shadow_rules_stat_prefix": "istio_audit_"})
    filters = [{"@type": RBAC.format("http"), **s} for s in shadows]
    filters.append({"@type": f"{FILTERS}.http.router.v3.Router"})
    config = {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": prefix,
        "route_config": {},
        "http_filters": [{"name": str(n), "typed_config": f} for n, f in enumerate(filters)],
    }
    return [{"name": "http", "typed_config": config}]


def connections():
    """A chain of TCP, with a policy."""
    policy = {
        "rules": {},
        "stat_prefix": "tcp.",
        "shadow_rules": {},
        "shadow_rules_stat_prefix": "istio_dry_run_allow_",
    }
    configs = [
        {"@type": RBAC.format("network"), **policy},
        {"@type": f"{FILTERS}.network.tcp_proxy.v3.TcpProxy", "stat_prefix": REVIEWS, "cluster": REVIEWS},
    ]
    return [{"name": str(n), "typed_config": c} for n, c in enumerate(configs)]


def configuration():
    tls = {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}
    socket = {"name": "tls", "typed_config": tls}
    matches = [{"name": "tlsMode-istio", "match": {"a": "b"}, "transport_socket": socket}]
    more = {"outlier_detection": {}, "transport_socket_matches": matches, "transport_socket": socket}
    served = [manager("inbound_0.0.0.0_9080"), manager("InboundPassthroughCluster"), connections()]
    return {
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": ADDRESS},
        "stats_config": Statistics(kept=(("regex", ".*"),)).config(),
        "static_resources": {
            "clusters": [
                {"name": n, "type": "STATIC", "load_assignment": {"cluster_name": n}, **more} for n in CLUSTERS
            ],
            "listeners": [
                {"name": str(n), "address": ADDRESS, "filter_chains": [{"filters": filters}]}
                for n, filters in enumerate(served)
            ],
        },
    }


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Envoy's names of statistics, and its metrics, with everything kept that it has."""
    directory = tmp_path_factory.mktemp("envoy")
    config, log, admin = directory / "envoy.json", directory / "log", directory / "admin"
    config.write_text(json.dumps(configuration()))
    command = [
        envoy_binary(),
        "-c",
        config,
        "--use-dynamic-base-id",
        "--concurrency",
        "1",
        "--admin-address-path",
        admin,
    ]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            while "starting workers" not in log.read_text():
                assert process.poll() is None, log.read_text()[-2000:]
                time.sleep(0.02)
            paths = ("/stats", "/stats/prometheus")
            found = [
                urllib.request.urlopen(f"http://{admin.read_text()}{p}", timeout=10).read().decode() for p in paths
            ]
        finally:
            process.terminate()
            process.wait(10)
    return found


@pytest.fixture(scope="module")
def metrics(answers):
    """(name, labels) of each series."""
    read = re.compile(r"(\w+)\{(.*)\} \S+")
    series = [read.fullmatch(line) for line in answers[1].splitlines() if line and not line.startswith("#")]
    return [(m[1], dict(re.findall(r'(\w+)="([^"]*)"', m[2]))) for m in series]


def labels(metrics, name):
    return [found for called, found in metrics if called == name]


@pytest.mark.parametrize(
    "name",
    [
        "upstream_cx_total",
        "upstream_cx_rx_bytes_total",
        "membership_healthy",
        "circuit_breakers_default_cx_open",
        "outlier_detection_ejections_active",
        "ssl_handshake",
        "tlsMode_istio_total_match_count",
        "client_ssl_socket_factory_ssl_context_update_by_sds",
    ],
)
def test_a_metric_of_clusters_has_istios_name_and_the_cluster_as_a_label(metrics, name):
    assert {found["cluster_name"] for found in labels(metrics, f"envoy_cluster_{name}")} == set(CLUSTERS)


def test_no_name_of_a_metric_has_a_cluster_or_an_address_in_it(metrics):
    assert not [name for name, _ in metrics if re.search(r"bound_|cluster_local|example|xds_grpc|127_0_0_1", name)]


def test_metrics_of_authorization_say_what_was_decided_and_by_which_kind_of_policy(metrics):
    mine = [found for found in labels(metrics, "envoy_http_rbac") if "inbound_0.0.0.0_9080" in found.values()]
    where = {"http_conn_manager_prefix": "inbound_0.0.0.0_9080"}
    for word in ("allowed", "denied"):
        assert {**where, "authz_enforce_result": word} in mine
        assert {**where, "authz_dry_run_action": "deny", "authz_dry_run_result": word} in mine
        assert {"authz_enforce_result": word} in labels(metrics, "envoy_tcp_rbac")
        assert {**where, "authz_dry_run_result": word} in labels(metrics, "envoy_http_rbac_istio_audit_")


def test_listeners_connection_managers_and_threads_are_labels_too(metrics):
    managers = {found["http_conn_manager_prefix"] for found in labels(metrics, "envoy_http_downstream_cx_total")}
    assert managers == {"inbound_0.0.0.0_9080", "InboundPassthroughCluster", "admin"}
    classes = labels(metrics, "envoy_http_downstream_rq")
    assert {"http_conn_manager_prefix": "inbound_0.0.0.0_9080", "response_code_class": "5xx"} in classes
    assert labels(metrics, "envoy_listener_downstream_cx_active") == [{"listener_address": "127.0.0.1_0"}]
    within = labels(metrics, "envoy_listener_http_downstream_rq_completed")
    assert {f["http_conn_manager_listener_prefix"] for f in within} == managers - {"admin"}
    assert labels(metrics, "envoy_tcp_downstream_cx_total") == [{"tcp_prefix": REVIEWS}]
    assert {"thread_name": "worker_0"} in labels(metrics, "envoy_server_watchdog_miss")


def test_the_admin_interface_has_whole_names_and_no_two_series_become_one(answers, metrics):
    names = answers[0].splitlines()
    assert f"cluster.{REVIEWS}.upstream_cx_total: 0" in names
    assert "http.inbound_0.0.0.0_9080.rbac.istio_dry_run_deny_.shadow_denied: 0" in names
    assert len({(name, *sorted(found.items())) for name, found in metrics}) == len(metrics)


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("cluster.<outbound|80||a.b.com>.upstream_rq_503", "cluster.upstream_rq"),
        ("cluster.<outbound|80||a.b.com>.external.upstream_rq_2xx", "cluster.external.upstream_rq"),
        ("cluster.<outbound|80||a.internal>.upstream_cx_total", "cluster.upstream_cx_total"),
        ("cluster.<outbound|80||ssl.x.com>.http2.rx_reset", "cluster.http2.rx_reset"),
        ("cluster.<a.b>.ssl.versions.TLSv1.3", "cluster.ssl.versions.TLSv1.3"),
        ("cluster.<a.b>.ssl.ciphers.TLS_AES_128_GCM_SHA256", "cluster.ssl.ciphers.TLS_AES_128_GCM_SHA256"),
        ("cluster.<a.b>.grpc.x.Greeter.SayHello.success", "cluster.grpc.x.Greeter.SayHello.success"),
        ("cluster.<outbound|1||x.grpc.io>.upstream_cx_total", "cluster.upstream_cx_total"),
        ("cluster.<a.b>.zone.eu.us.upstream_rq_200", "cluster.zone.eu.us.upstream_rq"),
        ("cluster.<reviews.prod_grpc-web>.upstream_rq_completed", "cluster.upstream_rq_completed"),
        ("cluster.<outbound|80||10.1.2.3>.health_check.attempt", "cluster.health_check.attempt"),
        ("mongo.<outbound|27017||m.default>.cmd.insert.total", "mongo.cmd.insert.total"),
        ("http.<outbound_10.0.0.1_443>.downstream_rq_4xx", "http.downstream_rq"),
        ("listener.<[__]_15006>.ssl.handshake", "listener.ssl.handshake"),
        ("wasmcustom.wasm_filter.<mine>.calls", "wasmcustom.calls"),
    ],
)
def test_names_that_appear_with_traffic(name, rest):
    """``<``, ``>``: around the value of a label. The patterns are Python's, too."""
    left = plain = name.replace("<", "").replace(">", "")
    found = [m for _, pattern in stat_tags.TAGS if (m := re.search(pattern, plain, re.ASCII))]
    for m in found:
        left = left.replace(m[1], "", 1)
    assert left == rest
    assert name.partition("<")[2].partition(">")[0] in [m[2] for m in found]


def test_patterns_are_short_enough_for_envoy():
    assert all(len(pattern) <= 1024 for _, pattern in stat_tags.TAGS)
