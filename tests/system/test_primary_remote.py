"""Two embedded clusters on one machine, of which only one has a control plane: it serves the proxies of both."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from test_several_clusters import HELLO, SAMPLES
from world import ROOT, Mesh

from lateen.cluster.home import Home

pytestmark = [pytest.mark.system, pytest.mark.long]

STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""
PRIMARY = "values.global.externalIstiod=true"


def lineup(name):
    return ["--set", f"values.global.multiCluster.clusterName={name}", "--set", f"values.global.network=net-{name}"]


def gateway(mesh, name):
    made = mesh.run("sh", str(SAMPLES / "gen-eastwest-gateway.sh"), "--network", f"net-{name}", "--cluster", name)
    mesh.lateen("install", "-y", "-f", "-", stdin=made.stdout)


def start(mesh, other):
    started = mesh.lateen("cluster", "start", "--neighbour", str(other.home), ok=False)
    if "cannot create namespaces" in started.stderr:
        return started.stderr.strip()
    assert started.returncode == 0, started.stderr
    return ""


def primary(west):
    west.lateen("install", "-y", "--set", "profile=minimal", "--set", PRIMARY, *lineup("west"))
    gateway(west, "west")
    for exposed in ("expose-istiod.yaml", "expose-services.yaml"):
        west.kubectl("apply", "-n", "istio-system", "-f", str(SAMPLES / exposed))
    west.apply(STRICT)


def attach(east, west):
    west_at = Home(west.home).outside
    east.kubectl("create", "namespace", "istio-system")
    east.kubectl("annotate", "namespace", "istio-system", "topology.istio.io/controlPlaneClusters=west")
    address = f"values.global.remotePilotAddress={west_at}"
    path = "values.istiodRemote.injectionPath=/inject/cluster/east/net/net-east"
    east.lateen("install", "-y", "--set", "profile=remote", "--set", address, "--set", path, *lineup("east"))
    server = f"https://{Home(east.home).outside}:6443"
    west.apply(east.lateen("create-remote-secret", "--name", "east", "--server", server).stdout)


def announced(east):
    found = east.kubectl("get", "mutatingwebhookconfiguration", "-o", "jsonpath={..caBundle}").stdout
    return bool(found) and east.kubectl("get", "configmap", "istio-ca-root-cert", ok=False).returncode == 0


def populate(mesh, version):
    mesh.kubectl("label", "namespace", "default", "istio-injection=enabled")
    mesh.apply(HELLO.format(version))
    mesh.kubectl("apply", "-f", str(ROOT / "samples/sleep/sleep.yaml"))
    for name in (f"helloworld-{version}", "sleep"):
        mesh.kubectl("rollout", "status", f"deployment/{name}", "--timeout=60s")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    tmp = [tmp_path_factory.mktemp(name) for name in ("west", "east")]
    west, east = (Mesh(t / "home", t) for t in tmp)
    try:
        with ThreadPoolExecutor() as pool:
            first, second = pool.submit(start, west, east), pool.submit(start, east, west)
            if why := first.result() or second.result():
                pytest.skip(why)
        primary(west)
        attach(east, west)
        east.until(lambda: announced(east), what="the roots in the other cluster")
        gateway(east, "east")
        with ThreadPoolExecutor() as pool:
            first, second = pool.submit(populate, west, "v1"), pool.submit(populate, east, "v2")
            first.result(), second.result()
        yield west, east
    finally:
        for mesh in (west, east):
            mesh.lateen("cluster", "delete", ok=False)


def answers(mesh):
    script = "for i in $(seq 8); do curl -s -m 5 -w ' %{http_code}\\n' helloworld:5000/hello; done"
    lines = mesh.inside("sleep", "sh", "-c", script).stdout.splitlines()
    return Counter(line.split("version: ")[1][:2] for line in lines if "version: " in line)


def test_pods_of_both_clusters_call_each_other(pair):
    for mesh in pair:
        mesh.until(lambda mesh=mesh: set(answers(mesh)) == {"v1", "v2"}, what="answers of both clusters")


def in_order(mesh):
    """What the checks of the mesh say; empty while one of them fails."""
    found = mesh.lateen("check", ok=False).stdout
    return "" if "×" in found.partition("control-plane")[2] else found


def test_the_proxies_of_both_are_shown(pair):
    west, east = pair
    listed = [line.split() for line in west.lateen("proxy-status").stdout.splitlines()[1:]]
    clusters = Counter(line[1] for line in listed)
    assert clusters == {"west": 3, "east": 3}
    for mesh, says in ((west, "the mesh can be read (east)"), (east, "istiod is ready (in another cluster)")):
        assert says in mesh.until(lambda mesh=mesh: in_order(mesh), what="a mesh in order")


ABORT = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: helloworld}
spec:
  hosts: [helloworld]
  http:
  - fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: helloworld}}]
"""


def test_rules_are_those_of_the_control_planes_cluster(pair):
    west, east = pair
    west.apply(ABORT)
    command = "curl -s -o /dev/null -w '%{http_code}' helloworld:5000/hello"
    east.until(lambda: east.inside("sleep", "sh", "-c", command).stdout == "418", what="the abort")
    west.kubectl("delete", "virtualservice", "helloworld")
    east.until(lambda: set(answers(east)) == {"v1", "v2"}, what="answers of both clusters")
