"""Sidecars whose certificates come from the real SPIRE, set up as the how-to says: identities, renewal, a new root,
another trust domain, and one root for SPIRE and istiod."""

import contextlib
import os
import re
import subprocess
import time
from datetime import timedelta

import binaries
import pytest
from cryptography import x509
from world import ROOT, Mesh, free_port

from lateen.kit import certs, times

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="SPIRE's attestor needs root")]

DOMAIN, THEIRS, AGENT = "example.org", "their.domain", "spiffe://example.org/agent"
GROUPS = {"web": 5001, "sleep": 5002}
"""Account -> the supplementary group by which SPIRE knows its pods: there are no containers of Kubernetes' here."""
SERVER = """
server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{at}/server.sock"
  trust_domain = "example.org"
  data_dir = "{at}/server"
  default_x509_svid_ttl = "2m"
}}
plugins {{
  DataStore "sql" {{
    plugin_data {{
      database_type = "sqlite3"
      connection_string = "{at}/datastore.sqlite3"
    }}
  }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
  {upstream}
}}
"""
UPSTREAM = """
  UpstreamAuthority "disk" {{
    plugin_data {{
      cert_file_path = "{at}/upstream.pem"
      key_file_path = "{at}/upstream.key"
      bundle_file_path = "{at}/root.pem"
    }}
  }}
"""
OF_AGENT = """
agent {{
  data_dir = "{at}/agent"
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{socket}"
  trust_bundle_path = "{at}/bundle.pem"
  trust_domain = "example.org"
  {sds}
}}
plugins {{
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
  WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"""
PODS = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""
POD = """
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}}}
---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  labels: {{app: {name}}}
  annotations: {{{annotations}}}
spec:
  terminationGracePeriodSeconds: 1
  serviceAccountName: {name}
  securityContext: {{supplementalGroups: [{group}]}}
  containers:
  - {{name: main, image: {image}}}
"""
HANDSHAKE = """
import json, socket, ssl, sys
host, pem = json.load(sys.stdin)
open("/tmp/own.pem", "w").write(pem)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.set_alpn_protocols(["istio-http/1.1", "istio"])
context.load_cert_chain("/tmp/own.pem")
try:
    with context.wrap_socket(socket.create_connection((host, 8080), 5)) as sock:
        sock.sendall(b"GET /headers HTTP/1.1\\r\\nhost: web\\r\\nconnection: close\\r\\n\\r\\n")
        print(sock.recv(65536).split(b"\\r\\n")[0].decode(), len(sock.recv(65536)))
except OSError as e:
    print("refused:", e)
"""


def how_to():
    """The installation of the how-to, with a directory of this machine in the place of the CSI driver."""
    text = (ROOT / "docs" / "howto-certificates.md").read_text()
    section = text.partition("## SPIRE")[2].partition("\n## ")[0]
    (config,) = [y for y in re.findall(r"```yaml\n(.*?)```", section, re.DOTALL) if "IstioOperator" in y]
    (sds,) = re.findall(r"```hcl\n(.*?)```", section, re.DOTALL)
    return config, sds


class Spire:
    """A server and an agent on this machine; pods reach the agent's socket."""

    def __init__(self, at, socket, sds, upstream=""):
        at.mkdir()
        self.at, self.running = at, []
        port = free_port()
        self.log = (at / "log").open("w")
        names = {"at": at, "port": port, "socket": socket}
        self._write("server.conf", SERVER.format(**names, upstream=upstream.format(at=at)))
        self._write("agent.conf", OF_AGENT.format(**names, sds=sds))
        self._server, self._agent = binaries.needed("spire-server"), binaries.needed("spire-agent")

    def _write(self, name, text):
        (self.at / name).write_text(text)

    def __enter__(self):
        try:
            self._start(self._server, "run", "-config", self.at / "server.conf")
            self._wait(lambda: self.ask("healthcheck").returncode == 0)
            self._write("bundle.pem", self.ask("bundle", "show").stdout)
            token = self.ask("token", "generate", "-spiffeID", AGENT).stdout.split()[-1]
            self._start(self._agent, "run", "-config", self.at / "agent.conf", "-joinToken", token)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.running):
            process.terminate()
            process.wait(20)
        self.log.close()

    def _start(self, *argv):
        self.running.append(subprocess.Popen([str(a) for a in argv], stdout=self.log, stderr=self.log))

    def _wait(self, done):
        for _ in range(300):
            if done():
                return
            assert all(p.poll() is None for p in self.running), (self.at / "log").read_text()[-2000:]
            time.sleep(0.1)
        raise AssertionError((self.at / "log").read_text()[-2000:])

    def ask(self, *words):
        argv = [self._server, *words, "-socketPath", str(self.at / "server.sock")]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    def register(self, *more):
        for name, group in GROUPS.items():
            selectors = ("-selector", "unix:uid:1337", "-selector", f"unix:supplementary_gid:{group}")
            who = ("-spiffeID", f"spiffe://{DOMAIN}/ns/default/sa/{name}", "-parentID", AGENT)
            made = self.ask("entry", "create", *who, *selectors, *more)
            assert made.returncode == 0, made.stderr

    def authority(self, *words):
        """A step of the rotation of its root."""
        done = self.ask("localauthority", "x509", *words)
        assert done.returncode == 0, done.stderr + done.stdout
        found = re.search(r"Authority ID: (\w+)", done.stdout)
        return found and found[1]


@pytest.fixture(scope="module")
def socket(tmp_path_factory):
    there = tmp_path_factory.mktemp("agent")
    there.chmod(0o755)
    return there / "socket"


@pytest.fixture(scope="module")
def theirs():
    return certs.authority("theirs", times.now())


@pytest.fixture(scope="module")
def common():
    """The root of istiod's CA, and later of SPIRE's."""
    return certs.authority("common", times.now())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, socket, common):
    binaries.needed("spire-server"), binaries.needed("spire-agent")
    tmp = tmp_path_factory.mktemp("lateen")
    found = Mesh(tmp / "home", tmp)
    config = re.sub(
        r"csi: *\{.*\}", f"hostPath: {{path: {socket.parent}}}", how_to()[0].replace("trustDomain: example.org",
        "trustDomain: example.org\n    trustDomainAliases: [their.domain]"),
    )  # fmt: skip
    assert "hostPath" in config
    (tmp / "istio.yaml").write_text(config)
    own = certs.intermediate(common, "istio", times.now())
    for name, text in {"ca-cert": own.certificate, "ca-key": own.key, "root-cert": common.certificate}.items():
        (tmp / f"{name}.pem").write_text(text)
    (tmp / "cert-chain.pem").write_text(own.certificate)
    try:
        found.lateen("cluster", "start", timeout=180)
        found.kubectl("create", "namespace", "istio-system")
        files = [f"--from-file={tmp}/{n}.pem" for n in ("ca-cert", "ca-key", "root-cert", "cert-chain")]
        found.kubectl("create", "secret", "generic", "cacerts", "-n", "istio-system", *files)
        found.lateen("install", "-y", "-f", str(tmp / "istio.yaml"), timeout=240)
        found.kubectl("label", "namespace", "default", "istio-injection=enabled")
        yield found
    finally:
        found.lateen("cluster", "delete", ok=False)


def start(mesh, name, image, group=5999, spire=True):
    annotations = 'inject.istio.io/templates: "sidecar,spire"' if spire else ""
    mesh.apply(POD.format(name=name, image=image, group=group, annotations=annotations))


@pytest.fixture(scope="module")
def spire(cluster, socket, theirs, tmp_path_factory):
    """SPIRE, and pods with its certificates."""
    at = tmp_path_factory.mktemp("spire") / "own"
    with Spire(at, socket, how_to()[1]) as found:
        (at / "theirs.pem").write_text(theirs.certificate)
        told = found.ask("bundle", "set", "-id", f"spiffe://{THEIRS}", "-path", str(at / "theirs.pem"))
        assert told.returncode == 0, told.stderr
        cluster.apply(PODS)
        start(cluster, "web", "docker.io/mccutchen/go-httpbin:v2.15.0", GROUPS["web"])
        start(cluster, "sleep", "lateen/sleep", GROUPS["sleep"])
        start(cluster, "ordinary", "lateen/sleep", spire=False)
        yield found


def ready(mesh, *names):
    mesh.kubectl("wait", "--for=condition=Ready", *(f"pod/{n}" for n in names), "--timeout=90s", timeout=100)


def call(mesh, pod):
    """(status, body)"""
    words = ("curl", "-s", "-m", "5", "-w", "\n%{http_code}", "http://web/headers")
    body, _, code = mesh.kubectl("exec", pod, "-c", "main", "--", *words, ok=False).stdout.rpartition("\n")
    return code, body


def serial(mesh, pod):
    return next(x for x in mesh.lateen("proxy-config", "secret", pod).stdout.splitlines() if x.startswith("default "))


def of_proxy(mesh, pod, name):
    """A file of certificates that its Envoy watches."""
    return mesh.kubectl("exec", pod, "-c", "istio-proxy", "--", "cat", f"/etc/istio/proxy/{name}").stdout


def issuer(mesh, pod):
    """SPIRE's name of the authority that has signed what Envoy presents; empty while it gets another one."""
    own = x509.load_pem_x509_certificate(of_proxy(mesh, pod, "cert-chain.pem").encode())
    if f"{own.serial_number:x}" not in serial(mesh, pod):
        return ""
    return own.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier.hex()


def test_pods_get_their_identities_from_spire_once_they_are_registered(cluster, spire):
    def says(text):
        return text in cluster.kubectl("logs", "web", "-c", "istio-proxy", ok=False).stdout

    cluster.until(lambda: says("no identity issued") or says("not authorized"), 60, "SPIRE's reason in the log")
    spire.register("-federatesWith", f"spiffe://{THEIRS}")
    ready(cluster, "web", "sleep", "ordinary")
    cluster.until(lambda: call(cluster, "sleep")[0] == "200", what="a call between pods of SPIRE's")
    assert f"URI=spiffe://{DOMAIN}/ns/default/sa/sleep" in call(cluster, "sleep")[1]
    assert call(cluster, "ordinary")[0] == "503", "its root is istiod's"


def test_certificates_and_roots_of_spires_are_followed(cluster, spire):
    before = serial(cluster, "web")
    cluster.until(lambda: serial(cluster, "web") != before, 120, "a renewed certificate")
    assert call(cluster, "sleep")[0] == "200"

    def trusted():
        return of_proxy(cluster, "web", "root-cert.pem").count("BEGIN")

    was = spire.authority("show")
    new = spire.authority("prepare")
    cluster.until(lambda: trusted() == 2, 60, "the next root")
    cluster.until(lambda: [issuer(cluster, pod) for pod in GROUPS] == [was, was], 30, "certificates under the old root")
    assert call(cluster, "sleep")[0] == "200"
    spire.authority("activate", "-authorityID", new)
    spire.authority("taint", "-authorityID", was)
    cluster.until(
        lambda: [issuer(cluster, pod) for pod in GROUPS] == [new, new], 120, "certificates under the new root"
    )
    spire.authority("revoke", "-authorityID", was)
    cluster.until(lambda: trusted() == 1, 60, "the end of the old root")
    assert call(cluster, "sleep")[0] == "200"


def test_a_federated_domain_vouches_for_its_own_identities_alone(cluster, spire, theirs):
    import json

    address = cluster.get("pod", "web", "-o", "jsonpath={.status.podIP}").strip()
    cluster.kubectl("create", "namespace", "elsewhere")
    cluster.kubectl("run", "stranger", "-n", "elsewhere", "--image=lateen/sleep")
    cluster.kubectl("wait", "--for=condition=Ready", "pod/stranger", "-n", "elsewhere", "--timeout=60s")

    def shakes(identity):
        own = certs.issue(theirs, [identity], times.now(), timedelta(hours=1))
        told = json.dumps([address, own.certificate + own.key])
        argv = ("exec", "-i", "stranger", "-n", "elsewhere", "--", "python3", "-c", HANDSHAKE)
        return cluster.kubectl(*argv, stdin=told).stdout

    assert "200 OK" in shakes(f"spiffe://{THEIRS}/ns/shop/sa/cart")
    assert shakes(f"spiffe://{DOMAIN}/ns/default/sa/sleep").startswith("refused")


def test_under_one_root_pods_of_spire_and_of_istiod_call_each_other(cluster, spire, socket, common, tmp_path):
    spire.__exit__()
    upstream = certs.intermediate(common, "spire", times.now(), path_length=1)
    with contextlib.ExitStack() as stack:
        second = Spire(tmp_path / "second", socket, how_to()[1], UPSTREAM)
        for name, text in {"upstream.pem": upstream.certificate, "upstream.key": upstream.key}.items():
            (tmp_path / "second" / name).write_text(text)
        (tmp_path / "second" / "root.pem").write_text(common.certificate)
        stack.enter_context(second)
        second.register()
        cluster.until(lambda: call(cluster, "ordinary")[0] == "200", 90, "a call by a pod of istiod's")
        assert f"URI=spiffe://{DOMAIN}/ns/default/sa/ordinary" in call(cluster, "ordinary")[1]
        cluster.until(lambda: call(cluster, "sleep")[0] == "200", 60, "a call by a pod of SPIRE's")
