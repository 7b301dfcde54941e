"""Kinds that are served in two forms: autoscaling/v1 and v2, events of both groups."""

import asyncio

from apiserver import Cluster
from hypothesis import given
from hypothesis import strategies as st

from lateen.cluster.apiserver import conversion
from lateen.cluster.apiserver.built_in import BUILT_IN

V1 = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
V2 = V1.replace("v1", "v2", 1)
CORE, NEW = "/api/v1/namespaces/default/events", "/apis/events.k8s.io/v1/namespaces/default/events"
REF = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
AUTOSCALERS = next(r for r in BUILT_IN if r.kind == "HorizontalPodAutoscaler")

values = st.sampled_from(
    [{"type": "Utilization", "averageUtilization": 50}, {"type": "AverageValue", "averageValue": "1"}]
)
metrics = st.one_of(
    st.builds(
        lambda n, t: {"type": "Resource", "resource": {"name": n, "target": t}}, st.sampled_from(["memory"]), values
    ),
    st.builds(
        lambda t: {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": t}},
        values,
    ),
)
cpu = st.just(
    [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 7}}}]
)
current = st.builds(
    lambda n, c: {"type": "Resource", "resource": {"name": n, "current": c}},
    st.sampled_from(["cpu", "memory"]),
    st.sampled_from([{"averageUtilization": 3, "averageValue": "30m"}, {"averageValue": "5Mi"}]),
)


@given(
    st.lists(metrics),
    st.one_of(st.just([]), cpu),
    st.lists(current),
    st.booleans(),
    st.dictionaries(st.text(), st.text()),
)
def test_nothing_is_lost_by_reading_and_writing_through_the_older_version(own, more, now, behaves, annotations):
    spec = {"scaleTargetRef": REF, "minReplicas": 1, "maxReplicas": 3}
    spec |= {"metrics": own + more} if own + more else {}
    spec |= {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 7}}} if behaves else {}
    status = {"currentReplicas": 1, "conditions": [{"type": "AbleToScale", "status": "True"}]}
    status |= {"currentMetrics": now} if now else {}
    meta = {"name": "a"} | ({"annotations": annotations} if annotations else {})
    obj = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": meta,
        "spec": spec,
        "status": status,
    }
    older = conversion.shown(AUTOSCALERS, "v1", obj)
    assert not {"metrics", "behavior"} & set(older["spec"])
    assert ("targetCPUUtilizationPercentage" in older["spec"]) == bool(more)
    assert conversion.to_stored(AUTOSCALERS, "v1")(older) == obj


@given(st.dictionaries(st.text(), st.sampled_from(["", "[", "{}", "7", "[7]", '[{"type": "Resource"}]', "null"])))
def test_annotations_that_nobody_can_read_do_no_harm(annotations):
    names = [conversion._METRICS, conversion._BEHAVIOR, conversion._CONDITIONS, conversion._CURRENT]
    for name in names:
        for text in ("", "[", "{}", "7", "[7]", '[{"type": "Resource"}]', "null"):
            obj = {"metadata": {"name": "a", "annotations": annotations | {name: text}}, "spec": {}, "status": {}}
            assert conversion.to_stored(AUTOSCALERS, "v1")(obj)["apiVersion"] == "autoscaling/v2"


def test_an_autoscaler_of_version_1_is_one_of_version_2():
    cluster = Cluster()
    spec = {"scaleTargetRef": REF, "maxReplicas": 5, "targetCPUUtilizationPercentage": 70}
    made = cluster.must("POST", V1, {"metadata": {"name": "web"}, "spec": spec})
    assert made["apiVersion"] == "autoscaling/v1"
    assert made["spec"] == spec | {"minReplicas": 1}
    newer = cluster.must("GET", f"{V2}/web")
    assert newer["spec"]["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 70}
    cluster.must("PATCH", f"{V1}/web", {"spec": {"targetCPUUtilizationPercentage": 60, "maxReplicas": 4}})
    newer = cluster.must("GET", f"{V2}/web")
    assert newer["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 60
    assert newer["spec"]["maxReplicas"] == 4
    cluster.must(
        "PUT",
        f"{V1}/web/status",
        cluster.must("GET", f"{V1}/web") | {"status": {"currentReplicas": 2, "desiredReplicas": 2}},
    )
    assert cluster.must("GET", f"{V2}/web")["status"]["currentReplicas"] == 2
    rows = [cluster.must("GET", path, headers=TABLE)["rows"][0]["cells"][:6] for path in (V1, V2)]
    assert rows[0] == rows[1] == ["web", "Deployment/web", "cpu: <unknown>/60%", "1", 4, 2]
    listed = cluster.must("GET", V1)
    assert (listed["kind"], listed["items"][0]["apiVersion"]) == ("HorizontalPodAutoscalerList", "autoscaling/v1")
    code, _ = cluster.ask("POST", V1, {"metadata": {"name": "x"}, "spec": spec | {"metrics": []}}, headers={})
    assert code == 201
    assert "unknown field" in cluster.head


def test_an_autoscaler_can_be_applied_in_either_version():
    cluster = Cluster()
    body = {"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}}
    body["spec"] = {"scaleTargetRef": REF, "maxReplicas": 5, "targetCPUUtilizationPercentage": 70}
    query = "fieldManager=me&force=true"
    for percent in (70, 50):
        body["spec"]["targetCPUUtilizationPercentage"] = percent
        made = cluster.must("PATCH", f"{V1}/web?{query}", body, content="application/apply-patch+yaml")
        assert made["spec"]["targetCPUUtilizationPercentage"] == percent
    assert len(cluster.must("GET", f"{V2}/web")["metadata"]["managedFields"]) == 1


def test_a_watch_shows_the_version_that_was_asked_for():
    cluster = Cluster()
    cluster.must("POST", V2, {"metadata": {"name": "web"}, "spec": {"scaleTargetRef": REF, "maxReplicas": 5}})

    async def first():
        found = await cluster.send("GET", f"{V1}?watch=1&timeoutSeconds=1")
        return found[1]

    seen = asyncio.run(first())
    assert seen["object"]["apiVersion"] == "autoscaling/v1"
    assert seen["object"]["spec"]["targetCPUUtilizationPercentage"] == 80


def test_events_of_both_groups_are_the_same():
    cluster = Cluster()
    about = {"kind": "Pod", "name": "p", "namespace": "default"}
    told = {"note": "it is so", "regarding": about, "reason": "Because", "type": "Normal", "action": "Telling"}
    told |= {"eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "x.io/y", "reportingInstance": "z"}
    made = cluster.must("POST", NEW, {"metadata": {"name": "e"}} | told)
    assert made["regarding"] == about
    core = cluster.must("GET", f"{CORE}/e")
    assert (core["apiVersion"], core["message"], core["reportingComponent"]) == ("v1", "it is so", "x.io/y")
    cluster.must("POST", CORE, {"metadata": {"name": "f"}, "involvedObject": about, "message": "old", "count": 3})
    newer = cluster.must("GET", f"{NEW}?fieldSelector=regarding.name%3Dp")
    assert [(e["metadata"]["name"], e["note"], e.get("deprecatedCount")) for e in newer["items"]] == [
        ("e", "it is so", None),
        ("f", "old", 3),
    ]
    assert (
        cluster.must("GET", f"{NEW}?fieldSelector=reportingController%3Dx.io/y")["items"][0]["metadata"]["name"] == "e"
    )
    assert cluster.ask("GET", f"{CORE}?fieldSelector=regarding.name%3Dp")[0] == 400
    cells = cluster.must("GET", NEW, headers=TABLE)["rows"][0]["cells"]
    assert cells[1:4] == ["Normal", "Because", "pod/p"]
    cluster.must("DELETE", f"{NEW}/e")
    assert cluster.ask("GET", f"{CORE}/e")[0] == 404


def test_the_new_group_asks_for_what_its_recorders_write():
    body = {"metadata": {"name": "e"}, "regarding": {"namespace": "default"}}
    assert "eventTime: Required value" in Cluster().ask("POST", NEW, body)[1]["message"]
    code, answer = Cluster().ask("POST", NEW, body | {"eventTime": "2026-01-01T00:00:00.000000Z"})
    assert code == 422
    for field in ("reportingController", "reportingInstance", "action", "reason", "type"):
        assert f"{field}: " in answer["message"]
    code, answer = Cluster().ask("POST", CORE, {"metadata": {"name": "e"}, "involvedObject": {"namespace": "other"}})
    assert (code, "does not match event.namespace" in answer["message"]) == (422, True)
