"""A control plane made of Kubernetes' own programs, in the network namespace of an embedded node, whose kubelet, DNS
and service addresses work for it."""

import subprocess
from datetime import timedelta

import building
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lateen.cluster.home import Home
from lateen.cluster.network import plan
from lateen.cluster.node_api import API_SERVER
from lateen.cluster.pki import NAME, Pki
from lateen.kit import certs, times

SERVER = f"https://{plan.NODE_IP}:{plan.API_PORT}"
NETWORK = "lateen-network"
ROLES = f"""
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {NETWORK}}}
rules:
- apiGroups: ["", networking.k8s.io, discovery.k8s.io]
  resources: [services, endpointslices, pods, namespaces, networkpolicies]
  verbs: [get, list, watch]
- {{apiGroups: [""], resources: [services, services/status], verbs: [patch]}}
- {{apiGroups: [""], resources: [events], verbs: [create, patch]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {NETWORK}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {NETWORK}}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {NETWORK}}}]
"""
USERS = {
    "kubelet": (f"system:node:{NAME}", ("system:nodes",)),
    "network": (NETWORK, ()),
    "kube-controller-manager": ("system:kube-controller-manager", ()),
    "kube-scheduler": ("system:kube-scheduler", ()),
}


class ControlPlane:
    """``mesh`` is the user's side: its home is given what a node needs to join, and its kubeconfig leads here."""

    def __init__(self, mesh, tmp):
        self.mesh, self._tmp = mesh, tmp
        self._running = {}
        home = Home(mesh.home)
        home.create()
        home.control_plane.mkdir(mode=0o700)
        self._at, self._pki = home.control_plane, Pki(home.pki)
        for name, (user, groups) in USERS.items():
            self._kubeconfig(name, user, groups)
        self._pair("kubelet", certs.issue(self._authority(), [plan.NODE_IP], times.now(), timedelta(days=9), NAME))
        self._pair("asking", self._client(API_SERVER))
        key = certs.new_key()  # in the form that Go reads public keys from, too
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        (self._at / "accounts.key").write_bytes(pem)

    def _authority(self):
        return self._pki.authority()

    def _client(self, user, groups=()):
        return certs.issue(self._authority(), [], times.now(), timedelta(days=9), user, groups, server=False)

    def _pair(self, name, pair):
        (self._at / f"{name}.crt").write_text(pair.certificate)
        (self._at / f"{name}.key").write_text(pair.key)

    def _kubeconfig(self, name, user, groups):
        self._pair(f"as-{name}", self._client(user, groups))
        made = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [
                {"name": "here", "cluster": {"server": SERVER, "certificate-authority": str(self._pki.ca_file)}}
            ],
            "users": [
                {
                    "name": "me",
                    "user": {
                        "client-certificate": str(self._at / f"as-{name}.crt"),
                        "client-key": str(self._at / f"as-{name}.key"),
                    },
                }
            ],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        }
        (self._at / name).write_text(yaml.safe_dump(made))

    # --- processes -------------------------------------------------------------------------------------------

    def start(self):
        """The node first, since the others run in its network. Returns when the node is ready."""
        self.mesh.lateen("cluster", "start")
        for name in ("etcd", "kube-apiserver"):
            self.begin(name)
        self.ready()
        self.mesh.apply(ROLES)
        for name in ("kube-controller-manager", "kube-scheduler"):
            self.begin(name)
        self.mesh.until(
            lambda: self.mesh.kubectl("wait", "node", NAME, "--for=condition=Ready", ok=False).returncode == 0,
            90,
            "the node",
        )
        self.mesh.until(
            lambda: self.mesh.kubectl("get", "serviceaccount", "default", ok=False).returncode == 0, 60, "controllers"
        )

    def ready(self):
        self.mesh.until(
            lambda: self.mesh.kubectl("get", "--raw", "/readyz", ok=False).stdout == "ok", 120, "kube-apiserver"
        )

    def begin(self, name):
        log = open(self._tmp / f"{name}.log", "ab")  # noqa: SIM115 - the process has it
        inside = ["nsenter", "-t", str(self.mesh.outside()), "--net"]
        self._running[name] = subprocess.Popen(
            [*inside, building.program(name), *self._flags(name)], stdout=log, stderr=log
        )
        log.close()

    def kill(self, name):
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def end(self):
        for name in list(self._running):
            self.kill(name)
        self.mesh.lateen("cluster", "delete", ok=False)

    def said(self, name):
        return (self._tmp / f"{name}.log").read_text(errors="replace")[-3000:]

    def _flags(self, name):
        at, pki = self._at, self._pki
        if name == "etcd":
            return ["--data-dir", str(self._tmp / "etcd"), "--logger=zap", "--log-level=warn"]
        if name == "kube-scheduler":
            return [f"--kubeconfig={at / name}", "--leader-elect=false"]
        if name == "kube-controller-manager":
            return [
                f"--kubeconfig={at / name}",
                "--leader-elect=false",
                "--use-service-account-credentials",
                f"--service-account-private-key-file={at / 'accounts.key'}",
                f"--root-ca-file={pki.ca_file}",
                f"--cluster-signing-cert-file={pki.ca_file}",
                f"--cluster-signing-key-file={pki.ca_key}",
            ]
        return [
            "--etcd-servers=http://127.0.0.1:2379",
            f"--advertise-address={plan.NODE_IP}",
            f"--secure-port={plan.API_PORT}",
            f"--tls-cert-file={pki.server}",
            f"--tls-private-key-file={pki.server_key}",
            f"--client-ca-file={pki.ca_file}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--service-cluster-ip-range={plan.SERVICE_NET}",
            f"--service-account-issuer=https://kubernetes.default.svc.{plan.DOMAIN}",
            f"--service-account-key-file={at / 'accounts.key'}",
            f"--service-account-signing-key-file={at / 'accounts.key'}",
            f"--kubelet-client-certificate={at / 'asking.crt'}",
            f"--kubelet-client-key={at / 'asking.key'}",
            f"--kubelet-certificate-authority={pki.ca_file}",
            "--kubelet-preferred-address-types=InternalIP",
            "--profiling=false",
        ]
