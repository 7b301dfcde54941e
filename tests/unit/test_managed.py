"""Server-side apply and managed fields, case by case in the words of Kubernetes' documentation."""

import json

import pytest
from applying import DEPLOYMENT, LATER, NOW, apply, held, obj, spec, write, writer

from lateen.cluster.apiserver import managed, schema

CONFIG_MAP = schema.definitions()["io.k8s.api.core.v1.ConfigMap"]


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
