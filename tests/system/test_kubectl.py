"""What administrators do with kubectl: users with certificates, rules for everybody, services with affinity."""

import base64
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from world import kubectls

from lateen.kit import certs, yamldoc

pytestmark = pytest.mark.system

CSR = """
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: NAME}
spec: {request: REQUEST, signerName: kubernetes.io/kube-apiserver-client, usages: [client auth]}
"""
POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: few}
spec:
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints:
    resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}]
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: rules}}
  variables: [{name: most, expression: "int(params.data.most)"}]
  validations:
  - expression: object.spec.replicas <= variables.most
    messageExpression: "'at most ' + string(variables.most) + ' replicas'"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: few}
spec: {policyName: few, validationActions: [Deny], paramRef: {name: most, parameterNotFoundAction: Deny}}
"""
STICKY = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: who}
spec:
  replicas: 3
  selector: {matchLabels: {app: who}}
  template:
    metadata: {labels: {app: who}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: c
        image: lateen/sleep
        command: [python3, -c, SERVER]
---
apiVersion: v1
kind: Service
metadata: {name: who}
spec: {selector: {app: who}, sessionAffinity: ClientIP, externalIPs: [192.0.2.9], ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: any}
spec: {selector: {app: who}, ports: [{port: 80, targetPort: 8080}]}
"""
SERVER = """import socket, socketserver
class Who(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(socket.gethostname().encode())
socketserver.ThreadingTCPServer(('', 8080), Who).serve_forever()
"""
ASK = """import socket
for at in ('who', 'any', '192.0.2.9'):
    print(*{socket.create_connection((at, 80)).makefile().read() for _ in range(40)})
"""


@pytest.fixture
def space(mesh):
    mesh.kubectl("create", "namespace", "rules")
    yield "rules"
    mesh.remove("rules")


def requested(name):
    key, subject = certs.new_key(), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    raw = base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()
    return certs.key_pem(key), CSR.replace("NAME", name).replace("REQUEST", raw)


def test_a_user_gets_a_certificate_and_what_roles_allow(mesh, tmp_path):
    key, text = requested("jane")
    try:
        mesh.apply(text)
        assert mesh.get("csr", "jane", "--no-headers").split()[-1] == "Pending"
        mesh.kubectl("certificate", "approve", "jane")
        found = "jsonpath={.status.certificate}"
        pem = mesh.until(lambda: mesh.get("csr", "jane", "-o", found), what="the certificate")
        assert mesh.get("csr", "jane", "--no-headers").split()[-1] == "Approved,Issued"
        config = yamldoc.load((mesh.home / "kubeconfig").read_text())
        config["users"][0]["user"] = {
            "client-certificate-data": pem,
            "client-key-data": base64.b64encode(key.encode()).decode(),
        }
        own = tmp_path / "jane"
        own.write_text(yamldoc.dump(config))
        assert "jane" in mesh.kubectl("--kubeconfig", str(own), "auth", "whoami").stdout
        refused = mesh.kubectl("--kubeconfig", str(own), "get", "pods", ok=False).stderr
        assert 'User "jane" cannot list resource "pods"' in refused
        mesh.kubectl("create", "rolebinding", "jane", "--clusterrole=view", "--user=jane")
        assert "details" in mesh.kubectl("--kubeconfig", str(own), "get", "pods").stdout
        mesh.apply(requested("paul")[1])
        mesh.kubectl("certificate", "deny", "paul")
        assert mesh.get("csr", "paul", "--no-headers").split()[-1] == "Denied"
    finally:
        mesh.kubectl("delete", "csr/jane", "csr/paul", "rolebinding/jane", "--ignore-not-found")


def test_a_policy_holds_for_everybody_until_its_binding_is_gone(mesh, space):
    try:
        mesh.apply(POLICY)
        mesh.kubectl("create", "configmap", "most", "-n", space, "--from-literal=most=2")
        mesh.kubectl("create", "deployment", "a", "-n", space, "--image=lateen/sleep", "--replicas=0")
        done = mesh.kubectl("create", "deployment", "b", "-n", space, "--image=lateen/sleep", "--replicas=3", ok=False)
        assert "ValidatingAdmissionPolicy 'few' with binding 'few' denied request: at most 2 replicas" in done.stderr
        mesh.kubectl("delete", "configmap", "most", "-n", space)
        done = mesh.kubectl("label", "deployment", "a", "-n", space, "x=y", ok=False)
        assert "no params found for policy binding" in done.stderr
        change = '{"spec":{"validationActions":["Warn"]}}'
        mesh.kubectl("patch", "validatingadmissionpolicybinding", "few", "--type=merge", "-p", change)
        done = mesh.kubectl("label", "deployment", "a", "-n", space, "x=y")
        assert "Warning: Validation failed for ValidatingAdmissionPolicy 'few'" in done.stderr
    finally:
        mesh.kubectl("delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", "few")


def test_every_kubectl_autoscales_and_sees_the_other_version(mesh, space):
    mesh.kubectl("create", "deployment", "a", "-n", space, "--image=lateen/sleep")
    for binary in kubectls():
        mesh.kubectl("autoscale", "deployment", "a", "-n", space, "--max=3", "--cpu-percent=60", binary=binary)
        for version in ("v1", "v2"):
            path = f"/apis/autoscaling/{version}/namespaces/{space}/horizontalpodautoscalers/a"
            found = json.loads(mesh.kubectl("get", "--raw", path, binary=binary).stdout)
            assert found["apiVersion"] == f"autoscaling/{version}"
        assert found["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 60
        mesh.kubectl("delete", "hpa", "a", "-n", space, binary=binary)
    told = mesh.get("events.events.k8s.io", "-n", space, "-o", "jsonpath={.items[*].regarding.name}")
    assert "a" in told.split()


def test_a_client_of_a_service_with_affinity_meets_one_pod(mesh, space):
    mesh.kubectl("apply", "-n", space, "-f", "-", stdin=STICKY.replace("SERVER", json.dumps(SERVER)))
    mesh.kubectl("rollout", "status", "deployment/who", "-n", space, "--timeout=60s")

    def answers():
        done = mesh.kubectl("exec", "-n", space, "deploy/who", "--", "python3", "-c", ASK, ok=False)
        return done.returncode == 0 and [len(line.split()) for line in done.stdout.splitlines()]

    assert mesh.until(answers, what="an answer") == [1, 3, 1]
