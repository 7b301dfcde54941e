"""Server-side apply and managed fields, case by case in the words of Kubernetes' documentation."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lateen.cluster.apiserver import managed, schema
from lateen.cluster.apiserver.managed import merging, paths, typed

NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
DEPLOYMENT = schema.definitions()["io.k8s.api.apps.v1.Deployment"]
CONFIG_MAP = schema.definitions()["io.k8s.api.core.v1.ConfigMap"]
SERVICE = schema.definitions()["io.k8s.api.core.v1.Service"]
CUSTOM = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "size": {"type": "integer"},
                "hosts": {"type": "array", "items": {"type": "string"}},
                "tags": {
                    "type": "array",
                    "x-kubernetes-list-type": "set",
                    "items": {"type": "string"},
                },
                "ports": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "properties": {
                            "name": {"type": "string"},
                            "port": {"type": "integer"},
                            "note": {"type": "string"},
                        },
                    },
                },
                "ref": {
                    "type": "object",
                    "x-kubernetes-map-type": "atomic",
                    "properties": {
                        "name": {"type": "string"},
                        "kind": {"type": "string"},
                    },
                },
                "free": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": True,
                },
            },
        },
        "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
    },
}


def writer(manager, of=CUSTOM, subresource="", now=NOW):
    native = of is not CUSTOM
    version = "apps/v1" if of is DEPLOYMENT else "v1" if native else "example.com/v1"
    return managed.Writer(manager, version, subresource, typed.root(of), native, True, now)


def obj(name="x", meta=None, **content):
    return {
        "apiVersion": "v",
        "kind": "K",
        "metadata": {"name": name, **(meta or {})},
        **content,
    }


def apply(live, manager, config, of=CUSTOM, force=False, now=NOW, subresource=""):
    return managed.apply(writer(manager, of, subresource, now), live, config, force)


def write(live, manager, new, of=CUSTOM, now=NOW, subresource=""):
    """What an update leaves behind: the object with its managedFields."""
    fields = managed.update(writer(manager, of, subresource, now), live, new)
    return {**new, "metadata": {**new["metadata"], "managedFields": fields}}


def held(o):
    """``manager operation`` -> its fields."""
    entries = o["metadata"].get("managedFields") or []
    return {
        f"{e['manager']} {e['operation']}{' ' + e['subresource'] if 'subresource' in e else ''}": e["fieldsV1"]
        for e in entries
    }


def spec(**content):
    return obj(spec=content)


def data(**content):
    return obj(data=content)


def test_applying_creates_the_object_and_holds_all_that_is_set():
    labels = {"test-label": "test"}
    made = apply(
        None,
        "kubectl",
        obj(meta={"labels": labels}, data={"key": "some value"}),
        CONFIG_MAP,
    )
    (entry,) = made["metadata"]["managedFields"]
    assert entry == {
        "manager": "kubectl",
        "operation": "Apply",
        "apiVersion": "v1",
        "time": NOW,
        "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:metadata": {"f:labels": {"f:test-label": {}}},
            "f:data": {"f:key": {}},
        },
    }


def test_an_update_takes_a_field_over_from_who_applied_it():
    live = apply(
        None,
        "kubectl",
        obj(meta={"labels": {"test-label": "test"}}, data={"key": "some value"}),
        CONFIG_MAP,
    )
    new = json.loads(json.dumps(live))
    new["data"]["key"] = "new value"
    now = write(live, "kube-controller-manager", new, CONFIG_MAP, now=LATER)
    assert held(now) == {
        "kubectl Apply": {"f:metadata": {"f:labels": {"f:test-label": {}}}},
        "kube-controller-manager Update": {"f:data": {"f:key": {}}},
    }
    with pytest.raises(managed.Conflicts) as e:
        apply(now, "kubectl", obj(data={"key": "some value"}), CONFIG_MAP)
    assert str(e.value) == ('Apply failed with 1 conflict: conflict with "kube-controller-manager" using v1: .data.key')


def test_create_records_what_a_client_sends_as_kube_apiserver_does():
    container = {
        "name": "nginx",
        "image": "nginx:1",
        "resources": {},
        "ports": [{"containerPort": 80, "protocol": "TCP"}],
        "env": [{"name": "A", "value": "b"}],
    }
    made = write(
        None,
        "kubectl-create",
        obj(
            meta={
                "labels": {"app": "nginx"},
                "uid": "1",
                "creationTimestamp": NOW,
                "namespace": "n",
            },
            spec={
                "replicas": 1,
                "selector": {"matchLabels": {"app": "nginx"}},
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": "25%"},
                },
                "template": {
                    "metadata": {"labels": {"app": "nginx"}},
                    "spec": {"containers": [container]},
                },
            },
            status={"replicas": 0},
        ),
        DEPLOYMENT,
    )
    assert held(made) == {
        "kubectl-create Update": {
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:strategy": {
                    "f:rollingUpdate": {".": {}, "f:maxSurge": {}},
                    "f:type": {},
                },
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {
                        "f:containers": {
                            'k:{"name":"nginx"}': {
                                ".": {},
                                "f:env": {
                                    ".": {},
                                    'k:{"name":"A"}': {
                                        ".": {},
                                        "f:name": {},
                                        "f:value": {},
                                    },
                                },
                                "f:image": {},
                                "f:name": {},
                                "f:ports": {
                                    ".": {},
                                    'k:{"containerPort":80,"protocol":"TCP"}': {
                                        ".": {},
                                        "f:containerPort": {},
                                        "f:protocol": {},
                                    },
                                },
                                "f:resources": {},
                            }
                        }
                    },
                },
            },
        }
    }


def test_a_conflict_names_every_field_and_manager():
    live = apply(None, "a", spec(size=1, ref={"name": "r"}))
    live = write(live, "b", {**live, "spec": {**live["spec"], "hosts": ["h"]}})
    with pytest.raises(managed.Conflicts) as e:
        apply(live, "c", spec(size=2, ref={"name": "s"}, hosts=["i"]))
    assert str(e.value).splitlines() == [
        'Apply failed with 3 conflicts: conflicts with "a":',
        "- .spec.ref",
        "- .spec.size",
        'conflicts with "b" using example.com/v1:',
        "- .spec.hosts",
    ]
    assert e.value.causes()[0] == {
        "reason": "FieldManagerConflict",
        "message": 'conflict with "a"',
        "field": ".spec.ref",
    }


def test_force_makes_the_applier_the_only_holder():
    live = apply(None, "a", spec(size=1, hosts=["h"]))
    now = apply(live, "b", spec(size=2), force=True)
    assert now["spec"] == {"size": 2, "hosts": ["h"]}
    assert held(now) == {
        "a Apply": {"f:spec": {"f:hosts": {}}},
        "b Apply": {"f:spec": {"f:size": {}}},
    }


def test_the_same_value_is_held_together_and_goes_only_with_the_last_holder():
    live = apply(apply(None, "a", spec(size=1)), "b", spec(size=1))
    assert held(live) == {
        "a Apply": {"f:spec": {"f:size": {}}},
        "b Apply": {"f:spec": {"f:size": {}}},
    }
    with pytest.raises(managed.Conflicts):
        apply(live, "a", spec(size=3))
    one = apply(live, "a", spec(hosts=["h"]))
    assert one["spec"] == {"size": 1, "hosts": ["h"]}
    none = apply(one, "b", obj(spec={}))
    assert none["spec"] == {"hosts": ["h"]}


def test_what_is_not_applied_any_more_is_removed():
    live = apply(
        None,
        "a",
        spec(
            size=1,
            hosts=["h"],
            ports=[{"name": "p", "port": 1}, {"name": "q", "port": 2}],
        ),
    )
    now = apply(live, "a", spec(size=1, ports=[{"name": "q", "port": 2}]))
    assert now["spec"] == {"size": 1, "ports": [{"name": "q", "port": 2}]}


def test_a_field_is_handed_over_to_a_controller_as_the_documentation_shows_it():
    """Replicas of a Deployment: the user leaves them to the autoscaler without their value being reset."""
    body = {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}},
    }
    live = apply(None, "kubectl", obj(spec={"replicas": 3, **body}), DEPLOYMENT)
    live = apply(live, "handover-to-hpa", obj(spec={"replicas": 3}), DEPLOYMENT)
    live = apply(live, "kubectl", obj(spec=body), DEPLOYMENT)
    assert live["spec"]["replicas"] == 3
    scaled = write(live, "hpa", {**live, "spec": {**live["spec"], "replicas": 7}}, DEPLOYMENT)
    assert "handover-to-hpa Apply" not in held(scaled)
    assert apply(scaled, "kubectl", obj(spec=body), DEPLOYMENT)["spec"]["replicas"] == 7


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


def test_status_is_applied_through_its_subresource_alone():
    live = apply(None, "a", spec(size=1))
    now = apply(
        live,
        "c",
        obj(spec={"size": 9}, status={"phase": "Ready"}),
        subresource="status",
    )
    assert (now["spec"], now["status"]) == ({"size": 1}, {"phase": "Ready"})
    assert held(now)["c Apply status"] == {"f:status": {"f:phase": {}}}
    with pytest.raises(managed.Conflicts) as e:
        apply(now, "d", obj(status={"phase": "Failed"}), subresource="status")
    assert str(e.value) == 'Apply failed with 1 conflict: conflict with "c" with subresource "status": .status.phase'


def test_a_status_in_a_plain_apply_is_not_held():
    assert held(apply(None, "a", obj(spec={"size": 1}, status={"phase": "x"}))) == {
        "a Apply": {"f:spec": {"f:size": {}}}
    }


def test_applying_the_same_again_changes_nothing_not_even_the_time():
    live = apply(None, "a", spec(size=1))
    assert apply(live, "a", spec(size=1), now=LATER) == live


def test_an_update_without_a_change_takes_nothing():
    live = apply(None, "a", spec(size=1))
    assert write(live, "b", live, now=LATER)["metadata"]["managedFields"] == live["metadata"]["managedFields"]


def test_what_an_update_removes_nobody_holds():
    live = apply(None, "a", spec(size=1, hosts=["h"]))
    now = write(live, "b", {**live, "spec": {"hosts": ["h"]}})
    assert held(now) == {"a Apply": {"f:spec": {"f:hosts": {}}}}


def test_an_object_from_before_managed_fields_belongs_to_before_first_apply():
    live = obj(spec={"size": 1, "hosts": ["h"]})
    assert managed.update(writer("b"), live, {**live, "spec": {"size": 2}}) == []
    with pytest.raises(managed.Conflicts) as e:
        apply(live, "a", spec(size=2))
    assert 'conflict with "before-first-apply" using v: .spec.size' in str(e.value)
    assert set(held(apply(live, "a", spec(size=2), force=True))) == {
        "before-first-apply Update",
        "a Apply",
    }


def test_one_empty_entry_resets_managed_fields_and_an_empty_list_does_not():
    live = apply(None, "a", spec(size=1))
    bare = {**live, "metadata": {"name": "x", "managedFields": [{}]}}
    assert managed.update(writer("b"), live, bare) == []
    empty = {**live, "metadata": {"name": "x", "managedFields": []}}
    assert managed.update(writer("b"), live, empty) == live["metadata"]["managedFields"]


def test_a_client_may_rewrite_managed_fields_as_kubectl_does_when_it_migrates():
    live = write(None, "kubectl-client-side-apply", spec(size=1, hosts=["h"]))
    (entry,) = live["metadata"]["managedFields"]
    taken = {**entry, "manager": "kubectl", "operation": "Apply"}
    now = write(live, "kubectl", {**live, "metadata": {"name": "x", "managedFields": [taken]}})
    assert set(held(now)) == {"kubectl Apply"}
    assert "hosts" not in apply(now, "kubectl", spec(size=1))["spec"]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"operation": "Steal"}, "[0].operation: must be `Apply` or `Update`"),
        ({"fieldsType": "FieldsV2"}, "[0].fieldsType: must be `FieldsV1`"),
        (
            {"fieldsV1": {"x": {}}},
            '[0].fieldsV1: "x" is not a path element (f:, k:, v: or i:)',
        ),
        ({"fieldsV1": {"f:x": 1}}, "[0].fieldsV1: must be an object"),
    ],
)
def test_malformed_managed_fields_are_refused_by_name(entry, says):
    given = {
        "manager": "m",
        "operation": "Update",
        "apiVersion": "v1",
        "fieldsType": "FieldsV1",
        "fieldsV1": {},
    } | entry
    with pytest.raises(ValueError) as e:  # noqa: PT011 - the text is what is tested
        managed.update(writer("b"), None, obj(meta={"managedFields": [given]}))
    assert str(e.value) == says


def test_only_the_newest_updaters_are_told_apart():
    live = write(None, "m0", spec(free={}))
    for i in range(14):
        free = {**live["spec"]["free"], f"k{i}": i}
        live = write(
            live,
            f"m{i}",
            {**live, "spec": {"free": free}},
            now=f"2026-01-01T00:00:{i:02}Z",
        )
    names = [e["manager"] for e in live["metadata"]["managedFields"]]
    assert len(names) == 10
    assert names[-1] == "m13"
    assert "ancient-changes" in names
    assert set(held(live)["ancient-changes Update"]["f:spec"]["f:free"]) >= {
        "f:k0",
        "f:k1",
    }


LAST = "kubectl.kubernetes.io/last-applied-configuration"


def test_kubectl_goes_over_from_client_side_apply_without_a_conflict():
    config = spec(size=1)
    noted = {LAST: json.dumps(config)}
    live = write(
        None,
        "kubectl-client-side-apply",
        obj(meta={"annotations": noted}, spec={"size": 1}),
    )
    now = apply(live, "kubectl", spec(size=2))
    assert now["spec"] == {"size": 2}
    assert json.loads(now["metadata"]["annotations"][LAST])["spec"] == {"size": 2}
    with pytest.raises(managed.Conflicts):
        apply(live, "somebody-else", spec(size=2))
    changed = write(live, "b", {**live, "spec": {"size": 5}})
    with pytest.raises(managed.Conflicts):
        apply(changed, "kubectl", spec(size=2))


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
