"""AuthorizationPolicy in the proxy: filters, order, TCP; and what the real Envoy accepts."""

import judge
import meshes as mesh
import pytest
import re2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from lateen.api.config import decode
from lateen.api.mesh import ExtensionProvider
from lateen.mesh.settings import MeshConfig, Trust
from lateen.wire import names
from lateen.xds.authz import matchers

EVERYTHING = """
kind: AuthorizationPolicy
metadata: {name: allow, namespace: default}
spec:
  selector: {matchLabels: {app: productpage}}
  rules:
  - from:
    - source:
        principals: ["*", "cluster.local/ns/a/sa/b", "x/*", "*/sa/y"]
        notPrincipals: [z]
        namespaces: [a, "b-*"]
        ipBlocks: [10.0.0.0/8, "::1"]
        remoteIpBlocks: [1.2.3.4]
        requestPrincipals: ["a/b", "*", "c/*", "*/d"]
    - source: {serviceAccounts: [a/b, c], trustDomains: [td, "*", "*.test", "td-*"]}
    to:
    - operation:
        hosts: ["*.a.b", c]
        methods: [GET]
        paths: ["/a/*", "*/b", "/c/{*}/d", "/e/{**}"]
        notPorts: ["1", "2"]
    when:
    - {key: "request.headers[x-y]", values: ["a*"]}
    - {key: "request.experimental.inline.headers[x-z]", values: ["a", "b*"], notValues: ["*"]}
    - {key: "request.auth.claims[a][b]", values: [c], notValues: [d]}
    - {key: request.auth.audiences, values: [e]}
    - {key: destination.ip, values: [10.1.0.0/16]}
    - {key: connection.sni, values: ["*.x"]}
    - {key: source.ip, notValues: [9.9.9.9]}
---
kind: AuthorizationPolicy
metadata: {name: deny, namespace: istio-system}
spec: {action: DENY, rules: [{to: [{operation: {paths: [/secret]}}]}]}
---
kind: AuthorizationPolicy
metadata: {name: ask, namespace: default}
spec: {action: CUSTOM, provider: {name: PROVIDER}, rules: [{to: [{operation: {paths: [/asked]}}]}]}
---
kind: AuthorizationPolicy
metadata: {name: elsewhere, namespace: other}
spec: {action: DENY, rules: [{}]}
"""
GRPC = {"name": "grpc", "envoyExtAuthzGrpc": {"service": "ratings.default.svc.cluster.local", "port": 9080}}
HTTP = {
    "name": "http",
    "envoyExtAuthzHttp": {
        "service": "default/ratings.default.svc.cluster.local",
        "port": 9080,
        "timeout": "2s",
        "pathPrefix": "/check",
        "statusOnError": "503",
        "includeRequestHeadersInCheck": ["x-a", "x-b*"],
        "includeAdditionalHeadersInCheck": {"x-c": "d"},
        "headersToUpstreamOnAllow": ["x-user"],
        "includeRequestBodyInCheck": {"maxRequestBytes": 1024, "allowPartialMessage": True},
    },
}
CONFIG = MeshConfig(trust=Trust(providers=tuple(decode(ExtensionProvider, p) for p in (GRPC, HTTP))))


def chain_filters(text, protocol="http", config=CONFIG):
    """The kinds of the filters before the last one that hold something, for port 9080 of productpage."""
    found = judge.messages(mesh.view(mesh.objects(text, config, protocol=protocol)))
    chain = next(c for c in chains(found) if c.filter_chain_match.destination_port.value == 9080)
    if protocol == "tcp":
        return [f.name for f in chain.filters[:-1]]
    manager = hcm.HttpConnectionManager()
    chain.filters[-1].typed_config.Unpack(manager)
    held = [found[names.ECDS][f.name].typed_config for f in manager.http_filters[:-1]]
    return [h.type_url.rpartition(".")[2] for h in held if h.value and h.value != unrestricted().value]


def unrestricted():
    """What the slot for DENY holds without policies."""
    return judge.messages(mesh.view(mesh.objects("")))[names.ECDS]["istio.authorization.deny"].typed_config


def chains(found):
    return found[names.LDS]["virtualInbound"].filter_chains


@pytest.mark.parametrize("provider", ["grpc", "http", "unknown"])
@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_envoy_accepts_every_condition(provider, protocol, tmp_path):
    text = EVERYTHING.replace("PROVIDER", provider)
    judge.validate(mesh.view(mesh.objects(text, CONFIG, protocol=protocol)), tmp_path)


def test_custom_comes_first_then_deny_then_allow():
    found = chain_filters(EVERYTHING.replace("PROVIDER", "grpc"))
    assert found == ["RBAC", "ExtAuthz", "RBAC", "RBAC"]


def test_a_provider_that_speaks_http_is_not_asked_about_tcp():
    found = chain_filters(EVERYTHING.replace("PROVIDER", "http"), protocol="tcp")
    assert found == ["envoy.filters.network.rbac"] * 2


def test_policies_of_other_namespaces_and_workloads_do_not_apply():
    other = "kind: AuthorizationPolicy\nmetadata: {name: a, namespace: %s}\nspec: {selector: {matchLabels: {app: %s}}}"
    assert chain_filters(other % ("default", "reviews")) == []
    assert chain_filters(other % ("other", "productpage")) == []
    assert chain_filters(other % ("default", "productpage")) == ["RBAC"]


def test_a_changed_policy_does_not_change_http_filter_chains():
    """Envoy drains the chains that change: open requests would end."""
    deny = "kind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {action: DENY, rules: [{}]}"
    allow = (
        "\n---\nkind: AuthorizationPolicy\nmetadata: {name: b}\nspec: {rules: [{to: [{operation: {ports: ['1']}}]}]}"
    )
    found = [judge.messages(mesh.view(mesh.objects(text, CONFIG))) for text in ("", deny, deny + allow)]
    ours = [[c for c in chains(f) if c.filter_chain_match.destination_port.value == 9080] for f in found]
    assert ours[0] == ours[1] == ours[2]
    held = [f[names.ECDS]["istio.authorization.deny"].typed_config.value for f in found]
    assert held[0] == unrestricted().value
    assert held[1] == held[2] != held[0]


def test_connections_that_a_policy_has_admitted_close_when_it_changes():
    """Envoy decides about a connection once: the chain must be another one for it to be drained."""
    deny = "kind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {action: DENY, rules: [{}]}"
    found = [judge.messages(mesh.view(mesh.objects(text, CONFIG, protocol="tcp"))) for text in ("", deny)]
    ours = [[c for c in chains(f) if c.filter_chain_match.destination_port.value == 9080] for f in found]
    assert not [c for c in ours[0] if c in ours[1]]


def test_a_port_can_have_a_mode_of_its_own():
    text = """
kind: PeerAuthentication
metadata: {name: p, namespace: default}
spec:
  selector: {matchLabels: {app: productpage}}
  mtls: {mode: STRICT}
  portLevelMtls: {"9080": {mode: DISABLE}, "7000": {mode: PERMISSIVE}}
"""
    found = judge.messages(mesh.view(mesh.objects(text)))[names.LDS]["virtualInbound"]
    by_port = {}
    for c in found.filter_chains:
        secure = c.HasField("transport_socket")
        by_port.setdefault(c.filter_chain_match.destination_port.value, []).append(secure)
    assert set(by_port[9080]) == {False}
    assert set(by_port[7000]) == {False, True}
    assert set(by_port[0]) == {True}


@pytest.mark.parametrize(
    ("value", "header", "matches"),
    [
        ("b", "b", True),
        ("b", "a, b,c", True),
        ("b", "ab,c", False),
        ("b*", "a,bc", True),
        ("b*", "a,cb", False),
        ("a.c", "abc", False),
    ],
)
def test_one_item_of_a_header_that_is_a_list(value, header, matches):
    found = matchers.listed_header("x", value).header.string_match.safe_regex.regex
    assert (re2.fullmatch(found, header) is not None) is matches


@pytest.mark.parametrize(
    ("value", "identity", "matches"),
    [
        ("*.test", "spiffe://a.test/ns/n/sa/s", True),
        ("*.test", "spiffe://a.other/ns/x.test/sa/s", False),
        ("td-*", "spiffe://td-1/ns/n/sa/s", True),
        ("td-*", "spiffe://td/ns/n/sa/s", False),
    ],
)
def test_a_trust_domain_with_a_wildcard_at_an_end(value, identity, matches):
    found = matchers.trust_domain(value).authenticated.principal_name.safe_regex.regex
    assert (re2.fullmatch(found, identity) is not None) is matches


def test_what_is_audited_is_counted_and_decides_nothing(tmp_path):
    rule = "{to: [{operation: {paths: [/x]}}]}"
    audit = f"kind: AuthorizationPolicy\nmetadata: {{name: a}}\nspec: {{action: AUDIT, rules: [{rule}]}}"
    seen = mesh.view(mesh.objects(audit, CONFIG))
    held = rbac_pb2.RBAC()
    judge.messages(seen)[names.ECDS]["istio.authorization.audit"].typed_config.Unpack(held)
    assert held.rules.action == held.rules.LOG
    assert held.shadow_rules_stat_prefix == "istio_audit_"
    assert set(held.shadow_rules.policies) == {"ns[default]-policy[a]-rule[0]"}
    assert chain_filters(audit) == ["RBAC"]
    judge.validate(seen, tmp_path)
