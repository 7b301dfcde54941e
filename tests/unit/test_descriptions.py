"""Structure and description of Kubernetes' own kinds: every one that is served has a structure; kubectl explain."""

from apiserver import Cluster

from lateen.cluster.apiserver import decoding, descriptions, schema
from lateen.cluster.apiserver.built_in import BUILT_IN


def test_every_kind_that_is_written_has_its_structure():
    """Without one, fields of any type and name would be taken."""
    for r in (r for r in BUILT_IN if "update" in r.verbs):
        for version in r.served:
            assert decoding.schema_of(r, version) is not None, r.qualified


def test_descriptions_are_of_types_and_fields_that_there_are():
    by_type = {}
    for name, found in schema.definitions().items():
        by_type.setdefault(name.rpartition(".")[2], set()).update(found.get("properties", {}), [""])
    for name, fields in descriptions.texts().items():
        known = set().union(*by_type.values()) if name == "*" else by_type[name]
        assert set(fields) <= known, name
        assert all(text.strip().endswith((".", ")")) for text in fields.values()), name


def test_explain_describes_kinds_and_fields():
    found = Cluster().must("GET", "/openapi/v3/apis/apps/v1")["components"]["schemas"]
    spec = found["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"]
    assert spec["description"] == "What is wanted."
    assert spec["allOf"] == [{"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"}]
    replicas = found["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["replicas"]
    assert replicas["description"].startswith("How many pods there should be.")


def test_a_driver_that_does_not_run_here_is_taken_with_a_warning():
    path, cluster = "/apis/storage.k8s.io/v1/csidrivers", Cluster()
    made = cluster.must("POST", path, {"metadata": {"name": "csi.example.com"}, "spec": {"podInfoOnMount": True}})
    assert made["spec"]["volumeLifecycleModes"] == ["Persistent"]
    assert "starts no CSI drivers" in cluster.head
    body = {"metadata": {"name": "x"}, "spec": {"volumeLifecycleModes": ["Never"]}}
    assert cluster.ask("POST", path, body)[0] == 422


def test_a_pod_template_is_kept_with_the_defaults_of_pods_and_checked_as_one():
    path, cluster = "/api/v1/namespaces/default/podtemplates", Cluster()
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x:1"}]}}
    made = cluster.must("POST", path, {"metadata": {"name": "t"}, "template": template})
    assert made["template"]["spec"]["restartPolicy"] == "Always"
    assert made["template"]["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    table = cluster.must("GET", path, headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
    assert table["rows"][0]["cells"] == ["t", "c", "x:1", "a=b"]
    code, refused = cluster.ask("POST", path, {"metadata": {"name": "u"}, "template": {"spec": {"containers": []}}})
    assert (code, refused["details"]["causes"][0]["field"]) == (422, "template.spec.containers")


def test_a_pod_of_another_runtime_is_refused():
    spec = {"containers": [{"name": "c", "image": "x"}], "runtimeClassName": "gvisor"}
    body = {"metadata": {"name": "p"}, "spec": spec}
    code, refused = Cluster().ask("POST", "/api/v1/namespaces/default/pods", body)
    assert code == 403
    assert 'RuntimeClass "gvisor" not found' in refused["message"]
