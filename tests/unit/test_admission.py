"""What webhooks and policies see of a request: subresources, completed objects, the form that their rules name."""

import pytest
from apiserver import Cluster
from hooks import serving
from test_admission_policies import DEPLOYMENTS, bound, deployment

PODS = "/api/v1/namespaces/default/pods"
POD = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
SECRETS = "/api/v1/namespaces/default/secrets"
EVICTION = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
MERGE = [{"op": "add", "path": "/metadata/labels", "value": {"seen": "yes"}}]


@pytest.fixture
def hook():
    with serving() as found:
        yield found


def rule(resource, *operations, group=""):
    return [{"apiGroups": [group], "apiVersions": ["v1"], "operations": list(operations), "resources": [resource]}]


def test_scaling_is_judged_as_a_scale():
    cluster = bound(
        "object.kind == 'Scale' && object.spec.replicas < 5 && oldObject.spec.replicas == 1",
        rules=rule("deployments/scale", "UPDATE", group="apps"),
    )
    cluster.must("POST", DEPLOYMENTS, deployment("web", replicas=1))
    assert cluster.ask("PATCH", f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": 6}})[0] == 422
    assert cluster.must("PATCH", f"{DEPLOYMENTS}/web/scale?dryRun=All", {"spec": {"replicas": 4}})["spec"] == {
        "replicas": 4
    }
    assert cluster.must("GET", f"{DEPLOYMENTS}/web/scale")["spec"] == {"replicas": 1}
    cluster.must("PATCH", f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": 4}})


def test_a_rule_about_deployments_is_not_about_their_scale(hook):
    cluster = Cluster()
    cluster.must("POST", DEPLOYMENTS, deployment("web", replicas=1))
    hook.register(cluster, "mutating", "apps", ["deployments"])
    cluster.must("PATCH", f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": 2}})
    assert hook.asked == []


def test_a_webhook_may_change_a_scale(hook):
    cluster = Cluster()
    cluster.must("POST", DEPLOYMENTS, deployment("web", replicas=1))
    hook.register(cluster, "mutating", "apps", ["deployments/scale"])
    hook.patch = [{"op": "replace", "path": "/spec/replicas", "value": 3}]
    assert cluster.must("PATCH", f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": 9}})["spec"]["replicas"] == 3
    found = cluster.must("GET", f"{DEPLOYMENTS}/web")
    assert (found["spec"]["replicas"], found["metadata"]["generation"]) == (3, 2)
    (asked,) = hook.asked
    assert asked["kind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    assert (asked["resource"]["resource"], asked["subResource"]) == ("deployments", "scale")


def test_an_eviction_is_judged_as_one_and_not_as_a_deletion():
    cluster = bound(
        "object.kind == 'Eviction' && object.metadata.name != 'p'", rules=rule("pods/eviction", "CREATE", group="")
    )
    for name in ("p", "q"):
        cluster.must("POST", PODS, {**POD, "metadata": {"name": name}})
    assert cluster.ask("POST", f"{PODS}/p/eviction", EVICTION)[0] == 422
    cluster.must("GET", f"{PODS}/p")
    cluster.must("POST", f"{PODS}/q/eviction", {**EVICTION, "metadata": {"name": "q"}})
    kept = bound("false", rules=rule("pods", "DELETE"))
    kept.must("POST", PODS, POD)
    kept.must("POST", f"{PODS}/p/eviction", EVICTION)
    assert kept.ask("GET", f"{PODS}/p")[0] == 404


def test_an_eviction_of_another_pod_of_this_name_costs_the_budget_nothing():
    cluster = Cluster()
    cluster.must("POST", PODS, POD)
    body = {**EVICTION, "deleteOptions": {"preconditions": {"uid": "another"}}}
    assert cluster.ask("POST", f"{PODS}/p/eviction", body)[0] == 409
    assert "conditions" not in cluster.must("GET", f"{PODS}/p").get("status", {})


def test_tokens_can_be_refused_and_changed(hook):
    cluster = bound("object.spec.audiences == ['x']", rules=rule("serviceaccounts/token", "CREATE"))
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    assert cluster.ask("POST", path, {"spec": {}})[0] == 422
    hook.register(cluster, "mutating", "", ["serviceaccounts/token"])
    hook.patch = [{"op": "replace", "path": "/spec/audiences", "value": ["x"]}]
    assert cluster.must("POST", path, {"spec": {}})["spec"] == {"audiences": ["x"], "expirationSeconds": 3600}


def test_the_last_step_of_a_namespace_can_be_refused():
    cluster = bound("object.metadata.name == 'gone'", rules=rule("namespaces/finalize", "UPDATE"))
    for name in ("gone", "kept"):
        made = cluster.must("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        cluster.must("DELETE", f"/api/v1/namespaces/{name}")
        done = {**made, "spec": {"finalizers": []}}
        done["metadata"] = {"name": name}
        code, _ = cluster.ask("PUT", f"/api/v1/namespaces/{name}/finalize", done)
        assert code == (200 if name == "gone" else 422)
        assert cluster.ask("GET", f"/api/v1/namespaces/{name}")[0] == (404 if name == "gone" else 200)


def test_policies_see_what_the_server_completes():
    secret = bound("!has(object.stringData) && object.data.a == 'Yg=='", rules=rule("secrets", "CREATE"))
    made = secret.must("POST", SECRETS, {"metadata": {"name": "s"}, "stringData": {"a": "b"}})
    assert made["data"] == {"a": "Yg=="}
    assert made["metadata"]["managedFields"][0]["fieldsV1"]["f:data"] == {".": {}, "f:a": {}}
    text = (
        "object.spec.priority == 7 && object.spec.containers.all(c, c.resources.limits.cpu == '1') && "
        "object.spec.serviceAccountName == 'default'"
    )
    cluster = bound(text, rules=rule("pods", "CREATE"))
    high = {"metadata": {"name": "high"}, "value": 7, "globalDefault": True}
    cluster.must("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", high)
    limits = {"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}}]}}
    cluster.must("POST", "/api/v1/namespaces/default/limitranges", limits)
    cluster.must("POST", PODS, POD)


def test_containers_that_a_webhook_adds_are_completed_as_well(hook):
    cluster = bound("object.spec.containers.all(c, c.resources.limits.cpu == '1')", rules=rule("pods", "CREATE"))
    limits = {"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}}]}}
    cluster.must("POST", "/api/v1/namespaces/default/limitranges", limits)
    hook.register(cluster, "mutating", "", ["pods"])
    hook.patch = [{"op": "add", "path": "/spec/containers/-", "value": {"name": "more", "image": "i"}}]
    made = cluster.must("POST", PODS, POD)
    assert [len(c["volumeMounts"]) for c in made["spec"]["containers"]] == [1, 1]
    (asked,) = hook.asked
    assert asked["object"]["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "1"}


EVENTS = {g: f"{g}/namespaces/default/events" for g in ("/api/v1", "/apis/events.k8s.io/v1")}
CORE_EVENT = {
    "metadata": {"name": "e"},
    "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
    "message": "m",
}
NEW_EVENT = {
    "metadata": {"name": "e"},
    "regarding": {"kind": "Pod", "namespace": "default", "name": "p"},
    "note": "m",
    "reason": "R",
    "action": "A",
    "type": "Normal",
    "eventTime": "2024-01-01T00:00:00.000000Z",
    "reportingController": "x.y/z",
    "reportingInstance": "i",
}


@pytest.mark.parametrize(("base", "event"), list(zip(EVENTS, (CORE_EVENT, NEW_EVENT), strict=True)))
@pytest.mark.parametrize(("group", "text"), [("", "message"), ("events.k8s.io", "note")])
def test_events_are_reviewed_alike_through_both_groups(hook, base, event, group, text):
    cluster = Cluster()
    hook.register(cluster, "mutating", group, ["events"])
    hook.patch = MERGE
    made = cluster.must("POST", EVENTS[base], event)
    assert made["metadata"]["labels"] == {"seen": "yes"}
    assert ("note" in made) == (base != "/api/v1")
    hook.patch = []
    cluster.must("DELETE", f"{EVENTS[base]}/e")
    created, deleted = hook.asked
    assert (created["object"][text], deleted["oldObject"][text]) == ("m", "m")
    for asked in hook.asked:
        assert (asked["kind"]["group"], asked["resource"]["group"]) == (group, group)
        assert asked["requestKind"]["group"] == ("" if base == "/api/v1" else "events.k8s.io")


def test_a_rule_that_wants_its_own_form_alone_gets_no_other(hook):
    cluster = Cluster()
    hook.register(cluster, "validating", "", ["events"], matchPolicy="Exact")
    hook.says = "no"
    cluster.must("POST", EVENTS["/apis/events.k8s.io/v1"], NEW_EVENT)
    assert cluster.ask("POST", EVENTS["/api/v1"], {**CORE_EVENT, "metadata": {"name": "f"}})[0] == 400


def test_an_autoscaler_of_the_old_version_is_reviewed_in_it_from_its_start_to_its_end(hook):
    path = "/apis/autoscaling/{}/namespaces/default/horizontalpodautoscalers"
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    spec = {"scaleTargetRef": target, "maxReplicas": 3, "targetCPUUtilizationPercentage": 70}
    cluster = Cluster()
    hook.register(cluster, "validating", "autoscaling", ["horizontalpodautoscalers"])
    cluster.must("POST", path.format("v1"), {"metadata": {"name": "h"}, "spec": spec})
    cluster.must("PATCH", path.format("v2") + "/h", {"spec": {"maxReplicas": 4}})
    cluster.must("DELETE", path.format("v1") + "/h")
    for asked, key in zip(hook.asked, ("object", "object", "oldObject"), strict=True):
        assert asked["kind"]["version"] == "v1"
        assert asked[key]["apiVersion"] == "autoscaling/v1"
        assert asked[key]["spec"]["targetCPUUtilizationPercentage"] == 70
    assert [a["requestKind"]["version"] for a in hook.asked] == ["v1", "v2", "v1"]


def test_all_policies_of_a_request_share_one_budget():
    cluster = bound("!object.spec.template.spec.containers.all(a, object.spec.template.spec.containers.all(b, false))")
    for i in range(20):
        body = {"metadata": {"name": f"b{i}"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}}
        cluster.must("POST", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings", body)
    made = deployment()
    made["spec"]["template"]["spec"]["containers"] = [{"name": f"c{i}", "image": "i"} for i in range(200)]
    code, answer = cluster.ask("POST", DEPLOYMENTS, made)
    assert (code, "running out of cost budget" in answer["message"]) == (422, True)


def test_questions_to_the_authorizer_are_counted():
    asks = "authorizer.group('').resource('secrets').namespace('default').check('list').allowed()"
    small, large = deployment(), deployment("large")
    large["spec"]["template"]["spec"]["containers"] = [{"name": f"c{i}", "image": "i"} for i in range(100)]
    cluster = bound(f"object.spec.template.spec.containers.all(c, {asks})")
    cluster.must("POST", DEPLOYMENTS, small)
    code, answer = cluster.ask("POST", DEPLOYMENTS, large)
    assert (code, "running out of cost budget" in answer["message"]) == (422, True)
    swallowed = bound(f"object.spec.template.spec.containers.all(c, {asks} || true)")
    assert swallowed.ask("POST", DEPLOYMENTS, large)[0] == 422


@pytest.mark.parametrize(
    ("given", "code"), [(None, 400), (403, 403), (499, 499), (200, 400), (0, 400), (700, 400), (1e300, 400), ("x", 400)]
)
def test_a_webhook_refuses_with_any_code_of_a_failure_and_no_other(hook, given, code):
    cluster = Cluster()
    hook.register(cluster, "validating", "", ["secrets"])
    hook.says, hook.code = "no", given
    found, answer = cluster.ask("POST", SECRETS, {"metadata": {"name": "s"}})
    assert (found, answer["code"]) == (code, code)
    assert answer["message"].endswith("denied the request: no")
