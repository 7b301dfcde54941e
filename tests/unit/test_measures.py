"""istiod's metrics: the text format, and what is counted."""

import time

import pytest

from lateen.api import kinds
from lateen.console.series.scrape import Meta, samples
from lateen.control.measures import Measures
from lateen.kit import process
from lateen.kit.metrics import MAX_SERIES, Registry

IMPORTED = time.time()


def values(registry):
    """{series as written: value}"""
    return {key.decode(): value for key, value in samples(registry.text().encode())}


def test_each_metric_says_its_type_and_a_counter_without_labels_starts_at_zero():
    r = Registry()
    r.counter("hits", "Hits.")
    r.counter("by_code", "By code.", "code")
    r.gauge("level", "Level.").read = lambda: {(): 2.5}
    assert (
        r.text()
        == "# HELP hits Hits.\n# TYPE hits counter\nhits 0\n# HELP level Level.\n# TYPE level gauge\nlevel 2.5\n"
    )


def test_buckets_of_a_histogram_add_up():
    r = Registry()
    h = r.histogram("took", "Took.", (0.1, 1.0), "type")
    for value in (0.05, 0.1, 0.5, 7):
        h.observe(value, "cds")
    assert values(r) == {
        'took_bucket{type="cds",le="0.1"}': 2,
        'took_bucket{type="cds",le="1.0"}': 3,
        'took_bucket{type="cds",le="+Inf"}': 4,
        'took_sum{type="cds"}': 7.65,
        'took_count{type="cds"}': 4,
    }


def test_values_of_labels_are_escaped_and_their_number_is_bounded():
    r = Registry()
    c = r.counter("c", "C\nc.", "what")
    c.add('a"b\\c\nd')
    assert r.text() == '# HELP c C c.\n# TYPE c counter\nc{what="a\\"b\\\\c\\nd"} 1\n'
    for i in range(2 * MAX_SERIES):
        c.add(str(i))
    assert len(c.counts) == MAX_SERIES


def test_what_has_no_room_for_a_series_of_its_own_is_counted_together_and_said_once(caplog):
    r, many = Registry(), 2 * MAX_SERIES
    c, h, g = r.counter("c", "C.", "a", "b"), r.histogram("h", "H.", (1.0,), "a"), r.gauge("g", "G.", "a")
    g.read = lambda: {(str(i),): 1.0 for i in range(many)}
    for i in range(many):
        c.add(str(i), "x")
        h.observe(0.5, str(i))
    for i in range(10):  # what has a series keeps it
        c.add(str(i), "x")
    found = values(r)
    left = many - (MAX_SERIES - 1)
    assert (found['c{a="other",b="other"}'], found['c{a="7",b="x"}']) == (left, 2)
    assert found['h_count{a="other"}'] == found['g{a="other"}'] == left
    assert sum(v for k, v in found.items() if k.startswith("c{")) == many + 10
    assert sum(v for k, v in found.items() if k.startswith("g{")) == many
    values(r)
    assert sorted(m.split()[0] for m in caplog.messages) == ["c", "g", "h"]


def test_a_name_is_declared_once():
    r = Registry()
    r.counter("a", "A.")
    with pytest.raises(AssertionError):
        r.gauge("a", "A.")


def test_events_are_counted_by_kind_and_pushes_by_their_reasons():
    m = Measures()
    m.saw(kinds.SERVICE, "add", True)
    m.saw(kinds.ENDPOINT_SLICE, "update", True)
    m.saw(kinds.VIRTUAL_SERVICE, "delete", True)
    m.saw(kinds.POD, "update", False)
    m.pushing()
    m.pushing()
    found = values(m.registry)
    assert found['pilot_k8s_reg_events{type="Services",event="add"}'] == 1
    assert found['pilot_k8s_reg_events{type="Pods",event="update"}'] == 1
    assert found['pilot_k8s_cfg_events{type="VirtualService",event="delete"}'] == 1
    assert {k: v for k, v in found.items() if k.startswith("pilot_push_triggers")} == {
        f'pilot_push_triggers{{type="{t}"}}': 1 for t in ("config", "endpoint", "service", "unknown")
    }
    assert {k for k in found if k.startswith("pilot_inbound_updates")} == {
        f'pilot_inbound_updates{{type="{t}"}}' for t in ("config", "eds", "svc")
    }


def test_every_metric_has_a_meaning_and_what_is_there_is_valid_text():
    m = Measures()
    m.ready()
    meta: dict[str, Meta] = {}
    assert samples(m.registry.text().encode(), meta)
    for name, metric in m.registry.metrics.items():
        assert metric.help.endswith((".", ").")), name
        assert name not in meta or meta[name] == (metric.kind, metric.help)
    assert {"pilot_info", "istio_build", "startup_duration_seconds", "process_open_fds"} <= meta.keys()


def test_a_process_started_before_it_was_asked():
    r = Registry()
    process.measure(r)
    assert 0 < values(r)["process_start_time_seconds"] < IMPORTED
