"""Structure and description of Kubernetes' own kinds: every one that is served has a structure; kubectl explain."""

import pytest
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


def undescribed(name, depth):
    """Fields below a type that have no description, down to a depth, as ``Type.field``; and types without one."""
    found, out = descriptions.described(name), []
    short = name.rpartition(".")[2]
    out += [] if found.get("description") else [short]
    for key, field in found.get("properties", {}).items():
        out += [] if field.get("description") else [f"{short}.{key}"]
        inner = [field, field.get("items") or {}, field.get("additionalProperties") or {}, *field.get("allOf", [])]
        refs = [i["$ref"].rpartition("/")[2] for i in inner if isinstance(i, dict) and "$ref" in i]
        out += [u for ref in refs if depth for u in undescribed(ref, depth - 1)]
    return sorted(set(out))


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        *(("v1", k) for k in ("ConfigMap", "Endpoints", "LimitRange", "Namespace", "PersistentVolumeClaim", "Pod")),
        *(("v1", k) for k in ("ReplicationController", "ResourceQuota", "Secret", "Service", "ServiceAccount")),
        *(("apps/v1", k) for k in ("DaemonSet", "Deployment", "ReplicaSet", "StatefulSet", "ControllerRevision")),
        *(("batch/v1", k) for k in ("CronJob", "Job")),
        *(("networking.k8s.io/v1", k) for k in ("Ingress", "IngressClass", "NetworkPolicy")),
        *(("rbac.authorization.k8s.io/v1", k) for k in ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")),
        ("autoscaling/v2", "HorizontalPodAutoscaler"),
        ("policy/v1", "PodDisruptionBudget"),
        ("scheduling.k8s.io/v1", "PriorityClass"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ("certificates.k8s.io/v1", "CertificateSigningRequest"),
        ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
        ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
    ],
)
def test_every_field_of_the_kinds_that_people_write_is_described(version, kind):
    """kubectl explain deployment.spec"""
    group, _, short = version.rpartition("/")
    name = schema.by_kind()[group, short, kind]
    later = ("allocatedResource", "modifyVolume", "currentVolumeAttributesClassName", "RawExtension")
    assert [u for u in undescribed(name, 1) if not any(word in u for word in later)] == []


def test_what_containers_are_made_of_is_described_to_the_end():
    """kubectl explain pod.spec.containers.livenessProbe.httpGet.httpHeaders"""
    assert undescribed("io.k8s.api.core.v1.Probe", 3) == []
    assert undescribed("io.k8s.api.core.v1.EnvVar", 3) == []
    assert undescribed("io.k8s.api.core.v1.Affinity", 5) == []


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
