"""What the console's server tells its page. ``tools/shapes.py`` writes the page's types from these."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

NodeKind = Literal["app", "service", "workload", "external", "unknown"]
Level = Literal["Error", "Warning", "Info"]
State = Literal["healthy", "degraded", "down", "idle"]


class Node(TypedDict):
    """``in`` and ``out`` are requests per second."""

    id: str
    kind: NodeKind
    name: str
    namespace: str
    app: NotRequired[str]
    version: NotRequired[str]
    workload: NotRequired[str]
    parent: NotRequired[str]
    rateIn: float
    rateOut: float
    errorRate: float


class Edge(TypedDict):
    """Rates are per second, percentiles milliseconds; ``mtls`` is a share, None where no server reported it.
    ``now`` and ``nowErrors`` are what the collector's last look found."""

    id: str
    source: str
    target: str
    protocol: str
    requests: int
    rate: float
    errorRate: float
    codes: dict[str, int]
    flags: dict[str, int]
    bytesRate: float
    connections: int
    mtls: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    now: int
    nowErrors: int


class Graph(TypedDict):
    """``at`` is in seconds since 1970, ``window`` in seconds; ``failures``: proxy -> why it could not be read."""

    at: float
    window: float
    proxies: int
    failures: dict[str, str]
    boxes: list[str]
    nodes: list[Node]
    edges: list[Edge]


class History(TypedDict):
    """Of one node or edge: its rate in steps of ``step`` seconds, the latest last."""

    step: float
    rates: list[float]


class Finding(TypedDict):
    code: str
    level: Level
    object: str
    text: str


class Traffic(TypedDict):
    requests: float
    errors: float


class App(TypedDict):
    """One application of a namespace that is not healthy, and why."""

    name: str
    state: State
    says: str


class Namespace(TypedDict):
    """``failure``: why this namespace could not be looked at in full; empty where it could."""

    name: str
    labels: dict[str, str]
    apps: int
    healthy: int
    unhealthy: list[App]
    meshed: int
    pods: int
    config: int
    errors: int
    warnings: int
    findings: list[Finding]
    mtls: str
    traffic: Traffic
    failure: str


class Pod(TypedDict):
    name: str
    namespace: str
    containers: list[str]
    ready: bool


class ControlPlane(TypedDict):
    state: State
    says: str
    version: str


class Gateway(TypedDict):
    """``addresses``: port of the Service -> where it really listens; ``examples``: namespace -> a request to try."""

    name: str
    namespace: str
    addresses: dict[str, str]
    examples: dict[str, str]


class Mesh(TypedDict):
    """``collector``: why there are no metrics; empty where there are."""

    controlPlane: ControlPlane
    gateways: list[Gateway]
    collector: str
