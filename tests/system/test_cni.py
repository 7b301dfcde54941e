"""The CNI plugin in a real cluster: pods of the mesh without istio-init and without rights on their network."""

import json

import pytest
import yaml
from world import ROOT, Mesh

pytestmark = pytest.mark.system

STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""
HELLO = """
apiVersion: v1
kind: Service
metadata: {name: helloworld, labels: {app: helloworld}}
spec: {ports: [{port: 5000, name: http}], selector: {app: helloworld}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: helloworld}
spec:
  selector: {matchLabels: {app: helloworld}}
  template:
    metadata: {labels: {app: helloworld}}
    spec: {containers: [{name: helloworld, image: docker.io/istio/examples-helloworld-v1}]}
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("cni")
    found = Mesh(tmp / "home", tmp)
    try:
        started = found.lateen("cluster", "start", ok=False)
        if "cannot create namespaces" in started.stderr:
            pytest.skip(started.stderr.strip())
        assert started.returncode == 0, started.stderr
        done = found.lateen("install", "--set", "profile=minimal", "--set", "components.cni.enabled=true", "-y")
        assert "CNI installed" in done.stdout + done.stderr
        found.kubectl("label", "namespace", "default", "istio-injection=enabled")
        found.apply(STRICT)
        found.apply(HELLO)
        found.kubectl("apply", "-f", str(ROOT / "samples/sleep/sleep.yaml"))
        for name in ("helloworld", "sleep"):
            found.kubectl("rollout", "status", f"deployment/{name}", "--timeout=110s")
        yield found
    finally:
        found.lateen("cluster", "delete", ok=False)


def spec(mesh, app):
    return json.loads(mesh.get("pod", mesh.pod(app), "-o", "json"))["spec"]


def asks(mesh):
    command = "curl -s -m 5 -o /dev/null -w '%{http_code}' helloworld:5000/hello"
    return mesh.inside("sleep", "sh", "-c", command, ok=False).stdout


def test_pods_are_redirected_without_rights_of_their_own(mesh):
    found = spec(mesh, "helloworld")
    assert [c["name"] for c in found["initContainers"]] == ["istio-validation"]
    for c in [*found["initContainers"], *found["containers"]]:
        assert "add" not in c.get("securityContext", {}).get("capabilities", {}), c["name"]
    assert mesh.until(lambda: asks(mesh) == "200", what="an answer")  # STRICT: by mutual TLS, so both are redirected
    address = json.loads(mesh.get("pod", mesh.pod("helloworld"), "-o", "json"))["status"]["podIP"]
    plain = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "plain", "labels": {"sidecar.istio.io/inject": "false"}},
    }
    plain["spec"] = {"terminationGracePeriodSeconds": 0}
    plain["spec"]["containers"] = [{"name": "main", "image": "lateen/sleep", "command": ["sleep", "1000"]}]
    mesh.apply(yaml.safe_dump(plain))
    mesh.kubectl("wait", "pod", "plain", "--for=condition=Ready", "--timeout=60s")
    command = f"curl -s -m 5 http://{address}:5000/hello; echo $?"
    assert mesh.kubectl("exec", "plain", "--", "sh", "-c", command).stdout.strip() == "56"  # reset: no mutual TLS


def test_annotations_say_what_is_redirected(mesh):
    patch = {"traffic.sidecar.istio.io/excludeOutboundPorts": "5000"}
    mesh.kubectl(
        "patch", "deployment", "sleep", "-p", json.dumps({"spec": {"template": {"metadata": {"annotations": patch}}}})
    )
    mesh.kubectl("rollout", "status", "deployment/sleep", "--timeout=110s")
    mesh.until(lambda: len(mesh.get("pod", "-l", "app=sleep", "-o", "name").split()) == 1, what="one pod")
    mesh.until(lambda: asks(mesh) == "000", what="a refusal")  # past the sidecar, in plain text


def test_a_pod_that_has_started_without_the_plugin_is_replaced(mesh):
    """The chain is restored two seconds after somebody has written it anew, and what started meanwhile is repaired."""
    (conf,) = (mesh.home / "cni/etc/net.d").glob("*.conflist")
    before = json.loads(conf.read_text())
    pod = mesh.pod("helloworld")
    conf.write_text(json.dumps(before | {"plugins": before["plugins"][:1]}))
    mesh.kubectl("delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")
    mesh.until(lambda: json.loads(conf.read_text()) == before, what="the chain")
    mesh.kubectl("rollout", "status", "deployment/helloworld", "--timeout=110s")
    assert spec(mesh, "helloworld")


def on_the_node(mesh):
    """The files in the node's directories for plugins."""
    return {p.name for at in ("etc", "opt") for p in (mesh.home / "cni" / at).rglob("*") if p.is_file()}


def test_without_the_plugins_program_no_pod_starts_unprotected(mesh):
    (mesh.home / "cni/opt/bin/istio-cni").unlink()
    mesh.kubectl("delete", "pod", "-l", "app=helloworld", "--grace-period=0", "--force", "--wait=false")
    mesh.kubectl("rollout", "status", "deployment/helloworld", "--timeout=110s")  # the daemon has written it again
    said = mesh.lateen("install", "--set", "profile=minimal", "-y").stderr
    assert "This removes: DaemonSet istio-system/istio-cni-node" in said
    assert mesh.get("daemonset", "-n", "istio-system", "-o", "name") == ""
    mesh.until(lambda: on_the_node(mesh) == {"10-lateen.conflist"}, what=f"without {on_the_node(mesh)}")
    mesh.until(lambda: injected(mesh) == ["istio-init"], what="injection of istio-init")


def injected(mesh):
    """The init containers that a new pod would get."""
    made = mesh.kubectl("run", "new", "--image=lateen/sleep", "--dry-run=server", "-o", "json").stdout
    return [c["name"] for c in json.loads(made)["spec"]["initContainers"]]
