"""Images with files of their own, from an OCI layout: what a pod of one sees, and what it runs as."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.system

NAMESPACE = "oci"
PROGRAMS = ("sh", "cat", "id", "ls", "sleep", "touch", "readlink")
LAYOUTS = Path(__file__).parents[1] / "unit" / "layouts.py"


def made(path):
    """A small distribution: some of this machine's programs with their libraries, and a user."""
    spec = importlib.util.spec_from_file_location("layouts", LAYOUTS)
    layouts = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(layouts)
    base, app = layouts.Archive(), layouts.Archive()
    base.directory("usr/bin").link("bin", "usr/bin").directory("tmp", 0o1777).directory("var").link("var/run", "/run")
    libraries = set()
    for name in PROGRAMS:
        program = Path(shutil.which(name)).resolve()
        base.file(f"usr/bin/{name}", program.read_bytes(), 0o755)
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        libraries |= set(re.findall(r"(/\S+) \(0x", listed))
    for library in libraries:
        base.file(library.lstrip("/"), Path(library).resolve().read_bytes(), 0o755)
    base.file("etc/motd", b"of the base\n").file("opt/gone", b"x")
    base.file("etc/passwd", b"root:x:0:0::/root:/bin/sh\napp:x:1234:1235::/work:/bin/sh\n")
    base.file("etc/group", b"root:x:0:\napp:x:1235:\n")
    app.file("etc/motd", b"of the application\n").file("opt/.wh.gone").directory("work").file("work/hello", b"hello\n")
    return layouts.write(
        path,
        base,
        app,
        name="app:1",
        Entrypoint=["/bin/sh", "-c"],
        Cmd=["cat hello; exec sleep 1000"],
        Env=["PATH=/usr/bin:/bin", "GREETING=good day"],
        User="app",
        WorkingDir="/work",
    )


@pytest.fixture(scope="module")
def pods(mesh, tmp_path_factory):
    layout = made(tmp_path_factory.mktemp("layout"))
    mesh.lateen("image", "add", "example.com/app:1", "--oci", str(layout), "--ref", "app:1")
    mesh.kubectl("create", "namespace", NAMESPACE)
    mesh.kubectl("label", "namespace", NAMESPACE, "istio-injection=disabled")
    yield Pods(mesh)
    mesh.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    mesh.lateen("image", "remove", "example.com/app:1")


class Pods:
    def __init__(self, mesh):
        self.mesh = mesh

    def started(self, name, **container):
        container = {"name": "main", "image": "example.com/app:1"} | container
        spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
        meta = {"name": name, "namespace": NAMESPACE}
        self.mesh.apply(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}))
        self.mesh.kubectl("wait", f"pod/{name}", "-n", NAMESPACE, "--for=condition=Ready", "--timeout=60s")

    def run(self, name, script, ok=True):
        return self.mesh.kubectl("exec", name, "-n", NAMESPACE, "--", "sh", "-c", script, ok=ok).stdout


def test_a_pod_runs_the_images_own_files_command_and_user(pods):
    pods.started("app")
    assert pods.mesh.kubectl("logs", "app", "-n", NAMESPACE).stdout == "hello\n"
    assert pods.run("app", "cat /etc/motd; id -u; id -g; readlink /proc/self/cwd; echo $GREETING $HOME").split(
        "\n"
    ) == [*("of the application", "1234", "1235", "/work", "good day /work", "")]
    assert pods.run("app", "ls /opt; ls /usr/bin").split() == sorted(PROGRAMS)
    assert "app" in pods.run("app", "cat /etc/hosts /etc/hostname")
    assert "10.96.0.10" in pods.run("app", "cat /etc/resolv.conf")
    token = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    assert pods.run("app", f"cat {token}").count(".") == 2
    assert pods.run("app", "cat /proc/1/comm").strip() in ("sh", "sleep")


def test_what_a_container_writes_is_its_own(pods):
    root = {"runAsUser": 0}
    for name in ("first", "second"):
        pods.started(name, securityContext=root)
    pods.run("first", "touch /etc/new && echo changed > /etc/motd")
    assert pods.run("first", "cat /etc/motd; ls /etc/new") == "changed\n/etc/new\n"
    assert pods.run("second", "cat /etc/motd") == "of the application\n"
    assert (
        "No such file" in pods.mesh.kubectl("exec", "second", "-n", NAMESPACE, "--", "ls", "/etc/new", ok=False).stderr
    )
    pods.started("fixed", securityContext=root | {"readOnlyRootFilesystem": True}, command=["sleep", "1000"])
    assert pods.run("fixed", "touch /x || echo refused", ok=False) == "refused\n"


def test_arguments_replace_the_images_own_and_volumes_lie_behind_its_links(pods):
    spec = {
        "containers": [
            {
                "name": "main",
                "image": "example.com/app:1",
                "args": ["cat /run/data/file; exec sleep 1000"],
                "volumeMounts": [{"name": "data", "mountPath": "/var/run/data"}],
            }
        ],
        "volumes": [{"name": "data", "configMap": {"name": "data"}}],
        "terminationGracePeriodSeconds": 0,
    }
    pods.mesh.kubectl("create", "configmap", "data", "-n", NAMESPACE, "--from-literal=file=through the link")
    meta = {"name": "args", "namespace": NAMESPACE}
    pods.mesh.apply(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}))
    logs = pods.mesh.until(lambda: pods.mesh.kubectl("logs", "args", "-n", NAMESPACE, ok=False).stdout, what="its log")
    assert logs.strip() == "through the link"


def test_an_image_that_cannot_be_used_is_told(pods, tmp_path):
    done = pods.mesh.lateen("image", "add", "x", "--oci", str(tmp_path), ok=False)
    assert (done.returncode != 0, "not an OCI layout" in done.stderr) == (True, True)
    done = pods.mesh.lateen("image", "add", "x", "--oci", str(tmp_path), "--", "sleep", ok=False)
    assert "--oci takes command" in done.stderr
    assert "rootfs" in pods.mesh.lateen("image", "show", "example.com/app:1").stdout
