"""Patches as kubectl sends them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lateen.cluster.apiserver import patch, schema
from lateen.cluster.apiserver.errors import ApiError

POD = schema.definitions()["io.k8s.api.core.v1.Pod"]
DEPLOYMENT = schema.definitions()["io.k8s.api.apps.v1.Deployment"]
JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


def containers(*names):
    return {"spec": {"containers": [{"name": n, "image": "old"} for n in names]}}


def test_strategic_merge_finds_list_items_by_their_key():
    after = patch.strategic(containers("a", "b"), {"spec": {"containers": [{"name": "b", "image": "new"}]}}, POD)
    assert [c["image"] for c in after["spec"]["containers"]] == ["old", "new"]


def test_strategic_merge_deletes_and_orders():
    change = {
        "spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
            "containers": [{"name": "b", "$patch": "delete"}, {"name": "c", "image": "new"}],
        }
    }
    after = patch.strategic(containers("a", "b"), change, POD)
    assert [c["name"] for c in after["spec"]["containers"]] == ["c", "a"]


def test_retain_keys_removes_the_other_strategy():
    before = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    change = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert patch.strategic(before, change, DEPLOYMENT)["spec"]["strategy"] == {"type": "Recreate"}


def test_null_removes_a_label():
    before = {"metadata": {"labels": {"a": "1", "b": "2"}}}
    assert patch.merge(before, {"metadata": {"labels": {"a": None}}}) == {"metadata": {"labels": {"b": "2"}}}


@given(JSON, st.dictionaries(st.text(max_size=2), JSON, max_size=3))
def test_a_merge_patch_applied_twice_is_a_merge_patch_applied_once(target, change):
    once = patch.merge(target, change)
    assert patch.merge(once, change) == once


def test_a_new_element_of_a_list_comes_first_as_in_kubernetes():
    after = patch.strategic(containers("a", "b"), {"spec": {"containers": [{"name": "new"}]}}, POD)
    assert [c["name"] for c in after["spec"]["containers"]] == ["new", "a", "b"]


def test_elements_that_a_patch_names_keep_their_places_between_the_others():
    change = {"spec": {"containers": [{"name": "x"}, {"name": "b", "image": "new"}, {"name": "y"}]}}
    after = patch.strategic(containers("a", "b", "c"), change, POD)
    assert [c["name"] for c in after["spec"]["containers"]] == ["x", "a", "b", "y", "c"]


def test_replacing_a_field_that_is_not_there_sets_it_as_in_kubernetes():
    operation = {"op": "replace", "path": "/data/new", "value": "x"}
    assert patch.json_patch({"data": {}}, [operation]) == {"data": {"new": "x"}}
    with pytest.raises(ApiError, match="nothing there"):
        patch.json_patch({}, [operation])
    with pytest.raises(ApiError, match="nothing there"):
        patch.json_patch({"data": []}, [{"op": "replace", "path": "/data/3", "value": "x"}])
