"""One definition of an error, and of what counts once: what the command and the graph count is what the console's
questions to the collector select."""

import numpy as np
import pytest
from test_promql import START, ask

from lateen.console import boards, metrics
from lateen.console.metrics import COUNTED, sample
from lateen.console.series.store import Store
from lateen.dump.failures import ANSWERED, MATCHERS, failed

CASES = [
    (200, "-", None, False),
    (404, "-", None, False),
    (404, "NR", None, True),
    (404, "UF,NR", None, True),
    (404, "NRX", None, False),
    (429, "RL", None, False),
    (503, "UH", None, True),
    (500, "-", None, True),
    (0, "DC", None, True),
    (None, "-", None, False),
    (None, "NR", None, True),
    (None, "-", 14, True),
    (200, "-", 0, False),
    (200, "-", 5, False),
    (200, "-", 14, True),
    (200, "-", 4, True),
]


@pytest.mark.parametrize(("code", "flags", "grpc", "expected"), CASES)
def test_command_graph_and_queries_agree_on_what_has_failed(code, flags, grpc, expected):
    """Without a code, where the user's Telemetry removes it, the rest decides."""
    labels = {"response_flags": flags} | ({} if code is None else {"response_code": str(code)})
    if grpc is not None:
        labels["grpc_response_status"] = str(grpc)
    assert failed(code, flags, grpc) is expected
    found = sample("istio_requests_total", labels)
    assert found is not None
    assert metrics.failed(found) is expected
    assert selected(labels, MATCHERS) is expected
    assert selected(labels, [ANSWERED]) is not expected


def selected(labels, choices):
    store = Store(None)
    number = store.registry.intern({"__name__": "istio_requests_total", **labels})
    store.put(START, np.array([number], np.int64), np.array([1.0]))
    return any(ask(store, f"istio_requests_total{{{m}}}") for m in choices)


@pytest.mark.parametrize(
    ("reporter", "workload", "principal", "policy", "expected"),
    [
        ("source", "web", None, "mutual_tls", True),
        ("destination", "web", "spiffe://cluster.local/ns/shop/sa/web", "mutual_tls", False),
        ("destination", "unknown", "unknown", "none", True),
        ("destination", "unknown", "spiffe://example.org/ns/shop/sa/web", "mutual_tls", False),
        ("destination", None, "spiffe://cluster.local/ns/shop/sa/web", None, False),
        ("destination", None, None, "mutual_tls", False),
        ("destination", None, None, "none", True),
    ],
)
def test_graph_and_queries_agree_on_whose_report_of_a_call_counts(reporter, workload, principal, policy, expected):
    """A server's counts where the caller has no proxy: not where its certificate has no description (SPIRE), nor where
    a Telemetry removes labels."""
    told = {"source_workload": workload, "source_principal": principal, "connection_security_policy": policy}
    labels = {"reporter": reporter} | {k: v for k, v in told.items() if v is not None}
    found = sample("istio_requests_total", labels)
    assert found is not None
    assert found.flow.counts is expected
    assert selected(labels, COUNTED) is expected


def test_every_success_rate_of_the_boards_uses_it():
    rates = [q.expr for b in boards.BOARDS for p in b.panels if p.unit == "share" for q in p.queries]
    assert len(rates) == 9
    assert all(ANSWERED in expr for expr in rates)
