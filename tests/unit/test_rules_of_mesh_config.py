"""Validation of the mesh configuration and of proxy.istio.io/config, each rule with a value that is accepted."""

import pytest
from envoy.type.v3 import http_status_pb2

from lateen.api.mesh.provider_rules import STATUS_ON_ERROR
from lateen.api.mesh.reading import problems, proxy_config_problems


def table(*rows):
    return pytest.mark.parametrize(("value", "says"), [pytest.param(v, s, id=why) for why, v, s in rows])


def check(found, says):
    said = [str(p) for p in found]
    assert any(says in s for s in said) if says else said == [], said


def authz(**more):
    given = {"service": "authz.default.svc.cluster.local", "port": 9000, **more}
    return {"extensionProviders": [{"name": "a", "envoyExtAuthzHttp": given}]}


@table(
    ("a time to connect", {"connectTimeout": "10s"}, None),
    ("at most an hour", {"connectTimeout": "2h"}, "time 2h must be >1ms and <1h0m0s"),
    ("in milliseconds", {"connectTimeout": "1500us"}, "only durations to ms precision"),
    ("no detection", {"protocolDetectionTimeout": "0s"}, None),
    ("detection in milliseconds", {"protocolDetectionTimeout": "1500us"}, "only durations to ms precision"),
    ("a trust domain", {"trustDomain": "td.example.com."}, None),
    ("is no path", {"trustDomain": "a/b"}, 'trust domain name "a/b" invalid'),
    ("an alias is one, too", {"trustDomainAliases": ["a_b"]}, "trustDomainAliases[0]"),
    ("an alias is something", {"trustDomainAliases": [""]}, "empty domain name not allowed"),
    (
        "one half of localities",
        {"localityLbSetting": {"distribute": [{"from": "a", "to": {"b": 50}}]}},
        "weight 50 != 100",
    ),
    (
        "regions that differ",
        {"localityLbSetting": {"failover": [{"from": "a", "to": "a"}]}},
        "must specify different regions",
    ),
    ("another region", {"localityLbSetting": {"failover": [{"from": "a", "to": "b"}]}}, None),
    ("a policy of Envoy's", {"defaultHttpRetryPolicy": {"attempts": 1, "retryOn": "nope"}}, '"nope" is not a valid'),
    ("a pool says something", {"defaultTrafficPolicy": {"connectionPool": {}}}, "must have at least one field"),
    (
        "a share of hosts",
        {"defaultTrafficPolicy": {"outlierDetection": {"maxEjectionPercent": 101}}},
        "in range 0..100",
    ),
    ("hosts of a cluster", {"serviceSettings": [{"hosts": ["*.a.svc.cluster.local"]}]}, None),
    ("are hosts", {"serviceSettings": [{"hosts": ["a b"]}]}, 'label "a b" invalid'),
    ("curves are for gateways", {"meshMTLS": {"ecdhCurves": ["P-256"]}}, "does not support ECDH curves"),
    ("a port", {"proxyListenPort": 70000}, "port number 70000 must be in the range"),
    ("a number of 32 bits", {"defaultConfig": {"statNameLength": 2**40}}, "is larger than 4294967295"),
)
def test_values_of_the_mesh_configuration(value, says):
    check(problems(value, ""), says)


@table(
    ("a host", authz(), None),
    ("a host of a namespace", authz(service="a/authz.test"), None),
    ("an address", authz(service="10.0.0.1"), None),
    ("nothing", authz(service=""), "service must not be empty"),
    ("no host", authz(service="a b"), "invalid service fmt a b"),
    ("no namespace", authz(service="a b/authz.test"), 'invalid namespace value "a b"'),
    ("a port", authz(port=0), "port number 0"),
    ("a status", authz(statusOnError="503"), None),
    ("no status", authz(statusOnError="oops"), "unsupported statusOnError value oops"),
    ("a status that Envoy does not know", authz(statusOnError="418"), "unsupported statusOnError value 418"),
    ("a path", authz(pathPrefix="/check"), None),
    ("no path", authz(pathPrefix="check"), "pathPrefix should begin with `/`"),
    ("a name", {"extensionProviders": [{"name": "", "prometheus": {}}]}, "empty extension provider name"),
    (
        "a name twice",
        {"extensionProviders": [{"name": "a", "prometheus": {}}] * 2},
        "duplicate extension provider name a",
    ),
    (
        "one way to send",
        {"extensionProviders": [{"name": "a", "opentelemetry": {"service": "a", "port": 1, "grpc": {}, "http": {}}}]},
        "cannot specify both grpc and http",
    ),
)
def test_extension_providers(value, says):
    check(problems(value, ""), says)


@table(
    ("a drain", {"drainDuration": "45s"}, None),
    ("of whole seconds", {"drainDuration": "1500ms"}, "only supports durations to seconds precision"),
    ("of some", {"drainDuration": "0s"}, "invalid drain duration: duration must be greater than 1ms"),
    ("a host and a port", {"discoveryAddress": "istiod.istio-system.svc:15012"}, None),
    ("an IPv6 address in brackets", {"discoveryAddress": "[2001:db8::1]:15012"}, None),
    ("and only so", {"discoveryAddress": "2001:db8::1:15012"}, "is not a host and a port"),
    ("without a port", {"discoveryAddress": "istiod"}, "is not a host and a port"),
    ("a port is a number", {"statsdUdpAddress": "a.test:http"}, "port (http) is not a number"),
    ("of 16 bits", {"envoyAccessLogService": {"address": "a.test:70000"}}, "port number 70000"),
    ("a host has no empty label", {"envoyMetricsService": {"address": "a..b:80"}}, "is not a host and a port"),
    ("the node's collector", {"tracing": {"zipkin": {"address": "$(HOST_IP):9411"}}}, None),
    ("a collector is somewhere", {"tracing": {"zipkin": {}}}, "address is required"),
    ("a collector lets somebody in", {"tracing": {"lightstep": {"address": "a.test:80"}}}, "access token is required"),
    ("a share of requests", {"tracing": {"sampling": 101}}, "percentage 101 is not in range"),
    ("a client has a key", {"tracing": {"tlsSettings": {"mode": "MUTUAL"}}}, "private key required for mutual tls"),
    ("keys are somewhere", {"privateKeyProvider": {}}, "one of cryptomb, qat"),
    ("and are asked for", {"privateKeyProvider": {"cryptomb": {"pollDelay": "0s"}}}, "must be non zero"),
    ("in time", {"privateKeyProvider": {"cryptomb": {"pollDelay": "10ms"}}}, None),
    ("threads are counted", {"concurrency": -1}, "non-negative"),
)
def test_values_of_a_proxys_configuration(value, says):
    check(proxy_config_problems(value, ""), says)


def test_every_status_that_is_taken_has_a_name_in_envoy():
    assert set(http_status_pb2.StatusCode.values()) >= STATUS_ON_ERROR
