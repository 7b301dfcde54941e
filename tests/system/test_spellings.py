"""A secret behind policies: no alternative spelling of its path or host bypasses them, at a gateway or at a sidecar."""

import functools
import json
import shutil
import sys

import backends
import pytest

pytestmark = pytest.mark.system

NS = "spellings"
SERVERS = {
    "python": ["python3", "-c", backends.PYTHON],
    "node": ["node", "-e", backends.NODE],
    "nginx": ["sh", "-c", f"cat > /tmp/nginx.conf <<'E'\n{backends.NGINX}\nE\nexec nginx -c /tmp/nginx.conf"],
}
SERVERS = {name: command for name, command in SERVERS.items() if name == "python" or shutil.which(name)}
"""Server -> the command that runs it. Where nginx or Node is not installed, the others are asked alone."""
SERVER = """
apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: NS, labels: {app: site, server: NAME}}
spec:
  containers:
  - name: site
    image: lateen/sleep
    command: COMMAND
    ports: [{containerPort: 8080}]
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: NS}
spec: {selector: {server: NAME}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
"""
WORLD = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {NS}, labels: {{istio-injection: enabled}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: client, namespace: {NS}, labels: {{app: client, sidecar.istio.io/inject: "false"}}}}
spec: {{containers: [{{name: client, image: lateen/http-echo}}]}}
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
  http: ROUTES
"""
SPELLINGS = r"""
/admin /admin?x /admin?/open/x /admin#x /./admin /a/../admin /%61dmin /%41dmin /%2e/admin //admin ///admin
/.//admin //./admin /\admin \admin /\\admin /a\..\admin /a/..\admin /%2fadmin /%2Fadmin /%5cadmin /%5Cadmin
/a%2f../admin /a%2f%2e%2e%2fadmin /a/..%2fadmin /%2e%2fadmin /%2f%2fadmin /a%5c..%5cadmin /a/%2e%2e/admin
/a/.%2e/admin /..%2fadmin /%2e%2e/admin /open/../admin /open/%2e%2e/admin /open/..%2fadmin /open%2f..%2fadmin
/open/..%5cadmin /open/..\admin /open/x/../../admin /open//../admin /open/.././admin /open/%2e%2e%2fadmin
/open//..//..//admin /.;/admin /x/..;/admin /;/admin /admin;x /admin/ /admin/. /admin/x/.. /admin%2f /admin//
/%2561dmin /%252e%252e/admin /open/%252e%252e/admin /open/%252e%252e%252fadmin /%255cadmin /%2e%2e;/admin
/x/%2e%2e;/admin /...//admin /%ff/../admin /admin%3fx /admin%23x /admin%3Bx /./%2561dmin /x/..%5c/admin
/admin%00 /admin%20 /admin%0a /%252fadmin /%25%32%66admin /%c0%afadmin /%u002fadmin /admin%
http://site.test/admin http://site.test//admin http://site.test/%2fadmin * admin /ADMIN
"""
PATHS = [
    *SPELLINGS.split(),
    "/admin\xad",
    "/admin?\xff",
    "/admin?\xad\xff/x",
    *(f"/%{byte:02x}admin" for byte in (*range(0x20, 0x40), 0x5C, 0x5E, 0x60, 0x7E, 0x7F, 0x80, 0xAF, 0xC0, 0xFF)),
]
NAMES = """
admin.site.test ADMIN.Site.test admin.site.test:80 admin.site.test:1234 admin.site.test. admin.site.test:
admin.site.test.:80 x@admin.site.test x:y@admin.site.test:80 admin.site.test,site.test %61dmin.site.test
%EF%BD%81dmin.site.test ad%C2%ADmin.site.test:80
"""
HOSTS = [*NAMES.split(), " admin.site.test ", "\xff@admin.site.test", "\xff:\xff@admin.site.test:80"]
AUTHORITIES = "admin.site.test x@admin.site.test:80 ADMIN.site.test. admin.site.test:1234 site.test@admin.site.test"
URLS = [f"{scheme}://{host}/open/x" for scheme in ("http", "HTTP", "https") for host in AUTHORITIES.split()]
"""Absolute ones in the place of a path, whose host counts instead of the field's (RFC 9112, 3.2.2)."""
SEVERAL = [
    ["site.test", "admin.site.test"],
    ["admin.site.test", "site.test"],
    ["admin.site.test", "admin.site.test"],
    ["x.site.test,admin.site.test"],
]
ROLES = [
    ["x-role: evil"],
    ["X-ROLE: evil"],
    ["x-role:evil"],
    ["x-role:\t evil \t"],
    ["x-role: ok,evil"],
    ["x-role: evil, ok"],
    ["x-role: ok ,\tevil\t, ok"],
    ["x-role: ,evil"],
    ["x-role: \xff,evil,\xff"],
    ["x-role: ok", "x-role: evil"],
    ["x-role: evil", "x-role: ok"],
    ["x-role: ok", "X-Role: ok,evil"],
    ["x-role: ok", "x-other: ok", "x-role:", "x-role: evil"],
    ["x-role:\r\n evil"],
    ["x-role: ok,\r\n evil"],
    ["x-role : evil"],
    [" x-role: evil"],
    ["x-other: ok\nx-role: evil"],
    ["x-other: ok\rx-role: evil"],
    ["connection: x-role", "x-role: evil"],
]


class Site:
    def __init__(self, mesh):
        self.mesh = mesh
        where = ("svc", "istio-ingressgateway", "-n", "istio-system")
        gateway = mesh.get(*where, "-o", "jsonpath={.spec.clusterIP}").strip()
        # Sidecars are asked at the pods' ports, without another proxy before them.
        pods = {n: mesh.get("pod", n, "-n", NS, "-o", "jsonpath={.status.podIP}").strip() for n in SERVERS}
        self.places = [place for name, ip in pods.items() for place in (f"{ip}:8080/{name}", f"{gateway}:80/{name}")]

    def ask(self, asked):
        """Place -> the requests that get the secret there; a request is (version, hosts, path, further headers)."""
        argv = ("exec", "client", "-n", NS, "-i", "--", sys.executable, "-c", backends.CLIENT)
        return json.loads(self.mesh.kubectl(*argv, stdin=json.dumps(asked)).stdout)

    def everywhere(self, asked):
        return self.ask(dict.fromkeys(self.places, asked))

    @functools.cached_property
    def bare(self):
        """Place -> of all spellings, those that get the secret while there is no policy."""
        return self.everywhere(BY_PATH + BY_HOST + BY_ROLE)

    def hits(self, asked):
        """(place, request) of those that get past a policy: of all of them, since a policy changes what proxies make of
        a path."""
        assert all(any(a in found for a in asked) for found in self.bare.values())
        return [(place, hit) for place, found in self.everywhere(asked).items() for hit in found]

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
    routes = [
        {"match": [{"headers": {"x-server": {"exact": n}}}], "route": [{"destination": {"host": n}}]} for n in SERVERS
    ]
    servers = (SERVER.replace("NAME", n).replace("COMMAND", json.dumps(c)) for n, c in SERVERS.items())
    text = WORLD.replace("ROUTES", json.dumps(routes)) + "---" + "".join(servers).replace("NS", NS)
    mesh.apply(text)
    mesh.kubectl("wait", "pod", "--all", "-n", NS, "--for=condition=Ready", "--timeout=60s")
    out = Site(mesh)
    first = spelled("/admin") + spelled(hosts=["admin.site.test"])
    mesh.until(lambda: set(map(len, out.everywhere(first).values())) == {4}, what="the secret without a policy")
    yield out
    mesh.remove(NS)


def rule(**operation):
    return [{"to": [{"operation": operation}]}]


def spelled(path="/open/x", hosts=("site.test",), lines=()):
    return [[version, list(hosts), path, list(lines)] for version in ("1.1", "2")]


BY_PATH = [asked for p in PATHS for asked in spelled(p)]
CONTRADICTING = [asked for h in SEVERAL for asked in spelled(hosts=h)]
BY_URL = [asked for url in URLS for asked in spelled(url)] + spelled("http://site.test/open/x", ["admin.site.test"])
BY_HOST = [asked for h in HOSTS for asked in spelled(hosts=[h])] + CONTRADICTING + BY_URL
BY_ROLE = [asked for lines in ROLES for asked in spelled(lines=lines)]


def test_many_spellings_lead_to_the_secret_without_a_policy(site):
    for spellings, least in ((BY_PATH, 70), (BY_HOST, 7), (BY_ROLE, 20)):
        for place, found in site.bare.items():
            hits = [asked for asked in found if asked in spellings]
            assert len(hits) > least, (place, hits)
            assert {version for version, *_ in hits} == {"1.1", "2"}
            # Requests with an invalid authority were sent beside these, over the same connections between proxies.
            assert all(asked in hits for asked in spellings[:2]), (place, hits)


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
        assert site.hits(BY_PATH) == []


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
        assert site.hits(BY_HOST) == []


def when(**condition):
    return [{"when": [{"key": "request.headers[x-role]", **condition}]}]


@pytest.mark.parametrize(
    "spec",
    [
        {"action": "DENY", "rules": when(values=["evil"])},
        {"action": "ALLOW", "rules": when(notValues=["*il"])},
    ],
    ids=["denied", "exempt by suffix"],
)
def test_no_spelling_of_a_header_gets_past_a_policy(site, spec):
    with site.protected(spec):
        assert site.hits(BY_ROLE) == []


def test_contradicting_hosts_are_refused_without_any_policy(site):
    """In HTTP/2 the authority stands for itself: what a field "host" says beside it never gets to the server."""
    for found in site.bare.values():
        assert all(version == "2" and hosts[0] == "admin.site.test" for version, hosts, *_ in found if len(hosts) > 1)


def test_the_host_of_an_absolute_url_replaces_the_other_one(site):
    """As in Istio; a policy and the application see the same host."""
    for place, found in site.bare.items():
        hits = [
            path
            for version, _, path, _ in found
            if version == "1.1" and "://" in path and "admin.site" in path and path.endswith("/open/x")
        ]
        assert {URLS[0], URLS[3]} <= set(hits), place
        assert all(asked not in found for asked in spelled("http://site.test/open/x", ["admin.site.test"])[:1]), place


def test_apply_says_which_spellings_are_others(site):
    with site.protected({"action": "DENY", "rules": rule(paths=["/admin"])}) as found:
        assert "/admin/, /admin;x, /admin%20 and /ADMIN are different paths from /admin" in found.said
