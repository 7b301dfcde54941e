"""The graph of traffic between workloads, from what the proxies counted in a period of time. Pure.

Both ends of a call may report it. ``reports`` decides whose report counts; the server's tells whether the call used
mutual TLS.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

from lateen.console import shapes
from lateen.console.metrics import UNKNOWN, Added, Flow, Sample, Security, Workload, failed, quantile
from lateen.console.reports import Reports

KINDS = ("versionedApp", "app", "workload", "service")


@dataclass
class Edge:
    source: str
    target: str
    protocol: str
    requests: float = 0.0
    errors: float = 0.0
    codes: dict[str, float] = field(default_factory=dict)
    flags: dict[str, float] = field(default_factory=dict)
    sent: float = 0.0
    received: float = 0.0
    opened: float = 0.0
    security: Security = field(default_factory=Security)
    buckets: dict[float, float] = field(default_factory=dict)

    def json(self, window_s: float) -> shapes.Edge:
        return {
            "id": f"{self.source}>{self.target}:{self.protocol}",
            "source": self.source,
            "target": self.target,
            "protocol": self.protocol,
            "requests": round(self.requests),
            "rate": self.requests / window_s,
            "errorRate": self.errors / self.requests if self.requests else 0.0,
            "codes": {k: round(v) for k, v in sorted(self.codes.items())},
            "flags": {k: round(v) for k, v in sorted(self.flags.items()) if k not in ("-", "")},
            "bytesRate": (self.sent + self.received) / window_s,
            "connections": round(self.opened),
            "mtls": self.security.share(),
            "p50": quantile(0.5, self.buckets),
            "p90": quantile(0.9, self.buckets),
            "p95": quantile(0.95, self.buckets),
            "p99": quantile(0.99, self.buckets),
            "now": 0,
            "nowErrors": 0,
        }


class Graph:
    def __init__(self, kind: str = "versionedApp", namespaces: Iterable[str] = ()) -> None:
        """``namespaces``: only include calls that involve one of them; empty for all."""
        self._kind, self._namespaces = kind, frozenset(namespaces)
        self.nodes: dict[str, shapes.Node] = {}
        self.edges: dict[tuple[str, str, str], Edge] = {}

    def build(self, added: Added, window_s: float, reports: Reports | None = None) -> shapes.Graph:
        """The graph of a time range; the collector fills in ``at``, ``proxies``, ``failures`` and the current rates.
        ``reports``: of a longer time, where this one is too short to tell whose reports count."""
        reports = reports or Reports(added)
        for sample, value in added.items():
            flow = sample.flow
            if not self._shown(flow):
                continue
            counts = value * reports.share(flow)
            for edge in self._edges_of(flow):
                if sample.metric in ("requests", "opened"):
                    edge.security.add(flow, value)
                if counts and sample.metric == "requests":
                    _count(edge, sample, counts)
                elif counts:
                    _add(edge, sample.metric, sample.detail, counts)
        live = [e for e in self.edges.values() if e.requests or e.opened or e.sent or e.received]
        inward: dict[str, list[Edge]] = {}
        outward: dict[str, list[Edge]] = {}
        for edge in live:
            inward.setdefault(edge.target, []).append(edge)
            outward.setdefault(edge.source, []).append(edge)
        nodes = [
            _with_traffic(n, inward.get(n["id"], []), outward.get(n["id"], []), window_s)
            for n in self.nodes.values()
            if n["id"] in inward or n["id"] in outward
        ]
        boxes = {n["parent"] for n in nodes if "parent" in n}
        return {
            "at": 0.0,
            "window": window_s,
            "proxies": 0,
            "failures": {},
            "nodes": sorted(nodes, key=lambda n: n["id"]),
            "boxes": sorted(boxes),
            "edges": sorted((e.json(window_s) for e in live), key=lambda e: str(e["id"])),
        }

    def _shown(self, flow: Flow) -> bool:
        touched = {flow.source.namespace, flow.destination.namespace, flow.service_namespace}
        return not self._namespaces or bool(touched & self._namespaces)

    def _edges_of(self, flow: Flow) -> list[Edge]:
        source = self._workload(flow.source)
        service = self._service(flow.service, flow.service_namespace)
        target = None if flow.destination.name == UNKNOWN else self._workload(flow.destination)
        if self._kind == "service":
            pairs = [(source, service)] if source != service else []
        elif self._kind == "workload" or flow.service == UNKNOWN:
            pairs = [(source, target or service)]
        else:
            pairs = [(source, service), *([(service, target)] if target else [])]
        return [self._edge(a, b, flow.protocol) for a, b in pairs]

    def _edge(self, a: str, b: str, protocol: str) -> Edge:
        return self.edges.setdefault((a, b, protocol), Edge(a, b, protocol))

    def _workload(self, w: Workload) -> str:
        if w.name == UNKNOWN:
            return self._node("unknown", "unknown", "unknown", "")
        if self._kind == "workload" or w.app == UNKNOWN:
            return self._node(f"workload/{w.namespace}/{w.name}", "workload", w.name, w.namespace, workload=w.name)
        if self._kind == "service":
            return self._service(w.app, w.namespace)
        more = {"app": w.app, "workload": w.name}
        if self._kind == "app":
            return self._node(f"app/{w.namespace}/{w.app}", "app", w.app, w.namespace, **more)
        if w.version == UNKNOWN:
            return self._node(f"app/{w.namespace}/{w.app}/", "app", w.app, w.namespace, **more)
        box = f"box/{w.namespace}/{w.app}"
        node = f"app/{w.namespace}/{w.app}/{w.version}"
        return self._node(node, "app", w.app, w.namespace, version=w.version, parent=box, **more)

    def _service(self, name: str, namespace: str) -> str:
        if name == UNKNOWN:
            return self._node(f"external/{name}", "external", "no route", "")
        if name in ("PassthroughCluster", "BlackHoleCluster"):
            return self._node(f"external/{name}", "external", name, "")
        return self._node(f"service/{namespace}/{name}", "service", name, namespace)

    def _node(self, node: str, kind: shapes.NodeKind, name: str, namespace: str, **more: str) -> str:
        if node not in self.nodes:
            new: shapes.Node = {
                "id": node,
                "kind": kind,
                "name": name,
                "namespace": namespace,
                "rateIn": 0.0,
                "rateOut": 0.0,
                "errorRate": 0.0,
            }
            new.update(cast(shapes.Node, more))
            self.nodes[node] = new
        return node


def _with_traffic(node: shapes.Node, inward: list[Edge], outward: list[Edge], window_s: float) -> shapes.Node:
    requests = sum(e.requests for e in inward)
    node["rateIn"] = requests / window_s
    node["rateOut"] = sum(e.requests for e in outward) / window_s
    node["errorRate"] = sum(e.errors for e in inward) / requests if requests else 0.0
    return node


def _count(edge: Edge, sample: Sample, value: float) -> None:
    edge.requests += value
    code = sample.detail or UNKNOWN
    edge.codes[code] = edge.codes.get(code, 0.0) + value
    edge.flags[sample.flags] = edge.flags.get(sample.flags, 0.0) + value
    edge.errors += value if failed(sample) else 0.0


def _add(edge: Edge, metric: str, detail: str, value: float) -> None:
    if metric == "bucket":
        bound = float(detail)
        edge.buckets[bound] = edge.buckets.get(bound, 0.0) + value
    else:
        setattr(edge, metric, getattr(edge, metric) + value)


def health(added: Added) -> dict[str, tuple[float, float]]:
    """Namespace -> (requests, errors) that its workloads received."""
    out: dict[str, tuple[float, float]] = {}
    reports = Reports(added)
    for sample, value in added.items():
        flow = sample.flow
        counts = value * reports.share(flow)
        if sample.metric != "requests" or not counts:
            continue
        where = flow.service_namespace if flow.service_namespace != UNKNOWN else flow.destination.namespace
        requests, errors = out.get(where, (0.0, 0.0))
        out[where] = (requests + counts, errors + (counts if failed(sample) else 0.0))
    return out
