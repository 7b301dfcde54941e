"""What the API server rejects, as Kubernetes does: above all names and paths that would escape their directory."""

import pytest
from apiserver import Cluster

UP = "../../../../../x"


@pytest.fixture(scope="module")
def cluster():
    return Cluster()


def pod(**spec):
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}


def container(**more):
    return pod(containers=[{"name": "c", "image": "i", **more}], volumes=[{"name": "v", "emptyDir": {}}])


def volume(**source):
    return pod(volumes=[{"name": "v", **source}])


def projected(**source):
    return volume(projected={"sources": [source]})


def refused(cluster, path, body, field, reason, method="POST"):
    code, answer = cluster.ask(method, path, body)
    assert code == 422, answer
    assert answer["reason"] == "Invalid"
    causes = {(c["field"], c["reason"]) for c in answer["details"]["causes"]}
    assert (field, reason) in causes, causes
    return answer


INVALID, REQUIRED, DUPLICATE = "FieldValueInvalid", "FieldValueRequired", "FieldValueDuplicate"
ESCAPES = {
    "the name of a volume": (pod(volumes=[{"name": UP, "emptyDir": {}}]), "spec.volumes[0].name"),
    "an absolute name of a volume": (pod(volumes=[{"name": "/etc/cron.d", "emptyDir": {}}]), "spec.volumes[0].name"),
    "the name of a container": (container(name=UP), "spec.containers[0].name"),
    "the name of an init container": (
        pod(initContainers=[{"name": UP, "image": "i"}]),
        "spec.initContainers[0].name",
    ),
    "a subPath": (
        container(volumeMounts=[{"name": "v", "mountPath": "/m", "subPath": "../../.."}]),
        "spec.containers[0].volumeMounts[0].subPath",
    ),
    "an absolute subPath": (
        container(volumeMounts=[{"name": "v", "mountPath": "/m", "subPath": "/etc"}]),
        "spec.containers[0].volumeMounts[0].subPath",
    ),
    "a subPathExpr": (
        container(volumeMounts=[{"name": "v", "mountPath": "/m", "subPathExpr": "a/../../b"}]),
        "spec.containers[0].volumeMounts[0].subPathExpr",
    ),
    "the path of a token": (
        projected(serviceAccountToken={"path": UP}),
        "spec.volumes[0].projected.sources[0].serviceAccountToken.path",
    ),
    "the path of a downward item": (
        volume(downwardAPI={"items": [{"path": UP, "fieldRef": {"fieldPath": "metadata.name"}}]}),
        "spec.volumes[0].downwardAPI.path",
    ),
    "the path of a projected downward item": (
        projected(downwardAPI={"items": [{"path": "/x", "fieldRef": {"fieldPath": "metadata.name"}}]}),
        "spec.volumes[0].projected.sources[0].downwardAPI.path",
    ),
    "the path of a key of a ConfigMap": (
        volume(configMap={"name": "c", "items": [{"key": "k", "path": UP}]}),
        "spec.volumes[0].configMap.items[0].path",
    ),
    "the path of a key of a Secret": (
        volume(secret={"secretName": "c", "items": [{"key": "k", "path": "..x"}]}),
        "spec.volumes[0].secret.items[0].path",
    ),
    "a hostPath that steps back": (volume(hostPath={"path": "/tmp/../etc"}), "spec.volumes[0].hostPath.path"),
    "the name of a sysctl": (
        pod(securityContext={"sysctls": [{"name": "../../x", "value": "1"}]}),
        "spec.securityContext.sysctls[0].name",
    ),
    "the name of a variable": (container(env=[{"name": "A=B", "value": ""}]), "spec.containers[0].env[0].name"),
    "the key of a variable's ConfigMap": (
        container(env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": UP}}}]),
        "spec.containers[0].env[0].valueFrom.configMapKeyRef.key",
    ),
    "a host name": (pod(hostname="../x"), "spec.hostname"),
    "a host alias": (pod(hostAliases=[{"ip": "1 2", "hostnames": ["a"]}]), "spec.hostAliases[0].ip"),
    "a port": (container(ports=[{"containerPort": 70000}]), "spec.containers[0].ports[0].containerPort"),
    "the name of a port": (
        container(ports=[{"name": "no such name", "containerPort": 80}]),
        "spec.containers[0].ports[0].name",
    ),
}


@pytest.mark.parametrize("what", ESCAPES)
def test_a_pod_cannot_leave_its_directory_by(cluster, what):
    body, field = ESCAPES[what]
    refused(cluster, "/api/v1/namespaces/default/pods", body, field, INVALID)
    template = {"metadata": {"labels": {"a": "b"}}, "spec": body["spec"]}
    deployment = {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}
    refused(cluster, "/apis/apps/v1/namespaces/default/deployments", deployment, f"spec.template.{field}", INVALID)


@pytest.mark.parametrize("key", [UP, "/x", "a/b", "..", ".", "..x", "", "a b"])
def test_keys_of_config_maps_and_secrets_are_file_names(cluster, key):
    for plural, data in (("configmaps", {key: "v"}), ("secrets", {key: "dg=="})):
        body = {"metadata": {"name": "k"}, "data": data}
        refused(cluster, f"/api/v1/namespaces/default/{plural}", body, f"data[{key}]", INVALID)
    text = {"metadata": {"name": "k"}, "stringData": {key: "v"}}
    refused(cluster, "/api/v1/namespaces/default/secrets", text, f"data[{key}]", INVALID)


def test_a_patch_cannot_add_a_key_that_a_creation_could_not(cluster):
    path = "/api/v1/namespaces/default/configmaps"
    cluster.must("POST", path, {"metadata": {"name": "patched"}, "data": {"a": "b"}})
    refused(cluster, f"{path}/patched", {"data": {UP: "x"}}, f"data[{UP}]", INVALID, method="PATCH")


INSIDE = {
    "a mount without its volume": (
        container(volumeMounts=[{"name": "w", "mountPath": "/m"}]),
        "spec.containers[0].volumeMounts[0].name",
        "FieldValueNotFound",
    ),
    "two mounts at one place": (
        container(volumeMounts=[{"name": "v", "mountPath": "/m"}, {"name": "v", "mountPath": "/m"}]),
        "spec.containers[0].volumeMounts[1].mountPath",
        INVALID,
    ),
    "two containers of one name": (
        pod(containers=[{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]),
        "spec.containers[1].name",
        DUPLICATE,
    ),
    "two volumes of one name": (
        pod(volumes=[{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]),
        "spec.volumes[1].name",
        DUPLICATE,
    ),
    "two ports of one name": (
        container(ports=[{"name": "a", "containerPort": 1}, {"name": "a", "containerPort": 2}]),
        "spec.containers[0].ports[1].name",
        DUPLICATE,
    ),
    "a claim that nobody has": (
        container(resources={"claims": [{"name": "gpu"}]}),
        "spec.containers[0].resources.claims[0].name",
        "FieldValueNotFound",
    ),
    "a volume claim without a name": (
        volume(persistentVolumeClaim={"claimName": ""}),
        "spec.volumes[0].persistentVolumeClaim.claimName",
        REQUIRED,
    ),
    "no containers": ({"metadata": {"name": "p"}, "spec": {"containers": []}}, "spec.containers", REQUIRED),
    "no image": (pod(containers=[{"name": "c"}]), "spec.containers[0].image", REQUIRED),
    "more asked for than allowed": (
        container(resources={"limits": {"cpu": "1"}, "requests": {"cpu": "1500m"}}),
        "spec.containers[0].resources.requests",
        INVALID,
    ),
    "a probe of two kinds": (
        container(readinessProbe={"tcpSocket": {"port": 1}, "exec": {"command": ["a"]}}),
        "spec.containers[0].readinessProbe.tcpSocket",
        "FieldValueForbidden",
    ),
    "a restart policy that is none": (pod(restartPolicy="Sometimes"), "spec.restartPolicy", "FieldValueNotSupported"),
    "a label that is none": (
        {"metadata": {"name": "p", "labels": {"bad label!": "x"}}, "spec": pod()["spec"]},
        "metadata.labels",
        INVALID,
    ),
}


@pytest.mark.parametrize("what", INSIDE)
def test_a_pod_is_refused_for(cluster, what):
    body, field, reason = INSIDE[what]
    refused(cluster, "/api/v1/namespaces/default/pods", body, field, reason)


def test_a_valid_pod_is_accepted(cluster):
    spec = {
        "serviceAccountName": "",
        "volumes": [
            {"name": "v", "emptyDir": {}},
            {"name": "c", "configMap": {"name": "c", "items": [{"key": "a.b", "path": "d/e..f"}]}},
            {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
        ],
        "containers": [
            {
                "name": "c",
                "image": "i",
                "ports": [{"name": "http-web", "containerPort": 80}],
                "env": [{"name": "a.b-C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['x/y']"}}}],
                "volumeMounts": [{"name": "v", "mountPath": "/m", "subPath": "a/b"}],
                "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": ".5", "memory": "1e3"}},
            }
        ],
    }
    made = cluster.must("POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": "fine"}, "spec": spec})
    assert made["spec"]["serviceAccountName"] == "default"


SERVICES = {
    "a rule in an address": ({"clusterIP": "10.96.9.9 -j ACCEPT"}, "spec.clusterIPs[0]", INVALID),
    "a port of two uses": (
        {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]},
        "spec.ports[1]",
        DUPLICATE,
    ),
    "ports without names": ({"ports": [{"port": 80}, {"port": 81}]}, "spec.ports[0].name", REQUIRED),
    "a node port out of range": (
        {"type": "NodePort", "ports": [{"port": 1, "nodePort": 80}]},
        "spec.ports[0].nodePort",
        INVALID,
    ),
    "a type that is none": ({"type": "Cloud"}, "spec.type", "FieldValueNotSupported"),
    "an address of its own for another name": (
        {"type": "ExternalName", "externalName": "example.com", "clusterIP": "None"},
        "spec.clusterIPs",
        "FieldValueForbidden",
    ),
    "an external name that is none": ({"type": "ExternalName", "externalName": "a b"}, "spec.externalName", INVALID),
}


@pytest.mark.parametrize("what", SERVICES)
def test_a_service_is_refused_for(cluster, what):
    spec, field, reason = SERVICES[what]
    body = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], **spec}}
    refused(cluster, "/api/v1/namespaces/default/services", body, field, reason)


def test_an_endpoint_cannot_lead_to_the_local_machine(cluster):
    for address in ("127.0.0.1", "169.254.1.1", "0.0.0.0", "1.2.3.4; x"):
        body = {"metadata": {"name": "e"}, "subsets": [{"addresses": [{"ip": address}], "ports": [{"port": 1}]}]}
        refused(cluster, "/api/v1/namespaces/default/endpoints", body, "subsets[0].addresses[0].ip", INVALID)


def test_a_service_address_belongs_to_one_service(cluster):
    path = "/api/v1/namespaces/default/services"
    made = cluster.must("POST", path, {"metadata": {"name": "first"}, "spec": {"ports": [{"port": 80}]}})
    second = {"metadata": {"name": "second"}, "spec": {"clusterIP": made["spec"]["clusterIP"], "ports": [{"port": 80}]}}
    refused(cluster, path, second, "spec.clusterIPs", INVALID)
    changed = {**made, "spec": {**made["spec"], "clusterIP": "10.96.3.3", "clusterIPs": ["10.96.3.3"]}}
    refused(cluster, f"{path}/first", changed, "spec.clusterIPs[0]", INVALID, method="PUT")


def test_immutable_fields_cannot_be_changed(cluster):
    apps = "/apis/apps/v1/namespaces/default/deployments"
    template = {"metadata": {"labels": {"a": "b", "c": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    cluster.must("POST", apps, {"metadata": {"name": "fixed"}, "spec": spec})
    other = {"spec": {"selector": {"matchLabels": {"a": None, "c": "d"}}}}
    answer = refused(cluster, f"{apps}/fixed", other, "spec.selector", INVALID, method="PATCH")
    assert "field is immutable" in answer["message"]
    maps = "/api/v1/namespaces/default/configmaps"
    cluster.must("POST", maps, {"metadata": {"name": "frozen"}, "data": {"a": "b"}, "immutable": True})
    refused(cluster, f"{maps}/frozen", {"data": {"a": "c"}}, "data", "FieldValueForbidden", method="PATCH")
    pods = "/api/v1/namespaces/default/pods"
    cluster.must("POST", pods, {"metadata": {"name": "running"}, "spec": pod()["spec"]})
    renamed = [{"op": "replace", "path": "/spec/containers/0/name", "value": "other"}]
    code, answer = cluster.ask("PATCH", f"{pods}/running", renamed, content="application/json-patch+json")
    assert (code, answer["details"]["causes"][0]["field"]) == (422, "spec")


def test_a_config_map_of_more_than_a_megabyte_is_refused(cluster):
    body = {"metadata": {"name": "large"}, "data": {"a": "x" * 1_100_000}}
    refused(cluster, "/api/v1/namespaces/default/configmaps", body, "[]", "FieldValueTooLong")


def test_pods_are_bounded(monkeypatch):
    cluster = Cluster()
    monkeypatch.setattr("lateen.cluster.apiserver.strategies.MAX_PODS", 2)
    path = "/api/v1/namespaces/default/pods"
    for name in ("a", "b"):
        cluster.must("POST", path, {"metadata": {"name": name}, "spec": pod()["spec"]})
    code, answer = cluster.ask("POST", path, {"metadata": {"name": "c"}, "spec": pod()["spec"]})
    assert (code, answer["reason"]) == (403, "Forbidden")
    assert "takes no more" in answer["message"]


def test_a_wrong_type_is_a_bad_request_that_names_the_field(cluster):
    body = {"metadata": {"name": "t"}, "spec": {"containers": "none"}}
    code, answer = cluster.ask("POST", "/api/v1/namespaces/default/pods", body)
    assert (code, answer["reason"]) == (400, "BadRequest")
    assert "spec.containers" in answer["message"]
    assert "array" in answer["message"]


@pytest.mark.parametrize("replicas", [1 << 31, -(1 << 31) - 1, 3_000_000_000])
def test_numbers_beyond_their_field_are_refused_as_a_go_program_refuses_them(replicas):
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"a": "b"}},
            "strategy": {"rollingUpdate": {"maxSurge": replicas}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    }
    code, answer = Cluster().ask("POST", "/apis/apps/v1/namespaces/default/deployments", body)
    assert code == 400
    for path in ("spec.replicas", "spec.strategy.rollingUpdate.maxSurge"):
        assert f"{path}: Invalid value: {replicas}: cannot unmarshal number {replicas} into" in answer["message"]


@pytest.mark.parametrize(("profile", "says"), [("../../x", "must not contain '..'"), ("/x", "must be a relative path")])
def test_a_profile_is_a_path_below_the_kubelets_folder(profile, says):
    security = {"seccompProfile": {"type": "Localhost", "localhostProfile": profile}}
    pod = {
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}], "securityContext": security},
    }
    code, answer = Cluster().ask("POST", "/api/v1/namespaces/default/pods", pod)
    assert code == 422
    assert says in answer["message"]
