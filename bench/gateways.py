"""Gateways of the Gateway API: 1,000 HTTPRoutes at one, and the memory and statuses of several that are deployed.

CPU time of this process for what istiod computes; PSS of each Gateway's agent and Envoy, and of the pod together; how
long after the change of a route its status is written (wall clock, on an idle machine).
``LATEEN_BENCH_GATEWAYS``: how many are deployed (20; 0: none).
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pods import descendants, memory
from world import cluster, report

ROUTES, CHANGES = 1000, 20
BOOTSTRAP = "etc/istio/proxy/envoy-rev.json"
LIMITS = {"build_s": 1.0, "change_ms": 20.0, "pss_mb": 30.0, "status_s": 1.0}
GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: g{n}, namespace: default}}
spec: {{gatewayClassName: istio, listeners: [{{name: http, port: 80, protocol: HTTP}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r{n}, namespace: default}}
spec:
  parentRefs: [{{name: g{n}}}]
  rules: [{{backendRefs: [{{name: productpage, port: 9080}}]}}]
"""


def route(i: int, rewritten: str = "") -> Any:
    from lateen.api import kinds
    from lateen.api import objects as o
    from lateen.api.config import decode
    from lateen.api.gateway_api import HTTPRoute

    filters = [{"type": "URLRewrite", "urlRewrite": {"hostname": rewritten}}] if rewritten else []
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": f"/p{i}"}}],
        "filters": filters,
        "backendRefs": [{"name": f"s{i % 100}", "port": 80}],
    }
    spec = {
        "parentRefs": [{"name": "web", "namespace": "edge"}],
        "hostnames": [f"h{i // 10}.example.com"],
        "rules": [rule],
    }
    ref = kinds.HTTP_ROUTE.ref("default", f"r{i}")
    return o.Resource(ref, f"u{i}", f"u{i}/{rewritten}", "2026-01-01T00:00:00Z", decode(HTTPRoute, spec))


def objects() -> Any:
    """1,000 routes of 100 hosts, which lead to 100 Services."""
    from lateen.api import kinds
    from lateen.api import objects as o
    from lateen.api.config import decode
    from lateen.api.gateway_api import Gateway, GatewayClass
    from lateen.mesh.objects import Objects

    def resource(kind: Any, namespace: str, name: str, spec: Any) -> Any:
        return o.Resource(kind.ref(namespace, name), f"u-{name}", f"u-{name}/1", "2026-01-01T00:00:00Z", spec)

    listener = {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}
    gateway = decode(Gateway, {"gatewayClassName": "istio", "listeners": [listener]})
    of_class = decode(GatewayClass, {"controllerName": "istio.io/gateway-controller"})
    label = (("gateway.networking.k8s.io/gateway-name", "web"),)
    port = o.ServicePort("http", 80, 8080, "TCP")
    services = {
        ("default", f"s{i}"): o.Service("default", f"s{i}", f"10.96.1.{i + 1}", (port,), (("app", f"s{i}"),))
        for i in range(100)
    }
    services["edge", "web-istio"] = o.Service(
        "edge", "web-istio", "10.96.2.1", (o.ServicePort("http", 80, 80, "TCP"),), label
    )
    pod = o.Pod("edge", "web-0", "uid", "10.1.1.1", label, "default", "web-istio", (("", 80, "TCP"),), True)
    tables: dict[Any, dict[tuple[str, str], Any]] = {
        kinds.SERVICE: services,
        kinds.POD: {("edge", "web-0"): pod},
        kinds.GATEWAY_CLASS: {("", "istio"): resource(kinds.GATEWAY_CLASS, "", "istio", of_class)},
        kinds.KUBERNETES_GATEWAY: {("edge", "web"): resource(kinds.KUBERNETES_GATEWAY, "edge", "web", gateway)},
        kinds.HTTP_ROUTE: {("default", f"r{i}"): route(i) for i in range(ROUTES)},
    }
    return replace(Objects(), by_kind={kind.id: found for kind, found in tables.items()})


def build() -> None:
    """The first view of a gateway with its resources, and the same after each of some changes of a route."""
    from lateen.api import kinds
    from lateen.mesh.model import Mesh
    from lateen.mesh.views import Views
    from lateen.xds.generate import generate

    found = objects()
    began = time.process_time()
    views = Views(Mesh(found))
    pod = found.pods["edge", "web-0"]
    generate(views.of(pod, "router"))
    whole = time.process_time() - began
    spent = []
    for n in range(CHANGES):
        found = found.put(kinds.HTTP_ROUTE, ("default", f"r{n}"), route(n, f"changed{n}.example.com"))
        began = time.process_time()
        views.advance(found)
        generate(views.of(pod, "router"))
        spent.append(1000 * (time.process_time() - began))
    report(
        routes=ROUTES,
        build_s=round(whole, 3),
        change_ms_median=round(statistics.median(spent), 1),
        change_ms_max=round(max(spent), 1),
        limits={k: LIMITS[k] for k in ("build_s", "change_ms")},
    )


def kubectl(*argv: str, text: str = "") -> str:
    done = subprocess.run(["kubectl", *argv], input=text, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        sys.exit(f"kubectl {' '.join(argv)}: {done.stderr}")
    return done.stdout


def deployed(count: int) -> None:
    with cluster() as environment:
        kubectl("apply", "-f", "-", text="---".join(GATEWAY.format(n=n) for n in range(count)))
        kubectl("wait", "--for=condition=Programmed", "--timeout=580s", "gtw", "--all")
        _memory(Path(environment["LATEEN_HOME"]), count)
        _status()


def _memory(home: Path, count: int) -> None:
    """Gateways' Envoys are told from others by their node's id; the agent is the parent."""
    envoys, agents = list[float](), list[float]()
    for pid in descendants(int((home / "cluster.pid").read_text().split()[0])):
        path = Path(f"/proc/{pid}")
        try:
            if (path / "comm").read_text().strip() != "envoy":
                continue
            if re.search(r"router~[^~]*~g\d+-istio-", (path / "root" / BOOTSTRAP).read_text()):
                parent = re.search(r"PPid:\s*(\d+)", (path / "status").read_text())
                envoys.append(memory(path)[1])
                agents.append(memory(Path(f"/proc/{parent[1]}"))[1] if parent else 0)
        except OSError:
            continue
    both = [e + a for e, a in zip(envoys, agents, strict=True)]
    report(
        gateways=count,
        measured=len(both),
        **{
            f"{name}_pss_mb": round(statistics.median(found), 1)
            for name, found in (("envoy", envoys), ("agent", agents), ("gateway", both))
            if found
        },
        limit_pss_mb=LIMITS["pss_mb"],
    )


def _status() -> None:
    """From the event of the change until that of the status which has its generation, as one watch sees both."""
    watch = subprocess.Popen(
        ["kubectl", "get", "httproute", "r0", "-w", "-o", "json"], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    changed, spent = dict[int, float](), dict[int, float]()
    reader = threading.Thread(target=_follow, args=(watch.stdout, changed, spent))
    reader.start()
    for n in range(CHANGES):
        time.sleep(1.5)
        rules = [{"backendRefs": [{"name": "productpage", "port": 9080 + n % 2}]}]
        kubectl("patch", "httproute", "r0", "--type=merge", "-p", json.dumps({"spec": {"rules": rules}}))
    time.sleep(3)
    watch.terminate()
    reader.join()
    found = [seconds for generation, seconds in spent.items() if generation > min(changed)]
    report(
        changes=len(changed) - 1,
        status_s_median=round(statistics.median(found), 2),
        status_s_max=round(max(found), 2),
        limit_s=LIMITS["status_s"],
    )


def _follow(lines: Any, changed: dict[int, float], spent: dict[int, float]) -> None:
    text = ""
    for line in lines:
        text += line
        if line.rstrip() != "}":
            continue
        route, text = json.loads(text), ""
        generation, now = route["metadata"]["generation"], time.monotonic()
        changed.setdefault(generation, now)
        parents = route.get("status", {}).get("parents", [])
        observed = {c["observedGeneration"] for p in parents for c in p["conditions"]}
        if observed == {generation}:
            spent.setdefault(generation, now - changed[generation])


def main() -> None:
    build()
    count = int(os.environ.get("LATEEN_BENCH_GATEWAYS", "20"))
    if count:
        deployed(count)


if __name__ == "__main__":
    main()
