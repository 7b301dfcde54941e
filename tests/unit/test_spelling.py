"""How clients write the names of hosts, and who answers to them."""

from dataclasses import replace

import judge
import meshes as mesh
import pytest

from lateen.api import kinds
from lateen.api import objects as o
from lateen.mesh.model import Mesh
from lateen.mesh.views import Views
from lateen.wire import names
from lateen.xds.generate import generate

HIDDEN = """
kind: Sidecar
metadata: {name: default, namespace: shop}
spec: {egress: [{hosts: ["default/*", "istio-system/*"]}]}
"""
ABROAD = """
kind: ServiceEntry
metadata: {name: abroad}
spec:
  hosts: [api.example.com, "*.wild.example.com"]
  ports: [{number: 9080, name: http, protocol: HTTP}]
  resolution: NONE
"""


def domains(documents="", namespace="default"):
    """Host -> its domains, for clients of a namespace. ``shop`` has a ``reviews`` of its own."""
    found = mesh.objects(documents)
    ports = (o.ServicePort("http", 9080, 9080, "TCP"),)
    found = found.put(
        kinds.SERVICE, ("shop", "reviews"), o.Service("shop", "reviews", "10.96.9.1", ports, (("app", "reviews"),))
    )
    client = replace(mesh.pod("client", "10.244.9.9"), namespace=namespace)
    out = {}
    for some in generate(Views(Mesh(found)).of(client, "sidecar"))[names.VHDS]:
        for resource in some.resources.values():
            message = judge.message("VHDS", resource)
            out[message.name.partition("/")[2].rpartition(":")[0]] = list(message.domains)
    return out


@pytest.mark.parametrize("host", ["reviews.default.svc.cluster.local", "api.example.com", "*.wild.example.com"])
def test_a_name_with_a_trailing_dot_is_the_same_host(host):
    assert {host, f"{host}."} <= set(domains(ABROAD)[host])


def test_domains_are_without_ports_since_envoy_ignores_them():
    assert not [d for found in domains(ABROAD).values() for d in found if ":" in d]


def test_a_short_name_is_the_service_of_the_clients_own_namespace():
    assert "reviews" in domains(namespace="shop")["reviews.shop.svc.cluster.local"]
    assert "reviews" not in domains(namespace="shop")["reviews.default.svc.cluster.local"]


def test_a_short_name_never_reaches_another_namespace_where_a_sidecar_hides_the_own_service():
    found = domains(HIDDEN, "shop")
    assert "reviews.shop.svc.cluster.local" not in found
    assert "reviews" not in found["reviews.default.svc.cluster.local"]
    assert "reviews.default" in found["reviews.default.svc.cluster.local"]
