"""Statuses of the Gateway API's objects as they are written."""

from lateen.api import kinds
from lateen.control import gateway_status
from lateen.control.reach import Reach
from lateen.mesh.outcomes import (
    AncestorStanding,
    ClassStanding,
    Condition,
    GatewayStanding,
    ListenerSetStanding,
    ListenerStanding,
    ParentStanding,
    PolicyStanding,
    RouteStanding,
)

NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"
GOOD = (Condition("Accepted", True, "Accepted", "fine"),)
CONTROLLER = "istio.io/gateway-controller"


def obj(status=None, generation=1, **spec):
    return {"metadata": {"name": "x", "generation": generation}, "spec": spec, "status": status or {}}


def gateway(*services):
    programmed = Condition("Programmed", True, "Programmed", "fine")
    return GatewayStanding(GOOD, (ListenerStanding("http", (), 2, (*GOOD, programmed)),), services)


def found(status, name, at="conditions"):
    return next((c["status"], c["reason"], c["observedGeneration"]) for c in status[at] if c["type"] == name)


ADDRESS = [{"type": "IPAddress", "value": "10.0.0.1"}]


ONE = Reach(1, 1)


def written(standing, far=ONE, addresses=ADDRESS, of=None, now=NOW, problem=None):
    own = of or obj(generation=3)
    return gateway_status.outcome(own, standing, gateway_status.Front(own, far, addresses, problem), now)


def test_a_gateway_is_programmed_once_all_its_proxies_have_it():
    for far, status, reason in (
        (Reach(), "False", "Pending"),
        (Reach(2, 1), "Unknown", "Pending"),
        (Reach(2, 2), "True", "Programmed"),
        (Reach(2, 1, (("a.b", "too long"),)), "False", "Invalid"),
    ):
        made = written(gateway("a.b"), far).status
        assert found(made, "Programmed") == (status, reason, 3)
        assert found(made["listeners"][0], "Programmed") == (status, reason, 3)
        assert found(made, "Accepted") == ("True", "Accepted", 3)
    assert made["listeners"][0]["attachedRoutes"] == 2
    assert made["addresses"] == ADDRESS


def test_a_gateway_without_a_service_or_an_address_is_not_programmed():
    assert found(written(gateway()).status, "Programmed")[:2] == ("False", "AddressNotUsable")
    assert found(written(gateway("a.b"), addresses=[]).status, "Programmed")[:2] == ("False", "AddressNotAssigned")


def test_a_proxy_that_connects_later_does_not_make_a_gateway_unprogrammed():
    before = written(gateway("a.b")).status
    again = written(gateway("a.b"), Reach(2, 1), of=obj(before, 3), now=LATER)
    assert again.status is None
    changed = written(gateway("a.b"), Reach(2, 1), of=obj(before, 4), now=LATER).status
    assert found(changed, "Programmed") == ("Unknown", "Pending", 4)


def test_a_condition_keeps_the_time_at_which_it_became_so():
    before = written(gateway("a.b")).status
    after = written(gateway("a.b"), of=obj(before, 4), now=LATER).status
    assert {c["lastTransitionTime"] for c in after["conditions"]} == {NOW}
    bad = written(gateway(), of=obj(before, 4), now=LATER).status
    times = {c["type"]: c["lastTransitionTime"] for c in bad["conditions"]}
    assert times == {"Accepted": NOW, "Programmed": LATER}


def test_the_default_of_the_definition_is_replaced():
    waiting = {
        "type": "Accepted",
        "status": "Unknown",
        "reason": "Pending",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    }
    made = written(gateway("a.b"), of=obj({"conditions": [waiting]}, 1)).status
    assert found(made, "Accepted") == ("True", "Accepted", 1)
    assert made["conditions"][0]["lastTransitionTime"] == NOW


REFS = [{"name": "web", "kind": "Gateway"}, {"name": "other"}]


def test_a_route_has_a_status_for_each_parent_that_is_ours_and_keeps_those_of_others():
    others = {"parentRef": REFS[1], "controllerName": "example.com/c", "conditions": []}
    gone = {"parentRef": {"name": "gone"}, "controllerName": CONTROLLER, "conditions": []}
    route = obj({"parents": [others, gone]}, 2, parentRefs=REFS)
    made = written(RouteStanding((ParentStanding(0, GOOD),)), of=route).status
    assert made["parents"][0] == others
    assert [(p["parentRef"], p["controllerName"]) for p in made["parents"][1:]] == [(REFS[0], CONTROLLER)]
    assert found(made["parents"][1], "Accepted") == ("True", "Accepted", 2)
    again = written(RouteStanding((ParentStanding(0, GOOD),)), of=obj(made, 2, parentRefs=REFS), now=LATER)
    assert (again.status, again.settled) == (None, True)


def test_a_route_without_parents_of_ours_is_left_alone():
    assert written(RouteStanding(()), of=obj({"parents": []}, 1, parentRefs=REFS)).status is None


def test_a_class_lists_its_features_in_order():
    made = written(ClassStanding(GOOD, ("HTTPRoute", "Gateway"))).status
    assert made["supportedFeatures"] == [{"name": "Gateway"}, {"name": "HTTPRoute"}]


def test_the_address_of_a_service_is_outside_of_the_cluster_if_it_has_one():
    service = {"metadata": {"name": "a", "namespace": "b"}}
    assert gateway_status.addresses(service, "cluster.local") == [
        {"type": "Hostname", "value": "a.b.svc.cluster.local"}
    ]
    outside = {"status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}, {"hostname": "lb.example.com"}]}}}
    values = [a["value"] for a in gateway_status.addresses(service | outside, "cluster.local")]
    assert values == ["10.0.0.1", "lb.example.com"]
    assert gateway_status.addresses({}, "cluster.local") == []


GATEWAY = kinds.KUBERNETES_GATEWAY.ref("default", "web")


def listener_set(*conditions):
    own = gateway("a.b").listeners
    return ListenerSetStanding(GATEWAY, conditions or GOOD, own, gateway("a.b"))


def test_a_listener_set_is_programmed_as_far_as_its_gateway_is():
    for far, status, reason in ((Reach(2, 1), "Unknown", "Pending"), (Reach(2, 2), "True", "Programmed")):
        made = written(listener_set(), far)
        assert found(made.status, "Programmed") == (status, reason, 3)
        assert found(made.status["listeners"][0], "Programmed") == (status, reason, 3)
        assert made.settled == (status == "True")
        assert "addresses" not in made.status


def test_a_listener_set_that_is_not_let_in_says_so():
    bad = [Condition(name, False, "NotAllowed", "not let in") for name in ("Accepted", "Programmed")]
    made = written(listener_set(*bad))
    assert found(made.status, "Programmed") == ("False", "NotAllowed", 3)
    assert made.settled


def test_a_gateway_says_why_its_proxies_could_not_be_deployed():
    made = written(gateway("a.b"), problem=("Invalid", "the name is too long"))
    assert found(made.status, "Programmed") == ("False", "Invalid", 3)
    assert "the name is too long" in [c["message"] for c in made.status["conditions"]]
    assert found(made.status, "Accepted") == ("True", "Accepted", 3)
    made = written(gateway("a.b"), problem=("InvalidParameters", "there is no ConfigMap"))
    assert found(made.status, "Accepted") == ("False", "InvalidParameters", 3)


def test_a_policy_has_a_status_for_each_of_our_gateways_and_keeps_those_of_others():
    other = {"ancestorRef": {"name": "x"}, "controllerName": "example.com/other", "conditions": []}
    of = obj({"ancestors": [other]}, generation=3)
    made = gateway_status.outcome(of, PolicyStanding((AncestorStanding(GATEWAY, GOOD),)), None, NOW).status
    assert made["ancestors"][0] == other
    assert made["ancestors"][1]["ancestorRef"]["name"] == "web"
    assert found(made["ancestors"][1], "Accepted") == ("True", "Accepted", 3)
    again = gateway_status.outcome(
        {**of, "status": made}, PolicyStanding((AncestorStanding(GATEWAY, GOOD),)), None, LATER
    )
    assert again.status is None
