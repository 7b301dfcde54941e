"""Control planes of several revisions: each reads its own objects, so findings do not mix those of two."""

from test_findings import networking, obj

from lateen.analysis import Snapshot, Source, analyze, revisions
from lateen.analysis.standing import Standing

ROOT = "istio-system"
REVISION = "istio.io/rev"


def istiod(revision):
    return obj("Pod", f"istiod-{revision}", {}, labels={"app": "istiod", REVISION: revision}, namespace=ROOT)


def route(name, revision=None, **more):
    spec = {"hosts": ["a.test"], "http": [{"directResponse": {"status": 200}}], **more}
    return networking("VirtualService", name, spec, labels={REVISION: revision} if revision else {})


def gateway(revision):
    spec = {"selector": {"istio": "gw"}, "servers": [{"hosts": ["*"], "port": {"number": 80, "protocol": "HTTP"}}]}
    return networking("Gateway", "gw", spec, labels={REVISION: revision})


def codes(*objects, only="", analyzers=("virtualservice.ConflictingMeshGatewayHostsAnalyzer",)):
    sources = [Source(o) for o in objects]
    found = revisions.analyzed(
        sources,
        ROOT,
        only,
        lambda revision: Snapshot(sources, root=ROOT, revision=revision),
        lambda snapshot: analyze(snapshot, analyzers),
    )
    return sorted({(m.kind.code, m.source.name) for _, of in found for m in of})


def test_routes_of_two_revisions_for_one_host_do_not_conflict():
    routes = route("old", "default"), route("new", "canary")
    assert codes(istiod("default"), istiod("canary"), *routes) == []
    assert codes(istiod("default"), *routes) == []  # before the other one is installed
    assert codes(*routes) == [("IST0109", "new"), ("IST0109", "old")]  # files alone, as in Istio


def test_a_route_without_a_revision_conflicts_with_those_of_each():
    routes = route("all"), route("old", "default"), route("new", "canary")
    assert codes(istiod("default"), istiod("canary"), *routes) == [("IST0109", n) for n in ("all", "new", "old")]
    assert codes(istiod("default"), istiod("canary"), *routes, only="canary") == [
        ("IST0109", n) for n in ("all", "new")
    ]


def test_what_a_revision_does_not_read_is_not_there_for_its_routes():
    given = gateway("canary"), route("a", gateways=["gw"])
    of = ["virtualservice.GatewayAnalyzer"]
    assert ("IST0101", "a") in codes(istiod("default"), istiod("canary"), *given, analyzers=of)
    assert codes(istiod("canary"), *given, analyzers=of) == []
    assert codes(*given, analyzers=of) == []


def test_a_revision_that_does_not_run_is_no_reason_to_blame_the_objects_of_all():
    given = gateway("default"), route("a", gateways=["gw"]), route("new", "canary")
    assert codes(istiod("default"), *given, analyzers=["virtualservice.GatewayAnalyzer"]) == []


def test_each_revision_has_its_own_mesh_configuration():
    def config(name, provider):
        mesh = f"extensionProviders: [{{name: {provider}, envoyFileAccessLog: {{path: /dev/stdout}}}}]"
        return obj("ConfigMap", name, namespace=ROOT) | {"data": {"mesh": mesh}}

    spec = {"accessLogging": [{"providers": [{"name": "new"}]}]}
    logs = obj("Telemetry", "logs", spec, version="telemetry.istio.io/v1")
    configs = config("istio", "old"), config("istio-canary", "new")
    of = ["telemetry.UnknownProviderAnalyzer"]
    assert codes(istiod("canary"), *configs, logs, analyzers=of) == []
    assert codes(istiod("default"), *configs, logs, analyzers=of) == [("LAT0130", "logs")]


def test_an_object_that_moves_to_another_revision_leaves_an_istiods_analysis():
    standing = Standing(ROOT, frozenset(), "default")
    for o in (route("one"), route("two")):
        standing.put(o)
    assert any(m.kind.code == "IST0109" for found in standing.findings().values() for m in found)
    standing.put(route("two", "canary"))
    assert not any(m.kind.code == "IST0109" for found in standing.findings().values() for m in found)
