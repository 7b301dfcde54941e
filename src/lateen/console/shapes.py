"""What the console's server sends to its page. ``tools/shapes.py`` generates the page's types from these."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

NodeKind = Literal["app", "service", "workload", "external", "unknown"]
Level = Literal["Error", "Warning", "Info"]
Unit = Literal["rps", "share", "ms", "Bps", "bytes", "s", "count", "cores"]
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
    """Rates are per second, percentiles in milliseconds; ``mtls`` is a share, or None if nobody knows.
    ``now`` and ``nowErrors`` are the rates of the collector's last reading."""

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


Badge = Literal[
    "no-sidecar",
    "fault",
    "circuit-breaker",
    "shift",
    "timeout",
    "retries",
    "mirror",
    "virtual-service",
    "gateway",
]
"""What configuration does to a node of the graph, the most important first."""


class Badges(TypedDict):
    """``nodes``: identity of a node in the graph -> its badges, for each of the graph's kinds."""

    nodes: dict[str, list[Badge]]


class Change(TypedDict):
    """A change of configuration; ``at`` in seconds since 1970; ``by``: what the program that wrote it calls itself."""

    at: float
    kind: str
    namespace: str
    name: str
    what: Literal["created", "changed", "deleted"]
    by: str


class History(TypedDict):
    """The rate of one node or edge in steps of ``step`` seconds, the latest last."""

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
    """``failure``: why this namespace could not be read in full; empty if it could."""

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
    found: int
    findings: list[Finding]
    mtls: str
    traffic: Traffic
    failure: str


class Pod(TypedDict):
    """``finished``: the application has ended, without an error; ``says``: why it is not ready, where Kubernetes says
    it."""

    name: str
    namespace: str
    containers: list[str]
    ready: bool
    finished: bool
    says: str


class PlainCaller(TypedDict):
    """``name``: a pod, or an address; ``last``: when its latest call was, as the access log spells it."""

    name: str
    port: int
    last: str


class PlainCalls(TypedDict):
    """Calls of a service in plaintext; ``last`` in seconds since 1970; ``callers``: empty without access logs;
    ``unread``: pods of the service whose logs were not read, so that callers may be missing."""

    namespace: str
    service: str
    calls: int
    last: float
    callers: list[PlainCaller]
    unread: int


class LogLine(TypedDict):
    """``says``: what a failed request's flags and details mean, and the objects that routed it."""

    container: str
    text: str
    says: list[str]


class Check(TypedDict):
    """A finding about an object; ``line`` of its YAML, 0 where it is about all of it; ``documentation`` is a URL or a
    section of our documents."""

    code: str
    level: Level
    object: str
    text: str
    line: int
    documentation: str


class Condition(TypedDict):
    type: str
    status: str
    reason: str
    message: str


class ConfigRow(TypedDict):
    """``kind`` as users spell it; ``worst``: the gravest level of its findings, or empty."""

    kind: str
    namespace: str
    name: str
    created: str
    findings: int
    worst: str


class Place(TypedDict):
    """Where an object is attached; ``missing``: why it is not attached there, though it asks for it."""

    kind: str
    name: str
    detail: str
    missing: str


class ConfigPage(ConfigRow):
    yaml: str
    checks: list[Check]
    conditions: list[Condition]
    places: list[Place]


class WorkloadRow(TypedDict):
    """``meshed`` of its ``pods`` have a proxy; ``bare``: some have none, though they could; ``says``: why it is not
    healthy."""

    namespace: str
    name: str
    kind: str
    app: str
    version: str
    pods: int
    ready: int
    meshed: int
    bare: bool
    state: State
    says: str


class ServiceRow(TypedDict):
    """``name`` of a ServiceEntry's is its host; ``config``: how many rules there are for its host."""

    namespace: str
    name: str
    host: str
    origin: str
    ports: list[str]
    workloads: int
    config: int
    worst: str


class WorkloadPage(WorkloadRow):
    """``ports``: port -> mode of mutual TLS, where it differs; ``decides``: the PeerAuthentication that says so;
    ``config``: what holds for the workload."""

    labels: dict[str, str]
    account: str
    instances: list[Pod]
    services: list[ServiceRow]
    mtls: str
    ports: dict[str, str]
    decides: str
    config: list[ConfigRow]
    findings: list[Check]


class ServicePage(ServiceRow):
    behind: list[WorkloadRow]
    addresses: dict[str, str]
    rules: list[ConfigRow]
    findings: list[Check]


class ApplicationRow(TypedDict):
    namespace: str
    name: str
    workloads: list[WorkloadRow]
    state: State
    says: str


class ApplicationPage(ApplicationRow):
    """``services``: that lead to one of its workloads; ``config``: what holds for at least one."""

    services: list[ServiceRow]
    config: list[ConfigRow]


class ControlPlane(TypedDict):
    state: State
    says: str
    version: str


class Gateway(TypedDict):
    """``addresses``: port of the Service -> where it actually listens; ``examples``: namespace -> a request to try."""

    name: str
    namespace: str
    addresses: dict[str, str]
    examples: dict[str, str]


class Mesh(TypedDict):
    """``collector``: why there are no metrics; empty if there are."""

    controlPlane: ControlPlane
    gateways: list[Gateway]
    collector: str


class LimitsForm(TypedDict):
    """``attempts``: null where the mesh's default holds."""

    timeout: str
    attempts: int | None
    perTryTimeout: str


class FaultForm(TypedDict):
    """Shares in percent."""

    delay: str
    delayed: float
    status: int
    aborted: float


class BreakerForm(TypedDict):
    """0 where there is no limit."""

    connections: int
    pending: int
    errors: int
    ejection: str


class Forms(TypedDict):
    """What the wizards' forms begin with, as it is set now; null where nothing is. ``weights``: percent by version;
    ``replaces``: by the wizard's name, objects that are there and would be replaced, with all that they say."""

    weights: dict[str, int] | None
    limits: LimitsForm | None
    fault: FaultForm | None
    breaker: BreakerForm | None
    mode: str
    replaces: dict[str, list[str]]


class Undo(TypedDict):
    """How one write is taken back: by writing ``yaml``, what was there before, or where that is empty by deleting the
    ``generation`` that was written."""

    kind: str
    namespace: str
    name: str
    yaml: str
    generation: int


class Applied(TypedDict):
    """``failed``: object -> why it could not be written; nothing is written where the dry run of any fails. ``yaml``:
    the objects as they are stored now, and those that could not be written as they were given. ``undo``: of what was
    written, in that order."""

    written: list[str]
    failed: dict[str, str]
    yaml: str
    undo: list[Undo]


class Who(TypedDict):
    """Whom the token is of; ``edits``: whether they may change the mesh's configuration."""

    name: str
    edits: bool


class EnvoyTable(TypedDict):
    title: str
    columns: list[str]
    rows: list[list[str]]


class EnvoyPage(TypedDict):
    """``config``: the whole config dump, as JSON's text."""

    tables: list[EnvoyTable]
    config: str


class Field(TypedDict):
    """``values``: of a choice; ``idle``: why it has no effect, empty where it has one."""

    type: str
    values: list[str]
    required: bool
    says: str
    idle: str


class Schema(TypedDict):
    """``fields``: path below ``spec``, with ``[]`` for items and ``{}`` for values of maps -> what it is."""

    kind: str
    documentation: str
    fields: dict[str, Field]


class ResourceChange(TypedDict):
    """One resource of Envoy's that would become another one; ``type`` as proxy-config calls it (cluster, listener …),
    ``workloads``: the proxies that have it so (``namespace/name``); ``diff``: its YAML's unified diff."""

    type: str
    name: str
    what: Literal["added", "changed", "removed"]
    workloads: list[str]
    diff: list[str]


class Effect(TypedDict):
    """What applying a text would change at the proxies. ``proxies``: how many pods' there are; ``touched``: of how many
    something would change; ``left``: how many changes are not listed."""

    proxies: int
    touched: int
    changes: list[ResourceChange]
    left: int


class BoardQuery(TypedDict):
    """PromQL with ``$window`` and the board's variables in it; ``legend`` has labels in double braces."""

    expr: str
    legend: str


class BoardPanel(TypedDict):
    title: str
    unit: Unit
    queries: list[BoardQuery]


class BoardVariable(TypedDict):
    """The values of ``label`` of the series that ``metric`` selects."""

    name: str
    title: str
    metric: str
    label: str


class Board(TypedDict):
    name: str
    title: str
    variables: list[BoardVariable]
    panels: list[BoardPanel]
