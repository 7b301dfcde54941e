"""A machine outside of the cluster's namespaces, with a network of its own, joins the mesh by the files that
``lateen x workload entry configure`` writes, as the how-to says: it runs the sidecar, calls and is called."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from world import ROOT, Mesh

pytestmark = [pytest.mark.system, pytest.mark.long]

HOST, MACHINE = "198.51.100.1", "198.51.100.2"
"""Of the host, where the load balancer is, and of the machine (RFC 5737)."""
NEEDED = ("iptables", "setpriv", "unshare", "nsenter", "slirp4netns")
GROUP = """
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: racks, namespace: default}
spec:
  metadata: {labels: {app: rack}}
  template: {network: outside, ports: {http: 8080}, serviceAccount: default}
  probe: {periodSeconds: 1, failureThreshold: 1, httpGet: {port: 8080, path: /}}
---
apiVersion: v1
kind: Service
metadata: {name: rack}
spec: {selector: {app: rack}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""
PREPARED = """
set -e
mount --make-rprivate /
mkdir -p /var/run/secrets /etc/istio /opt
for path in /var/run/secrets /etc/istio /opt; do mount -t tmpfs none $path; done
mkdir /opt/python /opt/src /opt/site /opt/lateen /opt/lateen/bin
mount --bind {python} /opt/python
mount --bind {root}/src /opt/src
mount --bind {site} /opt/site
cp {bin}/pilot-agent /opt/lateen/bin/pilot-agent
ln -s /opt/site/envoy/_bin/envoy /opt/lateen/bin/envoy
cp -r {files} /etc/istio/machine
mount --bind {bin}/hosts /etc/hosts
ip link set lo up
exec sleep infinity
"""
AGENT = """#!/bin/sh
export LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/src:/opt/site PYTHONDONTWRITEBYTECODE=1
exec /opt/python/bin/python{version} -m lateen.agent "$@"
"""
"""As ``pip install lateen`` would make it: what the tests run from may be closed to the sidecar's user."""


class LoadBalancer:
    """Connections to the host's address reach the gateway, which the embedded cluster has on the loopback interface."""

    def __init__(self, ports):
        self._ports, self._loop = ports, asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self):
        with contextlib.ExitStack() as stack:  # it also ends if a port is taken
            self._thread.start()
            stack.callback(self._end)
            for port, at in self._ports.items():
                asyncio.run_coroutine_threadsafe(self._listen(port, at), self._loop).result(10)
            self._ending = stack.pop_all()

    def __exit__(self, *_):
        self._ending.close()

    def _end(self):
        asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _leave(self):
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _listen(self, port, at):
        async def pipe(reader, writer):
            with contextlib.suppress(OSError):
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
            writer.close()

        async def on_connection(reader, writer):
            there, back = await asyncio.open_connection("127.0.0.1", at)
            await asyncio.gather(pipe(reader, back), pipe(there, writer))

        await asyncio.start_server(on_connection, HOST, port)


def child(process):
    """The only child's process id; 0 where there is none."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(found[0]) if found else 0


class Machine:
    """Network, processes and files of its own."""

    def __init__(self, files, tmp):
        tmp.mkdir()
        (tmp / "hosts").write_text("127.0.0.1 localhost\n" + (files / "hosts").read_text())
        agent = tmp / "pilot-agent"
        agent.write_text(AGENT.format(version=f"{sys.version_info.major}.{sys.version_info.minor}"))
        agent.chmod(0o755)
        site = Path(next(p for p in sys.path if p.endswith("site-packages")))
        script = PREPARED.format(python=sys.base_prefix, root=ROOT, site=site, bin=tmp, files=files)
        self._log = (tmp / "log").open("wb")
        self._running = []
        argv = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "sh", "-c", script]
        self._holder = subprocess.Popen(argv, stdout=self._log, stderr=self._log)
        self._tmp = tmp

    def plug_in(self, mesh):
        self._pid = str(mesh.until(lambda: child(self._holder), 10, "the machine"))
        name = f"lm{os.getpid() % 1_000_000}"
        for line in (
            f"ip link add {name} type veth peer name eth0 netns {self._pid}",
            f"ip addr add {HOST}/30 dev {name}",
            f"ip link set {name} up",
        ):
            mesh.run(*line.split())
        for line in (f"ip addr add {MACHINE}/30 dev eth0", "ip link set eth0 up", f"ip route add default via {HOST}"):
            mesh.run(*self.inside(*line.split()))
        mesh.until(lambda: mesh.run(*self.inside("test", "-d", "/etc/istio/machine"), ok=False).returncode == 0, 20)

    def inside(self, *command):
        return ["nsenter", "-t", self._pid, "-n", "-m", "-p", *command]

    def start(self, *command):
        environment = {"PATH": "/opt/lateen/bin:/usr/sbin:/usr/bin:/sbin:/bin"}  # as in lateen-sidecar.service
        argv = self.inside(*command)
        process = subprocess.Popen(argv, stdout=self._log, stderr=self._log, env=environment)
        self._running.append(process)
        return process

    def said(self):
        return (self._tmp / "log").read_text(errors="replace")[-3000:]

    def end(self):
        self._holder.kill()
        for process in (self._holder, *self._running):
            process.wait()


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    if os.geteuid() or not all(map(shutil.which, NEEDED)):
        pytest.skip(f"needs root, and {', '.join(NEEDED)}")
    tmp = tmp_path_factory.mktemp("lateen")
    found = Mesh(tmp / "home", tmp)
    try:
        started = found.lateen("cluster", "start", "--outbound", ok=False)
        if "cannot create namespaces" in started.stderr:
            pytest.skip(started.stderr.strip())
        assert started.returncode == 0, started.stderr
        names = ("values.global.network=inside", "values.global.multiCluster.clusterName=one")
        found.lateen("install", "-y", "--set", "profile=minimal", *(w for n in names for w in ("--set", n)))
        samples = ROOT / "src/lateen/samples/multicluster"
        made = found.run("sh", str(samples / "gen-eastwest-gateway.sh"), "--network", "inside", "--cluster", "one")
        found.lateen("install", "-y", "-f", "-", stdin=made.stdout)
        exposed = [word for name in ("istiod", "services") for word in ("-f", str(samples / f"expose-{name}.yaml"))]
        found.kubectl("apply", "-n", "istio-system", *exposed)
        address = f'{{"spec": {{"externalIPs": ["{HOST}"]}}}}'
        found.kubectl("patch", "service", "istio-eastwestgateway", "-n", "istio-system", "-p", address)
        found.kubectl("label", "namespace", "default", "istio-injection=enabled")
        for name in ("sleep", "httpbin"):
            found.kubectl("apply", "-f", str(ROOT / f"samples/{name}/{name}.yaml"))
        for name in ("sleep", "httpbin"):
            found.kubectl("rollout", "status", f"deployment/{name}", "--timeout=90s")
        found.apply(GROUP)
        yield found
    finally:
        found.lateen("cluster", "delete", ok=False)


@pytest.fixture
def machine(mesh, tmp_path):
    files = tmp_path / "files"
    named = ("x", "workload", "entry", "configure", "--name", "racks", "-n", "default", "-o", str(files))
    mesh.lateen(*named, "--ingressIP", HOST, "--capture-dns")
    path = r"jsonpath={.metadata.annotations.lateen\.dev/host-ports}"
    given = mesh.get("service", "istio-eastwestgateway", "-n", "istio-system", "-o", path)
    ports = {int(port): int(at) for port, _, at in (pair.partition("=") for pair in given.split(","))}
    found = Machine(files, tmp_path / "machine")
    try:
        found.plug_in(mesh)
        with LoadBalancer(ports):
            yield found
    finally:
        found.end()


def test_a_machine_with_a_network_of_its_own_calls_and_is_called_by_mutual_tls(mesh, machine):
    def calls(url, *more):
        user = ("setpriv", "--reuid", "1000", "--clear-groups")
        return mesh.run(*machine.inside(*user, "curl", "-s", "-m", "5", *more, url), ok=False).stdout

    def rack():
        return mesh.inside("sleep", "curl", "-s", "-m", "5", "-w", " %{http_code}", "http://rack/", ok=False).stdout

    sidecar = machine.start("sh", "/etc/istio/machine/sidecar.sh")
    entry = ("workloadentry", "-n", "default")
    mesh.until(lambda: mesh.get(*entry, "-o", "name").strip() == "workloadentry.networking.istio.io/racks-198-51-100-2",
               60, "the entry")  # fmt: skip
    # It is called when its application answers, and by mutual TLS only.
    assert "503" in rack()
    machine.start("setpriv", "--reuid", "1000", "--clear-groups", "/usr/bin/python3", "-m", "http.server", "8080")
    mesh.until(lambda: rack().endswith(" 200"), 60, "an answer of the machine")
    plain = ["curl", "-s", "-m", "5", f"http://{MACHINE}:8080/"]
    assert mesh.run(*plain, ok=False).returncode == 56, machine.said()
    # It calls Services by their names, through the gateway of their network, and they know who calls.
    mesh.until(lambda: calls("http://httpbin:8000/status/201", "-w", "%{http_code}") == "201", 30, "an answer to it")
    assert "spiffe://cluster.local/ns/default/sa/default" in calls("http://httpbin.default:8000/headers")
    # What it has taken, it gives back.
    os.kill(child(sidecar), signal.SIGTERM)
    assert sidecar.wait(timeout=60) == 0, machine.said()
    mesh.until(lambda: not mesh.get(*entry, "-o", "name").strip(), 60, "the end of the entry")
    path = "PATH=/opt/lateen/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    mesh.run(*machine.inside("env", path, "sh", "/etc/istio/machine/sidecar.sh", "stop"))
    rules = mesh.run(*machine.inside("iptables", "-t", "nat", "-S")).stdout
    assert "ISTIO" not in rules
    assert "53" not in rules
