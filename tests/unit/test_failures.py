"""One definition of an error, and of what counts once: what the command and the graph count is what the console's
questions to the collector select."""

import numpy as np
import pytest
from test_promql import START, ask

from lateen.console import boards, metrics
from lateen.console.metrics import sample
from lateen.console.reports import COUNTED, Reports
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


WEB, SPIRE = "spiffe://cluster.local/ns/shop/sa/web", "spiffe://example.org/ns/shop/sa/web"


def report(reporter, workload, principal, policy, count):
    """What one end of calls to the cart tells; None: a Telemetry removed the label."""
    told = {"source_workload": workload, "source_principal": principal, "connection_security_policy": policy}
    to = {"destination_workload": "cart", "destination_workload_namespace": "shop", "request_protocol": "http"}
    return {"reporter": reporter, **to} | {k: v for k, v in told.items() if v is not None}, count


CLIENT, SERVER = report("source", "web", WEB, "mutual_tls", 60), report("destination", "web", WEB, "mutual_tls", 60)


def at(told, cluster, count=None):
    labels, before = told
    return labels | {"source_cluster": cluster}, before if count is None else count


NAMELESS = report("destination", "unknown", "unknown", "none", 120)


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([CLIENT], 60),
        ([CLIENT, SERVER], 60),
        ([SERVER], 60),  # gRPC's own xDS client, which has no proxy that could report
        ([SERVER, report("source", "other", WEB, "none", 30)], 90),
        ([NAMELESS], 120),
        ([NAMELESS, CLIENT, SERVER], 180),
        ([NAMELESS, report("source", "web", WEB, "none", 120)], 120),  # a client in the mesh, in plaintext
        ([NAMELESS, report("source", "web", WEB, "none", 118)], 118),  # the two are read one after the other
        ([NAMELESS, report("source", "web", WEB, "none", 90)], 120),  # and one outside of it
        ([NAMELESS, report("source", "web", WEB, "none", 150)], 150),
        ([report("destination", "unknown", SPIRE, "mutual_tls", 60)], 0),  # its own proxy reports, too
        ([report("destination", None, WEB, None, 60)], 0),
        ([report("destination", None, None, "mutual_tls", 60)], 0),
        ([report("destination", None, None, "none", 60)], 60),
        # of the same workload in two clusters, of which one is read
        ([at(CLIENT, "east"), at(SERVER, "east"), at(SERVER, "west", 42)], 60 + 42),
        ([at(CLIENT, "east"), at(CLIENT, "west", 42), at(SERVER, "east"), at(SERVER, "west", 42)], 60 + 42),
        # a Telemetry removes the cluster from what one of the two reports
        ([CLIENT, at(SERVER, "east")], 60),
        ([at(CLIENT, "unknown"), at(SERVER, "east")], 60),
        ([at(CLIENT, "east"), SERVER], 60),
        ([at(CLIENT, "east"), at(SERVER, "unknown")], 60),
        ([at(CLIENT, "east"), at(SERVER, "unknown", 42), at(SERVER, "west", 30)], 60 + 30),
    ],
)
def test_graph_and_queries_agree_on_whose_report_of_a_call_counts(reports, expected):
    added = {sample("istio_requests_total", labels): count for labels, count in reports}
    shares = Reports(added)
    assert sum(count * shares.share(s.flow) for s, count in added.items()) == pytest.approx(expected)
    store = Store(None)
    ids = [store.registry.intern({"__name__": "istio_requests_total", **labels}) for labels, _ in reports]
    for at in range(0, 61, 10):
        store.put(START + at * 1000, np.array(ids, np.int64), np.array([n * at / 60.0 for _, n in reports]))
    query = COUNTED.replace("$metric", "istio_requests_total").replace("$window", "1m").replace("$more", "")
    assert sum(ask(store, f"sum({query}) * 60", 60).values()) == pytest.approx(expected)


def test_every_success_rate_of_the_boards_uses_it():
    rates = [q.expr for b in boards.BOARDS for p in b.panels if p.unit == "share" for q in p.queries]
    assert len(rates) == 9
    assert all(ANSWERED in expr for expr in rates)
