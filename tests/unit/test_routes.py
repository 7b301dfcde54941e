"""Translation of the mesh's own routes, as any dialect may make them, to Envoy's configuration."""

import re

import pytest

from lateen.api import kinds
from lateen.api.networking import http
from lateen.mesh.routing import Backend, ConnectionRoute, Mirror, Route
from lateen.xds.routes import connections, virtual_host

RULE = kinds.INGRESS.ref("default", "web")
GOOD, OTHER = Backend("a.test", 80, weight=1), Backend("b.test", 80, weight=1)


def made(*backends, below="", match=None, mirrors=(), port=80, **settings):
    route = Route(
        ("test",), name="r", match=match, below=below, settings=http.RouteSettings(**settings), backends=backends,
        mirrors=mirrors, port=port, scheme="http", rule=RULE, origins=(),
    )  # fmt: skip
    return virtual_host.routes([route])


def answers(found):
    return [(r.direct_response.status, r.match.runtime_fraction.default_value.numerator / 10_000) for r in found]


def test_what_is_broken_answers_for_its_share_of_all_requests():
    broken = Backend("", 0, weight=2, broken="it is not there")
    found = made(GOOD, broken, OTHER)
    assert answers(found[:1]) == [(500, 50)]
    assert [c.name for c in found[1].route.weighted_clusters.clusters] == [GOOD.cluster, OTHER.cluster]


def test_several_reasons_are_several_statuses_and_each_share_begins_where_the_one_before_ends():
    """Envoy asks all routes with the same random number."""
    refused = Backend("", 0, weight=1, broken="not permitted")
    gone = Backend("", 0, weight=1, broken="no Service", status=503)
    found = made(GOOD, refused, OTHER, gone)
    assert [status for status, _ in answers(found[:2])] == [500, 503]
    assert [share for _, share in answers(found[:2])] == [25, 50]


def test_without_a_backend_that_is_there_nothing_else_is_asked():
    assert answers(made(Backend("", 0, broken="not there"))) == [(500, 0)]


@pytest.mark.parametrize(
    ("prefix", "path", "want"),
    [("/", "/a/b", "/b"), ("", "/a", "/"), ("/", "/a/", "/"), ("/x", "/a/b", "/x/b"), ("/x/", "/a", "/x")],
)
@pytest.mark.parametrize("redirected", [False, True])
def test_a_prefix_of_whole_elements_is_replaced_without_doubled_slashes(prefix, path, want, redirected):
    if redirected:
        (route,) = made(below="/a", redirect=http.HTTPRedirect(prefix_rewrite=prefix))
        action = route.redirect
    else:
        (route,) = made(GOOD, below="/a", rewrite=http.HTTPRewrite(uri=prefix))
        action = route.route
    assert route.match.path_separated_prefix == "/a"
    if action.prefix_rewrite:
        assert action.prefix_rewrite + path.removeprefix("/a") == want
    else:
        pattern = action.regex_rewrite.pattern.regex
        assert re.sub(pattern, action.regex_rewrite.substitution, path, count=1) == want


def test_methods_headers_and_query_parameters_are_conditions_beside_the_path():
    text = http.StringMatch
    match = http.RequestMatch(
        method=text(exact="GET"), headers={"x": text(regex="a+")}, query_params={"q": text(exact="1")}
    )
    (route,) = made(GOOD, below="/a", match=match)
    assert route.match.path_separated_prefix == "/a"
    assert [h.name for h in route.match.headers] == [":method", "x"]
    assert [q.name for q in route.match.query_parameters] == ["q"]


def test_requests_are_mirrored_by_their_fraction_and_backends_have_headers_of_their_own():
    headers = http.Headers(request=http.HeaderOperations(set={"x": "1"}))
    one, two = Backend("a.test", 80, weight=1, headers=headers), OTHER
    (route,) = made(one, two, mirrors=(Mirror(GOOD, http.Percent(value=100 / 3)), Mirror(OTHER)))
    assert [m.runtime_fraction.default_value.numerator for m in route.route.request_mirror_policies] == [
        333333,
        1000000,
    ]
    first, second = route.route.weighted_clusters.clusters
    assert [h.header.key for h in first.request_headers_to_add] == ["x"]
    assert not second.request_headers_to_add


def test_the_only_backend_that_is_left_keeps_its_headers():
    headers = http.Headers(request=http.HeaderOperations(set={"x": "1"}))
    _, route = made(Backend("a.test", 80, headers=headers), Backend("", 0, broken="not there"))
    assert [h.header.key for h in route.request_headers_to_add] == ["x"]


def test_connections_to_what_is_broken_are_closed_for_their_share():
    broken = Backend("", 0, weight=3, broken="not there")
    found = connections.clusters(ConnectionRoute((), (), (GOOD, broken), RULE))
    assert found == ((GOOD.cluster, 1), ("BlackHoleCluster", 3))
