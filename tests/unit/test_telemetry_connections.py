"""What is reported of connections: by Envoy at their ends, by the agent while they are open."""

import judge
import meshes as mesh
import pytest
from envoy.config.accesslog.v3 import accesslog_pb2 as accesslog_pb2_config
from envoy.data.accesslog.v3 import accesslog_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from envoy.extensions.access_loggers.stats.v3 import stats_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from google.protobuf import json_format
from reported import found_at

from lateen.api.mesh.providers import LogFormat, OtelAls
from lateen.mesh.model import Mesh
from lateen.mesh.observability import AccessLog
from lateen.mesh.views import Views
from lateen.wire import connections, names
from lateen.xds import access_log


def tcp_proxies(found):
    for listener in found[names.LDS].values():
        for chain in (*listener.filter_chains, listener.default_filter_chain):
            for f in chain.filters:
                if f.name == "envoy.filters.network.tcp_proxy":
                    out = tcp_proxy_pb2.TcpProxy()
                    f.typed_config.Unpack(out)
                    yield out


def made(log):
    config = stats_pb2.Config()
    log.typed_config.Unpack(config)
    return config.counters


def counters(log):
    return {c.stat.name for c in made(log)}


def moments(log):
    """When a logger writes: the types of log entries that its filter lets pass."""

    def types(f):
        kind = f.WhichOneof("filter_specifier")
        if kind in ("and_filter", "or_filter"):
            return [t for inner in getattr(f, kind).filters for t in types(inner)]
        return list(f.log_type_filter.types)

    return types(log.filter)


CONNECTED, PERIODIC, END = map(
    accesslog_pb2.AccessLogType.Value, ("TcpUpstreamConnected", "TcpPeriodic", "TcpConnectionEnd")
)


def told(proxy):
    """The logger that writes to the agent; None without one."""
    for log in proxy.access_log:
        config = file_pb2.FileAccessLog()
        if log.typed_config.Unpack(config) and config.path == connections.PIPE:
            return log, json_format.MessageToDict(config.log_format.json_format)
    return None, None


def test_a_connection_counts_as_opened_at_its_start_and_its_log_entry_comes_at_its_end():
    for proxy in tcp_proxies(found_at("")):
        assert proxy.access_log_options.flush_access_log_on_connected
        stats = [log for log in proxy.access_log if log.name == "envoy.access_loggers.stats"]
        others = [log for log in proxy.access_log if log not in stats and log != told(proxy)[0]]
        started, failed, ended, short = stats
        assert counters(started) == counters(failed) == {"tcp_connections_opened_total"}
        assert counters(ended) == {"tcp_connections_closed_total"}
        assert counters(short) == {"tcp_sent_bytes_total", "tcp_received_bytes_total"}
        assert [moments(log) for log in stats] == [[CONNECTED], [END], [END], [END]]
        assert others
        assert all(moments(log) == [END] for log in others)


def test_connections_that_nothing_takes_are_in_the_log():
    """Such as plain text where mutual TLS is STRICT: no filter chain, so none of their loggers, sees them."""
    (log,) = found_at("")[names.LDS]["virtualInbound"].access_log
    no_chain, no_certificate = log.filter.or_filter.filters
    assert no_chain.response_flag_filter.flags == ["NR"]
    said = cel_pb2.ExpressionFilter()
    assert no_certificate.extension_filter.typed_config.Unpack(said)
    assert said.expression == "connection.transport_failure_reason != '' && request.size == 0", (
        "the client has shown no valid certificate"
    )


def test_lines_about_clients_that_are_refused_say_why_in_nested_labels_too():
    """Envoy has no server of theirs yet, so the server's reason would always be empty."""
    why = "%%%sSTREAM_TRANSPORT_FAILURE_REASON%%"
    labels, wanted = (
        {"tls": {"reasons": [why % side, 7], "other": True}, "why": f"TLS: {why % side}"} for side in ("UP", "DOWN")
    )
    log = AccessLog(OtelAls(service="als", port=1, log_format=LogFormat(text=why % "UP", labels=labels)))
    found = access_log.of_clients(log).target.log_format
    assert (found.text, found.labels) == (why % "DOWN", wanted)


def test_bytes_are_counted_by_envoy_where_a_connection_ends_soon_and_by_the_agent_where_it_stays():
    for proxy in tcp_proxies(found_at("")):
        (short,) = (log for log in proxy.access_log if "tcp_sent_bytes_total" in counters(log))
        log, line = told(proxy)
        assert moments(log) == [PERIODIC, END]
        below = short.filter.and_filter.filters[1].duration_filter.comparison
        above = log.filter.or_filter.filters[1].and_filter.filters[1].duration_filter.comparison
        names = accesslog_pb2_config.ComparisonFilter.Op.Name
        assert (names(below.op), names(above.op)) == ("LE", "GE")
        assert below.value.default_value + 1 == above.value.default_value, "each connection is counted once"
        interval = proxy.access_log_options.access_log_flush_interval.ToMilliseconds()
        assert above.value.default_value < interval == 5000, "a line comes of those alone that the agent counts"
        assert [name for name, *_ in line[connections.COUNTS]] == ["tcp_sent_bytes_total", "tcp_received_bytes_total"]
        labels = {counter.stat.name: [[t.name, t.value_format] for t in counter.stat.tags] for counter in made(short)}
        assert {name: told for name, _, told in line[connections.COUNTS]} == labels


def test_where_the_agent_takes_no_reports_envoy_counts_every_connection_at_its_end():
    proxies = [*tcp_proxies(found_at("", agent={}))]
    assert proxies
    for proxy in proxies:
        assert told(proxy) == (None, None), "Envoy would make a file of it that grows for ever"
        assert not proxy.access_log_options.HasField("access_log_flush_interval")
        (log,) = (log for log in proxy.access_log if "tcp_sent_bytes_total" in counters(log))
        assert log.filter.WhichOneof("filter_specifier") == "log_type_filter", "however long it lasted"
        assert moments(log) == [END]
        assert "OTHERNAME" not in str(proxy), "nor does such an agent know what a certificate says"


def test_gateways_have_an_agent_that_takes_reports_or_none_as_well():
    objects = mesh.objects(PASSTHROUGH)
    for agent in (mesh.AGENT, {}):
        view = Views(Mesh(objects)).of(objects.pods["istio-system", "ingress"], "router", agent)
        proxies = [*tcp_proxies(judge.messages(view))]
        assert proxies
        assert all((told(proxy)[0] is not None) == bool(agent) for proxy in proxies)


PASSTHROUGH = """
kind: Gateway
metadata: {name: door}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 9000, name: tcp, protocol: TCP}, hosts: ["*"]}]
---
kind: VirtualService
metadata: {name: door}
spec:
  hosts: ["*"]
  gateways: [door]
  tcp: [{route: [{destination: {host: reviews, port: {number: 9080}}}]}]
"""


INTERVAL = """
kind: Telemetry
metadata: {name: often, namespace: istio-system}
spec: {metrics: [{reportingInterval: %s%s}]}
"""


@pytest.mark.parametrize(("asked", "seconds"), [("12s", 12), ("100ms", 1)])
def test_a_telemetry_says_how_often_open_connections_report(asked, seconds):
    for proxy in tcp_proxies(found_at(INTERVAL % (asked, ""))):
        assert proxy.access_log_options.access_log_flush_interval.ToSeconds() == seconds


def test_nothing_is_written_of_connections_whose_bytes_nobody_wants():
    off = ", overrides: [" + ", ".join(
        f"{{match: {{metric: {m}}}, disabled: true}}" for m in ("TCP_SENT_BYTES", "TCP_RECEIVED_BYTES")
    )
    for proxy in tcp_proxies(found_at(INTERVAL % ("5s", off + "]"))):
        assert told(proxy) == (None, None)
        assert not proxy.access_log_options.HasField("access_log_flush_interval")


def test_the_servers_proxy_knows_the_client_of_a_connection_by_its_certificate():
    texts = [str(told(proxy)[1]) for proxy in tcp_proxies(found_at(""))]
    mutual = [t for t in texts if "'destination|" in t and "|mutual_tls'" in t]
    assert mutual
    assert all(t.count("%DOWNSTREAM_PEER_OTHERNAME_SAN%") == 2 for t in mutual), "once for each counter"
    assert not any("OTHERNAME" in t for t in texts if t not in mutual), "only where there is a certificate of the mesh"
