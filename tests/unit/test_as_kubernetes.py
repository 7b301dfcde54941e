"""What the API server fills in, counts and spells as kube-apiserver does (found by tests/real-kubernetes)."""

import pytest
from apiserver import Cluster

from lateen.cluster.rules import amounts

HERE = "/api/v1/namespaces/default"


@pytest.fixture(scope="module")
def cluster():
    return Cluster()


def dry(cluster, path, kind, api="v1", **fields):
    body = {"apiVersion": api, "kind": kind, "metadata": {"name": "x"}, **fields}
    return cluster.must("POST", f"{path}?dryRun=All", body)


@pytest.mark.parametrize(
    ("given", "written"),
    [
        *(("0.5", "500m"), ("1000m", "1"), ("1", "1"), (1, "1"), (0.25, "250m"), ("1024Mi", "1Gi"), ("0.5Gi", "512Mi")),
        *(("100000000", "100M"), ("1e3", "1e3"), ("1500m", "1500m"), ("0", "0"), ("64Mi", "64Mi"), ("5n", "5n")),
    ],
)
def test_quantities_are_written_in_their_canonical_form(cluster, given, written):
    assert amounts.canonical(given) == written
    container = {"name": "c", "image": "i", "resources": {"limits": {"memory": given}}}
    pod = dry(cluster, f"{HERE}/pods", "Pod", spec={"containers": [container]})
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {"memory": written}


def test_changes_are_counted_where_kubernetes_counts_them(cluster):
    config = dry(cluster, f"{HERE}/configmaps", "ConfigMap", metadata={"name": "x", "generation": 7})
    assert "generation" not in config["metadata"]
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    found = dry(cluster, "/apis/apps/v1/namespaces/default/deployments", "Deployment", "apps/v1", spec=spec)
    assert found["metadata"]["generation"] == 1


def test_addresses_of_services_are_in_their_network_and_stay(cluster):
    def service(address):
        spec = {"clusterIP": address, "ports": [{"port": 80}]}
        return cluster.ask("POST", f"{HERE}/services", {"metadata": {"name": "s"}, "spec": spec})

    code, answer = service("1.2.3.4")
    assert code == 422
    assert "the provided network does not match the current range" in answer["message"]
    assert service("10.96.7.7")[0] == 201
    code, answer = cluster.ask("PATCH", f"{HERE}/services/s", {"spec": {"clusterIP": "10.96.7.8"}})
    assert code == 422
    assert answer["message"].endswith('spec.clusterIPs[0]: Invalid value: ["10.96.7.8"]: may not change once set')


BALANCED = {
    "type": "LoadBalancer",
    "externalTrafficPolicy": "Local",
    "healthCheckNodePort": 31999,
    "loadBalancerClass": "example.com/lb",
    "ports": [{"port": 80}],
}


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"externalTrafficPolicy": "Cluster"}, {"externalTrafficPolicy", "loadBalancerClass", "nodePort"}),
        ({"type": "NodePort"}, {"externalTrafficPolicy", "nodePort"}),
        ({"type": "ClusterIP"}, set()),
        ({"type": "ClusterIP", "externalIPs": ["192.0.2.7"]}, {"externalTrafficPolicy"}),
        ({"type": "ExternalName", "externalName": "example.com"}, set()),
    ],
)
def test_a_service_that_changes_its_type_or_policy_loses_what_only_the_former_one_needs(cluster, change, kept):
    made = cluster.must("POST", f"{HERE}/services", {"metadata": {"name": "lb"}, "spec": BALANCED})
    try:
        whole = cluster.must("PUT", f"{HERE}/services/lb?dryRun=All", {**made, "spec": made["spec"] | change})
        patched = cluster.must("PATCH", f"{HERE}/services/lb", {"spec": change})
    finally:
        cluster.must("DELETE", f"{HERE}/services/lb")
    assert whole["spec"] == patched["spec"]
    found = {*patched["spec"], *patched["spec"]["ports"][0]}
    assert found & {*BALANCED, "nodePort"} - {"type", "ports"} == kept


def test_a_health_check_port_that_is_asked_for_where_nothing_needs_it_is_refused(cluster):
    cluster.must("POST", f"{HERE}/services", {"metadata": {"name": "lb"}, "spec": BALANCED})
    try:
        change = {"externalTrafficPolicy": "Cluster", "healthCheckNodePort": 31998}
        code, answer = cluster.ask("PATCH", f"{HERE}/services/lb", {"spec": change})
    finally:
        cluster.must("DELETE", f"{HERE}/services/lb")
    assert (code, "spec.healthCheckNodePort" in answer["message"]) == (422, True), answer


def test_webhooks_bindings_and_ports_get_their_defaults(cluster):
    group = "/apis/admissionregistration.k8s.io/v1"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    hook = {"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"], "rules": [rule]}
    hook["clientConfig"] = {"service": {"namespace": "n", "name": "s"}}
    path = f"{group}/mutatingwebhookconfigurations"
    found = dry(cluster, path, "MutatingWebhookConfiguration", "admissionregistration.k8s.io/v1", webhooks=[hook])
    made = found["webhooks"][0]
    assert (made["failurePolicy"], made["matchPolicy"], made["timeoutSeconds"]) == ("Fail", "Equivalent", 10)
    assert (made["reinvocationPolicy"], made["namespaceSelector"], made["objectSelector"]) == ("Never", {}, {})
    assert (made["clientConfig"]["service"]["port"], made["rules"][0]["scope"]) == (443, "*")

    rbac = "rbac.authorization.k8s.io"
    path = f"/apis/{rbac}/v1/namespaces/default/rolebindings"
    subjects = [{"kind": "User", "name": "bob"}, {"kind": "ServiceAccount", "name": "default", "namespace": "default"}]
    role = {"kind": "ClusterRole", "name": "view"}
    bound = dry(cluster, path, "RoleBinding", f"{rbac}/v1", roleRef=role, subjects=subjects)
    assert bound["roleRef"]["apiGroup"] == bound["subjects"][0]["apiGroup"] == rbac
    assert "apiGroup" not in bound["subjects"][1]

    path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    more = {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}
    found = dry(cluster, path, "EndpointSlice", "discovery.k8s.io/v1", **more)
    assert found["ports"] == [{"port": 80, "name": "", "protocol": "TCP"}]


def test_an_autoscaler_that_says_how_to_go_one_way_goes_the_other_as_usual(cluster):
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    each = {"periodSeconds": 15, "value": 100, "type": "Percent"}

    def behavior(**given):
        path, spec = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", {"maxReplicas": 3}
        spec |= {"scaleTargetRef": target, **({"behavior": given} if given else {})}
        return dry(cluster, path, "HorizontalPodAutoscaler", "autoscaling/v2", spec=spec)["spec"].get("behavior")

    assert behavior() is None
    found = behavior(
        scaleDown={"policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}], "selectPolicy": "Min"}
    )
    up = {"policies": [{**each, "type": "Pods", "value": 4}, each], "selectPolicy": "Max"}
    assert found["scaleUp"] == {**up, "stabilizationWindowSeconds": 0}
    assert found["scaleDown"]["selectPolicy"] == "Min"
    found = behavior(scaleUp={"stabilizationWindowSeconds": 5})
    assert found == {
        "scaleUp": {**up, "stabilizationWindowSeconds": 5},
        "scaleDown": {"policies": [each], "selectPolicy": "Max"},
    }


def test_a_job_without_labels_has_those_of_its_pods(cluster):
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    found = dry(cluster, "/apis/batch/v1/namespaces/default/jobs", "Job", "batch/v1", spec={"template": template})
    assert found["metadata"]["labels"] == found["spec"]["template"]["metadata"]["labels"]
    assert found["metadata"]["labels"]["job-name"] == "x"


def test_hooks_may_leave_out_what_has_a_default(cluster):
    container = {"name": "c", "image": "i", "lifecycle": {"preStop": {"httpGet": {"port": 80}}}}
    volumes = [{"name": "h", "hostPath": {"path": "/x"}}]
    volumes += [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]
    pod = dry(cluster, f"{HERE}/pods", "Pod", spec={"containers": [container], "volumes": volumes})["spec"]
    assert pod["containers"][0]["lifecycle"]["preStop"]["httpGet"] == {"port": 80, "path": "/", "scheme": "HTTP"}
    assert pod["volumes"][0]["hostPath"] == {"path": "/x", "type": ""}
    assert pod["volumes"][1]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"] == 3600


def test_new_objects_have_a_status_that_clients_can_read():
    cluster = Cluster()
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template, "serviceName": "s"}
    found = {}
    for plural in ("deployments", "replicasets", "statefulsets", "daemonsets"):
        given = {k: v for k, v in spec.items() if k != "serviceName" or plural == "statefulsets"}
        made = cluster.must(
            "POST", f"/apis/apps/v1/namespaces/default/{plural}", {"metadata": {"name": "n"}, "spec": given}
        )
        found[plural] = made["status"]
    assert found["deployments"] == {}
    assert found["replicasets"] == {"replicas": 0}
    assert found["statefulsets"] == {"replicas": 0, "availableReplicas": 0}
    assert found["daemonsets"]["numberReady"] == 0


def test_a_pod_that_ends_in_the_past_gets_the_shortest_time():
    spec = {"terminationGracePeriodSeconds": -5, "containers": [{"name": "c", "image": "x"}]}
    made = Cluster().must("POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": "p"}, "spec": spec})
    assert made["spec"]["terminationGracePeriodSeconds"] == 1
    assert made["spec"]["enableServiceLinks"] is True
