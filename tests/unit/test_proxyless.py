"""gRPC clients without a proxy get their configuration in gRPC's own dialect of xDS."""

import judge
import meshes as mesh
import pytest
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from lateen.wire import names
from lateen.xds import proxyless

SLOW = """
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    timeout: 2.5s
    route: [{destination: {host: reviews}}]
  - route: [{destination: {host: reviews}}]
"""


def routes(documents):
    view = mesh.view(mesh.objects(documents, protocol="grpc"))
    (listeners,) = proxyless.generate(view.outbound)[names.LDS]
    listener = judge.message("LDS", listeners.resources["reviews.default.svc.cluster.local:9080"])
    manager = hcm.HttpConnectionManager()
    listener.api_listener.api_listener.Unpack(manager)
    return manager.route_config.virtual_hosts[0].routes


def test_a_routes_timeout_is_the_longest_duration_of_a_stream_which_grpc_reads():
    slow, rest = routes(SLOW)
    assert slow.route.max_stream_duration.max_stream_duration.ToTimedelta().total_seconds() == 2.5
    assert rest.route.max_stream_duration.HasField("max_stream_duration")
    assert rest.route.max_stream_duration.max_stream_duration.ToTimedelta().total_seconds() == 0


def test_fields_that_grpc_does_not_support_are_left_out():
    for route in routes(SLOW):
        assert not route.route.HasField("timeout")
        assert not route.route.HasField("max_grpc_timeout")
        assert not route.route.HasField("retry_policy")


SPLIT = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews}]
  rules:
  - backendRefs:
    - {name: reviews, port: 9080, filters: [MIRROR]}
    - {name: ratings, port: 9080, filters: [REWRITE]}
    - {name: nowhere, port: 9080}
    - {name: ratings, port: 9080}
"""
MIRROR = "{type: RequestMirror, requestMirror: {backendRef: {name: productpage, port: 9080}}}"
REWRITE = "{type: URLRewrite, urlRewrite: {hostname: a.test}}"


def test_each_route_has_its_share_of_what_those_before_it_have_left():
    """Each of them draws a number of its own."""
    found = routes(SPLIT.replace("MIRROR", MIRROR).replace("REWRITE", REWRITE))
    shares = [r.match.runtime_fraction.default_value.numerator / 1e6 for r in found[:-1]]
    assert shares == pytest.approx([1 / 4, 1 / 3, 1 / 2], abs=1e-5)
    assert not found[-1].match.HasField("runtime_fraction")
