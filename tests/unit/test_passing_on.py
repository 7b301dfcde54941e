"""Paths of the API that lead to pods and services, and containers that are added to pods that exist."""

from __future__ import annotations

import json
from typing import Any

import pytest
from apiserver import Cluster

from lateen.cluster.apiserver import proxying, routing
from lateen.cluster.apiserver.auth import ADMIN
from lateen.cluster.apiserver.errors import ApiError

POD = {
    "metadata": {"name": "web"},
    "spec": {
        "containers": [
            {"name": "side", "image": "x"},
            {"name": "app", "image": "x", "ports": [{"name": "http", "containerPort": 8080}]},
        ]
    },
}
SERVICE = {
    "metadata": {"name": "web"},
    "spec": {"ports": [{"name": "a", "port": 80, "targetPort": 8080}, {"name": "b", "port": 81}]},
}
BASE = "/api/v1/namespaces/default"


@pytest.fixture
def cluster() -> Cluster:
    found = Cluster()
    found.must("POST", f"{BASE}/pods", POD)
    found.must("POST", f"{BASE}/services", SERVICE)
    return found


def address(cluster: Cluster, ip: str) -> None:
    merge = {"Content-Type": "application/merge-patch+json"}
    cluster.must("PATCH", f"{BASE}/pods/web/status", {"status": {"podIP": ip}}, headers=merge)


def endpoints(cluster: Cluster) -> None:
    ports = [{"name": "a", "port": 8080}, {"name": "b", "port": 9090}]
    subsets = [{"addresses": [{"ip": "10.244.0.7"}], "ports": ports}]
    cluster.must("POST", f"{BASE}/endpoints", {"metadata": {"name": "web"}, "subsets": subsets})


def target(cluster: Cluster, path: str) -> tuple[str, str]:
    parts = path.split("/")[1:]
    c = routing.call(cluster.registry, parts, {}, ADMIN)
    to, rest = proxying.target(cluster.store, c, path)
    assert path == to.prefix + rest
    return to.origin, rest


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("web", "http://10.244.0.7:8080"),
        ("web:99", "http://10.244.0.7:99"),
        ("web:http", "http://10.244.0.7:8080"),
        ("https:web:99", "https://10.244.0.7:99"),
        (":web:99", "http://10.244.0.7:99"),
    ],
)
def test_a_pod_is_reached_at_its_address_and_the_port_that_is_asked_for(
    cluster: Cluster, name: str, origin: str
) -> None:
    address(cluster, "10.244.0.7")
    assert target(cluster, f"{BASE}/pods/{name}/proxy/a%20b//c/") == (origin, "/a%20b//c/")
    assert target(cluster, f"{BASE}/pods/{name}/proxy") == (origin, "")


@pytest.mark.parametrize(("port", "number"), [("80", 8080), ("a", 8080), ("b", 9090), ("81", 9090)])
def test_a_service_is_reached_at_an_endpoint_of_the_port_by_name_or_number(
    cluster: Cluster, port: str, number: int
) -> None:
    endpoints(cluster)
    assert target(cluster, f"{BASE}/services/http:web:{port}/proxy/proxy/x") == (
        f"http://10.244.0.7:{number}",
        "/proxy/x",
    )


@pytest.mark.parametrize(
    ("path", "code", "says"),
    [
        ("pods/nope", 404, 'pods "nope" not found'),
        ("pods/web:nope", 400, 'no port "nope"'),
        ("pods/ftp:web:21", 400, "[http:|https:]NAME[:PORT]"),
        ("services/web:80", 503, 'no endpoints available for service "web"'),
        ("services/web", 503, 'no service port "" found'),
    ],
)
def test_what_cannot_be_reached_is_told(cluster: Cluster, path: str, code: int, says: str) -> None:
    with pytest.raises(ApiError) as e:
        target(cluster, f"{BASE}/{path}/proxy/")
    assert (e.value.code, says in e.value.message) == (code, True)


@pytest.mark.parametrize("ip", ["127.0.0.1", "169.254.169.254", "::1", "0.0.0.0"])
def test_an_address_of_the_machine_itself_is_not_a_pods(cluster: Cluster, ip: str) -> None:
    address(cluster, ip)
    with pytest.raises(ApiError, match="address not allowed"):
        target(cluster, f"{BASE}/pods/web/proxy/")


def test_who_may_not_use_the_proxy_is_refused(cluster: Cluster) -> None:
    code, answer = cluster.ask("GET", f"{BASE}/services/web:80/proxy/x", user="joe", groups=())
    assert code == 403
    assert 'cannot get resource "services/proxy"' in answer["message"]


# --- ephemeral containers --------------------------------------------------------------------------------------------


def debug(cluster: Cluster, *containers: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    patch = {"spec": {"ephemeralContainers": list(containers)}}
    kind = {"Content-Type": "application/strategic-merge-patch+json"}
    code, answer = cluster.ask("PATCH", f"{BASE}/pods/web/ephemeralcontainers", patch, headers=kind)
    return code, answer


def test_a_debugger_is_added_to_a_pod_that_exists_and_stays_as_it_is(cluster: Cluster) -> None:
    one = {"name": "one", "image": "tools", "targetContainerName": "app", "stdin": True}
    code, answer = debug(cluster, one)
    assert (code, answer["kind"]) == (200, "Pod")
    assert debug(cluster, {"name": "two", "image": "tools:1"})[0] == 200
    found = cluster.must("GET", f"{BASE}/pods/web/ephemeralcontainers")["spec"]["ephemeralContainers"]
    assert {c["name"]: c["imagePullPolicy"] for c in found} == {"one": "Always", "two": "IfNotPresent"}
    code, answer = debug(cluster, {"name": "one", "image": "other"})
    assert code == 422
    assert 'existing ephemeral containers "one" may not be changed' in answer["message"]


@pytest.mark.parametrize(
    ("container", "says"),
    [
        ({"name": "app"}, 'spec.ephemeralContainers[0].name: Duplicate value: "app"'),
        ({"name": "d", "targetContainerName": "nope"}, 'targetContainerName: Not found: "nope"'),
        ({"name": "d", "ports": [{"containerPort": 1}]}, "ports: Forbidden: cannot be set for an Ephemeral Container"),
    ],
)
def test_what_a_debugger_cannot_have_is_refused(cluster: Cluster, container: dict[str, Any], says: str) -> None:
    code, answer = debug(cluster, {"image": "tools", **container})
    assert code == 422
    assert says in answer["message"], json.dumps(answer)


def test_a_debugger_is_added_by_its_own_path_only(cluster: Cluster) -> None:
    patch = {"spec": {"ephemeralContainers": [{"name": "d", "image": "tools"}]}}
    kind = {"Content-Type": "application/strategic-merge-patch+json"}
    code, answer = cluster.ask("PATCH", f"{BASE}/pods/web", patch, headers=kind)
    assert code == 422
    assert "pod updates may not change fields" in answer["message"]
    patch = {"spec": {"containers": [{"name": "app", "image": "changed"}]}}
    cluster.must("PATCH", f"{BASE}/pods/web/ephemeralcontainers", patch, headers=kind)
    images = {c["image"] for c in cluster.must("GET", f"{BASE}/pods/web")["spec"]["containers"]}
    assert images == {"x"}
