"""The store against a list of dictionaries, watches included, and over a crash."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lateen.cluster.store.objects import Conflict, Exists, Expired, Full, Missing, Store
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

    def persist(rv, key, body):
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
    store.update("things", "", "a", obj("a", 1), first.rv)
    with pytest.raises(Conflict):
        store.update("things", "", "a", obj("a", 2), first.rv)
    with pytest.raises(Exists):
        store.create("things", "", "a", obj("a"))
    with pytest.raises(Missing):
        store.delete("things", "", "b")


def test_a_write_that_is_not_durable_changes_nothing():
    def full(*_):
        raise OSError("disk full")

    store = Store(full)
    with pytest.raises(OSError, match="disk full"):
        store.create("things", "", "a", obj("a"))
    assert store.rv == 1
    assert not store.list("things")


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
        await other.next()
        for i in range(9000):
            store.update("things", "", "a", obj("a", i), None) if i else store.create("things", "", "a", obj("a"))
        with pytest.raises(Expired):
            await watcher.next()
        store.update("others", "", "a", obj("a", 1), None)
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


def test_acknowledged_writes_survive_reopening(tmp_path):
    database = Sqlite(tmp_path / "db")
    store = Store(database.write, *database.load())
    for i in range(50):
        store.create("things", "ns", f"n{i}", obj(f"n{i}", i))
    # no close(): as after kill -9
    again = Sqlite(tmp_path / "db")
    rv, rows = again.load()
    assert rv == store.rv
    assert len(list(rows)) == 50
    assert (tmp_path / "db").stat().st_mode & 0o777 == 0o600
