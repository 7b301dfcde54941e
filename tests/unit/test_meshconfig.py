"""The mesh configuration: mistakes are named, the last valid version stays in use, ineffective fields have warnings."""

import typing

import pytest

from lateen.api import kinds, mesh, operators
from lateen.api.config import Config, Duration, unwrap
from lateen.api.config import fields as fields_of
from lateen.api.mesh import effect
from lateen.api.mesh.accesslog import TEXT
from lateen.api.mesh.reading import Invalid, mesh_config, problems, proxy_config_problems
from lateen.control.world import World
from lateen.kit import certs, times, yamldoc
from lateen.mesh.configuration import settings
from lateen.mesh.settings import MeshConfig

KEY = ("istio-system", "istio")
KEPT = ("istio-system", "istio-accepted-config")


def config_map(text):
    return {"metadata": {"name": "istio", "namespace": "istio-system"}, "data": {"mesh": text}}


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("outboundTrafficPolicy: REGISTRY_ONLY", "outboundTrafficPolicy", "write it as {mode: REGISTRY_ONLY}"),
        ("outboundTrafficPolicy: {mode: REGISTRY_ONLI}", "outboundTrafficPolicy.mode", 'did you mean "REGISTRY_ONLY"'),
        ("nonsense: 1", "nonsense", "unknown field"),
        ("acessLogFile: /dev/stdout", "acessLogFile", 'did you mean "accessLogFile"'),
        ("connectTimeout: 5 parsecs", "connectTimeout", "expected a duration"),
        ("connectTimeout: 0s", "connectTimeout", "greater than 1ms"),
        ("enableTracing: 'yes'", "enableTracing", "expected true or false"),
        ("accessLogFile: {a: b}", "accessLogFile", "expected text"),
        ("trustDomain: 7", "trustDomain", 'quote it ("7")'),
        ("defaultConfig: {concurrency: many}", "defaultConfig.concurrency", "expected a whole number"),
        ("defaultConfig: {proxyMetadata: {A: 1}}", "defaultConfig.proxyMetadata[A]", 'quote it ("1")'),
        ("extensionProviders: {name: a}", "extensionProviders", "expected a list"),
        ("extensionProviders: [{name: a}]", "extensionProviders[0]", "exactly one provider"),
        ("lateen: {telemetry: none}", "lateen.telemetry", "full or lean"),
        ("- a", "mesh", "expected an object"),
        ("accessLogFormat: '%NOSUCH%'", "accessLogFormat", "no operator %NOSUCH%"),
        ("accessLogFormat: '%REQ%'", "accessLogFormat", "needs an argument"),
        ("accessLogFormat: '100% sure'", "accessLogFormat", "%% for a percent sign"),
        (
            "discoverySelectors: [{matchExpressions: [{key: a, operator: Is, values: [b]}]}]",
            "discoverySelectors[0].matchExpressions[0].operator",
            "is not In, NotIn",
        ),
        (
            "defaultConfig: {proxyStatsMatcher: {inclusionRegexps: ['(']}}",
            "defaultConfig.proxyStatsMatcher.inclusionRegexps[0]",
            "missing closing )",
        ),
        (
            "defaultConfig: {runtimeValues: {overload.global_downstream_max_connections: many}}",
            "defaultConfig.runtimeValues[overload.global_downstream_max_connections]",
            "not a number of connections",
        ),
        ("defaultVirtualServiceExportTo: ['~']", "defaultVirtualServiceExportTo[0]", "not allowed"),
        ("defaultServiceExportTo: ['a b']", "defaultServiceExportTo[0]", "not the name of a namespace"),
    ],
)
def test_a_mistake_is_named_with_its_path_and_a_remedy(text, path, says):
    with pytest.raises(Invalid) as caught:
        mesh_config(text)
    assert [(p.path, says in p.says) for p in caught.value.problems] == [(path, True)]


def test_all_mistakes_are_found_at_once():
    found = problems({"nonsense": 1, "connectTimeout": "x", "defaultConfig": {"concurency": 1}})
    assert [p.path for p in found] == [
        "meshConfig.nonsense",
        "meshConfig.connectTimeout",
        "meshConfig.defaultConfig.concurency",
    ]


def test_protobuf_spellings_are_read():
    found = mesh_config(
        "access_log_file: /dev/stdout\n"
        "trustDomain: null\n"
        "extensionProviders: [{name: a, envoyExtAuthzHttp: {service: s, port: '8000'}}]"
    )
    assert found.access_log_file == "/dev/stdout"
    assert found.extension_providers[0].envoy_ext_authz_http.port == 8000


def test_a_pods_own_proxy_configuration_is_checked_alike():
    assert [p.path for p in proxy_config_problems({"drainDuration": "45s", "concurrency": "2"})] == []
    assert [p.path for p in proxy_config_problems({"drain": "45s"})] == ["proxy.istio.io/config.drain"]


@pytest.mark.parametrize("text", [TEXT, "%REQ_WITHOUT_QUERY(:PATH)% 100%% %START_TIME(%s.%3f)% %RESP(A?B):10%\n"])
def test_formats_that_envoy_accepts_are_accepted(text):
    assert list(operators.problems(text)) == []


# --- which one counts ---------------------------------------------------------------------------------------------


def test_a_misspelt_policy_keeps_the_last_valid_configuration():
    world = World("istio-system", lambda: None)
    world.changed(kinds.CONFIG_MAP, KEY, None, config_map("outboundTrafficPolicy: {mode: REGISTRY_ONLY}"))
    world.changed(kinds.CONFIG_MAP, KEY, None, config_map("outboundTrafficPolicy: REGISTRY_ONLY"))
    assert world.objects.config.outbound.mode == "REGISTRY_ONLY"
    assert "outboundTrafficPolicy" in world.bad[kinds.CONFIG_MAP.ref("istio-system", "istio")]
    world.changed(kinds.CONFIG_MAP, KEY, None, config_map("outboundTrafficPolicy: {mode: ALLOW_ANY}"))
    assert world.objects.config.outbound.mode == "ALLOW_ANY"
    assert not world.bad


@pytest.mark.parametrize("first", [KEY, KEPT])
def test_a_restart_does_not_lose_the_last_valid_configuration(first):
    """Whichever of the two ConfigMaps istiod sees first."""
    texts = {KEY: "connectTimeout: 5 parsecs", KEPT: "accessLogFile: /dev/stdout"}
    world = World("istio-system", lambda: None)
    for key in sorted(texts, key=lambda k: k != first):
        world.changed(kinds.CONFIG_MAP, key, None, config_map(texts[key]))
    assert world.objects.config.reporting.access_log_file == "/dev/stdout"
    assert "connectTimeout" in world.bad[kinds.CONFIG_MAP.ref("istio-system", "istio")]


def test_without_a_valid_configuration_unknown_hosts_are_blocked():
    world = World("istio-system", lambda: None)
    world.changed(kinds.CONFIG_MAP, KEY, None, config_map("outboundTrafficPolicy: {mode: REGISTRY_ONLI}"))
    assert world.objects.config.outbound.mode == "REGISTRY_ONLY"


def test_deleting_the_config_map_opens_nothing():
    world = World("istio-system", lambda: None)
    world.changed(kinds.CONFIG_MAP, KEY, None, config_map("outboundTrafficPolicy: {mode: REGISTRY_ONLY}"))
    world.changed(kinds.CONFIG_MAP, KEY, config_map(""), None)
    assert world.objects.config.outbound.mode == "REGISTRY_ONLY"


def test_a_deleted_config_map_is_told_after_a_restart_too():
    """Until there is one."""
    ref = kinds.CONFIG_MAP.ref("istio-system", "istio")
    world = World("istio-system", lambda: None)
    world.changed(kinds.CONFIG_MAP, KEPT, None, config_map("outboundTrafficPolicy: {mode: REGISTRY_ONLY}"))
    assert world.objects.config.outbound.mode == "REGISTRY_ONLY"
    assert "has been deleted; its last content stays in effect" in world.bad[ref]
    world.changed(kinds.CONFIG_MAP, KEY, None, config_map("outboundTrafficPolicy: {mode: ALLOW_ANY}"))
    assert world.objects.config.outbound.mode == "ALLOW_ANY"
    assert not world.bad


# --- which fields have an effect ----------------------------------------------------------------------------------


def leaf_paths(kind, path=""):
    kind = unwrap(kind)
    origin = typing.get_origin(kind)
    if origin is tuple:
        yield from leaf_paths(typing.get_args(kind)[0], f"{path}[]")
    elif origin is dict:
        yield f"{path}{{}}", typing.get_args(kind)[1]
    elif isinstance(kind, type) and issubclass(kind, Config) and fields_of(kind):
        for name, child in fields_of(kind).items():
            yield from leaf_paths(child, f"{path}.{name}" if path else name)
    else:
        yield path, kind


LEAVES = {path.removesuffix("[]"): kind for path, kind in leaf_paths(mesh.MeshConfig)}


LISTS = {path.removesuffix("[]") for path, _ in leaf_paths(mesh.MeshConfig) if path.endswith("[]")}


def test_the_ledger_names_fields_that_exist():
    for path in effect.IDLE:
        stem = path.removesuffix(".**")
        assert any(leaf == stem or leaf.startswith((f"{stem}.", f"{stem}[", f"{stem}{{")) for leaf in LEAVES), path
    assert set(effect.SAME) <= LEAVES.keys()


ROOT = certs.authority("other", times.now()).certificate
SPECIAL = {
    "caCertificates[].pem": certs.authority("another", times.now()).certificate,
    "outboundTrafficPolicy.mode": "REGISTRY_ONLY",
    "outboundTrafficPolicy.tls.mode": "DISABLE",
    "outboundTrafficPolicy.tls.caCrl": "/crl",
    "outboundTrafficPolicy.tls.clientCertificate": "/other",
    "outboundTrafficPolicy.tls.privateKey": "/other",
    "outboundTrafficPolicy.tls.insecureSkipVerify": True,
    "inboundTrafficPolicy.mode": "LOCALHOST",
    "lateen.telemetry": "lean",
    "lateen.http2": False,
    "enableAutoMtls": False,
    "serviceEntryVisibility.defaultVisibility": "NONE",
    "serviceEntryVisibility.applyToSidecars": False,
    "serviceEntryVisibility.policies[].visibility": "NAMESPACE",
    "serviceEntryVisibility.policies[].matchingRules[].namespaceSelector.matchExpressions[].operator": "NotIn",
    "verifyCertificateAtClient": False,
    "ingressControllerMode": "OFF",
    "h2UpgradePolicy": "UPGRADE",
    "pathNormalization.normalization": "NONE",
    "accessLogFile": "/dev/stderr",
    "accessLogFormat": "%PROTOCOL%",
    "extensionProviders[].envoyFileAccessLog.path": "/dev/stderr",
    "extensionProviders[].envoyOtelAls.logFormat.labels{}": "%PROTOCOL%",
    "extensionProviders[].zipkin.path": "/sample",
    "accessLogEncoding": "JSON",
    "defaultConfig.tracingServiceName": "CANONICAL_NAME_ONLY",
    "extensionProviders[].zipkin.traceContextOption": "USE_B3_WITH_W3C_PROPAGATION",
    "extensionProviders[].opentelemetry.resourceDetectors.environment": {},
    "extensionProviders[].opentelemetry.resourceDetectors.dynatrace": {},
    "defaultConfig.tracing.customTags{}": {"literal": {"value": "v"}},
    "defaultConfig.tracing.zipkin.address": "zipkin:9411",
    "defaultConfig.gatewayTopology.forwardClientCertDetails": "SANITIZE",
    "defaultConfig.gatewayTopology.proxyProtocol": {},
    "defaultConfig.proxyHeaders.forwardedClientCert": "SANITIZE",
    "defaultConfig.connectionSettings.profile": "EDGE",
    "defaultConfig.connectionSettings.http2InitialStreamWindowSize": 65536,
    "defaultConfig.connectionSettings.http2InitialConnectionWindowSize": 65536,
    "defaultConfig.connectionSettings.httpHeadersWithUnderscoresAction": "HEADERS_WITH_UNDERSCORES_DROP_HEADER",
    "defaultConfig.connectionSettings.httpPathWithEscapedSlashesAction": "REJECT_REQUEST",
    "extensionProviders[].envoyExtAuthzGrpc.statusOnError": "503",
    "extensionProviders[].envoyExtAuthzHttp.statusOnError": "503",
    "extensionProviders[].envoyExtAuthzHttp.pathPrefix": "/a",
    "localityLbSetting.distribute[].to{}": 100,
    "meshMTLS.minProtocolVersion": "TLSV1_3",
    "meshMTLS.cipherSuites": "ECDHE-RSA-AES256-GCM-SHA384",
    "tlsDefaults.minProtocolVersion": "TLSV1_3",
    "tlsDefaults.cipherSuites": "ECDHE-RSA-AES256-GCM-SHA384",
    "tlsDefaults.ecdhCurves": "P-384",
    "defaultHttpRetryPolicy.retryOn": "5xx",
    "discoverySelectors[].matchExpressions[].operator": "NotIn",
}
SAMPLES = {str: "sample", int: 7, bool: True, float: 0.5, Duration: "7s"}
SERVED = ("envoyExtAuthzGrpc", "envoyExtAuthzHttp", "zipkin", "datadog", "skywalking", "opentelemetry")
ASKED = ("envoyExtAuthzGrpc", "envoyExtAuthzHttp")
LOGS = ("envoyHttpAls", "envoyTcpAls", "envoyOtelAls")
ENOUGH = {
    "outboundTrafficPolicy": {"mode": "ALLOW_ANY_DYNAMIC_DNS"},
    "outboundTrafficPolicy.tls": {"mode": "MUTUAL", "clientCertificate": "/c", "privateKey": "/k"},
    "serviceEntryVisibility": {"applyToSidecars": True, "defaultVisibility": "NAMESPACE"},
    "serviceEntryVisibility.policies[].matchingRules[].namespaceSelector.matchExpressions[]": {
        "key": "a",
        "operator": "In",
        "values": ["b"],
    },
    "defaultHttpRetryPolicy": {"attempts": 1},
    "discoverySelectors[].matchExpressions[]": {"key": "a", "operator": "In", "values": ["b"]},
    **{f"extensionProviders[].{p}.includeRequestBodyInCheck": {"maxRequestBytes": 9} for p in ASKED},
    "caCertificates[]": {"pem": ROOT},
    "localityLbSetting.distribute[]": {"from": "a", "to": {"b": 100}},
    "extensionProviders[]": {"name": "a"},
    **{f"extensionProviders[].{p}": {"service": "s", "port": 1} for p in (*SERVED, *LOGS)},
    "extensionProviders[].zipkin.headers[]": {"name": "h"},
    "extensionProviders[].opentelemetry.http.headers[]": {"name": "h"},
    "extensionProviders[].opentelemetry.grpc.initialMetadata[]": {"name": "h"},
}


def document(path, value):
    """The smallest valid mesh configuration in which the field has the value."""
    out = value
    parts = path.split(".")
    for i in range(len(parts) - 1, -1, -1):
        name, at = parts[i], ".".join(parts[: i + 1])
        if i < len(parts) - 1 and at in ENOUGH:
            out = {**ENOUGH[at], **out}
        if name.endswith("[]"):
            out = [out]
        if name.endswith("{}"):
            out = {"key": out}
        out = {name.removesuffix("[]").removesuffix("{}"): out}
    return out


ELSEWHERE = (
    "caCertificates[].trustDomains",  # decides whether the certificate is taken at all, see below
    "extensionProviders[].name",
    "extensionProviders[].prometheus",
    *effect.INJECTED,
)


@pytest.mark.parametrize("path", [p for p in LEAVES if effect.reason(p) is None and p not in ELSEWHERE])
def test_every_field_that_is_not_in_the_ledger_has_an_effect(path):
    kind = LEAVES[path]
    value = SPECIAL.get(path, SAMPLES.get(kind))
    if path in LISTS:
        value = [value]
    without = MeshConfig(root_namespace="istio-system")
    made = settings(mesh_config(yamldoc.dump(document(path, value))), "istio-system")
    parent = path.rpartition(".")[0]
    if parent in ENOUGH:
        without = settings(mesh_config(yamldoc.dump(document(parent, ENOUGH[parent]))), "istio-system")
    assert made != without


def test_fields_without_effect_are_warned_about_unless_they_ask_for_the_default():
    said = effect.ineffective({"proxyListenPort": 3128, "rootNamespace": None, "accessLogFile": "/dev/stdout"})
    assert len(said) == 1
    assert "meshConfig.proxyListenPort" in said[0]


@pytest.mark.parametrize(
    ("field", "says"), [("verifyCertificateAtClient", "deprecated"), ("enableAutoMtls", "in plain text")]
)
def test_what_weakens_the_mesh_is_said(field, says):
    assert effect.ineffective({field: True}) == []
    (found,) = effect.ineffective({field: False})
    assert f"meshConfig.{field}: " in found
    assert says in found


def test_roots_of_others_are_trusted_unless_they_are_for_other_trust_domains():
    text = yamldoc.dump({"trustDomain": "mine", "caCertificates": [{"pem": ROOT, "trustDomains": ["mine", "theirs"]}]})
    found = settings(mesh_config(text), "istio-system").trust
    assert ([a.pem for a in found.anchors], found.domains) == ([ROOT], ()), "there is one domain only"
    given = [{"pem": ROOT, "trustDomains": ["theirs"]}, {"pem": ROOT}]
    for certificates, mine in ((given[:1], ()), (given, (ROOT,))):
        of_alias = {"trustDomain": "mine", "trustDomainAliases": ["theirs"], "caCertificates": certificates}
        found = settings(mesh_config(yamldoc.dump(of_alias)), "istio-system").trust
        assert [a.pem for a in found.anchors] == [*mine]
        assert found.domains == (("mine", mine), ("theirs", (ROOT, *mine)))
    for given, says in (
        ({"pem": ROOT, "trustDomains": ["theirs"]}, r"caCertificates\[0\].trustDomains: must contain"),
        ({"pem": "nonsense"}, r"caCertificates\[0\].pem: .*not PEM"),
        ({}, "exactly one of pem and spiffeBundleUrl"),
    ):
        with pytest.raises(Invalid, match=says):
            mesh_config(yamldoc.dump({"trustDomain": "mine", "caCertificates": [given]}))


def test_a_provider_that_fails_open_lets_clients_write_its_headers_and_install_says_so():
    asked = {"service": "a.b.svc.cluster.local", "port": 80, "failOpen": True}
    given = {"extensionProviders": [{"name": "a", "envoyExtAuthzHttp": asked}]}
    assert effect.ineffective(given) == []
    asked["headersToUpstreamOnAllow"] = ["x-user"]
    (said,) = effect.ineffective(given)
    assert said.startswith(
        "meshConfig.extensionProviders[0].envoyExtAuthzHttp.failOpen: while the authorization service"
    )
    asked["failOpen"] = False
    assert effect.ineffective(given) == []
