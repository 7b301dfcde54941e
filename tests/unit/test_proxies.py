"""Proxies and the workloads that they serve: one each as sidecars, or several that are told apart."""

import judge
import meshes as mesh
import pytest
from envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2

from lateen.mesh.model import Mesh
from lateen.mesh.views import Views
from lateen.mesh.workloads import Proxy
from lateen.wire import names
from lateen.xds.generate import generate
from lateen.xds.telemetry import MARK

POLICIES = """
kind: AuthorizationPolicy
metadata: {name: reviews}
spec: {selector: {matchLabels: {app: reviews}}, rules: [{from: [{source: {namespaces: [one]}}]}]}
---
kind: PeerAuthentication
metadata: {name: ratings}
spec: {selector: {matchLabels: {app: ratings}}, mtls: {mode: STRICT}}
"""
PATHS = ("/run/netns/a", "/run/netns/b")


def shared_proxy(documents=POLICIES, paths=PATHS):
    views = Views(Mesh(mesh.objects(documents)))
    pods = tuple(views.mesh.objects.pods["default", n] for n in ("reviews-v1", "ratings-v1"))
    return views.of_proxy(Proxy("sidecar", pods, paths))


def stateful(extension):
    config = set_filter_state_pb2.Config()
    extension.typed_config.Unpack(config)
    return {v.object_key: v.format_string.text_format_source.inline_string for v in config.on_new_connection}


def test_one_proxy_serves_two_workloads_and_envoy_accepts_it(tmp_path):
    view = shared_proxy()
    found = judge.messages(view)
    judge.invariants(found)
    judge.bootstrap(judge.messages(view), tmp_path)  # writes a sidecar's certificate
    for account in ("sa-reviews", "sa-ratings"):
        text = (tmp_path / "sds-default.json").read_text()
        (tmp_path / f"sds-default~{account}.json").write_text(text.replace('"default"', f'"default/{account}"'))
    judge.validate_messages(found, tmp_path)


def test_each_workload_of_a_proxy_has_listeners_certificate_policies_and_name_of_its_own():
    found = judge.messages(shared_proxy())
    inbound = {n: m for n, m in found[names.LDS].items() if n.startswith("virtualInbound")}
    assert set(inbound) == {"virtualInbound~reviews-v1.default", "virtualInbound~ratings-v1.default"}
    places = {n: m.address.socket_address.network_namespace_filepath for n, m in inbound.items()}
    assert list(places.values()) == list(PATHS)
    texts = {n.partition("~")[2].partition("-")[0]: str(m) for n, m in inbound.items()}
    for own, other in (("reviews", "ratings"), ("ratings", "reviews")):
        assert f"sds-default~sa-{own}.json" in texts[own]
        assert f"istio.authorization.deny~{own}-v1.default" in texts[own]
        assert f"spiffe://cluster.local/ns/default/sa/sa-{own}" in texts[own]
        assert f"{other}-v1" not in texts[own]
    allow = {w: str(found[names.ECDS][f"istio.authorization.allow~{w}-v1.default"]) for w in texts}
    assert "one" in allow["reviews"]
    assert "one" not in allow["ratings"]
    assert "raw_buffer" in texts["reviews"]  # plain text is for the one that is not STRICT
    assert stateful(found[names.ECDS]["lateen.workload~reviews-v1.default"])["lateen.workload"] == "reviews-v1"
    assert stateful(found[names.ECDS]["lateen.workload~ratings-v1.default"])["lateen.workload"] == "ratings-v1"


def test_the_same_routes_clusters_and_endpoints_serve_a_proxy_with_one_workload_and_with_two():
    views = Views(Mesh(mesh.objects()))
    pods = [views.mesh.objects.pods["default", n] for n in ("reviews-v1", "ratings-v1")]
    alone = generate(views.of(pods[0], "sidecar"))
    both = generate(views.of_proxy(Proxy("sidecar", tuple(pods), PATHS)))
    for kind in (names.EDS, names.RDS, names.VHDS):
        assert both[kind][0] is alone[kind][0]
    assert both[names.CDS][:2] == alone[names.CDS][:2]


def test_workloads_that_see_different_destinations_cannot_share_a_proxy():
    narrow = """
kind: Sidecar
metadata: {name: narrow}
spec: {workloadSelector: {labels: {app: ratings}}, egress: [{hosts: ["./ratings.default.svc.cluster.local"]}]}
"""
    with pytest.raises(ValueError, match=r"default/reviews-v1 and default/ratings-v1: they see different destinations"):
        shared_proxy(narrow)


def test_who_calls_is_said_by_the_workload_and_not_by_the_process():
    views = Views(Mesh(mesh.objects()))
    pods = views.mesh.objects.pods
    state = {
        n: stateful(judge.messages(views.of(pods["default", n], "sidecar"))[names.ECDS]["lateen.workload"])
        for n in ("reviews-v1", "ratings-v1")
    }
    assert state["reviews-v1"] == {
        "lateen.workload": "reviews-v1",
        "lateen.namespace": "default",
        "lateen.app": "reviews",
        "lateen.version": "v1",
        "lateen.service": "reviews",
        "lateen.revision": "v1",
        "lateen.principal": "spiffe://cluster.local/ns/default/sa/sa-reviews",
        "lateen.said": "reviews-v1;default;reviews;v1;reviews;v1",
        "lateen.identity": "reviews-v1;default;reviews;v1;reviews;v1|spiffe://cluster.local/ns/default/sa/sa-reviews",
    }
    assert state["ratings-v1"]["lateen.workload"] == "ratings-v1"
    everything = str(judge.messages(views.of(pods["default", "reviews-v1"], "sidecar")))
    assert "%ENVIRONMENT(" not in everything.replace(MARK, "")


def test_what_a_proxy_says_of_its_address_is_an_address():
    from lateen.wire.node import parse

    assert parse("sidecar~10.0.0.1~a.b~d").address == "10.0.0.1"
    assert parse("sidecar~fd00::1~a.b~d").address == "fd00::1"
    with pytest.raises(ValueError, match="IPv4 or IPv6"):
        parse("sidecar~/%2E%2E/%2E%2E/victim/workloadentries/vm~a.b~d")
