"""The real Helm 3 and Helm 4 with our charts, each against an embedded cluster with nothing in it (``binaries``)."""

import sys

import binaries
import pytest
from world import ROOT, Mesh

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", params=["helm3", "helm4"])
def helm(request, tmp_path_factory):
    program = binaries.needed(request.param)
    tmp = tmp_path_factory.mktemp("helm")
    mesh = Mesh(tmp / "home", tmp)
    charts = tmp / "charts"
    try:
        started = mesh.lateen("cluster", "start", ok=False)
        if "cannot create namespaces" in started.stderr:
            pytest.skip(started.stderr.strip())
        assert started.returncode == 0, started.stderr
        mesh.run(sys.executable, str(ROOT / "tools" / "charts.py"), str(charts))

        def run(verb, release, *argv, namespace="istio-system", **more):
            chart = [str(charts / argv[0]), *argv[1:]] if argv else []
            return mesh.run(program, verb, release, *chart, "-n", namespace, **more)

        run.mesh = mesh
        # The autoscaler has set the replicas, and Helm 4 applies at the server, where that is a conflict.
        run.forced = ("--force-conflicts",) if request.param == "helm4" else ()
        yield run
    finally:
        mesh.lateen("cluster", "delete", ok=False)


def test_charts_install_a_mesh_that_serves(helm):
    mesh = helm.mesh
    helm("install", "istio-base", "base", "--create-namespace")
    helm("install", "istiod", "istiod", "--wait", "--set", "pilot.resources=null")
    helm("install", "istio-ingressgateway", "gateway", "--wait", "--set", "resources=null")
    mesh.kubectl("label", "namespace", "default", "istio-injection=enabled")
    mesh.kubectl("apply", "-f", str(ROOT / "samples/httpbin/httpbin.yaml"))
    mesh.kubectl("rollout", "status", "deployment/httpbin", "--timeout=60s")
    mesh.apply("""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: ["*"], gateways: [web], http: [{route: [{destination: {host: httpbin, port: {number: 8000}}}]}]}
""")
    mesh.until(lambda: mesh.page("/status/200")[0] == 200, what="an answer through the gateway")
    assert "istio-proxy" in mesh.get("pod", mesh.pod("httpbin"), "-o", "jsonpath={.spec}")


def test_an_upgrade_changes_what_its_values_say(helm):
    mesh = helm.mesh
    more = ("--set", "pilot.resources=null", "--set", "meshConfig.accessLogFile=/dev/stdout", "--wait")
    helm("upgrade", "istiod", "istiod", *more)
    assert "accessLogFile" in mesh.get("configmap", "istio", "-n", "istio-system", "-o", "jsonpath={.data.mesh}")

    def logged():
        mesh.page("/status/418")
        gateway = mesh.pod("istio-ingressgateway", "istio-system")
        return "/status/418" in mesh.kubectl("logs", gateway, "-n", "istio-system").stdout

    mesh.until(logged, what="a line in the access log")


def test_an_autoscaler_has_the_replicas_and_a_budget_keeps_one(helm):
    mesh = helm.mesh
    more = ("pilot.resources=null", "pilot.autoscaleEnabled=true", "pilot.autoscaleMin=2", "revisionTags={prod}")
    more += ("global.defaultPodDisruptionBudget.enabled=true",)
    helm("upgrade", "istiod", "istiod", "--wait", *(word for value in more for word in ("--set", value)))

    def replicas():
        return mesh.get("deployment", "istiod", "-n", "istio-system", "-o", "jsonpath={.status.readyReplicas}")

    mesh.until(lambda: replicas() == "2", 60, "two replicas")
    assert "1" in mesh.get("pdb", "istiod", "-n", "istio-system", "-o", "jsonpath={.spec.minAvailable}")
    assert "istio-revision-tag-prod" in mesh.get("mutatingwebhookconfigurations", "-o", "name")
    helm("upgrade", "istiod", "istiod", "--set", "pilot.resources=null", "--wait", *helm.forced)
    assert "istiod" not in mesh.get("hpa,pdb", "-n", "istio-system", "-o", "name")
    mesh.until(lambda: replicas() == "1", 60, "one replica")


def test_values_that_have_no_effect_are_refused(helm):
    done = helm("upgrade", "istiod", "istiod", "--set", "pilot.traceSampling=50", ok=False)
    assert done.returncode
    assert "traceSampling" in done.stderr
    done = helm("install", "other", "istiod", namespace="default", ok=False)
    assert "into the namespace istio-system" in done.stderr


def test_uninstalled_charts_leave_nothing_that_rejects(helm):
    mesh = helm.mesh
    for release in ("istio-ingressgateway", "istiod"):
        helm("uninstall", release)
    hooks = mesh.get("mutatingwebhookconfigurations,validatingwebhookconfigurations", "-o", "name")
    assert "istio" not in hooks
    mesh.kubectl("run", "plain", "--image=curlimages/curl", "--", "sleep", "60")
