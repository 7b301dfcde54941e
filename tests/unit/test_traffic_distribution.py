"""Whose endpoints a service's clients prefer: their own zone's, their own node's, or anybody's."""

import judge
import pytest
from meshes import objects, view

from lateen.wire import names


def near(value):
    return f"""
kind: ServiceEntry
metadata: {{name: shop, annotations: {{networking.istio.io/traffic-distribution: {value}}}}}
spec:
  hosts: [shop.example.com]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: STATIC
  location: MESH_INTERNAL
  endpoints:
  - {{address: 10.9.0.1, locality: r1/z1}}
  - {{address: 10.9.0.2, locality: r1/z2}}
  - {{address: 10.9.0.3, locality: r2/z3}}
"""


def priorities(documents, host="shop.example.com"):
    """Address of each endpoint -> its priority, for a client in zone z1 of region r1."""
    from dataclasses import replace

    from lateen.api import kinds

    found = objects(documents)
    client = replace(found.pods["default", "productpage-v1"], locality="r1/z1", node="n1")
    found = found.put(kinds.POD, ("default", "productpage-v1"), client)
    made = judge.messages(view(found))[names.EDS][f"outbound|80||{host}"]
    return {
        e.endpoint.address.socket_address.address: group.priority
        for group in made.endpoints
        for e in group.lb_endpoints
    }


SPACE = """
kind: Namespace
apiVersion: v1
metadata: {name: default, annotations: {networking.istio.io/traffic-distribution: PreferSameZone}}
---
"""


@pytest.mark.parametrize(("own", "expected"), [('""', [0, 1, 2]), ("Any", [0, 0, 0]), ("PreferSameZone", [0, 1, 2])])
def test_a_namespace_says_it_for_services_that_do_not(own, expected):
    assert list(priorities(SPACE + near(own)).values()) == expected
    assert list(priorities(SPACE.replace("name: default", "name: others") + near(own)).values())[2] == expected[2] * (
        own == "PreferSameZone"
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [("PreferClose", [0, 1, 2]), ("prefersamezone", [0, 1, 2]), ("Any", [0, 0, 0])],
)
def test_a_service_that_asks_for_it_is_called_in_the_clients_own_zone_first(value, expected):
    assert list(priorities(near(value)).values()) == expected


def test_a_kubernetes_service_asks_by_a_field_and_a_rule_precedes_it():
    from lateen.api import decoding

    service = {"metadata": {"namespace": "a", "name": "b"}, "spec": {"trafficDistribution": "PreferSameNode"}}
    assert decoding.service(service, "cluster.local").near == "node"
    off = "trafficPolicy: {loadBalancer: {localityLbSetting: {enabled: false}}}"
    rule = f"---\nkind: DestinationRule\nmetadata: {{name: off}}\nspec: {{host: shop.example.com, {off}}}"
    assert set(priorities(near("PreferClose") + rule).values()) == {0}
