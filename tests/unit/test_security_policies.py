"""SecurityPolicies: which hold where, what they become in Envoy, and what is refused."""

import json
from dataclasses import replace

import judge
import meshes as mesh
import pytest
from envoy.config.core.v3 import extension_pb2
from envoy.extensions.filters.http.api_key_auth.v3 import api_key_auth_pb2 as keys_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.jwt_authn.v3 import config_pb2 as jwt_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2

from lateen.api import kinds
from lateen.api import objects as o
from lateen.api import security_policy as sp
from lateen.api.effective import ineffective
from lateen.control import dumps
from lateen.kit.regex import compiled
from lateen.mesh import secured
from lateen.mesh.authentication import KeySource
from lateen.mesh.model import Mesh
from lateen.mesh.settings import Transport
from lateen.wire import names
from lateen.xds import clusters, oidc, pb, security
from lateen.xds.filters.several import several
from lateen.xds.generate import generate

GATEWAY = """
kind: Gateway
metadata: {name: g}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, name: shop, hosts: ["*"]}]
---
kind: VirtualService
metadata: {name: v}
spec: {hosts: [a.test], gateways: [g], http: [{route: [{destination: {host: reviews}}]}]}
"""
ALLOW = "authorization: {rules: [{name: near, action: Allow, principal: {clientCIDRs: [10.0.0.0/8]}}]}"
KEYS = "apiKeyAuth: {credentialRefs: [{name: clients}], extractFrom: [{headers: [x-key]}]}"


def policy(name, target, spec=ALLOW):
    return f"---\nkind: SecurityPolicy\nmetadata: {{name: {name}}}\nspec: {{targetRef: {target}, {spec}}}\n"


def with_secrets(text, **entries):
    found = mesh.objects(text)
    for name, data in entries.items():
        made = o.Credential("default", name, entries=tuple(data.items()))
        found = found.put(kinds.SECRET, ("default", name), made)
    return found


def slots(found, pod="productpage-v1", namespace="default"):
    return {
        n: m for n, m in judge.messages(mesh.view(found, pod, namespace))[names.ECDS].items() if "lateen.security" in n
    }


def extensions(found, pod="productpage-v1"):
    """The filters in a pod's slots."""
    return {f.name: f for s in slots(found, pod).values() for f in judge.inside(s)}


def managers(found, pod="productpage-v1", namespace="default", listener="virtualInbound"):
    out = []
    for chain in judge.messages(mesh.view(found, pod, namespace))[names.LDS][listener].filter_chains:
        for f in chain.filters:
            manager = hcm.HttpConnectionManager()
            if f.typed_config.Unpack(manager):
                out.append(manager)
    return out


def held(message, kind):
    out = kind()
    assert message.typed_config.Unpack(out), message.typed_config.type_url
    return out


def enabled(text):
    """Host -> the policies of each of its routes."""
    found = judge.messages(mesh.view(mesh.objects(text), "ingress", "istio-system"))
    hosts = judge.routes(found, "http.8080").virtual_hosts
    return {
        h.domains[0]: [sorted({n.split("/")[2] for n in r.typed_per_filter_config if "/" in n}) for r in h.routes]
        for h in hosts
    }


SERVICE = "{kind: Service, name: productpage}"


def test_a_policy_of_a_service_is_at_its_pods_alone():
    found = mesh.objects(policy("p", SERVICE))
    assert list(extensions(found)) == ["lateen.security.rules/default/p"]
    assert extensions(found, "reviews-v1") == {}


def test_the_most_specific_policy_of_a_route_replaces_the_others():
    whole = policy("whole", "{group: networking.istio.io, kind: Gateway, name: g}")
    listener = policy("listener", "{group: networking.istio.io, kind: Gateway, name: g, sectionName: shop}")
    assert enabled(GATEWAY + whole) == {"a.test": [["whole"]]}
    assert enabled(GATEWAY + whole + listener) == {"a.test": [["listener"]]}


def test_a_rule_at_two_gateways_has_the_policy_of_whichever_has_one():
    other = GATEWAY.partition("---")[0].replace("name: g}", "name: a}")
    both = other + "---" + GATEWAY.replace("gateways: [g]", "gateways: [a, g]")
    for name in ("a", "g"):
        one = policy("one", f"{{group: networking.istio.io, kind: Gateway, name: {name}}}")
        assert enabled(both + one) == {"a.test": [["one"]]}


def test_the_first_rule_that_matches_decides_and_each_denial_names_its_rule():
    rules = (
        "authorization: {rules: [{name: a, action: Allow, operation: {methods: [GET]}},"
        " {name: d, action: Deny, principal: {headers: [{name: x, values: [y]}]}}]}"
    )
    found = extensions(mesh.objects(policy("p", SERVICE, rules)))
    made = held(found["lateen.security.rules/default/p"], rbac_pb2.RBAC).rules
    prefix = "ns[default]-policy[SecurityPolicy/p]-rule"
    assert set(made.policies) == {f"{prefix}[d]", f"{prefix}[default]"}
    (denied,) = made.policies[f"{prefix}[d]"].principals
    matched, *not_earlier = denied.and_ids.ids
    assert matched.header.name == "x"
    assert [n.not_id.header.name for n in not_earlier] == [":method"]


def test_a_part_that_is_broken_lets_nobody_pass_and_says_why():
    found = with_secrets(policy("p", SERVICE, KEYS), clients={"a": "same", "b": "same"})
    made = held(extensions(found)["lateen.security.keys/default/p"], rbac_pb2.RBAC)
    assert made.rules.action == 1
    assert [p.principals[0].any for p in made.rules.policies.values()] == [True]
    (says,) = Mesh(found).broken("default", "p")
    assert says == "spec.apiKeyAuth: the clients a and b have the same key, so all requests are rejected"
    assert "same" not in says.replace("the same key", "")


LOGIN = "oidc: {provider: {issuer: 'https://a.test'}, clientID: a, clientSecret: {name: a}}"


def test_the_first_policy_of_a_port_changes_no_listener():
    """Open connections keep the filters of the listener that they came by."""
    tokens = "jwt: {providers: [{name: one, issuer: 'https://a.test', remoteJWKS: {uri: 'https://a.test/keys'}}]}"
    asking = "extAuth: {http: {backendRefs: [{name: ratings, port: 9080}]}}"
    given = [mesh.objects("")] + [mesh.objects(policy("p", SERVICE, s)) for s in (KEYS, tokens, asking, ALLOW)]
    assert len({str(managers(found)) for found in given}) == 1
    held = [[s.typed_config for s in slots(found).values()] for found in given]
    assert all(h.Is(rbac_pb2.RBAC.DESCRIPTOR) and h.value == b"" for h in held[0])
    assert len({str(h) for h in held}) == len(given)


def test_a_question_to_a_service_is_the_last_filter_of_its_slot():
    """Envoy goes on behind the slot once the answer is there, past all that would follow in it."""
    asking = "extAuth: {http: {backendRefs: [{name: ratings, port: 9080}]}}"
    found = mesh.objects(policy("p", SERVICE, f"{asking}, {KEYS}") + policy("q", SERVICE, f"{asking}, {KEYS}"))
    in_listeners = {f.name for m in managers(found) for f in m.http_filters}
    held = {n: [f.name.split("/")[0] for f in judge.inside(s)] for n, s in slots(found).items() if n in in_listeners}
    assert any("lateen.security.ext" in parts for parts in held.values())
    assert all("lateen.security.ext" not in parts[:-1] for parts in held.values())


OTHERS = """---
kind: RequestAuthentication
metadata: {name: r, namespace: istio-system}
spec:
  jwtRules: [{issuer: 'https://a.test', jwks: '{"keys": []}', outputClaimToHeaders: [{header: x-group, claim: group}]}]
---
kind: AuthorizationPolicy
metadata: {name: a, namespace: istio-system}
spec: {action: DENY, rules: [{to: [{operation: {paths: [/no]}}]}]}
""" + "".join(
    f"""---
kind: TrafficExtension
metadata: {{name: {phase.lower()}, namespace: istio-system}}
spec: {{phase: {phase}, lua: {{inlineCode: "function envoy_on_request(handle) handle:logInfo('x') end"}}}}
"""
    for phase in ("AUTHN", "AUTHZ")
)
BY_HEADER = "authorization: {rules: [{action: Allow, principal: {headers: [{name: x-group, values: [a]}]}}]}"


@pytest.mark.parametrize("spec_", [BY_HEADER, f"{BY_HEADER}, {KEYS}, {LOGIN}"])
@pytest.mark.parametrize(
    ("target", "proxy"),
    [
        (SERVICE, ("productpage-v1", "default", "virtualInbound")),
        ("{group: networking.istio.io, kind: Gateway, name: g}", ("ingress", "istio-system", "0.0.0.0_8080")),
    ],
)
def test_rules_read_headers_after_claims_and_plugins_have_replaced_what_clients_wrote(spec_, target, proxy):
    found = mesh.objects(GATEWAY + OTHERS + policy("p", target, spec_))
    holds = {
        n: [f.name.split("/")[0] for f in judge.inside(s)] for n, s in slots(found, *proxy[:2]).items() if "~" not in n
    }
    (ruled,) = (n for n, parts in holds.items() if "lateen.security.rules" in parts)
    assert holds[ruled] == ["lateen.security.rules"]
    routed = [m for m in managers(found, *proxy) if any(f.name == ruled for f in m.http_filters)]
    assert routed
    for manager in routed:
        order = [f.name for f in manager.http_filters]
        asking = [i for i, n in enumerate(order) if n.startswith("lateen.security") and n != ruled]
        plugins = [i for i, n in enumerate(order) if n.startswith("lateen.lua")]
        claims, denied = order.index("istio.authentication"), order.index("istio.authorization.deny")
        assert len(plugins) == 2
        assert max(asking) < min(plugins) < claims < max(plugins) < denied < order.index(ruled)


def shut(slot):
    found = held(slot, rbac_pb2.RBAC).rules
    return found.action == found.DENY and [p.principals[0].any for p in found.policies.values()] == [True]


def test_a_listener_from_before_lets_nobody_pass_once_a_policy_wants_logins():
    def asked(text):
        found = [f for m in managers(mesh.objects(text)) for f in m.http_filters]
        return {f.name for f in found if f.HasField("config_discovery") and "security" in f.name}

    rules = "lateen.security/9080/rules"
    assert asked("") == {"lateen.security/9080", rules}
    one, two = (
        policy("p", SERVICE, LOGIN),
        policy("p", SERVICE, LOGIN) + policy("q", f"{SERVICE[:-1]}, sectionName: http}}", LOGIN),
    )
    names_ = [asked(text) - {rules} for text in (one, two)]
    assert [len(n) for n in names_] == [2, 2]
    for text, mine, others in ((one, *names_), (two, *reversed(names_))):
        there = slots(mesh.objects(text))
        assert mine < set(there)
        assert others.isdisjoint(there)
        assert shut(there["lateen.security/9080"])


def test_at_a_gateway_a_connection_from_before_a_policy_does_not_get_to_its_routes():
    """Routes change at once, listeners drain."""
    target = "{group: networking.istio.io, kind: Gateway, name: g}"

    def gate(text):
        (found,) = managers(mesh.objects(GATEWAY + text), "ingress", "istio-system", "0.0.0.0_8080")
        (filter_,) = (f for f in found.http_filters if f.name == "lateen.security.gate")
        assert filter_.disabled
        ids = held(filter_, rbac_pb2.RBAC).rules.policies["listener-from-before-the-SecurityPolicy"].principals[0]
        return [] if ids.any else str(ids.not_id.sourced_metadata)

    def route(text):
        found = judge.messages(mesh.view(mesh.objects(GATEWAY + text), "ingress", "istio-system"))
        return judge.routes(found, "http.8080").virtual_hosts[0].routes[0]

    assert gate("") == []
    assert "lateen.security.gate" not in route("").typed_per_filter_config
    wanted = []
    for spec_ in (ALLOW, LOGIN):
        made = route(policy("p", target, spec_))
        assert "lateen.security.gate" in made.typed_per_filter_config
        wanted.append(made.metadata.filter_metadata["lateen.security"]["slots"])
        assert set(wanted[-1].split()) < set(made.typed_per_filter_config)
        assert f'exact: "{wanted[-1]}"' in gate(policy("p", target, spec_))
    place = "lateen.security/default/p"
    around = (f"{place}/first", "lateen.security.oidc/default/p", f"{place}/then", f"{place}/rules")
    assert wanted == [f"{place} {place}/rules", " ".join(around)]


def test_where_two_gateways_have_the_same_requests_the_policies_of_both_hold():
    first, second, whole = GATEWAY.partition("---")
    both = f"{first}---{first.replace('name: g}', 'name: h}')}{second}{whole.replace('[g]', '[g, h]')}"
    target = "{group: networking.istio.io, kind: Gateway, name: %s}"
    one, two = policy("one", target % "g"), policy("two", target % "h")
    assert enabled(both + two) == {"a.test": [["two"]]}
    assert enabled(both + one + two) == {"a.test": [["one", "two"]]}
    assert enabled(both + one + policy("two", target % "h", KEYS)) == {"a.test": [["one", "two"]]}


CROSS = """
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [a.test]
  gateways: [g]
  http: [{corsPolicy: {allowOrigins: [{exact: 'https://b.test'}]}, route: [{destination: {host: reviews}}]}]
"""


def test_a_preflight_needs_a_token_but_where_it_is_answered():
    text = "jwt: {providers: [{name: one, issuer: 'https://a.test', remoteJWKS: {uri: 'https://a.test/keys'}}]}"
    found = extensions(mesh.objects(policy("p", SERVICE, text)))
    assert len(held(found["lateen.security.jwt/default/p"], jwt_pb2.JwtAuthentication).rules) == 1, "none of preflights"
    gateway, _, _ = GATEWAY.partition("---")
    guarded = policy("p", "{group: networking.istio.io, kind: Gateway, name: g}", text)
    made = judge.messages(mesh.view(mesh.objects(f"{gateway}---{CROSS}{guarded}"), "ingress", "istio-system"))
    (route,) = judge.routes(made, "http.8080").virtual_hosts[0].routes
    settings = route.typed_per_filter_config
    assert settings["lateen.security.cors"] == settings["envoy.filters.http.cors"]


def test_claims_of_one_provider_are_no_others():
    """Also where two services of different policies lead to one port."""
    of = "{name: %s, issuer: 'https://a.test', remoteJWKS: {uri: 'https://a.test/keys'}}"
    rule = "{action: Allow, principal: {jwt: {provider: %s, scopes: [x]}}}"
    rules = f"authorization: {{rules: [{rule % 'one'}, {rule % 'two'}]}}"
    text = f"jwt: {{providers: [{of % 'one'}, {of % 'two'}]}}, {rules}"
    both = policy("p", SERVICE, text) + policy("q", f"{SERVICE[:-1]}, sectionName: http}}", text)
    found = extensions(mesh.objects(policy("p", SERVICE, text))) | extensions(mesh.objects(both))
    made = [held(f, jwt_pb2.JwtAuthentication) for n, f in found.items() if ".jwt/" in n]
    places = [p.payload_in_metadata for m in made for p in m.providers.values()]
    assert sorted(places) == ["default/p/one", "default/p/two", "default/q/one", "default/q/two"]


@pytest.mark.parametrize(
    ("spec", "refused"),
    [
        (
            "apiKeyAuth: {credentialRefs: [{name: a}], extractFrom: [{headers: [k]}], forwardClientIDHeader: X-Client}",
            "x_client",
        ),
        ("basicAuth: {users: {name: a}, forwardUsernameHeader: x-user}", "x_user"),
        (
            (
                "jwt: {providers: [{name: one, issuer: 'https://a.test', remoteJWKS: {uri: 'https://a.test/keys'},"
                " claimToHeaders: [{header: x-role, claim: role}]}]}"
            ),
            "x_role",
        ),
        (
            "extAuth: {http: {backendRefs: [{name: ratings, port: 9080}], headersToBackend: [X-Auth-User]}}",
            "x_auth_user",
        ),
    ],
)
def test_headers_that_servers_take_for_those_of_verified_clients_are_refused(spec, refused):
    found = extensions(mesh.objects(policy("p", SERVICE, spec)))
    made = held(found["lateen.security.rules/default/p"], rbac_pb2.RBAC).rules
    assert made.action == made.DENY
    assert set(made.policies) == {"ns[default]-policy[SecurityPolicy/p]-unverified-tokens"}
    (denied,) = made.policies.values()
    assert refused in [p.header.name for p in denied.permissions]


def test_claims_are_stored_before_rules_read_them_and_until_none_does():
    of = "{name: %s, issuer: 'https://%s.test', remoteJWKS: {uri: 'https://a.test/keys'}}"
    jwt = f"jwt: {{providers: [{of % ('one', 'a')}, {of % ('two', 'b')}]}}"
    rule = "authorization: {rules: [{action: Allow, principal: {jwt: {provider: one, scopes: [x]}}}]}"
    near = "authorization: {rules: [{action: Allow, principal: {clientCIDRs: [10.0.0.0/8]}}]}"
    target = "{group: networking.istio.io, kind: Gateway, name: g}"

    def made(text, target=SERVICE, pod="productpage-v1", namespace="default"):
        """The places of claims, and the ranks of the slot of tokens and of that of rules."""
        objects = mesh.objects(GATEWAY + policy("p", target, text) if text else GATEWAY)
        found = mesh.view(objects, pod, namespace)
        made = {n: r for one in generate(found)[names.ECDS] for n, r in one.resources.items()}
        (place, slot), (_, ruled) = sorted((n, r) for n, r in made.items() if n.startswith("lateen.security/"))
        held_ = [held(m, jwt_pb2.JwtAuthentication) for m in judge.inside(judge.messages(found)[names.ECDS][place])]
        places = [p.payload_in_metadata for m in held_ for p in m.providers.values()]
        return sorted(places), slot.rank, ruled.rank

    for where in ((), (target, "ingress", "istio-system")):
        assert made(f"{jwt}, {rule}", *where) == (["", "default/p/one"], -1, 0)
        assert made(f"{jwt}, {near}", *where) == (["", ""], 1, 0)
    assert made("") == ([], 1, 0)


@pytest.mark.parametrize("again", [True, False])
def test_clients_without_a_token_cannot_choose_a_route_by_the_headers_of_its_claims(again, tmp_path):
    """Envoy removes such headers only once it has chosen a route, and chooses again only for a valid token."""
    out = "[{header: X-Role, claim: role}, {header: x-token, claim: a}]"
    of = f"name: one, issuer: 'https://a.test', claimToHeaders: {out}, recomputeRoute: {str(again).lower()}"
    keys = "remoteJWKS: {uri: 'https://a.test/keys'}, extractFrom: {headers: [{name: x-token}]}"
    text = f"jwt: {{optional: true, providers: [{{{of}, {keys}}}]}}"
    guarded = policy("p", "{group: networking.istio.io, kind: Gateway, name: g}", text)
    found = mesh.objects(GATEWAY + guarded)
    (manager,) = managers(found, "ingress", "istio-system", "0.0.0.0_8080")
    removed = []
    for early in manager.early_header_mutation_extensions:
        mutation = header_mutation_pb2.HeaderMutation()
        assert early.typed_config.Unpack(mutation)
        removed += [m.remove for m in mutation.mutations]
    assert removed == (["x-role"] if again else [])
    judge.validate(mesh.view(found, "ingress", "istio-system"), tmp_path)


def test_the_secret_of_all_cookies_is_nobodys_key():
    text = policy("p", SERVICE, KEYS.replace("clients", secured.COOKIE_SECRET)).replace(
        "{name: p}", "{name: p, namespace: istio-system}"
    )
    found = mesh.objects(text).put(
        kinds.SECRET,
        ("istio-system", secured.COOKIE_SECRET),
        o.Credential("istio-system", secured.COOKIE_SECRET, entries=(("hmac-secret", "x"),)),
    )
    (says,) = Mesh(found).broken("istio-system", "p")
    assert "there is no Secret" in says


PROVIDER = """
---
kind: ServiceEntry
metadata: {name: accounts}
spec:
  hosts: [accounts.test]
  ports: [{number: 443, name: https, protocol: HTTPS}, {number: 80, name: http, protocol: HTTP}]
  resolution: DNS
"""
OPAQUE = {
    ("default", "a"): {"client-secret": "s"},
    ("istio-system", secured.COOKIE_SECRET): {"hmac-secret": "x"},
}


def login(token, more="", documents=None, issuer="https://accounts.test"):
    """(the login of a policy, why it is broken) for a token endpoint, or for what a provider says of itself"""
    given = f"authorizationEndpoint: 'https://accounts.test/a', tokenEndpoint: '{token}', " if token else ""
    text = f"oidc: {{provider: {{{given}issuer: '{issuer}'}}, clientID: a, clientSecret: {{name: a}}}}"
    found = mesh.objects(policy("p", SERVICE, text) + more)
    for (namespace, name), data in OPAQUE.items():
        made = o.Credential(namespace, name, entries=tuple(data.items()))
        found = found.put(kinds.SECRET, (namespace, name), made)
    found = replace(found, token_keys=documents or {})
    one = Mesh(found).secured("default", "p")
    return one.login, one.why_broken("oidc")


def test_the_secret_of_a_client_goes_to_an_https_endpoint_by_verified_tls_whatever_the_mesh_knows():
    for more in ("", PROVIDER):
        made, _ = login("https://accounts.test/token", more)
        assert (made.cluster, made.outside) == ("login|443|https|accounts.test", ("accounts.test", 443, True))
    made, _ = login("http://accounts.test/token", PROVIDER)
    assert (made.cluster, made.outside) == ("outbound|80||accounts.test", None)


def test_two_policies_with_one_server_and_different_schemes_have_clusters_of_their_own():
    found = [login(f"{scheme}://accounts.test:8443/token")[0] for scheme in ("https", "http")]
    made = [judge.message("CDS", clusters.of_login(one.outside, Transport())) for one in found]
    assert [c.name for c in made] == [one.cluster for one in found]
    assert [c.HasField("transport_socket") for c in made] == [True, False]
    assert made[0].name != made[1].name


@pytest.mark.parametrize("url", ["https://accounts.test/a b", "https://a_b.test/", "https://a.test:99999/", "ftp://a"])
@pytest.mark.parametrize("wrong", ["authorization_endpoint", "token_endpoint", "end_session_endpoint"])
def test_a_provider_whose_endpoints_envoy_cannot_parse_lets_nobody_in(wrong, url):
    issuer = "https://accounts.test"
    said = {f"{n}_endpoint": f"{issuer}/{n}" for n in ("authorization", "token", "end_session")}
    source = KeySource(f"{issuer}/.well-known/openid-configuration", True, endpoints=True)
    assert login("", documents={source: json.dumps(said)})[1] == ""
    _, why = login("", documents={source: json.dumps({**said, wrong: url})})
    assert why == f"the {wrong} in {source.url} is not a URL that Envoy accepts"


def test_a_scope_that_is_named_as_a_text_matches_the_list_that_the_filter_made_of_it():
    """Source: ``normalize_payload_in_metadata`` of Envoy's JWT filter."""
    claims = "[{name: scope, values: [read]}, {name: role, values: [reader]}]"
    jwt = "jwt: {providers: [{name: one, issuer: 'https://a.test', remoteJWKS: {uri: 'https://a.test/keys'}}]}"
    rules = f"[{{action: Deny, principal: {{jwt: {{provider: one, claims: {claims}}}}}}}]"
    found = extensions(mesh.objects(policy("p", SERVICE, f"{jwt}, authorization: {{rules: {rules}}}")))
    made = held(found["lateen.security.rules/default/p"], rbac_pb2.RBAC).rules
    (denied,) = made.policies["ns[default]-policy[SecurityPolicy/p]-rule[0]"].principals
    scope, role = (p.metadata for p in denied.and_ids.ids)
    assert [s.key for s in scope.path] == ["default/p/one", "scope"]
    kinds_ = [v.WhichOneof("match_pattern") for v in scope.value.or_match.value_matchers]
    assert kinds_ == ["list_match", "string_match"]
    assert role.value.string_match.exact == "reader"


def test_of_a_client_in_several_secrets_the_first_ones_key_is_taken():
    two = KEYS.replace("[{name: clients}]", "[{name: one}, {name: two}]")
    found = with_secrets(policy("p", SERVICE, two), one={"a": "first"}, two={"a": "second", "b": "other"})
    made = held(extensions(found)["lateen.security.keys/default/p"], keys_pb2.ApiKeyAuth)
    assert {c.client: c.key for c in made.credentials} == {"a": "first", "b": "other"}


@pytest.mark.parametrize(
    ("allowed", "origin", "taken"),
    [
        ("https://*", "https://a.test", True),
        ("https://*", "https://a.test:8443", True),
        ("https://*", "http://a.test", False),
        ("https://*.a.test", "https://b.c.a.test", True),
        ("https://*.a.test", "https://b.a.test:8443", False),
        ("https://*.a.test:*", "https://b.a.test:8443", True),
        ("https://*.a.test:*", "https://b.a.test:8443.evil.test", False),
        ("https://*.a.test", "https://evil.test/.a.test", False),
        ("*", "null", True),
    ],
)
def test_stars_of_origins(allowed, origin, taken):
    made = cors_pb2.CorsPolicy()
    security.cors(sp.CORS(allow_origins=(allowed,))).Unpack(made)
    (matcher,) = made.allow_origin_string_match
    assert bool(compiled(matcher.safe_regex.regex).fullmatch(origin)) == taken


@pytest.mark.parametrize(
    ("places", "passing"),
    [
        ("", [("authorization", "Bearer ")]),
        ("extractFrom: {headers: [{name: X-Token}]}", [("x-token", "")]),
        ("extractFrom: {headers: [{name: a, valuePrefix: 'T '}], cookies: [c]}", [("a", "T ")]),
    ],
)
def test_requests_skip_a_login_with_a_token_where_it_is_verified(places, passing):
    wanted = LOGIN.replace("clientID: a", "clientID: a, passThroughAuthHeader: true")
    keys_of = "remoteJWKS: {uri: 'https://a.test/keys'}"
    one = policy("p", SERVICE, f"{wanted}, jwt: {{providers: [{{name: one, {keys_of}, {places}}}]}}")
    read = mesh.objects(one).of(kinds.SECURITY_POLICY)["default", "p"]
    ends = secured.Login("https://a.test/a", "https://a.test/t", "", "c", None, "s", "k")
    made = oidc.config(read, ends, read.spec.oidc)
    assert [(m.name, m.string_match.prefix) for m in made.pass_through_matcher] == passing
    assert made.preserve_authorization_header == ("authorization" in dict(passing))


def test_each_policy_has_cookies_that_no_other_can_make():
    found = mesh.objects(policy("a", SERVICE) + policy("b", SERVICE))
    secrets = {
        ("istio-system", "lateen-oidc"): o.Credential("istio-system", "lateen-oidc", entries=(("hmac-secret", "x"),))
    }
    policies = found.of(kinds.SECURITY_POLICY)
    a, b = (secured.cookie_key(policies["default", n], secrets, "istio-system") for n in "ab")
    assert a != b
    assert "x" not in (a, b)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", None),
        ("# a comment\n\nalice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n", None),
        ("alice:$apr1$x$y", "user 1"),
        ("alice:{SHA}short", "user 1"),
        ("a:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\na:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "repeats a user's name"),
        ("", "no users"),
    ],
)
def test_users_have_hashes_that_envoy_verifies(text, says):
    given = policy("p", SERVICE, "basicAuth: {users: {name: u}}")
    found = Mesh(with_secrets(given, u={".htpasswd": text})).broken("default", "p")
    assert (found == []) if says is None else (says in found[0])
    assert "W6ph" not in str(found)


@pytest.mark.parametrize("packed", [pb.any_of, lambda made: several([("keys", pb.any_of(made))])])
def test_dumps_have_no_keys(packed):
    made = keys_pb2.ApiKeyAuth()
    made.credentials.add(client="alice", key="of-alice")
    whole = extension_pb2.TypedExtensionConfig(name="n", typed_config=packed(made))
    said = dumps._without_keys(pb.any_of(whole))
    assert b"of-alice" not in said.value
    assert b"[redacted]" in said.value


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("{kind: Service, name: nowhere}", 'there is no Service "nowhere" in default'),
        ("{kind: Service, name: productpage, sectionName: x}", 'has no port named "x"'),
        ("{group: networking.istio.io, kind: Gateway, name: g, sectionName: x}", 'has nothing named "x"'),
        (SERVICE, None),
    ],
)
def test_a_target_that_is_not_there_has_an_outcome(target, says):
    found = [
        p.says for outcome in Mesh(mesh.objects(GATEWAY + policy("p", target))).outcomes() for p in outcome.problems
    ]
    assert (found == []) if says is None else (says in found[0])


ROUTE = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec: {parentRefs: [PARENT], rules: [{backendRefs: [{name: reviews, port: 9080}]}]}
"""


@pytest.mark.parametrize(
    ("parent", "said"), [("{group: '', kind: Service, name: reviews}", True), ("{kind: Gateway, name: g}", False)]
)
def test_a_policy_for_a_route_of_the_mesh_has_an_outcome(parent, said):
    text = policy("p", "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}")
    outcomes = Mesh(mesh.objects(ROUTE.replace("PARENT", parent) + text)).security_outcomes()
    found = [p.says for outcome in outcomes for p in outcome.problems]
    assert [("has no Gateway among its parents" in f) for f in found] == [True] * said


def test_where_requests_are_guarded_nothing_else_reaches_the_application():
    text = policy("p", SERVICE)
    found = judge.messages(mesh.view(mesh.objects(text, protocol=""), "productpage-v1"))
    chains = [c for c in found[names.LDS]["virtualInbound"].filter_chains if c.name == "0.0.0.0_9080"]
    tcp = [f for c in chains for f in c.filters if f.name == "envoy.filters.network.tcp_proxy"]
    assert tcp
    assert all(names.BLACK_HOLE.encode() in f.typed_config.value for f in tcp)


def test_a_field_that_says_what_is_so_anyway_is_no_matter():
    spec = {"jwt": {"providers": [{"name": "one", "localJWKS": {"type": "Inline", "inline": "{}"}}]}}
    assert ineffective(kinds.SECURITY_POLICY, spec) == []
    spec["jwt"]["providers"][0]["localJWKS"] = {"valueRef": {"name": "keys"}}
    assert "write the keys into inline" in ineffective(kinds.SECURITY_POLICY, spec)[0]


SCOPED = """
kind: Sidecar
metadata: {name: s}
spec: {ingress: [{port: {number: 7070, name: http, protocol: HTTP}, defaultEndpoint: "127.0.0.1:7070"}]}
"""
LIMIT = """
---
kind: BackendTrafficPolicy
metadata: {name: l}
spec:
  targetRefs: [{group: "", kind: Service, name: productpage}]
  rateLimit: {local: {rules: [{limit: {requests: 1, unit: Second}}]}}
"""


@pytest.mark.parametrize("more", [policy("p", SERVICE), LIMIT])
def test_a_sidecars_ingress_is_no_way_past_what_is_asked_for_at_a_port_that_it_leaves_out(more):
    """Connections to such ports pass through to the application, which listens there."""
    found = judge.messages(mesh.view(mesh.objects(f"{SCOPED}{more}")))
    chains = found[names.LDS]["virtualInbound"].filter_chains
    assert {c.filter_chain_match.destination_port.value for c in chains} >= {7070, 9080}
    slot = "lateen.security/9080/rules" if "SecurityPolicy" in more else "lateen.rate_limiting/9080"
    assert found[names.ECDS][slot].typed_config.value
    without = judge.messages(mesh.view(mesh.objects(SCOPED)))[names.LDS]["virtualInbound"].filter_chains
    assert 9080 not in {c.filter_chain_match.destination_port.value for c in without}, "as in Istio"
