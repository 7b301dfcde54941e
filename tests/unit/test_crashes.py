"""The store on a disk that fills up or fails at any write, and in a process that is killed at any moment.

Whatever was answered is there afterwards; of what was not, at most the write that was under way.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys

import apsw
import pytest

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
    for _ in range(12):
        name, value = step(chance, model)
        before, rv = content(store), store.rv
        try:
            carry_out(store, model, name, value)
        except (StoreFull, StoreBroken):
            refused += 1
            assert (content(store), store.rv) == (before, rv)
            if refused == 2:
                disk.left = -1  # there is space again
        else:
            remember(model, name, value)
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

    with pytest.raises(StoreFull, match="no space left"):
        fill()
    count = len(store.list("things"))
    assert count > 5
    database._db.execute("PRAGMA max_page_count=1000000")
    store.create("things", "ns", "later", obj("later", 1))
    assert set(content(opened(tmp_path / "db")[1])) == {*(f"n{i}" for i in range(count)), "later"}


# --- a process that is killed ----------------------------------------------------------------------------------------

WRITER = """
import random, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_crashes import carry_out, content, opened, remember, step
_, store = opened(Path(sys.argv[1]))
chance, model = random.Random(int(sys.argv[2])), content(store)
print("ready", flush=True)
while True:
    name, value = step(chance, model)
    print(f"? {name} {value or ''}", flush=True)
    carry_out(store, model, name, value)
    print("ok", flush=True)
    remember(model, name, value)
"""


def replay(lines, model):
    """What was answered, applied to the model; and the last write if it was not answered."""
    under_way = None
    for line in lines:
        if line.startswith("? "):
            _, name, value = line.rstrip("\n").split(" ", 2)
            under_way = name, value or None
        elif line == "ok\n":
            remember(model, *under_way)
            under_way = None
    return under_way


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
        under_way = replay(lines, model)
        database, store = opened(path)
        found = content(store)
        if under_way is not None and found != model:
            remember(model, *under_way)  # it was durable already, only not answered yet
        assert found == model
        database.close()
    assert model
