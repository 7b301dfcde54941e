"""How server-side apply merges lists and maps, and properties that hold after any history."""

import pytest
from applying import LATER, apply, held, obj, spec, write
from hypothesis import given
from hypothesis import strategies as st

from lateen.cluster.apiserver import managed, schema
from lateen.cluster.apiserver.managed import merging, paths

SERVICE = schema.definitions()["io.k8s.api.core.v1.Service"]


def test_elements_of_a_list_by_keys_have_their_own_holders():
    live = apply(None, "a", spec(ports=[{"name": "p", "port": 1}]))
    live = apply(live, "b", spec(ports=[{"name": "q", "port": 2}, {"name": "p", "note": "mine"}]))
    assert live["spec"]["ports"] == [
        {"name": "q", "port": 2},
        {"name": "p", "port": 1, "note": "mine"},
    ]
    assert held(live)["b Apply"]["f:spec"]["f:ports"] == {
        'k:{"name":"p"}': {".": {}, "f:name": {}, "f:note": {}},
        'k:{"name":"q"}': {".": {}, "f:name": {}, "f:port": {}},
    }
    now = apply(live, "a", obj(spec={}))
    assert now["spec"]["ports"] == [
        {"name": "q", "port": 2},
        {"name": "p", "note": "mine"},
    ]


def test_who_changed_only_a_part_of_an_element_does_not_keep_it():
    live = apply(None, "a", spec(ports=[{"name": "p", "port": 1}]))
    live = write(live, "b", {**live, "spec": {"ports": [{"name": "p", "port": 1, "note": "n"}]}})
    assert "ports" not in apply(live, "a", spec(size=1))["spec"]


def test_sets_are_merged_value_by_value():
    live = apply(apply(None, "a", spec(tags=["x", "y"])), "b", spec(tags=["z", "y"]))
    assert live["spec"]["tags"] == ["x", "z", "y"]
    assert held(live)["b Apply"]["f:spec"]["f:tags"] == {'v:"y"': {}, 'v:"z"': {}}
    assert apply(live, "a", obj(spec={}))["spec"]["tags"] == ["z", "y"]


def test_lists_and_maps_that_are_atomic_have_one_holder():
    live = apply(None, "a", spec(hosts=["x"], ref={"name": "r", "kind": "k"}))
    with pytest.raises(managed.Conflicts) as e:
        apply(live, "b", spec(hosts=["x", "y"], ref={"name": "r"}))
    assert [cause["field"] for cause in e.value.causes()] == [
        ".spec.hosts",
        ".spec.ref",
    ]
    now = apply(live, "b", spec(ref={"name": "s"}), force=True)
    assert now["spec"]["ref"] == {"name": "s"}


def test_fields_without_a_schema_are_merged_field_by_field():
    live = apply(None, "a", spec(free={"x": {"y": 1}, "l": [1]}))
    live = apply(live, "b", spec(free={"x": {"z": 2}}))
    assert live["spec"]["free"] == {"x": {"y": 1, "z": 2}, "l": [1]}
    assert apply(live, "a", obj(spec={}))["spec"]["free"] == {"x": {"z": 2}}


def test_an_empty_object_is_held_as_such():
    live = apply(None, "a", spec(free={}))
    assert held(live) == {"a Apply": {"f:spec": {"f:free": {}}}}
    assert live["spec"] == {"free": {}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            {"ports": [{"name": "p"}, {"name": "p"}]},
            '.spec.ports: duplicate entries for key [name="p"]',
        ),
        (
            {"ports": [{"port": 1}]},
            ".spec.ports: an element omits all of the list's keys (name)",
        ),
        ({"tags": ["x", "x"]}, '.spec.tags: duplicate entries for key [="x"]'),
        (
            {"tags": [{"a": 1}]},
            ".spec.tags: a list of type set must have plain values as its elements",
        ),
    ],
)
def test_lists_whose_elements_cannot_be_told_apart_are_refused(content, says):
    with pytest.raises(managed.Untypable) as e:
        apply(None, "a", spec(**content))
    assert str(e.value) == says


def test_the_default_of_a_key_counts_as_the_key():
    live = apply(
        None,
        "a",
        obj(spec={"ports": [{"port": 80, "protocol": "TCP", "targetPort": 1}]}),
        SERVICE,
    )
    now = apply(live, "a", obj(spec={"ports": [{"port": 80, "targetPort": 2}]}), SERVICE)
    assert now["spec"]["ports"] == [{"port": 80, "targetPort": 2}]
    other = apply(live, "b", obj(spec={"ports": [{"port": 80, "name": "web"}]}), SERVICE)
    assert other["spec"]["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 1, "name": "web"}]


NAMES = st.sampled_from("abcd")
LISTS = st.lists(NAMES, unique=True, min_size=1, max_size=4)
CONFIGS = st.fixed_dictionaries(
    {"size": st.integers(0, 2)},
    optional={
        "tags": LISTS,
        "hosts": LISTS,
        "ports": LISTS.map(lambda names: [{"name": n, "port": ord(n)} for n in names]),
        "free": st.dictionaries(
            NAMES,
            st.one_of(st.integers(0, 1), st.dictionaries(NAMES, st.integers(0, 1), min_size=1)),
            min_size=1,
        ),
    },
)


@given(st.lists(st.tuples(st.sampled_from("xyz"), CONFIGS), max_size=6))
def test_after_any_history_of_forced_applies_each_configuration_that_nobody_has_overruled_stands(
    history,
):
    live = None
    for manager, config in history:
        live = apply(live, manager, spec(**config), force=True)
        for name, value in config.items():
            now = live["spec"][name]
            if name in ("size", "hosts"):
                assert now == value
            elif name == "tags":
                assert [v for v in now if v in value] == value
            elif name == "ports":
                assert [p for p in now if p["name"] in {q["name"] for q in value}] == value
        assert apply(live, manager, spec(**config), now=LATER) == live


@given(CONFIGS, CONFIGS)
def test_an_applier_alone_always_gets_exactly_its_configuration(first, second):
    assert apply(apply(None, "a", spec(**first)), "a", spec(**second))["spec"] == second


FIELDS = st.recursive(
    st.just({".": {}}),
    lambda s: st.dictionaries(st.sampled_from(["f:a", "f:b", 'k:{"n":1}', 'v:"x"', "."]), s, min_size=1),
)


@given(FIELDS, FIELDS)
def test_sets_of_paths_are_sets(a, b):
    def normal(f):
        return {k: {} if k == "." else normal(v) for k, v in f.items()}

    a, b = normal(a), normal(b)
    assert paths.union(a, b) == paths.union(b, a)
    assert paths.union(paths.difference(a, b), paths.intersection(a, b)) == a
    assert paths.intersection(paths.difference(a, b), b) == {}
    assert paths.decode(paths.encode(a)) == a


@pytest.mark.parametrize(
    ("live", "applied", "merged"),
    [
        ("abcd", "db", "acdb"),
        ("ab", "xb", "axb"),
        ("ab", "ba", "ba"),
        ("abc", "c", "abc"),
        ("", "ab", "ab"),
        ("ab", "", "ab"),
        ("ac", "abc", "abc"),
    ],
)
def test_merged_lists_have_the_applied_order(live, applied, merged):
    set_of = {"x-kubernetes-list-type": "set", "items": {}}
    assert "".join(merging.merge(set_of, list(live), list(applied))) == merged
