"""Two control planes side by side, and upgrades that keep what was chosen."""

import pytest
from test_several_clusters import HELLO
from world import ROOT

ISTIOD = "jsonpath={.metadata.uid} {.metadata.generation}"
MESH = "jsonpath={.data.mesh}"


@pytest.fixture
def canary(mesh):
    before = mesh.get("deployment", "istiod", "-n", "istio-system", "-o", ISTIOD)
    mesh.lateen(
        "install",
        "--set",
        "profile=minimal",
        "--set",
        "meshConfig.connectTimeout=7s",
        "-r",
        "canary",
        "-y",
        timeout=120,
    )
    assert mesh.get("deployment", "istiod", "-n", "istio-system", "-o", ISTIOD) == before
    mesh.kubectl("create", "namespace", "canary")
    try:
        yield mesh
    finally:
        mesh.remove("canary")
        mesh.lateen("uninstall", "--revision", "canary", "-y", ok=False)  # the test may have done it


def test_a_revision_runs_beside_the_old_one_and_is_removed_alone(canary):
    own = canary.get("configmap", "istio", "-n", "istio-system", "-o", MESH)
    assert "connectTimeout" not in own
    assert "7s" in canary.get("configmap", "istio-canary", "-n", "istio-system", "-o", MESH)
    canary.lateen("tag", "set", "prod", "--revision", "canary")
    for label, name in (("canary", "by-revision"), ("prod", "by-tag")):
        canary.kubectl("label", "namespace", "canary", f"istio.io/rev={label}", "--overwrite")
        canary.kubectl("run", name, "-n", "canary", "--image=lateen/sleep")
        canary.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "-n", "canary", "--timeout=60s")
        where = canary.get("pod", name, "-n", "canary", "-o", "yaml")
        assert "istiod-canary.istio-system.svc:15012" in where
        assert "istio.io/rev: canary" in where
    removed = canary.lateen("uninstall", "--revision", "canary", "-y")
    assert "prod" in removed.stderr
    left = canary.get("deployment", "-n", "istio-system", "-o", "name")
    assert ("deployment.apps/istiod\n" in f"{left}\n", "istiod-canary" in left) == (True, False)
    canary.kubectl("run", "after", "-n", "canary", "--image=lateen/sleep")  # no webhook is left that would refuse it


def control_plane_of(mesh, app):
    """The istiod to which the proxy of the newest pod is connected; empty while it is to none."""
    listed = mesh.get("pod", "-n", "canary", "-l", f"app={app}", "--sort-by=.metadata.creationTimestamp", "-o", "name")
    name = listed.split()[-1].partition("/")[2]
    lines = [line.split() for line in mesh.lateen("proxy-status").stdout.splitlines()]
    return next((word for line in lines if line[0] == f"{name}.canary" for word in line if "istiod" in word), "")


def test_a_namespace_goes_to_the_new_revision_and_back_while_its_service_answers(canary):
    """https://istio.io/latest/docs/setup/upgrade/canary/"""
    canary.kubectl("label", "namespace", "canary", "istio.io/rev=default")
    canary.kubectl("apply", "-n", "canary", "-f", "-", stdin=HELLO.format("v1"))
    canary.kubectl("apply", "-n", "canary", "-f", str(ROOT / "samples/sleep/sleep.yaml"))
    canary.kubectl("rollout", "status", "deployment/sleep", "-n", "canary", "--timeout=60s")
    command = "for i in 1 2 3 4 5; do curl -s -o /dev/null -w '%{http_code} ' helloworld:5000/hello; done"
    for label in ("default", "canary", "default"):
        canary.kubectl("label", "namespace", "canary", f"istio.io/rev={label}", "--overwrite")
        canary.kubectl("rollout", "restart", "deployment/helloworld-v1", "-n", "canary")
        canary.kubectl("rollout", "status", "deployment/helloworld-v1", "-n", "canary", "--timeout=60s")
        at = canary.until(lambda: control_plane_of(canary, "helloworld"), what="a connected proxy")
        assert at.startswith("istiod-canary-") == (label == "canary")
        # Its client stays with the old revision: both trust the same root.
        asked = canary.kubectl("exec", "-n", "canary", "deploy/sleep", "-c", "sleep", "--", "sh", "-c", command)
        assert asked.stdout.split() == ["200"] * 5


def test_an_upgrade_keeps_settings_and_shows_what_changes(mesh):
    try:
        mesh.lateen("upgrade", "--set", "meshConfig.connectTimeout=6s", "-y", timeout=120)
        shown = mesh.lateen("upgrade", "--set", "meshConfig.accessLogFile=/dev/null", "-y", timeout=120).stderr
        assert "+  accessLogFile: /dev/null" in shown
        text = mesh.get("configmap", "istio", "-n", "istio-system", "-o", MESH)
        assert ("connectTimeout: 6s" in text, "/dev/null" in text) == (True, True)
        assert "deployment.apps/istio-egressgateway" in mesh.get("deployment", "-n", "istio-system", "-o", "name")
    finally:
        mesh.reinstall()
    assert "connectTimeout" not in mesh.get("configmap", "istio", "-n", "istio-system", "-o", MESH)


def test_a_misspelt_mesh_configuration_is_refused_where_it_is_applied(mesh):
    change = '{"data":{"mesh":"outboundTrafficPolicy: REGISTRY_ONLY"}}'
    done = mesh.kubectl("patch", "configmap", "istio", "-n", "istio-system", "--type=merge", "-p", change, ok=False)
    assert done.returncode != 0
    assert "write it as {mode: REGISTRY_ONLY}" in done.stderr


def test_answering_no_is_not_an_error_but_no_answer_is(mesh):
    done = mesh.lateen("uninstall", stdin="n\n")
    assert "nothing was changed" in done.stderr
    done = mesh.lateen("uninstall", stdin="", ok=False)
    assert (done.returncode, "add -y" in done.stderr) == (64, True)
