"""Istio's traffic tasks with the samples of httpbin, tcp-echo and sleep, each with what was measured.

https://istio.io/latest/docs/tasks/traffic-management/
"""

import json
import subprocess

import pytest
from samples import NS, V2, dr, obj, tasks, vs  # noqa: F401 - a fixture of this module

from lateen.kit import certs, times

pytestmark = pytest.mark.system

ROUTE = "route: [{destination: {host: httpbin}}]"
SUBSETS = ", subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]"


def test_request_routing_by_header(tasks):
    http = (
        "[{match: [{headers: {end-user: {exact: jason}}}], route: [{destination: {host: httpbin, subset: v2}}]},"
        " {route: [{destination: {host: httpbin, subset: v1}}]}]"
    )
    with tasks.applied(vs("httpbin", "httpbin", http)):
        tasks.until(lambda: tasks.versions("httpbin:8000/get", 20) == {"v1": 20}, what="all at v1")
        code, body = tasks.get("httpbin:8000/get", "-H 'end-user: jason'")
        assert (code, json.loads(body)["version"]) == (200, "v2")


def test_traffic_shifting_keeps_the_weights(tasks):
    """80 of 100: within four standard deviations of 500 requests (36 of 400)."""
    http = "[{route: [{destination: {host: httpbin, subset: v1}, weight: 80}, {destination: {host: httpbin, subset: v2}, weight: 20}]}]"
    with tasks.applied(vs("httpbin", "httpbin", http)):
        tasks.until(lambda: tasks.versions("httpbin:8000/get", 50).get("v1", 0) > 30, what="the weights")
        found = tasks.versions("httpbin:8000/get", 500)
        assert 364 <= found["v1"] <= 436, found


def test_tcp_shifting(tasks):
    text = (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: tcp-echo}\nspec:\n"
        "  hosts: [tcp-echo]\n  tcp: [{match: [{port: 9000}], route: [{destination: {host: tcp-echo, subset: v1}, weight: 25},"
        " {destination: {host: tcp-echo, subset: v2}, weight: 75}]}]"
    )
    loop = (
        'import socket\nfor i in range(200):\n s=socket.create_connection(("tcp-echo",9000),5)\n'
        ' s.sendall(b"x\\n")\n print(s.recv(20).decode().split()[0])\n s.close()'
    )

    def counted():
        words = tasks.sh(f"python3 -c '{loop}'").split()
        return {w: words.count(w) for w in set(words)}

    with tasks.applied(text):
        tasks.until(lambda: counted().get("two", 0) > 110, what="the weights")
        found = counted()
        assert 125 <= found["two"] <= 175, found  # 150 ± 4 standard deviations


def test_a_tcp_route_leads_to_a_service_of_http(tasks):
    """The sidecars of both would speak HTTP/2, and the connection has whatever its client sends."""
    tcp = "[{match: [{port: 9000}], route: [{destination: {host: httpbin, port: {number: 8000}}}]}]"
    with tasks.applied(obj("VirtualService", "tcp-echo", f"{{hosts: [tcp-echo], tcp: {tcp}}}")):
        for version in ("", "--http2-prior-knowledge"):
            tasks.until(lambda v=version: tasks.get("tcp-echo:9000/get", v)[0] == 200, what=f"an answer {version}")


def test_faults_hit_their_share(tasks):
    http = f"[{{fault: {{abort: {{httpStatus: 555, percentage: {{value: 50}}}}}}, {ROUTE}}}]"
    with tasks.applied(vs("httpbin", "httpbin", http)):
        tasks.until(lambda: 555 in tasks.codes("httpbin:8000/get", 20), what="the fault")
        found = tasks.codes("httpbin:8000/get", 400)
        assert 160 <= found[555] <= 240, found
    http = f"[{{fault: {{delay: {{fixedDelay: 1s, percentage: {{value: 100}}}}}}, {ROUTE}}}]"
    with tasks.applied(vs("httpbin", "httpbin", http)):
        took = "curl -s -o /dev/null -w '%{time_total}' httpbin:8000/get"
        tasks.until(lambda: 1.0 <= float(tasks.sh(took)) < 3, what="the delay")


def test_timeouts_and_retries(tasks):
    with tasks.applied(vs("httpbin", "httpbin", f"[{{timeout: 0.5s, {ROUTE}}}]")):
        tasks.until(lambda: tasks.get("httpbin:8000/delay/2")[0] == 504, what="the timeout")
        assert tasks.get("httpbin:8000/delay/0")[0] == 200
    retries = "retries: {attempts: 3, retryOn: 5xx}"
    with tasks.applied(
        vs("httpbin", "httpbin", f"[{{{retries}, {ROUTE}, headers: {{request: {{set: {{x-r: again}}}}}}}}]")
    ):
        tasks.until(lambda: '"X-R"' in tasks.get("httpbin:8000/get")[1], what="the rule")
        before = served(tasks, "503")
        assert tasks.get("httpbin:8000/status/503")[0] == 503
        tasks.until(lambda: served(tasks, "503") == before + 4, what="one try and three retries")
    # Without a rule nothing that the application may have seen is sent twice, a POST least of all.
    tasks.until(lambda: '"X-R"' not in tasks.get("httpbin:8000/get")[1], what="no rule")
    before = served(tasks, "503")
    assert tasks.get("httpbin:8000/status/503", "-X POST")[0] == 503
    tasks.until(lambda: served(tasks, "503") == before + 1, what="one try")


def served(tasks, code, version=""):
    """Requests that httpbin's sidecars have seen end with a status."""
    labels = f"app=httpbin,version={version}" if version else "app=httpbin"
    pods = tasks.mesh.get("pod", "-n", NS, "-l", labels, "-o", "jsonpath={.items[*].metadata.name}").split()
    total = 0
    for pod in pods:
        text = tasks.mesh.kubectl(
            "exec", pod, "-n", NS, "-c", "istio-proxy", "--", "pilot-agent", "request", "GET",
            "stats/prometheus?usedonly&filter=requests_total",
        ).stdout  # fmt: skip
        for line in text.splitlines():
            if 'reporter="destination"' in line and f'response_code="{code}"' in line:
                total += int(float(line.rsplit(" ", 1)[1]))
    return total


def test_circuit_breaking_rejects_excess_requests(tasks):
    pool = "{connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1, http2MaxRequests: 1, maxRequestsPerConnection: 1}}}"
    with tasks.applied(dr("httpbin", "httpbin", pool, SUBSETS)):
        script = "for i in 1 2 3 4 5 6 7 8 9 10; do curl -s -m 9 -o /dev/null -w '%{http_code}\\n' httpbin:8000/delay/0.3 & done; wait"

        def overflowed():
            found = tasks.sh(script).split()
            return found.count("503") >= 2 and found.count("200") >= 1

        tasks.until(overflowed, what="refusals beside successes")
    tasks.mesh.apply(V2.replace("metadata: {name", f"metadata: {{namespace: {NS}, name"))
    tasks.until(lambda: tasks.sh(script).split().count("200") == 10, what="no limits")


def test_outlier_detection_ejects_the_bad_one(tasks):
    """v2 answers every request with 555 through a fault of its own sidecar; it is ejected after three."""
    bad = obj(
        "EnvoyFilter", "broken",
        "{workloadSelector: {labels: {version: v2}}, configPatches: [{applyTo: HTTP_FILTER,"
        " match: {context: SIDECAR_INBOUND, listener: {portNumber: 8080}}, patch: {operation: INSERT_FIRST, value: {name: broken,"
        " typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua, default_source_code:"
        " {inline_string: 'function envoy_on_request(h) h:respond({[\":status\"]=\"555\"}, \"no\") end'}}}}}]}",
        "networking.istio.io/v1alpha3",
    )  # fmt: skip
    with tasks.applied(bad):
        tasks.until(lambda: 555 in tasks.codes("httpbin:8000/get", 20), what="a broken v2")
        policy = "{outlierDetection: {consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 30s, maxEjectionPercent: 100}}"
        with tasks.applied(dr("httpbin", "httpbin", policy, SUBSETS)):
            tasks.until(lambda: tasks.codes("httpbin:8000/get", 40) == {200: 40}, what="the ejection")
            text = tasks.mesh.kubectl(
                "exec", tasks.mesh.pod("sleep", NS), "-n", NS, "-c", "istio-proxy", "--",
                "pilot-agent", "request", "GET", "clusters",
            ).stdout  # fmt: skip
            flags = [
                ln for ln in text.splitlines() if ln.startswith("outbound|8000||httpbin.tasks") and "health_flags" in ln
            ]
            assert sum("failed_outlier_check" in ln for ln in flags) == 1, flags
    tasks.mesh.apply(V2.replace("metadata: {name", f"metadata: {{namespace: {NS}, name"))


def test_mirroring_copies_requests(tasks):
    http = (
        "[{route: [{destination: {host: httpbin, subset: v1}}], mirror: {host: httpbin, subset: v2},"
        " mirrorPercentage: {value: 100}}]"
    )
    with tasks.applied(vs("httpbin", "httpbin", http)):
        tasks.until(lambda: tasks.versions("httpbin:8000/get", 20) == {"v1": 20}, what="all at v1")
        before = served(tasks, "200", "v2")
        tasks.codes("httpbin:8000/get", 30)
        tasks.until(lambda: served(tasks, "200", "v2") >= before + 30, what="copies at v2")


def placed(name, place):
    return f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {NS}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: placed, place: {name}}}}}
  template:
    metadata: {{labels: {{app: placed, place: {name}, istio-locality: {place}}}}}
    spec:
      containers:
      - {{name: httpbin, image: mccutchen/go-httpbin, env: [{{name: SERVICE_VERSION, value: {name}}}], ports: [{{containerPort: 8080}}]}}
"""


def test_localities_fail_over_and_share(tasks):
    service = f"""
apiVersion: v1
kind: Service
metadata: {{name: placed, namespace: {NS}}}
spec: {{selector: {{app: placed}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
"""
    everything = "---".join([service, placed("near", "west.a"), placed("far", "east.b"), placed("farther", "north.c")])
    tasks.mesh.apply(everything)
    client = tasks.mesh.pod("sleep", NS)
    tasks.mesh.kubectl("label", "pod", client, "-n", NS, "istio-locality=west.a")
    try:
        tasks.mesh.kubectl(
            "wait",
            "-n",
            NS,
            "--for=condition=Available",
            "deploy",
            "near",
            "far",
            "farther",
            "--timeout=90s",
            timeout=120,
        )
        tasks.until(lambda: len(tasks.versions("placed/get", 30)) == 3, what="three places")
        failover = (
            "{outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 1m},"
            " loadBalancer: {localityLbSetting: {enabled: true, failover: [{from: west, to: north}]}}}"
        )
        with tasks.applied(dr("placed", "placed", failover)):
            tasks.until(lambda: tasks.versions("placed/get", 30) == {"near": 30}, what="only the near one")
            tasks.mesh.kubectl("scale", "deploy", "near", "-n", NS, "--replicas=0")
            tasks.until(lambda: tasks.versions("placed/get", 30) == {"farther": 30}, 40, "the one to fail over to")
            tasks.mesh.kubectl("scale", "deploy", "near", "-n", NS, "--replicas=1")
            tasks.until(lambda: tasks.versions("placed/get", 30) == {"near": 30}, 60, "the near one again")
        share = "{loadBalancer: {localityLbSetting: {distribute: [{from: west/*, to: {west/*: 70, north/*: 30}}]}}}"
        with tasks.applied(dr("placed", "placed", share)):
            tasks.until(lambda: set(tasks.versions("placed/get", 60)) == {"near", "farther"}, what="two places")
            found = tasks.versions("placed/get", 400)
            assert 243 <= found["near"] <= 317, found
    finally:
        tasks.mesh.kubectl("label", "pod", client, "-n", NS, "istio-locality-")
        tasks.mesh.kubectl("delete", "-f", "-", stdin=everything)


OUTSIDE = (
    "{hosts: [httpbin.example.com], location: MESH_EXTERNAL, resolution: DNS, ports: [{number: 80, name: http,"
    " protocol: HTTP, targetPort: 8000}], endpoints: [{address: httpbin.tasks-outside.svc.cluster.local}]}"
)


def test_egress_control(tasks):
    """Everything may be called, then only what is known, then what an entry adds."""
    url = "httpbin.tasks-outside.svc.cluster.local:8000/get"
    address = tasks.mesh.get(
        "pod", "-n", "tasks-outside", "-l", "app=httpbin", "-o", "jsonpath={.items[0].status.podIP}"
    )
    assert tasks.get(f"{address}:8080/get")[0] == 200
    only = obj(
        "Sidecar", "default", "{egress: [{hosts: [./*, istio-system/*]}], outboundTrafficPolicy: {mode: REGISTRY_ONLY}}"
    )
    with tasks.applied(only):
        tasks.until(lambda: tasks.get(f"{address}:8080/get")[0] in (0, 502), what="nothing unknown")
        assert tasks.get(url)[0] in (0, 502, 503)  # a known port without the host, or an unknown one
        assert tasks.get("httpbin:8000/get")[0] == 200
        with tasks.applied(obj("ServiceEntry", "ext", OUTSIDE)):
            found = f"--connect-to httpbin.example.com:80:{address}:80"
            tasks.until(lambda: tasks.get("http://httpbin.example.com/get", found)[0] == 200, what="the entry")
            with tasks.applied(
                vs(
                    "ext",
                    "httpbin.example.com",
                    "[{timeout: 0.3s, route: [{destination: {host: httpbin.example.com}}]}]",
                )
            ):
                tasks.until(
                    lambda: tasks.get("http://httpbin.example.com/delay/2", found)[0] == 504,
                    what="a timeout for the outside",
                )
    tasks.until(lambda: tasks.get(f"{address}:8080/get")[0] == 200, what="everything again")


def test_the_sidecar_originates_tls(tasks):
    """Plain text from the application, TLS with a verified certificate on the way (istiod plays the outside)."""
    entry = (
        "{hosts: [istiod.istio-system.svc], location: MESH_EXTERNAL, resolution: DNS, ports: [{number: 80, name: http,"
        " protocol: HTTP, targetPort: 443}], endpoints: [{address: istiod.istio-system.svc.cluster.local}]}"
    )
    url, to = "http://istiod.istio-system.svc/inject", "--connect-to istiod.istio-system.svc:80:10.1.1.1:80"
    with tasks.applied(obj("ServiceEntry", "origin", entry)):
        root = "caCertificates: /var/run/secrets/istio/root-cert.pem"
        good = f"{{tls: {{mode: SIMPLE, {root}, sni: istiod.istio-system.svc, subjectAltNames: [istiod.istio-system.svc]}}}}"
        with tasks.applied(dr("origin", "istiod.istio-system.svc", good)):
            tasks.until(lambda: tasks.get(url, to)[0] == 405, what="an answer through TLS")  # it wants a POST
        bad = good.replace("subjectAltNames: [istiod.istio-system.svc]", "subjectAltNames: [other.example.com]")
        with tasks.applied(dr("origin", "istiod.istio-system.svc", bad)):
            tasks.until(lambda: tasks.get(url, to)[0] == 503, what="a certificate of somebody else")
        with tasks.applied(dr("origin", "istiod.istio-system.svc", "{tls: {mode: SIMPLE}}")):
            tasks.until(lambda: tasks.get(url, to)[0] == 503, what="an authority that the system does not trust")


def test_a_certificate_in_a_file_is_read_again(tasks):
    """When another one is moved into its place, as Kubernetes does with mounted Secrets."""
    entry = (
        "{hosts: [istiod.istio-system.svc], location: MESH_EXTERNAL, resolution: DNS, ports: [{number: 80, name: http,"
        " protocol: HTTP, targetPort: 443}], endpoints: [{address: istiod.istio-system.svc.cluster.local}]}"
    )
    url, to = "http://istiod.istio-system.svc/inject", "--connect-to istiod.istio-system.svc:80:10.1.1.1:80"
    wrong = certs.authority("somebody else", times.now(), days=1).certificate
    file, pod = "/etc/istio/proxy/moved.pem", tasks.mesh.pod("sleep", NS)
    tasks.sh(f"cat > {file} <<'END'\n{wrong}END", container="istio-proxy")
    rule = f"{{tls: {{mode: SIMPLE, caCertificates: {file}, subjectAltNames: [istiod.istio-system.svc]}}}}"
    with tasks.applied(obj("ServiceEntry", "origin", entry), dr("origin", "istiod.istio-system.svc", rule)):
        has = ("pc", "secret", f"{pod}.{NS}")
        tasks.until(lambda: f"file-root:{file}" in tasks.mesh.lateen(*has).stdout, what="the file as a secret")
        tasks.until(lambda: tasks.get(url, to)[0] == 503, what="an authority that has not signed the certificate")
        right = "/var/run/secrets/istio/root-cert.pem"
        tasks.sh(f"cp {right} {file}.new && mv {file}.new {file}", container="istio-proxy")
        tasks.until(lambda: tasks.get(url, to)[0] == 405, what="an answer through TLS")


def test_egress_gateway(tasks):
    gateway = obj(
        "Gateway", "egress",
        "{selector: {istio: egressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [httpbin.example.com]}]}",
    )  # fmt: skip
    http = (
        "[{match: [{gateways: [mesh], port: 80}], route: [{destination: {host: istio-egressgateway.istio-system.svc.cluster.local,"
        " port: {number: 80}}}]}, {match: [{gateways: [egress], port: 80}], route: [{destination: {host: httpbin.example.com,"
        " port: {number: 80}}, headers: {request: {set: {x-egress: passed}}}}]}]"
    )
    with tasks.applied(
        obj("ServiceEntry", "ext", OUTSIDE), gateway, vs("ext", "httpbin.example.com", http, "[mesh, egress]")
    ):
        to = "--connect-to httpbin.example.com:80:10.1.1.1:80"
        tasks.until(
            lambda: '"X-Egress"' in tasks.get("http://httpbin.example.com/get", to)[1], what="the way over the gateway"
        )


def test_egress_gateway_with_mutual_tls_is_chosen_by_the_rules_sni(tasks):
    gateway = obj(
        "Gateway", "egress",
        "{selector: {istio: egressgateway}, servers: [{port: {number: 80, name: https-out, protocol: HTTPS},"
        " hosts: [httpbin.example.com], tls: {mode: ISTIO_MUTUAL}}]}",
    )  # fmt: skip
    service = "istio-egressgateway.istio-system.svc.cluster.local"
    http = (
        f"[{{match: [{{gateways: [mesh], port: 80}}], route: [{{destination: {{host: {service}, subset: ext,"
        " port: {number: 80}}}]}, {match: [{gateways: [egress], port: 80}], route: [{destination: {host:"
        " httpbin.example.com, port: {number: 80}}, headers: {request: {set: {x-egress: passed}}}}]}]"
    )

    def rule(more=""):
        tls = f"{{mode: ISTIO_MUTUAL, sni: httpbin.example.com{more}}}"
        policy = f"{{portLevelSettings: [{{port: {{number: 80}}, tls: {tls}}}]}}"
        return obj(
            "DestinationRule", "egress", f"{{host: {service}, subsets: [{{name: ext, trafficPolicy: {policy}}}]}}"
        )

    to = "--connect-to httpbin.example.com:80:10.1.1.1:80"
    url = "http://httpbin.example.com/get"
    with tasks.applied(
        obj("ServiceEntry", "ext", OUTSIDE), gateway, rule(), vs("ext", "httpbin.example.com", http, "[mesh, egress]")
    ):
        tasks.until(lambda: '"X-Egress"' in tasks.get(url, to)[1], what="the way over the gateway")
        tasks.applied(rule(', subjectAltNames: ["spiffe://cluster.local/ns/other/sa/somebody-else"]'))
        tasks.until(lambda: tasks.get(url, to)[0] == 503, what="a name that the gateway does not have")


def test_a_name_with_a_trailing_dot_stays_in_the_mesh(tasks):
    code, body = tasks.get("http://httpbin.tasks.svc.cluster.local.:8000/headers")
    assert (code, "X-Forwarded-Client-Cert" in body) == (200, True)


def ingress(tasks, host, path, *more):
    url = f"{tasks.mesh.ingress()}{path}"
    out = subprocess.run(
        ["curl", "-s", "-m", "5", "-w", "\n%{http_code}", "-H", f"Host: {host}", *more, url],
        capture_output=True, text=True, timeout=10, check=False,
    ).stdout  # fmt: skip
    body, _, code = out.rpartition("\n")
    return int(code or 0), body


def test_ingress_control(tasks):
    gateway = obj(
        "Gateway", "httpbin",
        "{selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [httpbin.example.com]}]}",
    )  # fmt: skip
    http = "[{match: [{uri: {prefix: /status}}, {uri: {prefix: /delay}}], route: [{destination: {host: httpbin, port: {number: 8000}}}]}]"
    with tasks.applied(gateway, vs("httpbin-in", "httpbin.example.com", http, "[httpbin]")):
        tasks.until(lambda: ingress(tasks, "httpbin.example.com", "/status/200")[0] == 200, what="the gateway")
        assert ingress(tasks, "httpbin.example.com", "/headers")[0] == 404
        assert ingress(tasks, "httpbin.example.com", "/status/418")[0] == 418


def test_kubernetes_ingress(tasks):
    text = f"""
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: web, namespace: {NS}, annotations: {{kubernetes.io/ingress.class: istio}}}}
spec:
  rules:
  - host: web.example.com
    http:
      paths:
      - {{path: /status, pathType: Prefix, backend: {{service: {{name: httpbin, port: {{number: 8000}}}}}}}}
      - {{path: /get, pathType: Exact, backend: {{service: {{name: httpbin, port: {{name: http}}}}}}}}
      - {{path: /gone, pathType: Prefix, backend: {{service: {{name: gone, port: {{number: 80}}}}}}}}
"""
    default = "  defaultBackend: {service: {name: httpbin, port: {number: 8000}}}\n"
    tasks.mesh.apply(text)
    try:
        tasks.until(lambda: ingress(tasks, "web.example.com", "/status/200")[0] == 200, what="the Ingress")
        assert ingress(tasks, "web.example.com", "/get")[0] == 200
        assert ingress(tasks, "web.example.com", "/getx")[0] == 404
        assert ingress(tasks, "web.example.com", "/statusx")[0] == 404
        assert ingress(tasks, "web.example.com", "/status")[0] == 404  # the application's own answer
        assert ingress(tasks, "web.example.com", "/gone/away")[0] == 503
        told = tasks.mesh.lateen("analyze", "-n", NS)
        assert f"there is no Service {NS}/gone" in told.stdout + told.stderr
        tasks.mesh.apply(text + default)
        tasks.until(lambda: ingress(tasks, "web.example.com", "/headers")[0] == 200, what="the default backend")
        assert ingress(tasks, "other.example.com", "/headers")[0] == 200
        shown = tasks.mesh.get("ingress", "-n", NS)
        assert "web.example.com" in shown
        other = text.replace("name: web,", "name: other,").replace("ingress.class: istio", "ingress.class: nginx")
        tasks.mesh.apply(other)
        of_another = '{"status": {"loadBalancer": {"ingress": [{"ip": "10.9.8.7"}]}}}'
        tasks.mesh.kubectl(
            "patch", "ingress", "other", "-n", NS, "--subresource=status", "--type=merge", "-p", of_another
        )
        tasks.until(lambda: "127.0.0.1" in tasks.mesh.get("ingress", "web", "-n", NS), what="its address")
        # What another controller serves is that one's to speak of.
        assert "10.9.8.7" in tasks.mesh.get("ingress", "other", "-n", NS)
        tasks.mesh.kubectl("delete", "ingress", "other", "-n", NS)
    finally:
        tasks.mesh.kubectl("delete", "-f", "-", stdin=text)
    tasks.until(lambda: ingress(tasks, "web.example.com", "/get")[0] == 404, what="its end")


def clusters(tasks):
    pod = tasks.mesh.pod("sleep", NS)
    text = tasks.mesh.kubectl(
        "exec", pod, "-n", NS, "-c", "istio-proxy", "--", "pilot-agent", "request", "GET", "clusters?format=json"
    ).stdout
    return {c["name"] for c in json.loads(text)["cluster_statuses"]}


def test_a_sidecar_resource_scopes_what_a_proxy_has(tasks):
    everything = clusters(tasks)
    only = obj(
        "Sidecar",
        "few",
        "{workloadSelector: {labels: {app: sleep}}, egress: [{hosts: [./httpbin.tasks.svc.cluster.local]}]}",
    )
    with tasks.applied(only):
        tasks.until(lambda: len(clusters(tasks)) < len(everything) - 10, what="fewer clusters")
        mine = {c for c in clusters(tasks) if c.startswith("outbound|")}
        assert {c.split("|")[3] for c in mine} == {"httpbin.tasks.svc.cluster.local"}
        assert tasks.get("httpbin:8000/get")[0] == 200
    tasks.until(lambda: clusters(tasks) == everything, what="all clusters again")
