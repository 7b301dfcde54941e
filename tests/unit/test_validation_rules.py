"""Rules of Istio's validation, each with a value that is rejected or warned about and one that is not."""

import pytest

from lateen.api import validate

VERSIONS = {"EnvoyFilter": "networking.istio.io/v1alpha3"}


def said(kind, spec, name="x", **meta):
    obj = {
        "apiVersion": VERSIONS.get(kind, "networking.istio.io/v1"),
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop", **meta},
        "spec": spec,
    }
    return [t for _, t in validate.problems(obj)], [t for _, t in validate.warnings(obj)]


def gateway(host="a.test", protocol="HTTP", **server):
    port = {"number": 443, "name": "p", "protocol": protocol}
    return {"selector": {"a": "b"}, "servers": [{"port": port, "hosts": [host], **server}]}


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("*.a.test", None),
        ("*", None),
        ("shop/*", None),
        ("./a.test", None),
        ("shop/10.0.0.1", None),
        ("10.0.0.1", None),
        ("*-a.test", "partial wildcard"),
        ("shop/*-a.test", "partial wildcard"),
        ("short", "short names (non FQDN) are not allowed"),
        ("~/a.test", 'invalid namespace value "~" in gateway'),
        ("a.b/a.test", 'invalid namespace value "a.b" in gateway'),
        ("/a.test", "cannot be empty"),
    ],
)
def test_hosts_of_a_gateway(host, words):
    errors, _ = said("Gateway", gateway(host))
    assert any(words in e for e in errors) if words else errors == []


def test_a_gateway_from_the_gateway_api_may_have_no_namespace_and_a_dotted_name():
    notes = {"internal.istio.io/gateway-semantics": "gateway"}
    assert said("Gateway", gateway("~/a.test"), "a.b", annotations=notes)[0] == []
    assert "invalid gateway name" in said("Gateway", gateway(), "a.b")[0][0]


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("serverCertificate", "/c", "server certificate"),
        ("privateKey", "/k", "private key"),
        ("caCertificates", "/ca", "CA bundle"),
        ("credentialName", "n", "credentialName"),
    ],
)
def test_istio_mutual_says_which_certificate_it_cannot_have(field, value, what):
    errors, _ = said("Gateway", gateway(protocol="HTTPS", tls={"mode": "ISTIO_MUTUAL", field: value}))
    assert any(f"ISTIO_MUTUAL TLS cannot have associated {what}" in e for e in errors)


def test_tls_on_a_port_of_plain_tcp_is_refused_and_old_versions_need_ciphers():
    tls = {"mode": "SIMPLE", "credentialName": "n"}
    assert any("non HTTPS/TLS ports" in e for e in said("Gateway", gateway(protocol="TCP", tls=tls))[0])
    old = {**tls, "minProtocolVersion": "TLSV1_1"}
    assert any(
        "require setting compatible ciphers" in w for w in said("Gateway", gateway(protocol="HTTPS", tls=old))[1]
    )
    with_ciphers = {**old, "cipherSuites": ["ECDHE-RSA-AES128-SHA"]}
    assert not any("compatible" in w for w in said("Gateway", gateway(protocol="HTTPS", tls=with_ciphers))[1])


@pytest.mark.parametrize(
    ("lowest", "highest", "warned"),
    [
        ("TLSV1_3", "TLSV1_2", True),
        ("", "TLSV1_1", True),
        ("TLSV1_2", "TLSV1_2", False),
        ("TLSV1_0", "TLSV1_1", False),
        ("TLSV1_3", "TLS_AUTO", False),
    ],
)
def test_versions_of_tls_that_no_client_can_have_are_warned_about(lowest, highest, warned):
    tls = {"mode": "SIMPLE", "credentialName": "n", "minProtocolVersion": lowest, "maxProtocolVersion": highest}
    warnings = said("Gateway", gateway(protocol="HTTPS", tls=tls))[1]
    assert any("nobody can connect" in w for w in warnings) is warned


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"tunnel": {"targetHost": "a.test", "targetPort": 443}, "proxyProtocol": {}}, "must not be set together"),
        ({"tunnel": {"protocol": "connect", "targetHost": "a.test", "targetPort": 443}}, '"CONNECT" or "POST"'),
        ({"tunnel": {"protocol": "CONNECT", "targetHost": "a.test", "targetPort": 443}}, None),
        ({"loadBalancer": {"consistentHash": {"useSourceIp": True, "maglev": {"tableSize": 0}}}}, "must be set"),
        ({"loadBalancer": {"consistentHash": {"useSourceIp": True, "maglev": {"tableSize": 5000011}}}}, "less than"),
        ({"loadBalancer": {"consistentHash": {"useSourceIp": True, "maglev": {"tableSize": 65537}}}}, None),
        ({"connectionPool": {"tcp": {"tcpKeepalive": {"time": "0.1ms"}}}}, "greater than 1ms"),
    ],
)
def test_settings_of_a_traffic_policy(policy, words):
    errors, _ = said("DestinationRule", {"host": "a", "trafficPolicy": policy})
    assert any(words in e for e in errors) if words else errors == []


def test_two_subsets_of_one_name_are_refused():
    subsets = [{"name": "v1", "labels": {"v": "1"}}, {"name": "v1", "labels": {"v": "2"}}]
    assert "duplicate subset names: v1" in said("DestinationRule", {"host": "a", "subsets": subsets})[0]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"workloadSelector": {"labels": {"a": "b"}}}, "empty configuration provided"),
        ({"egress": [{"hosts": ["./short"]}]}, "short names (non FQDN) are not allowed"),
        ({"egress": [{"hosts": ["a.b/a.test"]}]}, "invalid namespace value"),
        ({"egress": [{"hosts": ["*/*-a.test"]}]}, "partial wildcard"),
        ({"egress": [{"hosts": ["*/*"], "port": {"number": 0, "protocol": "HTTP"}}]}, "unix domain socket"),
        ({"egress": [{"hosts": ["*/*"], "port": {"number": 0, "protocol": "HTTP"}, "bind": "unix:///a"}]}, None),
        ({"egress": [{"hosts": ["~/*", "./*"]}]}, None),
    ],
)
def test_listeners_of_a_sidecar(spec, words):
    errors, _ = said("Sidecar", spec)
    assert any(words in e for e in errors) if words else errors == []


def entry(host="a.test", resolution="STATIC", **more):
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}]
    return {"hosts": [host], "ports": ports, "resolution": resolution, **more}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (entry("*-a.test", "NONE"), "partial wildcard"),
        (entry("*.a.test", "NONE", workloadSelector={"labels": {"a": "b"}}), "resolution mode is NONE"),
    ],
)
def test_what_a_service_entry_is_warned_of(spec, words):
    assert any(words in w for w in said("ServiceEntry", spec)[1])


def test_a_workload_without_an_address_needs_a_network_and_is_warned_of():
    assert "address is required" in said("WorkloadEntry", {"labels": {"a": "b"}})[0]
    assert said("WorkloadEntry", {"network": "n1"}) == ([], ['address is unset with network "n1"'])


@pytest.mark.parametrize(("probe", "good"), [({"periodSeconds": 1}, False), ({"tcpSocket": {"port": 80}}, True)])
def test_a_probe_needs_a_method(probe, good):
    errors, _ = said("WorkloadGroup", {"template": {}, "probe": probe})
    assert (errors == []) is good


def patch(apply_to, value, **listener):
    where = {"match": {"listener": listener}} if listener else {}
    return {"configPatches": [{"applyTo": apply_to, **where, "patch": {"operation": "INSERT_FIRST", "value": value}}]}


LUA = {"@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (patch("HTTP_FILTER", {"name": "envoy.lua", "typed_config": LUA}), 'use "envoy.filters.http.lua" instead'),
        (patch("HTTP_FILTER", {"name": "envoy.filters.http.lua"}), "without typed_config; envoy.filters.http.lua"),
        (patch("HTTP_FILTER", {"name": "envoy.filters.http.lua", "typed_config": LUA}), None),
        (
            patch("LISTENER", {"name": "a"}, filterChain={"filter": {"name": "envoy.filters.network.tcp_proxy"}}),
            "filter match has no effect when used with LISTENER",
        ),
        (
            patch(
                "NETWORK_FILTER",
                {"name": "a", "typed_config": LUA},
                filterChain={"filter": {"name": "envoy.http_connection_manager"}},
            ),
            'use "envoy.filters.network.http_connection_manager" instead',
        ),
    ],
)
def test_old_names_and_matches_of_an_envoy_filter(spec, words):
    errors, warnings = said("EnvoyFilter", spec)
    assert errors == []
    assert any(words in w for w in warnings) if words else warnings == []
