"""Server-side apply and managed fields over the API, as kubectl, Helm 4 and client libraries ask for it."""

import json

import pytest
from apiserver import Cluster

APPLY = "application/apply-patch+yaml"
MAPS, DEPLOYMENTS = "/api/v1/namespaces/default/configmaps", "/apis/apps/v1/namespaces/default/deployments"
WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"
SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer"},
                "note": {"type": "string"},
                "ports": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"type": "string"}, "port": {"type": "integer"}},
                    },
                },
            },
        },
        "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
    },
}
CRD = {
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": SCHEMA},
            }
        ],
    },
}


@pytest.fixture
def cluster():
    found = Cluster()
    found.must("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", CRD)
    return found


def config(kind, name, version="v1", **content):
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **content}


def apply(cluster, path, body, manager="me", force="false", **more):
    return cluster.ask("PATCH", f"{path}?fieldManager={manager}&force={force}", body, content=APPLY, **more)


def widget(**spec):
    return config("Widget", "w", "example.com/v1", spec=spec)


def deployment(**spec):
    body = {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}}}
    body["template"]["spec"] = {"containers": [{"name": "c", "image": "i"}]}
    return config("Deployment", "d", "apps/v1", spec=body | spec)


def managers(obj):
    entries = obj["metadata"].get("managedFields", [])
    return {(e["manager"], e["operation"], e.get("subresource", "")) for e in entries}


def test_applying_creates_then_changes_then_does_nothing(cluster):
    assert apply(cluster, f"{MAPS}/m", config("ConfigMap", "m", data={"a": "1"}))[0] == 201
    code, changed = apply(cluster, f"{MAPS}/m", config("ConfigMap", "m", data={"b": "2"}))
    assert (code, changed["data"]) == (200, {"b": "2"})
    again = apply(cluster, f"{MAPS}/m", config("ConfigMap", "m", data={"b": "2"}))[1]
    assert again == changed


def test_the_body_may_be_yaml(cluster):
    text = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: m\ndata:\n  a: '1'\n"
    assert apply(cluster, f"{MAPS}/m", text)[0] == 201


def test_a_conflict_is_told_as_kube_apiserver_tells_it(cluster):
    cluster.must("POST", f"{DEPLOYMENTS}?fieldManager=kubectl-create", deployment(replicas=1))
    code, status = apply(cluster, f"{DEPLOYMENTS}/d", deployment(replicas=2))
    assert code == 409
    message = 'Apply failed with 1 conflict: conflict with "kubectl-create" using apps/v1: .spec.replicas'
    assert (status["reason"], status["message"]) == ("Conflict", message)
    assert status["details"]["causes"] == [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "kubectl-create" using apps/v1',
            "field": ".spec.replicas",
        }
    ]
    code, forced = apply(cluster, f"{DEPLOYMENTS}/d", deployment(replicas=2), force="true")
    assert (code, forced["spec"]["replicas"], forced["metadata"]["generation"]) == (200, 2, 2)


def test_defaults_and_what_the_server_adds_are_nobodys(cluster):
    made = apply(cluster, f"{DEPLOYMENTS}/d", deployment())[1]
    assert made["spec"]["replicas"] == 1
    (entry,) = made["metadata"]["managedFields"]
    assert "f:replicas" not in entry["fieldsV1"]["f:spec"]
    assert (
        apply(cluster, f"{DEPLOYMENTS}/d", config("Deployment", "d", "apps/v1", spec={"replicas": 5}), "hpa")[0] == 200
    )


def test_a_part_of_an_object_can_be_applied_to_it_but_not_make_one(cluster):
    code, status = apply(cluster, f"{DEPLOYMENTS}/d", config("Deployment", "d", "apps/v1", spec={"replicas": 5}))
    assert (code, status["reason"]) == (422, "Invalid")
    code, status = apply(cluster, f"{WIDGETS}/w", widget(note="n"))
    assert (code, status["details"]["causes"][0]["field"]) == (422, "spec.size")
    apply(cluster, f"{WIDGETS}/w", widget(size=1))
    assert apply(cluster, f"{WIDGETS}/w", widget(note="n"), "other")[1]["spec"] == {"size": 1, "note": "n"}


def test_custom_resources_are_merged_by_the_keys_in_their_schema(cluster):
    apply(cluster, f"{WIDGETS}/w", widget(size=1, ports=[{"name": "a", "port": 1}]))
    code, made = apply(cluster, f"{WIDGETS}/w", widget(ports=[{"name": "b", "port": 2}]), "other")
    assert (code, made["spec"]["ports"]) == (200, [{"name": "a", "port": 1}, {"name": "b", "port": 2}])
    code, status = apply(cluster, f"{WIDGETS}/w", widget(ports=[{"name": "a", "port": 3}]), "other")
    assert status["details"]["causes"][0]["field"] == '.spec.ports[name="a"].port'


def test_status_has_holders_of_its_own(cluster):
    apply(cluster, f"{WIDGETS}/w", widget(size=1))
    code, made = apply(cluster, f"{WIDGETS}/w/status", widget(size=7) | {"status": {"phase": "Ready"}}, "controller")
    assert (code, made["spec"], made["status"]) == (200, {"size": 1}, {"phase": "Ready"})
    assert managers(made) == {("me", "Apply", ""), ("controller", "Apply", "status")}
    merge = "application/merge-patch+json"
    changed = cluster.must("PATCH", f"{WIDGETS}/w/status?fieldManager=x", {"status": {"phase": "No"}}, content=merge)
    assert managers(changed) == {("me", "Apply", ""), ("x", "Update", "status")}
    assert apply(cluster, f"{WIDGETS}/none/status", config("Widget", "none", "example.com/v1"))[0] == 404


def test_every_kind_of_write_says_who_it_was(cluster):
    agent = {"User-Agent": "curl/8.0"}
    made = cluster.must("POST", MAPS, config("ConfigMap", "m", data={"a": "1"}), headers=agent)
    assert managers(made) == {("curl", "Update", "")}
    made["data"]["b"] = "2"
    put = cluster.must("PUT", f"{MAPS}/m?fieldManager=put", made)
    assert managers(put) == {("curl", "Update", ""), ("put", "Update", "")}
    for kind, body in (
        ("application/merge-patch+json", {"data": {"c": "3"}}),
        ("application/strategic-merge-patch+json", {"data": {"d": "4"}}),
        ("application/json-patch+json", [{"op": "add", "path": "/data/e", "value": "5"}]),
    ):
        name = kind.removeprefix("application/").partition("-")[0]
        patched = cluster.must("PATCH", f"{MAPS}/m?fieldManager={name}", body, content=kind)
        assert (name, "Update", "") in managers(patched)


def test_scaling_takes_the_replicas(cluster):
    apply(cluster, f"{DEPLOYMENTS}/d", deployment(replicas=1))
    scale = {"spec": {"replicas": 4}}
    cluster.must("PATCH", f"{DEPLOYMENTS}/d/scale?fieldManager=kubectl", scale)
    found = cluster.must("GET", f"{DEPLOYMENTS}/d")
    assert ("kubectl", "Update", "scale") in managers(found)
    status = apply(cluster, f"{DEPLOYMENTS}/d", deployment(replicas=1))[1]
    assert 'conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas' in status["message"]


def test_a_dry_run_tells_the_outcome_and_leaves_no_trace(cluster):
    path = f"{MAPS}/m?fieldManager=me&dryRun=All"
    made = cluster.must("PATCH", path, config("ConfigMap", "m", data={"a": "1"}), content=APPLY)
    assert managers(made) == {("me", "Apply", "")}
    assert cluster.ask("GET", f"{MAPS}/m")[0] == 404
    cluster.must("POST", f"{MAPS}?fieldManager=other", config("ConfigMap", "m", data={"a": "2"}))
    assert cluster.ask("PATCH", path, config("ConfigMap", "m", data={"a": "1"}), content=APPLY)[0] == 409


def test_a_revision_in_the_configuration_must_be_the_present_one(cluster):
    made = apply(cluster, f"{MAPS}/m", config("ConfigMap", "m", data={"a": "1"}))[1]
    body = config("ConfigMap", "m", data={"a": "2"})
    body["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
    assert apply(cluster, f"{MAPS}/m", body)[0] == 200
    assert apply(cluster, f"{MAPS}/m", body | {"data": {"a": "3"}})[1]["reason"] == "Conflict"


def test_who_may_patch_but_not_create_creates_nothing_by_applying(cluster):
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    rule = {"verbs": ["patch", "get"], "apiGroups": [""], "resources": ["configmaps"]}
    cluster.must("POST", f"{rbac}/clusterroles", {"metadata": {"name": "p"}, "rules": [rule]})
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "p"}
    binding = {"metadata": {"name": "p"}, "roleRef": ref, "subjects": [{"kind": "User", "name": "eve"}]}
    cluster.must("POST", f"{rbac}/clusterrolebindings", binding)
    body = config("ConfigMap", "m", data={"a": "1"})
    code, status = apply(cluster, f"{MAPS}/m", body, user="eve", groups=())
    assert (code, "cannot create resource" in status["message"]) == (403, True)
    apply(cluster, f"{MAPS}/m", body)
    assert apply(cluster, f"{MAPS}/m", body, user="eve", groups=())[0] == 200


BAD = {
    "no manager": ("", {}, "", 422, "fieldManager: Required value: is required for apply patch"),
    "a manager that is too long": ("m" * 129, {}, "", 422, "may not be more than 128 bytes"),
    "no kind": ("me", {"kind": None}, "", 400, "Object 'Kind' is missing"),
    "no version": ("me", {"apiVersion": None}, "", 400, "Object 'apiVersion' is missing"),
    "another kind": ("me", {"kind": "Secret"}, "", 400, "the path is for ConfigMap"),
    "another name": ("me", {"metadata": {"name": "n"}}, "", 400, "does not match the name on the URL (m)"),
    "no name": ("me", {"metadata": {}}, "", 400, "name must be provided"),
    "metadata that is a text": ("me", {"metadata": "m"}, "", 400, "name must be provided"),
    "managed fields": ("me", {"metadata": {"name": "m", "managedFields": []}}, "", 400, "must be nil"),
    "a wrong type": ("me", {"data": {"a": 1}}, "", 400, "data[a]: Invalid value"),
    "an unknown field": ("me", {"date": {}}, "&fieldValidation=Strict", 400, 'unknown field "date"'),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_apply_is_refused_in_a_sentence(cluster, case):
    manager, change, query, code, says = BAD[case]
    body = {k: v for k, v in (config("ConfigMap", "m") | change).items() if v is not None}
    got, status = cluster.ask("PATCH", f"{MAPS}/m?fieldManager={manager}{query}", body, content=APPLY)
    assert (got, says in status["message"]) == (code, True), status


def test_force_is_for_applying_alone(cluster):
    cluster.must("POST", MAPS, config("ConfigMap", "m"))
    code, status = cluster.ask("PATCH", f"{MAPS}/m?force=true", {"data": {"a": "1"}})
    assert (code, "may not be specified for non-apply patch" in status["message"]) == (422, True)


def test_lists_that_cannot_be_merged_are_refused(cluster):
    ports = [{"name": "a", "port": 1}, {"name": "a", "port": 2}]
    code, status = apply(cluster, f"{WIDGETS}/w", widget(size=1, ports=ports))
    assert code == 400
    assert status["message"] == (
        "failed to create typed patch object (default/w; example.com/v1, Kind=Widget): "
        '.spec.ports: duplicate entries for key [name="a"]'
    )


def test_malformed_managed_fields_in_an_update_are_refused(cluster):
    made = cluster.must("POST", MAPS, config("ConfigMap", "m", data={"a": "1"}))
    made["metadata"]["managedFields"][0]["operation"] = "Steal"
    code, status = cluster.ask("PUT", f"{MAPS}/m", made)
    assert (code, status["details"]["causes"][0]["field"]) == (422, "metadata.managedFields[0].operation")


def test_kubectl_migrates_what_it_has_applied_from_the_clients_side(cluster):
    last = "kubectl.kubernetes.io/last-applied-configuration"
    body = config("ConfigMap", "m", data={"a": "1", "b": "2"})
    noted = json.loads(json.dumps(body))
    body["metadata"]["annotations"] = {last: json.dumps(noted)}
    cluster.must("POST", f"{MAPS}?fieldManager=kubectl-client-side-apply", body)
    code, now = apply(cluster, f"{MAPS}/m", config("ConfigMap", "m", data={"a": "2"}), "kubectl")
    assert (code, now["data"]) == (200, {"a": "2", "b": "2"})
    assert json.loads(now["metadata"]["annotations"][last])["data"] == {"a": "2"}
