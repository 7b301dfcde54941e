"""Custom resources in several versions, converted by a webhook or by name alone."""

import asyncio
import base64
import json

import pytest
from apiserver import Cluster
from hooks import Converter, serving
from test_server_itself import samples

from lateen.cluster.apiserver import versions

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
V1, V2 = (f"/apis/example.com/{v}/namespaces/default/widgets" for v in ("v1", "v2"))
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
APPLY = "application/apply-patch+yaml"


def schema(**spec):
    status = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
    return {
        "openAPIV3Schema": {
            "type": "object",
            "properties": {"spec": {"type": "object", "properties": spec}, "status": status},
        }
    }


def definition(conversion=None, stored="v2"):
    text, number = {"type": "string"}, {"type": "integer"}
    own = {
        "v1": schema(size=text, color={**text, "default": "red"}),
        "v2": schema(width=number, height={**number, "minimum": 1}, color=text),
    }
    parts = {
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.width", "statusReplicasPath": ".status.n"}}
    }
    columns = {"additionalPrinterColumns": [{"name": "Size", "type": "string", "jsonPath": ".spec.size"}]}
    versions = [
        {"name": n, "served": True, "storage": n == stored, "schema": s, **(parts if n == "v2" else columns)}
        for n, s in own.items()
    ]
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": versions}
    return {
        "metadata": {"name": "widgets.example.com"},
        "spec": spec | ({"conversion": conversion} if conversion else {}),
    }


def by(hook, versions=("v1",)):
    config = {"url": hook.url + "convert", "caBundle": hook.bundle}
    return {"strategy": "Webhook", "webhook": {"clientConfig": config, "conversionReviewVersions": list(versions)}}


@pytest.fixture
def hook():
    with serving(Converter) as found:
        yield found


@pytest.fixture
def cluster(hook):
    made = Cluster()
    made.must("POST", CRDS, definition(by(hook)))
    return made


def widget(name="w", **spec):
    return {"metadata": {"name": name}, "spec": spec}


def stored(cluster, name="w"):
    return cluster.store.get("widgets.example.com", "default", name).obj


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


async def seen(peer, events):
    async with asyncio.timeout(10):
        while peer.sent.count(b'"type"') < events:
            await asyncio.sleep(0.01)


def test_a_watch_that_cannot_convert_ends_with_the_reason(cluster, hook):
    async def run():
        protocol, peer = cluster.connection()
        protocol.connection_made(peer)
        protocol.data_received(f"GET {V1}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        hook.change = answered(result={"status": "Failure", "message": "broken"})
        await cluster.send("POST", V2, widget("a", width=1, height=1))
        await seen(peer, 1)
        await cluster.webhooks.close()
        protocol.connection_lost(None)
        return json.loads(next(line for line in peer.sent.split(b"\r\n") if line.startswith(b'{"type"')))

    event = asyncio.run(run())
    assert (event["type"], event["object"]["code"]) == ("ERROR", 500)
    assert event["object"]["message"] == "conversion webhook for example.com/v2, Kind=Widget failed: broken"


async def watching(cluster, wanted):
    """Return when there are so many watches."""
    while True:
        _, text = await cluster.send("GET", "/metrics")
        if list(samples(text, "apiserver_longrunning_requests").values()) == [wanted]:
            return
        await asyncio.sleep(0.01)


def test_many_watches_convert_a_change_once(cluster, hook):
    async def run():
        peers = [cluster.connection() for _ in range(10)]
        for protocol, peer in peers:
            protocol.connection_made(peer)
            protocol.data_received(f"GET {V1}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await asyncio.wait_for(watching(cluster, len(peers)), 10)
        await cluster.send("POST", V2, widget("a", width=1, height=1))
        for protocol, peer in peers:
            await seen(peer, 1)
            peer.close()
            protocol.connection_lost(None)
        await cluster.webhooks.close()

    asyncio.run(run())
    assert len(hook.asked) == 1


def test_a_watch_shows_each_change_in_its_version(cluster, hook):
    cluster.must("POST", V2, widget("a", width=1, height=1))

    async def run():
        protocol, peer = cluster.connection()
        protocol.connection_made(peer)
        protocol.data_received(f"GET {V1}?watch=1&resourceVersion=0 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await seen(peer, 1)
        for body in ({"spec": {"width": 2}}, {"spec": {"height": 5}}):
            await cluster.send("PATCH", f"{V2}/a", body)
        await cluster.send("DELETE", f"{V2}/a")
        await seen(peer, 4)
        peer.close()
        protocol.connection_lost(None)
        await cluster.webhooks.close()
        return [json.loads(line) for line in peer.sent.split(b"\r\n") if line.startswith(b'{"type"')]

    events = asyncio.run(run())
    assert [(e["type"], e["object"]["spec"]["size"]) for e in events] == [
        ("ADDED", "1x1"),
        ("MODIFIED", "2x1"),
        ("MODIFIED", "2x5"),
        ("DELETED", "2x5"),
    ]
    assert {e["object"]["apiVersion"] for e in events} == {"example.com/v1"}


def changed(cluster, **conversion):
    """The definition with another conversion."""
    crd = cluster.store.get("customresourcedefinitions.apiextensions.k8s.io", "", "widgets.example.com").obj
    return {**crd, "spec": {**crd["spec"], "conversion": conversion}}


def test_a_watch_ends_when_its_kind_is_converted_in_another_way(hook):
    cluster = Cluster()
    cluster.must("POST", CRDS, definition())
    cluster.must("POST", V2, widget("a", width=1, height=1))

    async def run():
        protocol, peer = cluster.connection()
        protocol.connection_made(peer)
        protocol.data_received(f"GET {V1}?watch=1&resourceVersion=0 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await seen(peer, 1)
        await cluster.send("PATCH", f"{CRDS}/widgets.example.com", {"metadata": {"labels": {"a": "b"}}})
        await cluster.send("POST", V2, widget("b", width=1, height=1))
        await seen(peer, 2)
        await cluster.send("PUT", f"{CRDS}/widgets.example.com", changed(cluster, **by(hook)))
        await cluster.send("POST", V2, widget("c", width=1, height=1))
        async with asyncio.timeout(10):
            while not peer.sent.endswith(b"0\r\n\r\n"):
                await asyncio.sleep(0.01)
        protocol.connection_lost(None)
        await cluster.webhooks.close()
        return [json.loads(line) for line in peer.sent.split(b"\r\n") if line.startswith(b'{"type"')]

    assert [(e["type"], e["object"]["metadata"]["name"]) for e in asyncio.run(run())] == [
        ("ADDED", "a"),
        ("ADDED", "b"),
    ]


def test_a_watch_of_a_removed_definition_tells_what_is_gone_and_ends(cluster):
    cluster.must("POST", V2, widget("a", width=1, height=1))

    async def run():
        protocol, peer = cluster.connection()
        protocol.connection_made(peer)
        protocol.data_received(f"GET {V1}?watch=1&resourceVersion=0 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await seen(peer, 1)
        await cluster.send("DELETE", f"{CRDS}/widgets.example.com")
        async with asyncio.timeout(10):
            while not peer.sent.endswith(b"0\r\n\r\n"):
                await asyncio.sleep(0.01)
        protocol.connection_lost(None)
        await cluster.webhooks.close()
        return [json.loads(line)["type"] for line in peer.sent.split(b"\r\n") if line.startswith(b'{"type"')]

    assert asyncio.run(run()) == ["ADDED", "DELETED"]


def test_a_list_is_of_one_moment_however_long_its_conversion_takes(cluster, hook):
    """Somebody writes while the webhook converts, each time."""
    cluster.must("POST", V2, widget("a", width=1, height=1))
    loops, count = [], iter(range(100))

    def write(_):
        done = asyncio.run_coroutine_threadsafe(
            cluster.send("POST", V2, widget(f"b{next(count)}", width=1, height=1)), loops[0]
        )
        assert done.result(10)[0] == 201

    async def ask(method, path):
        loops[:] = [asyncio.get_running_loop()]
        try:
            return await cluster.send(method, path)
        finally:
            await cluster.webhooks.close()

    hook.change = write
    code, found = asyncio.run(ask("GET", V1))
    assert (code, [o["metadata"]["name"] for o in found["items"]]) == (200, ["a"])
    assert int(found["metadata"]["resourceVersion"]) < int(stored(cluster, "b0")["metadata"]["resourceVersion"])
    assert len(hook.asked) == 1
    code, answer = asyncio.run(ask("DELETE", V1))
    assert code == 200, answer
    assert cluster.ask("GET", f"{V2}/a")[0] == cluster.ask("GET", f"{V2}/b0")[0] == 404
    assert cluster.must("GET", f"{V2}/b1"), "which has come after the deletion had begun"


def test_a_page_is_converted_without_those_after_it(cluster, hook):
    for n in range(5):
        cluster.must("POST", V2, widget(f"w{n}", width=n, height=1))
    page = cluster.must("GET", f"{V1}?limit=2")
    assert [o["spec"]["size"] for o in page["items"]] == ["0x1", "1x1"]
    assert page["metadata"]["remainingItemCount"] == 3
    assert [o["metadata"]["name"] for asked in hook.asked for o in asked["objects"]] == ["w0", "w1"]
    hook.asked.clear()
    assert cluster.must("GET", f"{V1}?fieldSelector=metadata.name%3Dw4")["items"][0]["spec"]["size"] == "4x1"
    found = cluster.must("GET", f"{V1}?fieldSelector=metadata.name!=w0,metadata.namespace=default")["items"]
    assert len(found) == 4
    assert [[o["metadata"]["name"] for o in asked["objects"]] for asked in hook.asked] == [["w4"], ["w2", "w3"]]
    rest = cluster.must("GET", f"{V1}?limit=5&continue={page['metadata']['continue']}")
    assert [o["spec"]["size"] for o in rest["items"]] == ["2x1", "3x1", "4x1"]


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


# --- what a webhook must not do --------------------------------------------------------------------------------------


def answered(**response):
    return lambda answer: answer["response"].update(response)


def first(change):
    return lambda answer: change(answer["response"]["convertedObjects"][0])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (answered(result={"status": "Failure", "message": "no such size"}), "failed: no such size"),
        (answered(result={}), "failed: response.result.status was '', not 'Success'"),
        (answered(uid="x"), 'failed: expected response.uid="'),
        (answered(convertedObjects=[]), "returned 0 objects, expected 1"),
        (lambda a: a.update(response=None), "failed: no response provided"),
        (lambda a: a.update(kind="Review"), "failed: expected webhook response of apiextensions.k8s.io/v1, Kind=Conv"),
        (
            first(lambda o: o.update(apiVersion="example.com/v3")),
            "returned invalid object at index 0: invalid groupVersion (expected example.com/v1, received",
        ),
        (
            first(lambda o: o.update(kind="Gadget")),
            "returned invalid object at index 0: invalid kind (expected Widget, received Gadget)",
        ),
        (
            first(lambda o: o["metadata"].update(name="other")),
            "returned invalid object: must have the same name: w != other",
        ),
        (
            first(lambda o: o["metadata"].update(labels={"a": 1})),
            "returned invalid metadata: metadata.labels[a] must be a string, but is int64 in converted object",
        ),
        (
            first(lambda o: o["metadata"].update(labels={"a b": "c"})),
            'returned invalid metadata: metadata.labels: Invalid value: "a b"',
        ),
    ],
)
def test_a_webhook_that_does_not_convert_is_an_error_of_the_server(cluster, hook, change, says):
    cluster.must("POST", V2, widget(width=3, height=4))
    hook.change = change
    for method, path, body in (
        ("GET", f"{V1}/w", None),
        ("GET", V1, None),
        ("PATCH", f"{V1}/w", {}),
        ("DELETE", f"{V1}/w", None),
    ):
        code, answer = cluster.ask(method, path, body)
        assert (code, "reason" in answer, answer["status"]) == (500, False, "Failure")
        assert answer["message"].startswith(f"conversion webhook for example.com/v2, Kind=Widget {says}")
    assert cluster.must("GET", f"{V2}/w")["spec"]["width"] == 3, "the stored version needs no webhook"


def test_only_labels_and_annotations_of_the_metadata_are_the_webhooks(cluster, hook):
    cluster.must("POST", V2, {"metadata": {"name": "w", "labels": {"a": "b"}}, "spec": {"width": 3, "height": 4}})

    def change(obj):
        obj["metadata"] |= {"labels": {"c": "d"}, "annotations": {"e": "f"}, "generation": 99, "finalizers": ["a/b"]}

    hook.change = first(change)
    meta = cluster.must("GET", f"{V1}/w")["metadata"]
    assert (meta["labels"], meta["annotations"]) == ({"c": "d"}, {"e": "f"})
    assert meta["generation"] == 1
    assert "finalizers" not in meta
    assert [o["metadata"]["name"] for o in cluster.must("GET", f"{V1}?labelSelector=c=d")["items"]] == ["w"]
    assert cluster.must("GET", f"{V1}?labelSelector=a=b")["items"] == []


def test_a_webhook_that_is_not_there(cluster):
    config = {"service": {"name": "conv", "namespace": "default", "path": "/c"}, "caBundle": ""}
    crd = cluster.must("GET", f"{CRDS}/widgets.example.com")
    crd["spec"]["conversion"]["webhook"]["clientConfig"] = config
    cluster.must("POST", V2, widget(width=3, height=4))
    cluster.must("PUT", f"{CRDS}/widgets.example.com", crd)
    code, answer = cluster.ask("GET", f"{V1}/w")
    assert code == 500
    assert answer["message"] == (
        "conversion webhook for example.com/v2, Kind=Widget failed: Post "
        '"https://conv.default.svc:443/c?timeout=30s": service "default/conv" not found'
    )
    assert cluster.ask("POST", V1, widget("x", size="1x1"))[0] == 500
    assert cluster.store.count("widgets.example.com") == 1


def test_an_answer_that_is_nested_too_deeply_is_none(cluster, hook):
    cluster.must("POST", V2, widget(width=3, height=4))
    deep = []
    for _ in range(300):
        deep = [deep]
    hook.change = first(lambda o: o["spec"].update(deep=deep))
    for path in (f"{V1}/w", V1):
        code, answer = cluster.ask("GET", path)
        assert (code, answer["message"].rpartition(": ")[2]) == (500, "nested too deeply")
    code, answer = cluster.ask("POST", V2, widget("x", width=1, height=1, deep=deep))
    assert (code, answer["message"]) == (400, "the body cannot be read: nested too deeply")


def test_an_answer_that_never_ends_is_not_read_to_its_end(cluster, hook):
    cluster.must("POST", V2, widget(width=3, height=4))
    hook.change = lambda answer: answer.update(padding="x" * (8 * 1024 * 1024))
    code, answer = cluster.ask("GET", f"{V1}/w")
    assert code == 500
    assert "more than" in answer["message"]


def test_the_first_known_form_of_the_review_is_used(hook):
    cluster = Cluster()
    cluster.must("POST", CRDS, definition(by(hook, ["v2", "v1beta1"])))
    hook.change = lambda a: (a.update(apiVersion="x"), a["response"].pop("uid"))
    assert cluster.must("POST", V1, widget(size="3x4"))["spec"]["size"] == "3x4", "v1beta1 checks neither uid nor kind"


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


BUNDLE = base64.b64encode(b"no certificate").decode()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"caBundle": ""}, "webhookClientConfig: Required value: exactly one of url or service is required"),
        ({"url": "https://a", "service": {"name": "a", "namespace": "b"}}, "exactly one of url or service is required"),
        ({"service": {"name": "a", "namespace": "b", "path": "@evil.example/"}}, "must start with a '/'"),
        ({"service": {"name": "a", "namespace": "b", "path": "/a//b"}}, "segment[1] may not be empty"),
        ({"service": {"name": "a", "namespace": "b", "path": "/A"}}, "segment[0]: a lowercase RFC 1123 subdomain"),
        ({"service": {"name": "a", "namespace": "b", "port": 0}}, "port is not valid: must be between 1 and 65535"),
        ({"service": {"namespace": "b"}}, "service.name: Required value"),
        ({"url": "http://a"}, "'https' is the only allowed URL scheme; desired format: https://host[/path]"),
        ({"url": "https://"}, "host must be specified"),
        ({"url": "https://me:secret@a/"}, "user information is not permitted in the URL"),
        ({"url": "https://a/?b=c"}, "query parameters are not permitted in the URL"),
        ({"url": "https://a/#b"}, "fragments are not permitted in the URL"),
        ({"url": "https://a:999999/"}, "url must be a valid URL"),
        ({"url": "https://a/", "caBundle": BUNDLE}, "caBundle: Invalid value"),
    ],
)
def test_a_definition_whose_webhook_cannot_be_called_is_refused(config, says):
    webhook = {"clientConfig": config, "conversionReviewVersions": ["v1"]}
    code, answer = Cluster().ask("POST", CRDS, definition({"strategy": "Webhook", "webhook": webhook}))
    assert (code, says in answer["message"]) == (422, True), answer["message"]
    assert "secret" not in answer["message"]


def test_a_webhook_whose_host_does_not_exist(hook):
    cluster = Cluster()
    cluster.must("POST", CRDS, definition(by(hook)))
    cluster.must("POST", V2, widget(width=3, height=4))
    crd = changed(cluster, **by(hook))
    crd["spec"]["conversion"]["webhook"]["clientConfig"] = {"url": "https://nowhere.invalid/"}
    cluster.must("PUT", f"{CRDS}/widgets.example.com", crd)
    assert cluster.ask("GET", f"{V1}/w")[1]["message"].endswith("dial tcp: lookup nowhere.invalid: no such host")


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
