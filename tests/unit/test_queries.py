"""Queries are recomputed if, and only if, something that they have read has changed."""

import random

import pytest

from lateen.kit import queries
from lateen.kit.queries import UNUSED, Queries, Watch, query
from lateen.kit.tables import Table


class Shop:
    def __init__(self, prices, stock):
        self.queries = Queries()
        self.prices, self.stock = Table(self.queries, prices), Table(self.queries, stock)
        self.by_place = self.stock.index(lambda _, value: (value[0],))
        self.runs = []

    def put(self, prices=None, stock=None):
        given = ((self.prices, prices), (self.stock, stock))
        self.queries.replace([(table, content) for table, content in given if content is not None])

    @query
    def price(self, name):
        self.runs.append(("price", name))
        return self.prices.get(name, 0)

    @query
    def rounded(self, name):
        self.runs.append(("rounded", name))
        return self.price(name) // 10

    @query
    def label(self, name):
        self.runs.append(("label", name))
        return f"{name}: {self.rounded(name)}"

    @query
    def at(self, place):
        self.runs.append(("at", place))
        return tuple(v for v in self.by_place.get(place))

    @query
    def first(self):
        self.runs.append(("first",))
        return self.label(min(self.prices)) if self.prices else ""


def ran(shop):
    found, shop.runs[:] = list(shop.runs), []
    return found


def test_an_answer_is_kept_while_nothing_it_reads_changes():
    shop = Shop({"a": 10, "b": 20}, {})
    assert shop.label("a") == "a: 1"
    ran(shop)
    shop.put({"a": 10, "b": 30})
    assert shop.label("a") == "a: 1"
    assert ran(shop) == []


def test_a_change_that_makes_no_difference_stops_where_it_makes_none():
    shop = Shop({"a": 10}, {})
    shop.label("a")
    ran(shop)
    shop.put({"a": 11})
    assert shop.label("a") == "a: 1"
    assert ran(shop) == [("price", "a"), ("rounded", "a")]
    shop.put({"a": 25})
    assert shop.label("a") == "a: 2"


def test_only_the_bucket_that_an_object_leaves_and_the_one_it_enters_change():
    shop = Shop({}, {"x": ("north", 1), "y": ("south", 2), "z": ("west", 3)})
    before = {p: shop.at(p) for p in ("north", "south", "west")}
    ran(shop)
    shop.put(stock={"x": ("south", 1), "y": ("south", 2), "z": ("west", 3)} | {})
    assert shop.at("north") == ()
    assert shop.at("south") == (("south", 1), ("south", 2))
    assert set(ran(shop)) >= {("at", "north"), ("at", "south")}
    assert before["west"] == shop.at("west")


def test_a_query_that_would_fail_now_is_not_asked_for():
    shop = Shop({"a": 10, "b": 20}, {})
    assert shop.first() == "a: 1"
    shop.put({"b": 20})
    assert shop.first() == "b: 2"
    shop.put({})
    assert shop.first() == ""


def test_a_failure_is_raised_each_time_and_not_kept():
    class Broken(Shop):
        @query
        def strict(self, name):
            return self.prices[name]

    shop = Broken({}, {})
    for _ in range(2):
        with pytest.raises(KeyError):
            shop.strict("a")
    shop.put({"a": 1})
    assert shop.strict("a") == 1
    shop.put({})
    with pytest.raises(KeyError):
        shop.strict("a")


def test_a_change_that_one_index_cannot_place_changes_no_table_and_no_index():
    stock = {"x": ("north", 1), "y": ("south", 2)}
    shop = Shop({"a": 10}, stock)
    by_size = shop.stock.index(lambda _, value: ("large" if value[1] > 5 else "small",))
    known = shop.label("a"), shop.at("north"), shop.at("south")
    unreadable = {"x": ("south", 3), "y": ("south", "many"), "z": ("west", 9)}
    for _ in range(2):  # a second attempt fails like the first
        with pytest.raises(TypeError):
            shop.put({"a": 99}, unreadable)
        assert (shop.label("a"), shop.at("north"), shop.at("south")) == known
        assert dict(shop.stock) == stock
        assert by_size.get("small") == (("north", 1), ("south", 2))
    mended = unreadable | {"y": ("west", 1)}
    shop.put({"a": 99}, mended)
    new = Shop({"a": 99}, mended)
    assert shop.label("a") == new.label("a")
    assert [shop.at(p) for p in ("north", "south", "west")] == [new.at(p) for p in ("north", "south", "west")]
    assert (by_size.get("small"), by_size.get("large")) == ((("south", 3), ("west", 1)), (("west", 9),))


def test_values_that_nobody_asks_for_are_dropped():
    shop = Shop({str(i): i for i in range(100)}, {})
    for i in range(100):
        shop.label(str(i))
    full = len(shop.queries)
    for i in range(UNUSED + 2):
        shop.put({str(i): i for i in range(100)} | {"n": i})
        shop.label("7")
    assert len(shop.queries) == full * 3 // 300


@pytest.mark.parametrize("hub", [0, 1, queries.HUB])
@pytest.mark.parametrize("seed", range(20))
def test_random_changes_give_the_same_values_as_a_fresh_database(seed, hub, monkeypatch):
    monkeypatch.setattr(queries, "HUB", hub)
    rng = random.Random(seed)
    prices = {c: rng.randint(0, 40) for c in "abcd"}
    stock = {c: (rng.choice("nsw"), rng.randint(0, 3)) for c in "abcd"}
    shop = Shop(prices, stock)
    for _ in range(60):
        prices, stock = dict(prices), dict(stock)
        for table, value in ((prices, rng.randint(0, 40)), (stock, (rng.choice("nsw"), rng.randint(0, 3)))):
            name = rng.choice("abcdef")
            if rng.random() < 0.3:
                table.pop(name, None)
            else:
                table[name] = value
        shop.put(prices, stock)
        new = Shop(prices, stock)
        for name in rng.sample("abcdef", 3):
            assert shop.label(name) == new.label(name)
        for place in "nsw":
            assert shop.at(place) == new.at(place)
        assert shop.first() == new.first()


def test_many_readers_of_a_value_that_comes_out_equal_are_not_looked_at():
    class Many(Shop):
        @query
        def mine(self, i):
            return (i, self.rounded("a"))

    shop = Many({"a": 10}, {})
    watches = [Watch(shop.queries) for _ in range(queries.HUB + 1)]
    for i, watch in enumerate(watches):
        with watch:
            assert shop.mine(i) == (i, 1)
    shop.put({"a": 12})
    assert all(w.suspects is None and w.fresh() for w in watches)
    shop.put({"a": 20})
    assert not any(w.fresh() for w in watches)
    assert shop.mine(7) == (7, 2)


def test_a_watch_tells_whether_what_was_read_has_changed():
    shop = Shop({"a": 10, "b": 20}, {})
    watch = Watch(shop.queries)
    assert not watch.fresh()
    with watch:
        shop.rounded("a")
    shop.put({"a": 11, "b": 30})
    assert watch.fresh()
    shop.put({"a": 20, "b": 30})
    assert not watch.fresh()
    with watch:
        shop.rounded("a")
    assert watch.fresh()
    with pytest.raises(ZeroDivisionError), watch:
        shop.price(1 // 0)
    assert not watch.fresh()


def test_what_is_watched_is_kept_until_the_watch_ends():
    shop = Shop({"a": 10}, {})
    watch = Watch(shop.queries)
    with watch:
        shop.label("a")
    for i in range(UNUSED + 2):
        shop.put({"a": 10, "n": i})
    assert watch.fresh()
    assert len(shop.queries) == 3
    watch.close()
    assert len(shop.queries) == 0
    assert not watch.fresh()
