"""External authorization: which provider is asked about what, and what happens without one."""

import judge
import meshes as mesh
import pytest
from authorizing import CONFIG, EVERYTHING, HTTP, chain_filters, chains, unpacked
from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as tcp_rbac

from lateen.api.config import decode
from lateen.api.mesh import ExtensionProvider
from lateen.api.mesh.provider_rules import can_be_asked
from lateen.kit import yamldoc
from lateen.mesh.model import Mesh
from lateen.mesh.settings import MeshConfig, Trust
from lateen.mesh.views import Views
from lateen.wire import names


def test_a_provider_that_speaks_http_is_not_asked_about_tcp():
    found = chain_filters(EVERYTHING.replace("PROVIDER", "http"), protocol="tcp")
    assert found == ["envoy.filters.network.rbac"] * 2


def test_where_clients_decide_what_is_http_whatever_else_they_send_is_denied_as_if_nobody_could_be_asked():
    """Servers answer what Envoy does not take for a request, such as one after an empty line."""

    def connections(protocol):
        """Chain -> the actions and policies of the filters before connections are forwarded."""
        text = EVERYTHING.replace("PROVIDER", "http")
        found = judge.messages(mesh.view(mesh.objects(text, CONFIG, protocol=protocol)))
        out = {}
        for chain in chains(found):
            for f in chain.filters:
                rules = tcp_rbac.RBAC()
                if f.typed_config.Unpack(rules):
                    out.setdefault(chain.name, []).append((rules.rules.action, sorted(rules.rules.policies)))
        return out

    bad = (
        rbac_pb2.RBAC().rules.DENY,
        [f"istio-ext-authz-ns[default]-policy[ask]-rule[0]{names.NO_HTTP}"],
    )
    for protocol, denied in (("auto", True), ("tcp", False), ("http", False)):
        found = connections(protocol)
        assert (bad in found.get("0.0.0.0_9080", ())) is denied, protocol
        assert bad in found["virtualInbound"], "ports that nothing is known of"


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
    assert chain_filters(TWO) == ["RBAC", "RBAC", "ExtAuthz", "RBAC", "ExtAuthz", "RBAC"], "and x_user is denied"
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


def test_a_provider_is_not_asked_for_one_whose_name_begins_with_its_own():
    """What the policy of the one has matched is still known where the other is asked."""
    config = MeshConfig(
        trust=Trust(providers=(*CONFIG.trust.providers, decode(ExtensionProvider, {**HTTP, "name": "htt"})))
    )
    another = TWO.partition("---")[0].replace("http", "htt").replace("name: a}", "name: d}")
    slots = judge.messages(mesh.view(mesh.objects(f"{TWO}---{another}", config)))[names.ECDS]
    asked = {}
    for name in ("istio.authorization.custom", "istio.authorization.custom/1", "istio.authorization.custom/2"):
        *_, matching, asking = judge.inside(slots[name])
        (policy,) = unpacked(matching, rbac_pb2.RBAC).shadow_rules.policies
        found = unpacked(asking, ext_authz_pb2.ExtAuthz).filter_enabled_metadata.value.string_match.prefix
        asked[policy] = found
    assert len(asked) == 3
    for policy in asked:
        assert [p for p, prefix in asked.items() if policy.startswith(prefix)] == [policy]


def test_on_tcp_one_provider_s_protocol_does_not_matter_to_the_other():
    assert chain_filters(TWO, "tcp") == [
        "envoy.filters.network.rbac",
        "envoy.filters.network.rbac",
        "envoy.filters.network.ext_authz",
    ]


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
