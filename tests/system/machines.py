"""Machines outside of the cluster's namespaces, each with a network of its own, and a mesh that they can join."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from world import ROOT, Mesh

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
        self._ports, self._loop, self._servers = ports, asyncio.new_event_loop(), []
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
        for server in self._servers:
            server.close()
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

        self._servers.append(await asyncio.start_server(on_connection, HOST, port))


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
        self.tmp = tmp

    def plug_in(self, mesh):
        self.pid = str(mesh.until(lambda: child(self._holder), 10, "the machine"))
        self.link = name = f"lm{os.getpid() % 1_000_000}"
        for line in (
            f"ip link add {name} type veth peer name eth0 netns {self.pid}",
            f"ip addr add {HOST}/30 dev {name}",
            f"ip link set {name} up",
        ):
            mesh.run(*line.split())
        for line in (f"ip addr add {MACHINE}/30 dev eth0", "ip link set eth0 up", f"ip route add default via {HOST}"):
            mesh.run(*self.inside(*line.split()))
        mesh.until(lambda: mesh.run(*self.inside("test", "-d", "/etc/istio/machine"), ok=False).returncode == 0, 20)

    def inside(self, *command):
        return ["nsenter", "-t", self.pid, "-n", "-m", "-p", *command]

    def start(self, *command):
        environment = {"PATH": "/opt/lateen/bin:/usr/sbin:/usr/bin:/sbin:/bin"}  # as in lateen-sidecar.service
        argv = self.inside(*command)
        process = subprocess.Popen(argv, stdout=self._log, stderr=self._log, env=environment)
        self._running.append(process)
        return process

    def said(self):
        return (self.tmp / "log").read_text(errors="replace")[-3000:]

    def end(self):
        self._holder.kill()
        for process in (self._holder, *self._running):
            process.wait()


@contextlib.contextmanager
def joinable(tmp_path_factory):
    """A mesh whose east-west gateway is at HOST, for the group ``racks``."""
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


def configured(mesh, files):
    """Write what ``x workload entry configure`` writes."""
    named = ("x", "workload", "entry", "configure", "--name", "racks", "-n", "default", "-o", str(files))
    mesh.lateen(*named, "--ingressIP", HOST, "--capture-dns")
    return files


@contextlib.contextmanager
def plugged(mesh, tmp_path):
    """A machine whose network reaches the mesh."""
    files = configured(mesh, tmp_path / "files")
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


UNIT = "lateen-sidecar"
MASKED = ("systemd-networkd.service", "systemd-networkd.socket", "systemd-networkd-wait-online.service")
"""The network is there already."""
BOOT = (
    "systemd-nspawn",
    "-q",
    "-D",
    "/",
    "--volatile=yes",
    "--resolv-conf=copy-host",
    "--register=no",
    "--keep-unit",
    "--console=pipe",
    "--capability=CAP_NET_ADMIN",
)


class Booted:
    """A real systemd with this computer's programs, in the network of ``machine``. At each start its /etc is empty, but
    for /etc/istio, which is the directory ``kept``."""

    NEEDED = ("systemd-nspawn", "systemctl", "journalctl", "systemd-analyze")

    def __init__(self, machine, kept, tmp):
        site = next(p for p in sys.path if p.endswith("site-packages"))
        bound = {
            sys.base_prefix: "/opt/python",
            ROOT / "src": "/opt/src",
            site: "/opt/site",
            Path(site) / "envoy/_bin/envoy": "/opt/lateen/bin/envoy",
            machine.tmp / "pilot-agent": "/opt/lateen/bin/pilot-agent",
            machine.tmp / "hosts": "/etc/hosts",
            "/etc/alternatives": "/etc/alternatives",
        }
        argv = [*BOOT, f"--machine=lateen-{os.getpid()}", f"--network-namespace-path=/proc/{machine.pid}/ns/net"]
        argv += [f"--bind-ro={here}:{there}" for here, there in bound.items()]
        argv += [f"--bind={kept}:/etc/istio", "--boot", "systemd.unit=basic.target", "systemd.firstboot=off"]
        argv += [f"systemd.mask={name}" for name in MASKED]
        self._log = tmp / "console"
        with self._log.open("ab") as log:
            self._holder = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def inside(self, *command):
        return ["nsenter", "-t", str(child(self._holder)), "-n", "-m", "-p", *command]

    def up(self, mesh):
        """Wait until systemd takes orders; some unit of the computer may have failed."""

        def state():
            assert self._holder.poll() is None, self._log.read_text(errors="replace")
            done = child(self._holder) and mesh.run(*self.inside("systemctl", "is-system-running"), ok=False)
            return done and done.stdout.strip() in ("running", "degraded")

        mesh.until(state, 90, "systemd")

    def said(self, mesh):
        return mesh.run(*self.inside("journalctl", "-u", UNIT, "--no-pager", "-o", "cat")).stdout

    def end(self):
        """Shut down, as ``poweroff`` does."""
        self._holder.terminate()
        try:
            self._holder.wait(90)
        except subprocess.TimeoutExpired:
            self._holder.kill()
            self._holder.wait()
