"""Which clusters a gateway has: those that its own configuration names, in whatever field, and no others."""

from dataclasses import replace

import meshes as mesh
import pytest
import test_goldens as goldens
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format
from test_gateways import PASSTHROUGH, ROUTES, TCP, gateway

from lateen.ads.conversation import Request
from lateen.ads.session import Session
from lateen.api import kinds
from lateen.api import objects as o
from lateen.control.settings import Settings
from lateen.kit import yamldoc
from lateen.mesh.model import Mesh
from lateen.mesh.settings import Cluster
from lateen.mesh.views import Views
from lateen.wire import names
from lateen.wire.resource import Resource, ResourceSet
from lateen.xds.generate import generate

PORT = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}"
AUTOMATIC = "{port: {number: 15443, name: tls, protocol: TLS}, hosts: ['*.local'], tls: {mode: AUTO_PASSTHROUGH}}"
WEB = """---
kind: VirtualService
metadata: {name: web}
spec: {hosts: ["*"], gateways: [gw], http: [%s]}
"""
TO_REVIEWS = WEB % "{route: [{destination: {host: reviews}}]}"
PLUGIN = """---
kind: TrafficExtension
metadata: {name: script, namespace: istio-system}
spec: {lua: {inlineCode: "function envoy_on_request(handle) end"}}
"""
FILTER = """---
kind: EnvoyFilter
metadata: {name: mark, namespace: istio-system}
spec:
  configPatches:
  - {applyTo: CLUSTER, match: {context: GATEWAY}, patch: {operation: MERGE, value: {connect_timeout: 3s}}}
"""
ALL = {"productpage", "reviews", "ratings", "istio-ingressgateway"}


def called(documents, config=mesh.LOGGING):
    """The services whose clusters the gateway has; it may ask for the endpoints of all."""
    return services(generate(mesh.view(mesh.objects(documents, config), "ingress", "istio-system")))


def services(sets):
    clusters, endpoints = ({n for s in sets[t] for n in s.resources} for t in (names.CDS, names.EDS))
    assert {names.PASSTHROUGH, names.BLACK_HOLE} <= clusters
    found = {n for n in clusters if n.startswith("outbound|")}
    assert {n for n in endpoints if n.startswith("outbound|")} >= found
    return {n.split("|")[3].partition(".")[0] for n in found}


def test_a_gateway_that_routes_nothing_has_no_services():
    assert called(gateway(PORT)) == set()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("{route: [{destination: {host: reviews}}]}", {"reviews"}),
        (
            "{route: [{destination: {host: reviews}, weight: 90}, {destination: {host: ratings}, weight: 10}]}",
            {"reviews", "ratings"},
        ),
        (
            "{route: [{destination: {host: reviews}}], mirrors: [{destination: {host: productpage}}]}",
            {"reviews", "productpage"},
        ),
        ("{redirect: {uri: /there}}", set()),
    ],
)
def test_requests_need_the_clusters_of_their_routes(rule, expected):
    assert called(gateway(PORT) + WEB % rule) == expected


def test_connections_need_the_clusters_of_their_routes():
    assert called(gateway(TCP) + ROUTES) == {"reviews", "ratings"}
    assert called(gateway(PASSTHROUGH) + ROUTES) == {"reviews"}


@pytest.mark.parametrize(
    "documents",
    [gateway(PORT, AUTOMATIC) + TO_REVIEWS, gateway(PORT) + TO_REVIEWS + PLUGIN, gateway(PORT) + TO_REVIEWS + FILTER],
    ids=["clients name clusters", "a plugin", "an EnvoyFilter"],
)
def test_where_something_else_may_name_clusters_all_are_there(documents):
    assert called(documents) == ALL


def test_all_clusters_are_there_if_an_environment_variable_of_istiod_says_so():
    config = replace(mesh.LOGGING, cluster=Settings.of({"PILOT_FILTER_GATEWAY_CLUSTER_CONFIG": "false"}).cluster)
    assert called(gateway(PORT) + TO_REVIEWS, config) == ALL
    with pytest.raises(ValueError, match="PILOT_FILTER_GATEWAY_CLUSTER_CONFIG"):
        Settings.of({"PILOT_FILTER_GATEWAY_CLUSTER_CONFIG": "some"})


def test_gateways_of_other_namespaces_select_nothing_if_an_environment_variable_says_so():
    config = replace(mesh.LOGGING, cluster=Settings.of({"PILOT_SCOPE_GATEWAY_TO_NAMESPACE": "true"}).cluster)
    elsewhere = gateway(PORT) + TO_REVIEWS
    assert called(elsewhere) == {"reviews"}
    assert called(elsewhere, config) == set()
    own = elsewhere.replace("{name: gw}", "{name: gw, namespace: istio-system}").replace("[gw]", "[istio-system/gw]")
    assert called(own, config) == {"reviews"}


def test_gateways_of_different_namespaces_share_no_port_where_they_select_their_own_workloads_only():
    both = gateway(PORT) + "---" + gateway(TCP.replace("31400", "80")).replace("name: gw", "name: gw, namespace: other")
    assert [str(out.of) for out in Mesh(mesh.objects(both)).outcomes()] == ["Gateway other/gw"]
    config = replace(mesh.LOGGING, cluster=Cluster(scoped=True))
    assert Mesh(mesh.objects(both, config)).outcomes() == ()


@pytest.mark.parametrize("name", goldens.NAMES)
def test_every_cluster_that_any_field_names_is_there_and_no_other(name, pem):
    """``named`` reads messages as JSON, the translator their bytes."""
    documents = list(yamldoc.objects((goldens.FOLDER / f"{name}.yaml").read_text()))
    config = replace(goldens.CONFIG, cluster=Cluster())
    view = Views(Mesh(goldens.world(documents, pem, config))).of
    pod = goldens.world(documents, pem, config).pods["istio-system", "ingress"]
    some, whole = view(pod, "router"), goldens.CONFIG
    every = generate(Views(Mesh(goldens.world(documents, pem, whole))).of(pod, "router"))
    sets = generate(some)
    clusters = {n for s in every[names.CDS] for n in s.resources}
    text = named(every)
    expected = {n for n in clusters if not n.startswith("outbound|") or f'"{n}"' in text}
    if not some.gateway.filtered or some.patches:
        expected = clusters
    assert {n for s in sets[names.CDS] for n in s.resources} == expected


def named(sets):
    out = []
    for type_url in (names.LDS, names.RDS, names.VHDS, names.ECDS):
        for found in sets[type_url]:
            for r in found.resources.values():
                whole = discovery_pb2.Resource.FromString(r.wrapped)
                out.append(json_format.MessageToJson(whole))
    return "".join(out)


@pytest.fixture(scope="module")
def pem():
    return goldens.judge.certificates()


def test_names_are_read_from_texts_of_any_length():
    for subset in ("", "v1", "s" * 120):
        for host in ("a.example.com", "*.example.com", f"{'h' * 60}.{'i' * 60}.{'j' * 60}.example.com"):
            name = names.outbound(host, 8080, subset)
            virtual_host = goldens.judge.KINDS[names.VHDS](name="h", domains=["*"])
            virtual_host.routes.add(name=" b2*.").route.cluster = name
            assert name in Resource("h", "1", virtual_host.SerializeToString()).clusters


def test_what_does_not_concern_a_gateway_leaves_its_clusters_as_they_are_and_is_not_sent():
    found = mesh.objects(gateway(PORT) + TO_REVIEWS)
    views = Views(Mesh(found))
    pod = found.pods["istio-system", "ingress"]
    before = generate(views.of(pod, "router"))
    more = o.Service("default", "more", "10.96.7.7", (o.ServicePort("http", 80, 80, "TCP"),), (("app", "more"),))
    views.advance(found.put(kinds.SERVICE, ("default", "more"), more))
    after = generate(views.of(pod, "router"))
    assert list(map(id, after[names.CDS])) == list(map(id, before[names.CDS]))
    session = Session(lingering=True)
    session.offer(before)
    (clusters,), _ = session.receive(Request(names.CDS))
    session.receive(Request(names.CDS, clusters.nonce))
    asked = tuple(n for s in before[names.CDS] for n in s.resources if n.startswith("outbound|"))
    (endpoints,), _ = session.receive(Request(names.EDS, subscribe=asked))
    assert {r.name for r in endpoints.resources} == set(asked)
    session.receive(Request(names.EDS, endpoints.nonce))
    assert session.offer(after) == []


# --- make before break ---------------------------------------------------------------------------------------------


def naming(**clusters):
    """Listeners, or extensions, that name clusters."""
    made = {n: Resource(n, c, f"\x00{chr(len(c))}{c}".encode()) for n, c in clusters.items()}
    return (ResourceSet(made),)


def connected(type_url, subscribe=()):
    """With cluster a and one resource that names it, both acknowledged."""
    session = Session()
    first = {names.CDS: naming(**{"outbound|80||a": "1"}), type_url: naming(x="outbound|80||a", y="none")}
    session.offer(first)
    for request in (Request(names.CDS), Request(type_url, subscribe=subscribe)):
        (response,), _ = session.receive(request)
        session.receive(Request(response.type_url, response.nonce))
    return session


@pytest.mark.parametrize(("type_url", "subscribe"), [(names.LDS, ()), (names.ECDS, ("x", "y"))])
def test_what_names_a_new_cluster_waits_until_it_is_ready(type_url, subscribe):
    session = connected(type_url, subscribe)
    both = naming(**{"outbound|80||a": "1", "outbound|80||b": "1"})
    (first,) = session.offer({names.CDS: both, type_url: naming(x="outbound|80||b", y="none")})
    assert first.type_url == names.CDS
    (second,), _ = session.receive(Request(names.CDS, first.nonce))
    assert (second.type_url, [r.name for r in second.resources]) == (type_url, ["x"])


@pytest.mark.parametrize(("type_url", "subscribe"), [(names.LDS, ()), (names.ECDS, ("x", "y"))])
def test_what_names_none_of_the_new_clusters_does_not_wait(type_url, subscribe):
    """A policy must not wait for a name to be looked up."""
    session = connected(type_url, subscribe)
    both = naming(**{"outbound|80||a": "1", "outbound|80||b": "1"})
    found = session.offer({names.CDS: both, type_url: naming(x="outbound|80||a", y="changed")})
    assert [r.type_url for r in found] == [names.CDS, type_url]


def test_a_cluster_that_nothing_names_any_more_is_kept_for_requests_under_way():
    a, b = names.outbound("a", 80), names.outbound("b", 80)
    session = Session(lingering=True)
    session.offer({names.CDS: naming(**{a: "1", b: "1"})})
    (first,), _ = session.receive(Request(names.CDS))
    session.receive(Request(names.CDS, first.nonce))
    assert session.offer({names.CDS: naming(**{a: "1"})}) == []
    assert session.holding == {b}
    assert session.offer({names.CDS: naming(**{a: "1", b: "1"})}) == [], "it has been there all the time"
    assert session.withdraw(frozenset({b})) == []
    session.offer({names.CDS: naming(**{a: "1"})})
    (gone,) = session.withdraw(frozenset({b}))
    assert (gone.removed, session.holding) == ((b,), frozenset())


@pytest.mark.parametrize("type_url", [names.RDS, names.VHDS, names.LDS, names.ECDS])
def test_a_gateway_that_refused_its_new_routes_keeps_the_clusters_of_the_old_ones(type_url):
    a, b = names.outbound("a", 80), names.outbound("b", 80)
    subscribe = () if type_url == names.LDS else ("x",)
    name = "x/*" if type_url == names.VHDS else "x"
    session = Session(lingering=True)
    session.offer({names.CDS: naming(**{a: "1", b: "1"}), type_url: naming(**{name: a})})
    if type_url == names.VHDS:
        session.receive(Request(names.RDS, subscribe=subscribe))
    for request in (Request(names.CDS), Request(type_url, subscribe=subscribe if type_url != names.VHDS else ())):
        (response,), _ = session.receive(request)
        session.receive(Request(response.type_url, response.nonce))
    (changed,) = session.offer({names.CDS: naming(**{b: "1"}), type_url: naming(**{name: b})})
    assert session.withdraw(frozenset({a})) == [], "Envoy has not answered"
    mended, _ = session.receive(Request(type_url, changed.nonce, error="no such filter"))
    for response in mended:
        session.receive(Request(response.type_url, response.nonce))
    assert session.holding == {a}
    assert session.withdraw(frozenset({a})) == [], "the old routes lead there"
    (again,) = session.offer({names.CDS: naming(**{b: "1"}), type_url: naming(**{name: "mended"})})
    session.receive(Request(type_url, again.nonce))
    (gone,) = session.withdraw(frozenset({a}))
    assert gone.removed == (a,)


def test_a_cluster_that_is_about_to_go_still_gets_its_endpoints():
    found = mesh.objects(gateway(PORT) + TO_REVIEWS)
    views = Views(Mesh(found))
    pod = found.pods["istio-system", "ingress"]
    session = Session(lingering=True)
    session.offer(generate(views.of(pod, "router")))
    (clusters,), _ = session.receive(Request(names.CDS))
    session.receive(Request(names.CDS, clusters.nonce))
    reviews = next(r.name for r in clusters.resources if "|reviews" in r.name)
    (endpoints,), _ = session.receive(Request(names.EDS, subscribe=(reviews,)))
    session.receive(Request(names.EDS, endpoints.nonce))
    found = found.put(kinds.VIRTUAL_SERVICE, ("default", "web"), None)
    views.advance(found)
    assert session.offer(generate(views.of(pod, "router"))) == []
    assert reviews in session.holding
    moved = ("reviews", {"http": (o.Endpoint("10.244.0.3", 9080, "reviews-v1"),)})
    views.advance(found.put(kinds.ENDPOINT_SLICE, ("default", "reviews"), moved))
    (update,) = session.offer(generate(views.of(pod, "router")))
    assert [r.name for r in update.resources] == [reviews]


def test_what_names_a_cluster_that_is_not_even_sent_yet_waits_too():
    session = connected(names.LDS)
    one = {"outbound|80||a": "1", "outbound|80||b": "1"}
    (first,) = session.offer({names.CDS: naming(**one), names.LDS: naming(x="outbound|80||a", y="none")})
    two = naming(**one, **{"outbound|80||c": "1"})
    assert session.offer({names.CDS: two, names.LDS: naming(x="outbound|80||c", y="none")}) == []
    (second,), _ = session.receive(Request(names.CDS, first.nonce))
    assert second.type_url == names.CDS
    (third,), _ = session.receive(Request(names.CDS, second.nonce))
    assert third.type_url == names.LDS
