"""The dashboards that the console draws. Pure.

The boards and their queries are those of Istio's Grafana dashboards, in PromQL over any store of Istio's standard
metrics:
https://istio.io/latest/docs/tasks/observability/metrics/using-istio-dashboard/ and
https://istio.io/latest/docs/reference/config/metrics/.
"""

from __future__ import annotations

from lateen.console.panels import WINDOW, Board, Panel, Query, Variable
from lateen.dump.failures import ANSWERED

FAULTS_OF_CLIENTS, FAULTS_OF_SERVERS = 'response_code=~"4.."', 'response_code=~"5..|0"'


def _rate(metric: str, by: str, matchers: str = "") -> str:
    grouped = f"sum by ({by}) " if by else "sum"
    return f"{grouped}(rate({metric}{{{matchers}}}[{WINDOW}]))"


def _requests(by: str, *matchers: str) -> str:
    return _rate("istio_requests_total", by, ", ".join(matchers))


def _success(by: str, *matchers: str) -> str:
    """The success rate: 0 if all requests failed, no value without requests."""
    every = _requests(by, *matchers)
    return f"({_requests(by, *matchers, ANSWERED)} or 0 * {every}) / {every}"


def _quantiles(metric: str, *matchers: str, by: str = "", legend: str = "") -> tuple[Query, ...]:
    inner = _rate(f"{metric}_bucket", f"{by}, le" if by else "le", ", ".join(matchers))
    return tuple(Query(f"histogram_quantile({q / 100:g}, {inner})", f"{legend} p{q}".strip()) for q in (50, 90, 95, 99))


def _bytes(title: str, *matchers: str, by: str = "", legend: str = "") -> Panel:
    """A panel of TCP bytes; 0 without TCP connections, because most workloads use HTTP."""
    sent, received = (
        f"{_rate(f'istio_tcp_{way}_bytes_total', by, ', '.join(matchers))} or on() vector(0)"
        for way in ("sent", "received")
    )
    return Panel(title, "Bps", (Query(sent, f"{legend} sent".strip()), Query(received, f"{legend} received".strip())))


def _shadow(statistics: str) -> str:
    """Of each pod, since its proxy started: such policies match rarely."""
    return f"sum by (namespace, pod) ({statistics}) > 0"


LATENCY = "istio_request_duration_milliseconds"
TRAFFIC = '__name__=~"istio_requests_total|istio_tcp_connections_opened_total"'
"""Series of called workloads, by requests or by connections."""
BY_CLIENT, BY_SERVER = 'reporter="source"', 'reporter="destination"'


def _each(of: str, label: str, *matchers: str) -> tuple[Panel, ...]:
    """The same six panels for each value of a label; ``of`` is its name in titles."""
    legend = f"{{{{{label}}}}}"
    return (
        Panel(
            f"Requests, by {of} and code",
            "rps",
            (Query(_requests(f"{label}, response_code", *matchers), f"{legend} {{{{response_code}}}}"),),
        ),
        Panel(f"Success rate, by {of}", "share", (Query(_success(label, *matchers), legend),)),
        Panel(f"Latency, by {of}", "ms", _quantiles(LATENCY, *matchers, by=label, legend=legend)),
        Panel(
            f"Size of requests, by {of}",
            "bytes",
            _quantiles("istio_request_bytes", *matchers, by=label, legend=legend),
        ),
        Panel(
            f"Size of responses, by {of}",
            "bytes",
            _quantiles("istio_response_bytes", *matchers, by=label, legend=legend),
        ),
        _bytes(f"TCP traffic, by {of}", *matchers, by=label, legend=legend),
    )


_WORKLOAD = "destination_workload, destination_workload_namespace"
_WORKLOADS = "{{destination_workload}}.{{destination_workload_namespace}}"
VERSIONS = Panel("Versions", "count", (Query("count by (component, tag) (istio_build)", "{{component}} {{tag}}"),))
MESH = Board(
    "mesh",
    "Mesh",
    (
        Panel("Requests", "rps", (Query(_requests("", BY_CLIENT), "all"),)),
        Panel("Success rate", "share", (Query(_success("", BY_CLIENT), "answered"),)),
        Panel(
            "Errors",
            "rps",
            (
                Query(f"{_requests('', BY_CLIENT, FAULTS_OF_CLIENTS)} or vector(0)", "4xx"),
                Query(f"{_requests('', BY_CLIENT, FAULTS_OF_SERVERS)} or vector(0)", "5xx"),
            ),
        ),
        Panel("Latency", "ms", _quantiles(LATENCY, BY_CLIENT)),
        Panel(
            "Busiest services",
            "rps",
            (Query(f"topk(10, {_requests('destination_service', BY_CLIENT)})", "{{destination_service}}"),),
        ),
        Panel(
            "Mutual TLS",
            "rps",
            (Query(_requests("connection_security_policy", BY_SERVER), "{{connection_security_policy}}"),),
        ),
        Panel("Busiest workloads", "rps", (Query(f"topk(10, {_requests(_WORKLOAD, BY_CLIENT)})", _WORKLOADS),)),
        Panel(
            "Workloads with the most errors",
            "share",
            (Query(f"bottomk(10, {_success(_WORKLOAD, BY_CLIENT)})", _WORKLOADS),),
        ),
        Panel(
            "Slowest workloads, p50",
            "ms",
            (Query(f"topk(10, {_quantiles(LATENCY, BY_CLIENT, by=_WORKLOAD)[0].expr})", _WORKLOADS),),
        ),
        Panel(
            "Slowest workloads, p99",
            "ms",
            (Query(f"topk(10, {_quantiles(LATENCY, BY_CLIENT, by=_WORKLOAD)[-1].expr})", _WORKLOADS),),
        ),
        _bytes("TCP traffic, by workload", BY_CLIENT, by=_WORKLOAD, legend=_WORKLOADS),
        Panel(
            "Requests that policies matched without a consequence",
            "count",
            (
                Query(
                    _shadow('envoy_http_rbac{authz_dry_run_action=~".+", authz_dry_run_result="denied"}'),
                    "would be denied (dry run): {{pod}}.{{namespace}}",
                ),
                Query(
                    _shadow('envoy_http_rbac_istio_audit_{authz_dry_run_result="allowed"}'),
                    "audited: {{pod}}.{{namespace}}",
                ),
            ),
        ),
        VERSIONS,
    ),
)

_SERVICE = 'destination_service="$service"'
SERVICE = Board(
    "service",
    "Service",
    (
        Panel("Requests, by clients", "rps", (Query(_requests("", BY_CLIENT, _SERVICE), "all"),)),
        Panel("Success rate, by clients", "share", (Query(_success("", BY_CLIENT, _SERVICE), "answered"),)),
        Panel("Latency, by clients", "ms", _quantiles(LATENCY, BY_CLIENT, _SERVICE)),
        Panel("Requests, by servers", "rps", (Query(_requests("", BY_SERVER, _SERVICE), "all"),)),
        Panel("Success rate, by servers", "share", (Query(_success("", BY_SERVER, _SERVICE), "answered"),)),
        Panel("Latency, by servers", "ms", _quantiles(LATENCY, BY_SERVER, _SERVICE)),
        *_each("client", "source_workload", BY_CLIENT, _SERVICE),
        *_each("version", "destination_version", BY_SERVER, _SERVICE),
    ),
    (Variable("service", "Service", f"{{{TRAFFIC}}}", "destination_service"),),
)

_TO = ('destination_workload_namespace="$namespace"', 'destination_workload="$workload"')
_FROM = ('source_workload_namespace="$namespace"', 'source_workload="$workload"')
WORKLOAD = Board(
    "workload",
    "Workload",
    (
        Panel("Requests received", "rps", (Query(_requests("", BY_SERVER, *_TO), "all"),)),
        Panel("Success rate of requests received", "share", (Query(_success("", BY_SERVER, *_TO), "answered"),)),
        Panel("Latency of requests received", "ms", _quantiles(LATENCY, BY_SERVER, *_TO)),
        _bytes("TCP traffic received", BY_SERVER, *_TO),
        *_each("client", "source_workload", BY_SERVER, *_TO),
        *_each("called service", "destination_service", BY_CLIENT, *_FROM),
    ),
    (
        Variable("namespace", "Namespace", f"{{{TRAFFIC}}}", "destination_workload_namespace"),
        Variable(
            "workload",
            "Workload",
            f'{{{TRAFFIC}, destination_workload_namespace="$namespace"}}',
            "destination_workload",
        ),
    ),
)


def _typed(metric: str) -> Query:
    return Query(f"histogram_quantile(0.99, {_rate(f'{metric}_bucket', 'type, le')})", "{{type}}")


CONTROL_PLANE = Board(
    "control-plane",
    "Control plane",
    (
        Panel("Connected proxies", "count", (Query("sum by (pod) (pilot_xds)", "{{pod}}"),)),
        Panel("Pushes", "rps", (Query(_rate("pilot_xds_pushes", "type"), "{{type}}"),)),
        Panel(
            "Pushes that were rejected or failed",
            "rps",
            (
                Query(f"{_rate('pilot_total_xds_rejects', '')} or vector(0)", "rejected by proxies"),
                Query(f"{_rate('pilot_total_xds_internal_errors', '')} or vector(0)", "failed in istiod"),
            ),
        ),
        Panel("Time of a push, by type, p99", "s", (_typed("pilot_xds_push_time"),)),
        Panel("Size of a message, by type, p99", "bytes", (_typed("pilot_xds_config_size_bytes"),)),
        Panel(
            "Events",
            "rps",
            (
                Query(_rate("pilot_k8s_cfg_events", "type, event"), "{{event}} {{type}}"),
                Query(_rate("pilot_k8s_reg_events", "type, event"), "{{event}} {{type}}"),
            ),
        ),
        Panel(
            "Time until proxies have a change",
            "s",
            tuple(
                Query(
                    f"histogram_quantile({q}, sum(rate(pilot_proxy_convergence_time_bucket[1m])) by (le))",
                    f"p{round(q * 100)}",
                )
                for q in (0.5, 0.99)
            ),
        ),
        Panel(
            "Objects",
            "count",
            (Query("max(pilot_services)", "services"), Query("max(pilot_virt_services)", "VirtualServices")),
        ),
        Panel(
            "Validation",
            "rps",
            (
                Query(_rate("galley_validation_passed", ""), "accepted"),
                Query(f"{_rate('galley_validation_failed', '')} or vector(0)", "refused"),
            ),
        ),
        Panel(
            "Injection",
            "rps",
            (
                Query(_rate("sidecar_injection_success_total", ""), "injected"),
                Query(_rate("sidecar_injection_skip_total", ""), "skipped"),
            ),
        ),
        Panel(
            "Certificates",
            "rps",
            (
                Query(_rate("citadel_server_success_cert_issuance_count", ""), "issued"),
                Query(_rate("citadel_server_authentication_failure_count", ""), "refused"),
            ),
        ),
        Panel(
            "Days until certificates of servers expire",
            "count",
            (
                Query(
                    "min by (name, namespace) (certmanager_certificate_expiration_timestamp_seconds - time()) / 86400",
                    "{{namespace}}/{{name}}",
                ),
            ),
        ),
        Panel(
            "CPU",
            "cores",
            (Query(f'sum by (pod) (rate(process_cpu_seconds_total{{pod=~"istiod-.*"}}[{WINDOW}]))', "{{pod}}"),),
        ),
        Panel("Memory", "bytes", (Query('sum by (pod) (process_resident_memory_bytes{pod=~"istiod-.*"})', "{{pod}}"),)),
        VERSIONS,
    ),
)

ISTIOD_CPU = f'sum(rate(process_cpu_seconds_total{{pod=~"istiod-.*"}}[{WINDOW}]))'
_ROUTERS = 'istio_agent_envoy_memory_bytes{type="router"}'
OF_GATEWAYS = f"sum(rate(istio_requests_total{{{BY_CLIENT}}}[{WINDOW}]) and on (namespace, pod) {_ROUTERS})"


def _used(kind: str) -> str:
    return _rate("istio_agent_envoy_cpu_seconds_total", "", f'type="{kind}"')


PERFORMANCE = Board(
    "performance",
    "Performance",
    (
        Panel(
            "CPU per 1,000 requests per second",
            "cores",
            (
                Query(f"{_used('sidecar')} / ({_requests('', BY_SERVER)} / 1000)", "sidecars"),
                Query(f"{_used('router')} / ({OF_GATEWAYS} / 1000)", "gateways"),
                Query(f"{ISTIOD_CPU} / ({_requests('', BY_CLIENT)} / 1000)", "istiod"),
            ),
        ),
        Panel(
            "CPU",
            "cores",
            (Query(_used("sidecar"), "sidecars"), Query(_used("router"), "gateways"), Query(ISTIOD_CPU, "istiod")),
        ),
        Panel(
            "Memory",
            "bytes",
            (
                Query('avg(istio_agent_envoy_memory_bytes{type="sidecar"})', "Envoy of a sidecar, on average"),
                Query('max(istio_agent_envoy_memory_bytes{type="sidecar"})', "Envoy of a sidecar, the largest"),
                Query('max(istio_agent_envoy_memory_bytes{type="router"})', "Envoy of a gateway, the largest"),
                Query('sum(process_resident_memory_bytes{pod=~"istiod-.*"})', "istiod"),
            ),
        ),
        Panel("Latency that clients see", "ms", _quantiles(LATENCY, BY_CLIENT)),
        Panel("Latency that servers see", "ms", _quantiles(LATENCY, BY_SERVER)),
        Panel(
            "Throughput",
            "Bps",
            (
                Query(_rate("istio_request_bytes_sum", "", BY_CLIENT), "requests"),
                Query(_rate("istio_response_bytes_sum", "", BY_CLIENT), "responses"),
            ),
        ),
        Panel("Reading a proxy's metrics", "s", (Query("max(scrape_duration_seconds)", "slowest"),)),
        Panel("Processes that answer", "count", (Query("sum by (job) (up)", "{{job}}"),)),
        VERSIONS,
    ),
)

BOARDS = (MESH, SERVICE, WORKLOAD, CONTROL_PLANE, PERFORMANCE)
