"""Write console/fixtures/: what the server answers about Bookinfo with some traffic, for `npm run dev` and the README.

The graph is made by the collector's own code from metrics as proxies report them. python tools/fixtures.py
"""

from __future__ import annotations

import json
from pathlib import Path

from lateen.api.reading import HOST_PORTS
from lateen.console import health
from lateen.console.graph import Graph
from lateen.console.metrics import Added, Target
from lateen.console.series.scrape import samples
from lateen.console.shapes import Badges, History, Mesh, Namespace, Pod

FOLDER = Path(__file__).parents[1] / "console" / "fixtures"
WINDOW_S = 60.0
CALLS = (  # source, version, target, version, requests, of these 503
    ("istio-ingressgateway", "", "productpage", "v1", 120, 0),
    ("productpage", "v1", "details", "v1", 120, 0),
    ("productpage", "v1", "reviews", "v1", 41, 0),
    ("productpage", "v1", "reviews", "v2", 40, 0),
    ("productpage", "v1", "reviews", "v3", 39, 0),
    ("reviews", "v2", "ratings", "v1", 40, 1),
    ("reviews", "v3", "ratings", "v1", 39, 6),
)
BOUNDS = (1, 5, 10, 25, 50, 100, 250)


def _labels(side: str, app: str, version: str) -> dict[str, str]:
    namespace = "istio-system" if app.startswith("istio") else "default"
    out = {f"{side}_workload": f"{app}-{version}" if version else app, f"{side}_workload_namespace": namespace}
    return out | {f"{side}_app": app, f"{side}_version": version or "unknown"}


def _line(metric: str, labels: dict[str, str], value: int) -> str:
    inside = ",".join(f'{name}="{of}"' for name, of in labels.items())
    return f"{metric}{{{inside}}} {value}\n"


def metrics() -> bytes:
    """The text that the proxies of these calls would serve, clients and servers together."""
    out = []
    for source, sv, target, tv, requests, failed in CALLS:
        for reporter in ("source", "destination"):
            security = "mutual_tls" if reporter == "destination" else "unknown"
            labels = {"reporter": reporter, **_labels("source", source, sv), **_labels("destination", target, tv)}
            labels |= {"destination_service_name": target, "destination_service_namespace": "default"}
            labels |= {"request_protocol": "http", "connection_security_policy": security}
            for code, count in (("200", requests - failed), ("503", failed)):
                if count:
                    more = {"response_code": code, "response_flags": "-" if code == "200" else "UF"}
                    out.append(_line("istio_requests_total", labels | more, count))
            for bound in BOUNDS:
                share = min(1.0, bound / (60 if target == "productpage" else 20))
                count = int(requests * share)
                out.append(_line("istio_request_duration_milliseconds_bucket", labels | {"le": str(bound)}, count))
            infinite = labels | {"le": "+Inf"}
            out.append(_line("istio_request_duration_milliseconds_bucket", infinite, requests))
    return "".join(out).encode()


def _service() -> dict:
    annotations = {HOST_PORTS: "80=80,443=8443"}
    ports = [{"name": "http2", "port": 80}, {"name": "https", "port": 443}]
    meta = {"name": "istio-ingressgateway", "namespace": "istio-system", "annotations": annotations}
    return {
        "metadata": meta,
        "spec": {"type": "LoadBalancer", "selector": {"istio": "ingressgateway"}, "ports": ports},
        "status": {"loadBalancer": {"ingress": [{"hostname": "localhost", "ip": "127.0.0.1"}]}},
    }


def mesh() -> Mesh:
    rule = {
        "metadata": {"name": "bookinfo", "namespace": "default"},
        "spec": {
            "hosts": ["*"],
            "gateways": ["bookinfo-gateway"],
            "http": [{"match": [{"uri": {"exact": "/productpage"}}]}],
        },
    }
    return {
        "controlPlane": {"state": "healthy", "says": "", "version": "0.1.0"},
        "gateways": health.gateways([_service()], [rule]),
        "collector": "",
    }


def namespaces() -> list[Namespace]:
    default: Namespace = {
        "name": "default",
        "labels": {"istio-injection": "enabled"},
        "apps": 4,
        "healthy": 3,
        "unhealthy": [{"name": "ratings", "state": "degraded", "says": "ratings-v1: 1 of 2 pods ready"}],
        "meshed": 7,
        "pods": 7,
        "config": 6,
        "errors": 1,
        "warnings": 0,
        "findings": [
            {
                "code": "IST0101",
                "level": "Error",
                "object": "VirtualService default/ratings",
                "text": 'Referenced host not found: "ratigns"',
            }
        ],
        "mtls": "STRICT",
        "traffic": {"requests": 439, "errors": 7},
        "failure": "",
    }
    system = default | {"name": "istio-system", "apps": 5, "healthy": 5, "unhealthy": [], "meshed": 2, "pods": 5}
    system |= {"findings": [], "errors": 0, "config": 0, "mtls": "PERMISSIVE", "traffic": {"requests": 0, "errors": 0}}
    return [default, system]


def answers() -> dict[str, object]:
    added: Added = {}
    Target(fresh=True).read(samples(metrics()), added)
    graph = Graph().build(added, WINDOW_S)
    graph["proxies"] = 8
    for edge in graph["edges"]:
        edge["now"] = max(1, edge["requests"] // 60)
    history: History = {"step": 1.0, "rates": [2 + (i * 7 % 11) / 10 for i in range(60)]}
    pods: list[Pod] = [
        {"name": "ratings-v1-0f3f2", "namespace": "default", "containers": ["ratings", "istio-proxy"], "ready": True}
    ]
    badges: Badges = {
        "nodes": {
            "service/default/productpage": ["gateway"],
            "service/default/reviews": ["circuit-breaker", "shift", "virtual-service"],
            "service/default/ratings": ["fault", "virtual-service"],
        }
    }
    more = {"badges": badges, "changes": []}
    return more | {"graph": graph, "history": history, "mesh": mesh(), "namespaces": namespaces(), "pods": pods}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, answer in answers().items():
        (FOLDER / f"{name}.json").write_text(json.dumps(answer, indent=1) + "\n")
        print(FOLDER / f"{name}.json")
