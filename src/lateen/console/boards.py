"""The dashboards that the console draws. Pure.

The boards and their questions are those of Istio's Grafana dashboards, asked in PromQL of whatever stores Istio's
standard metrics:
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
    return f"{_requests(by, *matchers, ANSWERED)} / {_requests(by, *matchers)}"


def _quantiles(metric: str, *matchers: str) -> tuple[Query, ...]:
    inner = _rate(f"{metric}_bucket", "le", ", ".join(matchers))
    return tuple(Query(f"histogram_quantile({q / 100:g}, {inner})", f"p{q}") for q in (50, 90, 95, 99))


def _bytes(title: str, *matchers: str) -> Panel:
    """0 where there are no TCP connections: most workloads speak HTTP."""
    sent, received = (
        f"{_rate(f'istio_tcp_{way}_bytes_total', '', ', '.join(matchers))} or vector(0)" for way in ("sent", "received")
    )
    return Panel(title, "Bps", (Query(sent, "sent"), Query(received, "received")))


LATENCY = "istio_request_duration_milliseconds"
TRAFFIC = '__name__=~"istio_requests_total|istio_tcp_connections_opened_total"'
"""Series of whatever is called, by requests or by connections."""
BY_CLIENT, BY_SERVER = 'reporter="source"', 'reporter="destination"'

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
        _bytes("TCP traffic", BY_CLIENT),
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
        Panel(
            "Requests by client and code",
            "rps",
            (
                Query(
                    _requests("source_workload, response_code", BY_SERVER, _SERVICE),
                    "{{source_workload}} {{response_code}}",
                ),
            ),
        ),
        Panel(
            "Requests by version",
            "rps",
            (Query(_requests("destination_version", BY_SERVER, _SERVICE), "{{destination_version}}"),),
        ),
        Panel("Size of requests", "bytes", _quantiles("istio_request_bytes", BY_SERVER, _SERVICE)),
        Panel("Size of responses", "bytes", _quantiles("istio_response_bytes", BY_SERVER, _SERVICE)),
        _bytes("TCP traffic", BY_SERVER, _SERVICE),
    ),
    (Variable("service", "Service", f"{{{TRAFFIC}}}", "destination_service"),),
)

_TO = ('destination_workload_namespace="$namespace"', 'destination_workload="$workload"')
_FROM = ('source_workload_namespace="$namespace"', 'source_workload="$workload"')
WORKLOAD = Board(
    "workload",
    "Workload",
    (
        Panel(
            "Inbound requests",
            "rps",
            (
                Query(
                    _requests("source_workload, response_code", BY_SERVER, *_TO),
                    "{{source_workload}} {{response_code}}",
                ),
            ),
        ),
        Panel("Inbound success rate", "share", (Query(_success("", BY_SERVER, *_TO), "answered"),)),
        Panel("Inbound latency", "ms", _quantiles(LATENCY, BY_SERVER, *_TO)),
        Panel(
            "Outbound requests",
            "rps",
            (
                Query(
                    _requests("destination_service, response_code", BY_CLIENT, *_FROM),
                    "{{destination_service}} {{response_code}}",
                ),
            ),
        ),
        Panel(
            "Outbound success rate",
            "share",
            (Query(_success("destination_service", BY_CLIENT, *_FROM), "{{destination_service}}"),),
        ),
        Panel("Outbound latency", "ms", _quantiles(LATENCY, BY_CLIENT, *_FROM)),
        _bytes("Inbound TCP traffic", BY_SERVER, *_TO),
        _bytes("Outbound TCP traffic", BY_CLIENT, *_FROM),
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

CONTROL_PLANE = Board(
    "control-plane",
    "Control plane",
    (
        Panel("Connected proxies", "count", (Query("sum by (pod) (pilot_xds)", "{{pod}}"),)),
        Panel("Pushes", "rps", (Query(_rate("pilot_xds_pushes", "type"), "{{type}}"),)),
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
    ),
)

PERFORMANCE = Board(
    "performance",
    "Performance",
    (
        Panel(
            "CPU of istiod for each 1,000 requests a second",
            "cores",
            (
                Query(
                    f'sum(rate(process_cpu_seconds_total{{pod=~"istiod-.*"}}[{WINDOW}]))'
                    f" / ({_requests('', BY_CLIENT)} / 1000)",
                    "istiod",
                ),
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
    ),
)

BOARDS = (MESH, SERVICE, WORKLOAD, CONTROL_PLANE, PERFORMANCE)
