"""Envoy's metrics in, Istio's metrics out: what the agent makes of labels and samples."""

import re
from dataclasses import replace

import meshes as mesh
import pytest

from lateen.agent import exposition
from lateen.agent.exposition import IDLE_S, Exposition
from lateen.mesh import workloads
from lateen.wire import labels
from lateen.xds import telemetry

WEB, REVIEWS = "web;default;web;v1;web;1.0", "reviews-v1;shop;reviews;v2;app-r;2.0"
CALLER, SERVER = "spiffe://cluster.local/ns/default/sa/web", "spiffe://cluster.local/ns/shop/sa/reviews"
SERVED = telemetry.Server(
    "mutual_tls",
    "reviews.shop.svc.cluster.local",
    "reviews",
    "shop",
    (*zip(labels.PARTS, REVIEWS.split(";"), strict=True), ("principal", SERVER)),
)


def lines(*raw):
    return [line for line in Exposition().text(*(r.encode() for r in raw)).decode().splitlines() if line[0] != "#"]


def told(text):
    """The labels of one sample."""
    (line,) = lines(f"envoy_istio_requests_total{{{text}}} 1\n")
    return dict(re.findall(r'(\w+)="([^"]*)"', line))


def filled(text, **values):
    """What Envoy makes of a format."""
    for operator, value in values.items():
        text = text.replace(f"%{operator}%", value)
    assert "%" not in text, text
    return f'{labels.NAME}="{text}"'


def served(**values):
    plain = {"DOWNSTREAM_PEER_OTHERNAME_SAN": WEB, "DOWNSTREAM_PEER_URI_SAN": CALLER, "RESPONSE_CODE": "200"}
    plain |= {"GRPC_STATUS_NUMBER": "-", "RESPONSE_FLAGS": "-"}
    return told(filled(telemetry.joined(SERVED, True, "east"), **{**plain, **values}))


def called(http=True, **values):
    text = telemetry.joined(None, http, "east").replace("%UPSTREAM_METADATA(lateen:said)%", "%TO%")
    text = text.replace("%FILTER_STATE(lateen.said:PLAIN)%", "%SELF%").replace(
        "%FILTER_STATE(lateen.principal:PLAIN)%", CALLER
    )
    text = text.replace("%CLUSTER_METADATA(lateen:called)%", "reviews.shop.svc.cluster.local;reviews;shop")
    plain = {"SELF": WEB, "TO": REVIEWS, "UPSTREAM_PEER_URI_SAN": SERVER, "RESPONSE_FLAGS": "-"}
    plain |= {"RESPONSE_CODE": "200", "GRPC_STATUS_NUMBER": "-"} if http else {}
    return told(filled(text, **{**plain, **values}))


def test_a_server_reports_all_of_istios_labels():
    found = served()
    assert found == {
        "reporter": "destination",
        "source_workload": "web",
        "source_workload_namespace": "default",
        "source_canonical_service": "web",
        "source_canonical_revision": "v1",
        "source_app": "web",
        "source_version": "1.0",
        "source_principal": CALLER,
        "source_cluster": "east",
        "destination_workload": "reviews-v1",
        "destination_workload_namespace": "shop",
        "destination_canonical_service": "reviews",
        "destination_canonical_revision": "v2",
        "destination_app": "app-r",
        "destination_version": "2.0",
        "destination_principal": SERVER,
        "destination_service": "reviews.shop.svc.cluster.local",
        "destination_service_name": "reviews",
        "destination_service_namespace": "shop",
        "destination_cluster": "east",
        "request_protocol": "http",
        "response_code": "200",
        "grpc_response_status": "",
        "response_flags": "-",
        "connection_security_policy": "mutual_tls",
    }
    assert found.keys() == telemetry.MEANINGS.keys()


def test_a_client_reports_the_same_labels():
    found = called()
    assert found == {**served(), "reporter": "source"}
    assert called(http=False).keys() == found.keys() - {"response_code", "grpc_response_status"}


def test_joined_labels_say_the_same_as_single_ones():
    """An older agent, or a Telemetry that changes one of the labels, gets them one by one."""
    for server, joined in ((SERVED, served()), (None, called())):
        assert dict(telemetry.tags(server, True, "east")).keys() == joined.keys()
    constant = {k: v for k, v in telemetry.tags(SERVED, True, "east") if "%" not in v}
    assert constant.items() <= served().items()
    west = dict(telemetry.tags(None, True, "east"))
    single = f'source_cluster="{west["source_cluster"]}",destination_cluster="{west["destination_cluster"]}"'
    single = single.replace("%FILTER_STATE(lateen.said:PLAIN)%", WEB)
    assert told(single.replace("%UPSTREAM_METADATA(lateen:said)%", f"{REVIEWS};west")) == {
        "source_cluster": "east",
        "destination_cluster": "west",
    }
    assert told(single.replace("%UPSTREAM_METADATA(lateen:said)%", "-"))["destination_cluster"] == "unknown"


def test_a_workload_of_another_cluster_is_reported_with_its_cluster():
    assert called(TO=f"{REVIEWS};west")["destination_cluster"] == "west"
    assert served(DOWNSTREAM_PEER_OTHERNAME_SAN=f"{WEB};west")["source_cluster"] == "west"


def test_nobody_known_is_unknown_as_in_istio():
    found = called(TO="-", UPSTREAM_PEER_URI_SAN="-", RESPONSE_FLAGS="NR", RESPONSE_CODE="404")
    assert found["destination_workload"] == found["destination_principal"] == found["destination_cluster"] == "unknown"
    assert found["destination_canonical_revision"] == "latest"
    assert found["connection_security_policy"] == "unknown"


def test_a_request_with_a_grpc_status_was_one_of_grpc():
    found = served(GRPC_STATUS_NUMBER="0")
    assert (found["request_protocol"], found["grpc_response_status"]) == ("grpc", "0")


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        ({}, "mutual_tls"),
        ({"UPSTREAM_PEER_URI_SAN": "-"}, "none"),
        ({"UPSTREAM_PEER_URI_SAN": "-", "RESPONSE_FLAGS": "UF,URX"}, "unknown"),
        ({"UPSTREAM_PEER_URI_SAN": "-", "TO": "-", "RESPONSE_FLAGS": "NR"}, "unknown"),
    ],
)
def test_the_clients_report_says_whether_there_was_mutual_tls(given, policy):
    assert called(**given)["connection_security_policy"] == policy


def test_without_the_servers_identity_nobody_knows_whether_there_was_mutual_tls():
    found = told('reporter="source",destination_workload="a",response_flags="-",connection_security_policy="unknown"')
    assert found["connection_security_policy"] == "unknown"


def test_a_caller_whose_certificate_has_no_description_is_known_by_its_identity():
    found = served(DOWNSTREAM_PEER_OTHERNAME_SAN="-")
    assert (found["source_workload"], found["source_workload_namespace"]) == ("unknown", "default")
    assert found["source_principal"] == CALLER


@pytest.mark.parametrize("certificate", ["a|b", "bank;vault|x", "|" * 20, "a;b", ";" * 12])
def test_a_certificate_with_separators_cannot_pass_for_another_workload(certificate):
    found, plain = served(DOWNSTREAM_PEER_OTHERNAME_SAN=certificate), served()
    assert found["source_workload"] == "unknown"
    own = {label: value for label, value in plain.items() if not label.startswith("source")}
    assert own.items() <= found.items(), "what the reporter itself knows stays"


def test_a_description_is_believed_only_beside_an_identity_of_its_namespace():
    found = served(DOWNSTREAM_PEER_OTHERNAME_SAN="bank;vault;bank;v1;bank;1.0")
    assert (found["source_workload"], found["source_workload_namespace"]) == ("unknown", "default")


def test_a_servers_name_with_separators_is_its_principal_and_nothing_else():
    found, plain = called(UPSTREAM_PEER_URI_SAN="https://a|b;c"), called()
    differ = {label for label in plain if found[label] != plain[label]}
    assert differ == {"destination_principal", "connection_security_policy"}


def test_a_proxy_that_does_not_know_itself_still_knows_what_it_called():
    found = called(SELF="-")
    assert (found["source_workload"], found["destination_workload"]) == ("unknown", "reviews-v1")


def test_a_workload_whose_owner_has_the_separator_in_its_name_cannot_pass_for_another_one():
    pod = mesh.pod("web", "10.0.0.1", app="web")
    assert workloads.said(pod).split(";") == [workloads.described(pod)[key] for key in labels.PARTS]
    assert workloads.said(pod, "west").endswith(";west")
    assert workloads.said(replace(pod, owner="bank;vault;bank;v1;bank;v1"), "west") == ""


def test_labels_that_a_telemetry_adds_stay_beside_the_others():
    assert told('reporter="source",host="a"')["host"] == "a"


def test_each_single_label_has_its_part_of_what_the_certificate_says():
    ends = ["workload", "canonical_service", "canonical_revision", "workload_namespace", "app", "version"]
    found = told('reporter="destination",' + ",".join(f'source_{end}="{REVIEWS}"' for end in ends))
    assert list(found.values()) == ["destination", "reviews-v1", "reviews", "v2", "shop", "app-r", "2.0"]
    odd = 'reporter="destination",source_workload="a;b",source_other="a;b;c;d;e;f"'
    assert told(odd)["source_workload"] == "a;b", "what is not such a text stays"


def test_single_labels_believe_a_description_only_beside_its_identity():
    text = f'reporter="destination",source_workload="{WEB}",source_cluster="{WEB};west|east"'
    assert told(f'{text},source_principal="{CALLER}"')["source_workload"] == "web"
    foreign = told(f'{text},source_principal="spiffe://cluster.local/ns/vault/sa/bank"')
    assert (foreign["source_workload"], foreign["source_cluster"]) == ("unknown", "unknown")
    assert told(text)["source_cluster"] == "west", "a Telemetry may remove the identity"


def test_what_envoy_leaves_empty_is_unknown_except_where_istio_leaves_it_empty_too():
    found = told('destination_workload="",source_app="-",grpc_response_status="-",response_flags="-"')
    wanted = {"destination_workload": "unknown", "source_app": "unknown"}
    assert found == {**wanted, "grpc_response_status": "", "response_flags": "-"}


def test_escaped_values_stay_escaped():
    assert lines('envoy_istio_x{a="x\\"\\\\\\n, }"} 5') == ['istio_x{a="x\\"\\\\\\n, }"} 5']


# --- samples ----------------------------------------------------------------------------------------------------------

HISTOGRAM = """# TYPE envoy_istio_request_bytes histogram
envoy_istio_request_bytes_bucket{a="b",le="0.5"} 1
envoy_istio_request_bytes_bucket{a="b",le="+Inf"} 2
envoy_istio_request_bytes_sum{a="b"} 3.5
envoy_istio_request_bytes_count{a="b"} 2
"""


def test_other_metrics_of_envoy_stay_as_they_are():
    text = "# TYPE envoy_server_live gauge\nenvoy_server_live{} 1\nenvoy_istio_build 1\n"
    assert lines(text) == ["envoy_server_live{} 1", "istio_build 1"]


def test_a_histogram_keeps_its_buckets_and_its_type():
    out = Exposition().text(HISTOGRAM.encode()).decode()
    assert out == HISTOGRAM.replace("envoy_", "")


def test_envoys_counters_and_the_agents_are_added_up():
    envoy = """# TYPE envoy_istio_tcp_sent_bytes_total counter
envoy_istio_tcp_sent_bytes_total{a="b"} 5
envoy_istio_tcp_sent_bytes_total{a="c"} 6
"""
    more = 'envoy_istio_tcp_sent_bytes_total{a="b"} 10\nenvoy_istio_tcp_received_bytes_total{a="b"} 1\n'
    assert Exposition().text(envoy.encode(), more.encode()).decode().splitlines() == [
        "# TYPE istio_tcp_sent_bytes_total counter",
        'istio_tcp_sent_bytes_total{a="b"} 15',
        'istio_tcp_sent_bytes_total{a="c"} 6',
        "# TYPE istio_tcp_received_bytes_total counter",
        'istio_tcp_received_bytes_total{a="b"} 1',
    ]


def test_samples_whose_labels_become_equal_are_one():
    both = HISTOGRAM + HISTOGRAM.replace('a="b"', 'a="b",')
    assert Exposition().text(both.encode()).decode() == HISTOGRAM.replace("envoy_", "").replace(
        "} 1\n", "} 2\n"
    ).replace('"+Inf"} 2', '"+Inf"} 4').replace("3.5", "7").replace('count{a="b"} 2', 'count{a="b"} 4')


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def counter(value, a="b"):
    return f'envoy_istio_requests_total{{a="{a}"}} {value}\n'.encode()


def test_series_that_nobody_adds_to_are_left_out_and_then_continue():
    """From where they were: a rate over a window that spans the gap counts what was added."""
    clock = Clock()
    found = Exposition(clock)
    assert b"} 5\n" in found.text(counter(5))
    clock.now = IDLE_S
    assert b"} 5\n" in found.text(counter(5))
    clock.now += 1
    assert b"{" not in found.text(counter(5))
    assert b"} 7\n" in found.text(counter(7))


def test_who_asks_for_it_gets_what_is_left_out_after_all_others():
    clock = Clock()
    found = Exposition(clock)
    gauge = b"# TYPE envoy_istio_now gauge\nenvoy_istio_now{} 1\n"
    found.text(HISTOGRAM.encode(), counter(5, "old"), counter(1, "new"), gauge)
    clock.now = IDLE_S + 1
    text = found.text(HISTOGRAM.encode(), counter(5, "old"), counter(2, "new"), gauge, idle=True)
    shown, _, left_out = text.partition(exposition.IDLE + b"\n")
    assert shown == found.text(HISTOGRAM.encode(), counter(5, "old"), counter(2, "new"), gauge)
    assert counts(left_out) == [*lines(HISTOGRAM), 'istio_requests_total{a="old"} 5']
    assert exposition.IDLE in found.text(counter(2), idle=True), "nothing is, and that is said"
    assert exposition.IDLE not in found.text(counter(2), whole=False, idle=True), "Envoy does not answer: who knows"


def test_counters_of_the_same_labels_are_left_out_together():
    """Otherwise more connections would have been closed than opened."""
    clock = Clock()
    found = Exposition(clock)
    both = 'envoy_istio_opened{a="b"} 3\nenvoy_istio_closed{a="b"} %d\n'
    found.text((both % 0).encode())
    clock.now = IDLE_S
    found.text((both % 1).encode())
    clock.now += 1
    assert b'opened{a="b"} 3' in found.text((both % 1).encode())


def test_histograms_are_left_out_with_all_their_buckets_and_gauges_never():
    clock = Clock()
    found = Exposition(clock)
    gauge = b"# TYPE envoy_istio_now gauge\nenvoy_istio_now{} 1\n"
    found.text(HISTOGRAM.encode(), gauge)
    clock.now = IDLE_S + 1
    text = found.text(HISTOGRAM.encode(), gauge)
    assert text == b"# TYPE istio_request_bytes histogram\n# TYPE istio_now gauge\nistio_now 1\n"


def test_a_histogram_may_have_no_labels_but_its_buckets():
    assert lines('envoy_istio_x_bucket{le="0.5"} 1') == ['istio_x_bucket{le="0.5"} 1']


def test_a_counter_that_is_partly_envoys_does_not_fall_while_envoy_does_not_answer():
    own = counter(1, "both") + counter(2, "own")
    found = Exposition(Clock())
    assert b'{a="both"} 42\n' in found.text(counter(41, "both"), own)
    silent = found.text(own, whole=False)
    assert b"both" not in silent
    assert b'{a="own"} 2\n' in silent
    assert b'{a="both"} 43\n' in found.text(counter(42, "both"), own)
    found.restarted()
    assert b'{a="both"} 1\n' in found.text(own, whole=False), "Envoy has ended, and its part with it"


def test_what_is_remembered_of_series_is_bounded(monkeypatch):
    monkeypatch.setattr(exposition, "CACHED", 40)
    clock = Clock()
    found = Exposition(clock)
    stays = counter(5, "stays")
    for i in range(100):
        clock.now += 1
        found.text(stays + b"".join(counter(1, f"{i}-{n}") for n in range(10)), scraper="p")
        assert max(len(found._totals), len(found._changed), len(found._scrapers["p"].seen)) <= 50
    clock.now = IDLE_S + 2
    assert b"stays" not in found.text(stays), "nor is it taken for new"
    assert found.text(b"".join(counter(1, str(n)) for n in range(100))).count(b"{") == 100


def test_an_envoy_that_has_lost_its_counters_is_believed():
    found = Exposition(Clock())
    found.text(counter(5))
    found.restarted()
    assert b"} 3\n" in found.text(counter(3))


def counts(text):
    return [line for line in text.decode().splitlines() if not line.startswith("#")]


def test_prometheus_sees_each_series_before_its_first_call():
    """``increase`` is what is added between two samples."""
    found = Exposition(Clock())
    assert counts(found.text(counter(5), scraper="p")) == ['istio_requests_total{a="b"} 5'], "it began long ago"
    both = counter(5), counter(2, "new"), HISTOGRAM.encode()
    first = counts(found.text(*both, scraper="p"))
    assert first[:2] == ['istio_requests_total{a="b"} 5', 'istio_requests_total{a="new"} 0']
    assert {line.rpartition(" ")[2] for line in first[2:]} == {"0"}
    assert found.text(*both, scraper="p") == found.text(*both), "who does not scrape sees what there is"
    assert found.text(*both, scraper="q") == found.text(*both), "nor has it begun for one that comes later"


def test_prometheus_sees_what_a_series_was_before_it_was_idle():
    clock = Clock()
    found = Exposition(clock)
    before = found.text(counter(5), HISTOGRAM.encode(), scraper="p")
    clock.now = IDLE_S + 1
    assert counts(found.text(counter(5), HISTOGRAM.encode(), scraper="p")) == []
    after = counter(6), HISTOGRAM.replace("} 2", "} 3").encode()
    assert found.text(*after) != before, "the collector remembers it itself"
    assert found.text(*after, scraper="p") == before
    assert found.text(*after, scraper="p") == found.text(*after)
    clock.now *= 3
    found.text(*after, scraper="p")
    assert found.text(counter(7), scraper="p") == found.text(counter(6))


def test_what_is_remembered_of_scrapers_is_bounded():
    found = Exposition(Clock())
    for i in range(20):
        found.text(counter(1), scraper=str(i))
    assert len(found._scrapers) == exposition.MOST_SCRAPERS
