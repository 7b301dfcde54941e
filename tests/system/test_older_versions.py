"""An upgrade from an older version and back, with its own control plane and agents, while a service is called.

Its code is in this repository's history; LATEEN_TEST_OLDER names another revision of it.
"""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tarfile

import pytest
from test_several_clusters import HELLO
from world import ROOT, Mesh

from lateen.cluster.kubelet import images

pytestmark = [
    pytest.mark.system,
    pytest.mark.long,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(os.geteuid() != 0, reason="connections of an added image's proxy are told apart as root only"),
]
REVISIONS = {"12c82196": {"200", "500"}, "803f78f5": {"200"}}
"""Revision of an older version -> the status codes that callers may get in a rollback of the control plane to it. The
istiod of 0.1.0 withdraws the configuration of filters (ECDS) that it does not know while listeners still use them."""
FORGETFUL = set(REVISIONS)
"""Revisions whose istiod does not send endpoints of changed clusters to a proxy that reconnects and has them: Envoy
waits for them, and takes no route that has changed until the proxy is restarted."""
if given := os.environ.get("LATEEN_TEST_OLDER"):
    REVISIONS = {given: {"200"}}
OLDER, NEWEST = "example.com/older", "docker.io/lateen"
STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""
FAULT = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: teapot}
spec:
  hosts: [helloworld]
  http:
  - match: [{headers: {x-tea: {exact: "1"}}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: helloworld}}]
  - route: [{destination: {host: helloworld}}]
"""
DENIED = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-tea}
spec:
  selector: {matchLabels: {app: helloworld}}
  action: DENY
  rules: [{to: [{operation: {paths: [/tea]}}]}]
"""


class Versions(Mesh):
    """A cluster, and the commands of both versions."""

    def older(self, *argv):
        environment = self.environment | {"PYTHONPATH": str(self.tmp / "older" / "src")}
        argv = [sys.executable, "-m", "lateen", *argv]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def add(self, image, module, *more):
        source = self.tmp / "older"
        variables = (f"PYTHONPATH={source / 'src'}", f"PATH={images.PATH}", "PYTHONDONTWRITEBYTECODE=1")
        options = [x for v in variables for x in ("--env", v)]
        options += ["--mount", str(source), *more]
        self.lateen("image", "add", *options, f"{OLDER}/{image}", "--", sys.executable, "-m", module)

    def code(self, client, path="/hello", *curl):
        """The status that a deployment gets from helloworld."""
        command = ("curl", "-s", "-m", "30", "-o", "/dev/null", "-w", "%{http_code}", *curl, f"helloworld:5000{path}")
        return self.kubectl("exec", f"deploy/{client}", "-c", client, "--", *command, ok=False).stdout

    def client(self, name):
        text = (ROOT / "samples/sleep/sleep.yaml").read_text().replace("sleep\n", f"{name}\n")
        self.apply(text.replace(f"/bin/{name}", "/bin/sleep"))

    def proxies(self, app):
        """Where the images of a deployment's proxies come from."""
        path = "jsonpath={.items[*].spec.initContainers[*].image} {.items[*].spec.containers[*].image}"
        used = self.get("pods", "-l", f"app={app}", "--field-selector=status.phase=Running", "-o", path).split()
        return {image.partition("/proxyv2")[0] for image in used if "/proxyv2" in image}


@pytest.fixture(params=REVISIONS)
def versions(request, tmp_path_factory):
    if shutil.which("git") is None:
        pytest.skip("there is no git to read the repository's history with")
    archived = subprocess.run(["git", "archive", request.param, "src"], cwd=ROOT, capture_output=True, check=False)
    if archived.returncode:
        pytest.skip(f"the repository's history has no {request.param}: {archived.stderr.decode().strip()}")
    tmp = tmp_path_factory.mktemp("versions")
    tmp.chmod(0o755)
    with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as archive:
        archive.extractall(tmp / "older", filter="data")
    mesh = Versions(tmp / "home", tmp)
    mesh.codes, mesh.forgets = REVISIONS[request.param], request.param in FORGETFUL
    try:
        started = mesh.lateen("cluster", "start", ok=False)
        if "cannot create namespaces" in started.stderr:
            pytest.skip(started.stderr.strip())
        assert started.returncode == 0, started.stderr
        mesh.add("proxyv2", "lateen.agent", "--mount", f"{images.envoy_binary()}:{images.BIN}/envoy")
        mesh.add("pilot", "lateen.control")
        mesh.older("install", "-y", "--set", "profile=minimal", "--set", f"hub={OLDER}")
        yield mesh
    finally:
        mesh.lateen("cluster", "delete", ok=False)


@contextlib.contextmanager
def called_without_pause(mesh, client, allowed=frozenset({"200"})):
    """Calls from a pod, ten a second; at the end all of them must have been answered with these status codes."""
    script = "while :; do curl -s -m 30 -o /dev/null -w '%{http_code}\n' helloworld:5000/hello; sleep 0.1; done"
    argv = [mesh.kubectl_path, "exec", f"deploy/{client}", "-c", client, "--", "sh", "-c", script]
    out = mesh.tmp / f"codes-{client}"
    with out.open("w") as file, subprocess.Popen(argv, stdout=file, env=mesh.environment) as calls:
        try:
            mesh.until(lambda: "200" in out.read_text(), limit_s=120, what="a first answer")
            yield
            assert calls.poll() is None
        finally:
            calls.terminate()
    codes = out.read_text().split()
    assert set(codes) <= allowed, codes


def rules_take_effect(mesh, *clients):
    """A rule for the callers and a policy for the service, applied and taken away."""
    mesh.apply(FAULT)
    mesh.apply(DENIED)
    for client in clients:
        answers(mesh, client, {"/hello": "418", "/tea": "403"})
    mesh.kubectl("delete", "virtualservice/teapot", "authorizationpolicy/no-tea")
    for client in clients:
        answers(mesh, client, {"/hello": "200", "/tea": "404"})


def answers(mesh, client, wanted):
    """Wait until requests, by path, get these status codes; those for /hello have the header of the rule."""
    got = {}

    def fits():
        for path in wanted:
            got[path] = mesh.code(client, path, "-H", "x-tea: 1" if path == "/hello" else "x-tea: 0")
        return got == wanted

    try:
        mesh.until(fits, 120)
    except AssertionError as e:
        raise AssertionError(f"{client} gets {got} instead of {wanted}") from e


def test_proxies_one_version_older_and_newer_are_served_in_an_upgrade_and_back(versions):
    mesh = versions
    mesh.kubectl("label", "namespace", "default", "istio-injection=enabled")
    mesh.apply(STRICT)
    mesh.apply(HELLO.format("v1"))
    mesh.client("before")
    for name in ("helloworld-v1", "before"):
        mesh.kubectl("rollout", "status", f"deployment/{name}", "--timeout=300s", timeout=320)
    assert mesh.proxies("helloworld") == mesh.proxies("before") == {OLDER}
    rules_take_effect(mesh, "before")

    with called_without_pause(mesh, "before"):
        mesh.lateen("upgrade", "-y", "--set", f"hub={NEWEST}", timeout=400)
        mesh.client("after")
        mesh.kubectl("rollout", "status", "deployment/after", "--timeout=300s", timeout=320)
        assert (mesh.proxies("helloworld"), mesh.proxies("after")) == ({OLDER}, {NEWEST})
        rules_take_effect(mesh, "before", "after")

    with called_without_pause(mesh, "after", mesh.codes):
        mesh.older("install", "-y", "--set", "profile=minimal", "--set", f"hub={OLDER}")
        mesh.kubectl("rollout", "restart", "deployment/before")
        mesh.kubectl("rollout", "status", "deployment/before", "--timeout=300s", timeout=320)
        rules_take_effect(mesh, *(("before",) if mesh.forgets else ("before", "after")))
    if mesh.forgets:
        mesh.kubectl("rollout", "restart", "deployment/after")
        mesh.kubectl("rollout", "status", "deployment/after", "--timeout=300s", timeout=320)
        rules_take_effect(mesh, "after")
