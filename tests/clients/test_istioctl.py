"""Istio's own istioctl (``binaries``) against Lateen: each command that asks istiod, the API server or a proxy."""

import json

import binaries
import pytest

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def program():
    return binaries.needed("istioctl")


@pytest.fixture
def istioctl(program, mesh):
    def run(*argv, **more):
        return mesh.run(program, *argv, **more)

    return run


def rows(done):
    return [line.split() for line in done.stdout.splitlines() if line.strip()]


def test_proxy_status_lists_every_proxy_with_its_istiod(mesh, istioctl):
    found = {r[0]: r for r in rows(istioctl("proxy-status"))}
    istiod = mesh.pod("istiod", "istio-system")
    for app in ("productpage", "reviews", "details", "ratings"):
        row = found[f"{mesh.pod(app)}.default"]
        assert istiod in row
        assert row[-1] == "(CDS,LDS,EDS,RDS,ECDS)"
    assert "SYNCED" in istioctl("proxy-status", "-v", "1").stdout
    assert len(rows(istioctl("proxy-status", "-n", "default"))) == 7
    assert json.loads(istioctl("proxy-status", "-o", "json").stdout)["resources"]


def test_proxy_status_of_one_proxy_compares_what_it_has_with_what_it_was_sent(mesh, istioctl):
    """A gateway: a sidecar drains listeners of the add-ons that are gone, and still has their routes."""
    asked = ("proxy-status", "deploy/istio-ingressgateway", "-n", "istio-system")
    matches = ("Clusters Match", "Listeners Match", "Routes Match")

    def compared():
        said = istioctl(*asked).stdout
        return all(m in said for m in matches)

    # What the add-ons leave behind is taken back within seconds.
    mesh.until(compared, 60, "a gateway that has what it was sent")


def test_proxy_status_of_a_revision_that_is_not_there_is_an_error(istioctl):
    assert istioctl("proxy-status", "--revision", "default").stdout
    done = istioctl("proxy-status", "--revision", "nope", ok=False)
    assert done.returncode == 1
    assert "no running Istio pods" in done.stderr


def test_version_knows_control_plane_and_data_plane(istioctl):
    said = istioctl("version").stdout
    assert "control plane version: 0" in said
    assert "(8 proxies)" in said


def test_internal_debug_shows_istiods_pages(mesh, istioctl):
    synced = json.loads(istioctl("x", "internal-debug", "syncz").stdout)
    assert any(p["proxy"] == f"{mesh.pod('details')}.default" for p in synced)
    every = json.loads(istioctl("x", "internal-debug", "connections", "--all").stdout)
    assert every[mesh.pod("istiod", "istio-system")]["totalClients"] == 8
    assert '"syncz"' in istioctl("x", "internal-debug", "nonsense").stdout
    assert "proxyID" in istioctl("x", "internal-debug", "edsz", ok=False).stderr


def test_log_levels_change_by_controlz(istioctl):
    istioctl("admin", "log", "--level", "control-webhooks:debug")
    levels = {s["scope_name"]: s["log_level"] for s in json.loads(istioctl("admin", "log", "-o", "json").stdout)}
    assert levels["control-webhooks"] == "debug"
    istioctl("admin", "log", "--reset")
    levels = {s["scope_name"]: s["log_level"] for s in json.loads(istioctl("admin", "log", "-o", "json").stdout)}
    assert levels["control-webhooks"] == "info"


@pytest.mark.parametrize(
    ("part", "shows"),
    [
        ("all", "outbound|9080||reviews.default.svc.cluster.local"),
        ("cluster", "reviews.default.svc.cluster.local"),
        ("listener", "15006"),
        ("route", "details"),
        ("endpoint", "HEALTHY"),
        ("ecds", "istio.authorization.allow"),
        ("secret", "true"),
        ("bootstrap", "node"),
    ],
)
def test_proxy_config_shows_each_part(istioctl, part, shows):
    assert shows in istioctl("proxy-config", part, "deploy/productpage-v1").stdout


def test_injectors_and_their_image(istioctl):
    said = istioctl("experimental", "injector", "list").stdout
    assert "istio-sidecar-injector" in said
    assert "/proxyv2:" in said
    assert "matches" in istioctl("x", "check-inject", "-n", "default", "deploy/details-v1").stdout


def test_analysis_finds_nothing_and_finds_a_mistake(mesh, istioctl, tmp_path):
    assert "No validation issues" in istioctl("analyze").stdout + istioctl("analyze").stderr
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: bad, namespace: default}\n"
        "spec: {hosts: [reviews], http: [{route: [{destination: {host: nowhere}}]}]}\n"
    )
    done = istioctl("analyze", str(bad), ok=False)
    assert "IST0101" in done.stdout + done.stderr


def test_describe_and_precheck_and_remote_clusters(mesh, istioctl):
    assert "Effective PeerAuthentication" in istioctl("x", "describe", "pod", mesh.pod("reviews")).stdout
    assert "Istio is safe to install" in istioctl("x", "precheck").stderr
    assert "synced" in istioctl("remote-clusters").stdout


def test_kube_inject_uses_the_webhook_of_the_cluster(mesh, istioctl, tmp_path):
    plain = tmp_path / "pod.yaml"
    plain.write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b}]}\n")
    said = istioctl("kube-inject", "-f", str(plain)).stdout
    assert "name: istio-proxy" in said
    assert "/proxyv2:" in said


def test_tags_are_listed_and_generated(mesh, istioctl):
    assert "istio.io/tag: prod" in istioctl("tag", "generate", "prod", "--revision", "default").stdout
    mesh.lateen("tag", "set", "prod", "--revision", "default")
    try:
        assert ["prod", "default"] in [r[:2] for r in rows(istioctl("tag", "list"))]
    finally:
        istioctl("tag", "remove", "prod", "-y")
    assert "prod" not in istioctl("tag", "list").stdout


PAGES = (
    *("adsz", "authorizationz", "clusterz", "configz", "connections", "endpointShardz", "endpointz", "instancesz"),
    *("mesh", "networkz", "push_status", "registryz", "resourcesz", "syncz", "telemetryz"),
)
OF_ONE = ("adsz", "config_dump", "ecdsz", "edsz", "ndsz")
ABSENT = ("ambientz", "cachez", "inject", "krtz", "mcsz", "pushcontext", "sidecarz")


def test_internal_debug_has_each_page_of_istio_or_says_that_it_is_not_there(mesh, istioctl):
    for name in PAGES:
        json.loads(istioctl("x", "internal-debug", name).stdout)
    proxy = f"{mesh.pod('details')}.default"
    for name in OF_ONE:
        json.loads(istioctl("x", "internal-debug", f"{name}?proxyID={proxy}").stdout)
    for name in ABSENT:
        done = istioctl("x", "internal-debug", name, ok=False)
        assert f"{name} is not available: " in done.stdout + done.stderr
    leads = json.loads(istioctl("x", "internal-debug", "instancesz").stdout)[proxy]
    assert leads == [
        {"hostname": "details.default.svc.cluster.local", "port": 9080, "name": "http", "targetPort": 9080}
    ]


def test_tags_are_set_moved_and_removed(mesh, istioctl):
    try:
        istioctl("tag", "set", "prod", "--revision", "default", "-y")
        assert ["prod", "default"] in [r[:2] for r in rows(istioctl("tag", "list"))]
        assert "istio.io/tag: prod" in mesh.get("mutatingwebhookconfiguration", "-o", "yaml")
        mesh.kubectl("create", "namespace", "tagged")
        mesh.kubectl("label", "namespace", "tagged", "istio.io/rev=prod")
        pod = (
            '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}}'
        )
        made = mesh.kubectl("create", "-n", "tagged", "--dry-run=server", "-o", "yaml", "-f", "-", stdin=pod).stdout
        assert "istio-proxy" in made
    finally:
        istioctl("tag", "remove", "prod", "-y")
        mesh.kubectl("delete", "namespace", "tagged", "--ignore-not-found")
    assert "prod" not in istioctl("tag", "list").stdout


def test_a_revision_is_uninstalled_and_the_other_one_stays(mesh, istioctl):
    mesh.lateen("install", "--set", "revision=canary", "--set", "profile=minimal", "-y", timeout=200)
    assert "istiod-canary" in mesh.get("deploy", "-n", "istio-system")
    istioctl("uninstall", "--revision", "canary", "-y", timeout=200)
    left = mesh.get("deploy,svc,sa,cm,mutatingwebhookconfiguration,clusterrole", "-A", "-o", "name")
    assert "canary" not in left
    assert "deployment.apps/istiod\n" in left
    assert istioctl("proxy-status").stdout


def test_installing_istio_over_lateen_can_be_rehearsed(istioctl):
    done = istioctl("install", "--dry-run", "-y", ok=False, timeout=200)
    assert "panic" not in done.stderr
    assert done.returncode == 0
