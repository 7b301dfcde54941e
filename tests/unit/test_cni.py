"""The CNI plugin: what runtimes and plugins say to each other, which pods are redirected, the chain of a node."""

import asyncio
import json
import os
import re
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from aiohttp import web
from apiserver import Cluster
from test_controllers import until

from lateen.api import kinds
from lateen.cluster.apiserver.direct import DirectClient
from lateen.cni import chain, daemon, plugin, protocol, redirection
from lateen.cni.protocol import Refused
from lateen.install import manifests
from lateen.install.operator import resolve
from lateen.kit import tasks
from lateen.kube.auth import Fixed
from lateen.kube.client import HttpClient, KubeError
from lateen.wire import cni

CONFIG = {"cniVersion": "1.0.0", "name": "net", "type": "istio-cni"}
ARGS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_UID=u"


def read(command, netns="/run/netns/x", **config):
    env = {"CNI_COMMAND": command, "CNI_ARGS": ARGS} | ({"CNI_NETNS": netns} if netns else {})
    return protocol.read(env, json.dumps(CONFIG | config).encode())


def test_a_request_names_the_pod_and_the_result_of_the_plugin_before():
    found = read("ADD", prevResult={"ips": []})
    assert (found.namespace, found.pod, found.uid, found.netns) == ("shop", "web-1", "u", "/run/netns/x")
    assert found.previous == {"ips": []}
    assert read("DEL", netns="").command == "DEL"  # the namespace may be gone
    assert read("DEL", kubernetes=1).command == "DEL"  # otherwise the pod would stay for ever
    assert read("STATUS", netns="").command == "STATUS"
    assert read("GC", netns="", kubernetes=1, **{"cni.dev/valid-attachments": []}).command == "GC"


@pytest.mark.parametrize(
    ("work", "code"),
    [
        (lambda: read("MEND"), protocol.INVALID_ENVIRONMENT),
        (lambda: read("ADD", netns="", prevResult={}), protocol.INVALID_ENVIRONMENT),
        (lambda: read("ADD"), protocol.INVALID_CONFIG),
        (lambda: read("ADD", cniVersion="0.2.0", prevResult={}), protocol.INCOMPATIBLE),
        (lambda: protocol.read({"CNI_COMMAND": "ADD"}, b"{"), protocol.INVALID_CONFIG),
        (lambda: protocol.read({"CNI_COMMAND": "ADD"}, b"[]"), protocol.INVALID_CONFIG),
        (lambda: read("ADD", prevResult={}, kubernetes=1), protocol.INVALID_CONFIG),
        (lambda: read("ADD", prevResult={}, kubernetes={"kubeconfig": 1}), protocol.INVALID_CONFIG),
        (lambda: read("ADD", prevResult={}, kubernetes={"kubeconfig": "/a\0b"}), protocol.INVALID_CONFIG),
        (lambda: read("ADD", prevResult={}, kubernetes={"excludeNamespaces": "kube-system"}), protocol.INVALID_CONFIG),
        (lambda: read("STATUS", kubernetes={"excludeNamespaces": [1]}), protocol.INVALID_CONFIG),
    ],
)
def test_what_a_plugin_cannot_take_has_the_specifications_code(work, code):
    with pytest.raises(Refused) as found:
        work()
    assert found.value.code == code
    assert protocol.error(found.value, "1.0.0")["msg"]


def pod(annotations=(), containers=({"name": "app"}, {"name": "istio-proxy"}), init=(), **spec):
    given = {"sidecar.istio.io/status": "{}"} | dict(annotations)
    return {"metadata": {"annotations": given}, "spec": {"containers": containers, "initContainers": init, **spec}}


def test_pods_with_a_sidecar_are_redirected_unless_somebody_else_does_it():
    assert redirection.passed_over(pod()) == ""
    assert redirection.passed_over(pod(containers=[{"name": "app"}], init=[{"name": "istio-proxy"}])) == ""
    for one in (
        pod(containers=[{"name": "app"}]),
        pod(init=[{"name": "istio-init"}]),
        pod(hostNetwork=True),
        pod({"sidecar.istio.io/inject": "false"}),
        pod({"sidecar.istio.io/interceptionMode": "NONE"}),
        {"metadata": {}, "spec": {"containers": [{"name": "istio-proxy"}]}},
    ):
        assert redirection.passed_over(one)


def test_the_rules_are_those_of_the_annotations():
    traffic = "traffic.sidecar.istio.io/"
    annotations = {
        f"{traffic}excludeInboundPorts": "22",
        f"{traffic}includeOutboundIPRanges": "10.0.0.0/8",
        f"{traffic}excludeOutboundPorts": "3306",
        "sidecar.istio.io/interceptionMode": "TPROXY",
    }
    env = [{"name": "ISTIO_META_DNS_CAPTURE", "value": "true"}]
    proxy = {"name": "istio-proxy", "env": env, "securityContext": {"runAsUser": 1400}}
    found = redirection.of(pod(annotations, containers=[proxy]), mark=7)
    assert found.exclude_ports == "22,15090,15021,15020"  # the proxy's own ports, too
    assert (found.include_ranges, found.exclude_outbound_ports) == ("10.0.0.0/8", "3306")
    assert (found.tproxy, found.uid, found.mark, bool(found.dns)) == (True, 1400, 7, True)
    with pytest.raises(redirection.Invalid, match="MAGIC"):
        redirection.of(pod({"sidecar.istio.io/interceptionMode": "MAGIC"}))


PLUGIN = {"type": "istio-cni", "name": "istio-cni"}


def test_the_plugin_comes_last_in_the_chain_of_the_first_file():
    assert cni.chosen(["99-loopback.conf", "10-x.conflist", "10-x.txt"]) == "10-x.conflist"
    name, text = chain.with_plugin("10-x.conf", b'{"cniVersion": "0.4.0", "name": "n", "type": "bridge"}', PLUGIN)
    assert name == "10-x.conflist"
    made = json.loads(text)
    assert (made["cniVersion"], made["name"]) == ("0.4.0", "n")
    assert [p["type"] for p in made["plugins"]] == ["bridge", "istio-cni"]
    assert chain.has_plugin(name, text, PLUGIN)
    assert not chain.has_plugin(name, text, PLUGIN | {"kubernetes": {}})
    assert [p["type"] for p in json.loads(chain.without_plugin(name, text))["plugins"]] == ["bridge"]
    with pytest.raises(ValueError, match="not JSON"):
        chain.with_plugin("10-x.conflist", b"{", PLUGIN)


def test_the_daemon_installs_follows_changes_and_takes_all_away(tmp_path):
    conf, programs = tmp_path / "net.d", tmp_path / "bin"
    conf.mkdir()
    programs.mkdir()
    node = daemon.Node(conf, programs, "/etc/cni/net.d", "n", ("kube-system",), True)
    given = daemon.credentials(b"token", b"ca", "https://10.96.0.1:443")
    assert "no network configuration" in daemon.install(node, given)
    base = {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}
    path = conf / "10-net.conflist"
    for _ in range(2):  # the network's own daemon writes its file again
        path.write_text(json.dumps(base))
        assert daemon.install(node, given) == ""
        kinds = [p["type"] for p in json.loads(path.read_text())["plugins"]]
        assert kinds == ["bridge", "istio-cni"]
    assert (conf / daemon.KUBECONFIG).stat().st_mode & 0o777 == 0o600
    assert (programs / "istio-cni").stat().st_mode & 0o111
    daemon.remove(node)
    assert json.loads(path.read_text()) == base
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["10-net.conflist"]


def called(tmp_path, text, **env):
    """The program as a runtime calls it, on a node whose nsenter only says how it has been called."""
    nsenter = tmp_path / "nsenter"
    nsenter.write_text('#!/bin/sh\nreadlink /proc/self/fd/8\necho "$@"\n')
    nsenter.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    return subprocess.run(["/bin/sh", "-c", text], env=path | env, capture_output=True, text=True, check=False)


def test_the_program_enters_the_mount_namespace_of_the_daemon_that_wrote_it(tmp_path):
    done = called(tmp_path, daemon.program(os.getpid(), tmp_path), CNI_COMMAND="ADD")
    namespace, arguments = done.stdout.splitlines()
    assert done.returncode == 0
    assert namespace == os.readlink("/proc/self/ns/mnt")
    assert arguments.startswith("--mount=/proc/self/fd/8 -- ")


def of_another_start(text):
    return re.sub(r'("\$\{20\}" =) \d+', r"\1 1", text)


def of_another_namespace(text):
    return re.sub(r"mnt:\[\d+\]", "mnt:[1]", text)


@pytest.mark.parametrize("other", [of_another_start, of_another_namespace])
def test_the_program_runs_nothing_of_a_process_that_has_the_daemons_pid_later(tmp_path, other):
    text = daemon.program(os.getpid(), tmp_path)
    assert other(text) != text
    done = called(tmp_path, other(text), CNI_COMMAND="ADD")
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == protocol.NOT_AVAILABLE


def test_the_program_fails_with_a_cni_error_once_the_daemon_has_ended(tmp_path):
    with subprocess.Popen(["sleep", "100"]) as process:
        text = daemon.program(process.pid, tmp_path)
        process.kill()
    done = called(tmp_path, text, CNI_COMMAND="ADD")
    assert done.returncode == 1
    assert "has ended" in json.loads(done.stdout)["msg"]


@pytest.mark.parametrize("command", ["DEL", "GC"])
def test_cleaning_up_succeeds_where_the_pods_network_and_the_daemon_are_gone(tmp_path, command):
    text = of_another_start(daemon.program(os.getpid(), tmp_path))
    done = called(tmp_path, text, CNI_COMMAND=command, CNI_NETNS=str(tmp_path / "gone"))
    assert (done.returncode, done.stdout) == (0, "")


def test_a_runtime_that_cleans_up_gets_no_error():
    """CRI-O and containerd with a configuration of CNI 1.1"""
    assert asyncio.run(plugin.carry_out(read("GC", netns="", **{"cni.dev/valid-attachments": []}))) is None


def test_a_pod_without_a_network_is_a_cni_error(tmp_path):
    text = daemon.program(os.getpid(), tmp_path)
    done = called(tmp_path, text, CNI_COMMAND="ADD", CNI_NETNS=str(tmp_path / "gone"))
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["code"], found["msg"]) == (4, "the pod's network namespace (CNI_NETNS) cannot be opened")


def test_an_installation_that_is_under_way_leaves_nothing_behind_when_the_daemon_ends(tmp_path):
    conf, programs = tmp_path / "net.d", tmp_path / "bin"
    conf.mkdir()
    programs.mkdir()
    base = {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}
    (conf / "10-net.conflist").write_text(json.dumps(base))
    os.mkfifo(conf / daemon.KUBECONFIG)  # the installing thread waits while it reads this
    found = daemon.Installation(daemon.Node(conf, programs, "/etc/cni/net.d", "n", (), True))
    installing = threading.Thread(target=found.install, args=("new",))
    removing = threading.Thread(target=found.remove)
    installing.start()
    with (conf / daemon.KUBECONFIG).open("w") as pipe:  # returns when the thread has opened it
        removing.start()
        removing.join(0.2)
        pipe.write("old")
    installing.join()
    removing.join()
    assert found.install("new")
    assert [p.name for p in tmp_path.rglob("*") if not p.is_dir()] == ["10-net.conflist"]
    assert json.loads((conf / "10-net.conflist").read_text()) == base


def test_a_pod_whose_check_has_failed_is_broken():
    def status(**state):
        return {"status": {"initContainerStatuses": [{"name": "istio-validation", **state}]}}

    assert daemon.is_broken(status(state={"terminated": {"exitCode": 1}}))
    assert daemon.is_broken(status(state={"waiting": {}}, lastState={"terminated": {"exitCode": 126}}))
    assert not daemon.is_broken(status(state={"terminated": {"exitCode": 0}}))
    assert not daemon.is_broken({})


def test_the_repair_deletes_the_pod_that_is_broken_and_not_its_successor_of_the_same_name():
    cluster = Cluster()
    client = DirectClient(cluster.api, "repair")

    async def story():
        owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "owner"}
        meta = {"name": "web-0", "namespace": "default", "ownerReferences": [owner]}
        spec = {"containers": [{"name": "app", "image": "i"}]}
        key, made = ("default", "web-0"), {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
        broken = await client.create(kinds.POD, made)
        await client.delete(kinds.POD, *key, grace=0)
        successor = await client.create(kinds.POD, made)
        await daemon.replace(client, key, broken)
        left = await client.get(kinds.POD, *key)
        await daemon.replace(client, key, successor)
        return left["metadata"]["uid"] == successor["metadata"]["uid"], await client.get(kinds.POD, *key)

    assert asyncio.run(story()) == (True, None)


class Flaky(DirectClient):
    """An API that cannot delete at first."""

    failures = 2

    async def delete(self, *given, **more):
        if self.failures:
            self.failures -= 1
            raise KubeError(500, "InternalError", "etcd has no leader")
        return await super().delete(*given, **more)


def test_a_pod_that_was_broken_before_the_plugin_was_there_is_repaired_then():
    """One of a Job, which has failed for good and is not changed any more."""
    cluster = Cluster()
    client = Flaky(cluster.api, "repair")
    node = daemon.Node(Path("/x"), Path("/y"), "/etc/cni/net.d", "n", (), True)

    async def story():
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "job", "uid": "owner"}
        meta = {"name": "job-1", "namespace": "default", "ownerReferences": [owner]}
        spec = {"nodeName": "n", "containers": [{"name": "app", "image": "i"}]}
        await client.create(kinds.POD, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        ended = {
            "ready": False,
            "restartCount": 0,
            "image": "i",
            "imageID": "",
            "state": {"terminated": {"exitCode": 126}},
        }
        status = {"status": {"phase": "Failed", "initContainerStatuses": [{"name": "istio-validation", **ended}]}}
        await client.patch(kinds.POD, "default", "job-1", status, "status")
        found = daemon.Daemon(node, client)
        watching = tasks.spawn(found._pods.run(), "repair")
        await found._pods.synced.wait()
        found.installed("there is no network configuration in /etc/cni/net.d yet")
        await asyncio.sleep(0.02)
        untouched = client.failures

        async def is_going():
            found.installed("")  # every two seconds
            left = await client.get(kinds.POD, "default", "job-1")
            return left is None or "deletionTimestamp" in left["metadata"]

        await until(is_going)
        await tasks.cancel(watching)
        return untouched, client.failures

    assert asyncio.run(story()) == (2, 0)


def test_preconditions_of_a_deletion_are_sent_to_the_api_server():
    sent = []

    async def pod(request):
        sent.append(await request.json())
        return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    async def story():
        app = web.Application()
        app.router.add_delete("/api/v1/namespaces/shop/pods/web-0", pod)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with HttpClient(address, ssl.create_default_context(), Fixed("t")) as client:
            await client.delete(kinds.POD, "shop", "web-0", uid="u", version="7")
            await client.delete(kinds.POD, "shop", "web-0")
        await runner.cleanup()

    asyncio.run(story())
    assert [s.get("preconditions") for s in sent] == [{"resourceVersion": "7", "uid": "u"}, None]


def test_the_installation_has_a_daemon_and_pods_are_injected_for_it():
    found = resolve("minimal", [], ["components.cni.enabled=true", "values.cni.cniConfDir=/etc/other"])
    assert found.warnings == []
    assert found.spec["values"]["pilot"]["cni"]["enabled"] is True
    made = {o["kind"]: o for part in manifests.render(found) if part.title == "CNI" for o in part.objects}
    volumes = {v["name"]: v["hostPath"]["path"] for v in made["DaemonSet"]["spec"]["template"]["spec"]["volumes"]}
    assert volumes == {"cni-bin-dir": "/opt/cni/bin", "cni-net-dir": "/etc/other"}
    everything = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "delete"]}
    assert made["ClusterRole"]["rules"] == [everything]
    off = resolve("minimal", [], ["components.cni.enabled=true", "values.cni.repair.enabled=false"])
    role = next(
        o
        for p in manifests.render(off)
        for o in p.objects
        if o["kind"] == "ClusterRole" and "cni" in o["metadata"]["name"]
    )
    assert "delete" not in role["rules"][0]["verbs"]
    assert not any(p.title == "CNI" for p in manifests.render(resolve("demo", [], [])))
