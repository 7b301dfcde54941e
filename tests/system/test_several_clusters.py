"""Two embedded clusters on one machine, each with a control plane and a network of its own, are one mesh."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from world import ROOT, Mesh

from lateen.cluster.home import Home
from lateen.kit import certs, times

SAMPLES = ROOT / "samples" / "multicluster"
HELLO = """
apiVersion: v1
kind: Service
metadata: {{name: helloworld, labels: {{app: helloworld}}}}
spec: {{ports: [{{port: 5000, name: http}}], selector: {{app: helloworld}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: helloworld-{0}}}
spec:
  selector: {{matchLabels: {{app: helloworld, version: {0}}}}}
  template:
    metadata: {{labels: {{app: helloworld, version: {0}}}}}
    spec: {{containers: [{{name: helloworld, image: docker.io/istio/examples-helloworld-{0}}}]}}
"""
FAILOVER = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: helloworld}
spec:
  host: helloworld
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 1m}
    loadBalancer: {localityLbSetting: {failoverPriority: [topology.istio.io/network]}}
"""
ALLOWED = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: helloworld}
spec: {rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/NAME]}}]}]}
"""


def installation(mesh, name):
    made = mesh.run("sh", str(SAMPLES / "gen-eastwest-gateway.sh"), "--network", f"net-{name}").stdout
    return made.replace("profile: empty", "profile: minimal").replace(
        "    global:\n", f"    global:\n      multiCluster: {{clusterName: {name}}}\n"
    )


def authority(mesh, root, name):
    """A signing certificate of its own below the root that both clusters trust, as the Secret ``cacerts``."""
    made = certs.intermediate(root, f"{name} CA", times.now())
    data = {"ca-cert.pem": made.certificate, "ca-key.pem": made.key}
    data |= {"root-cert.pem": root.certificate, "cert-chain.pem": made.certificate}
    meta = {"name": "cacerts", "namespace": "istio-system"}
    mesh.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}}))
    mesh.apply(json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": data}))


def start(mesh, other, root, name, version):
    started = mesh.lateen("cluster", "start", "--neighbour", str(other.home), ok=False)
    if "cannot create namespaces" in started.stderr:
        return started.stderr.strip()
    assert started.returncode == 0, started.stderr
    authority(mesh, root, name)
    mesh.lateen("install", "-y", "-f", "-", stdin=installation(mesh, name))
    mesh.kubectl("apply", "-n", "istio-system", "-f", str(SAMPLES / "expose-services.yaml"))
    mesh.kubectl("label", "namespace", "default", "istio-injection=enabled")
    mesh.apply(HELLO.format(version))
    mesh.kubectl("rollout", "status", f"deployment/helloworld-{version}", "--timeout=60s")
    return ""


def secret(mesh, name):
    """What lets others read a cluster."""
    server = f"https://{Home(mesh.home).outside}:6443"
    return mesh.lateen("create-remote-secret", "--name", name, "--server", server).stdout


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    tmp = [tmp_path_factory.mktemp(name) for name in ("west", "east")]
    west, east = (Mesh(t / "home", t) for t in tmp)
    root = certs.authority("root of both", times.now())
    try:
        with ThreadPoolExecutor() as pool:
            first = pool.submit(start, west, east, root, "west", "v1")
            second = pool.submit(start, east, west, root, "east", "v2")
            if why := first.result() or second.result():
                pytest.skip(why)
        west.kubectl("apply", "-f", str(ROOT / "samples/sleep/sleep.yaml"))
        west.apply(secret(east, "east"))
        east.apply(secret(west, "west"))
        west.kubectl("rollout", "status", "deployment/sleep", "--timeout=60s")
        yield west, east
    finally:
        west.lateen("cluster", "delete", ok=False)
        east.lateen("cluster", "delete", ok=False)


def ask(west, times=8):
    """How often each version has answered, and each status code besides 200."""
    command = f"for i in $(seq {times}); do curl -s -m 5 -w ' %{{http_code}}\\n' helloworld:5000/hello; done"
    lines = west.inside("sleep", "sh", "-c", command).stdout.splitlines()
    versions = [line.split("version: ")[1][:2] for line in lines if "version: " in line]
    return Counter([*versions, *(line[-3:] for line in lines if line.startswith(("RBAC", " ")) and line[-3:] != "200")])


def seen(west, *wanted):
    """Wait until these alone answer."""
    return west.until(lambda: (found := ask(west)) and set(found) == set(wanted) and found, what=f"answers of {wanted}")


def test_requests_reach_the_instances_of_both_clusters(pair):
    west, east = pair
    seen(west, "v1", "v2")
    listed = west.lateen("remote-clusters").stdout
    assert [line.split()[0] for line in listed.splitlines()[1:]] == ["west", "east"]
    assert listed.count("synced") == 2
    endpoints = west.lateen("proxy-config", "endpoints", "deploy/sleep").stdout.splitlines()
    ours = {line.split()[0] for line in endpoints if "||helloworld." in line}
    assert f"{Home(east.home).outside}:15443" in ours


def test_who_calls_is_known_in_the_other_cluster(pair):
    west, east = pair
    east.apply(ALLOWED.replace("NAME", "somebody"))
    seen(west, "v1", "403")
    east.apply(ALLOWED.replace("NAME", "sleep"))
    seen(west, "v1", "v2")


def test_the_other_network_takes_over_when_ours_has_no_instance(pair):
    west, _ = pair
    west.apply(FAILOVER)
    seen(west, "v1")
    west.kubectl("scale", "deployment/helloworld-v1", "--replicas=0")
    seen(west, "v2")
    west.kubectl("delete", "destinationrule", "helloworld")
    west.kubectl("scale", "deployment/helloworld-v1", "--replicas=1")
    seen(west, "v1", "v2")


EGRESS = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: abroad}
spec:
  podSelector: {matchLabels: {app: sleep}}
  policyTypes: [Egress]
  egress:
  - to: [{namespaceSelector: {}}]
  - to: [{ipBlock: {cidr: 10.97.0.0/16}}]
    ports: [{port: 6443}]
"""


def test_policies_let_pods_out_to_the_other_cluster_by_its_ports(pair):
    west, east = pair

    def answers(port):
        """The proxy's own connections are not redirected."""
        at = f"https://{Home(east.home).outside}:{port}"
        script = f"curl -sk -o /dev/null --connect-timeout 2 {at}; echo $?"
        return west.inside("sleep", "sh", "-c", script, container="istio-proxy").stdout.strip() != "28"

    assert answers(15443)
    west.apply(EGRESS)
    west.until(lambda: not answers(15443), what="closed port")
    assert answers(6443)
    west.kubectl("delete", "networkpolicy", "abroad")
    west.until(lambda: answers(15443), what="open port")


def test_a_cluster_goes_with_its_secret_and_comes_back(pair):
    west, east = pair
    west.kubectl("delete", "secret", "istio-remote-secret-east", "-n", "istio-system")
    seen(west, "v1")
    assert "east" not in west.lateen("remote-clusters").stdout
    west.apply(secret(east, "east"))
    seen(west, "v1", "v2")


def test_a_cluster_that_is_gone_is_told_and_ours_goes_on(pair):
    west, east = pair
    west.apply(FAILOVER)
    seen(west, "v1")
    east.lateen("cluster", "stop")
    assert set(ask(west)) == {"v1"}
    listed = west.until(lambda: "does not answer" in (found := west.lateen("remote-clusters")).stderr and found)
    assert "east" in listed.stdout
    assert "cluster east: the Kubernetes API at" in west.lateen("check", ok=False).stdout
