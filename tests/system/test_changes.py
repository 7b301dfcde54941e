"""No request fails while configuration changes around it: retries off, under load."""

import json
import subprocess
import time
from datetime import timedelta

import pytest
from revoking import listing
from samples import NS, dr, obj, tasks, vs  # noqa: F401 - a fixture of this module

from lateen.kit import certs, times

pytestmark = pytest.mark.system

LOAD = """
import http.client, json, os, sys, threading, time
host, port, stop = sys.argv[1], int(sys.argv[2]), sys.argv[3]
end, bad, count = time.time() + 240, [], [0] * 4
def run(i):
    c = http.client.HTTPConnection(host, port, timeout=8)
    while time.time() < end and not os.path.exists(stop):
        try:
            c.request("GET", "/get")
            r = c.getresponse(); r.read()
            if r.status != 200: bad.append([r.status, r.getheader("x-envoy-overloaded")])
        except Exception as e:
            bad.append([type(e).__name__, str(e)]); c.close()
        count[i] += 1
        time.sleep(0.01)
ts = [threading.Thread(target=run, args=(i,)) for i in range(4)]
[t.start() for t in ts]; [t.join() for t in ts]
print(json.dumps({"requests": sum(count), "bad": bad[:20], "failed": len(bad)}))
"""
OFF = "retries: {attempts: 0}"


class Load:
    """Requests from the sleep pod, until the block ends; ``result`` is there afterwards."""

    def __init__(self, tasks, host="httpbin", port=8000):
        self.tasks, self.host, self.port = tasks, host, port
        self.stop = f"/tmp/stop-{time.monotonic_ns()}"

    def __enter__(self):
        mesh = self.tasks.mesh
        self.process = subprocess.Popen(
            [mesh.kubectl_path, "exec", mesh.pod("sleep", NS), "-n", NS, "-c", "sleep", "-i", "--",
             "python3", "-c", LOAD, self.host, str(self.port), self.stop],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=mesh.environment,
        )  # fmt: skip
        time.sleep(0.5)
        return self

    def __exit__(self, *_):
        time.sleep(1)
        self.tasks.sh(f"touch {self.stop}")
        out, errors = self.process.communicate(timeout=30)
        self.result = json.loads(out) if out.strip() else {"failed": errors}


def quiet(load):
    assert load.result["failed"] == 0, load.result
    assert load.result["requests"] > 100


ROUTED = f"[{{{OFF}, route: [{{destination: {{host: httpbin, subset: %s}}}}]}}]"


def test_a_subset_is_added_and_routed_to_in_one_apply(tasks):
    with tasks.applied(vs("httpbin", "httpbin", f"[{{{OFF}, route: [{{destination: {{host: httpbin}}}}]}}]")):
        with Load(tasks) as load:
            for i in range(6):
                more = f", subsets: [{{name: new{i}, labels: {{version: v2}}}}]"
                tasks.applied(
                    vs("httpbin", "httpbin", ROUTED % f"new{i}"),
                    dr("httpbin-new", "httpbin", "{loadBalancer: {simple: RANDOM}}", more),
                )
                tasks.until(lambda: tasks.versions("httpbin:8000/get", 5) == {"v2": 5}, what="the new subset")
                tasks.applied(
                    vs("httpbin", "httpbin", f"[{{{OFF}, route: [{{destination: {{host: httpbin, subset: v1}}}}]}}]")
                )
                time.sleep(0.3)
        quiet(load)
    tasks.mesh.kubectl("delete", "destinationrule", "httpbin-new", "-n", NS, "--ignore-not-found")


def test_a_subset_is_taken_away_with_its_route_in_one_apply(tasks):
    """The cluster is removed after the routes that refer to it."""
    policy = "{loadBalancer: {simple: RANDOM}}"

    def change(name):
        subsets = f", subsets: [{{name: {name}, labels: {{version: v2}}}}]"
        return tasks.applied(vs("httpbin", "httpbin", ROUTED % name), dr("httpbin-new", "httpbin", policy, subsets))

    with change("first"):
        tasks.until(lambda: tasks.versions("httpbin:8000/get", 5) == {"v2": 5}, what="the first subset")
        with Load(tasks) as load:
            for i in range(8):
                change(f"next{i}")
                time.sleep(0.5)
        quiet(load)


SERVICE = (
    "apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: " + NS + "}\n"
    "spec: {selector: {app: httpbin}, ports: [{name: http, port: 8000, targetPort: 8080}]}"
)


def test_a_service_is_renamed(tasks):
    """A new name; the routes are moved to it, and the old name is removed."""
    tasks.mesh.apply(SERVICE % "name0")
    rule = f"[{{{OFF}, route: [{{destination: {{host: %s}}}}]}}]"
    with tasks.applied(vs("httpbin", "httpbin", rule % "name0")):
        tasks.until(lambda: tasks.get("httpbin:8000/get")[0] == 200, what="the first name")
        with Load(tasks) as load:
            for i in range(1, 5):
                tasks.mesh.apply(SERVICE % f"name{i}" + "\n---\n" + vs("httpbin", "httpbin", rule % f"name{i}").replace(
                    "metadata: {", f"metadata: {{namespace: {NS}, ", 1))  # fmt: skip
                time.sleep(1.0)  # as any careful person would: see that the new one works, then take the old one away
                tasks.mesh.kubectl("delete", "service", f"name{i - 1}", "-n", NS)
                time.sleep(0.3)
        quiet(load)
    tasks.mesh.kubectl("delete", "service", "name4", "-n", NS)


ROLLED = f"""
apiVersion: v1
kind: Service
metadata: {{name: rolled, namespace: {NS}}}
spec: {{selector: {{app: rolled}}, ports: [{{name: http, port: 8000, targetPort: 8080}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: rolled, namespace: {NS}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: rolled}}}}
  template:
    metadata: {{labels: {{app: rolled}}, annotations: {{round: "0"}}}}
    spec:
      containers:
      - name: httpbin
        image: mccutchen/go-httpbin
        ports: [{{containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /get, port: 8080}}, periodSeconds: 1}}
        lifecycle: {{preStop: {{exec: {{command: [sleep, "2"]}}}}}}
"""


def test_a_rolling_update_of_the_endpoints(tasks):
    tasks.mesh.apply(ROLLED)
    wait = ("rollout", "status", "deploy/rolled", "-n", NS, "--timeout=90s")
    tasks.mesh.kubectl(*wait, timeout=120)
    with tasks.applied(vs("rolled", "rolled", f"[{{{OFF}, route: [{{destination: {{host: rolled}}}}]}}]")):
        tasks.until(lambda: tasks.codes("rolled:8000/get", 20) == {200: 20}, what="the rolled service")
        with Load(tasks, "rolled") as load:
            tasks.mesh.apply(ROLLED.replace('"0"', '"1"'))
            tasks.mesh.kubectl(*wait, timeout=120)
            time.sleep(3)
        quiet(load)
    tasks.mesh.kubectl("delete", "-f", "-", stdin=ROLLED)


def test_a_certificate_of_a_gateway_is_rotated(tasks, tmp_path):
    mesh = tasks.mesh
    ca = certs.authority("example", times.now(), days=2)

    def secret():
        made = certs.issue(ca, ["rotated.example.com"], times.now(), timedelta(days=1))
        (tmp_path / "crt").write_text(made.certificate)
        (tmp_path / "key").write_text(made.key)
        text = mesh.kubectl(
            "create", "secret", "tls", "rotated", "-n", "istio-system", f"--cert={tmp_path / 'crt'}",
            f"--key={tmp_path / 'key'}", "--dry-run=client", "-o", "yaml",
        ).stdout  # fmt: skip
        mesh.apply(text)

    secret()
    server = "{port: {number: 443, name: https, protocol: HTTPS}, hosts: [rotated.example.com], tls: {mode: SIMPLE, credentialName: rotated}}"
    gateway = obj("Gateway", "rotated", f"{{selector: {{istio: ingressgateway}}, servers: [{server}]}}")
    rule = vs(
        "rotated", "rotated.example.com", f"[{{{OFF}, route: [{{destination: {{host: httpbin}}}}]}}]", "[rotated]"
    )
    (tmp_path / "ca").write_text(ca.certificate)
    url = f"https://rotated.example.com:{mesh.host_port(443)}/get"
    curl = ["curl", "-s", "-m", "5", "--cacert", str(tmp_path / "ca"), "-o", "/dev/null", "-w", "%{http_code}",
            "--resolve", f"rotated.example.com:{mesh.host_port(443)}:127.0.0.1", url]  # fmt: skip

    def code():
        return subprocess.run(curl, capture_output=True, text=True, timeout=10, check=False).stdout

    with tasks.applied(gateway, rule):
        tasks.until(lambda: code() == "200", what="the gateway")
        seen = []
        for _ in range(4):
            secret()
            deadline = time.monotonic() + 1.5
            while time.monotonic() < deadline:
                seen.append(code())
        assert len(seen) > 40
        assert set(seen) == {"200"}, seen
    mesh.kubectl("delete", "secret", "rotated", "-n", "istio-system")


ISTIOD = ("LATEEN_ROOT_ANNOUNCED_FOR=20s", "DEFAULT_WORKLOAD_CERT_TTL=40s")
"""Pods see changes of mounted ConfigMaps after at most 15 s, and agents after two more."""


@pytest.mark.long
@pytest.mark.timeout(600)
def test_roots_and_intermediates_are_replaced(tasks):
    """Of pods, with a handshake for each request; in the end there are revocation lists."""
    mesh, root = tasks.mesh, certs.authority("root", times.now())

    def plug(name, **more):
        own = certs.intermediate(root, name, times.now())
        data = {"ca-cert.pem": own.certificate, "ca-key.pem": own.key, "root-cert.pem": root.certificate}
        meta = {"name": "cacerts", "namespace": "istio-system"}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": meta,
            "stringData": {**data, **more},
        }
        mesh.apply(json.dumps(secret))

    def file(app, name):
        return tasks.sh(f"cat /etc/istio/proxy/{name}", app, "istio-proxy")

    def signed_by(name):
        chains = [certs.split(file(app, "cert-chain.pem")) for app in ("sleep", "httpbin")]
        return all(len(chain) > 1 and certs.subject(chain[1]) == f"CN={name}" for chain in chains)

    mesh.lateen(
        "install",
        "--set",
        "profile=demo",
        *(a for s in ISTIOD for a in ("--set", f"values.pilot.env.{s}")),
        "-y",
        timeout=120,
    )
    try:
        restarted = [f"deploy/{app}" for app in ("sleep", "httpbin", "httpbin-v2")]
        mesh.kubectl("rollout", "restart", *restarted, "-n", NS)
        for app in restarted:
            mesh.kubectl("rollout", "status", app, "-n", NS, "--timeout=60s")
        pods = ("pods", "-n", NS, "-l", "app in (sleep,httpbin)", "-o", "name")
        tasks.until(lambda: len(mesh.get(*pods).split()) == len(restarted), 60, "the end of the former pods")
        (former,) = certs.split(file("sleep", "root-cert.pem"))
        each = "{connectionPool: {http: {maxRequestsPerConnection: 1}}}"
        rule = vs("httpbin", "httpbin", f"[{{{OFF}, route: [{{destination: {{host: httpbin, subset: v1}}}}]}}]")
        with tasks.applied(rule, dr("httpbin-each", "httpbin", each)), Load(tasks) as load:
            plug("first")
            tasks.until(lambda: signed_by("first"), 150, "certificates under another root")
            mesh.lateen("x", "ca", "distrust", certs.fingerprint(former))
            plug("second", **{"ca-crl.pem": listing(root)})
            tasks.until(lambda: signed_by("second"), 90, "certificates of another intermediate")
            gone = [lambda app=app: former not in file(app, "root-cert.pem") for app in ("sleep", "httpbin")]
            tasks.until(lambda: all(g() for g in gone), 60, "the end of the former root")
            assert '"crl"' in file("httpbin", "sds-rootca.json")
            assert " revocation lists are in effect" in mesh.lateen("x", "ca", "status").stderr
        quiet(load)
    finally:
        mesh.kubectl("delete", "secret", "cacerts", "-n", "istio-system", "--ignore-not-found")
        mesh.kubectl("delete", "destinationrule", "httpbin-each", "-n", NS, "--ignore-not-found")
        mesh.reinstall()
