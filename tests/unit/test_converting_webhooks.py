"""Webhooks that convert custom resources: what they must not do, and definitions that name one."""

import base64

import pytest
from apiserver import Cluster
from hooks import Converter, serving
from widgets import CRDS, V1, V2, answered, by, changed, converting, definition, first, widget


@pytest.fixture
def hook():
    with serving(Converter) as found:
        yield found


@pytest.fixture
def cluster(hook):
    return converting(hook)


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
