"""Pods run images from stores that the real container engines have written: Podman's and Buildah's (by skopeo),
Docker's and containerd's (by their daemons, which have ended before a pod asks for the image)."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "system"))
from test_oci import made
from world import Mesh

pytestmark = pytest.mark.timeout(600)
PLACES = {"docker": "/var/lib/docker", "containerd": "/var/lib/containerd"}
"""Where the machine's stores are."""
STORES = {
    "podman, overlay": ("podman", "localhost/of-overlay:1"),
    "podman, vfs": ("podman", "localhost/of-vfs:1"),
    "docker, overlay2": ("docker", "example.com/of-docker:1"),
    "containerd": ("containerd", "example.com/of-containerd:1"),
}
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec: {{containers: [{{name: main, image: "{image}"}}], terminationGracePeriodSeconds: 0}}
"""


class Private:
    """A mesh's cluster in a mount namespace in which the stores are those of the test."""

    def __init__(self, tmp):
        self.tmp = tmp
        mounted = [f"mkdir -p {at} && mount --bind {self.store(name)} {at}" for name, at in PLACES.items()]
        script = " && ".join(["mount --make-rprivate /", *mounted, "echo ready", "exec sleep infinity"])
        self._holder = subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout.readline() == "ready\n"

    def store(self, name):
        path = self.tmp / name
        path.mkdir(exist_ok=True)
        return path

    def mesh(self):
        found = Mesh(self.tmp / "home", self.tmp)
        found.environment |= {"CONTAINERS_STORAGE_CONF": str(self.tmp / "storage.conf")}
        run = found.run
        found.run = lambda *argv, **more: run("nsenter", "-t", str(self._holder.pid), "-m", *argv, **more)
        return found

    def end(self):
        self._holder.kill()
        self._holder.wait()


def of_podman(private, layout, driver):
    root = private.store(f"podman-{driver}")
    target = f"containers-storage:[{driver}@{root}+{private.tmp / 'run'}]localhost/of-{driver}:1"
    command = ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{layout}:app:1", target]
    subprocess.run(command, check=True, capture_output=True, text=True)
    subprocess.run(["umount", str(root / driver)], check=False, capture_output=True)  # overlay mounts it on itself
    return root


def archive(tmp, layout, name):
    """What ``docker save`` would write."""
    path = tmp / f"{name}.tar"
    target = f"docker-archive:{path}:example.com/{name}:1"
    subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", f"oci:{layout}:app:1", target], check=True)
    return path


@contextlib.contextmanager
def daemon(mesh, command, log, asked):
    """A daemon that answers to the command ``asked``."""
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:

            def answers():
                assert process.poll() is None, log.read_text(errors="replace")
                return subprocess.run(asked, check=False, capture_output=True).returncode == 0

            mesh.until(answers, 60, f"{command[0]}: {log}")
            yield
        finally:
            process.terminate()
            process.wait(60)


def of_docker(private, mesh, layout):
    root, tmp = private.store("docker"), private.tmp
    socket = f"unix://{tmp}/docker.sock"
    command = ["dockerd", "--data-root", str(root), "--exec-root", str(tmp / "exec"), "-p", str(tmp / "pid")]
    command += ["-H", socket, "--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=overlay2"]
    docker = ["docker", "-H", socket]
    with daemon(mesh, command, tmp / "dockerd.log", [*docker, "version"]):
        subprocess.run([*docker, "load", "-q", "-i", str(archive(tmp, layout, "of-docker"))], check=True)


def of_containerd(private, mesh, layout):
    root, tmp = private.store("containerd"), private.tmp
    socket = str(tmp / "containerd.sock")
    (tmp / "containerd.toml").write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    command = ["containerd", "-c", str(tmp / "containerd.toml"), "--root", str(root), "--state", str(tmp / "state")]
    ctr = ["ctr", "-a", socket]
    with daemon(mesh, [*command, "-a", socket], tmp / "containerd.log", [*ctr, "version"]):
        subprocess.run([*ctr, "images", "import", str(archive(tmp, layout, "of-containerd"))], check=True)


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """A mesh, and the names in STORES whose stores could be written here."""
    if os.geteuid() or not shutil.which("skopeo"):
        pytest.skip("it takes root, and skopeo (apt-get install skopeo)")
    tmp = tmp_path_factory.mktemp("engines")
    layout = made(tmp / "layout")
    private = Private(tmp)
    mesh = private.mesh()
    try:
        own, more = of_podman(private, layout, "overlay"), of_podman(private, layout, "vfs")
        options = f'[storage.options]\nadditionalimagestores = ["{more}"]\n'
        (tmp / "storage.conf").write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{own}"\n{options}')
        if shutil.which("dockerd"):
            of_docker(private, mesh, layout)
        if shutil.which("containerd"):
            of_containerd(private, mesh, layout)
        started = mesh.lateen("cluster", "start", ok=False)
        if "cannot create namespaces" in started.stderr:
            pytest.skip(started.stderr.strip())
        assert started.returncode == 0, started.stderr
        yield mesh
    finally:
        mesh.lateen("cluster", "delete", ok=False)
        private.end()


@pytest.mark.parametrize("store", STORES)
def test_a_pod_runs_an_image_that_an_engine_has_stored(engines, store):
    engine, image = STORES[store]
    if engine in PLACES and not shutil.which(engine if engine == "containerd" else "dockerd"):
        pytest.skip(f"there is no {engine} (apt-get install {'docker.io' if engine == 'docker' else engine})")
    listed = json.loads(engines.lateen("image", "list", "-o", "json").stdout)
    assert listed[image]["origin"] == engine
    name = image.partition("/")[2].partition(":")[0]
    engines.apply(POD.format(name=name, image=image.removeprefix("localhost/")))
    engines.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=90s")
    assert engines.kubectl("logs", name).stdout == "hello\n"
    said = engines.kubectl("exec", name, "--", "sh", "-c", "cat /etc/motd; id -u; ls /opt; echo $GREETING").stdout
    assert said == "of the application\n1234\ngood day\n", "the upper layer, its user, without what it takes away"
