"""Lists and watches of what field and label selectors let through, and who may ask for it."""

import asyncio
import json
from urllib.parse import quote

import pytest
from apiserver import Cluster

CORE = "/api/v1/namespaces/default"
RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
SPEC = {"containers": [{"name": "c", "image": "lateen/sleep"}]}


@pytest.fixture
def cluster():
    return Cluster()


def names(cluster, path, selector):
    found = cluster.must("GET", f"{path}?fieldSelector={quote(selector)}")
    return [o["metadata"]["name"] for o in found["items"]]


def test_a_field_that_an_object_does_not_have_counts_with_its_default(cluster):
    for name, spec in (("free", {}), ("cordoned", {"unschedulable": True})):
        cluster.must("POST", "/api/v1/nodes", {"metadata": {"name": name}, "spec": spec})
    assert names(cluster, "/api/v1/nodes", "spec.unschedulable=false") == ["free"]
    assert names(cluster, "/api/v1/nodes", "spec.unschedulable=true") == ["cordoned"]
    cluster.must("POST", f"{CORE}/pods", {"metadata": {"name": "own"}, "spec": SPEC})
    cluster.must("POST", f"{CORE}/pods", {"metadata": {"name": "shared"}, "spec": {**SPEC, "hostNetwork": True}})
    assert names(cluster, f"{CORE}/pods", "spec.hostNetwork=false") == ["own"]
    assert names(cluster, f"{CORE}/pods", "spec.nodeName=,status.phase=Pending") == ["own", "shared"]
    job = {"metadata": {"name": "j"}, "spec": {"template": {"spec": {**SPEC, "restartPolicy": "Never"}}}}
    cluster.must("POST", "/apis/batch/v1/namespaces/default/jobs", job)
    assert names(cluster, "/apis/batch/v1/jobs", "status.successful=0") == ["j"]


def test_the_source_of_an_event_is_the_component_that_reports_it(cluster):
    about = {"involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "reason": "Started"}
    old = {"metadata": {"name": "old"}, "source": {"component": "kubelet", "host": "n"}}
    new = {"metadata": {"name": "new"}, "reportingComponent": "kubelet", "reportingInstance": "n"}
    other = {"metadata": {"name": "other"}, "source": {"component": "default-scheduler"}}
    for event in (old, new, other):
        cluster.must("POST", f"{CORE}/events", {**about, **event})
    assert names(cluster, f"{CORE}/events", "source=kubelet") == ["new", "old"]


def test_only_the_selectable_fields_of_a_custom_resource_select_it_whatever_it_is_called(cluster):
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    }
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {"group": "a.b", "scope": "Namespaced", "names": {"plural": "services", "kind": "Service"}}
    body = {"metadata": {"name": "services.a.b"}, "spec": {**spec, "versions": [version]}}
    cluster.must("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)
    code, answer = cluster.ask("GET", "/apis/a.b/v1/services?fieldSelector=spec.type%3Dx")
    assert (code, answer["message"].startswith('"spec.type" is not a known field selector')) == (400, True)


def test_somebody_who_may_see_one_object_may_list_and_watch_it_by_its_name(cluster):
    rule = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"], "verbs": ["list", "watch"]}
    cluster.must("POST", f"{RBAC}/roles", {"metadata": {"name": "one"}, "rules": [rule]})
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "one"}
    subject = {"kind": "User", "name": "joe", "apiGroup": "rbac.authorization.k8s.io"}
    cluster.must("POST", f"{RBAC}/rolebindings", {"metadata": {"name": "one"}, "roleRef": ref, "subjects": [subject]})
    for name in ("mine", "other"):
        cluster.must("POST", f"{CORE}/configmaps", {"metadata": {"name": name}})

    def asked(selector, watch=""):
        path = f"{CORE}/configmaps?fieldSelector={quote(selector)}{watch}"
        return cluster.ask("GET", path, user="joe", groups=())

    code, answer = asked("metadata.name=mine")
    assert (code, [o["metadata"]["name"] for o in answer["items"]]) == (200, ["mine"])
    code, event = asked("metadata.name==mine", "&watch=1&timeoutSeconds=1")
    assert (code, event["object"]["metadata"]["name"]) == (200, "mine")
    for selector in ("metadata.name=other", "metadata.name!=mine", "metadata.namespace=default", ""):
        assert asked(selector)[0] == 403, selector
    path = f"{CORE}/configmaps?fieldSelector=metadata.name%3Dmine"
    assert cluster.ask("DELETE", path, user="joe", groups=())[0] == 403


def test_a_watch_tells_of_what_is_no_longer_selected_as_it_was_when_it_was(cluster):
    cluster.must(
        "POST", f"{CORE}/configmaps", {"metadata": {"name": "c", "labels": {"app": "web"}}, "data": {"n": "1"}}
    )

    async def seen(peer, count):
        async with asyncio.timeout(10):
            while peer.sent.count(b'{"type"') < count:
                await asyncio.sleep(0.01)

    async def run():
        protocol, peer = cluster.connection()
        protocol.connection_made(peer)
        path = f"{CORE}/configmaps?watch=1&labelSelector=app%3Dweb"
        protocol.data_received(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await seen(peer, 1)
        change = {"metadata": {"labels": {"app": "x"}}, "data": {"n": "2"}}
        _, changed = await cluster.send("PATCH", f"{CORE}/configmaps/c", change)
        await seen(peer, 2)
        protocol.connection_lost(None)
        await cluster.webhooks.close()
        lines = [json.loads(line) for line in peer.sent.split(b"\r\n") if line.startswith(b'{"type"')]
        return lines[-1], changed

    event, changed = asyncio.run(run())
    assert (event["type"], event["object"]["data"]) == ("DELETED", {"n": "1"})
    assert event["object"]["metadata"]["labels"] == {"app": "web"}
    assert event["object"]["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("gen>3", ["new"]),
        ("gen < 3", ["old"]),
        ("gen>1,app=web", ["new"]),
        ("app in(web,db)", ["new", "old"]),
        ("app notin (db)", ["new", "none"]),
        ("!gen", ["none"]),
        ("app=", []),
    ],
)
def test_label_selectors_have_kubernetes_operators(cluster, selector, found):
    for name, labels in (("new", {"app": "web", "gen": "4"}), ("old", {"app": "db", "gen": "2"}), ("none", {})):
        cluster.must("POST", f"{CORE}/secrets", {"metadata": {"name": name, "labels": labels}})
    listed = cluster.must("GET", f"{CORE}/secrets?labelSelector={quote(selector)}")["items"]
    assert [o["metadata"]["name"] for o in listed] == found


def test_a_label_is_compared_with_whole_numbers_only(cluster):
    assert cluster.ask("GET", f"{CORE}/secrets?labelSelector=a%3Ex")[0] == 400
