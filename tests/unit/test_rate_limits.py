"""Rate limits: which policies apply to a workload's port and at gateways, and how proxies are configured."""

import judge
import meshes as mesh
import pytest
from envoy.config.route.v3 import route_components_pb2 as rc
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2 as local
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from filtering import behind
from rules import check

from lateen.analysis import Snapshot, Source, analyze
from lateen.kit import yamldoc
from lateen.mesh.model import Mesh
from lateen.wire import names

POLICY = """
kind: BackendTrafficPolicy
metadata: {name: NAME}
spec: {targetRefs: [TARGET], rateLimit: {type: Local, local: {rules: [RULES]}}}
"""
PRODUCTPAGE = '{group: "", kind: Service, name: productpage}'
ONE = "{limit: {requests: 2, unit: Minute}}"
GATEWAY = """
kind: Gateway
metadata: {name: g}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
kind: Gateway
metadata: {name: other}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
kind: VirtualService
metadata: {name: v}
spec: {hosts: [a.test], gateways: [g], http: [{route: [{destination: {host: reviews}}]}]}
---
kind: VirtualService
metadata: {name: w}
spec: {hosts: [b.test], gateways: [other], http: [{route: [{destination: {host: reviews}}]}]}
"""


def policy(rules=ONE, target=PRODUCTPAGE, name="p"):
    return POLICY.replace("RULES", rules).replace("TARGET", target).replace("NAME", name)


def slots(text, pod="productpage-v1"):
    """Name -> the configuration of each slot of rate limits that a pod has."""
    found = judge.messages(mesh.view(mesh.objects(text), pod))
    asked = set()
    for chain in found[names.LDS]["virtualInbound"].filter_chains:
        for f in chain.filters:
            manager = hcm.HttpConnectionManager()
            if f.typed_config.Unpack(manager):
                asked |= {h.name for h in manager.http_filters if h.name.startswith("lateen.rate_limiting")}
    held = {n: m for n, m in found[names.ECDS].items() if n.startswith("lateen.rate_limiting")}
    assert asked == set(held)
    out = {}
    for message in held.values():
        for filter_ in judge.inside(message) or [message]:
            limit = local.LocalRateLimit()
            if filter_.typed_config.Unpack(limit):
                out[limit.stat_prefix] = limit
    return out


def test_a_limit_is_at_the_port_of_the_pods_behind_a_service():
    found = slots(policy())["lateen.rate_limit"]
    assert "lateen.rate_limit_shadow" not in slots(policy())
    (descriptor,) = found.descriptors
    bucket = descriptor.token_bucket
    assert (bucket.max_tokens, bucket.tokens_per_fill.value, bucket.fill_interval.seconds) == (2, 2, 60)
    assert [(e.key, e.value) for e in descriptor.entries] == [("rule", "default/p/0")]
    assert found.filter_enforced.default_value.numerator == 1_000_000
    assert found.response_headers_to_add[0].header.value == "30"
    assert slots(policy(), "reviews-v1") == {}
    assert slots("") == {}


def test_an_inverted_header_counts_whoever_leaves_it_out():
    (limit,) = slots(
        policy("{clientSelectors: [{headers: [{name: X-Plan, value: paid, invert: true}]}], limit: {requests: 2}}")
    ).values()
    (match,) = [a.header_value_match for a in limit.rate_limits[0].actions if a.HasField("header_value_match")]
    (header,) = match.headers
    assert (header.name, header.string_match.exact) == ("x-plan", "paid")
    assert header.invert_match
    assert header.treat_missing_header_as_empty


@pytest.mark.parametrize(
    ("rules", "protocol", "closed"),
    [
        (ONE, "auto", True),
        (ONE, "tcp", False),
        ("{limit: {requests: 2}, shadowMode: true}", "auto", False),
        ("", "auto", False),
    ],
)
def test_what_is_no_request_does_not_get_past_a_limit(rules, protocol, closed):
    """Servers answer requests that Envoy does not recognize, such as those after an empty line."""
    found = judge.messages(mesh.view(mesh.objects(policy(rules) if rules else "", protocol=protocol)))
    chains = [c for c in found[names.LDS]["virtualInbound"].filter_chains if c.name == "0.0.0.0_9080"]
    tcp = [f for c in chains for f in c.filters if f.name.endswith("tcp_proxy")]
    assert tcp
    assert {names.BLACK_HOLE.encode() in f.typed_config.value for f in tcp} == {closed}


def test_shadow_mode_is_a_filter_that_refuses_nothing():
    both = f"{ONE}, {{limit: {{requests: 1, unit: Hour}}, shadowMode: true}}"
    found = slots(policy(both))
    assert set(found) == {"lateen.rate_limit", "lateen.rate_limit_shadow"}
    shadow = found["lateen.rate_limit_shadow"]
    assert shadow.filter_enforced.default_value.numerator == 0
    assert len(shadow.descriptors) == len(found["lateen.rate_limit"].descriptors) == 1


DISTINCT = {
    "a header": ("headers: [{name: X-User, type: Distinct}]", lambda value: {"x_user": value}),
    "a parameter": ("queryParams: [{name: key, type: Distinct}]", lambda value: {"path": f"/?key={value}"}),
    "both": (
        "headers: [{name: x-user, type: Distinct}], queryParams: [{name: key, type: Distinct}]",
        lambda value: {"x_user": value, "path": "/?key=same"},
    ),
}


@pytest.mark.parametrize("what", DISTINCT)
def test_each_value_has_a_bucket_and_those_that_are_too_long_to_be_kept_have_one_together(what, tmp_path):
    """Clients choose the values, and Envoy keeps the last 10,000: these would be as many headers of 60 kB."""
    selector, asked = DISTINCT[what]
    found = slots(policy(f"{{clientSelectors: [{{{selector}}}], limit: {{requests: 1, unit: Day}}}}"))
    with behind(tmp_path, found.values()) as ask:
        statuses = [ask(**asked(value))[0] for value in ("a", "a", "b", "c" * 2000, "d" * 2000, "c" * 2000)]
        assert statuses == [200, 429, 200, 200, 200, 429]
        assert [ask(**asked(c * 2001))[0] for c in "efg"] == [200, 429, 429]
        assert [ask()[0] for _ in range(3)] == [200] * 3, "without a value there is no limit"


def test_the_oldest_policy_of_a_service_counts_and_the_other_one_has_an_outcome():
    found = mesh.objects(f"{policy(name='a')}---{policy(name='b')}")
    (outcome,) = Mesh(found).outcomes()
    assert outcome.of.name == "b"
    assert (
        outcome.problems[0].says == "the older BackendTrafficPolicy default/a is for Service default/productpage, too"
    )


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ('{group: "", kind: Service, name: nowhere}', 'there is no Service "nowhere" in default'),
        ("{kind: Service, name: productpage, sectionName: x}", 'has no port named "x"'),
        ("{group: networking.istio.io, kind: Gateway, name: g}", "there is no Gateway default/g"),
        (PRODUCTPAGE, None),
    ],
)
def test_a_target_that_is_not_there_is_named(target, says):
    found = Mesh(mesh.objects(policy(target=target))).outcomes()
    assert [says in p.says for o in found for p in o.problems] == ([True] if says else [])


WITHOUT_PODS = """
apiVersion: v1
kind: Service
metadata: {name: outside, namespace: default}
spec: {ports: [{name: http, port: 80}]}
"""
WITHOUT_PORTS = """
apiVersion: v1
kind: Service
metadata: {name: peers, namespace: default}
spec: {clusterIP: None, selector: {app: peers}}
"""
OF_MESH = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec: {parentRefs: [{group: "", kind: Service, name: reviews}], rules: [{backendRefs: [{name: reviews, port: 9080}]}]}
"""
OF_A_ROUTE = "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}"


@pytest.mark.parametrize(
    ("target", "more", "protocol", "says"),
    [
        (PRODUCTPAGE, "", "tcp", "port tcp is not HTTP, and only requests are counted"),
        (PRODUCTPAGE, "", "", None),
        ('{group: "", kind: Service, name: outside}', WITHOUT_PODS, "http", 'the Service "outside" has no selector'),
        ('{group: "", kind: Service, name: peers}', WITHOUT_PORTS, "http", "Service default/peers has no ports"),
        (OF_A_ROUTE, OF_MESH, "http", "HTTPRoute default/r has no Gateway among its parents"),
        (OF_A_ROUTE, OF_MESH.replace('group: "", kind: Service, name: reviews', "name: web"), "http", None),
    ],
)
def test_a_target_whose_requests_nobody_counts_is_named(target, more, protocol, says):
    found = Mesh(mesh.objects(f"{policy(target=target)}---{more}", protocol=protocol)).limit_outcomes()
    assert [says in p.says for o in found for p in o.problems] == ([True] if says else [])


def test_the_analysis_says_it():
    doc = next(iter(yamldoc.objects(policy(target='{group: "", kind: Service, name: nowhere}'))))
    doc = {"apiVersion": "gateway.envoyproxy.io/v1alpha1", **doc}
    doc["metadata"]["namespace"] = "default"
    found = analyze(Snapshot([Source(doc)]), ["routes.OutcomeAnalyzer"])
    assert [m.kind.code for m in found] == ["LAT0120"]


def test_a_port_can_be_limited_alone():
    named = "{kind: Service, name: productpage, sectionName: http}"
    found = f"{policy(name='whole', rules='{limit: {requests: 7, unit: Second}}')}---{policy(target=named)}"
    assert slots(found)["lateen.rate_limit"].descriptors[0].token_bucket.max_tokens == 2


def gateway_hosts(text):
    found = judge.messages(mesh.view(mesh.objects(text), "ingress", "istio-system"))
    return {h.domains[0]: h for h in judge.routes(found, "http.8080").virtual_hosts}


def buckets(host):
    out = local.LocalRateLimit()
    host.typed_per_filter_config["lateen.rate_limit"].Unpack(out)
    return out


def limiting(host):
    """The filters of limits that a host has."""
    return sorted(n for n in host.typed_per_filter_config if n.startswith("lateen."))


def limited_by(host):
    """The policies that each of a host's routes names."""
    return [sorted(r.metadata.filter_metadata["lateen.rate_limits"]) for r in host.routes]


def test_a_gateways_limit_is_on_its_own_routes():
    text = f"{GATEWAY}---{policy(target='{group: networking.istio.io, kind: Gateway, name: g}')}"
    hosts = gateway_hosts(text)
    assert {name: limiting(h) for name, h in hosts.items()} == {
        "a.test": ["lateen.rate_limit"],
        "b.test": [],
    }
    assert limited_by(hosts["a.test"]) == [["default/p"]]


def test_routes_of_a_host_share_the_buckets_and_only_those_that_name_a_policy_count():
    first = GATEWAY.replace("[{route:", "[{match: [{uri: {prefix: /a}}, {uri: {prefix: /b}}], route:", 1)
    text = f"{first}---{policy(target='{group: networking.istio.io, kind: Gateway, name: g}')}"
    host = gateway_hosts(text)["a.test"]
    assert limited_by(host) == [["default/p"]] * 2
    assert not [r for r in host.routes if r.typed_per_filter_config]
    found = buckets(host)
    assert len(found.descriptors) == len(found.rate_limits) == 1
    action = found.rate_limits[0].actions[0].metadata
    assert (action.source, action.default_value, action.skip_if_absent) == (action.ROUTE_ENTRY, "", False)
    assert [(e.key, e.value) for e in found.descriptors[0].entries] == [
        ("policy", "default/p"),
        ("rule", "default/p/0"),
    ]


def off(host):
    """The filters that are off, for each of a host's routes."""
    out = []
    for r in host.routes:
        found = {n: rc.FilterConfig() for n in r.typed_per_filter_config}
        for n, config in found.items():
            assert r.typed_per_filter_config[n].Unpack(config)
        out.append(sorted(n for n, config in found.items() if config.disabled))
    return out


def test_a_route_without_limits_has_no_filter_for_those_of_other_routes_of_its_host(tmp_path):
    """The filter would say of it that 4294967295 requests are left (x-ratelimit-limit)."""
    text = GATEWAY.replace("hosts: [b.test]", "hosts: [a.test]").replace(
        "[{route:", "[{match: [{uri: {prefix: /a}}], route:", 1
    )
    both = f"{ONE}, {{limit: {{requests: 1, unit: Hour}}, shadowMode: true}}"
    enforced, shadow = "lateen.rate_limit", "lateen.rate_limit_shadow"
    for rules, kinds in ((ONE, [enforced]), (both, [enforced, shadow])):
        documents = f"{text}---{policy(rules, '{group: networking.istio.io, kind: Gateway, name: g}')}"
        host = gateway_hosts(documents)["a.test"]
        assert limiting(host) == kinds
        assert off(host) == [[], kinds]
        judge.validate(mesh.view(mesh.objects(documents), "ingress", "istio-system"), tmp_path)


def test_a_route_whose_only_limit_is_in_shadow_mode_has_no_filter_that_enforces():
    text = GATEWAY.replace("hosts: [b.test]", "hosts: [a.test]").replace(
        "[{route:", "[{match: [{uri: {prefix: /a}}], route:", 1
    )
    tried = policy(
        "{limit: {requests: 1}, shadowMode: true}", "{group: networking.istio.io, kind: Gateway, name: g}", "s"
    )
    held = policy(ONE, "{group: networking.istio.io, kind: Gateway, name: other}")
    host = gateway_hosts(f"{text}---{tried}---{held}")["a.test"]
    assert off(host) == [["lateen.rate_limit"], ["lateen.rate_limit_shadow"]]


def spec(rules=None, **more):
    limits = {"type": "Local", "local": {"rules": rules if rules is not None else [{"limit": {"requests": 1}}]}}
    return {"targetRefs": [{"kind": "Service", "name": "a"}], "rateLimit": limits, **more}


def rule(**selector):
    return spec([{"clientSelectors": [selector], "limit": {"requests": 1, "unit": "Second"}}])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (spec(), None),
        (spec(targetRefs=[]), "no name the target of the policy"),
        (spec(targetRefs=[{"kind": "Pod", "name": "a"}]), "no it can be a Service"),
        (spec(targetRefs=[{"kind": "Service"}]), "no targetRef name must be set"),
        (spec(targetSelectors=[{"kind": "Service"}]), "no selecting targets by labels is not implemented"),
        (spec(targetRef={"kind": "Service", "name": "b"}), "no either targetRef or targetRefs can be used"),
        (spec([]), "no there is no rule"),
        (spec([{}]), "no the limit is missing"),
        (spec([{"limit": {"requests": 0}}]), "no must be at least 1"),
        (spec([{"limit": {"requests": 1}}] * 17), "no must have at most 16 items"),
        (spec(rateLimit={"local": {"rules": [{"limit": {"requests": 1}}]}}), None),
        (spec(rateLimit={}), "no there is no limit"),
        (spec(rateLimit={"type": "Global"}), "no the type is Global, and there are no global limits"),
        (spec(rateLimit={"type": "Global", "global": {"rules": []}}), "no there is no rule"),
        (rule(), "no at least one of headers, methods, path"),
        (rule(headers=[{"name": "a", "value": "b"}]), None),
        (rule(headers=[{"name": "a b", "value": "b"}]), "no is not a valid header name"),
        (rule(headers=[{"name": "a"}]), "no the value is missing"),
        (rule(headers=[{"name": "a", "value": "(", "type": "RegularExpression"}]), "no RE2"),
        (rule(headers=[{"name": "a", "value": "b", "type": "Distinct"}]), "no must not be set with type Distinct"),
        (rule(headers=[{"name": "a", "invert": True, "type": "Distinct"}]), "no must not be set with type Distinct"),
        (rule(headers=[{"name": "@source.principal", "type": "Distinct"}]), None),
        (rule(headers=[{"name": "@request.auth.claims.sub", "value": "x"}]), None),
        (rule(headers=[{"name": "@who", "value": "x"}]), "no names that begin with @ are"),
        (rule(headers=[{"name": "@source.principal", "value": "x", "invert": True}]), "no and not inverted"),
        (rule(methods=[{"value": "get"}]), "no is not a method"),
        (
            rule(methods=[{"value": "GET", "invert": True}, {"value": "PUT"}]),
            "no an inverted method must be the only one",
        ),
        (rule(path={"value": "a"}), "no is not a path"),
        (rule(path={"value": "(", "type": "RegularExpression"}), "no RE2"),
        (rule(sourceCIDR={"value": "10.0.0.0/99"}), "no is not a valid CIDR block"),
        (rule(queryParams=[{"value": "a"}]), "no the name of the parameter is missing"),
        # what Envoy refuses would keep everything else of its kind from a proxy
        (rule(queryParams=[{"name": "a" * 1025, "type": "Distinct"}]), "no must have at most 1024 bytes, has 1025"),
        (rule(queryParams=[{"name": "a", "value": "", "type": "RegularExpression"}]), "no expression is empty"),
        (rule(headers=[{"name": "a", "value": "", "type": "RegularExpression"}]), "no expression is empty"),
        (rule(headers=[{"name": "@request.auth.claims.a..b", "value": "x"}]), "no names that begin with @ are"),
    ],
)
def test_what_a_policy_may_say(given, says):
    check("BackendTrafficPolicy", given, says)


def test_a_limit_of_a_host_is_for_all_spellings_of_its_name(tmp_path):
    one = "{clientSelectors: [{headers: [{name: Host, value: shop.test}]}], limit: {requests: 1, unit: Day}}"
    with behind(tmp_path, slots(policy(one)).values()) as ask:
        assert [ask(host=h)[0] for h in ("shop.test", "shop.test", "SHOP.test:80", "shop.test.")] == [
            200,
            429,
            429,
            429,
        ]
        assert [ask(host=h)[0] for h in ("xshop.test", "shop.test.evil", "a.shop.test")] == [200] * 3
