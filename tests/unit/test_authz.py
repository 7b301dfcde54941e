"""AuthorizationPolicy in the proxy: filters, order, TCP; and what the real Envoy accepts."""

import judge
import meshes as mesh
import pytest
from authorizing import CONFIG, EVERYTHING, chain_filters, chains, policy, unpacked, unrestricted
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as tcp_rbac

from lateen.wire import names
from lateen.xds.authz import filters


@pytest.mark.parametrize("provider", ["grpc", "http", "unknown"])
@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_envoy_accepts_every_condition(provider, protocol, tmp_path):
    text = EVERYTHING.replace("PROVIDER", provider)
    judge.validate(mesh.view(mesh.objects(text, CONFIG, protocol=protocol)), tmp_path)


def test_custom_comes_first_then_deny_then_allow():
    found = chain_filters(EVERYTHING.replace("PROVIDER", "grpc"))
    assert found == ["RBAC", "ExtAuthz", "RBAC", "RBAC"]


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
