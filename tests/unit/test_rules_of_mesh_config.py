"""Validation of the mesh configuration and of proxy.istio.io/config, each rule with a value that is accepted."""

import pytest
from envoy.type.v3 import http_status_pb2

from lateen.api.mesh import effect
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


def provider(kind, **more):
    return {"extensionProviders": [{"name": "a", kind: {"service": "a.default.svc.cluster.local", "port": 9, **more}}]}


@table(
    ("a body has a size", authz(includeRequestBodyInCheck={"maxRequestBytes": 0}), "maxRequestBytes: must be"),
    ("a body of one byte", authz(includeRequestBodyInCheck={"maxRequestBytes": 1}), None),
    ("no negative time", authz(timeout="-1s"), 'timeout: must not be negative, got "-1s"'),
    ("no time at all", authz(timeout="0s"), None),
    ("nor of a collector", provider("zipkin", timeout="-1s"), "zipkin.timeout: must not be negative"),
    ("by gRPC", provider("opentelemetry", grpc={"timeout": "-1s"}), "opentelemetry.grpc.timeout: must not"),
    ("by HTTP", provider("opentelemetry", http={"timeout": "-1s"}), "opentelemetry.http.timeout: must not"),
    ("an added header has a name", authz(includeAdditionalHeadersInCheck={"": "x"}), '"" is not the name of a header'),
    ("of one line", authz(includeAdditionalHeadersInCheck={"x": "a\nb"}), "[x]: has control characters"),
    ("a path of a URL", provider("opentelemetry", http={"path": "/a b"}), "is not the path of a URL"),
    ("a slash may be missing as in Istio", provider("opentelemetry", http={"path": "v1/traces"}), None),
    ("but not there", provider("zipkin", path="spans"), "does not begin with a slash"),
    (
        "a value or a variable",
        provider("zipkin", headers=[{"name": "a", "value": "b", "envName": "C"}]),
        "headers[0]: has value and envName",
    ),
    ("labels of text", provider("envoyOtelAls", logFormat={"labels": {"a": {"b": ["c"]}}}), None),
    ("and no numbers", provider("envoyOtelAls", logFormat={"labels": {"a": {"b": 3}}}), "must be text"),
    ("each with a name", provider("envoyOtelAls", logFormat={"labels": {"": "x"}}), "must be text"),
    ("a file's path", {"accessLogFile": "stdout"}, '"stdout" is not an absolute path; write one, as in /dev/stdout'),
    (
        "of a provider, too",
        {"extensionProviders": [{"name": "a", "envoyFileAccessLog": {"path": "logs/x"}}]},
        "envoyFileAccessLog.path: ",
    ),
    ("a keepalive for Linux", {"tcpKeepalive": {"time": "32767s", "probes": 127}}, None),
    ("not longer", {"tcpKeepalive": {"interval": "32768s"}}, "tcpKeepalive.interval: 32768s is longer than 32767s"),
    ("nor more often", {"tcpKeepalive": {"probes": 128}}, "tcpKeepalive.probes: 128 is more than 127"),
)
def test_what_envoy_would_refuse_with_all_listeners_is_refused_before(value, says):
    check(problems(value, ""), says)


@table(
    ("a label", {"matchLabels": {"a.b/c": "d"}}, None),
    ("no other key", {"matchLabels": {"bad key!": "x"}}, 'invalid tag key: "bad key!"'),
    ("no other value", {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b c"]}]}, "invalid tag value"),
    ("values to be in", {"matchExpressions": [{"key": "a", "operator": "In"}]}, "operator In needs values"),
    (
        "none to exist",
        {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]},
        "operator Exists takes no values",
    ),
)
def test_discovery_selectors_are_kubernetes_selectors(value, says):
    check(problems({"discoverySelectors": [value]}, ""), says)


@table(
    ("a value", {"customTags": {"a": {"literal": {"value": "b"}}}}, None),
    ("some value", {"customTags": {"a": {}}}, "needs one of literal, environment and header; it has none"),
    ("one value", {"customTags": {"a": {"literal": {"value": "b"}, "header": {"name": "c"}}}}, "literal and header"),
    ("that is not empty", {"customTags": {"a": {"literal": {}}}}, "literal tag value may not be empty"),
    ("of a header", {"customTags": {"a": {"header": {}}}}, "header tag name may not be empty"),
    ("with a name", {"customTags": {"": {"literal": {"value": "b"}}}}, "tag name may not be empty"),
    ("one tracer", {"zipkin": {"address": "a:1"}, "datadog": {"address": "a:1"}}, "zipkin and datadog; give only one"),
)
def test_tracing_of_a_proxys_configuration(value, says):
    check(proxy_config_problems({"tracing": value}, ""), says)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"defaultProviders": {"tracing": ["nosuch"]}}, "defaultProviders.tracing[0]: nosuch has no effect: the mesh"),
        (
            {"defaultProviders": {"metrics": ["prometheus", "envoy"]}},
            "defaultProviders.metrics[1]: envoy has no effect",
        ),
        ({"accessLogFile": "/var/log/x"}, "accessLogFile: /var/log/x: where a proxy cannot open"),
        ({"proxy_listen_port": 3}, "the field mesh.proxyListenPort has no effect"),
        (
            {"default_config": {"custom_config_file": "x"}},
            "the field mesh.defaultConfig.customConfigFile has no effect",
        ),
    ],
)
def test_what_leads_to_nothing_is_told_by_name(config, says):
    assert problems(config, "mesh") == []
    (said,) = effect.ineffective(config, "mesh")
    assert says in said


@pytest.mark.parametrize(
    "config",
    [
        {"defaultProviders": {"metrics": ["Prometheus"], "accessLogging": ["envoy"]}},
        {"accessLogFile": "/dev/stderr"},
        {"extensionProviders": [{"name": "a", "zipkin": {"service": "a.b", "port": 9, "enable_64bit_trace_id": True}}]},
        {"extensionProviders": [{"name": "a", "zipkin": {"service": "a.b", "port": 9, "enable64bitTraceId": True}}]},
    ],
)
def test_what_works_is_not(config):
    assert problems(config, "mesh") == []
    assert effect.ineffective(config, "mesh") == []
