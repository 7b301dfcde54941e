"""Failures: bad input, dying processes, full disks, ports in use. Nothing is lost, and the message helps."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from world import Mesh

from lateen.kube.kubeconfig import from_file

pytestmark = pytest.mark.system


# --- bad input -----------------------------------------------------------------------------------------------------


def test_an_unknown_field_is_refused_by_name(mesh):
    done = mesh.apply(
        """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: typo}
spec: {hosts: [reviews], htpp: []}
""",
        ok=False,
    )
    assert done.returncode != 0
    assert "htpp" in done.stderr
    assert "typo" not in mesh.get("virtualservices")


def test_a_rule_to_a_host_that_does_not_exist_says_so_and_what_is_near(mesh):
    done = mesh.apply("""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: nowhere}
spec: {hosts: [nowhere.example.com], http: [{route: [{destination: {host: review}}]}]}
""")
    mesh.kubectl("delete", "virtualservice", "nowhere")
    assert 'there is no service "review"' in done.stderr
    assert 'did you mean "reviews"?' in done.stderr


def test_a_rule_that_cannot_work_is_refused_with_its_path(mesh):
    done = mesh.apply(
        """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wrong}
spec: {hosts: [reviews], http: [{timeout: 5 parsecs, route: [{destination: {host: reviews}}]}]}
""",
        ok=False,
    )
    assert done.returncode != 0
    assert "spec.http[0].timeout" in done.stderr
    assert '"5 parsecs" is not a duration' in done.stderr


@pytest.mark.parametrize("text", ["a: [", "[" * 60_000, "a: 1\na: 2", "kind: Pod\n  x: 1", "\x00", "- just\n- a list"])
def test_broken_yaml_is_one_sentence_with_its_place(mesh, text, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    done = mesh.lateen("kube-inject", "-f", str(path), ok=False)
    assert done.returncode == 65
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(path) in done.stderr


def test_deep_yaml_does_not_hurt_the_api_server(mesh):
    async def post():
        async with from_file(mesh.home / "kubeconfig") as client:
            url = client.base + "/api/v1/namespaces/default/configmaps"
            headers = {"Content-Type": "application/yaml"}
            async with client.session().post(url, data=b"[" * 100_000, headers=headers) as answer:
                return answer.status, await answer.text()

    status, text = asyncio.run(post())
    assert status == 400
    assert "levels deep" in text
    assert mesh.get("ns")


def test_a_mistyped_command_gets_a_suggestion(mesh):
    done = mesh.lateen("instal", ok=False)
    assert done.returncode == 64
    assert 'did you mean "install"?' in done.stderr


# --- images --------------------------------------------------------------------------------------------------------


def test_an_unknown_image_says_how_to_add_it_and_runs_once_it_is(mesh):
    mesh.apply("""
apiVersion: v1
kind: Pod
metadata: {name: stranger, labels: {sidecar.istio.io/inject: "false"}}
spec: {containers: [{name: a, image: "example.com/some/thing:1"}], terminationGracePeriodSeconds: 1}
""")
    try:

        def reason():
            return mesh.get("pod", "stranger", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.reason}")

        mesh.until(lambda: reason() in ("ErrImagePull", "ImagePullBackOff"), 10, "ErrImagePull")
        mesh.until(lambda: reason() == "ImagePullBackOff", 15, "ImagePullBackOff")
        says = "lateen image add some/thing"
        mesh.until(lambda: says in mesh.kubectl("describe", "pod", "stranger").stdout, what="the remedy")
        mesh.lateen("image", "add", "some/thing", "--", "/bin/sleep", "1000")
        mesh.kubectl("wait", "--for=condition=Ready", "pod/stranger", "--timeout=30s")
    finally:
        mesh.kubectl("delete", "pod", "stranger", "--grace-period=1")


# --- dying processes -----------------------------------------------------------------------------------------------


class Load:
    """Requests through the ingress, one after the other; every outcome is kept."""

    def __init__(self, mesh):
        self.url = mesh.ingress() + "/productpage"
        self.outcomes = []
        self.broken = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        import urllib.error
        import urllib.request

        while not self._stop.is_set():
            try:
                with urllib.request.urlopen(self.url, timeout=10) as answer:
                    self.outcomes.append(answer.status)
                    self.broken += b"Error fetching product" in answer.read()
            except (urllib.error.URLError, OSError) as e:
                self.outcomes.append(str(e))
            time.sleep(0.02)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def test_traffic_goes_on_while_istiod_is_down_and_configuration_comes_after(mesh):
    def killed():
        try:
            mesh.signal(signal.SIGKILL, "lateen.control", "discovery")
        except AssertionError:  # the one after the last has not started yet
            return False
        return True

    with Load(mesh) as load:
        for _ in range(2):
            mesh.until(killed, 60, "an istiod to kill")
            mesh.kubectl(
                "delete", "pod", "-n", "istio-system", "-l", "app=istiod", "--grace-period=0", "--force", "--wait=false"
            )
            time.sleep(1.5)
        mesh.kubectl("wait", "-n", "istio-system", "--for=condition=Available", "deploy/istiod", "--timeout=60s")
    assert set(load.outcomes) == {200}, [o for o in load.outcomes if o != 200][:5]
    assert len(load.outcomes) > 20

    def in_sync():
        done = mesh.lateen("proxy-status", ok=False)
        lines = done.stdout.splitlines()
        return len(lines) == 9 and all("STALE" not in line and "ERROR" not in line for line in lines)

    mesh.until(in_sync, 60, "all proxies back")


def test_a_rolling_restart_under_load_loses_no_request(mesh):
    mesh.kubectl("scale", "deploy/details-v1", "deploy/productpage-v1", "--replicas=2")
    mesh.kubectl("rollout", "status", "deploy/details-v1", "--timeout=60s")
    mesh.kubectl("rollout", "status", "deploy/productpage-v1", "--timeout=60s")
    try:
        with Load(mesh) as load:
            for name in ("deploy/details-v1", "deploy/productpage-v1"):
                mesh.kubectl("rollout", "restart", name)
                mesh.kubectl("rollout", "status", name, "--timeout=90s")
            mesh.until(lambda: "Terminating" not in mesh.get("pods"), 60, "the end of the old pods")
        assert set(load.outcomes) == {200}, [o for o in load.outcomes if o != 200][:5]
        assert load.broken == 0
        assert len(load.outcomes) > 50
    finally:
        mesh.kubectl("scale", "deploy/details-v1", "deploy/productpage-v1", "--replicas=1")
        mesh.until(lambda: len(mesh.get("pods").splitlines()) == 7, 60, "six pods")


def test_an_envoy_that_dies_is_started_again(mesh):
    pod = mesh.pod("details")
    before = mesh.kubectl("exec", pod, "-c", "istio-proxy", "--", "cat", "/proc/1/task/1/children").stdout.split()[0]
    mesh.kubectl("exec", pod, "-c", "istio-proxy", "--", "sh", "-c", f"kill -9 {before}")

    def again():
        found = mesh.kubectl("exec", pod, "-c", "istio-proxy", "--", "cat", "/proc/1/task/1/children", ok=False)
        return found.stdout.split() and found.stdout.split()[0] != before

    mesh.until(again, 20, "another Envoy")
    mesh.until(lambda: "Error fetching product details" not in mesh.page()[1], 30, "details on the page")


def test_a_refused_configuration_is_named_and_hurts_nobody_else(mesh):
    mesh.apply(f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: refused}}
spec:
  hosts: [ratings]
  http: [{{route: [{{destination: {{host: ratings}}}}], headers: {{request: {{set: {{x-long: {"a" * 20_000}}}}}}}}}]
""")
    try:

        def logged():
            text = mesh.kubectl("logs", "-n", "istio-system", "deploy/istiod").stdout
            return re.search(r"refused VHDS 9080/ratings\S+ \(from VirtualService default/refused\)", text)

        mesh.until(logged, 20, "the refusal in istiod's log")
        assert "ERROR" in mesh.lateen("proxy-status").stdout
        assert mesh.page()[0] == 200
    finally:
        mesh.kubectl("delete", "virtualservice", "refused")
    mesh.until(lambda: "ERROR" not in mesh.lateen("proxy-status").stdout, 20, "recovery")


def node_daemon(mesh):
    for pid in Path(f"/proc/{mesh.outside()}/task/{mesh.outside()}/children").read_text().split():
        if b"lateen.cluster.node" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return int(pid)
    raise AssertionError("the node daemon does not run")


def test_no_acknowledged_write_is_lost_when_the_api_server_dies_and_pods_live_on(mesh):
    uid = mesh.get("pod", mesh.pod("details"), "-o", "jsonpath={.status.containerStatuses[*].containerID}")
    acknowledged = []
    victim = node_daemon(mesh)

    def write():
        for i in range(60):
            done = mesh.kubectl(
                "create",
                "-f",
                "-",
                ok=False,
                stdin=(
                    f'{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"write-{i}"}},"data":{{"i":"{i}"}}}}'
                ),
            )
            if done.returncode == 0:
                acknowledged.append(i)

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(1.0)
    os.kill(victim, signal.SIGKILL)
    writer.join()
    mesh.until(lambda: mesh.kubectl("get", "ns", ok=False).returncode == 0, 20, "the API server's return")
    found = mesh.get("configmaps", "-o", "name").split()
    assert len(acknowledged) > 10
    assert [i for i in acknowledged if f"configmap/write-{i}" not in found] == []
    assert node_daemon(mesh) != victim
    assert mesh.get("pod", mesh.pod("details"), "-o", "jsonpath={.status.containerStatuses[*].containerID}") == uid
    mesh.until(lambda: mesh.page()[0] == 200, 30, "the page")
    mesh.kubectl("delete", "configmaps", *(f"write-{i}" for i in acknowledged))


# --- other clusters than the shared one ----------------------------------------------------------------------------


@pytest.fixture
def other(tmp_path):
    made = Mesh(tmp_path / "home", tmp_path)
    yield made
    made.lateen("cluster", "delete")


def leftovers():
    names = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=False).stdout
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=False).stdout.count("\n")
    return names, links


def ours(home):
    """Processes that belong to a state directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"LATEEN_HOME={home}\0".encode() in path.read_bytes() and path.parent.name != str(os.getpid()):
                found.append((path.parent / "cmdline").read_bytes())
        except OSError:
            continue
    return found


def test_state_survives_stop_and_kill_and_delete_leaves_nothing(other):
    before = leftovers()
    other.lateen("cluster", "start")
    other.kubectl("create", "-f", "-", stdin='{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"kept"}}')
    other.lateen("cluster", "stop")
    assert ours(other.home) == []
    assert other.lateen("cluster", "status", ok=False).returncode == 3
    other.lateen("cluster", "start")
    assert "kept" in other.get("configmaps")
    os.kill(int((other.home / "cluster.pid").read_text().split()[0]), signal.SIGKILL)
    other.until(lambda: not ours(other.home), 10, "the end of every process")
    other.lateen("cluster", "start")
    assert "kept" in other.get("configmaps")
    other.lateen("cluster", "delete")
    assert not other.home.exists()
    assert ours(other.home) == []
    assert leftovers() == before


def test_a_port_in_use_is_named_and_another_one_is_taken(other):
    other.lateen("cluster", "start")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        other.apply(f"""
apiVersion: v1
kind: Service
metadata: {{name: busy}}
spec: {{type: LoadBalancer, selector: {{app: x}}, ports: [{{port: {port}}}]}}
""")

        def given():
            return other.get("svc", "busy", "-o", "jsonpath={.metadata.annotations.lateen\\.dev/host-ports}")

        assert f"{port}={port}" not in other.until(given, 10, "a port")
        says = f"port {port} on 127.0.0.1 is in use by another program"
        other.until(lambda: says in other.get("events"), what="the reason")


BULK = "y" * 60_000


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_refuses_writes_and_recovers(other, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(small)], check=True)
    try:
        other.home = small / "home"
        other.environment |= {"LATEEN_HOME": str(other.home), "KUBECONFIG": str(other.home / "kubeconfig")}
        other.lateen("cluster", "start")
        filler = small / "filler"
        refused = None
        with filler.open("wb", buffering=0) as f:  # nothing is left to be written when it is closed
            try:
                while True:
                    f.write(b"x" * 65536)
            except OSError:
                pass
        for i in range(40):
            data = f'{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"big-{i}"}},"data":{{"x":"{BULK}"}}}}'
            done = other.kubectl("create", "-f", "-", ok=False, stdin=data)
            if done.returncode != 0:
                refused = done.stderr
                break
        assert refused is not None
        assert "no space left" in refused
        assert "default" in other.get("ns")
        filler.unlink()
        other.kubectl("create", "-f", "-", stdin='{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"after"}}')
        other.lateen("cluster", "delete")
    finally:
        (small / "filler").unlink(missing_ok=True)
        other.lateen("cluster", "delete", ok=False)
        subprocess.run(["umount", "-l", str(small)], check=False)


def test_without_namespaces_the_message_says_what_to_allow(tmp_path):
    fake = tmp_path / "unshare"
    fake.write_text("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n")
    fake.chmod(0o755)
    environment = os.environ | {
        "LATEEN_HOME": str(tmp_path / "home"),
        "PATH": f"{tmp_path}:{os.environ['PATH']}:/usr/sbin",
    }
    done = subprocess.run(
        [sys.executable, "-m", "lateen", "cluster", "start"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "cannot create namespaces" in done.stderr
    assert "user.max_user_namespaces" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupted_demo_is_repaired_by_the_next(other):
    process = subprocess.Popen([sys.executable, "-m", "lateen", "demo"], env=other.environment, stderr=subprocess.PIPE)
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    process.wait(90)
    assert b"Traceback" not in process.stderr.read()
    done = other.lateen("demo", timeout=180)
    assert "Bookinfo is running in the mesh" in done.stderr
