"""Messages of validation that scripts look for are Istio's; warnings that only Lateen gives are told apart."""

import pytest
from test_validation_rules import said

from lateen.analysis import Snapshot, analyze
from lateen.analysis.snapshot import Source
from lateen.api import validate

ROUTE = [{"destination": {"host": "a.test"}}]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("*", "missing argument to repetition operator: `*`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("[a", "missing closing ]: `[a`"),
        ("(a", "missing closing ): `(a`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("a\\", "trailing backslash at end of expression"),
    ],
)
def test_a_bad_regular_expression_is_described_as_by_go(pattern, words):
    patch = {"applyTo": "LISTENER", "patch": {"operation": "REMOVE"}, "match": {"proxy": {"proxyVersion": pattern}}}
    (says,), _ = said("EnvoyFilter", {"configPatches": [patch]})
    assert says == f"Envoy filter: invalid regex for proxy version, [error parsing regexp: {words}]"


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("Gateway", {"servers": [None]}, "cannot have nil server"),
        ("DestinationRule", {"host": "a.test", "subsets": [None]}, "subset may not be null"),
        ("ServiceEntry", {"hosts": ["a.test"], "ports": [None]}, "service entry port may not be null"),
        ("VirtualService", {"hosts": ["a.test"], "http": [None]}, "http route may not be null"),
        ("EnvoyFilter", {"configPatches": [None]}, "Envoy filter: null config patch"),
        ("Sidecar", {"egress": [None]}, "egress listener may not be null"),
    ],
)
def test_a_null_in_a_list_is_refused_in_the_words_of_istio(kind, spec, words):
    assert any(words in e for e in said(kind, spec)[0])


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        (
            "VirtualService",
            {
                "hosts": ["a.test"],
                "gateways": ["mesh", "web"],
                "http": [{"match": [{"headers": {"@request.auth.claims.sub": {"exact": "x"}}}], "route": ROUTE}],
            },
            "is only supported for gateway, found no gateways: [mesh web]",
        ),
        (
            "VirtualService",
            {"hosts": ["a.test"], "http": [{"route": ROUTE, "corsPolicy": {"allowHeaders": ["x y"]}}]},
            "header name x y is not a valid header name",
        ),
        (
            "VirtualService",
            {"hosts": ["a.test"], "http": [{"route": ROUTE, "fault": {"abort": {"grpcStatus": "GONE"}}}]},
            'gRPC status "GONE" is not supported. See https://github.com/grpc/grpc/blob/master/doc/statuscodes.md',
        ),
        (
            "Gateway",
            {"servers": [{"port": {"number": 80, "name": "x", "protocol": "QUIC"}, "hosts": ["*"]}]},
            'invalid protocol "QUIC", supported protocols are HTTP, HTTP2, GRPC, GRPC-WEB, MONGO, REDIS, MYSQL, TCP',
        ),
        (
            "ServiceEntry",
            {
                "hosts": ["a.test"],
                "resolution": "STATIC",
                "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
                "endpoints": [{"address": "1.1.1.1", "ports": {"web": 8080}}],
            },
            "endpoint port 8080 is not defined by the service entry",
        ),
    ],
)
def test_what_is_wrong_is_said_with_istios_words(kind, spec, words):
    assert any(words in e for e in said(kind, spec)[0])


def test_a_maglev_table_of_one_place_is_as_good_as_envoy_thinks():
    hashed = {"useSourceIp": True, "maglev": {"tableSize": 1}}
    spec = {"host": "a.test", "trafficPolicy": {"loadBalancer": {"consistentHash": hashed}}}
    assert said("DestinationRule", spec)[0] == []


def test_a_service_entry_that_resolves_nothing_should_not_select_workloads():
    spec = {
        "hosts": ["a.test"],
        "resolution": "NONE",
        "workloadSelector": {"labels": {"app": "a"}},
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
    }
    assert any("should not be set when resolution mode is NONE" in w for w in said("ServiceEntry", spec)[1])
    for resolution in ("STATIC", "DNS"):  # workloads may have addresses or names
        assert said("ServiceEntry", {**spec, "resolution": resolution}) == ([], [])


def policy(**rule):
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "x", "namespace": "shop"},
        "spec": {"action": "DENY", "rules": [rule]},
    }


@pytest.mark.parametrize(
    ("rule", "own"),
    [
        ({"to": [{"operation": {"methods": ["PUT"]}}]}, False),
        ({"from": [{"source": {"requestPrincipals": ["*"]}}]}, False),
        ({"when": [{"key": "request.headers[x]", "values": ["a"]}]}, True),
        ({"from": [{"source": {"principals": ["spiffe://cluster.local/ns/a/sa/b"]}}]}, True),
    ],
)
def test_hints_that_istio_does_not_give_have_a_code_of_their_own(rule, own):
    (found,) = validate.findings(policy(**rule))
    assert found.warning
    assert found.own == own
    snapshot = Snapshot([Source(policy(**rule))], {}, {})
    by_istio, ours = (
        [m.kind.code for m in analyze(snapshot, [f"schema.{name}Analyzer"])] for name in ("Validation", "Hint")
    )
    assert (by_istio, ours) == (([], ["LAT0124"]) if own else (["IST0133"], []))
