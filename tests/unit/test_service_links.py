"""The environment variables of Services: what an application that was written for them finds."""

import asyncio
from types import SimpleNamespace

import pytest
from apiserver import Cluster

from lateen.cluster.apiserver.direct import DirectClient
from lateen.cluster.kubelet import service_links
from lateen.cluster.kubelet.sandbox import Sandbox


def service(name, ports, address="10.96.0.11"):
    return {"metadata": {"name": name}, "spec": {"clusterIP": address, "ports": ports}}


def test_a_service_has_the_variables_that_kubernetes_documents():
    """The example of the documentation."""
    assert service_links.variables([service("redis-primary", [{"port": 6379, "protocol": "TCP"}])]) == {
        "REDIS_PRIMARY_SERVICE_HOST": "10.96.0.11",
        "REDIS_PRIMARY_SERVICE_PORT": "6379",
        "REDIS_PRIMARY_PORT": "tcp://10.96.0.11:6379",
        "REDIS_PRIMARY_PORT_6379_TCP": "tcp://10.96.0.11:6379",
        "REDIS_PRIMARY_PORT_6379_TCP_PROTO": "tcp",
        "REDIS_PRIMARY_PORT_6379_TCP_PORT": "6379",
        "REDIS_PRIMARY_PORT_6379_TCP_ADDR": "10.96.0.11",
    }


def test_named_ports_and_other_protocols_have_variables_of_their_own():
    ports = [{"name": "dns-udp", "port": 53, "protocol": "UDP"}, {"name": "metrics", "port": 9153}]
    found = service_links.variables([service("dns", ports)])
    assert found["DNS_SERVICE_PORT"] == found["DNS_SERVICE_PORT_DNS_UDP"] == "53"
    assert found["DNS_SERVICE_PORT_METRICS"] == "9153"
    assert found["DNS_PORT"] == found["DNS_PORT_53_UDP"] == "udp://10.96.0.11:53"
    assert found["DNS_PORT_9153_TCP_PROTO"] == "tcp"


@pytest.mark.parametrize("address", ["None", ""])
def test_a_service_without_an_address_has_no_variables(address):
    assert service_links.variables([service("headless", [{"port": 80}], address)]) == {}


def test_containers_find_the_api_server_and_services_of_their_own_namespace_only_unless_they_want_none(tmp_path):
    cluster = Cluster()
    for namespace, name in (("default", "web"), ("kube-system", "other")):
        body = {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}}
        cluster.must("POST", f"/api/v1/namespaces/{namespace}/services", body)
    node = SimpleNamespace(
        client=DirectClient(cluster.api, "kubelet"),
        root=tmp_path,
        folders=tmp_path,
        rootless=False,
        plugins=SimpleNamespace(seen={}),
        runtime=None,
    )

    def found(**spec):
        pod = {"metadata": {"name": "p", "namespace": "default", "uid": "u"}, "spec": spec}
        services = asyncio.run(Sandbox(node, pod, {}).services())
        return {key for key in service_links.variables([*services, service_links.API]) if key.endswith("_HOST")}

    assert found() == found(enableServiceLinks=True) == {"WEB_SERVICE_HOST", "KUBERNETES_SERVICE_HOST"}
    assert found(enableServiceLinks=False) == {"KUBERNETES_SERVICE_HOST"}
