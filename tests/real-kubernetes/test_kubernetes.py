"""The mesh on Kubernetes itself: real pods, scheduled, controlled and admitted by Kubernetes' own programs."""

import json
import threading
import time
import urllib.request
from pathlib import Path

import building
import pytest
from test_article import Shell, article
from world import ROOT, kubectls

BOOKINFO = ROOT / "samples" / "bookinfo"
REVIEWS = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews}}
spec: {{hosts: [reviews], http: [{{route: [{{destination: {{host: reviews, subset: {0}}}}}]}}]}}
"""


def test_the_control_plane_is_kubernetes_own(mesh):
    found = json.loads(mesh.kubectl("version", "-o", "json").stdout)["serverVersion"]
    assert found["gitVersion"] == f"v{building.VERSION}"
    node = json.loads(mesh.get("node", "lateen", "-o", "json"))
    assert node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("lateen://")
    lease = json.loads(mesh.get("lease", "lateen", "-n", "kube-node-lease", "-o", "json"))
    assert lease["spec"]["holderIdentity"] == "lateen"


def test_the_article_from_install_to_uninstall(mesh, tmp_path):
    shell = Shell(tmp_path, kubectls()[-1])
    shell.environment |= {"LATEEN_HOME": str(mesh.home), "KUBECONFIG": str(mesh.home / "kubeconfig")}
    article(shell, "gw")  # kube-apiserver offers kubectl the groups of definitions by name: the Gateway API's first


class Load:
    """Requests, one after the other, while something else happens."""

    def __init__(self, url):
        self._url, self._ends = url, threading.Event()
        self.passed, self.failed = 0, []
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._ends.is_set():
            try:
                with urllib.request.urlopen(self._url, timeout=10) as answer:
                    answer.read()
                self.passed += 1
            except OSError as e:
                self.failed.append(f"{time.time():.1f} {e}")
            time.sleep(0.02)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ends.set()
        self._thread.join()


@pytest.fixture(scope="module")
def bookinfo(mesh):
    pilot = ("components.pilot.k8s.replicaCount=2", "components.pilot.k8s.resources.requests.cpu=10m")
    mesh.lateen("install", "--set", "profile=demo", "-y", *(w for s in pilot for w in ("--set", s)), timeout=300)
    mesh.kubectl("label", "namespace", "default", "istio-injection=enabled", "--overwrite")
    mesh.kubectl("apply", "-f", str(BOOKINFO / "platform/kube/bookinfo.yaml"))
    mesh.kubectl("apply", "-f", str(BOOKINFO / "networking/bookinfo-gateway.yaml"))
    mesh.kubectl("apply", "-f", str(BOOKINFO / "networking/destination-rule-all.yaml"))
    mesh.kubectl("wait", "pod", "--all", "--for=condition=Ready", "--timeout=110s")
    mesh.until(lambda: mesh.page()[0] == 200, 60, "the page")
    return mesh


def test_one_of_two_istiods_writes_statuses_and_the_other_takes_over(bookinfo):
    mesh = bookinfo
    lease = ("lease", "lateen-status", "-n", "istio-system", "-o", "jsonpath={.spec.holderIdentity}")

    def written():
        meta, status = (
            json.loads(mesh.get("virtualservice", "reviews", "-o", "json"))[k] for k in ("metadata", "status")
        )
        return status.get("observedGeneration") == meta["generation"]

    def shown():
        """The istiods that proxies are connected to; nothing while some are at none."""
        rows = [line.split() for line in mesh.lateen("proxy-status").stdout.splitlines()[1:]]
        return {row[-3] for row in rows} if len(rows) == 8 else set()

    mesh.apply(REVIEWS.format("v1"))
    mesh.until(lambda: "status" in json.loads(mesh.get("virtualservice", "reviews", "-o", "json")), 20, "a status")
    first = mesh.get(*lease)
    istiods = set(mesh.get("pods", "-n", "istio-system", "-l", "app=istiod", "-o", "name").split())
    assert len(istiods) == 2
    assert f"pod/{first}" in istiods
    assert shown() <= {name.removeprefix("pod/") for name in istiods}
    mesh.kubectl("delete", "pod", first, "-n", "istio-system", "--force", "--grace-period=0")
    mesh.apply(REVIEWS.format("v3"))
    mesh.until(written, 30, "a status of the other istiod")
    assert mesh.get(*lease) != first
    mesh.until(shown, 60, "all proxies at an istiod")
    mesh.kubectl("wait", "pod", "-n", "istio-system", "-l", "app=istiod", "--for=condition=Ready", "--timeout=110s")


def state(mesh):
    """What must not be lost: every object by uid, and how often each container has been started."""
    kinds = "pods,services,configmaps,secrets,deployments,replicasets,virtualservices,gateways.networking.istio.io,"
    kinds += "destinationrules,validatingwebhookconfigurations,mutatingwebhookconfigurations,crds"
    found = json.loads(mesh.get(kinds, "-A", "-o", "json"))["items"]
    names = {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]): o["metadata"]["uid"] for o in found}
    starts = {
        (o["metadata"]["name"], c["name"]): c["restartCount"]
        for o in found
        if o["kind"] == "Pod"
        for c in o["status"].get("containerStatuses", [])
    }
    return names, starts


def test_traffic_goes_on_and_nothing_is_lost_when_the_api_server_and_etcd_are_killed(bookinfo, control_plane):
    mesh = bookinfo
    mesh.apply(REVIEWS.format("v1"))
    mesh.until(lambda: "glyphicon-star" not in mesh.page()[1], 30, "v1 alone")
    before = state(mesh)
    with Load(mesh.ingress() + "/productpage") as load:
        time.sleep(2)
        for name in ("kube-apiserver", "etcd"):
            control_plane.kill(name)
        time.sleep(60)  # longer than the node is waited for, so that it is taken for dead afterwards
        assert mesh.kubectl("get", "ns", ok=False, timeout=60).returncode != 0
        for name in ("etcd", "kube-apiserver"):
            control_plane.begin(name)
        control_plane.ready()
        mesh.until(lambda: state(mesh) == before, 90, "what there was")
        mesh.kubectl("wait", "pod", "--all", "-A", "--for=condition=Ready", "--timeout=110s")
        # Afterwards changes take effect again.
        mesh.apply(REVIEWS.format("v3"))
        mesh.until(lambda: "glyphicon-star" in mesh.page()[1], 60, "v3")
    assert load.failed == []
    assert load.passed > 100
    assert state(mesh) == before
    assert Path(mesh.home / "cluster.log").read_text().count("the Kubernetes API is unreachable") >= 1
