"""Which namespace may order a certificate for which host."""

from dataclasses import replace

import meshes as mesh
import pytest

from lateen.api import kinds
from lateen.control.offered import unserved

OBJECTS = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shop, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [Plain.test, other/named.test, "*.wide.test"]}
  - {port: {number: 443, name: s, protocol: HTTPS}, hosts: [shop.test], tls: {mode: SIMPLE, credentialName: shop}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: all, namespace: open}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 443, name: s, protocol: HTTPS}, hosts: ["*"], tls: {mode: SIMPLE, credentialName: all}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: web}
spec:
  gatewayClassName: istio
  listeners:
  - {name: a, port: 443, protocol: HTTPS, hostname: a.test, tls: {certificateRefs: [{name: a}]}}
  - {name: b, port: 443, protocol: HTTPS, hostname: b.test, tls: {certificateRefs: [{name: b, namespace: keys}]}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: in, namespace: in}
spec:
  tls: [{hosts: [tls.test], secretName: in}]
  rules: [{host: rule.test}]
"""
FOUND = mesh.objects(OBJECTS)


def refused(namespace, secret, *hosts, objects=FOUND):
    return unserved(objects, (namespace, secret), "istio-system", hosts)


@pytest.mark.parametrize(
    ("namespace", "hosts"),
    [
        ("shop", ["plain.test", "named.test", "x.wide.test", "shop.test"]),
        ("open", ["anything.test"]),
        ("web", ["a.test", "b.test"]),
        ("in", ["tls.test", "rule.test"]),
    ],
)
def test_a_namespace_may_order_for_the_hosts_of_its_own_gateways_and_ingresses(namespace, hosts):
    assert refused(namespace, "any", *hosts) == []
    assert refused("attacker", "any", *hosts) == hosts


def test_a_gateway_elsewhere_may_name_the_secret():
    assert refused("istio-system", "shop", "shop.test", "plain.test") == ["plain.test"]
    assert refused("istio-system", "another", "shop.test") == ["shop.test"]
    assert refused("keys", "b", "b.test", "a.test") == ["a.test"]


def test_a_gateway_elsewhere_for_any_host_gives_none_away():
    assert refused("istio-system", "all", "shop.test") == ["shop.test"]


def test_a_pod_with_the_labels_of_a_gateway_gives_its_namespace_no_hosts():
    fake = mesh.pod("fake", "10.244.0.200", "attacker", istio="ingressgateway")
    more = FOUND.put(kinds.POD, ("attacker", "fake"), fake)
    assert refused("attacker", "shop", "shop.test", objects=more) == ["shop.test"]
    assert refused("istio-system", "shop", "shop.test", objects=more) == []


ANYWHERE = mesh.objects(
    """
kind: Gateway
metadata: {name: any, namespace: shop}
spec:
  servers:
  - {port: {number: 443, name: s, protocol: HTTPS}, hosts: [shop.test], tls: {mode: SIMPLE, credentialName: shop}}
"""
)


@pytest.mark.parametrize(
    ("gateways", "namespace", "served"),
    [
        (["edge"], "edge", True),
        (["edge", "istio-system"], "edge", False),
        (["edge", "istio-system"], "istio-system", True),
        (["edge"], "istio-system", False),
        (["edge"], "default", False),
        ([], "default", False),
    ],
)
def test_a_gateway_without_a_selector_is_at_work_where_gateways_are(gateways, namespace, served):
    """Other pods do not count, although it has no labels that they would lack."""
    found = ANYWHERE.put(kinds.POD, ("istio-system", "ingress"), mesh.pod("app", "10.244.0.99", "istio-system"))
    for space in gateways:
        door = replace(mesh.pod("door", "10.1.0.1", space), gateway=True)
        found = found.put(kinds.POD, (space, "door"), door)
    assert refused(namespace, "shop", "shop.test", objects=found) == ([] if served else ["shop.test"])
