"""The store of time series: what is kept, for how long, and what a full or damaged disk costs."""

import errno

import numpy as np
import pytest
from test_promql import ask

from lateen.console import calls
from lateen.console.series import codec, scrape, store
from lateen.console.series.disk import Disk
from lateen.console.series.intake import Intake, Look
from lateen.console.series.scrape import LeftOut, labels_of, samples
from lateen.console.series.selection import TooMany
from lateen.console.series.store import Store

START = 1_700_000_000_000
HOUR = 3_600_000


def series(name="requests", **labels):
    return {"__name__": name, **labels}


def fill(to, seconds, every=1, since=START, names=("a",)):
    """``requests`` of each name counts the milliseconds since START."""
    for at in range(since, since + seconds * 1000, every * 1000):
        ids = np.array([to.registry.intern(series(of=n)) for n in names], np.int64)
        to.put(at, ids, np.full(len(ids), float(at - START)))


def read(of, start, end, step_ms=0, name="a"):
    """{time: value} of one series."""
    number = of.registry.find(series(of=name))
    if number is None:
        return {}
    found = of.select(np.array([number]), start, end, step_ms, 10**9)
    there = ~(codec.absent(found.values[0]) | codec.stale(found.values[0]))
    return dict(zip(found.times[there].tolist(), found.values[0][there].tolist(), strict=True))


def test_recent_minutes_are_there_second_by_second_and_older_ones_in_coarser_steps():
    s = Store(None)
    fill(s, 3 * 3600)
    end = START + 3 * HOUR - 1000
    last = read(s, end - 600_000, end)
    assert list(last) == list(range(end - 600_000, end + 1, 1000))
    everything = read(s, START, end)
    assert all(value == at - START for at, value in everything.items())
    distances = np.diff(list(everything))
    assert set(distances.tolist()) <= {1000, 4000, 5000, 29_000, 30_000, *range(1000, 30_000, 1000)}
    assert len([d for d in distances if d >= 25_000]) >= 220, "two hours in steps of 30 s"
    assert max(distances) <= 30_000


def test_a_question_with_a_long_step_reads_few_samples_and_still_the_latest():
    s = Store(None)
    fill(s, 3600)
    end = START + HOUR - 1000
    found = read(s, START, end, step_ms=15_000)
    assert max(found) == end
    assert len(found) < 740
    with pytest.raises(TooMany):
        s.select(np.array([0]), START, end, 0, 100)


def test_a_restart_loses_nothing(tmp_path):
    before = Store(Disk(tmp_path))
    fill(before, 2000, names=("b", "a"))
    before.flush()
    after = Store(Disk(tmp_path))
    end = START + 2_000_000
    assert read(after, START, end) == read(before, START, end)
    assert read(after, START, end, name="b") == read(before, START, end, name="b")
    fill(after, 60, since=end, names=("a",))
    assert read(after, end, end + 60_000)[end + 59_000] == 2_059_000


def test_a_process_that_is_killed_loses_a_minute_at_most(tmp_path):
    fill(Store(Disk(tmp_path)), 2000)
    after = Store(Disk(tmp_path))
    found = read(after, START, START + 2_000_000)
    assert max(found) >= START + 1_935_000
    coarse = read(after, START, START + 2_000_000, step_ms=30_000)
    assert len([t for t in coarse if t < START + 1_900_000]) >= 60


def test_after_a_day_samples_are_gone_and_series_without_samples_too(tmp_path):
    s = Store(Disk(tmp_path))
    fill(s, 600, every=5, names=("ended",))
    fill(s, 25 * 3600, every=30, since=START + 600_000)
    assert s.registry.find(series(of="ended")) is None
    assert len(s.registry) == 1
    now = START + 25 * HOUR + 600_000
    assert min(read(s, START, now)) >= now - 24 * HOUR - 31 * 60_000
    assert len(list(tmp_path.iterdir())) < 120


def test_the_size_on_disk_has_a_limit(tmp_path):
    s = Store(Disk(tmp_path), max_bytes=20_000)
    fill(s, 4 * 3600)
    assert s.size <= 20_000
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) == s.size
    end = START + 4 * HOUR - 1000
    assert max(read(s, START, end)) == end


def test_so_has_the_number_of_series_ever_seen():
    s = Store(None, max_known=500)
    for i in range(1000):
        fill(s, 60, since=START + i * 60_000, names=(str(i),))
    assert len(s.registry) <= 500
    assert read(s, START, START + 10**9, name="999")


class Small(Disk):
    """A disk that has room for a few bytes only."""

    room = 0

    def write(self, name, data):
        used = sum(p.stat().st_size for p in self.folder.iterdir())
        if used + len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(name, data)


def test_a_full_disk_costs_the_oldest_data_nothing_else_and_says_so(tmp_path):
    disk = Small(tmp_path)
    disk.room = 8_000
    s = Store(disk)
    fill(s, 3 * 3600)
    end = START + 3 * HOUR - 1000
    assert "is full; the oldest metrics are deleted" in s.problem
    found = read(s, START, end)
    assert max(found) == end
    assert max(np.diff(list(found))) <= 30_000
    assert min(found) > START


def test_without_any_disk_metrics_stay_in_memory_within_the_same_limit(tmp_path):
    s = Store(Small(tmp_path), max_bytes=20_000)
    fill(s, 2 * 3600)
    assert "metrics stay in memory" in s.problem
    assert s.size <= 20_000
    end = START + 2 * HOUR - 1000
    assert max(read(s, START, end)) == end


@pytest.mark.parametrize("harm", ["cut", "flipped", "other"])
def test_a_damaged_file_is_deleted_and_named_and_the_others_are_read(tmp_path, harm):
    before = Store(Disk(tmp_path))
    fill(before, 1200)
    before.flush()
    file = min(tmp_path.glob("0-*.block"))
    data = file.read_bytes()
    bad = {"cut": data[:-7], "flipped": data[:60] + bytes([data[60] ^ 1]) + data[61:], "other": b"hello"}
    file.write_bytes(bad[harm])
    after = Store(Disk(tmp_path))
    assert file.name in after.problem
    assert not file.exists()
    assert max(read(after, START, START + HOUR)) == START + 1_199_000


def test_a_measured_nan_is_neither_a_gap_nor_an_end():
    values = codec.gaps(1, 3)
    values[0, 0] = np.nan
    values[0, 1] = codec.marker(codec.STALE_BITS)
    back = codec.unpack(codec.pack(values), 1, 3)
    assert codec.absent(back).tolist() == [[False, False, True]]
    assert codec.stale(back).tolist() == [[False, True, False]]
    assert np.isnan(back[0, 0])


def test_a_day_of_ten_thousand_changing_series_fits_into_the_limit():
    """Counters that grow irregularly take less than five bytes a sample; most do not change most of the time."""
    rng = np.random.default_rng(1)
    values = np.cumsum(rng.integers(0, 9, (10_000, 60)) * (rng.random((10_000, 1)) < 0.3), axis=1).astype(float)
    assert len(codec.pack(values)) / values.size < 1.6


# --- scraping ---------------------------------------------------------------------------------------------------------

TARGET = {"job": "kubernetes-pods", "instance": "10.0.0.1:15020", "namespace": "shop", "pod": "web-1", "app": "web"}


def look(text, whole=True, problem="", **labels):
    return Look({**TARGET, **labels}, "http://x", samples(text), whole, 0.01, problem)


def test_labels_of_the_target_are_added_and_a_label_of_the_same_name_is_kept_as_exported():
    labels = labels_of(b'hits{app="cart",path="a\\"b\\n",empty=""}', TARGET)
    assert labels == {"__name__": "hits", "exported_app": "cart", "path": 'a"b\n', **TARGET}


def test_a_series_that_is_no_longer_reported_has_ended():
    intake, key = Intake(None), ("shop", "web-1", "u")
    intake.frame(1000, {key: look(b"a 1\nb 2\n")}, {key})
    intake.frame(1005, {key: look(b"a 1\n")}, {key})
    chosen = np.array([intake.store.registry.find({"__name__": n, **TARGET}) for n in "ab"])
    values = intake.store.select(chosen, 0, 2_000_000, 0, 10**6).values
    assert codec.stale(values).tolist() == [[False, False], [False, True]]


CALLS = b'istio_requests_total{reporter="destination"} %d\n'


def calls_of(intake, to_s=2_000):
    """The samples of CALLS; None where it has ended."""
    labels = {"__name__": "istio_requests_total", "reporter": "destination", **TARGET}
    found = intake.store.select(np.array([intake.store.registry.find(labels)]), 0, to_s * 1000, 0, 10**6).values[0]
    return [None if codec.stale(np.array([v]))[0] else v for v in found if not codec.absent(np.array([v]))[0]]


def test_a_counter_that_its_agent_leaves_out_keeps_its_value_so_that_the_next_call_counts_as_one():
    intake, key = Intake(None), ("shop", "web-1", "u")
    for at, text in enumerate([CALLS % 1000, b"", b"", CALLS % 1001, CALLS % 1001, b"", CALLS % 1003]):
        intake.frame(1000 + 5 * at, {key: look(b"up 1\n" + text)}, {key})
    assert calls_of(intake) == [1000, 1000, 1000, 1001, 1001, 1001, 1003]


def test_a_call_after_a_long_silence_is_one_call_in_lists_and_in_suggestions():
    intake, key, since = Intake(None), ("shop", "web-1", "u"), START // 1000
    for i in range(240):
        text = CALLS % 1000 if i < 2 else b"" if i < 200 else CALLS % 1001
        intake.frame(since + 5 * i, {key: look(b"a 1\n" + text)}, {key})
    asked = calls.counted("istio_requests_total", "pod", 900)
    found = ask(intake.store, asked, 295.0, 1195.0, calls.step(900))
    assert sum(sum(at.values()) for at in found.values()) == pytest.approx(1, rel=0.1)
    assert ask(intake.store, "sum(increase(istio_requests_total[15m]))", 1195.0)[""] == pytest.approx(1, rel=0.1)


def since_a_minute(found):
    """Of a pod that began to run a minute before START."""
    return found._replace(began=START / 1000 - 60)


FIRST = b'istio_requests_total{reporter="destination"} %d\nistio_request_bytes_bucket{le="+Inf"} %d\n'


@pytest.mark.parametrize("at", [*range(58, 64), 100])
@pytest.mark.parametrize("every", [1, 5])
def test_the_first_calls_of_a_series_count(at, every):
    """Wherever a block of the store ends, and in every resolution."""
    intake, key, since = Intake(None), ("shop", "web-1", "u"), START // 1000
    for i in range(300):
        text = FIRST % (20, 20) if i >= at else b""
        whole = (i * every) % 5 == 0
        intake.frame(since + every * i, {key: since_a_minute(look(b"a 1\n" + text, whole))}, {key})
    end = 300 * every - 1
    for name in ("istio_requests_total", "istio_request_bytes_bucket"):
        asked = f"sum(increase({name}[{end}s]))"
        assert ask(intake.store, asked, end)[""] == pytest.approx(20, rel=0.1)
        steps = ask(intake.store, f"sum(increase({name}[60s]))", 0.0, end, 30)
        assert max(steps[""].values()) == pytest.approx(20, rel=0.35)


def test_what_a_pod_that_is_new_has_counted_counts_and_what_an_old_one_has_does_not():
    intake, new, old = Intake(None), ("shop", "web-2", "v"), ("shop", "web-1", "u")
    other = {"instance": "10.0.0.2:15020", "pod": "web-2"}
    since = START // 1000
    for i in range(60):
        looks = {old: since_a_minute(look(CALLS % 700))}
        if i >= 5:
            looks[new] = look(CALLS % 3, **other)._replace(began=since + 20.0)
        intake.frame(since + 5 * i, looks, looks.keys())
    found = ask(intake.store, "sum by (pod) (increase(istio_requests_total[5m]))", 295.0)
    assert found == pytest.approx({"pod=web-1": 0, "pod=web-2": 3}, rel=0.1)


@pytest.mark.parametrize("missed", [0, 2])
def test_the_first_calls_at_a_pod_of_hours_count_once_it_has_told_what_it_leaves_out(missed):
    """A collector that was restarted, or installed later, misses no burst of errors; ``missed``: of its first looks."""
    intake, key, since = Intake(None), ("shop", "web-1", "u"), START // 1000
    error = b'istio_requests_total{response_code="503"} %d\nistio_request_bytes_bucket{le="+Inf"} %d\n'
    for i in range(60):
        text = b"a 1\n" + (error % (20, 20) if i >= 30 else b"") + (CALLS % 501 if i >= 40 else b"")
        found = look(text) if i >= missed else look(b"", problem="timeout")
        idle = LeftOut(samples(CALLS % 500), complete=True) if i == missed else None
        assert intake.unsure(key) == (i <= missed)
        intake.frame(since + 5 * i, {key: found._replace(began=START / 1000 - 7200, idle=idle)}, {key})
    found = ask(intake.store, "sum by (response_code) (increase(istio_requests_total[5m]))", 295.0)
    assert found == pytest.approx({"response_code=503": 20, "": 1}, rel=0.1)
    histogram = ask(intake.store, "sum(increase(istio_request_bytes_bucket[5m]))", 295.0)
    assert histogram == pytest.approx({"": 20}, rel=0.1)


@pytest.mark.parametrize("told", [True, False])
def test_after_a_silence_the_first_calls_count_once_the_target_has_told_what_it_leaves_out(told):
    """What it had shown before and leaves out now would otherwise be missing for ever."""
    intake, key, since = Intake(None), ("shop", "web-1", "u"), START // 1000
    error = b'istio_requests_total{response_code="503"} 20\n'
    for i in range(60):
        text = b"a 1\n" + (CALLS % 500 if i < 10 else CALLS % 501 if i >= 40 else b"") + (error if i >= 30 else b"")
        found = look(text) if i != 10 else look(b"", problem="timeout")
        assert intake.unsure(key) == (i == 0 or i == 11 or (i > 11 and not told))
        idle = LeftOut(samples(CALLS % 500 if i else b""), complete=True) if i == 0 or (i == 11 and told) else None
        intake.frame(since + 5 * i, {key: since_a_minute(found)._replace(idle=idle)}, {key})
    found = ask(intake.store, "sum by (response_code) (increase(istio_requests_total[5m]))", 295.0)
    assert found == pytest.approx({"response_code=503": 20 if told else 0, "": 1}, rel=0.1)


def test_what_a_target_tells_of_idle_series_is_bounded(monkeypatch):
    monkeypatch.setattr(scrape, "MAX_TOLD", 5)
    for count, begun in ((5, 1), (6, 0)):
        found = scrape.Scraped({}, lambda labels: hash(labels["i"]), age=scrape.Age(fresh=False, old=True))
        found.told(LeftOut([(b'istio_requests_total{i="%d"}' % i, 1.0) for i in range(count)], complete=True))
        for text in ([], [(b'istio_requests_total{i="new"}', 3.0)]):
            found.read(text, True, {})
        assert len(found._told) == count * begun
        assert len(found.begun) == begun, "one that is not remembered may come back"


@pytest.mark.parametrize("reason", ["not asked before", "no answer", "no room", "other labels", "idle before us"])
def test_what_may_have_been_there_unread_is_not_taken_for_new(reason):
    intake, key, since = Intake(None, 8 if reason == "no room" else 100), ("shop", "web-1", "u"), START // 1000
    many = b"".join(b'istio_requests_total{i="%d"} 1\n' % i for i in range(9))
    for i in range(12):
        found = look(b"a 1\n" + (CALLS % 500 if i > 5 else b""))
        began = START / 1000 - (7200 if reason == "idle before us" else 60)
        if reason == "not asked before":
            found = look(b"a 1\n" if i <= 5 else CALLS % 500, whole=i > 5)
        if reason == "no answer" and i in (4, 5):
            found = look(b"", problem="timeout")
        if reason == "no room" and i <= 5:
            found = look(many)
        if reason == "other labels":
            found = look(CALLS % 500, version="v2" if i > 5 else "v1")
        intake.frame(since + 5 * i, {key: found._replace(began=began)}, {key})
    assert sum(ask(intake.store, "sum(increase(istio_requests_total[1m]))", 59.0).values()) < 9


def test_a_histogram_after_a_long_silence_has_the_duration_of_the_next_call():
    intake, key, since = Intake(None), ("shop", "web-1", "u"), START // 1000
    name = b'istio_request_duration_milliseconds_bucket{le="%s"} %d\n'
    for i in range(240):
        counts = (1000, 1000) if i < 2 else () if i < 200 else (1000, 1001)
        text = b"".join(name % (le, n) for le, n in zip((b"1", b"+Inf"), counts, strict=False))
        intake.frame(since + 5 * i, {key: look(b"a 1\n" + text)}, {key})
    asked = "sum by (le) (increase(istio_request_duration_milliseconds_bucket[3m]))"
    found = ask(intake.store, asked, 1010.0 + 160)
    assert found == pytest.approx({"le=1": 0, "le=+Inf": 1}, rel=0.1)


def test_what_is_remembered_of_histograms_is_bounded(monkeypatch):
    monkeypatch.setattr(scrape, "MAX_RESTING", 5)
    found = scrape.Scraped({}, lambda labels: hash(labels["i"]))
    for i in range(30):
        found.read([(b'istio_request_bytes_sum{i="%d"}' % i, 1.0)], True, {})
    assert len(found._resting) == 5


def test_it_goes_on_when_the_target_answers_again_and_ends_with_it():
    intake, key = Intake(None), ("shop", "web-1", "u")
    intake.frame(1000, {key: look(CALLS % 7)}, {key})
    intake.frame(1005, {key: look(b"a 1\n")}, {key})
    for at in (1010, 1011, 1012):
        intake.frame(at, {key: look(b"", problem="timeout")}, {key})
    intake.frame(1015, {key: look(b"a 1\n")}, {key})
    intake.frame(1016, {key: look(CALLS % 8, whole=False)}, {key})
    intake.frame(1020, {}, set())
    assert calls_of(intake) == [7, 7, None, 7, 8, None]


def test_what_is_idle_is_known_after_a_restart(tmp_path):
    key = ("shop", "web-1", "u")
    former = Intake(tmp_path)
    former.frame(1000, {key: look(CALLS % 1000)}, {key})
    former.frame(1005, {key: look(b"a 1\n")}, {key})
    former.store.flush()
    later, other = Intake(tmp_path), ("shop", "web-2", "v")
    later.frame(
        1015, {key: look(b"a 1\n"), other: look(b"a 1\n", instance="10.0.0.2:15020", pod="web-2")}, {key, other}
    )
    later.frame(1020, {key: look(CALLS % 1001)}, {key})
    assert calls_of(later) == [1000, 1000, 1000, 1001]
    moved = Intake(tmp_path)
    moved.frame(1030, {other: look(b"a 1\n", pod="web-2")}, {other})
    assert moved.targets()[0]["labels"]["pod"] == "web-2"
    assert (
        moved.store.registry.find(
            {"__name__": "istio_requests_total", "reporter": "destination", **TARGET, "pod": "web-2"}
        )
        is None
    ), "another pod has the address now"


def test_idle_counters_make_room():
    intake, key = Intake(None, max_active=20), ("shop", "web-1", "u")
    first, second = (
        b"".join(b'istio_requests_total{i="%d"} 1\n' % i for i in some) for some in (range(12), range(12, 24))
    )
    intake.frame(1000, {key: look(first)}, {key})
    intake.frame(1005, {key: look(b"a 1\n")}, {key})
    intake.frame(1010, {key: look(second)}, {key})
    intake.frame(1015, {key: look(second)}, {key})
    assert intake.dropped == set()


def test_what_was_not_asked_for_has_not_ended():
    intake, key = Intake(None), ("shop", "web-1", "u")
    intake.frame(1000, {key: look(b"a 1\nb 2\n")}, {key})
    intake.frame(1001, {key: look(b"a 1\n", whole=False)}, {key})
    number = intake.store.registry.find({"__name__": "b", **TARGET})
    assert codec.absent(intake.store.select(np.array([number]), 0, 2_000_000, 0, 10**6).values).tolist() == [
        [False, True]
    ]


def test_a_target_that_does_not_answer_is_down_and_one_that_is_gone_has_ended():
    intake, key = Intake(None), ("shop", "web-1", "u")
    intake.frame(1000, {key: look(b"a 1\n")}, {key})
    intake.frame(1005, {key: look(b"", problem="timeout")}, {key})
    assert intake.targets()[0]["health"] == "down"
    intake.frame(1010, {}, set())
    numbers = np.array([intake.store.registry.find({"__name__": n, **TARGET}) for n in ("up", "a")])
    values = intake.store.select(numbers, 0, 2_000_000, 0, 10**6).values
    assert values[0, :2].tolist() == [1.0, 0.0]
    assert codec.stale(values).tolist() == [[False, False, True], [False, True, False]]
    assert intake.targets() == []


def test_too_many_series_are_dropped_and_their_target_is_named():
    intake, key = Intake(None, max_active=50), ("shop", "web-1", "u")
    text = b"".join(b'a{i="%d"} 1\n' % i for i in range(200))
    intake.frame(1000, {key: look(text)}, {key})
    intake.frame(1005, {key: look(text)}, {key})
    assert len(intake.store.registry) <= 50
    assert intake.dropped == {"shop/web-1"}


def test_a_last_line_that_was_cut_off_does_not_count():
    assert samples(b"a 12\nb 34") == [(b"a", 12.0)]


@pytest.mark.parametrize("restarted", [False, True])
def test_metrics_go_on_after_a_clock_that_was_wrong_was_turned_back(tmp_path, restarted):
    """As on a machine that finds out the time after it has started: they would stand still until the wrong time."""
    s = Store(Disk(tmp_path))
    fill(s, 300)
    fill(s, 2000, since=START + 12 * HOUR)
    if restarted:
        s.flush()
        s = Store(Disk(tmp_path))
    fill(s, 321, since=START + 300_000)
    found = read(s, START, START + 60 * HOUR)
    assert max(found) == START + 620_000
    assert {START + 420_000, START + 619_000} <= found.keys()
    assert all(value == at - START for at, value in found.items())
    assert "the clock was turned back by" in s.problem
    before = len(found)
    s.put(START + 619_500, np.array([0]), np.array([1.0]))
    assert len(read(s, START, START + 60 * HOUR)) == before, "a step of less than a minute loses a frame"


def test_a_clock_that_is_wrong_until_it_hears_of_the_time_costs_no_metrics(tmp_path):
    """As on a machine without a battery for its clock: it starts in the past."""
    s = Store(Disk(tmp_path))
    fill(s, 300, since=START + 12 * HOUR)
    s.flush()
    before = read(Store(Disk(tmp_path)), START, START + 60 * HOUR)
    s = Store(Disk(tmp_path))
    fill(s, 60)
    assert "the clock was turned back by" in s.problem
    fill(s, 60, since=START + 12 * HOUR + 400_000)
    assert s.problem == ""
    fill(s, 100)
    found = read(s, START, START + 60 * HOUR)
    assert before.items() <= found.items()
    assert START + 12 * HOUR + 459_000 in found


def test_the_limits_are_those_of_the_documentation():
    assert store.MAX_BYTES == 200 * 1024 * 1024
    assert store.RESOLUTIONS[-1][1] == 24 * HOUR


def test_the_number_of_a_series_that_is_forgotten_is_given_to_another_one_without_its_samples():
    s = Store(None)
    fill(s, 120, names=("old", "kept"))
    number = s.registry.find(series(of="old"))
    fill(s, 26 * 3600, every=30, since=START + HOUR, names=("kept",))
    assert s.registry.find(series(of="old")) is None
    assert s.registry.intern(series(of="new")) == number
    assert read(s, START, START + 30 * HOUR, name="new") == {}
    assert s.registry.matching("requests", [("of", lambda v: v == "old")]).tolist() == []
    assert s.registry.matching("requests", [("of", lambda v: v == "new")]).tolist() == [number]


def test_a_series_that_is_scraped_stays_known_even_if_the_store_drops_all_of_its_blocks():
    intake = Intake(None)
    intake.store._max_bytes = 0
    look = Look(TARGET, "http://here", [(b"a", 1.0)], True, 0.1)
    for i in range(200):
        intake.frame(1000.0 + i, {("n", "p", "x"): look}, {("n", "p", "x")})
    assert intake.store.registry.find({"__name__": "a", **TARGET}) is not None
    intake.frame(2000.0, {}, ())
    for i in range(200):
        intake.frame(2001.0 + 30 * i, {("n", "q", "x"): look._replace(labels={"instance": "other"})}, {("n", "q", "x")})
    assert intake.store.registry.find({"__name__": "a", **TARGET}) is None


def test_a_range_of_calls_ends_now_and_not_with_the_last_whole_second():
    asked = calls.asked("up", 3600, 60, 1_800_000_000.75)
    assert asked == {"query": "up", "start": "1799996400.750", "end": "1800000000.750", "step": "60"}
