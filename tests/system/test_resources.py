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

    def make(self, name, command, limits, policy="Always"):
        container = {"name": "main", "image": "lateen/sleep", "command": command, "resources": {"limits": limits}}
        spec = {"containers": [container], "restartPolicy": policy, "terminationGracePeriodSeconds": 0}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}
        self.mesh.apply(yaml.safe_dump(pod))

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
    limits = {
        "spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": "100m"}, "requests": {"cpu": "50m"}}}]}
    }
    pods.mesh.kubectl(
        "patch", "pod", "later", "-n", NAMESPACE, "--subresource=resize", "-p", json.dumps(limits), "--type=strategic"
    )
    quota = ("cpu.max", "cpu.cfs_quota_us")
    pods.mesh.until(lambda: "10000" in pods.read("later", *quota).split(), what="the new limit")
    confined = [p for p in pods.groups("later") if any((p / file).exists() for file in quota)]
    assert [len((p / "cgroup.procs").read_text().split()) for p in confined] == [2]


def test_groups_end_with_their_containers(pods):
    pods.make("short", ["sleep", "1000"], {"memory": "60Mi"})
    pods.mesh.kubectl("wait", "pod/short", "-n", NAMESPACE, "--for=condition=Ready", "--timeout=60s")
    found = pods.groups("short")
    assert found
    pods.mesh.kubectl("delete", "pod", "short", "-n", NAMESPACE)
    pods.mesh.until(lambda: not any(p.exists() for p in found), what="the groups' end")
