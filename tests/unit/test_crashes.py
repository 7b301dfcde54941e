"""The store on a disk that fills up or fails at any write, and in a process that is killed at any moment.

Writes are made durable in groups. Whatever was answered is there afterwards; of what was not, at most the group that
was under way, whole.
"""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from types import SimpleNamespace

import apsw
import pytest
from apiserver import Cluster

from lateen.cluster.store.objects import Store
from lateen.cluster.store.sqlite import Sqlite, StoreBroken, StoreFull

NAMES = "abcdefgh"


def obj(name, value):
    return {"metadata": {"name": name}, "value": value}


def step(chance, model):
    """(name, value) of one write at random; the value None deletes."""
    name = chance.choice(NAMES)
    if name in model and chance.random() < 0.3:
        return name, None
    return name, f"{chance.random()} " * chance.choice((1, 10, 900))


def carry_out(store, model, name, value):
    if value is None:
        store.delete("things", "ns", name)
    elif name in model:
        store.update("things", "ns", name, obj(name, value), None)
    else:
        store.create("things", "ns", name, obj(name, value))


def remember(model, name, value):
    if value is None:
        model.pop(name, None)
    else:
        model[name] = value


def content(store):
    return {e.name: e.obj["value"] for e in store.list("things")}


def opened(path):
    database = Sqlite(path)
    return database, Store(database.write, *database.load())


# --- a disk that fails ---------------------------------------------------------------------------------------------


class Disk(apsw.VFS):
    """SQLite's own files, the n-th write of which fails, and all that follow while ``broken`` is set."""

    def __init__(self):
        self.left, self.error, self.writes = -1, apsw.FullError, 0
        super().__init__("failing", "unix", makedefault=True)

    def xOpen(self, name, flags):  # noqa: N802 - SQLite's name
        return File(self, name, flags)

    def counted(self):
        self.writes += 1
        if self.left == 0:
            raise self.error("the disk says so")
        self.left -= self.left > 0


class File(apsw.VFSFile):
    def __init__(self, disk, name, flags):
        self._disk = disk
        super().__init__("unix", name, flags)

    def xWrite(self, data, offset):  # noqa: N802
        self._disk.counted()
        return super().xWrite(data, offset)

    def xSync(self, flags):  # noqa: N802
        self._disk.counted()
        return super().xSync(flags)


@pytest.fixture
def disk():
    found = Disk()
    yield found
    found.unregister()


def failing_at(disk, path, n, error):
    """A history whose n-th access to the disk fails, as do the next ones until there is space again; returns whether
    one did."""
    disk.left = -1
    database, store = opened(path)
    chance, model, refused = random.Random(n), {}, 0
    disk.left, disk.error = n, error
    for _ in range(8):
        before, rv, after = content(store), store.rv, dict(model)
        for _ in range(chance.randrange(1, 4)):
            name, value = step(chance, after)
            carry_out(store, after, name, value)
            remember(after, name, value)
        assert content(store) == after
        if failure := store.settle():
            assert isinstance(failure, (StoreFull, StoreBroken))
            refused += 1
            assert (content(store), store.rv) == (before, rv)
            if refused == 2:
                disk.left = -1  # there is space again
        else:
            model = after
        assert content(store) == model
    disk.left = -1
    again, reloaded = opened(path)  # as another process would, without the first one's having closed anything
    assert content(reloaded) == model
    again.close()
    with contextlib.suppress(apsw.Error):
        database.close()
    return bool(refused)


@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError])
def test_a_write_that_fails_at_any_place_changes_nothing_and_the_next_ones_go_on(disk, tmp_path, error):
    n, failed = 0, True
    while failed and n < 200:
        failed = failing_at(disk, tmp_path / f"db{n}", n, error)
        n += 1
    assert n > 20  # every place of a history was reached


def test_a_full_disk_says_so_and_recovers(tmp_path):
    database, store = opened(tmp_path / "db")
    (pages,) = next(database._db.execute("PRAGMA page_count"))
    database._db.execute(f"PRAGMA max_page_count={pages + 20}")

    def fill():
        for i in range(1000):
            store.create("things", "ns", f"n{i}", obj(f"n{i}", "x" * 1000))
            if i % 3 == 0 and (failure := store.settle()):
                raise failure

    with pytest.raises(StoreFull, match="no space left"):
        fill()
    count = len(store.list("things"))
    assert count > 5
    database._db.execute("PRAGMA max_page_count=1000000")
    store.create("things", "ns", "later", obj("later", 1))
    assert store.settle() is None
    assert set(content(opened(tmp_path / "db")[1])) == {*(f"n{i}" for i in range(count)), "later"}


# --- a process that is killed ----------------------------------------------------------------------------------------

WRITER = """
import asyncio, random, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_crashes import carry_out, content, opened, remember, step

async def write(store, model, number):
    name, value = step(chance, model)
    print(f"? {number} {name} {value or ''}", flush=True)
    carry_out(store, model, name, value)
    remember(model, name, value)
    await store.durable()
    print(f"ok {number}", flush=True)

async def main():
    _, store = opened(Path(sys.argv[1]))
    model, number = content(store), 0
    print("ready", flush=True)
    while True:
        together = range(number, number + chance.randrange(1, 6))
        await asyncio.gather(*(write(store, model, n) for n in together))
        number = together.stop

chance = random.Random(int(sys.argv[2]))
asyncio.run(main())
"""


def history(lines):
    """The writes in their order, and how many of them were answered: writers of one group ask before any is
    answered."""
    asked = [tuple(line.rstrip("\n").split(" ", 3)[2:]) for line in lines if line.startswith("? ")]
    answered = {int(line.split()[1]) for line in lines if line.startswith("ok ")}
    assert answered == set(range(len(answered)))
    return asked, len(answered)


def replayed(model, writes):
    out = dict(model)
    for name, value in writes:
        remember(out, name, value or None)
    return out


def test_what_was_answered_survives_kill_9_at_any_moment(tmp_path):
    """The process writes down each write before it makes it, and again when it has been answered."""
    path, here, chance, model = tmp_path / "db", os.path.dirname(__file__), random.Random(7), {}
    for round_ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(round_), here], stdout=subprocess.PIPE, text=True
        ) as process:
            lines = [process.stdout.readline() for _ in range(chance.randrange(20, 200))]
            os.kill(process.pid, signal.SIGKILL)
            lines += process.stdout.readlines()
        assert lines[0] == "ready\n"
        if not lines[-1].endswith("\n"):
            lines.pop()
        asked, answered = history(lines)
        database, store = opened(path)
        found = content(store)
        # What was answered, or all that was asked: the last group was durable already, only not answered yet.
        assert found in (replayed(model, asked[:answered]), replayed(model, asked))
        model = found
        database.close()
    assert model


# --- through the API -------------------------------------------------------------------------------------------------

MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
def filling():
    """A cluster, and its disk: no write succeeds while ``full`` is set; ``commits`` has the size of each group."""
    disk = SimpleNamespace(full=False, commits=[])

    def persist(rows):
        if disk.full:
            raise StoreFull("no space left for the database; free some, then repeat the command")
        disk.commits.append(len(rows))

    return Cluster(persist), disk


def together(cluster, *requests):
    async def run():
        return await asyncio.gather(*(cluster.send(*request) for request in requests))

    return asyncio.run(run())


def test_clients_that_write_at_the_same_moment_share_a_commit(filling):
    cluster, disk = filling
    disk.commits.clear()
    named = [("POST", MAPS, {"metadata": {"name": f"n{i}"}}) for i in range(8)]
    answers = together(cluster, *named, ("POST", MAPS, {"metadata": {"name": "n3"}}))
    assert sorted(code for code, _ in answers) == [201] * 8 + [409]
    assert disk.commits == [8]


def test_a_quota_and_addresses_count_what_is_written_at_the_same_moment(filling):
    cluster, _ = filling
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "3"}}}
    cluster.must("POST", "/api/v1/namespaces/default/resourcequotas", quota)
    status = {"status": {"hard": {"configmaps": "3"}, "used": {"configmaps": "0"}}}
    cluster.must("PATCH", "/api/v1/namespaces/default/resourcequotas/q/status", status)
    answers = together(cluster, *(("POST", MAPS, {"metadata": {"name": f"n{i}"}}) for i in range(5)))
    assert sorted(code for code, _ in answers) == [201, 201, 201, 403, 403]
    service = {"spec": {"type": "NodePort", "ports": [{"port": 80}]}}
    answers = together(
        cluster,
        *(
            ("POST", "/api/v1/namespaces/default/services", {"metadata": {"name": f"s{i}"}, **service})
            for i in range(4)
        ),
    )
    assert len({a["spec"]["clusterIP"] for _, a in answers}) == 4
    assert len({a["spec"]["ports"][0]["nodePort"] for _, a in answers}) == 4


def test_a_deletion_of_many_does_not_succeed_where_some_of_it_was_undone(filling):
    """A webhook's time lies between the objects, so that each is of a group of its own; the group after one that is
    undone begins at the same revision."""
    cluster, disk = filling
    for name in ("first", "second"):
        cluster.must("POST", MAPS, {"metadata": {"name": name}})
    admit = cluster.webhooks.admit

    async def slowly(review):
        if review.name == "second":
            await cluster.store.staged().ended.wait()
            disk.full = False
        return await admit(review)

    cluster.webhooks.admit = slowly
    disk.full = True
    code, answer = cluster.ask("DELETE", MAPS)
    assert (code, answer["reason"]) == (507, "InsufficientStorage")
    assert [m["metadata"]["name"] for m in cluster.must("GET", MAPS)["items"]] == ["first"]


@pytest.mark.parametrize("failure", [ConnectionResetError("reset by peer"), TimeoutError("too slow")])
def test_a_failure_that_is_not_the_disks_is_not_told_as_one(filling, failure):
    cluster, _ = filling

    async def fails(_):
        raise failure

    cluster.webhooks.mutate = fails
    code, answer = cluster.ask("POST", MAPS, {"metadata": {"name": "refused"}})
    assert (code, answer["reason"]) == (500, "InternalError")
    assert cluster.ask("GET", f"{MAPS}/refused")[0] == 404


def test_a_full_disk_refuses_every_writer_of_a_group_and_readers_see_nothing_of_it(filling):
    cluster, disk = filling
    cluster.must("POST", MAPS, {"metadata": {"name": "kept"}, "data": {"a": "b"}})
    definition = {
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
            ],
        },
    }
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    before = cluster.must("GET", MAPS)
    disk.full = True
    answers = together(
        cluster,
        ("POST", MAPS, {"metadata": {"name": "more"}}),
        ("PATCH", f"{MAPS}/kept", {"data": {"a": "c"}}),
        ("DELETE", f"{MAPS}/kept"),
        ("DELETE", MAPS),
        ("POST", definitions, definition),
        ("GET", MAPS),
    )
    assert [code for code, _ in answers] == [507] * 5 + [200]
    assert {a["reason"] for _, a in answers[:5]} == {"InsufficientStorage"}
    assert answers[5][1] == cluster.must("GET", MAPS) == before
    assert cluster.ask("GET", "/apis/example.com/v1/things")[0] == 404
    disk.full = False
    assert cluster.must("PATCH", f"{MAPS}/kept", {"data": {"a": "d"}})["data"] == {"a": "d"}
    cluster.must("POST", definitions, definition)
    assert cluster.must("GET", "/apis/example.com/v1/things")["items"] == []
    cluster.must("DELETE", f"{MAPS}/kept")
