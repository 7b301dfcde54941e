"""Pods in the embedded cluster: their permissions, the order in which they start and stop, their logs and statuses."""

import asyncio
import glob
import json
import os
import pty
import select
import time

import pytest
import yaml

from lateen.kube.kubeconfig import from_file

pytestmark = pytest.mark.system

NAMESPACE = "pods"
INITDB = next(iter(glob.glob("/usr/lib/postgresql/*/bin/initdb")), "")
AS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def pods(mesh):
    mesh.kubectl("create", "namespace", NAMESPACE)
    mesh.kubectl("label", "namespace", NAMESPACE, "istio-injection=disabled")
    yield Pods(mesh)
    mesh.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


class Pods:
    def __init__(self, mesh):
        self.mesh = mesh

    def kubectl(self, *argv, **more):
        return self.mesh.kubectl("-n", NAMESPACE, *argv, **more)

    def make(self, name, *containers, ok=True, **spec):
        spec["containers"] = [{"image": "lateen/sleep"} | c for c in containers] or [shell("main", "exec sleep 1000")]
        spec.setdefault("terminationGracePeriodSeconds", 5)
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        return self.kubectl("apply", "--validate=false", "-f", "-", stdin=yaml.safe_dump(pod), ok=ok)

    def started(self, name, *containers, **spec):
        self.make(name, *containers, **spec)
        self.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")

    def status(self, name):
        return json.loads(self.kubectl("get", "pod", name, "-o", "json").stdout)["status"]

    def run(self, name, command, container="main", ok=True):
        return self.kubectl("exec", name, "-c", container, "--", "sh", "-c", command, ok=ok)

    def events(self, name):
        found = self.kubectl("get", "events", "--field-selector", f"involvedObject.name={name}", "-o", "json").stdout
        return [f"{e['reason']}: {e['message']}" for e in json.loads(found)["items"]]


def shell(name, script, **more):
    return {"name": name, "image": "lateen/sleep", "command": ["sh", "-c", script], **more}


# --- a manifest and the host -----------------------------------------------------------------------------------------


def test_no_manifest_writes_to_the_host(pods, tmp_path):
    out = f"../../../../../../../../../..{tmp_path}"
    volume = {"name": "v", "emptyDir": {}}
    mount = {"name": "v", "mountPath": "/v"}
    token = {"serviceAccountToken": {"path": f"{out}/token"}}
    item = {"path": f"{out}/item", "fieldRef": {"fieldPath": "metadata.name"}}
    tries = {
        "container": {"containers": [{"name": f"{out}/container"}]},
        "volume": {"containers": [shell("main", "sleep 9")], "volumes": [volume | {"name": f"{out}/volume"}]},
        "absolute": {"containers": [shell("main", "sleep 9")], "volumes": [volume | {"name": f"{tmp_path}/volume"}]},
        "sub": {
            "containers": [shell("main", "touch /v/sub; sleep 9", volumeMounts=[mount | {"subPath": out}])],
            "volumes": [volume],
        },
        "token": {
            "containers": [shell("main", "sleep 9", volumeMounts=[mount])],
            "volumes": [{"name": "v", "projected": {"sources": [token]}}],
        },
        "item": {
            "containers": [shell("main", "sleep 9", volumeMounts=[mount])],
            "volumes": [{"name": "v", "downwardAPI": {"items": [item]}}],
        },
        "key": {
            "containers": [shell("main", "sleep 9", volumeMounts=[mount])],
            "volumes": [{"name": "v", "configMap": {"name": "evil"}}],
        },
    }
    evil = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "evil"}, "data": {f"{out}/key": "x"}}
    pods.kubectl("apply", "--validate=false", "-f", "-", stdin=json.dumps(evil), ok=False)
    for name, spec in tries.items():
        made = pods.make(f"evil-{name}", *spec.pop("containers"), ok=False, **spec)
        if made.returncode == 0:
            pods.mesh.until(lambda name=name: pods.events(f"evil-{name}"), what="an event")
    time.sleep(1)
    assert list(tmp_path.iterdir()) == []
    for name in tries:
        if pods.kubectl("get", "pod", f"evil-{name}", ok=False).returncode == 0:
            assert not any(
                c.get("state", {}).get("running") for c in pods.status(f"evil-{name}").get("containerStatuses", [])
            )


def test_a_link_in_a_volume_does_not_lead_out_of_it(pods):
    volume = {"name": "v", "emptyDir": {}}
    whole = {"name": "v", "mountPath": "/v"}
    link = shell("link", "ln -s /etc /v/link; ln -s /etc/hostname /v/file", volumeMounts=[whole])
    for sub in ("link", "file", "link/x"):
        name = f"link-{sub.replace('/', '-')}"
        through = shell("main", "sleep 99", volumeMounts=[{"name": "v", "mountPath": "/w", "subPath": sub}])
        pods.make(name, through, initContainers=[link], volumes=[volume])
        pods.mesh.until(lambda name=name: any("symbolic link" in e for e in pods.events(name)), what="the refusal")


def test_a_volume_can_be_mounted_inside_of_another(pods):
    pods.kubectl("create", "configmap", "outer", "--from-literal=a=1")
    pods.started(
        "nested",
        shell(
            "main",
            "exec sleep 1000",
            volumeMounts=[{"name": "outer", "mountPath": "/v"}, {"name": "inner", "mountPath": "/v/in"}],
        ),
        volumes=[{"name": "outer", "configMap": {"name": "outer"}}, {"name": "inner", "emptyDir": {}}],
    )
    assert pods.run("nested", "cat /v/a; touch /v/in/x; ls /v/in").stdout == "1x\n"
    assert "Read-only" in pods.run("nested", "touch /v/x", ok=False).stderr


# --- privileges ------------------------------------------------------------------------------------------------------


def test_a_container_has_its_own_tmp_processes_and_few_capabilities(pods):
    (pods.mesh.tmp / "on-the-host").write_text("x")
    pods.started("small")
    assert pods.run("small", "ls -A /tmp; ls /proc | grep -c '^[0-9]*$'").stdout.split()[0].isdigit()
    assert int(pods.run("small", "ls /proc | grep -c '^[0-9]'").stdout) < 10
    effective = int(pods.run("small", "grep CapEff /proc/self/status").stdout.split()[1], 16)
    for number in (12, 13, 19, 21, 27):  # NET_ADMIN, NET_RAW, SYS_PTRACE, SYS_ADMIN, MKNOD
        assert not effective >> number & 1
    denied = pods.run("small", "echo x > /proc/sys/kernel/core_pattern; echo b > /proc/sysrq-trigger", ok=False)
    assert denied.returncode != 0


def test_containers_that_share_their_processes_leave_none_behind(pods):
    """A server that a shell has started ends with the shell, or its port would still be taken for the next one."""
    server = "python3 -m http.server 8000 & trap 'exit 3' TERM; while :; do sleep 0.1; done"
    ready = {"httpGet": {"port": 8000}, "periodSeconds": 1}
    memory = {"volumeMounts": [{"name": "memory", "mountPath": "/memory"}]}
    pods.started(
        "shared",
        shell("main", server, readinessProbe=ready),
        shell("side", "exec sleep 1000", **memory),
        shareProcessNamespace=True,
        volumes=[{"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
    )

    def seen(command):
        return pods.run("shared", command, "side").stdout.split()

    def called(command):
        """Numbers of the processes whose command begins like this."""
        shown = 'tr "\\0" " " < $p/cmdline 2>/dev/null'
        return seen(f'for p in /proc/[0-9]*; do {shown} | grep -q "^{command}" && echo ${{p#/proc/}}; done; true')

    def main():
        return next(c for c in pods.status("shared")["containerStatuses"] if c["name"] == "main")

    assert seen("cat /proc/1/comm; stat -f -c %T /memory") == ["pause", "tmpfs"]
    assert pods.run("shared", "head -c1 /proc/1/environ", "side", ok=False).returncode  # a copy of the runtime
    (before,), (first,) = called("python3 -m http.server"), called("sh -c python3")
    seen(f"kill {first}")
    pods.mesh.until(lambda: main()["restartCount"] == 1 and main()["ready"], 30, "a restart")
    assert main()["lastState"]["terminated"]["exitCode"] == 3
    (after,) = called("python3 -m http.server")
    assert after != before


def test_capabilities_users_and_read_only_roots_are_as_asked(pods):
    volume = {"name": "v", "emptyDir": {}}
    pods.started(
        "asked",
        shell(
            "main",
            "exec sleep 1000",
            volumeMounts=[{"name": "v", "mountPath": "/v"}],
            securityContext={"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False},
        ),
        shell("net", "exec sleep 1000", securityContext={"runAsUser": 0, "capabilities": {"add": ["NET_RAW"]}}),
        shell("bare", "exec sleep 1000", securityContext={"runAsUser": 0, "capabilities": {"drop": ["ALL"]}}),
        securityContext={"runAsUser": 4321, "runAsGroup": 1234, "fsGroup": 77, "runAsNonRoot": False},
        volumes=[volume],
    )
    assert pods.run("asked", "id -u; id -g").stdout.split() == ["4321", "1234"]
    assert pods.run("asked", "touch /v/x && echo yes").stdout == "yes\n"
    if AS_ROOT:
        assert pods.run("asked", "stat -c %g /v/x").stdout == "77\n"
    assert "Read-only" in pods.run("asked", "touch /tmp/x", ok=False).stderr
    assert pods.run("asked", "grep NoNewPrivs /proc/self/status").stdout.split() == ["NoNewPrivs:", "1"]
    capabilities = {
        c: int(pods.run("asked", "grep CapEff /proc/self/status", c).stdout.split()[1], 16)
        for c in ("main", "net", "bare")
    }
    assert capabilities["main"] == capabilities["bare"] == 0
    assert capabilities["net"] >> 13 & 1


@pytest.mark.skipif(not INITDB, reason="PostgreSQL is not installed")
def test_initdb_runs_as_an_ordinary_user(pods):
    volume = {"name": "v", "emptyDir": {}}
    mount = {"name": "v", "mountPath": "/data"}
    pods.started(
        "pg",
        shell("main", "exec sleep 1000", volumeMounts=[mount]),
        volumes=[volume],
        securityContext={"runAsUser": 999},
    )
    assert "Success" in pods.run("pg", f"{INITDB} -D /data/pg --no-sync").stdout


def test_a_container_that_must_not_be_root_is_not_started_as_root(pods):
    pods.make("nonroot", securityContext={"runAsNonRoot": True})
    pods.mesh.until(lambda: any("image will run as root" in e for e in pods.events("nonroot")))
    assert pods.status("nonroot")["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerConfigError"


# --- order, ends, restarts -------------------------------------------------------------------------------------------


def test_sidecars_start_first_and_end_last_and_the_pod_completes(pods):
    volume = {"name": "v", "emptyDir": {}}
    mounts = [{"name": "v", "mountPath": "/v"}]
    trap = "trap 'exit 0' TERM; sleep 1; touch /v/{0}; echo {0} >> /v/log; while :; do sleep 0.1; done"
    sidecars = [
        shell(
            n,
            trap.format(n),
            restartPolicy="Always",
            volumeMounts=mounts,
            startupProbe={"exec": {"command": ["test", "-e", f"/v/{n}"]}, "periodSeconds": 1, "failureThreshold": 30},
        )
        for n in ("one", "two")
    ]
    last = shell("init", "echo init >> /v/log", volumeMounts=mounts)
    reader = shell("main", "echo main >> /v/log; cat /v/log > /dev/termination-log", volumeMounts=mounts)
    pods.make("job", reader, initContainers=[*sidecars, last], volumes=[volume], restartPolicy="Never")
    pods.kubectl("wait", "pod/job", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    status = pods.status("job")
    message = status["containerStatuses"][0]["state"]["terminated"]["message"]
    assert message.split() == ["one", "two", "init", "main"]
    ended = {s["name"]: s["state"]["terminated"] for s in status["initContainerStatuses"]}
    assert [ended[n]["exitCode"] for n in ("one", "two", "init")] == [0, 0, 0]
    assert ended["two"]["finishedAt"] <= ended["one"]["finishedAt"]
    ready = next(c for c in status["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "PodCompleted")


def test_a_failed_pod_says_so_with_its_last_words(pods):
    failing = shell("main", "echo some; echo last words; exit 3", terminationMessagePolicy="FallbackToLogsOnError")
    pods.make("failed", failing, restartPolicy="Never")
    pods.kubectl("wait", "pod/failed", "--for=jsonpath={.status.phase}=Failed", "--timeout=60s")
    ended = pods.status("failed")["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "some\nlast words\n")


def test_logs_of_a_crash_loop_are_those_of_its_last_end(pods):
    pods.make("loop", shell("main", "date +%N; exit 1"))

    def looping():
        state = pods.status("loop").get("containerStatuses", [{}])[0]
        return dig(state, "state", "waiting", "reason") == "CrashLoopBackOff" and state["restartCount"] == 1

    pods.mesh.until(looping, what="the crash loop")
    now, before = pods.kubectl("logs", "loop").stdout, pods.kubectl("logs", "loop", "--previous").stdout
    assert now == before != ""


def test_a_command_that_does_not_exist_is_named(pods):
    pods.make("nosuch", {"name": "main", "command": ["nosuchcommand"]})
    text = 'exec: "nosuchcommand": executable file not found in $PATH'
    pods.mesh.until(lambda: any(text in e for e in pods.events("nosuch")))

    def ended():
        state = pods.status("nosuch")["containerStatuses"][0]
        return dig(state, "state", "terminated") or dig(state, "lastState", "terminated")

    found = pods.mesh.until(ended, what="its end")
    assert (found["exitCode"], found["reason"]) == (128, "StartError")
    assert text in found["message"]


def test_a_deadline_ends_the_pod(pods):
    pods.make("late", activeDeadlineSeconds=1)
    pods.kubectl("wait", "pod/late", "--for=jsonpath={.status.reason}=DeadlineExceeded", "--timeout=60s")
    assert pods.status("late")["phase"] == "Failed"


def test_a_pod_that_runs_may_get_a_deadline(pods):
    pods.started("later")
    pods.kubectl("patch", "pod", "later", "-p", '{"spec": {"activeDeadlineSeconds": 1}}')
    pods.kubectl("wait", "pod/later", "--for=jsonpath={.status.reason}=DeadlineExceeded", "--timeout=30s")


def test_the_quality_of_service_is_burstable_where_requests_are_set(pods):
    pods.make("burst", shell("main", "exec sleep 99", resources={"requests": {"cpu": "1m"}}))
    pods.make("best")
    pods.mesh.until(lambda: pods.status("burst").get("qosClass") == "Burstable")
    pods.mesh.until(lambda: pods.status("best").get("qosClass") == "BestEffort")


def test_dns_and_hostname_are_as_the_pod_asks(pods):
    config = {"nameservers": ["192.0.2.1"], "searches": ["example.com"], "options": [{"name": "ndots", "value": "2"}]}
    pods.started("named", hostname="other", dnsPolicy="None", dnsConfig=config)
    assert pods.run("named", "hostname").stdout == "other\n"
    lines = pods.run("named", "cat /etc/resolv.conf").stdout.splitlines()
    assert lines == ["search example.com", "nameserver 192.0.2.1", "options ndots:2"]


# --- probes ----------------------------------------------------------------------------------------------------------


def test_grpc_probes_ask_the_health_service(pods):
    probe = {"grpc": {"port": 7070}, "periodSeconds": 1}
    pods.started("grpc", {"name": "main", "image": "lateen/grpc-echo", "readinessProbe": probe})


def test_http_probes_know_named_ports_and_headers(pods):
    probe = {
        "httpGet": {"path": "/status/200", "port": "web", "httpHeaders": [{"name": "Host", "value": "a.example.com"}]},
        "periodSeconds": 1,
    }
    httpbin = {"name": "main", "image": "mccutchen/go-httpbin", "ports": [{"name": "web", "containerPort": 8080}]}
    pods.started("probed", httpbin | {"readinessProbe": probe})
    probe = {"httpGet": {"path": "/status/503", "port": 8080}, "periodSeconds": 1}
    pods.make("unready", httpbin | {"readinessProbe": probe})
    wanted = "Unhealthy: Readiness probe failed: HTTP probe failed with statuscode: 503"
    pods.mesh.until(lambda: wanted in pods.events("unready"))


# --- streams ---------------------------------------------------------------------------------------------------------


def test_exec_gives_the_exit_codes_of_a_shell(pods):
    pods.started("codes")
    for command, code, says in (
        (["nosuch"], 127, 'exec: "nosuch": executable file not found in $PATH'),
        (["/etc/passwd"], 126, "permission denied"),
        (["sh", "-c", "exit 6"], 6, "exit code 6"),
    ):
        done = pods.kubectl("exec", "codes", "--", *command, ok=False)
        assert done.returncode == code
        assert says in done.stderr


def test_a_terminal_is_one(pods):
    pods.started("terminal")
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(pods.mesh.environment)
        os.execvp(pods.mesh.kubectl_path, ["kubectl", "exec", "-it", "-n", NAMESPACE, "terminal", "--", "sh"])
    out = b""

    def see(what):
        nonlocal out
        until = time.monotonic() + 30
        while what not in out and time.monotonic() < until:
            if select.select([fd], [], [], 0.2)[0]:
                try:
                    out += os.read(fd, 4096)
                except OSError:
                    break
        assert what in out, out

    see(b"# ")
    os.write(fd, b"tty; exit 6\n")
    see(b"/dev/pts/")
    see(b"exit code 6")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 6
    assert b"rror" not in out


def over_websocket(mesh, path, protocol, talk):
    """Speak on a WebSocket of the API, as the Python client does."""

    async def main():
        async with from_file(mesh.home / "kubeconfig") as client:
            url = f"{client.base}/api/v1/namespaces/{NAMESPACE}/pods/{path}"
            async with client.session().ws_connect(url, protocols=(protocol,)) as ws:
                assert ws.protocol == protocol
                return await asyncio.wait_for(talk(ws), 30)

    return asyncio.run(main())


def test_text_frames_are_a_commands_input(pods):
    pods.started("text")

    async def talk(ws):
        await ws.send_str("\0echo hi$((1+1))\n")
        while (found := await ws.receive_bytes()) != b"\x01hi2\n":
            assert found[1:] == b""
        await ws.send_str("\0exit 4\n")
        return [m.data async for m in ws if m.data[:1] == b"\x03"]

    query = "command=sh&stdin=true&stdout=true&stderr=true"
    (status,) = over_websocket(pods.mesh, f"text/exec?{query}", "v4.channel.k8s.io", talk)
    assert json.loads(status[1:])["details"]["causes"] == [{"reason": "ExitCode", "message": "4"}]


def test_ports_are_forwarded_over_websocket_channels(pods):
    pods.started("ports", {"name": "main", "image": "mccutchen/go-httpbin", "ports": [{"containerPort": 8080}]})
    pods.mesh.until(lambda: pods.run("ports", "curl -s localhost:8080/status/200", ok=False).returncode == 0)

    async def talk(ws):
        begun = [await ws.receive_bytes() for _ in range(4)]
        assert begun == [bytes([i]) + port.to_bytes(2, "little") for i, port in ((0, 8080), (1, 8080), (2, 1), (3, 1))]
        await ws.send_str("\0GET /status/204 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        found = {0: b"", 3: b""}
        async for message in ws:
            found[message.data[0]] += message.data[1:]
        return found

    found = over_websocket(pods.mesh, "ports/portforward?ports=8080&ports=1", "v4.channel.k8s.io", talk)
    assert found[0].startswith(b"HTTP/1.1 204")
    assert b"error forwarding port 1" in found[3]


def test_a_node_port_answers_at_the_nodes_address(pods):
    httpbin = {"name": "main", "image": "mccutchen/go-httpbin", "ports": [{"containerPort": 8080}]}
    pods.started("web", httpbin)
    pods.kubectl("expose", "pod", "web", "--type=NodePort", "--port=80", "--target-port=8080", "--selector=run=web")
    pods.kubectl("label", "pod", "web", "run=web")
    pods.started("client")
    port = pods.kubectl("get", "svc", "web", "-o", "jsonpath={.spec.ports[0].nodePort}").stdout
    node = pods.kubectl("get", "node", "lateen", "-o", "jsonpath={.status.addresses[0].address}").stdout
    ask = f"curl -s -m 5 -o /dev/null -w '%{{http_code}}' http://{node}:{port}/status/200"
    pods.mesh.until(lambda: pods.run("client", ask, ok=False).stdout == "200")


def dig(found, *path):
    for key in path:
        found = (found or {}).get(key)
    return found


def test_a_second_delete_may_shorten_the_grace_of_the_first(pods):
    pods.started(
        "stubborn", shell("main", "trap '' TERM; while :; do sleep 1; done"), terminationGracePeriodSeconds=300
    )
    pods.kubectl("delete", "pod", "stubborn", "--wait=false")
    pods.kubectl("delete", "pod", "stubborn", "--grace-period=1", "--timeout=60s", timeout=90)
