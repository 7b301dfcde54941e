"""The product as a user meets it: commands, kubectl, HTTP."""

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from lateen.kit import certs, times
from lateen.kube.errors import KubeError, Unreachable
from lateen.kube.kubeconfig import from_file

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples" / "bookinfo"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def kubectls():
    """Every kubectl on this machine: the one on the path, and the versions beside it."""
    found = shutil.which("kubectl")
    if not found:
        return []
    versions = sorted(Path(found).resolve().parent.glob("kubectl.1.*"))
    chosen = [v for v in versions if v.name in ("kubectl.1.27", "kubectl.1.32")] or versions[-1:]
    old = os.environ.get("LATEEN_TEST_KUBECTL", "")
    return [*(str(v) for v in chosen), *([] if versions else [found]), *([old] if old else [])]


class Mesh:
    """The cluster as a user meets it: commands and HTTP."""

    def __init__(self, home, tmp):
        self.home, self.tmp = home, tmp
        self.environment = os.environ | {
            "LATEEN_HOME": str(home),
            "KUBECONFIG": str(home / "kubeconfig"),
            "HOME": str(tmp),
            "LATEEN_API_PORT": "0",
            "NO_COLOR": "1",
        }
        self.kubectl_path = kubectls()[-1] if kubectls() else "kubectl"
        self.with_addons = False

    def run(self, *argv, ok=True, stdin=None, timeout=120):
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            errors="replace",  # an Envoy that aborts writes its buffers to its log
            timeout=timeout,
            env=self.environment,
            input=stdin,
            check=False,
        )
        if ok:
            assert done.returncode == 0, f"{' '.join(map(str, argv))}\n{done.stdout}\n{done.stderr}"
        return done

    def lateen(self, *argv, **more):
        self.with_addons = self.with_addons or argv[:2] == ("addons", "apply")
        return self.run(sys.executable, "-m", "lateen", *argv, **more)

    def kubectl(self, *argv, **more):
        return self.run(more.pop("binary", None) or self.kubectl_path, *argv, **more)

    def apply(self, text, **more):
        return self.kubectl("apply", "-f", "-", stdin=text, **more)

    def get(self, *argv):
        return self.kubectl("get", *argv).stdout

    def pod(self, app, namespace="default"):
        found = self.ask(f"/api/v1/namespaces/{namespace}/pods?labelSelector=app%3D{app}")["items"]
        assert found, f"no pod of {app} in {namespace}"
        return found[0]["metadata"]["name"]

    def inside(self, app, *command, container=None, namespace="default", ok=True):
        """Run a command in a container of an application's pod, without starting a program for it."""
        pod = self.pod(app, namespace)
        api = from_file(Path(self.environment["KUBECONFIG"]))

        async def run():
            async with api:
                return await api.run(namespace, pod, container or app, command, b"", timeout=120)

        try:
            with ThreadPoolExecutor(1) as own:  # beside a browser: Playwright's loop runs in the thread of the test
                out, err, code = own.submit(asyncio.run, run()).result()
        except (KubeError, Unreachable) as e:
            out, err, code = b"", str(e).encode(), 1
        found = subprocess.CompletedProcess(command, code, *(text.decode(errors="replace") for text in (out, err)))
        assert code == 0 or not ok, f"{' '.join(command)}\n{found.stdout}\n{found.stderr}"
        return found

    def host_port(self, port):
        """Where the ingress gateway's port is on this host."""
        found = self.ask("/api/v1/namespaces/istio-system/services/istio-ingressgateway")
        given = found["metadata"]["annotations"]["lateen.dev/host-ports"]
        return int(dict(p.split("=") for p in given.split(","))[str(port)])

    def ask(self, path):
        """An object of the API, as the kubeconfig's user, without starting a program for it."""
        api = from_file(Path(self.environment["KUBECONFIG"]))
        connection = http.client.HTTPSConnection(str(api.url.host), api.url.port, context=api.context, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            found = json.loads(answer.read())
        assert answer.status == 200, found
        return found

    def ingress(self):
        return f"http://127.0.0.1:{self.host_port(80)}"

    def page(self, path="/productpage", *curl):
        done = subprocess.run(
            ["curl", "-s", "-m", "10", "-w", "\n%{http_code}", *curl, self.ingress() + path],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        body, _, code = done.stdout.rpartition("\n")
        return int(code or 0), body

    def until(self, test, limit_s=30, what="the condition"):
        """Wait until ``test`` returns something true; its last value is in the failure message."""
        deadline = time.monotonic() + limit_s
        while True:
            value = test()
            if value:
                return value
            assert time.monotonic() < deadline, f"{what} did not come true in {limit_s} s: {value!r}"
            time.sleep(0.1)

    def reinstall(self):
        """Restore what ``lateen demo`` installs, after a test has installed something else."""
        self.lateen("install", "--set", "profile=demo", "-y", timeout=120)
        self.connected()

    def without_addons(self):
        """Delete what a file of tests has applied, so that the next one finds the mesh as every other does."""
        if self.with_addons:
            self.lateen("addons", "delete")
            self.with_addons = False

    def connected(self):
        """Wait until Bookinfo's proxies are back at istiod: Envoy may try again half a minute after it has failed."""
        bookinfo = ("pods", "-n", "default", "-l", "app in (productpage,details,reviews,ratings)", "-o", "name")
        pods = [f"{name.partition('/')[2]}.default" for name in self.get(*bookinfo).split()]

        def back():
            there = self.lateen("proxy-status", ok=False).stdout
            return all(name in there for name in pods)

        self.until(back, 60, "all proxies at istiod")

    def remove(self, *namespaces):
        """Delete namespaces without their pods' grace period: many programs in tests ignore SIGTERM as PID 1."""
        for namespace in namespaces:
            self.kubectl("delete", "deployments", "--all", "-n", namespace)
            self.kubectl("delete", "pods", "--all", "-n", namespace, "--grace-period=1", "--wait=false")
        self.kubectl("delete", "namespace", *namespaces, timeout=120)

    def outside(self):
        """The namespace-holding process: the first child of the portal's ``unshare``."""
        portal = int((self.home / "cluster.pid").read_text().split()[0])
        unshare = _children(portal)[0]
        return _children(unshare)[0]

    def signal(self, number, *words):
        """Send a signal to the first process of each container whose command has these words. From outside: a
        container's own processes cannot kill its first one."""
        found, queue = [], [self.outside()]
        while queue:
            pid = queue.pop()
            queue += _children(pid)
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
                status = Path(f"/proc/{pid}/status").read_text()
                first = status.partition("NSpid:")[2].split("\n")[0].split()[-1] == "1"
                found += [pid] if first and set(words) <= set(command) else []
        assert found, f"no process {words}"
        for pid in found:
            os.kill(pid, number)


def _children(pid):
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


@contextlib.contextmanager
def demo(tmp):
    """A cluster with Bookinfo in the mesh; its tests are skipped where the kernel allows no namespaces."""
    found = Mesh(tmp / "home", tmp)
    try:
        started = found.lateen("demo", ok=False, timeout=180)
        if "cannot create namespaces" in started.stderr:
            pytest.skip(started.stderr.strip())
        assert started.returncode == 0, started.stderr
        found.with_addons = True
        found.without_addons()  # the tests that need them apply them
        yield found
    finally:
        found.lateen("cluster", "delete", ok=False)


class Secrets:
    """Certificates of an authority of the test's own, as Secrets for gateways."""

    def __init__(self, mesh, ca, directory):
        self.mesh, self.ca, self.directory = mesh, ca, directory

    def issue(self, name, *hosts):
        made = certs.issue(self.ca, list(hosts), times.now(), timedelta(days=1))
        found = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        found[0].write_text(made.certificate)
        found[1].write_text(made.key)
        return found

    def tls(self, name, *hosts):
        crt, key = self.issue(name, *hosts)
        made = self.mesh.kubectl(
            "create", "secret", "tls", name, "-n", "istio-system", f"--cert={crt}", f"--key={key}",
            "--dry-run=client", "-o", "yaml",
        )  # fmt: skip
        self.mesh.apply(made.stdout)

    def curl(self, host, *more, ca=True):
        port = self.mesh.host_port(443)
        return subprocess.run(
            [
                "curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code} %{http_version}",
                "--resolve", f"{host}:{port}:127.0.0.1",
                *(["--cacert", str(self.directory / "ca.pem")] if ca else ["-k"]),
                *more, f"https://{host}:{port}/productpage",
            ],
            capture_output=True, text=True, timeout=10, check=False,
        ).stdout.strip()  # fmt: skip

    def presented(self, host):
        """The certificate that clients get, as DER; None where there is none."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with (
                socket.create_connection(("127.0.0.1", self.mesh.host_port(443)), 5) as plain,
                context.wrap_socket(plain, server_hostname=host) as secured,
            ):
                return secured.getpeercert(binary_form=True)
        except OSError:
            return None
