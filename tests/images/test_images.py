"""Our own images: what the manifests name is there for each architecture, the same each time, and runs."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from lateen.cluster.kubelet import oci
from lateen.kit import yamldoc

sys.path.append(str(Path(__file__).parents[1] / "system"))
from world import ROOT, Mesh

pytestmark = pytest.mark.timeout(900)
"""Layers are unpacked by Python, which takes minutes on a busy machine."""

ELF_MACHINES = {"amd64": 62, "arm64": 183}
"""``e_machine`` (elf(5))."""
ECHO = """
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {ports: [{port: 80, targetPort: 8080, name: http}], selector: {app: echo}}
---
apiVersion: v1
kind: Pod
metadata: {name: echo, labels: {app: echo}}
spec: {containers: [{name: echo, image: mccutchen/go-httpbin}]}
---
apiVersion: v1
kind: Pod
metadata: {name: sleep, labels: {app: sleep}}
spec: {containers: [{name: sleep, image: curlimages/curl, command: [/bin/sleep, infinity]}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict}
spec: {mtls: {mode: STRICT}}
"""


BOTH_VERSIONS = "/sys/fs/cgroup/unified"
"""Where version 2 of control groups is mounted beside version 1."""
LAYOUT = ROOT / "dist" / "images"
TAG = "own"
"""Another one than that of the catalogue, by which the embedded cluster's own programs would run."""


@pytest.fixture(scope="module")
def layout():
    if not (LAYOUT / "index.json").exists():
        pytest.skip("there are no images: make images")
    return LAYOUT


@pytest.fixture(scope="module")
def mesh(layout, tmp_path_factory):
    tmp = tmp_path_factory.mktemp("lateen")
    found = Mesh(tmp / "home", tmp)
    try:
        started = found.lateen("cluster", "start", ok=False)
        if "cannot create namespaces" in started.stderr:
            pytest.skip(started.stderr.strip())
        assert started.returncode == 0, started.stderr
        index = json.loads((layout / "index.json").read_text())
        refs = [m["annotations"]["org.opencontainers.image.ref.name"] for m in index["manifests"]]
        for name in ("pilot", "proxyv2"):
            (ref,) = [r for r in refs if r.rpartition("/")[2].startswith(f"{name}:")]
            image = f"example.com/mesh/{name}:{TAG}"
            found.lateen("image", "add", image, "--oci", str(layout), "--ref", ref, timeout=400)
        options = ("--set", "profile=minimal", "--set", "hub=example.com/mesh", "--set", f"tag={TAG}")
        found.lateen("install", "-y", *options, timeout=200)
        yield found
    finally:
        found.lateen("cluster", "delete", ok=False, timeout=300)


def document(layout, digest):
    return json.loads((layout / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes())


def manifests(layout):
    """(name of the image without hub and tag, architecture) -> its manifest's digest."""
    out = {}
    for entry in json.loads((layout / "index.json").read_text())["manifests"]:
        name = entry["annotations"]["org.opencontainers.image.ref.name"].rpartition("/")[2].partition(":")[0]
        for found in document(layout, entry["digest"])["manifests"]:
            out[name, found["platform"]["architecture"]] = found["digest"]
    return out


def read(layout, digest, path):
    """A file of an image, or None; the last layer that has it counts."""
    for layer in reversed(document(layout, digest)["layers"]):
        with tarfile.open(layout / "blobs/sha256" / layer["digest"].removeprefix("sha256:")) as archive:
            try:
                return archive.extractfile(path).read()
            except KeyError:
                continue
    return None


def test_every_image_of_the_manifests_is_there_for_both_architectures(layout):
    run = [sys.executable, "-m", "lateen", "manifest", "generate", "--set", "profile=demo"]
    run += ["--set", "components.cni.enabled=true"]
    text = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    text += subprocess.run([*run[:3], "addons", "show"], capture_output=True, text=True, check=False).stdout
    named = set(re.findall(r"docker\.io/lateen/([a-z0-9-]+):", text))
    assert {"pilot", "proxyv2", "install-cni"} <= named
    found = manifests(layout)
    assert {(n, a) for n in named for a in ELF_MACHINES} <= set(found)
    for (name, architecture), digest in found.items():
        python = read(layout, digest, "usr/bin/python3.11")
        assert int.from_bytes(python[18:20], "little") == ELF_MACHINES[architecture], (name, architecture)
    for architecture, machine in ELF_MACHINES.items():
        envoy = read(layout, found["proxyv2", architecture], "usr/local/lib/python3.11/dist-packages/envoy/_bin/envoy")
        assert int.from_bytes(envoy[18:20], "little") == machine
        assert read(layout, found["install-cni", architecture], "usr/bin/nsenter")


def test_hub_and_tag_name_the_images_and_the_same_input_gives_the_same_digests(layout, tmp_path):
    here = oci.architecture()
    command = [sys.executable, str(ROOT / "tools/images.py"), str(tmp_path / "again"), "--arch", here]
    command += ["--hub", "example.com/mesh", "--tag", "v1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=500)
    assert re.findall(r"^(\S+)@sha256:[0-9a-f]{64}$", done.stdout, re.MULTILINE) == [
        f"example.com/mesh/{name}:v1" for name in ("pilot", "proxyv2", "console", "install-cni")
    ]
    again, before = manifests(tmp_path / "again"), manifests(layout)
    assert again == {key: digest for key, digest in before.items() if key[1] == here}


def test_istiod_and_sidecars_run_from_the_images_in_the_embedded_cluster(mesh):
    mesh.kubectl("label", "namespace", "default", "istio-injection=enabled")
    mesh.apply(ECHO)
    mesh.kubectl("wait", "--for=condition=Ready", "pod/echo", "pod/sleep", "--timeout=120s")
    images = mesh.get("pods", "-A", "-o", "jsonpath={..image}").split()
    assert {f"example.com/mesh/{name}:{TAG}" for name in ("pilot", "proxyv2")} <= set(images)
    answer = mesh.inside("sleep", "curl", "-s", "-m", "10", "echo/headers").stdout
    assert "By=spiffe://cluster.local/ns/default/sa/default" in answer
    packages = mesh.inside("sleep", "ls", "/var/lib/dpkg/status.d", container="istio-proxy").stdout
    assert "iproute2" in packages.split()


@pytest.fixture(params=["runc", "crun"])
def runtime(request):
    """An OCI runtime that runs here."""
    found = shutil.which(request.param)
    if not found or os.geteuid():
        pytest.skip(f"it takes root, and {request.param} (apt-get install {request.param})")
    return found


def bundle(runtime, mesh, tmp, image, argv=(), network="", mounts=(), env=()):
    """What an OCI runtime starts: an unpacked image with the configuration that follows from it. ``argv``: in the place
    of its own; ``mounts``: (path, where it is in the container)."""
    about = yamldoc.load(mesh.lateen("image", "show", f"example.com/mesh/{image}:{TAG}").stdout)
    subprocess.run([runtime, "spec"], cwd=tmp, check=True)
    path = tmp / "config.json"
    spec = json.loads(path.read_text())
    spec["root"] = {"path": about["rootfs"], "readonly": True}
    uid, gid = map(int, about["user"].split(":"))
    variables = [*(f"{k}={v}" for k, v in about["env"].items()), *env]
    spec["process"] |= {"terminal": False, "user": {"uid": uid, "gid": gid}, "env": variables}
    spec["process"]["args"] = list(argv) or [*about["entrypoint"], *about["arguments"]]
    bound = [{"destination": at, "type": "bind", "source": str(p), "options": ["bind", "ro"]} for p, at in mounts]
    own = [m for m in spec["mounts"] if m["type"] != "cgroup"]
    spec["mounts"] = [*own, {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}, *bound]
    for space in spec["linux"]["namespaces"]:
        if space["type"] == "network" and network:
            space["path"] = network
    path.write_text(json.dumps(spec))
    hidden = []
    if Path(BOTH_VERSIONS, "cgroup.controllers").exists():  # which crun refuses
        hidden = ["unshare", "--mount", "sh", "-c", f'umount {BOTH_VERSIONS} && exec "$@"', "sh"]
    return [*hidden, runtime, "run", f"lateen-test-{os.getpid()}-{tmp.name}"]


@pytest.mark.parametrize(("argv", "says"), [(["envoy", "--version"], "1.40.0"), (["pilot-agent", "version"], "0.1.0")])
def test_the_proxys_programs_run_under_a_plain_oci_runtime(mesh, runtime, tmp_path, argv, says):
    run = bundle(runtime, mesh, tmp_path, "proxyv2", argv)
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, says in done.stdout) == (0, True), done.stderr


def network_of(marker):
    """The network namespace of the process with this text in its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = path.read_bytes().split(b"\0")
        if words[0] == b"/bin/sleep" and marker.encode() in words:
            return str(path.parent / "ns/net")
    raise AssertionError(f"no process has {marker}")


def test_istiod_is_ready_under_a_plain_oci_runtime(mesh, runtime, tmp_path):
    """In the network of a pod, from which it reaches the API server as in any cluster."""
    marker = str(1_000_000 + os.getpid())
    labels = {"sidecar.istio.io/inject": "false"}
    spec = {"containers": [{"name": "net", "image": "curlimages/curl", "command": ["/bin/sleep", marker]}]}
    mesh.apply(
        json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "net", "labels": labels}, "spec": spec})
    )
    mesh.kubectl("wait", "--for=condition=Ready", "pod/net", "--timeout=60s")
    account = tmp_path / "account"
    account.mkdir()
    token = mesh.kubectl("create", "token", "istiod", "-n", "istio-system").stdout.strip()
    (account / "token").write_text(token)
    (account / "namespace").write_text("istio-system")
    root = mesh.get("configmap", "kube-root-ca.crt", "-n", "istio-system", "-o", r"jsonpath={.data.ca\.crt}")
    (account / "ca.crt").write_text(root)
    at = "/var/run/secrets/kubernetes.io/serviceaccount"
    env = ["KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_SERVICE_PORT=443", "POD_NAMESPACE=istio-system"]
    env += ["POD_NAME=istiod-plain", "REVISION=default"]
    run = bundle(runtime, mesh, tmp_path, "pilot", network=network_of(marker), mounts=[(account, at)], env=env)
    with (tmp_path / "log").open("w") as log:
        istiod = subprocess.Popen(run, cwd=tmp_path, stdout=log, stderr=log)
    ready = ("exec", "net", "--", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "localhost:15014/ready")
    try:
        mesh.until(lambda: mesh.kubectl(*ready, ok=False).stdout == "200", 60, "istiod under the runtime")
    except AssertionError as e:
        raise AssertionError((tmp_path / "log").read_text()) from e
    finally:
        istiod.terminate()
        istiod.wait(timeout=20)
