"""Kubernetes' API server and one of its controllers on this machine's loopback interface, without any node, and an API
of metrics behind an APIService that says what a test has put in."""

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import building
from both import Api, Refused
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lateen.cluster.pki import Pki
from lateen.kit import certs, selectors, times

METRICS = "metrics.k8s.io"
VERSION = f"{METRICS}/v1beta1"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Bare:
    """``flags``: of kube-controller-manager."""

    def __init__(self, tmp, *flags):
        self._tmp, self._running, self._flags = tmp, [], flags
        self.metrics = Metrics(tmp)
        (tmp / "pki").mkdir()
        self._pki = Pki(tmp / "pki")
        self._port, self._etcd, self._peers = free_port(), free_port(), free_port()
        self._kubeconfig = tmp / "kubeconfig"
        self._kubeconfig.write_text(self._pki.kubeconfig(self._port))
        self.api = Api(self._kubeconfig)

    def start(self):
        """Returns when the API of metrics is available."""
        at, peers = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{self._peers}"
        self._begin(
            "etcd",
            f"--data-dir={self._tmp / 'etcd'}",
            f"--listen-client-urls={at}",
            f"--advertise-client-urls={at}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--log-level=warn",
            "--logger=zap",
        )
        pki, accounts = self._pki, self._tmp / "accounts.key"
        key = certs.new_key()  # in the form that Go reads public keys from, too
        accounts.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
        self._begin(
            "kube-apiserver",
            f"--etcd-servers={at}",
            "--bind-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--secure-port={self._port}",
            f"--tls-cert-file={pki.server}",
            f"--tls-private-key-file={pki.server_key}",
            f"--client-ca-file={pki.ca_file}",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={accounts}",
            f"--service-account-signing-key-file={accounts}",
        )
        self._until(lambda: self.api.ask("GET", "/version"))
        self._until(lambda: self.api.ask("GET", "/api/v1/namespaces/kube-system"))
        self._aggregate()
        self._begin("kube-controller-manager", f"--kubeconfig={self._kubeconfig}", "--leader-elect=false", *self._flags)

    def _aggregate(self):
        """An ExternalName is how the API server finds a server beside it."""
        meta = {"name": "metrics", "namespace": "kube-system"}
        spec = {"type": "ExternalName", "externalName": "localhost"}
        self.api.ask("POST", "/api/v1/namespaces/kube-system/services", {"metadata": meta, "spec": spec})
        spec = {
            "service": meta | {"port": self.metrics.port},
            "group": METRICS,
            "version": "v1beta1",
            "insecureSkipTLSVerify": True,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        }
        body = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "spec": spec}
        self.api.ask(
            "POST", "/apis/apiregistration.k8s.io/v1/apiservices", body | {"metadata": {"name": f"v1beta1.{METRICS}"}}
        )
        self._until(lambda: self.api.ask("GET", f"/apis/{VERSION}/namespaces/default/pods"))

    def _begin(self, name, *flags):
        with open(self._tmp / f"{name}.log", "ab") as log:
            self._running.append(subprocess.Popen([building.program(name), *flags], stdout=log, stderr=log))

    def _until(self, what, seconds=120):
        deadline = time.monotonic() + seconds
        while True:
            try:
                return what()
            except (Refused, OSError, ValueError, http.client.HTTPException):  # it is not there yet
                if time.monotonic() > deadline or any(p.poll() is not None for p in self._running):
                    logs = [f"{p.name}: {p.read_text(errors='replace')[-2000:]}" for p in self._tmp.glob("*.log")]
                    raise AssertionError("\n".join(logs)) from None
                time.sleep(0.2)

    def end(self):
        for process in reversed(self._running):
            process.kill()
            process.wait()
        self.metrics.end()


class Metrics:
    """metrics.k8s.io. ``pods``: namespace -> name -> (labels, container -> (CPUs, bytes)); ``window`` in seconds."""

    window = 120.0  # a pod that is ready now is so for less than a window, however slow the machine

    def __init__(self, tmp):
        self.pods = {}
        (tmp / "metrics").mkdir()
        pki = Pki(tmp / "metrics")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki.server, pki.server_key)
        handler = type("Handler", (_Handler,), {"metrics": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def end(self):
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path, query):
        parts = path.strip("/").split("/")
        if parts[:3] != ["apis", METRICS, "v1beta1"]:
            return None
        if len(parts) == 3:
            pods = {"name": "pods", "singularName": "", "namespaced": True, "kind": "PodMetrics", "verbs": ["list"]}
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": VERSION, "resources": [pods]}
        wanted, now = selectors.parse(query.get("labelSelector", "")), times.stamp()
        items = [
            {
                "metadata": {"name": name, "namespace": parts[4], "labels": labels, "creationTimestamp": now},
                "timestamp": now,
                "window": f"{self.window:.0f}s",
                "containers": [
                    {"name": n, "usage": {"cpu": f"{round(cpu * 1e9)}n", "memory": f"{memory // 1024}Ki"}}
                    for n, (cpu, memory) in used.items()
                ],
            }
            for name, (labels, used) in self.pods.get(parts[4], {}).items()
            if wanted(labels)
        ]
        return {"kind": "PodMetricsList", "apiVersion": VERSION, "metadata": {}, "items": items}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    metrics = None

    def do_GET(self):
        at = urlsplit(self.path)
        found = self.metrics.answer(at.path, dict(parse_qsl(at.query)))
        body = json.dumps(found if found is not None else {"kind": "Status", "status": "Failure", "code": 404}).encode()
        self.send_response(200 if found is not None else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_):
        pass
