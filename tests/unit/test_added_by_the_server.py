"""What the API server adds to new objects: pull secrets, ingress classes, generated names, tokens bound to objects."""

import itertools

import pytest
from apiserver import Cluster

from lateen.cluster.apiserver import verbs
from lateen.kit import jsons

CORE = "/api/v1/namespaces/default"
CLASSES = "/apis/networking.k8s.io/v1/ingressclasses"
INGRESSES = "/apis/networking.k8s.io/v1/namespaces/default/ingresses"
BACKEND = {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}


@pytest.fixture
def cluster():
    return Cluster()


def pod(cluster, name, **spec):
    body = {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "lateen/sleep"}], **spec}}
    return cluster.must("POST", f"{CORE}/pods", body)["spec"]


def test_pods_have_the_pull_secrets_of_their_account_unless_they_name_some(cluster):
    body = {"metadata": {"name": "robot"}, "imagePullSecrets": [{"name": "registry"}]}
    cluster.must("POST", f"{CORE}/serviceaccounts", body | {"automountServiceAccountToken": False})
    assert pod(cluster, "a", serviceAccountName="robot")["imagePullSecrets"] == [{"name": "registry"}]
    own = pod(cluster, "b", serviceAccountName="robot", imagePullSecrets=[{"name": "mine"}])
    assert own["imagePullSecrets"] == [{"name": "mine"}]
    assert "imagePullSecrets" not in pod(cluster, "c")


def test_an_ingress_without_a_class_has_the_default_one(cluster):
    def ingress(name, notes=None, **spec):
        body = {"metadata": {"name": name, "annotations": notes or {}}, "spec": {**BACKEND, **spec}}
        return cluster.must("POST", INGRESSES, body)["spec"].get("ingressClassName")

    def of_class(name, default):
        notes = {"ingressclass.kubernetes.io/is-default-class": default}
        spec = {"controller": "example.com/controller"}
        cluster.must("POST", CLASSES, {"metadata": {"name": name, "annotations": notes}, "spec": spec})

    of_class("other", "false")
    assert ingress("before") is None
    of_class("main", "true")
    assert ingress("a") == "main"
    assert ingress("b", ingressClassName="other") == "other"
    assert ingress("c", {"kubernetes.io/ingress.class": "other"}) is None
    changed = cluster.must("PATCH", f"{INGRESSES}/before", {"metadata": {"labels": {"a": "b"}}})
    assert "ingressClassName" not in changed["spec"]


def test_another_name_is_generated_where_the_first_one_is_taken(cluster, monkeypatch):
    letters = itertools.chain("bbbbb", "bbbbb", "ccccc")
    monkeypatch.setattr(verbs.secrets, "choice", lambda _: next(letters))
    made = [cluster.must("POST", f"{CORE}/configmaps", {"metadata": {"generateName": "c-"}}) for _ in range(2)]
    assert [m["metadata"]["name"] for m in made] == ["c-bbbbb", "c-ccccc"]


@pytest.mark.parametrize(
    ("kind", "path"), [("Secret", f"{CORE}/secrets"), ("Node", "/api/v1/nodes"), ("Pod", f"{CORE}/pods")]
)
def test_a_token_that_is_bound_to_an_object_ends_with_it(cluster, kind, path):
    if kind == "Pod":
        pod(cluster, "it")
    else:
        cluster.must("POST", path, {"metadata": {"name": "it"}})
    ref = {"apiVersion": "v1", "kind": kind, "name": "it"}
    answer = cluster.must("POST", f"{CORE}/serviceaccounts/default/token", {"spec": {"boundObjectRef": ref}})

    def reviewed():
        body = {"spec": {"token": answer["status"]["token"]}}
        return cluster.must("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body)["status"]

    assert reviewed()["authenticated"]
    cluster.must("DELETE", f"{path}/it")
    assert not reviewed()["authenticated"]


def test_a_token_of_a_pod_says_on_which_node_that_runs(cluster):
    node = cluster.must("POST", "/api/v1/nodes", {"metadata": {"name": "n"}})
    pod(cluster, "p", nodeName="n")
    ref = {"apiVersion": "v1", "kind": "Pod", "name": "p"}
    answer = cluster.must("POST", f"{CORE}/serviceaccounts/default/token", {"spec": {"boundObjectRef": ref}})
    body = {"spec": {"token": answer["status"]["token"]}}
    user = cluster.must("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body)["status"]["user"]
    known = {k.rpartition("/")[2]: v for k, v in user["extra"].items()}
    assert (known["node-name"], known["node-uid"]) == (["n"], [node["metadata"]["uid"]])


@pytest.mark.parametrize(
    ("ref", "code", "says"),
    [
        ({"kind": "ConfigMap", "apiVersion": "v1", "name": "c"}, 400, "cannot bind token to object of type /v1, Kind="),
        ({"kind": "Secret", "apiVersion": "v1", "name": "none"}, 404, 'secrets "none" not found'),
        ({"kind": "Node", "apiVersion": "v1", "name": "none"}, 404, 'nodes "none" not found'),
    ],
)
def test_a_token_is_bound_to_nothing_else(cluster, ref, code, says):
    found = cluster.ask("POST", f"{CORE}/serviceaccounts/default/token", {"spec": {"boundObjectRef": ref}})
    assert (found[0], found[1]["message"].startswith(says)) == (code, True)


def test_a_lifetime_that_is_shortened_is_told(cluster):
    body = {"spec": {"expirationSeconds": 864000}}
    answer = cluster.must("POST", f"{CORE}/serviceaccounts/default/token", body)
    assert answer["spec"]["expirationSeconds"] == 86400
    assert '"requested expiration of 864000 seconds shortened to 86400 seconds"' in cluster.head


# --- node ports ------------------------------------------------------------------------------------------------------


SERVICES = f"{CORE}/services"


def balanced(*ports, kind="NodePort", **spec):
    return {"metadata": {"name": "s"}, "spec": {"type": kind, "ports": list(ports), **spec}}


def node_ports(answer):
    return [p.get("nodePort") for p in answer["spec"]["ports"]]


def test_tcp_and_udp_of_a_port_have_one_node_port_and_keep_it(cluster):
    ports = [{"name": n, "port": 53, "protocol": p} for n, p in (("dns", "UDP"), ("dns-tcp", "TCP"))]
    made = node_ports(cluster.must("POST", SERVICES, balanced(*ports)))
    assert made[0] == made[1]
    assert node_ports(cluster.must("PUT", f"{SERVICES}/s", balanced(*ports))) == made


def test_a_port_keeps_its_node_port_by_its_name(cluster):
    ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81}]
    a, b = node_ports(cluster.must("POST", SERVICES, balanced(*ports)))
    changed = [{"name": "b", "port": 90}, {"name": "a", "port": 91}, {"name": "c", "port": 80}]
    *kept, new = node_ports(cluster.must("PUT", f"{SERVICES}/s", balanced(*changed)))
    assert kept == [b, a]
    assert new not in (a, b)
    taken = [{"name": "a", "port": 80}, {"name": "b", "port": 81, "nodePort": a}]
    first, second = node_ports(cluster.must("PUT", f"{SERVICES}/s", balanced(*taken)))
    assert (second, first == a) == (a, False)


def test_a_load_balancer_has_no_node_ports_where_none_are_wanted(cluster):
    spec = {"kind": "LoadBalancer", "allocateLoadBalancerNodePorts": False}
    ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81, "nodePort": 30081}]
    assert node_ports(cluster.must("POST", SERVICES, balanced(*ports, **spec))) == [None, 30081]
    more = cluster.must("PATCH", f"{SERVICES}/s", {"spec": {"allocateLoadBalancerNodePorts": True}})
    assert all(node_ports(more))


# --- scheduling gates ------------------------------------------------------------------------------------------------


def test_a_pod_with_scheduling_gates_says_so(cluster):
    pod(cluster, "p", schedulingGates=[{"name": "example.com/wait"}])
    found = cluster.must("GET", f"{CORE}/pods/p")["status"]["conditions"]
    assert [(c["type"], c["status"], c["reason"]) for c in found] == [("PodScheduled", "False", "SchedulingGated")]
    table = cluster.must("GET", f"{CORE}/pods/p", headers={"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1"})
    assert table["rows"][0]["cells"][2] == "SchedulingGated"


def term(*values, key="zone"):
    expressions = [{"key": f"{key}{i}", "operator": "In", "values": [v]} for i, v in enumerate(values)]
    terms = {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}


@pytest.mark.parametrize(
    ("before", "change", "code"),
    [
        ({}, {"nodeSelector": {"disk": "ssd"}}, 200),
        ({}, term("a"), 200),
        (term("a"), term("a", "b"), 200),
        (term("a"), term("b"), 422),
        ({"nodeSelector": {"disk": "ssd"}}, {"nodeSelector": {"disk": "hdd"}}, 422),
        ({"nodeSelector": {"disk": "ssd"}}, {"nodeSelector": {"disk": "ssd", "a": "b"}}, 200),
        ({}, {"nodeSelector": {"disk": "ssd"}, "restartPolicy": "Never"}, 422),
    ],
)
def test_the_nodes_of_a_pod_may_be_narrowed_while_it_has_gates(cluster, before, change, code):
    pod(cluster, "gated", schedulingGates=[{"name": "example.com/wait"}], **before)
    pod(cluster, "free", **before)
    assert cluster.ask("PATCH", f"{CORE}/pods/gated", {"spec": change})[0] == code
    assert cluster.ask("PATCH", f"{CORE}/pods/free", {"spec": change})[0] == 422


# --- quotas ----------------------------------------------------------------------------------------------------------


def test_a_quota_of_devices_or_storage_lets_in_pods_that_ask_for_none(cluster):
    """Only where CPU or memory is limited, each container has to say how much it wants."""
    hard = {"requests.nvidia.com/gpu": "1", "requests.ephemeral-storage": "1Gi"}
    cluster.must("POST", f"{CORE}/resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    pod(cluster, "none")
    gpu = {"name": "c", "image": "lateen/sleep", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    pod(cluster, "one", containers=[gpu])
    body = {"metadata": {"name": "two"}, "spec": {"containers": [gpu]}}
    assert "exceeded quota: q" in cluster.ask("POST", f"{CORE}/pods", body)[1]["message"]
    cluster.must("PATCH", f"{CORE}/resourcequotas/q", {"spec": {"hard": {"requests.cpu": "1"}}})
    body = {"metadata": {"name": "three"}, "spec": {"containers": [{"name": "c", "image": "lateen/sleep"}]}}
    assert "must specify requests.cpu for: c" in cluster.ask("POST", f"{CORE}/pods", body)[1]["message"]


def test_a_quota_for_a_class_of_pods_is_about_nothing_else(cluster):
    match = {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}
    spec = {"hard": {"pods": "1", "services": "1"}, "scopeSelector": {"matchExpressions": [match]}}
    code, answer = cluster.ask("POST", f"{CORE}/resourcequotas", {"metadata": {"name": "q"}, "spec": spec})
    assert (code, answer["details"]["causes"][0]["field"]) == (422, "spec.scopeSelector.matchExpressions")
    del spec["hard"]["services"]
    cluster.must("POST", f"{CORE}/resourcequotas", {"metadata": {"name": "q"}, "spec": spec})


def test_ports_of_pods_on_the_nodes_network_are_ports_of_the_node(cluster):
    def with_port(name, **port):
        container = {"name": "c", "image": "lateen/sleep", "ports": [{"containerPort": 80, **port}]}
        body = {"metadata": {"name": name}, "spec": {"hostNetwork": True, "containers": [container]}}
        return cluster.ask("POST", f"{CORE}/pods", body)

    assert with_port("a")[1]["spec"]["containers"][0]["ports"][0]["hostPort"] == 80
    code, answer = with_port("b", hostPort=81)
    assert (code, "must match `containerPort`" in answer["message"]) == (422, True)


def test_what_is_orphaned_names_no_owners(cluster):
    owner = cluster.must("POST", f"{CORE}/configmaps", {"metadata": {"name": "owner"}})
    ref = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    cluster.must("POST", f"{CORE}/configmaps", {"metadata": {"name": "part", "ownerReferences": [ref]}})
    cluster.must("DELETE", f"{CORE}/configmaps/owner", {"propagationPolicy": "Orphan"})
    assert "ownerReferences" not in cluster.must("GET", f"{CORE}/configmaps/part")["metadata"]


def test_pods_of_an_earlier_version_can_be_changed_although_there_are_more_defaults_now(cluster):
    """Objects are kept when the embedded cluster is upgraded; hostPort has been added since."""
    container = {"name": "c", "image": "lateen/sleep", "ports": [{"containerPort": 80}]}
    pod(cluster, "old", hostNetwork=True, containers=[container])
    entry = cluster.store.get("pods", "default", "old")
    before = jsons.copy(entry.obj)
    del before["spec"]["containers"][0]["ports"][0]["hostPort"]
    cluster.store.update("pods", "default", "old", before, entry)
    labelled = cluster.must("PATCH", f"{CORE}/pods/old", {"metadata": {"labels": {"a": "b"}}})
    assert labelled["metadata"]["labels"] == {"a": "b"}
    other = {"containers": [{**container, "ports": [{"containerPort": 81}]}]}
    code, answer = cluster.ask("PATCH", f"{CORE}/pods/old", {"spec": other})
    assert (code, answer["details"]["causes"][0]["message"][:43]) == (
        422,
        "Forbidden: pod updates may not change field",
    )
