"""How clients spell the names of hosts, and which service owns a name."""

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


OUTSIDE = """
kind: VirtualService
metadata: {name: onward}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: partner, port: {number: 8080}}}]}]
"""


def outside(mode="ALLOW_ANY", documents=OUTSIDE, target="api.partner.example"):
    """Resources of a client where ``partner`` is an ExternalName service."""
    found = mesh.objects(documents)
    ports = (o.ServicePort("http", 8080, 8080, "TCP"),)
    alias = o.Service("default", "partner", "", ports, external_name=target)
    found = replace(found.put(kinds.SERVICE, ("default", "partner"), alias), config=restricted(found.config, mode))
    client = mesh.pod("client", "10.244.9.9")
    return generate(Views(Mesh(found)).of(client, "sidecar"))


def restricted(config, mode):
    return replace(config, outbound=replace(config.outbound, mode=mode))


def named(made, kind):
    return {n: r for s in made[kind] for n, r in s.resources.items()}


def test_a_rule_leads_to_an_external_name_outside_of_the_mesh():
    made = outside()
    cluster = judge.message("CDS", named(made, names.CDS)["outbound|8080||partner.default.svc.cluster.local"])
    endpoint = cluster.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address
    assert (endpoint.address, endpoint.port_value) == ("api.partner.example", 8080)
    assert not cluster.HasField("transport_socket")
    assert not [n for n in named(made, names.VHDS) if "partner" in n], "clients that call it by name pass through"
    assert not [n for n in named(made, names.LDS) if n.endswith("_8080")]


def test_a_rule_does_not_lead_outside_where_unknown_hosts_are_blocked():
    assert not [n for n in named(outside("REGISTRY_ONLY"), names.CDS) if "partner" in n]
    sidecar = """
kind: Sidecar
metadata: {name: default}
spec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}, egress: [{hosts: ["./*"]}]}
"""
    assert not [n for n in named(outside(documents=f"{OUTSIDE}---{sidecar}"), names.CDS) if "partner" in n]


def test_an_external_name_of_the_mesh_has_no_cluster_of_its_own():
    assert not [n for n in named(outside(target="ratings.default.svc.cluster.local"), names.CDS) if "partner" in n]
