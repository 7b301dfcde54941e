"""Session persistence and XBackendTrafficPolicies: by the words of GEP-1619, GEP-3388 and GEP-713."""

import judge
import meshes as mesh
import pytest
import re2
from envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2
from envoy.extensions.http.stateful_session.cookie.v3 import cookie_pb2
from envoy.extensions.http.stateful_session.header.v3 import header_pb2
from test_gateway_api import gateway, hosts, objects, of, path, route, rule, to

from lateen.api import effective, kinds, validate
from lateen.kit import yamldoc
from lateen.mesh.model import Mesh
from lateen.wire import names

SESSION = "envoy.filters.http.stateful_session"


def policy(name="p", services=("reviews",), spec=""):
    targets = ", ".join(s if s.startswith("{") else f'{{group: "", kind: Service, name: {s}}}' for s in services)
    return f"""
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {{name: {name}, namespace: default}}
spec: {{targetRefs: [{targets}]{f", {spec}" if spec else ""}}}
"""


def kept(target):
    """The session of a route or of one of its backends."""
    if SESSION not in target.typed_per_filter_config:
        return None
    own = stateful_session_pb2.StatefulSessionPerRoute()
    target.typed_per_filter_config[SESSION].Unpack(own)
    state = own.stateful_session.session_state.typed_config
    header, cookie = header_pb2.HeaderBasedSessionState(), cookie_pb2.CookieBasedSessionState()
    if state.Unpack(header):
        return header.name
    assert state.Unpack(cookie)
    return cookie.cookie.name, cookie.cookie.path, cookie.cookie.ttl.seconds


def matched(route, cookie):
    """Whether the route is for requests with these cookies."""
    (header,) = route.match.headers
    return re2.fullmatch(header.string_match.safe_regex.regex, cookie) is not None


def session(text, *backends, matches=""):
    more = f"sessionPersistence: {text}"
    return route(rule(*(backends or (to("reviews"),)), matches=matches, more=more), hosts=("a.example.com",))


def routed(*documents):
    return list(hosts(gateway(), *documents)["a.example.com"].routes)


@pytest.mark.parametrize(
    ("text", "matches", "wanted"),
    [
        ("{sessionName: s}", "", ("s", "/", 0)),
        ("{sessionName: s}", path("/shop"), ("s", "/shop", 0)),
        ("{sessionName: s}", path("/shop/.*", "RegularExpression"), ("s", "/", 0)),
        (
            "{sessionName: s, absoluteTimeout: 1h30m, cookieConfig: {lifetimeType: Permanent}}",
            "",
            ("s", "/", 5400),
        ),
        ("{sessionName: s, absoluteTimeout: 1h}", "", ("s", "/", 0)),
        ("{sessionName: X-S, type: Header}", "", "x-s"),
    ],
)
def test_a_rule_keeps_its_clients_by_a_cookie_or_a_header(text, matches, wanted):
    assert [kept(r) for r in routed(session(text, matches=matches))] == [wanted]


def test_sessions_without_a_name_have_one_of_their_own():
    rules = [rule(to("reviews"), matches=path(p), more="sessionPersistence: {}") for p in ("/a", "/b")]
    found = [kept(r)[0] for r in routed(route(*rules, hosts=("a.example.com",)))]
    assert len(set(found)) == 2
    assert all(name.startswith("lateen-session-") for name in found)


def test_clients_stay_with_the_backend_that_weights_have_given_them():
    first, second, weighted = routed(session("{sessionName: s}", to("reviews", weight=9), to("ratings", weight=1)))
    assert first.route.cluster.endswith("|reviews.default.svc.cluster.local")
    assert second.route.cluster.endswith("|ratings.default.svc.cluster.local")
    told = [
        [h.header.value for h in c.response_headers_to_add if h.header.key == "set-cookie"]
        for c in weighted.route.weighted_clusters.clusters
    ]
    for follower, (said,) in zip((first, second), told, strict=True):
        cookie = said.partition(";")[0]
        assert "HttpOnly" in said
        assert matched(follower, f"a=b; {cookie}; c=d")
        assert matched(follower, cookie)
        assert not matched(follower, f"{cookie}0")
        assert not matched(follower, f"x{cookie}")
        assert kept(follower) == kept(weighted) == ("s", "/", 0)


def test_clients_also_stay_with_a_backend_that_has_filters_of_its_own():
    mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: productpage, port: 9080}}}"
    found = routed(session("{sessionName: s}", to("reviews"), to("ratings", filters=f"[{mirror}]")))
    *followers, alone, rest = found
    assert [bool(r.match.headers) for r in found] == [True, True, False, False]
    assert alone.match.runtime_fraction.default_value.numerator == 500_000
    for r, follower in ((alone, followers[0]), (rest, followers[1])):
        (said,) = [h.header.value for h in r.response_headers_to_add]
        assert matched(follower, said.partition(";")[0])
        assert r.route.cluster == follower.route.cluster
        assert bool(r.route.request_mirror_policies) == bool(follower.route.request_mirror_policies)


def test_clients_are_kept_before_the_share_of_a_missing_backend_is_refused():
    found = routed(session("{sessionName: s}", to("reviews"), to("ratings"), to("missing")))
    assert [r.WhichOneof("action") for r in found] == ["route", "route", "direct_response", "route"]


def test_a_policy_keeps_clients_of_its_service_however_they_come():
    p = policy(spec="sessionPersistence: {sessionName: own}")
    assert [kept(r) for r in routed(route(rule(to("reviews")), hosts=("a.example.com",)), p)] == [("own", "/", 0)]
    assert [kept(r) for r in routed(session("{sessionName: rules}"), p)] == [("rules", "/", 0)]
    (split,) = routed(route(rule(to("reviews"), to("ratings")), hosts=("a.example.com",)), p)
    assert kept(split) is None
    assert [kept(c) for c in split.route.weighted_clusters.clusters] == [("own", "/", 0), None]
    assert [kept(r) for r in _in_the_mesh(p)] == [("own", "/", 0)]
    service = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: vs, namespace: default}
spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}]}
"""
    assert [kept(r) for r in _in_the_mesh(p, service)] == [("own", "/", 0)]
    assert [kept(r) for r in _in_the_mesh(service)] == [None]


def _in_the_mesh(*documents):
    made = judge.messages(mesh.view(objects(*documents), "productpage-v1"))[names.VHDS]
    return made["9080/reviews.default.svc.cluster.local:9080"].routes


def _budget(*documents):
    made = judge.messages(mesh.view(objects(*documents), "productpage-v1"))[names.CDS]
    limits = made["outbound|9080||reviews.default.svc.cluster.local"].circuit_breakers.thresholds[0]
    found = limits.retry_budget
    return (found.budget_percent.value, found.min_retry_concurrency.value) if limits.HasField("retry_budget") else None


def test_a_policy_limits_retries_unless_a_destination_rule_does():
    rules = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: dr, namespace: default}
spec: {host: reviews, trafficPolicy: {retryBudget: {percent: 50}}}
"""
    assert _budget() is None
    assert _budget(policy()) is None
    assert _budget(policy(spec="retryConstraint: {}")) == (20, 10)
    assert _budget(policy(spec="retryConstraint: {budget: {percent: 0}, minRetryRate: {count: 2}}")) == (0, 2)
    assert _budget(policy(spec="retryConstraint: {}"), rules) == (50, 0)


def _standing(name, *documents):
    found = Mesh(objects(*documents)).standings()[kinds.X_BACKEND_TRAFFIC_POLICY.ref("default", name)]
    return {(a.ancestor.kind, a.ancestor.name): of(a.conditions)["Accepted"] for a in found.ancestors}


def test_a_policy_says_where_it_holds_and_the_oldest_of_a_service_wins():
    documents = (
        gateway(),
        route(rule(to("reviews"))),
        policy("old", ("reviews", "ratings"), "retryConstraint: {budget: {percent: 10}}"),
        policy("new", spec="retryConstraint: {budget: {percent: 90}}"),
    )
    accepted, beaten = ("True", "Accepted"), ("False", "Conflicted")
    assert _standing("old", *documents) == {
        ("Service", "reviews"): accepted,
        ("Service", "ratings"): accepted,
        ("Gateway", "web"): accepted,
    }
    assert _standing("new", *documents) == {("Service", "reviews"): beaten, ("Gateway", "web"): beaten}
    assert _budget(*documents) == (10, 10)
    assert _standing("new", *documents[:2], documents[3]) == {
        ("Service", "reviews"): accepted,
        ("Gateway", "web"): accepted,
    }


def test_a_policy_for_what_is_not_there_is_not_accepted():
    assert _standing("p", policy(services=("missing",))) == {("Service", "missing"): ("False", "TargetNotFound")}
    of_route = "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}"
    assert _standing("p", policy(services=(of_route,))) == {("HTTPRoute", "r"): ("False", "Invalid")}


@pytest.mark.parametrize(
    ("spec", "at", "says"),
    [
        ("sessionPersistence: {absoluteTimeout: 1h}", "sessionPersistence.absoluteTimeout", "a session cookie"),
        (
            "sessionPersistence: {type: Header, absoluteTimeout: 1h}",
            "sessionPersistence.absoluteTimeout",
            "how long a header is valid",
        ),
        ('sessionPersistence: {sessionName: "a b"}', "sessionPersistence.sessionName", "cannot be the name"),
        (
            "sessionPersistence: {type: Header, cookieConfig: {}}",
            "sessionPersistence.cookieConfig",
            "only be set with type Cookie",
        ),
        ("retryConstraint: {budget: {interval: 2h}}", "retryConstraint.budget.interval", "one hour"),
        ("retryConstraint: {minRetryRate: {interval: 0s}}", "retryConstraint.minRetryRate.interval", "zero"),
    ],
)
def test_what_envoy_cannot_do_is_named(spec, at, says):
    doc = yamldoc.load(policy(spec=spec))
    found = dict((*validate.problems(doc), *validate.warnings(doc)))
    assert says in found[f"spec.{at}"]


def test_intervals_of_retries_have_no_effect():
    for path_of, says in (("budget", "currently active"), ("minRetryRate", "concurrent retries")):
        assert says in effective.reason(kinds.X_BACKEND_TRAFFIC_POLICY, f"retryConstraint.{path_of}.interval")


def test_a_service_is_a_target_once_and_other_kinds_have_no_effect():
    doc = yamldoc.load(policy(services=("reviews", "reviews", "{group: a.example, kind: Backend, name: b}")))
    found = {f.path: (f.says, f.warning) for f in validate.findings(doc)}
    assert found["spec.targetRefs[1]"] == ("Service reviews is there twice", False)
    assert found["spec.targetRefs[2]"][1]
