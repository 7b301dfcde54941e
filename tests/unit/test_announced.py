"""Which servers a client tells, by the ALPN of its TLS, that requests come to a port whose protocol nobody names."""

import judge
import pytest
from meshes import objects, view
from test_rules_as_istio import GATEWAY, REVIEWS, rule

from lateen.mesh.model import Mesh
from lateen.mesh.views import Views

STATE = "envoy.filters.http.set_filter_state"
OUTSIDE = "trafficPolicy: {tls: {mode: SIMPLE, sni: reviews.example.com}}"
AT_PORT = "trafficPolicy: {portLevelSettings: [{port: {number: 9080}, tls: {mode: MUTUAL, clientCertificate: /c}}]}"
OF_MESH = "trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}"
POLICY = """
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: reviews}
spec:
  targetRefs: [{group: "", kind: Service, name: reviews}]
  validation: {hostname: reviews.example.com, wellKnownCACertificates: System}
"""


def told(documents, name="ingress", namespace="istio-system", routes="http.8080", host="reviews"):
    """The last route of a host, and its backends: whether each announces requests."""
    made = judge.messages(view(objects("---".join(documents), protocol="web"), name, namespace))
    virtual = next(h for h in judge.routes(made, routes).virtual_hosts if host in h.name)
    several = [t for r in virtual.routes for t in r.route.weighted_clusters.clusters]
    return {t.name: STATE in t.typed_per_filter_config for t in [virtual.routes[-1], *several]}


@pytest.mark.parametrize("tls", [rule("tls", OUTSIDE), rule("tls", AT_PORT), POLICY])
def test_a_server_outside_the_mesh_does_not_hear_the_meshs_alpn_from_a_gateway(tls):
    """It may refuse connections that announce istio-http/1.1; the other backend is in the mesh."""
    ratings = "outbound|9080||ratings.default.svc.cluster.local"
    assert told([GATEWAY, tls]) == {"default": False, f"outbound|9080||{REVIEWS}": False, ratings: True}


@pytest.mark.parametrize(("tls", "announced"), [(OUTSIDE, False), (AT_PORT, False), (OF_MESH, True)])
@pytest.mark.parametrize("routed", [True, False])
def test_a_server_outside_the_mesh_does_not_hear_the_meshs_alpn_from_a_sidecar(tls, announced, routed):
    route = GATEWAY.split("---")[1].replace("reviews.example.com", "reviews")
    found = told([rule("tls", tls), *([route] if routed else [])], "productpage-v1", "default", "9080")
    assert found["default"] == announced


def test_a_subsets_own_tls_counts():
    subset = "subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {tls: {mode: SIMPLE}}}]"
    route = GATEWAY.split("---")[1].replace("reviews.example.com", "ratings")
    route = route.replace(
        "- route: [{destination: {host: reviews}}]", "- route: [{destination: {host: reviews, subset: v1}}]"
    )
    found = told([rule("tls", subset), route], "productpage-v1", "default", "9080", "ratings")
    assert found == {
        "default": False,
        f"outbound|9080||{REVIEWS}": True,
        "outbound|9080||ratings.default.svc.cluster.local": True,
    }


def test_a_rule_of_the_clients_namespace_for_the_backend_makes_the_difference():
    """The route is for ratings, whose view differs because of the other host's rule."""

    route = GATEWAY.split("---")[1].replace("reviews.example.com", "ratings")
    own = rule("tls", OUTSIDE, REVIEWS, "shop")
    found = Views(Mesh(objects(f"{route}---{own}", protocol="web")))
    for space, announced in (("default", True), ("shop", False)):
        hosts = {h.host.split(".")[0]: h for h in found.outbound(space).hosts}
        last = hosts["ratings"].routed(9080).requests[-1]
        assert last.backends[0].sniffed == announced
