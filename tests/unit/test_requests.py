"""Requests to the API server as clients, users and attackers make them, without a socket."""

import asyncio
import base64
import json

import mutants
import pytest
from apiserver import Cluster

from lateen.cluster.apiserver import bodies, watching

RBAC = "/apis/rbac.authorization.k8s.io/v1"
PODS, SECRETS = "/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/secrets"
META = {"name": "m"}


@pytest.fixture(scope="module")
def cluster():
    """alice may read pods in default; boss may impersonate alice and the group readers, which may read pods too."""
    found = Cluster()
    rules = {
        "reader": [{"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["pods"]}],
        "boss": [
            {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["alice"]},
            {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["groups"], "resourceNames": ["readers"]},
        ],
    }
    for name, granted in rules.items():
        found.must("POST", f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": granted})
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole"}
    subjects = [{"kind": "User", "name": "alice"}, {"kind": "Group", "name": "readers"}]
    subjects.append({"kind": "ServiceAccount", "name": "reader", "namespace": "default"})
    binding = {"metadata": {"name": "b"}, "roleRef": ref | {"name": "reader"}, "subjects": subjects}
    found.must("POST", f"{RBAC}/namespaces/default/rolebindings", binding)
    boss = {
        "metadata": {"name": "b"},
        "roleRef": ref | {"name": "boss"},
        "subjects": [{"kind": "User", "name": "boss"}],
    }
    found.must("POST", f"{RBAC}/clusterrolebindings", boss)
    for name in ("reader", "nobody"):
        found.must("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": name}})
    found.must("POST", PODS, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    return found


ACCOUNT = "system:serviceaccount:default:"
IDENTITIES = {
    "alice by certificate": ({"user": "alice", "groups": ()}, True),
    "bob by certificate": ({"user": "bob", "groups": ()}, False),
    "a group by certificate": ({"user": "carol", "groups": ("readers",)}, True),
    "nobody at all": ({"user": None}, False),
    "the administrator as alice": ({"headers": {"Impersonate-User": "alice"}}, True),
    "the administrator as bob": ({"headers": {"Impersonate-User": "bob"}}, False),
    "the administrator as a group": ({"headers": {"Impersonate-User": "bob", "Impersonate-Group": "readers"}}, True),
    "the administrator as a service account": ({"headers": {"Impersonate-User": ACCOUNT + "reader"}}, True),
    "the administrator as another one": ({"headers": {"Impersonate-User": ACCOUNT + "nobody"}}, False),
    "boss as alice": ({"user": "boss", "groups": (), "headers": {"Impersonate-User": "alice"}}, True),
    "boss as bob": ({"user": "boss", "groups": (), "headers": {"Impersonate-User": "bob"}}, False),
    "bob as alice": ({"user": "bob", "groups": (), "headers": {"Impersonate-User": "alice"}}, False),
    "a token with rights": ({"token": "reader"}, True),
    "a token without": ({"token": "nobody"}, False),
    "a token as alice": ({"token": "nobody", "headers": {"Impersonate-User": "alice"}}, False),
}


def asked(cluster, who, method, path, body=None):
    options = dict(who)
    if account := options.pop("token", ""):
        token = cluster.must("POST", f"/api/v1/namespaces/default/serviceaccounts/{account}/token", {})
        bearer = {"Authorization": f"Bearer {token['status']['token']}"}
        options |= {"user": None, "headers": {**(options.get("headers") or {}), **bearer}}
    return cluster.ask(method, path, body, **options)


@pytest.mark.parametrize("who", IDENTITIES)
def test_the_same_identities_are_restricted_in_every_request(cluster, who):
    options, may = IDENTITIES[who]
    reads = [("GET", PODS), ("GET", f"{PODS}/p"), ("GET", f"{PODS}?watch=1&timeoutSeconds=1&resourceVersion=1")]
    reads.append(("GET", f"{PODS}?watch=true&timeoutSeconds=1"))
    for method, path in reads[:2] if may else reads:
        assert (asked(cluster, options, method, path)[0] == 200) == may, path
    others = [
        ("GET", SECRETS, None),
        ("GET", "/api/v1/namespaces/kube-system/pods", None),
        ("GET", "/api/v1/pods", None),
        ("POST", PODS, {"metadata": META}),
        ("PUT", f"{PODS}/p", {"metadata": META}),
        ("PATCH", f"{PODS}/p", {}),
        ("DELETE", f"{PODS}/p", None),
        ("DELETE", PODS, None),
        ("GET", f"{PODS}/p/log", None),
        ("POST", f"{PODS}/p/exec?command=id", None),
        ("GET", f"{PODS}/p/portforward", None),
        ("POST", f"{PODS}/p/eviction", {}),
        ("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", {}),
        ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", {}),
    ]
    for method, path, body in others:
        code, answer = asked(cluster, options, method, path, body)
        assert (code, answer["reason"]) == (403, "Forbidden"), path
    question = {"spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}}}
    code, answer = asked(cluster, options, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", question)
    assert code == 403 or answer["status"]["allowed"] == may
    code, answer = asked(cluster, options, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
    if code == 201 and "Impersonate-User" in (options.get("headers") or {}):
        assert answer["status"]["userInfo"]["username"] == options["headers"]["Impersonate-User"]
    spec = {"spec": {"namespace": "default"}}
    code, answer = asked(cluster, options, "POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", spec)
    if code == 201:
        assert any(r["resources"] == ["pods"] for r in answer["status"]["resourceRules"]) == may


def test_users_cannot_grant_permissions_that_they_lack(cluster):
    rule = {"verbs": ["create", "update", "patch"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"]}
    cluster.must("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "granter"}, "rules": [rule]})
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "granter"}
    eve = {"metadata": {"name": "eve"}, "roleRef": ref, "subjects": [{"kind": "User", "name": "eve"}]}
    cluster.must("POST", f"{RBAC}/clusterrolebindings", eve)
    more = {"metadata": {"name": "more"}, "rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]}
    code, answer = cluster.ask("POST", f"{RBAC}/clusterroles", more, user="eve", groups=())
    assert code == 403
    assert "attempting to grant RBAC permissions not currently held" in answer["message"]
    own = {"metadata": {"name": "own"}, "rules": [rule]}
    assert cluster.ask("POST", f"{RBAC}/clusterroles", own, user="eve", groups=())[0] == 201
    selects = {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}
    gathers = {"metadata": {"name": "gathers"}, "aggregationRule": selects, "rules": []}
    assert cluster.ask("POST", f"{RBAC}/clusterroles", gathers, user="eve", groups=())[0] == 403
    cluster.must("POST", f"{RBAC}/clusterroles", more)
    binding = {**eve, "metadata": {"name": "up"}, "roleRef": {**ref, "name": "more"}}
    assert cluster.ask("POST", f"{RBAC}/clusterrolebindings", binding, user="eve", groups=())[0] == 403
    later = {**eve, "metadata": {"name": "later"}, "roleRef": {**ref, "name": "not-there-yet"}}
    assert cluster.ask("POST", f"{RBAC}/clusterrolebindings", later, user="eve", groups=())[0] == 403


def test_every_spelling_of_watch_is_understood(cluster):
    spellings = ("1", "true", "True", "TRUE", "yes", "")

    async def watched():
        path = f"{PODS}?watch=%s&timeoutSeconds=1&fieldSelector=metadata.name=p"
        return await asyncio.gather(*(cluster.send("GET", path % spelling) for spelling in spellings))

    for spelling, (code, event) in zip(spellings, asyncio.run(watched()), strict=True):
        found = (code, event["type"], event["object"]["metadata"]["name"])
        assert found == (200, "ADDED", "p"), spelling
    for no in ("0", "false", "False"):
        assert cluster.ask("GET", f"{PODS}?watch={no}")[1]["kind"] == "PodList"


def test_only_metadata_is_given_to_those_who_ask_for_it(cluster):
    def accept(kind):
        return {"Accept": f"application/json;as={kind};g=meta.k8s.io;v=v1, application/json"}

    one = cluster.must("GET", f"{PODS}/p", headers=accept("PartialObjectMetadata"))
    assert (one["kind"], set(one)) == ("PartialObjectMetadata", {"kind", "apiVersion", "metadata"})
    listed = cluster.must("GET", PODS, headers=accept("PartialObjectMetadataList"))
    assert (listed["kind"], listed["items"][0]["kind"]) == ("PartialObjectMetadataList", "PartialObjectMetadata")
    event = cluster.must("GET", f"{PODS}?watch=1&timeoutSeconds=1", headers=accept("PartialObjectMetadata"))
    assert event["object"]["kind"] == "PartialObjectMetadata"
    table = cluster.must("GET", PODS, headers=accept("Table"))
    assert (table["kind"], table["rows"][0]["cells"][0]) == ("Table", "p")


def test_a_long_list_comes_in_pages(cluster):
    path = "/api/v1/namespaces/kube-system/configmaps"
    for i in range(7):
        cluster.must("POST", path, {"metadata": {"name": f"c{i}", "labels": {"odd": str(i % 2)}}})
    names, token, pages, versions = [], "", 0, set()
    while pages == 0 or token:
        page = cluster.must("GET", f"{path}?limit=3&continue={token}")
        names += [o["metadata"]["name"] for o in page["items"]]
        versions.add(page["metadata"]["resourceVersion"])
        if pages == 0:
            assert page["metadata"]["remainingItemCount"] == 4
        token, pages = page["metadata"].get("continue", ""), pages + 1
    assert (names, pages, len(versions)) == ([f"c{i}" for i in range(7)], 3, 1)
    selected = cluster.must("GET", f"{path}?limit=3&labelSelector=odd=1")
    assert [o["metadata"]["name"] for o in selected["items"]] == ["c1", "c3", "c5"]
    assert "continue" not in selected["metadata"]
    assert cluster.ask("GET", f"{path}?limit=x")[0] == 400
    assert cluster.ask("GET", f"{path}?continue=junk")[0] == 400
    old = base64.urlsafe_b64encode(json.dumps({"v": "lateen/v1", "rv": 0, "start": ["", ""]}).encode()).decode()
    assert cluster.ask("GET", f"{path}?limit=3&continue={old}")[1]["reason"] == "Expired"


def test_unavailable_revisions_are_refused(cluster):
    assert cluster.ask("GET", f"{PODS}?watch=1&resourceVersion=999999")[1]["reason"] == "Expired"
    assert cluster.ask("GET", f"{PODS}?watch=1&resourceVersion=x")[0] == 400
    code, answer = cluster.ask("GET", f"{PODS}?resourceVersion=999999")
    assert (code, answer["details"]["causes"][0]["reason"]) == (504, "ResourceVersionTooLarge")
    assert cluster.ask("GET", f"{PODS}?resourceVersion=1&resourceVersionMatch=Exact")[0] == 410


def test_every_refusal_has_details(cluster):
    for path in ("/api/v1/nosuch", f"{PODS}/none", f"{PODS}/p/nosuch", "/apis/no.such/v1/x", "/nowhere"):
        code, answer = cluster.ask("GET", path)
        assert (code, answer["kind"]) == (404, "Status")
        assert isinstance(answer["details"], dict)


def test_a_json_patch_that_fails_says_which_operation(cluster):
    cases = {
        400: [{"op": "jump", "path": "/a"}, {"op": "add", "path": "a", "value": 1}, {"op": "add", "path": "/a"}, 5],
        422: [{"op": "test", "path": "/metadata/name", "value": "x"}, {"op": "remove", "path": "/spec/none/0"}],
    }
    for code, operations in cases.items():
        for operation in operations:
            found, answer = cluster.ask("PATCH", f"{PODS}/p", [operation], content="application/json-patch+json")
            assert found == code, answer
            assert "class" not in answer["message"]
            assert code == 400 or operation["path"] in answer["message"]


def test_scale_of_a_custom_resource_is_where_its_definition_says():
    cluster = mutants.prepared()
    path = "/apis/things.example.com/v1/namespaces/default/things/kept"
    cluster.must("PATCH", f"{path}/scale", {"spec": {"replicas": 7}})
    assert cluster.must("GET", path)["spec"] == {"n": 7}
    assert cluster.must("GET", f"{path}/scale")["spec"] == {"replicas": 7}


def test_a_yaml_body_of_nested_aliases_is_refused(cluster):
    bomb = "\n".join(["a0: &a0 x"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)])
    code, answer = cluster.ask("POST", PODS, bomb.encode(), content="application/yaml")
    assert code == 400
    assert "aliases expanded" in answer["message"]


def test_deep_nesting_is_a_bad_request(cluster):
    for depth in (300, 900, 100_000):
        body = b'{"metadata": {"name": "n"}, "spec": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        assert cluster.ask("POST", path, body)[0] in (400, 422)


def test_a_body_that_does_not_arrive_times_out(cluster, monkeypatch):
    monkeypatch.setattr(bodies, "TIMEOUT_S", 0.05)
    code, answer = cluster.ask("POST", PODS, b'{"half":', headers={"Content-Length": "100000"})
    assert (code, answer["reason"]) == (408, "Timeout")


def test_bodies_in_transit_are_bounded_in_total(cluster, monkeypatch):
    monkeypatch.setattr(bodies, "MAX_ALL", 1000)
    code, answer = cluster.ask("POST", PODS, b"x" * 20_000)
    assert (code, answer["reason"], answer["details"]["retryAfterSeconds"]) == (429, "TooManyRequests", 1)


def test_a_watch_that_nobody_reads_is_closed(monkeypatch):
    monkeypatch.setattr(watching, "STALLED_S", 0.05)
    cluster = Cluster()

    async def story():
        server, peer = cluster.connection()
        server.connection_made(peer)
        server.data_received(b"GET /api/v1/namespaces/default/configmaps?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.05)
        server.pause_writing()
        before = len(peer.sent)
        path = "/api/v1/namespaces/default/configmaps"
        for i in range(5):
            await cluster.send("POST", path, {"metadata": {"name": f"c{i}"}, "data": {"a": "x" * 900_000}})
        async with asyncio.timeout(5):
            while not peer.closed:
                await asyncio.sleep(0.01)
        assert len(peer.sent) - before < 300_000
        server.connection_lost(None)

    asyncio.run(story())


def test_mutated_manifests_and_reviews_are_never_an_error_of_the_server():
    codes, wrong = mutants.run(400, 120, seed=7)
    assert wrong == []
    assert codes.total() == 400
    assert {201, 400, 422} <= set(codes)


def test_a_lease_is_released_as_client_go_does_it(cluster):
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    spec = {"holderIdentity": "me", "leaseDurationSeconds": 6, "renewTime": "2026-01-01T00:00:00.000001Z"}
    made = cluster.must("POST", path, {"metadata": {"name": "lock"}, "spec": spec})
    free = {**made, "spec": {**spec, "holderIdentity": "", "leaseDurationSeconds": 1}}
    assert cluster.must("PUT", f"{path}/lock", free)["spec"]["holderIdentity"] == ""
    assert cluster.ask("PUT", f"{path}/lock", free)[1]["reason"] == "Conflict"


def test_every_group_and_version_has_an_api_service():
    cluster = Cluster()
    listed = cluster.must("GET", "/apis/apiregistration.k8s.io/v1/apiservices")
    names = {o["metadata"]["name"] for o in listed["items"]}
    served = {f"{v}.{g}" for g, versions in cluster.registry.groups().items() for v in versions}
    assert names == served
    assert {"v1.", "v1.apps", "v2.autoscaling"} <= names
    one = cluster.must("GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1.apps")
    assert one["status"]["conditions"][0]["status"] == "True"
    assert cluster.ask("GET", "/apis/apiregistration.k8s.io/v1/apiservices/v9.apps")[0] == 404
    assert cluster.ask("DELETE", "/apis/apiregistration.k8s.io/v1/apiservices/v1.apps")[0] == 405
    table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    rows = cluster.must("GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1.apps", headers=table)["rows"]
    assert rows[0]["cells"][:3] == ["v1.apps", "Local", "True"]


def test_a_scale_is_shown_with_its_replicas():
    cluster = Cluster()
    pods = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": pods}
    path = "/apis/apps/v1/namespaces/default/deployments"
    cluster.must("POST", path, {"metadata": {"name": "web"}, "spec": spec})
    found = cluster.must("GET", f"{path}/web/scale", headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
    assert [c["name"] for c in found["columnDefinitions"]] == ["Name", "Desired", "Available", "Age"]
    assert found["rows"][0]["cells"][:3] == ["web", 3, 0]


def test_affinity_and_external_addresses_of_services():
    cluster, path = Cluster(), "/api/v1/namespaces/default/services"
    spec = {"ports": [{"port": 80}], "sessionAffinity": "ClientIP", "externalIPs": ["192.0.2.7"]}
    made = cluster.must("POST", path, {"metadata": {"name": "a"}, "spec": spec})
    assert made["spec"]["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}
    for change, says in (
        ({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}, "must be greater than 0 and less than 86400"),
        ({"sessionAffinity": "Sometimes"}, 'Unsupported value: "Sometimes"'),
        ({"externalIPs": ["10.96.0.1"]}, "belong to its pods and services"),
        ({"externalIPs": ["127.0.0.1"]}, "spec.externalIPs[0]"),
    ):
        code, answer = cluster.ask("POST", path, {"metadata": {"name": "b"}, "spec": spec | change})
        assert (code, says in answer["message"]) == (422, True), answer


def test_empty_texts_and_ports_without_a_number_get_defaults():
    """Go programs send what is not set as "" and 0, istioctl's tags among them."""
    cluster = Cluster()
    port = {"port": 80, "targetPort": 0, "protocol": ""}
    spec = {"ports": [port], "type": "", "sessionAffinity": "", "internalTrafficPolicy": ""}
    made = cluster.must("POST", "/api/v1/namespaces/default/services", {"metadata": {"name": "a"}, "spec": spec})
    assert made["spec"]["ports"] == [{"port": 80, "targetPort": 80, "protocol": "TCP"}]
    assert (made["spec"]["type"], made["spec"]["sessionAffinity"]) == ("ClusterIP", "None")
    probe = {"httpGet": {"port": 80, "path": "", "scheme": ""}, "periodSeconds": 0, "timeoutSeconds": 0}
    container = {"name": "c", "image": "i", "imagePullPolicy": "", "readinessProbe": probe}
    spec = {"containers": [container], "restartPolicy": "", "dnsPolicy": "", "serviceAccountName": ""}
    made = cluster.must("POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": "a"}, "spec": spec})["spec"]
    assert (made["restartPolicy"], made["dnsPolicy"], made["serviceAccountName"]) == (
        "Always",
        "ClusterFirst",
        "default",
    )
    found = made["containers"][0]["readinessProbe"]
    assert (found["periodSeconds"], found["timeoutSeconds"], found["httpGet"]["scheme"]) == (10, 1, "HTTP")


def test_health_is_told_in_a_word_or_check_by_check():
    cluster = Cluster()
    assert cluster.must("GET", "/readyz") == "ok"
    lines = cluster.must("GET", "/readyz?verbose").splitlines()
    assert "[+]ping ok" in lines
    assert lines[-1] == "readyz check passed"


def test_a_dry_run_refuses_what_a_write_would_refuse_for_its_size(monkeypatch):
    monkeypatch.setattr("lateen.cluster.store.objects.MAX_OBJECT", 5000)
    found = Cluster()
    large = {"metadata": {"name": "large"}, "stringData": {"a": "x" * 5000}}
    for query in ("", "?dryRun=All"):
        code, answer = found.ask("POST", f"{SECRETS}{query}", large)
        assert (code, answer["reason"]) == (413, "RequestEntityTooLarge")
    found.must("POST", SECRETS, {"metadata": {"name": "large"}})
    for query in ("", "?dryRun=All"):
        assert found.ask("PATCH", f"{SECRETS}/large{query}", {"stringData": large["stringData"]})[0] == 413
    found.must("PATCH", f"{SECRETS}/large?dryRun=All", {"stringData": {"a": "x"}})


def test_an_object_of_the_largest_size_can_be_deleted_and_let_go(monkeypatch):
    found = Cluster()
    body = {"metadata": {"name": "large", "finalizers": ["a.b/c"]}, "data": {"a": "eHh4"}}
    size = len(json.dumps(found.must("POST", SECRETS, body), separators=(",", ":")))
    monkeypatch.setattr("lateen.cluster.store.objects.MAX_OBJECT", size)
    monkeypatch.setattr("lateen.cluster.store.objects.CAPACITY", found.store.size)
    assert found.ask("PATCH", f"{SECRETS}/large", {"data": {"b": "eHh4"}})[0] == 413
    assert "deletionTimestamp" in found.must("DELETE", f"{SECRETS}/large")["metadata"]
    found.must("PATCH", f"{SECRETS}/large", {"metadata": {"finalizers": None}})
    assert found.ask("GET", f"{SECRETS}/large")[0] == 404


def test_a_pod_can_be_evicted_from_a_full_store(monkeypatch):
    found, labels = Cluster(), {"app": "x"}
    found.must(
        "POST", PODS, {"metadata": {**META, "labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    )
    found.must(
        "PATCH",
        f"{PODS}/m/status",
        {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}},
    )
    budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    spec = {"selector": {"matchLabels": labels}, "maxUnavailable": 1}
    found.must("POST", budgets, {"metadata": {"name": "b"}, "spec": spec})
    allows = {
        "observedGeneration": 1,
        "disruptionsAllowed": 1,
        "currentHealthy": 1,
        "desiredHealthy": 0,
        "expectedPods": 1,
    }
    found.must("PATCH", f"{budgets}/b/status", {"status": allows})
    monkeypatch.setattr("lateen.cluster.store.objects.CAPACITY", found.store.size)
    assert found.ask("PATCH", f"{PODS}/m", {"metadata": {"labels": {"b": "y"}}})[0] == 507
    found.must("POST", f"{PODS}/m/eviction", {"metadata": {"name": "m"}})
    assert "m" in found.must("GET", f"{budgets}/b")["status"]["disruptedPods"]
    code, pod = found.ask("GET", f"{PODS}/m")
    assert code == 404 or pod["metadata"]["deletionTimestamp"]


def test_a_change_leaves_the_stored_object_and_what_watches_have_of_it_alone():
    found = Cluster()
    found.must("POST", PODS, {"metadata": META, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    entry = found.store.get("pods", "default", "m")
    old = found.store.update("pods", "default", "m", entry.obj | {"status": {"phase": "Running"}}, None)
    found.must("PATCH", f"{PODS}/m", {"metadata": {"labels": {"a": "b"}}})
    assert old.obj["status"] == {"phase": "Running"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/apis/policy/v1/namespaces/default/poddisruptionbudgets", {"spec": {"minAvailable": 1, "selector": {}}}),
        ("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", {"webhooks": []}),
        ("/apis/coordination.k8s.io/v1/namespaces/default/leases", {"spec": {"holderIdentity": "a"}}),
    ],
)
def test_some_kinds_are_updated_only_by_who_has_seen_them(path, body):
    cluster = Cluster()
    made = cluster.must("POST", path, {"metadata": {"name": "a"}, **body})
    seen = made["metadata"].pop("resourceVersion")
    code, answer = cluster.ask("PUT", f"{path}/a", made)
    assert (code, answer["details"]["causes"][0]["field"]) == (422, "metadata.resourceVersion")
    assert "must be specified for an update" in answer["message"]
    made["metadata"]["resourceVersion"] = seen
    assert cluster.ask("PUT", f"{path}/a", made)[0] == 200
