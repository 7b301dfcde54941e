"""One definition of an error: what the command counts is what the console's questions to the collector select."""

import numpy as np
import pytest
from test_promql import START, ask

from lateen.console import boards, graph
from lateen.console.metrics import sample
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
    (200, "-", 0, False),
    (200, "-", 5, False),
    (200, "-", 14, True),
    (200, "-", 4, True),
]


@pytest.mark.parametrize(("code", "flags", "grpc", "expected"), CASES)
def test_command_graph_and_queries_agree_on_what_has_failed(code, flags, grpc, expected):
    labels = {"response_code": str(code), "response_flags": flags}
    if grpc is not None:
        labels["grpc_response_status"] = str(grpc)
    assert failed(code, flags, grpc) is expected
    found = sample("istio_requests_total", labels)
    assert found is not None
    assert graph.failed(found) is expected
    store = Store(None)
    number = store.registry.intern({"__name__": "istio_requests_total", **labels})
    store.put(START, np.array([number], np.int64), np.array([1.0]))
    selected = any(ask(store, f"istio_requests_total{{{m}}}") for m in MATCHERS)
    assert selected is expected
    assert bool(ask(store, f"istio_requests_total{{{ANSWERED}}}")) is not expected


def test_every_success_rate_of_the_boards_uses_it():
    rates = [q.expr for b in boards.BOARDS for p in b.panels if p.unit == "share" for q in p.queries]
    assert len(rates) == 9
    assert all(ANSWERED in expr for expr in rates)
