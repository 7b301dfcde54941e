"""Limits of containers by the kernel's control groups: memory, CPU, processes."""

import json
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.system

NAMESPACE = "resources"
GREEDY = "import sys; sys.stdout.write('begun'); sys.stdout.flush(); x = bytearray(200 << 20); print(len(x))"


@pytest.fixture(scope="module")
def pods(mesh):
    nodes = json.loads(mesh.get("nodes", "-o", "json"))["items"]
    (told,) = [c for c in nodes[0]["status"]["conditions"] if c["type"] == "LimitsEnforced"]
    if told["status"] == "False":
        assert told["message"] in mesh.lateen("cluster", "status").stdout
        pytest.skip(told["message"])
    mesh.kubectl("create", "namespace", NAMESPACE)
    mesh.kubectl("label", "namespace", NAMESPACE, "istio-injection=disabled")
    yield Pods(mesh)
    mesh.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


class Pods:
    def __init__(self, mesh):
        self.mesh = mesh

    def make(self, name, command, limits, policy="Always", requests=None, **more):
        resources = {"limits": limits, "requests": requests or {}}
        container = {"name": "main", "image": "lateen/sleep", "command": command, "resources": resources, **more}
        spec = {"containers": [container], "restartPolicy": policy, "terminationGracePeriodSeconds": 0}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}
        self.mesh.apply(yaml.safe_dump(pod))

    def resize(self, name, resources):
        change = json.dumps({"spec": {"containers": [{"name": "main", "resources": resources}]}})
        self.mesh.kubectl("patch", "pod", name, "-n", NAMESPACE, "--subresource=resize", "-p", change)

    def status(self, name):
        found = json.loads(self.mesh.get("pod", name, "-n", NAMESPACE, "-o", "json"))
        return (
            found["status"].get("phase"),
            (found["status"].get("containerStatuses") or [{}])[0],
            found["metadata"]["uid"],
        )

    def run(self, name, script, ok=True):
        return self.mesh.kubectl("exec", name, "-n", NAMESPACE, "--", "sh", "-c", script, ok=ok)

    def groups(self, name):
        """The directories of the running container's groups, as root of the machine sees them."""
        uid = self.status(name)[2]
        bases = (self.mesh.home / "cgroups").read_text().splitlines()
        return [path for base in bases for path in Path(base).glob(f"{uid}_main_*")]

    def read(self, name, *files):
        return "".join(p.joinpath(f).read_text() for p in self.groups(name) for f in files if p.joinpath(f).exists())


def test_a_container_that_uses_too_much_memory_is_killed_and_restarted(pods):
    pods.make("greedy", ["python3", "-c", GREEDY], {"memory": "60Mi"})
    ended = pods.mesh.until(
        lambda: (pods.status("greedy")[1].get("lastState") or {}).get("terminated"), what="the first container's end"
    )
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)
    pods.mesh.until(lambda: pods.status("greedy")[1].get("restartCount", 0) > 0, what="a restart")
    pods.make("once", ["python3", "-c", GREEDY], {"memory": "60Mi"}, "Never")
    pods.mesh.until(lambda: pods.status("once")[0] == "Failed", what="the pod's failure")
    assert pods.status("once")[1]["state"]["terminated"]["reason"] == "OOMKilled"
    pods.make("modest", ["python3", "-c", GREEDY], {"memory": "600Mi"}, "Never")
    pods.mesh.until(lambda: pods.status("modest")[0] == "Succeeded", what="the pod's success")


def test_commands_in_a_container_have_its_limits(pods):
    pods.make("idle", ["sleep", "1000"], {"memory": "60Mi", "cpu": "100m"})
    pods.mesh.kubectl("wait", "pod/idle", "-n", NAMESPACE, "--for=condition=Ready", "--timeout=60s")
    assert "begun" in pods.run("idle", f'python3 -c "{GREEDY}"; echo; echo code $?', ok=False).stdout
    assert str(200 << 20) not in pods.run("idle", f'python3 -c "{GREEDY}"', ok=False).stdout
    pods.run("idle", "timeout 1 sh -c 'while :; do :; done'", ok=False)
    counts = dict(line.split()[:2] for line in pods.read("idle", "cpu.stat").splitlines())
    assert int(counts["nr_throttled"]) > 0
    assert "4096" in pods.read("idle", "pids.max")


def test_a_limit_that_comes_later_holds_for_commands_that_run_already(pods):
    pods.make("later", ["sleep", "1000"], {"memory": "60Mi"})
    pods.mesh.kubectl("wait", "pod/later", "-n", NAMESPACE, "--for=condition=Ready", "--timeout=60s")
    pods.run("later", "sleep 1000 >/dev/null 2>&1 &")
    pods.resize("later", {"limits": {"cpu": "100m"}, "requests": {"cpu": "50m"}})
    quota = ("cpu.max", "cpu.cfs_quota_us")
    pods.mesh.until(lambda: "10000" in pods.read("later", *quota).split(), what="the new limit")
    confined = [p for p in pods.groups("later") if any((p / file).exists() for file in quota)]
    assert [len((p / "cgroup.procs").read_text().split()) for p in confined] == [2]


def test_a_resize_that_restarts_starts_again_and_one_beyond_the_node_waits(pods):
    again = [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]
    script = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    pods.make("again", script, {"memory": "60Mi", "cpu": "1"}, "OnFailure", requests={"cpu": "10m"}, resizePolicy=again)
    pods.mesh.kubectl("wait", "pod/again", "-n", NAMESPACE, "--for=condition=Ready", "--timeout=60s")
    pods.resize("again", {"limits": {"cpu": "900m"}})
    pods.mesh.until(lambda: pods.status("again")[1].get("restartCount") == 1, what="the restart")
    pods.mesh.until(lambda: pods.status("again")[1].get("ready"), what="the second start")
    pods.resize("again", {"limits": {"cpu": "9000"}, "requests": {"cpu": "8000"}})
    pods.mesh.kubectl("wait", "pod/again", "-n", NAMESPACE, "--for=condition=PodResizePending", "--timeout=60s")
    phase, status, _ = pods.status("again")
    assert (phase, status["restartCount"], status["resources"]["limits"]["cpu"]) == ("Running", 1, "900m")


def test_groups_end_with_their_containers(pods):
    pods.make("short", ["sleep", "1000"], {"memory": "60Mi"})
    pods.mesh.kubectl("wait", "pod/short", "-n", NAMESPACE, "--for=condition=Ready", "--timeout=60s")
    found = pods.groups("short")
    assert found
    pods.mesh.kubectl("delete", "pod", "short", "-n", NAMESPACE)
    pods.mesh.until(lambda: not any(p.exists() for p in found), what="the groups' end")
