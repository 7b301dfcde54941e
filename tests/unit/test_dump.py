"""Config dumps as tables."""

import json
import subprocess
import sys

import pytest

from lateen.dump import ConfigDump, DumpError, tables

TYPE = "type.googleapis.com/envoy.admin.v3."


def dump(kind, **fields):
    return ConfigDump({"configs": [{"@type": TYPE + kind, **fields}]})


def test_a_clusters_name_is_split_and_its_rule_is_named():
    meta = {"filter_metadata": {"istio": {"config": "/apis/networking.istio.io/v1/namespaces/a/destination-rule/b"}}}
    cluster = {"name": "outbound|80|v1|x.y.svc.cluster.local", "type": "EDS", "metadata": meta}
    found = dump("ClustersConfigDump", dynamic_active_clusters=[{"cluster": cluster}])
    assert [r for r, _ in tables.clusters(found)] == [["x.y.svc.cluster.local", "80", "v1", "outbound", "EDS", "b.a"]]


def test_every_filter_chain_is_a_row():
    hcm = {"name": tables.HCM, "typed_config": {"rds": {"route_config_name": "80"}}}
    tcp = {"name": tables.TCP, "typed_config": {"cluster": "outbound|1||h"}}
    listener = {
        "name": "l",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 80}},
        "filter_chains": [
            {"filter_chain_match": {"server_names": ["a.b"], "transport_protocol": "tls"}, "filters": [tcp]},
            {"filters": [hcm]},
        ],
    }
    found = dump("ListenersConfigDump", dynamic_listeners=[{"name": "l", "active_state": {"listener": listener}}])
    assert [r for r, _ in tables.listeners(found)] == [
        ["0.0.0.0", "80", "SNI: a.b; Trans: tls", "Cluster: outbound|1||h"],
        ["0.0.0.0", "80", "ALL", "Route: 80"],
    ]
    assert tables.kind_of(listener) == "HTTP+TCP"


def test_routes_of_the_gateway_api_are_named_with_their_rules_at_listeners():
    def of(kind, rule):
        config = f"/apis/gateway.networking.k8s.io/v1/namespaces/a/{kind}/b"
        return {"filter_metadata": {"istio": {"config": config, "rule": rule}}}

    tcp = {"name": tables.TCP, "typed_config": {"cluster": "outbound|1||h"}}
    action = {"name": "route", "typed_config": {"cluster": "datagrams|53"}}
    udp = {"name": tables.UDP, "typed_config": {"matcher": {"on_no_match": {"action": action}}}}
    by_name = {"filter_chain_match": {"server_names": ["x"]}, "filters": [tcp], "metadata": of("tlsroute", "a.b.0")}
    listeners = [
        {"filter_chains": [by_name], "default_filter_chain": {"filters": [tcp], "metadata": of("tcproute", "mine")}},
        {"listener_filters": [udp], "metadata": of("udproute", "a.b.0")},
    ]
    found = dump("ListenersConfigDump", dynamic_listeners=[{"active_state": {"listener": li}} for li in listeners])
    assert [r[2:] for r, _ in tables.listeners(found)] == [
        ["SNI: x", "Cluster: outbound|1||h (TLSRoute b.a rule 1)"],
        ["ALL", 'Cluster: outbound|1||h (TCPRoute b.a rule "mine")'],
        ["UDP", "Cluster: datagrams|53 (UDPRoute b.a rule 1)"],
    ]
    assert [tables.kind_of(li) for _, li in tables.listeners(found)] == ["TCP", "TCP", "UDP"]


def test_a_listener_that_is_only_warming_has_no_rows():
    assert tables.listeners(dump("ListenersConfigDump", dynamic_listeners=[{"name": "l", "warming_state": {}}])) == []


@pytest.mark.parametrize(
    ("match", "shown"),
    [
        ({"prefix": "/"}, "/*"),
        ({"path": "/a"}, "/a"),
        ({"safe_regex": {"regex": "a+"}}, "regex a+"),
        ({"prefix": "/", "headers": [{"name": "x", "string_match": {"exact": "1"}}]}, "/* x=1"),
    ],
)
def test_a_route_is_described_by_its_match(match, shown):
    host = {"name": "h", "domains": ["h"], "routes": [{"match": match}]}
    found = dump("RoutesConfigDump", dynamic_route_configs=[{"route_config": {"name": "80", "virtual_hosts": [host]}}])
    assert [r[3] for r, _ in tables.routes(found)] == [shown]


def test_a_gateway_without_rules_answers_404():
    """As in istioctl's table: a host without routes is one."""
    host = {"name": "http.8080/blackhole:80", "domains": ["*"]}
    found = dump(
        "RoutesConfigDump", dynamic_route_configs=[{"route_config": {"name": "http.8080", "virtual_hosts": [host]}}]
    )
    assert [r for r, _ in tables.routes(found)] == [["http.8080", "blackhole:80", "*", "/*", "404"]]


@pytest.mark.parametrize("value", [[], {}, {"configs": 1}, {"configs": [1]}, None, "x"])
def test_input_that_is_not_a_dump_is_refused(value):
    with pytest.raises(DumpError):
        ConfigDump(value)


def test_parts_of_one_kind_are_read_together():
    """Envoy has one for the extensions of requests, and one for those of connections."""
    parts = [{"@type": f"{TYPE}EcdsConfigDump", "ecds_filters": [{"ecds_filter": {"name": n}}]} for n in ("a", "b")]
    assert [e["name"] for e in ConfigDump({"configs": parts}).extensions()] == ["a", "b"]


ZERO = """\
-----BEGIN CERTIFICATE-----
MIIBZjCCAQygAwIBAgIBADAKBggqhkjOPQQDAjARMQ8wDQYDVQQDDAZhLnRlc3Qw
IBcNMjYxMTI3MDAyMTQ3WhgPMjEyNjExMDMwMDIxNDdaMBExDzANBgNVBAMMBmEu
dGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJ8IoSDJs7Z2BvUsoDDDBXLC
RoMvlVEK43jkJJd9uhXAZwX+opJSmBI8tHGvA5LXtCAI6fgptqfrN3bWFdHm0guj
UzBRMB0GA1UdDgQWBBT0/B2CK7pjyhm/FN3WHVZ+URnd4jAfBgNVHSMEGDAWgBT0
/B2CK7pjyhm/FN3WHVZ+URnd4jAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMC
A0gAMEUCIQDjmiwR7EcwS6VF4Y7yG47vdKhsHrhKGRkH0kto5EUViwIgKO/Qj/KY
lKDscXu4mj9U4+BY2HUYF8FjUUHlyovoI3c=
-----END CERTIFICATE-----
"""
"""Made by ``openssl req -x509 -set_serial 0``, as in Istio's task "Secure Gateways"."""


SHOW = """
import datetime, json, sys
from lateen.dump import ConfigDump, secrets
rows = secrets.rows(ConfigDump(json.load(sys.stdin)), datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC))
print(*rows[0][0][3:5])
"""


def test_a_certificate_with_the_serial_number_0_is_shown_without_a_warning():
    secret = {"name": "kubernetes://web", "tls_certificate": {"certificate_chain": {"inline_string": ZERO}}}
    given = {"configs": [{"@type": TYPE + "SecretsConfigDump", "dynamic_active_secrets": [{"secret": secret}]}]}
    done = subprocess.run(
        [sys.executable, "-c", SHOW], input=json.dumps(given), capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("true 0\n", "")
