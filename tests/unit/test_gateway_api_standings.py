"""What becomes of the Gateway API's objects: conditions, with the API's reasons."""

import pytest
from test_gateway_api import (
    CLASS,
    FRONT,
    HOST,
    TLS,
    V1,
    accepted,
    gateway,
    hosts,
    listener,
    of,
    route,
    rule,
    standing,
    to,
)

from lateen.api import kinds


def test_a_route_is_told_why_no_listener_takes_it():
    one = route(rule(to("reviews")), hosts=("b.example.com",))
    same = "{name: http, port: 80, protocol: HTTP}"
    kinds_ = (
        "{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}, kinds: [{kind: GRPCRoute}]}}"
    )
    for gw, reason in (
        (gateway(listener("http", "a.example.com")), "NoMatchingListenerHostname"),
        (gateway(same), "NotAllowedByListeners"),
        (gateway(kinds_), "NotAllowedByListeners"),
        (gateway(same, listener("http2", "a.example.com")), "NotAllowedByListeners"),
        (gateway(listener("http", "*.example.com")), "Accepted"),
    ):
        assert accepted(gw, one) == ("True" if reason == "Accepted" else "False", reason)
    assert (
        accepted(route(rule(to("ratings")), parent="{group: '', kind: Service, name: missing}"))[1]
        == "NoMatchingParent"
    )


@pytest.mark.parametrize(("kind", "instead"), [("TCPRoute", "needs an HTTPRoute"), ("UDPRoute", "are not captured")])
def test_routes_of_connections_at_http_and_of_datagrams_are_not_accepted_at_services(kind, instead):
    one = f"""
{V1}
kind: {kind}
metadata: {{name: r, namespace: default}}
spec:
  parentRefs: [{{group: '', kind: Service, name: reviews}}]
  rules: [{{backendRefs: [{{name: reviews, port: 80}}]}}]
"""
    (parent,) = standing(kinds.find(kinds.GATEWAY_API, kind), "r", "default", one).parents
    said = next(c for c in parent.conditions if c.type == "Accepted")
    assert (said.true, said.reason) == (False, "UnsupportedValue")
    assert instead in said.says


def test_a_gateway_of_the_class_of_waypoints_says_that_there_are_none():
    of_class = CLASS.replace("istio}", "istio-waypoint}").replace("gateway-controller", "mesh-controller")
    found = standing(kinds.KUBERNETES_GATEWAY, "web", "istio-system", of_class, gateway(klass="istio-waypoint"))
    (accepted,) = found.conditions
    assert (accepted.type, accepted.true) == ("Accepted", False)
    assert "not implemented" in accepted.says


def test_routes_of_other_controllers_are_not_ours_to_judge():
    found = standing(kinds.HTTP_ROUTE, "r", "default", gateway(klass="nginx"), route(rule(to("reviews"))))
    assert found.parents == ()


def test_a_gateway_counts_its_routes_and_names_the_kinds_that_may_attach():
    found = standing(
        kinds.KUBERNETES_GATEWAY,
        "web",
        "istio-system",
        gateway(listener("a", "a.example.com"), listener("b", "b.example.com")),
        route(rule(to("reviews")), name="one"),
        route(rule(to("reviews")), name="two", hosts=("a.example.com",)),
        route(rule(to("reviews")), name="three", hosts=("c.example.com",)),
        route(rule(to("reviews")), name="four", kind="GRPCRoute"),
    )
    assert [(li.name, li.attached) for li in found.listeners] == [("a", 3), ("b", 2)]
    assert [k.kind for k in found.listeners[0].kinds] == ["HTTPRoute", "GRPCRoute"]
    assert of(found.conditions) == {"Accepted": ("True", "Accepted")}
    assert found.services == (HOST,)


def test_a_listener_says_what_is_wrong_with_it():
    away = ", tls: {certificateRefs: [{name: c, namespace: default}]}"
    for li, condition, reason in (
        (listener("x", protocol="SCTP"), "Accepted", "UnsupportedProtocol"),
        (listener("x", protocol="http"), "Accepted", "UnsupportedProtocol"),
        (listener("x", protocol="HTTPS", more=TLS), "ResolvedRefs", "InvalidCertificateRef"),
        (listener("x", protocol="HTTPS", more=away), "ResolvedRefs", "RefNotPermitted"),
        (
            "{name: x, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: TLSRoute}]}}",
            "ResolvedRefs",
            "InvalidRouteKinds",
        ),
    ):
        found = standing(kinds.KUBERNETES_GATEWAY, "web", "istio-system", gateway(li))
        (own,) = found.listeners
        assert of(own.conditions)[condition] == ("False", reason), li
        assert of(own.conditions)["Programmed"] == ("False", "Invalid")
        assert of(found.conditions)["Accepted"] == ("False", "ListenersNotValid")


def test_listeners_of_one_port_and_several_protocols_are_in_conflict_and_the_others_work():
    listeners = (listener("a"), listener("b", port=80, protocol="HTTPS", more=TLS), listener("c", port=8000))
    found = standing(kinds.KUBERNETES_GATEWAY, "web", "istio-system", gateway(*listeners))
    assert [of(li.conditions)["Conflicted"] for li in found.listeners] == [
        ("True", "ProtocolConflict"),
        ("True", "ProtocolConflict"),
        ("False", "NoConflicts"),
    ]
    assert of(found.conditions)["Accepted"] == ("True", "ListenersNotValid")
    assert set(hosts(gateway(*listeners), FRONT, name="http.8000")) == {"*"}


def test_a_class_says_what_it_supports_and_waypoints_are_refused():
    waypoint = (
        f"\n{V1}\nkind: GatewayClass\nmetadata: {{name: w}}\nspec: {{controllerName: istio.io/mesh-controller}}\n"
    )
    found = standing(kinds.GATEWAY_CLASS, "istio", "", waypoint)
    assert of(found.conditions)["Accepted"] == ("True", "Accepted")
    assert {"Gateway", "HTTPRoute", "GRPCRoute", "Mesh"} <= set(found.features)
    assert of(standing(kinds.GATEWAY_CLASS, "w", "", waypoint).conditions)["Accepted"] == ("False", "Unsupported")
