"""kubectl attach, run -it, debug, top and proxy, by the kubectls of this machine (SPDY up to 1.29, then WebSocket)."""

import json
import os
import pty
import select
import sys
import time

import pytest
import yaml
from world import kubectls

pytestmark = pytest.mark.system

NAMESPACE = "attach"
ECHO = 'while read line; do echo "out $line"; echo "err $line" >&2; done; echo end; exit 3'


@pytest.fixture(scope="module")
def space(mesh):
    mesh.kubectl("create", "namespace", NAMESPACE)
    yield Space(mesh)
    mesh.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


class Space:
    def __init__(self, mesh):
        self.mesh = mesh

    def kubectl(self, *argv, **more):
        return self.mesh.kubectl("-n", NAMESPACE, *argv, **more)

    def started(self, name, script, **container):
        main = {"name": "main", "image": "lateen/sleep", "command": ["sh", "-c", script], **container}
        spec = {"containers": [main], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(pod))
        self.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")

    def terminal(self, *argv, binary=None):
        """kubectl with a terminal of its own."""
        pid, fd = pty.fork()
        if pid == 0:
            os.environ.update(self.mesh.environment)
            path = binary or self.mesh.kubectl_path
            os.execvp(path, ["kubectl", "-n", NAMESPACE, *argv])
        return Terminal(pid, fd)


class Terminal:
    def __init__(self, pid, fd):
        self.pid, self.fd, self.out = pid, fd, b""

    def see(self, what):
        deadline = time.monotonic() + 30
        while what not in self.out and time.monotonic() < deadline:
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.out += os.read(self.fd, 4096)
                except OSError:
                    break
        assert what in self.out, self.out

    def type(self, text):
        os.write(self.fd, text)

    def code(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.parametrize("binary", kubectls())
def test_input_and_both_outputs_of_a_container_are_those_of_whoever_attaches(space, binary):
    name = "echo-" + os.path.basename(binary).replace(".", "-")
    space.started(name, ECHO, stdin=True)
    for word in ("one", "two"):  # without stdinOnce the input stays open for the next
        done = space.kubectl("attach", "-i", name, stdin=f"{word}\n", binary=binary)
        assert f"out {word}" in done.stdout
        assert f"err {word}" in done.stderr
        assert "end" not in done.stdout
    assert "out one" in space.kubectl("logs", name).stdout


@pytest.mark.parametrize("binary", kubectls())
def test_a_pod_of_a_command_takes_its_input_and_gives_its_exit_code(space, binary):
    name = "run-" + os.path.basename(binary).replace(".", "-")
    run = ["run", name, "--rm", "-i", "--restart=Never", "--image=lateen/sleep", "--command", "--", "sh", "-c", ECHO]
    done = space.kubectl(*run, stdin="hello\n" * 5000, binary=binary, ok=False)
    assert done.stdout.count("out hello") == 5000
    assert "end" in done.stdout
    assert done.returncode == 3, done.stderr
    assert space.kubectl("get", "pod", name, ok=False).returncode == 1


def test_a_pod_with_a_terminal(space):
    shell = space.terminal(
        "run", "shell", "-it", "--rm", "--restart=Never", "--image=lateen/sleep", "--command", "--", "sh"
    )
    shell.type(b"\n")
    shell.see(b"# ")
    shell.type(b"tty; stty size; exit\n")
    shell.see(b"/dev/pts/")
    shell.see(b'pod "shell" deleted')
    assert shell.code() == 0


def test_a_debugger_sees_the_processes_of_its_target(space):
    space.started("target", "exec sleep 4321")
    debug = ["debug", "target", "-i", "--image=lateen/sleep", "--target=main", "-c", "eye", "--", "sh", "-c"]
    done = space.kubectl(*debug, "read x; tr '\\0' ' ' </proc/1/cmdline; echo; echo $x", stdin="typed\n")
    assert "sleep 4321" in done.stdout
    assert "typed" in done.stdout
    pod = json.loads(space.kubectl("get", "pod", "target", "-o", "json").stdout)
    (eye,) = pod["status"]["ephemeralContainerStatuses"]
    assert eye["name"] == "eye"
    assert pod["status"]["phase"] == "Running"


def test_the_built_in_kubectl_ends_as_its_command_does(space):
    if space.kubectl("get", "pod", "codes", ok=False).returncode:
        space.started("codes", "exec sleep 1000")
    built_in = ["env", "LATEEN_KUBECTL_BUILT_IN=1", sys.executable, "-m", "lateen", "kubectl", "exec", "-n", NAMESPACE]
    for command, code, says in (
        (["sh", "-c", "exit 3"], 3, "command terminated with exit code 3"),
        (["nope"], 127, 'exec: "nope": executable file not found in $PATH'),
        (["true"], 0, ""),
    ):
        done = space.mesh.run(*built_in, "codes", "--", *command, ok=False)
        assert done.returncode == code
        assert says in done.stderr


def test_applications_answer_through_the_api_server(mesh):
    base = "/api/v1/namespaces/default"
    found = json.loads(mesh.kubectl("get", "--raw", f"{base}/services/http:details:9080/proxy/details/0?x=%20").stdout)
    assert found["id"] == 0
    pod = mesh.pod("details")
    assert "Details" in mesh.kubectl("get", "--raw", f"{base}/pods/{pod}:9080/proxy/health").stdout
    for path in (f"pods/{pod}:1/proxy/", "services/details:1/proxy/"):
        assert "(ServiceUnavailable)" in mesh.kubectl("get", "--raw", f"{base}/{path}", ok=False).stderr


@pytest.mark.parametrize("binary", kubectls())
def test_top_shows_what_pods_and_the_node_use(space, binary):
    if space.kubectl("get", "pod", "busy", ok=False).returncode:
        space.started("busy", "while :; do :; done")
    pod = space.kubectl("top", "pod", "busy", "--containers", "--no-headers", binary=binary).stdout.split()
    assert pod[:2] == ["busy", "main"]
    assert int(pod[2].removesuffix("m")) > 50, "a loop without end uses the CPU"
    assert pod[3].endswith("Mi")
    node = space.kubectl("top", "node", "--no-headers", binary=binary).stdout.split()
    assert node[0] == "lateen"
    assert node[2].endswith("%")
