"""Custom resources in several versions, converted by a webhook or by name alone."""

import json

import pytest
from apiserver import Cluster
from hooks import Converter, serving
from widgets import CRDS, V1, V2, answered, converting, definition, first, stored, widget

from lateen.cluster.apiserver import versions

TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
APPLY = "application/apply-patch+yaml"


@pytest.fixture
def hook():
    with serving(Converter) as found:
        yield found


@pytest.fixture
def cluster(hook):
    return converting(hook)


# --- reading and writing ---------------------------------------------------------------------------------------------


def test_what_is_written_in_one_version_is_read_in_the_other(cluster, hook):
    made = cluster.must("POST", V1, widget(size="3x4"))
    assert made["apiVersion"] == "example.com/v1"
    assert made["spec"] == {"size": "3x4", "color": "red"}
    assert stored(cluster)["apiVersion"] == "example.com/v2"
    assert cluster.must("GET", f"{V2}/w")["spec"] == {"width": 3, "height": 4, "color": "red"}
    asked = hook.asked[0]
    assert asked["desiredAPIVersion"] == "example.com/v2"
    assert [o["spec"]["size"] for o in asked["objects"]] == ["3x4"]


def test_a_change_through_the_other_version_and_one_of_the_status_alone(cluster):
    cluster.must("POST", V2, widget(width=3, height=4))
    obj = cluster.must("GET", f"{V1}/w")
    cluster.must("PUT", f"{V1}/w", obj | {"spec": {"size": "5x6"}})
    assert stored(cluster)["spec"]["height"] == 6
    cluster.must("PATCH", f"{V1}/w", {"spec": {"size": "7x8"}})
    assert cluster.must("GET", f"{V2}/w")["spec"]["width"] == 7
    cluster.must("PATCH", f"{V1}/w/status", {"status": {"ready": True}})
    assert cluster.must("GET", f"{V2}/w")["status"] == {"ready": True}


def test_each_version_judges_what_is_written_through_it_alone(cluster):
    code, answer = cluster.ask("POST", V2, widget(width=3, height=0))
    assert (code, answer["reason"]) == (422, "Invalid")
    assert cluster.must("POST", V1, widget(size="3x0"))["spec"]["size"] == "3x0"
    code, answer = cluster.ask("POST", V2, {"apiVersion": "example.com/v1", **widget("x", width=1)})
    assert code == 400
    assert "does not match the expected API version (example.com/v2)" in answer["message"]


def test_writing_the_same_again_changes_no_revision(cluster):
    cluster.must("POST", V1, widget(size="3x4"))
    obj = cluster.must("GET", f"{V1}/w")
    assert cluster.must("PUT", f"{V1}/w", obj)["metadata"]["resourceVersion"] == obj["metadata"]["resourceVersion"]


def test_lists_and_tables_are_of_the_version_that_is_asked_for(cluster, hook):
    for i in range(250):
        cluster.must("POST", V2, widget(f"w{i:03}", width=i, height=1))
    hook.asked.clear()
    items = cluster.must("GET", V1)["items"]
    assert [o["spec"]["size"] for o in items] == [f"{i}x1" for i in range(250)]
    assert {o["apiVersion"] for o in items} == {"example.com/v1"}
    assert sum(len(r["objects"]) for r in hook.asked) == 250
    assert max(len(r["objects"]) for r in hook.asked) == 100, "in batches"
    hook.asked.clear()
    rows = cluster.must("GET", f"{V1}?limit=2", headers=TABLE)["rows"]
    assert [r["cells"][:2] for r in rows] == [["w000", "0x1"], ["w001", "1x1"]]
    assert not hook.asked, "what an object looks like is kept for as long as the object"
    cluster.must("PATCH", f"{V2}/w000", {"spec": {"height": 9}})
    assert cluster.must("GET", f"{V1}/w000")["spec"]["size"] == "0x9"


def test_the_scale_of_a_version_that_has_one(cluster):
    cluster.must("POST", V1, widget(size="3x4"))
    assert cluster.must("GET", f"{V2}/w/scale")["spec"] == {"replicas": 3}
    cluster.must("PATCH", f"{V2}/w/scale", {"spec": {"replicas": 8}})
    assert cluster.must("GET", f"{V1}/w")["spec"]["size"] == "8x4"


def test_a_dry_run_converts_and_stores_nothing(cluster):
    assert cluster.must("POST", f"{V1}?dryRun=All", widget(size="3x4"))["spec"]["size"] == "3x4"
    assert cluster.store.count("widgets.example.com") == 0


def test_deletion_answers_in_the_version_that_is_asked_for(cluster):
    cluster.must(
        "POST", V2, {"metadata": {"name": "w", "finalizers": ["example.com/f"]}, "spec": {"width": 1, "height": 2}}
    )
    assert cluster.must("DELETE", f"{V1}/w")["spec"]["size"] == "1x2"
    cluster.must("PATCH", f"{V1}/w", {"metadata": {"finalizers": None}})
    assert cluster.ask("GET", f"{V1}/w")[0] == 404
    cluster.must("POST", V2, widget("x", width=1, height=2))
    cluster.must("DELETE", V1)
    assert cluster.store.count("widgets.example.com") == 0


def test_what_is_kept_of_conversions_is_limited(cluster, hook, monkeypatch):
    monkeypatch.setattr(versions, "MAX_KEPT", 3000)
    hook.change = first(lambda o: o["spec"].update(size="1" * 1000))
    for n in range(5):
        cluster.must("POST", V2, widget(f"w{n}", width=n, height=1))
        cluster.must("GET", f"{V1}/w{n}")
    asked = len(hook.asked)
    cluster.must("GET", f"{V1}/w4")
    assert len(hook.asked) == asked
    cluster.must("GET", f"{V1}/w0")
    assert len(hook.asked) == asked + 1


def test_another_storage_version_takes_effect_with_the_next_write(cluster, hook):
    cluster.must("POST", V1, widget(size="3x4"))
    now = cluster.must("GET", f"{CRDS}/widgets.example.com")
    for version in now["spec"]["versions"]:
        version["storage"] = version["name"] == "v1"
    found = cluster.must("PUT", f"{CRDS}/widgets.example.com", now)
    assert found["status"]["storedVersions"] == ["v2", "v1"]
    obj = cluster.must("GET", f"{V1}/w")
    assert obj["spec"]["size"] == "3x4"
    assert stored(cluster)["apiVersion"] == "example.com/v2"
    again = cluster.must("PUT", f"{V1}/w", obj)
    assert stored(cluster)["apiVersion"] == "example.com/v1"
    assert again["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]


# --- server-side apply -----------------------------------------------------------------------------------------------


def applied(cluster, base, manager, spec, **more):
    body = {"apiVersion": base.removeprefix("/apis/").partition("/namespaces")[0], "kind": "Widget", **widget(**spec)}
    query = f"?fieldManager={manager}" + "".join(f"&{k}={v}" for k, v in more.items())
    return cluster.ask("PATCH", f"{base}/w{query}", json.dumps(body).encode(), content=APPLY)


def managers(obj):
    return {m["manager"]: (m["apiVersion"], m["fieldsV1"]["f:spec"]) for m in obj["metadata"]["managedFields"]}


def test_who_applies_in_one_version_conflicts_with_who_holds_the_field_in_the_other(cluster):
    assert applied(cluster, V1, "old", {"size": "3x4", "color": "blue"})[0] == 201
    assert applied(cluster, V2, "new", {"color": "blue"})[0] == 200
    code, answer = applied(cluster, V2, "new", {"color": "blue", "width": 5})
    assert (code, answer["reason"]) == (409, "Conflict")
    assert answer["message"] == 'Apply failed with 1 conflict: conflict with "old": .spec.size'
    code, answer = applied(cluster, V2, "new", {"color": "blue", "width": 5}, force="true")
    assert code == 200
    assert answer["spec"] == {"width": 5, "height": 4, "color": "blue"}
    assert managers(answer) == {
        "old": ("example.com/v1", {"f:color": {}}),
        "new": ("example.com/v2", {"f:color": {}, "f:width": {}}),
    }


def test_what_was_applied_in_the_old_version_goes_when_the_new_one_does_not_say_it(cluster):
    applied(cluster, V2, "other", {"height": 4, "width": 3})
    applied(cluster, V1, "mine", {"color": "blue"})
    code, answer = applied(cluster, V2, "mine", {"width": 3})
    assert code == 200
    assert answer["spec"] == {"width": 3, "height": 4}, "the color is nobody's any more; the height is another's"
    assert managers(answer)["mine"] == ("example.com/v2", {"f:width": {}})


def test_an_update_in_one_version_takes_the_field_from_its_holder_in_the_other(cluster):
    applied(cluster, V1, "old", {"size": "3x4"})
    answer = cluster.must("PATCH", f"{V2}/w?fieldManager=hand", {"spec": {"height": 9}})
    assert managers(answer) == {"hand": ("example.com/v2", {"f:height": {}})} | {
        k: v for k, v in managers(answer).items() if k not in ("hand", "old")
    }
    assert applied(cluster, V1, "old", {"size": "3x4"})[1]["message"].startswith("Apply failed with 1 conflict")


# --- admission -------------------------------------------------------------------------------------------------------


def test_rules_of_webhooks_and_policies_see_the_version_that_they_name(cluster, hook):
    rule = {"apiGroups": ["example.com"], "apiVersions": ["v2"], "operations": ["*"], "resources": ["widgets"]}
    policy = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "object.spec.width <= 10", "message": "too wide"}],
    }
    base = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
    cluster.must("POST", f"{base}ies", {"metadata": {"name": "p"}, "spec": policy})
    spec = {"policyName": "p", "validationActions": ["Deny"]}
    cluster.must("POST", f"{base}ybindings", {"metadata": {"name": "p"}, "spec": spec})
    code, answer = cluster.ask("POST", V1, widget(size="11x1"))
    assert (code, answer["message"].endswith("too wide")) == (422, True)
    assert cluster.must("POST", V1, widget(size="10x1"))


def test_a_mutating_webhook_of_the_other_version_changes_what_is_written(cluster):
    from hooks import Hook

    with serving(Hook) as other:
        other.patch = [{"op": "replace", "path": "/spec/width", "value": 42}]
        rules = {
            "rules": [{"apiGroups": ["example.com"], "apiVersions": ["v2"], "operations": ["*"], "resources": ["*"]}]
        }
        other.register(cluster, "mutating", "example.com", ["widgets"], **rules)
        assert cluster.must("POST", V1, widget(size="3x4"))["spec"]["size"] == "42x4"
        assert other.asked[0]["object"]["apiVersion"] == "example.com/v2"
        assert other.asked[0]["requestKind"]["version"] == "v1"


NOT_HERE = {"namespaceSelector": {"matchLabels": {"no": "where"}}}
OF_V1 = {"apiGroups": ["example.com"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["widgets"]}


def test_what_a_webhook_or_a_policy_does_not_select_is_not_converted_for_it(cluster, hook):
    hook.change = answered(result={"status": "Failure", "message": "broken"})
    hook.register(cluster, "validating", "example.com", ["widgets"], rules=[OF_V1], **NOT_HERE)
    base = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
    policy = {"matchConstraints": {"resourceRules": [OF_V1]}, "validations": [{"expression": "false"}]}
    cluster.must("POST", f"{base}ies", {"metadata": {"name": "p"}, "spec": policy})
    binding = {"policyName": "p", "validationActions": ["Deny"], "matchResources": NOT_HERE}
    cluster.must("POST", f"{base}ybindings", {"metadata": {"name": "p"}, "spec": binding})
    cluster.must("POST", V2, widget(width=1, height=1))
    assert hook.asked == []


def test_webhooks_and_policies_that_name_one_version_share_its_conversion(cluster, hook):
    from hooks import Hook

    with serving(Hook) as other:
        for name in ("a", "b"):
            webhook = {"name": f"{name}.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"]}
            webhook |= {"rules": [OF_V1], "clientConfig": {"url": other.url, "caBundle": other.bundle}}
            path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
            cluster.must("POST", path, {"metadata": {"name": name}, "webhooks": [webhook]})
        cluster.must("POST", V2, widget(width=1, height=1))
        hook.asked.clear()
        cluster.must("PATCH", f"{V2}/w", {"spec": {"width": 2}})
        assert [o["object"]["spec"]["size"] for o in other.asked[-2:]] == ["2x1", "2x1"]
        assert len(hook.asked) == 2, "the object and the one before"


# --- by name alone ---------------------------------------------------------------------------------------------------


def test_without_a_webhook_a_version_shows_the_fields_that_it_has():
    cluster = Cluster()
    cluster.must("POST", CRDS, definition())
    cluster.must("POST", V2, widget(width=3, height=4, color="blue"))
    assert cluster.must("GET", f"{V1}/w")["spec"] == {"color": "blue"}
    cluster.must("POST", V2, widget("x", width=3, height=4))
    assert [o["spec"] for o in cluster.must("GET", V1)["items"]] == [{"color": "blue"}, {}]
    assert cluster.must("GET", f"{V2}/x")["spec"] == {"width": 3, "height": 4}


def test_defaults_are_those_of_the_version_that_an_object_is_stored_in(cluster):
    """As kube-apiserver 1.33.13 answers: defaults come before the conversion, unknown fields go after it."""
    cluster.must("POST", V2, widget(width=3, height=4))
    assert cluster.must("GET", f"{V1}/w")["spec"] == {"size": "3x4"}


def test_what_a_conversion_needs_stays_when_its_manager_moves_to_the_other_version(cluster):
    """Version 1's size is gone from what "a" applies, but version 2 still has its width: a size, so it stays whole."""
    applied(cluster, V1, "a", {"size": "2x2"})
    answer = applied(cluster, V2, "a", {"width": 2})[1]
    assert answer["spec"] == {"width": 2, "height": 2, "color": "red"}
    assert managers(answer) == {"a": ("example.com/v2", {"f:width": {}})}


def test_whoever_applies_what_is_there_already_has_no_time(cluster):
    applied(cluster, V1, "old", {"size": "3x4"})
    answer = applied(cluster, V2, "new", {"width": 3})[1]
    assert [("time" in m) for m in answer["metadata"]["managedFields"] if m["manager"] == "new"] == [False]
