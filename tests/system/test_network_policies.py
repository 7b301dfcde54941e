"""NetworkPolicies between real pods: who reaches whom, at once after each change, with and without sidecars."""

import json

import pytest
import yaml

pytestmark = pytest.mark.system

NAMESPACE, OTHER = "policies", "policies-other"
SERVE = (
    "import http.server as h, socketserver; h.ThreadingHTTPServer(('', {}), h.SimpleHTTPRequestHandler).serve_forever()"
)


def pod(name, namespace, port=0, **labels):
    container = {"name": "main", "image": "lateen/sleep", "command": ["sleep", "1000"]}
    if port:
        probe = {"tcpSocket": {"port": port}, "periodSeconds": 1}
        command = ["python3", "-c", SERVE.format(port)]
        ports = [{"name": "web", "containerPort": port}]
        container |= {"command": command, "ports": ports, "readinessProbe": probe}
    meta = {"name": name, "namespace": namespace, "labels": {"app": name, **labels}}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


class Net:
    def __init__(self, mesh):
        self.mesh = mesh

    def allow(self, name, namespace=NAMESPACE, **spec):
        spec.setdefault("podSelector", {})
        meta = {"name": name, "namespace": namespace}
        made = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}
        self.mesh.apply(yaml.safe_dump(made))

    def clear(self):
        for namespace in (NAMESPACE, OTHER):
            self.mesh.kubectl("delete", "networkpolicy", "--all", "-n", namespace)

    def reaches(self, source, url, namespace=NAMESPACE):
        command = f"curl -s -o /dev/null -w '%{{http_code}}' --connect-timeout 1 -m 3 {url}"
        done = self.mesh.kubectl("exec", source, "-n", namespace, "-c", "main", "--", "sh", "-c", command, ok=False)
        return done.stdout == "200"

    def settles(self, wanted, source, url, namespace=NAMESPACE):
        says = f"{source} {'reaches' if wanted else 'no longer reaches'} {url}"
        self.mesh.until(lambda: self.reaches(source, url, namespace) == wanted, what=says)


@pytest.fixture(scope="module")
def net(mesh):
    for namespace in (NAMESPACE, OTHER):
        mesh.kubectl("create", "namespace", namespace)
        mesh.kubectl("label", "namespace", namespace, "istio-injection=disabled")
    service = {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8000}]}
    things = [
        pod("server", NAMESPACE, 8000),
        pod("client", NAMESPACE),
        pod("client", OTHER, role="guest"),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "server", "namespace": NAMESPACE},
            "spec": service,
        },
    ]
    mesh.apply(yaml.safe_dump_all(things))
    for namespace in (NAMESPACE, OTHER):
        mesh.kubectl("wait", "pod", "--all", "-n", namespace, "--for=condition=Ready", "--timeout=60s")
    yield Net(mesh)
    for namespace in (NAMESPACE, OTHER):
        mesh.kubectl("delete", "namespace", namespace, "--wait=false")


SERVER = f"http://server.{NAMESPACE}.svc.cluster.local"


def test_who_comes_in_is_what_the_policies_of_the_server_admit(net):
    assert net.reaches("client", SERVER)
    assert net.reaches("client", SERVER, OTHER)
    net.allow("none", podSelector={"matchLabels": {"app": "server"}})
    net.settles(False, "client", SERVER)
    assert not net.reaches("client", SERVER, OTHER)
    status = net.mesh.get("pod", "server", "-n", NAMESPACE, "-o", "jsonpath={.status.conditions}")
    assert {"Ready": "True"}.items() <= {c["type"]: c["status"] for c in json.loads(status)}.items()  # probes pass
    guests = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"role": "guest"}}}
    net.allow("guests", ingress=[{"from": [guests], "ports": [{"port": "web"}]}])
    net.settles(True, "client", SERVER, OTHER)
    assert not net.reaches("client", SERVER)
    net.mesh.kubectl("label", "pod", "client", "-n", NAMESPACE, "role=guest")
    net.settles(True, "client", SERVER)
    assert "POD-SELECTOR" in net.mesh.get("netpol", "-n", NAMESPACE)
    assert "empty one selects all" in net.mesh.kubectl("explain", "netpol.spec.podSelector").stdout
    net.clear()
    net.settles(True, "client", SERVER, OTHER)


def test_who_goes_out_needs_leave_for_dns_and_for_the_server(net):
    net.allow("closed", OTHER, policyTypes=["Egress"])
    net.settles(False, "client", SERVER, OTHER)
    address = net.mesh.get("pod", "server", "-n", NAMESPACE, "-o", "jsonpath={.status.podIP}")
    block = {"cidr": "10.244.0.0/16"}
    net.allow("server", OTHER, policyTypes=["Egress"], egress=[{"to": [{"ipBlock": block}]}])
    net.settles(True, "client", f"http://{address}:8000", OTHER)
    assert not net.reaches("client", SERVER, OTHER)  # no name
    dns = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}
    net.allow("dns", OTHER, policyTypes=["Egress"], egress=[{"to": [dns], "ports": [{"port": 53, "protocol": "UDP"}]}])
    net.settles(True, "client", SERVER, OTHER)
    net.allow(
        "server", OTHER, policyTypes=["Egress"], egress=[{"to": [{"ipBlock": block | {"except": [f"{address}/32"]}}]}]
    )
    net.settles(False, "client", SERVER, OTHER)
    net.clear()


def test_a_new_pod_is_isolated_before_its_first_program_runs(net):
    net.allow("closed", OTHER, policyTypes=["Egress"])
    address = net.mesh.get("pod", "server", "-n", NAMESPACE, "-o", "jsonpath={.status.podIP}")
    script = f"curl -s -m 2 http://{address}:8000 >/dev/null && echo reached || echo blocked"
    made = pod("early", OTHER)
    made["spec"] |= {"restartPolicy": "Never"}
    made["spec"]["containers"][0]["command"] = ["sh", "-c", script]
    net.mesh.apply(yaml.safe_dump(made))
    logs = net.mesh.until(lambda: net.mesh.kubectl("logs", "early", "-n", OTHER, ok=False).stdout, what="its output")
    assert logs == "blocked\n"
    net.clear()


HEAR = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 7000))
while True: print(s.recv(99).decode(), flush=True)
"""
SAY = """
import socket, struct, sys
def said(source, text, to=sys.argv[1]):
    data = struct.pack('!4H', 7001, 7000, 8 + len(text), 0) + text
    ends = socket.inet_aton(source) + socket.inet_aton(to)
    head = struct.pack('!BBHHHBBH', 69, 0, 20 + len(data), 1, 0, 64, 17, 0) + ends
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW); s.sendto(head + data, (to, 0))
for source, text in zip(sys.argv[2::2], sys.argv[3::2]): said(source, text.encode())
"""


def test_a_pod_cannot_take_another_ones_address(net):
    """Policies go by address, and NET_RAW lets a program write any source into its packets."""
    hears, says = pod("hears", NAMESPACE), pod("says", OTHER)
    hears["spec"]["containers"][0]["command"] = ["python3", "-c", HEAR]
    says["spec"]["containers"][0]["securityContext"] = {"capabilities": {"add": ["NET_RAW", "NET_ADMIN"]}}
    net.mesh.apply(yaml.safe_dump_all([hears, says]))
    for name, namespace in (("hears", NAMESPACE), ("says", OTHER)):
        net.mesh.kubectl("wait", "pod", name, "-n", namespace, "--for=condition=Ready", "--timeout=60s")
    address = {
        name: net.mesh.get("pod", name, "-n", namespace, "-o", "jsonpath={.status.podIP}")
        for name, namespace in (("hears", NAMESPACE), ("client", NAMESPACE), ("says", OTHER))
    }
    sources = [address["client"], "client", "10.244.0.1", "node", "192.0.2.7", "stranger", address["says"], "own"]
    command = ["python3", "-c", SAY, address["hears"], *sources]
    net.mesh.until(
        lambda: (
            net.mesh.kubectl("exec", "says", "-n", OTHER, "--", *command)
            and net.mesh.kubectl("logs", "hears", "-n", NAMESPACE).stdout
        ),
        what="packets",
    )
    assert set(net.mesh.kubectl("logs", "hears", "-n", NAMESPACE).stdout.split()) == {"own"}
    shown = net.mesh.kubectl(
        "exec", "server", "-n", NAMESPACE, "--", "sh", "-c", f"curl -s -m 3 -o /dev/null -w '%{{http_code}}' {SERVER}"
    )
    assert shown.stdout == "200"  # a pod reaches itself by its service


def test_policies_and_sidecars_work_together(net):
    """Pods of the mesh: mutual TLS arrives at the application's own port, which is what policies name."""
    url = "http://details.default.svc.cluster.local:9080/health"
    app = net.mesh.pod("productpage")

    def asks():
        script = f"import urllib.request as u; print(u.urlopen('{url}', timeout=3).status)"
        done = net.mesh.kubectl("exec", app, "-c", "productpage", "--", "python3", "-c", script, ok=False)
        return done.stdout.strip() == "200"

    assert asks()
    chosen = {"matchLabels": {"app": "details"}}
    other = {"from": [{"podSelector": {"matchLabels": {"app": "nobody"}}}]}
    own = {"from": [{"podSelector": {"matchLabels": {"app": "productpage"}}}], "ports": [{"port": 9080}]}
    try:
        net.allow("details", "default", podSelector=chosen, ingress=[other])
        net.mesh.kubectl("delete", "pod", "-l", "app=details", "--wait=false")  # open connections stay
        net.mesh.kubectl("rollout", "status", "deployment/details-v1", "--timeout=110s")
        net.mesh.until(lambda: not asks(), what="details to be closed")
        net.allow("details", "default", podSelector=chosen, ingress=[other, own])
        net.mesh.until(asks, what="details to be open to productpage")
    finally:
        net.mesh.kubectl("delete", "networkpolicy", "--all", "-n", "default")
