"""AuthorizationPolicy in the proxy: filters, order, TCP; and what the real Envoy accepts."""

import judge
import meshes as mesh
import pytest
import re2
from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as tcp_rbac
from envoy.type.matcher.v3 import number_pb2, value_pb2

from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.config import decode
from lateen.api.mesh import ExtensionProvider
from lateen.api.mesh.rules import can_be_asked
from lateen.api.security import AuthorizationPolicy
from lateen.kit import yamldoc
from lateen.mesh.model import Mesh
from lateen.mesh.settings import MeshConfig, Transport, Trust
from lateen.mesh.views import Views
from lateen.wire import names
from lateen.xds.authz import filters, matchers

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
    slots = [found[names.ECDS][f.name] for f in manager.http_filters[:-1] if f.HasField("config_discovery")]
    held = [f.typed_config for s in slots for f in (judge.inside(s) or [s])]
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


INGRESS = """
kind: Gateway
metadata: {name: web, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers: [{hosts: ["*"], port: {number: 8080, name: http, protocol: HTTP}}]
"""


@pytest.mark.parametrize(("proxy", "where"), [("productpage-v1", "default"), ("ingress", "istio-system")])
def test_no_action_and_no_provider_of_a_policy_changes_what_takes_requests(proxy, where):
    """Not even the first policy of a second provider, an unknown one, or of AUDIT."""
    policy = "kind: AuthorizationPolicy\nmetadata: {name: %s, namespace: istio-system}\nspec: {action: %s, rules: [{}]}"
    each = [policy % (a.lower(), a) for a in ("AUDIT", "DENY", "ALLOW")]
    each += [
        policy % (p, f"CUSTOM, provider: {{name: {p}}}") for p in ("http", "unknown", "grpc", "http-2", "unknown-2")
    ]
    providers = [*CONFIG.trust.providers, decode(ExtensionProvider, {**HTTP, "name": "http-2"})]
    config = MeshConfig(trust=Trust(providers=tuple(providers)))

    def seen(policies):
        return judge.messages(mesh.view(mesh.objects("\n---\n".join([INGRESS, *policies]), config), proxy, where))

    def about_requests(found):
        every = [f for li in found[names.LDS].values() for c in li.filter_chains for f in c.filters]
        return [f for f in every if f.name.endswith("http_connection_manager")]

    before, after = seen([]), seen(each)
    assert about_requests(before)
    assert about_requests(before) == about_requests(after)
    asked = [name for name in after[names.ECDS] if name.startswith("istio.authorization.custom")]
    assert len(asked) == len(providers) + 1, "one more than there are providers, so that a new one has its place"
    assert set(before[names.ECDS]) == set(after[names.ECDS])


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
        ("b*", "a,bc, d", True),
        ("*b", "ab, c", True),
        ("*b", "a, bc", False),
        ("*b*", "a, xbx", True),
        ("a*c", "x, abc", True),
        ("a*c", "a, c", False),
        ("a.c", "abc", False),
        ("adm*", b"adm\xff", True),
        ("adm*", b"ok, adm\xff, b", True),
        ("*min", b"ok, \xffmin , b", True),
        ("*min", b"ok, min\xff", False),
        ("adm*", b"\xffadm", False),
    ],
)
def test_one_item_of_a_header_that_is_a_list(value, header, matches):
    found = matchers.listed_header("x", value).header.string_match.safe_regex.regex
    assert (re2.fullmatch(found, header) is not None) is matches


@pytest.mark.parametrize(
    ("value", "header", "matches"),
    [
        ("a*c", b"a\xffc", True),
        ("a*c", b"x, a\xffc , y", True),
        ("a*c", b"\xff, a, c", True),
        ("a*c", b"\xff, c, a", False),
        ("a*c", "a, c", False),
        ("a*c", "\u00ff, a, c", False),
        ("a*c", "x, abc", True),
        ("adm*", b"ok, adm\xff, b", True),
        ("a*c*", b"a\xffcd", True),
    ],
)
def test_what_is_kept_out_by_an_item_of_a_header_is_kept_out_whatever_bytes_it_has(value, header, matches):
    """And what is let in by it has no such bytes where it has a star in between."""

    def holds(principal):
        match principal.WhichOneof("identifier"):
            case "or_ids":
                return any(map(holds, principal.or_ids.ids))
            case "and_ids":
                return all(map(holds, principal.and_ids.ids))
        found = re2.fullmatch(principal.header.string_match.safe_regex.regex, header) is not None
        return found is not principal.header.invert_match

    assert holds(matchers.listed_header_kept_out("x", value)) is matches
    if isinstance(header, bytes) and "*" in value.strip("*"):
        assert not holds(matchers.listed_header("x", value))


@pytest.mark.parametrize(("action", "field"), [("DENY", "values"), ("ALLOW", "notValues")])
def test_claims_that_are_no_strings_are_kept_out_as_they_are_written(action, field):
    for value, wanted in (
        ("false", value_pb2.ValueMatcher(bool_match=False)),
        ("42", value_pb2.ValueMatcher(double_match=number_pb2.DoubleMatcher(exact=42.0))),
        ("*", value_pb2.ValueMatcher(present_match=True)),
        ("a", None),
    ):
        rule = {"when": [{"key": "request.auth.claims[a][b]", field: [value]}]}
        made = filters.plain((policy(f"{action}-{value}".lower(), action, rules=[rule]),), False, spelled=True)
        (found,) = unpacked(made[0], rbac_pb2.RBAC).rules.policies.values()
        (seen,) = found.principals[0].and_ids.ids
        claim = (seen if field == "values" else seen.not_id).metadata.value.or_match.value_matchers
        others = [m for m in claim[1:] if m.WhichOneof("match_pattern") == "or_match"]
        assert [m for o in others for m in o.or_match.value_matchers][1:] == ([wanted] if wanted else [])
        assert ([m.list_match.one_of for m in claim[:1]] == others) is bool(wanted), "and lists of such"
    let_in = {"when": [{"key": "request.auth.claims[a]", "values": ["true"]}]}
    (allowed,) = filters.plain((policy("let-in", "ALLOW", rules=[let_in]),), False, spelled=True)
    assert "bool_match" not in str(unpacked(allowed, rbac_pb2.RBAC))


def test_anything_is_also_what_is_no_text():
    for value in ("*", "\n", "a\nb", b"\xff", "\u00ff"):
        assert re2.fullmatch(matchers.ANYTHING, value)
    assert not re2.fullmatch(matchers.ANYTHING, "")


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
    audited, denied = judge.inside(judge.messages(seen)[names.ECDS]["istio.authorization.deny"])
    assert denied.typed_config.value == unrestricted().value
    held = unpacked(audited, rbac_pb2.RBAC)
    assert held.rules.action == held.rules.LOG
    assert held.shadow_rules_stat_prefix == "istio_audit_"
    assert set(held.shadow_rules.policies) == {"ns[default]-policy[a]-rule[0]"}
    assert chain_filters(audit) == ["RBAC"]
    judge.validate(seen, tmp_path)


def policy(name, action, dry_run=False, provider="", rules=({},)):
    spec = {"action": action, "rules": list(rules), **({"provider": {"name": provider}} if provider else {})}
    ref = kinds.AUTHORIZATION_POLICY.ref("default", name)
    return o.Resource(ref, "file", "", "", decode(AuthorizationPolicy, spec), dry_run=dry_run)


def unpacked(filter_, kind):
    out = kind()
    filter_.typed_config.Unpack(out)
    return out


@pytest.mark.parametrize("tcp", [False, True])
def test_audit_comes_before_deny_and_allow(tcp):
    found = filters.plain((policy("a", "ALLOW"), policy("b", "DENY"), policy("c", "AUDIT")), tcp)
    kind = tcp_rbac.RBAC if tcp else rbac_pb2.RBAC
    held = [unpacked(f, kind).rules for f in found]
    assert [(h.Action.Name(h.action), *h.policies) for h in held] == [
        ("LOG", "ns[default]-policy[c]-rule[0]"),
        ("DENY", "ns[default]-policy[b]-rule[0]"),
        ("ALLOW", "ns[default]-policy[a]-rule[0]"),
    ]


@pytest.mark.parametrize(
    ("action", "dry_run", "prefix"),
    [
        ("DENY", True, "istio_dry_run_deny_"),
        ("ALLOW", True, "istio_dry_run_allow_"),
        ("AUDIT", True, ""),
        ("DENY", False, "istio_dry_run_allow_"),
        ("AUDIT", False, "istio_dry_run_allow_"),
    ],
)
def test_the_metadata_of_dry_runs_are_told_apart_by_istio_s_prefixes(action, dry_run, prefix):
    (found,) = filters.plain((policy(f"{action}-{dry_run}".lower(), action, dry_run),), False)
    assert unpacked(found, rbac_pb2.RBAC).shadow_rules_stat_prefix == prefix


TWO = """
kind: AuthorizationPolicy
metadata: {name: a}
spec: {action: CUSTOM, provider: {name: http}, rules: [{to: [{operation: {paths: [/a]}}]}]}
---
kind: AuthorizationPolicy
metadata: {name: b}
spec: {action: CUSTOM, provider: {name: grpc}, rules: [{to: [{operation: {paths: [/b]}}]}]}
---
kind: AuthorizationPolicy
metadata: {name: c}
spec: {action: CUSTOM, provider: {name: unknown}, rules: [{to: [{operation: {paths: [/c]}}]}]}
"""


def test_each_provider_is_asked_about_what_its_own_policies_match(tmp_path):
    seen = mesh.view(mesh.objects(TWO, CONFIG))
    assert chain_filters(TWO) == ["RBAC", "RBAC", "ExtAuthz", "RBAC", "ExtAuthz"]
    slots = judge.messages(seen)[names.ECDS]
    denying, *first = judge.inside(slots["istio.authorization.custom"])
    for held, name, letter in (
        (judge.inside(slots["istio.authorization.custom/1"]), "grpc", "b"),
        (first, "http", "a"),
    ):
        matching, asking = held
        rules = unpacked(matching, rbac_pb2.RBAC).shadow_rules.policies
        asked = unpacked(asking, ext_authz_pb2.ExtAuthz)
        prefix = asked.filter_enabled_metadata.value.string_match.prefix
        assert list(rules) == [f"istio-ext-authz-{name}-ns[default]-policy[{letter}]-rule[0]"]
        assert [n for n in rules if n.startswith(prefix)] == list(rules)
    denied = unpacked(denying, rbac_pb2.RBAC).rules
    assert denied.action == denied.DENY
    assert list(denied.policies) == [
        "istio-ext-authz-unknown-ns[default]-policy[c]-rule[0]-deny-due-to-bad-CUSTOM-action"
    ]
    judge.validate(seen, tmp_path)


def test_on_tcp_one_provider_s_protocol_does_not_matter_to_the_other():
    assert chain_filters(TWO, "tcp") == [
        "envoy.filters.network.rbac",
        "envoy.filters.network.rbac",
        "envoy.filters.network.ext_authz",
    ]


@pytest.mark.parametrize(
    ("value", "iss", "sub"),
    [
        ("a/b", {"exact": "a"}, {"exact": "b"}),
        ("https://a/b", {"exact": "https://a"}, {"exact": "b"}),
        ("a", {"exact": "a"}, {"exact": ""}),
        ("*", {"safe_regex": matchers.ANYTHING}, {"safe_regex": matchers.ANYTHING}),
        ("*/b", {"safe_regex": matchers.ANYTHING}, {"exact": "b"}),
        ("*a/b*", {"suffix": "a"}, {"exact": "b*"}),
        ("*b", {"safe_regex": matchers.ANYTHING}, {"suffix": "b"}),
        ("a/*", {"exact": "a"}, {"safe_regex": matchers.ANYTHING}),
        ("a/b*", {"exact": "a"}, {"prefix": "b"}),
        ("a*", {"prefix": "a"}, {"safe_regex": matchers.ANYTHING}),
        ("a*/b", {"exact": "a*"}, {"exact": "b"}),
    ],
)
def test_the_principal_of_a_token_is_an_issuer_and_a_subject(value, iss, sub):
    parts = matchers.request_principal(value).and_ids.ids
    found = []
    for part in parts:
        text = part.metadata.value.string_match
        kind = text.WhichOneof("match_pattern")
        found.append({kind: text.safe_regex.regex if kind == "safe_regex" else getattr(text, kind)})
    assert found == [iss, sub]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("old/ns/a/sa/b", ["new/ns/a/sa/b", "old/ns/a/sa/b"]),
        ("cluster.local/ns/a/sa/b", ["new/ns/a/sa/b", "old/ns/a/sa/b"]),
        ("other/ns/a/sa/b", ["other/ns/a/sa/b"]),
        ("*/ns/a/sa/b", ["*/ns/a/sa/b"]),
        ("*ld/ns/a/sa/b", ["new/ns/a/sa/b", "*ld/ns/a/sa/b"]),
        ("old/*", ["old/*"]),
        ("ol*/ns/a/sa/b", ["new/ns/a/sa/b", "old/ns/a/sa/b"]),
        ("*/sa/b", ["*/sa/b"]),
    ],
)
def test_identities_of_one_trust_domain_of_the_mesh_are_of_all(value, expected):
    assert matchers.in_every_domain([value], ("new", "old")) == expected


def test_a_trust_domain_of_the_mesh_stands_for_its_aliases():
    rule = {"from": [{"source": {"trustDomains": ["old", "other"], "notTrustDomains": ["new"]}}]}
    (found,) = filters.plain((policy("a", "ALLOW", rules=[rule]),), False, ("new", "old"))
    (held,) = unpacked(found, rbac_pb2.RBAC).rules.policies.values()
    some, none = held.principals[0].and_ids.ids
    prefixes = [i.authenticated.principal_name.prefix for i in some.or_ids.ids]
    assert prefixes == ["spiffe://new/", "spiffe://old/", "spiffe://other/"]
    assert [i.authenticated.principal_name.prefix for i in none.not_id.or_ids.ids] == prefixes[:2]


def test_any_trust_domain_is_an_identity_of_spiffe():
    assert matchers.trust_domain("*").authenticated.principal_name.prefix == "spiffe://"


def test_cluster_local_is_the_trust_domain_of_a_mesh_without_aliases():
    """As in Istio, ``cluster.local`` in a principal stands for whatever domain the mesh has."""
    config = MeshConfig(transport=Transport(trust_domain="corp.test"))
    allow = (
        "kind: AuthorizationPolicy\nmetadata: {name: a}\n"
        "spec: {rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/sleep]}}]}]}"
    )
    objects = mesh.objects(allow, config)
    held = Mesh(objects).access("default", objects.pods[("default", "productpage-v1")].label_map)
    (found,) = filters.of_workload(held, held.policies, tcp=False)
    (made,) = unpacked(found, rbac_pb2.RBAC).rules.policies.values()
    (one,) = made.principals[0].and_ids.ids
    assert one.or_ids.ids[0].authenticated.principal_name.exact == "spiffe://corp.test/ns/default/sa/sleep"


@pytest.mark.parametrize(
    "wrong",
    [
        {"statusOnError": "999"},
        {"pathPrefix": "check"},
        {"headersToUpstreamOnAllow": ["*"]},
        {"port": 0},
    ],
)
def test_a_provider_with_a_wrong_setting_cannot_be_asked(wrong):
    right = {"service": "a.test", "port": 80}
    given = [decode(ExtensionProvider, {"name": "one", "envoyExtAuthzHttp": right | more}) for more in ({}, wrong)]
    assert can_be_asked(given[:1]) == tuple(given[:1])
    assert can_be_asked(given[1:]) == ()
    assert can_be_asked([given[0], given[0]]) == ()  # whose name says nothing


def test_metadata_of_filters_are_looked_at_on_tcp_too():
    key = "experimental.envoy.filters.network.mysql_proxy[db.table]"
    rule = {"when": [{"key": key, "values": ["[update]"]}]}
    (found,) = filters.plain((policy("a", "ALLOW", rules=[rule]),), True)
    (held,) = unpacked(found, tcp_rbac.RBAC).rules.policies.values()
    (one,) = held.permissions[0].and_rules.rules
    assert one.metadata.filter == "envoy.filters.network.mysql_proxy"
    assert one.metadata.value.list_match.one_of.string_match.exact == "update"


@pytest.mark.parametrize("name", ["a.b", "a[b", "a(b", "a$b", "a+b", "a\\b"])
def test_names_are_compared_literally(name):
    """Whatever a name contains is no regular expression."""
    for made, text in (
        (matchers.account(f"default/{name}", "default"), f"spiffe://td/ns/default/sa/{name}"),
        (matchers.namespace(name), f"spiffe://td/ns/{name}/sa/x"),
        (matchers.identity(f"*/ns/default/sa/{name}"), f"spiffe://td/ns/default/sa/{name}"),
    ):
        pattern = made.authenticated.principal_name.safe_regex.regex
        assert re2.fullmatch(pattern, text)
        assert not re2.fullmatch(pattern, text.replace(name, "axb"))


@pytest.mark.parametrize(
    ("service", "found"),
    [
        ("ratings.default.svc.cluster.local", ["RBAC", "ExtAuthz"]),
        ("default/ratings.default.svc.cluster.local", ["RBAC", "ExtAuthz"]),
        ("other/ratings.default.svc.cluster.local", ["RBAC"]),
        ("nowhere.default.svc.cluster.local", ["RBAC"]),
    ],
)
def test_a_provider_without_a_service_lets_nobody_in(service, found):
    """Even if it may fail open: nothing could ever answer."""
    given = {"name": "grpc", "envoyExtAuthzGrpc": {"service": service, "port": 9080, "failOpen": True}}
    config = MeshConfig(trust=Trust(providers=(decode(ExtensionProvider, given),)))
    ask = "kind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {action: CUSTOM, provider: {name: grpc}, rules: [{}]}"
    assert chain_filters(ask, config=config) == found


def test_a_provider_is_asked_as_soon_as_its_service_exists():
    given = {"name": "grpc", "envoyExtAuthzGrpc": {"service": "late.test", "port": 9080}}
    config = MeshConfig(trust=Trust(providers=(decode(ExtensionProvider, given),)))
    ask = "kind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {action: CUSTOM, provider: {name: grpc}, rules: [{}]}"
    objects = mesh.objects(ask, config)
    views = Views(Mesh(objects))

    def asked():
        found = judge.messages(views.of(objects.pods[("default", "productpage-v1")], "sidecar"))[names.ECDS]
        return len(judge.inside(found["istio.authorization.custom"])) > 1

    assert not asked()
    entry = {
        "hosts": ["late.test"],
        "ports": [{"number": 9080, "name": "grpc", "protocol": "GRPC"}],
        "resolution": "DNS",
    }
    document = {"kind": "ServiceEntry", "metadata": {"name": "late"}, "spec": entry}
    views.advance(mesh.add(objects, yamldoc.load(yamldoc.dump(document)), 1))
    assert asked()
