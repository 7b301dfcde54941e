"""A secret behind policies: no alternative spelling of its path or host bypasses them, at a gateway or at a sidecar."""

import json

import pytest

pytestmark = pytest.mark.system

NS = "spellings"
SITE = '''
import functools, http.server, os

class Site(http.server.SimpleHTTPRequestHandler):
    """Python's own file server, which decodes paths, with a virtual host."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        given = [h for line in self.headers.get_all("Host", []) for h in line.split(",")]
        names = {h.strip().lower().rpartition("@")[2].partition(":")[0].rstrip(".") for h in given}
        if "admin.site.test" not in names:
            return super().do_GET()
        self.send_response(200)
        self.send_header("content-length", "6")
        self.end_headers()
        self.wfile.write(b"SECRET")

    def log_message(self, *_):
        pass

os.makedirs("/tmp/site/open")
open("/tmp/site/admin", "w").write("SECRET")
open("/tmp/site/open/x", "w").write("open")
made = functools.partial(Site, directory="/tmp/site")
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), made).serve_forever()
'''
WORLD = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {NS}, labels: {{istio-injection: enabled}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: site, namespace: {NS}, labels: {{app: site}}}}
spec:
  containers:
  - {{name: site, image: lateen/sleep, command: [python3, -c, {json.dumps(SITE)}], ports: [{{containerPort: 8080}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: site, namespace: {NS}}}
spec: {{selector: {{app: site}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: client, namespace: {NS}, labels: {{app: client, sidecar.istio.io/inject: "false"}}}}
spec: {{containers: [{{name: client, image: lateen/sleep}}]}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: site, namespace: {NS}}}
spec:
  selector: {{istio: ingressgateway}}
  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [site.test, "*.site.test"]}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: site, namespace: {NS}}}
spec:
  hosts: [site.test, "*.site.test"]
  gateways: [site]
  http: [{{route: [{{destination: {{host: site}}}}]}}]
"""
CLIENT = r"""
import concurrent.futures, http.client, json, socket, subprocess, sys

def h1(address, hosts, path):
    lines = [b"GET " + path.encode("latin-1") + b" HTTP/1.1", *(b"Host: " + h.encode() for h in hosts)]
    with socket.create_connection(address.split(":"), timeout=5) as s:
        s.sendall(b"\r\n".join([*lines, b"Connection: close", b"", b""]))
        answer = http.client.HTTPResponse(s)
        try:
            answer.begin()
            return answer.read()
        except (OSError, http.client.HTTPException):
            return b""

def h2(address, hosts, path):
    command = ["curl", "-s", "-m", "5", "-g", "--http2-prior-knowledge", "--path-as-is", "-H", f"Host: {hosts[0]}"]
    return subprocess.run([*command, f"http://{address}{path}"], capture_output=True).stdout

out = {}
for address, asked in json.load(sys.stdin).items():
    # HTTP/2 has one host; curl sends neither fragments nor what is no path.
    other = [a for a in asked[:100] if len(a[0]) == 1 and a[1].isascii() and a[1][0] == "/" and "#" not in a[1]]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        sent = [("1.1", a, pool.submit(h1, address, *a)) for a in asked]
        sent += [("2", a, pool.submit(h2, address, *a)) for a in other]
        found = [(version, a, answer.result()) for version, a, answer in sent]
    out[address] = {"asked": len(found), "hits": [(v, *a) for v, a, r in found if b"SECRET" in r]}
print(json.dumps(out))
"""
SPELLINGS = r"""
/admin /admin?x /admin?/open/x /admin#x /./admin /a/../admin /%61dmin /%41dmin /%2e/admin //admin ///admin
/.//admin //./admin /\admin \admin /\\admin /a\..\admin /a/..\admin /%2fadmin /%2Fadmin /%5cadmin /%5Cadmin
/a%2f../admin /a%2f%2e%2e%2fadmin /a/..%2fadmin /%2e%2fadmin /%2f%2fadmin /a%5c..%5cadmin /a/%2e%2e/admin
/a/.%2e/admin /..%2fadmin /%2e%2e/admin /open/../admin /open/%2e%2e/admin /open/..%2fadmin /open%2f..%2fadmin
/open/..%5cadmin /open/..\admin /open/x/../../admin /open//../admin /open/.././admin /open/%2e%2e%2fadmin
/open//..//..//admin /.;/admin /x/..;/admin /;/admin /admin;x /admin/ /admin/. /admin/x/.. /admin%2f /admin//
/admin%00 /admin%20 /admin%0a /%252fadmin /%25%32%66admin /%c0%afadmin /%u002fadmin /admin%
http://site.test/admin http://site.test//admin http://site.test/%2fadmin * admin /ADMIN
"""
PATHS = [
    *SPELLINGS.split(),
    "/admin\xad",
    *(f"/%{byte:02x}admin" for byte in (*range(0x20, 0x40), 0x5C, 0x5E, 0x60, 0x7E, 0x7F, 0x80, 0xAF, 0xC0, 0xFF)),
]
NAMES = """
admin.site.test ADMIN.Site.test admin.site.test:80 admin.site.test:1234 admin.site.test. admin.site.test:
admin.site.test.:80 x@admin.site.test x:y@admin.site.test:80 admin.site.test,site.test
"""
HOSTS = [*NAMES.split(), " admin.site.test "]
SEVERAL = [
    ["site.test", "admin.site.test"],
    ["admin.site.test", "site.test"],
    ["admin.site.test", "admin.site.test"],
    ["x.site.test,admin.site.test"],
]


class Site:
    def __init__(self, mesh):
        self.mesh = mesh
        # The sidecar is asked at the pod's port, without another proxy before it.
        sidecar = mesh.get("pod", "site", "-n", NS, "-o", "jsonpath={.status.podIP}").strip()
        where = ("svc", "istio-ingressgateway", "-n", "istio-system")
        gateway = mesh.get(*where, "-o", "jsonpath={.spec.clusterIP}").strip()
        self.places = (f"{sidecar}:8080", f"{gateway}:80")

    def ask(self, asked):
        """Place -> the requests that got the secret there."""
        argv = ("exec", "client", "-n", NS, "-i", "--", "python3", "-c", CLIENT)
        return json.loads(self.mesh.kubectl(*argv, stdin=json.dumps(dict.fromkeys(self.places, asked))).stdout)

    def hits(self, asked):
        return [h for found in self.ask(asked).values() for h in found["hits"]]

    def protected(self, spec):
        """Apply a policy to the site's sidecar and to the gateway; returns what ends it."""
        return Protected(self, spec)


class Protected:
    def __init__(self, site, spec):
        self.site = site
        one = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy"}
        meta = ({"name": "secret", "namespace": NS}, {"name": "secret", "namespace": "istio-system"})
        labels = ({"app": "site"}, {"istio": "ingressgateway"})
        specs = ({"selector": {"matchLabels": found}, **spec} for found in labels)
        objects = [one | {"metadata": m, "spec": s} for m, s in zip(meta, specs, strict=True)]
        self.text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.said = site.mesh.apply(self.text).stderr
        for m in meta:
            where = ("authorizationpolicy", "secret", "-n", m["namespace"])
            site.mesh.kubectl("wait", *where, "--for=condition=Reconciled", "--timeout=30s")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.site.mesh.kubectl("delete", "-f", "-", stdin=self.text)


@pytest.fixture(scope="module")
def site(mesh):
    mesh.apply(WORLD)
    mesh.kubectl("wait", "pod", "--all", "-n", NS, "--for=condition=Ready", "--timeout=60s")
    out = Site(mesh)
    mesh.until(lambda: len(out.hits([[["site.test"], "/admin"]])) == 4, what="the secret without a policy")
    yield out
    mesh.kubectl("delete", "namespace", NS, timeout=120)


def rule(**operation):
    return [{"to": [{"operation": operation}]}]


def test_many_spellings_lead_to_the_secret_without_a_policy(site):
    found = site.ask([[[h], "/open/x"] for h in HOSTS] + [[["site.test"], p] for p in PATHS])
    assert all(len(there["hits"]) > 30 for there in found.values()), found
    assert {version for there in found.values() for version, *_ in there["hits"]} == {"1.1", "2"}


@pytest.mark.parametrize(
    "spec",
    [
        {"action": "DENY", "rules": rule(paths=["/admin"])},
        {"action": "ALLOW", "rules": rule(notPaths=["/admin"])},
        {"action": "ALLOW", "rules": rule(paths=["/open/*"])},
    ],
    ids=["denied", "exempt", "not among the allowed"],
)
def test_no_spelling_of_a_path_gets_past_a_policy(site, spec):
    with site.protected(spec):
        assert site.hits([[["site.test"], p] for p in PATHS]) == []


@pytest.mark.parametrize(
    "spec",
    [
        {"action": "DENY", "rules": rule(hosts=["admin.site.test"])},
        {"action": "ALLOW", "rules": rule(notHosts=["admin.site.test"])},
        {"action": "ALLOW", "rules": rule(hosts=["site.test"])},
    ],
    ids=["denied", "exempt", "not among the allowed"],
)
def test_no_spelling_of_a_host_gets_past_a_policy(site, spec):
    with site.protected(spec):
        assert site.hits([[[h], "/open/x"] for h in HOSTS] + [[h, "/open/x"] for h in SEVERAL]) == []


def test_contradicting_hosts_are_refused_without_any_policy(site):
    assert site.hits([[h, "/open/x"] for h in SEVERAL]) == []


def test_apply_says_which_spellings_are_others(site):
    with site.protected({"action": "DENY", "rules": rule(paths=["/admin"])}) as found:
        assert "/admin/, /admin;x, /admin%20 and /ADMIN are different paths from /admin" in found.said
