"""The store against a list of dictionaries, watches included, and over a crash."""

import asyncio
import contextlib
import threading

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lateen.cluster.store.history import Expired
from lateen.cluster.store.objects import Conflict, Exists, Full, Missing, Store, TooLarge
from lateen.cluster.store.sqlite import Sqlite


def obj(name, value=0):
    return {"metadata": {"name": name}, "value": value}


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["create", "update", "delete"]), st.sampled_from("abc"), st.integers(0, 9)), max_size=40
)


@settings(max_examples=60, deadline=None)
@given(OPERATIONS)
def test_any_history_equals_a_dictionary_and_a_watch_replays_it(operations):
    persisted = {}

    def persist(rows):
        for rv, key, body in rows:
            if body is None:
                persisted.pop(key, None)
            else:
                persisted[key] = (rv, body)

    store, model, expected = Store(persist), {}, []

    async def run():
        watcher = store.watch("things", "", store.rv)
        for kind, name, value in operations:
            if kind == "create" and name not in model:
                store.create("things", "ns", name, obj(name, value))
                model[name] = value
                expected.append(("ADDED", name, value))
            elif kind == "update" and name in model:
                store.update("things", "ns", name, obj(name, value), None)
                model[name] = value
                expected.append(("MODIFIED", name, value))
            elif kind == "delete" and name in model:
                expected.append(("DELETED", name, model.pop(name)))
                store.delete("things", "ns", name)
            if value % 3 == 0:
                await store.durable()
        await store.durable()
        seen = []
        while len(seen) < len(expected):
            seen += [(e.type, e.entry.name, e.entry.obj["value"]) for e in await watcher.next()]
        return seen

    assert expected == asyncio.run(run())
    assert model == {e.name: e.obj["value"] for e in store.list("things")}
    reloaded = Store(persist, store.rv, [(k, rv, body) for k, (rv, body) in persisted.items()])
    assert [e.obj for e in reloaded.list("things")] == [e.obj for e in store.list("things")]


def test_a_stale_writer_is_refused():
    store = Store(lambda *_: None)
    first = store.create("things", "", "a", obj("a"))
    store.update("things", "", "a", obj("a", 1), first)
    with pytest.raises(Conflict):
        store.update("things", "", "a", obj("a", 2), first)
    with pytest.raises(Exists):
        store.create("things", "", "a", obj("a"))
    with pytest.raises(Missing):
        store.delete("things", "", "b")


def test_writes_of_one_moment_share_a_commit_and_are_announced_after_it():
    commits, told = [], []

    async def run():
        store = Store(lambda rows: commits.append([key for _, key, _ in rows]))
        store.follow("things", lambda event: told.append((event.type, event.entry.name)))
        watcher = store.watch("things", "", store.rv)

        async def write(name):
            store.create("things", "", name, obj(name))
            assert not told
            assert store.announced == 1
            await store.durable()
            assert commits == [["things//a", "things//b", "things//c"]]

        await asyncio.gather(*map(write, "abc"))
        assert [e.entry.name for e in watcher.take()] == ["a", "b", "c"]
        assert store.announced == store.rv == 4

    asyncio.run(run())
    assert told == [("ADDED", "a"), ("ADDED", "b"), ("ADDED", "c")]


def test_a_group_that_is_not_durable_is_undone_whole_and_every_writer_is_told():
    disk = {"full": False}

    def persist(_):
        if disk["full"]:
            raise OSError("disk full")

    async def run():
        store = Store(persist)
        kept = store.create("things", "", "kept", obj("kept", "old"))
        gone = store.create("things", "", "gone", obj("gone"))
        await store.durable()
        before = store.rv, store.size, store.list("things")
        watcher, disk["full"] = store.watch("things", "", store.rv), True
        changed = store.update("things", "", "kept", obj("kept", "new"), kept)
        store.delete("things", "", "gone")
        store.create("things", "", "gone", obj("gone", "again"))
        store.create("things", "", "more", obj("more"))
        store.delete("things", "", "more")
        for failed in await asyncio.gather(store.durable(), store.durable(), return_exceptions=True):
            assert str(failed) == "disk full"
        assert (store.rv, store.size, store.list("things")) == before
        assert watcher.take() == []
        disk["full"] = False
        with pytest.raises(Conflict):  # its revision may be another object's by now
            store.update("things", "", "kept", obj("kept", "newer"), changed)
        store.update("things", "", "kept", obj("kept", "newer"), kept)
        store.update("things", "", "gone", obj("gone", "newer"), gone)
        await store.durable()
        assert [e.type for e in watcher.take()] == ["MODIFIED", "MODIFIED"]

    asyncio.run(run())


def test_a_listener_that_fails_keeps_no_event_from_watches_and_other_listeners(caplog):
    told = []

    def fails(event):
        raise ValueError(f"no use for {event.entry.name}")

    async def run():
        store = Store(lambda *_: None)
        store.follow("things", fails)
        store.follow("things", lambda event: told.append(event.entry.name))
        watcher = store.watch("things", "", store.rv)
        for name in "abc":
            store.create("things", "", name, obj(name))
        await store.durable()
        assert [e.entry.name for e in watcher.take()] == ["a", "b", "c"]

    asyncio.run(run())
    assert told == ["a", "b", "c"]
    assert "no use for b" in caplog.text


def test_whoever_reads_makes_durable_what_is_read():
    done = []
    store = Store(lambda rows: done.append(len(rows)))
    store.create("things", "", "a", obj("a"))
    store.create("things", "", "b", obj("b"))
    assert store.settle() is None
    assert store.settle() is None
    assert done == [2]


def test_a_watch_from_a_revision_that_is_no_longer_kept_is_expired():
    store = Store(lambda *_: None, rv=100)
    with pytest.raises(Expired):
        store.watch("things", "", 50)


def test_a_slow_watcher_is_expired_and_its_memory_is_bounded():
    store = Store(lambda *_: None)

    async def run():
        watcher = store.watch("things", "", store.rv)
        other = store.watch("others", "", store.rv)
        store.create("others", "", "a", obj("a"))
        store.settle()
        await other.next()
        for i in range(9000):
            store.update("things", "", "a", obj("a", i), None) if i else store.create("things", "", "a", obj("a"))
            store.settle()
        with pytest.raises(Expired):
            await watcher.next()
        store.update("others", "", "a", obj("a", 1), None)
        store.settle()
        assert [e.entry.obj["value"] for e in await other.next()] == [1]
        with pytest.raises(Expired):
            store.watch("things", "", 2)

    asyncio.run(run())


def test_large_objects_shorten_the_history_to_bound_memory():
    store = Store(lambda *_: None)
    store.create("things", "", "a", obj("a"))
    since = store.rv
    for i in range(40):
        store.update("things", "", "a", obj("a", f"{i}" * 500_000), None)
    store.settle()
    with pytest.raises(Expired):
        store.watch("things", "", since)
    assert store.watch("things", "", store.rv - 3)


def test_the_size_of_the_store_is_bounded(monkeypatch):
    monkeypatch.setattr("lateen.cluster.store.objects.CAPACITY", 1000)
    store = Store(lambda *_: None)
    store.create("things", "", "a", obj("a", "x" * 600))
    with pytest.raises(Full):
        store.create("things", "", "b", obj("b", "x" * 600))
    store.update("things", "", "a", obj("a", "y"), None)
    store.create("things", "", "b", obj("b", "x" * 600))


def test_an_object_that_is_being_deleted_may_grow_by_the_marks_of_it(monkeypatch):
    monkeypatch.setattr("lateen.cluster.store.objects.CAPACITY", 1000)
    monkeypatch.setattr("lateen.cluster.store.objects.MAX_OBJECT", 900)
    store = Store(lambda *_: None)
    large = store.create("things", "", "a", obj("a", "x" * 800)).obj
    assert len(large["metadata"]["resourceVersion"]) == 1
    grown = obj("a", "x" * 900)
    with pytest.raises(TooLarge):
        store.update("things", "", "a", grown, None)
    marked = grown | {"metadata": grown["metadata"] | {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
    store.update("things", "", "a", marked, None)
    store.update("things", "", "a", obj("a", "y" * 890), None)
    with pytest.raises(TooLarge):
        store.update("things", "", "a", marked | {"value": "x" * 70_000}, None)


def test_acknowledged_writes_survive_reopening(tmp_path):
    database = Sqlite(tmp_path / "db")
    store = Store(database.write, *database.load())
    for i in range(50):
        store.create("things", "ns", f"n{i}", obj(f"n{i}", i))
        assert i % 7 or store.settle() is None
    store.settle()
    # no close(): as after kill -9
    again = Sqlite(tmp_path / "db")
    rv, rows = again.load()
    assert rv == store.rv
    assert len(list(rows)) == 50
    assert (tmp_path / "db").stat().st_mode & 0o777 == 0o600


def test_a_write_waits_for_somebody_who_looks_into_the_file(tmp_path):
    database = Sqlite(tmp_path / "db")
    with contextlib.closing(apsw.Connection(str(tmp_path / "db"))) as other:
        other.execute("BEGIN IMMEDIATE")
        done = threading.Timer(0.2, other.execute, ["COMMIT"])
        done.start()
        database.write([(2, "k", b"v")])
        done.join()
    assert list(database.load()[1]) == [("k", 2, b"v")]
    database.close()


def test_every_write_waits_for_the_disk(tmp_path):
    database = Sqlite(tmp_path / "db")
    found = [next(database._db.execute(f"PRAGMA {name}"))[0] for name in ("synchronous", "journal_mode")]
    assert found == [2, "wal"]
    database.close()
