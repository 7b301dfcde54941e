"""Kubernetes' objects as the mesh reads them."""

import base64

import pytest

from lateen.api import decoding, kinds, reading
from lateen.api import objects as o


def pod(labels=None, phase_ready="True", **meta):
    return {
        "metadata": {"name": "reviews-v1-abc-xyz", "namespace": "shop", "uid": "u", "labels": labels or {}, **meta},
        "spec": {
            "nodeName": "n1",
            "containers": [{"ports": [{"containerPort": 9080, "name": "http"}]}, {}],
        },
        "status": {"podIP": "10.0.0.5", "conditions": [{"type": "Ready", "status": phase_ready}]},
    }


def test_a_ready_pod_is_an_endpoint_until_it_is_deleted():
    assert decoding.pod(pod()).ready
    assert not decoding.pod(pod(phase_ready="False")).ready
    assert not decoding.pod(pod(deletionTimestamp="2026-01-01T00:00:00Z")).ready


def test_a_pod_has_the_ports_of_all_its_containers_and_the_default_account():
    found = decoding.pod(pod())
    assert found.ports == (("http", 9080, "TCP"),)
    assert (found.service_account, found.address, found.node) == ("default", "10.0.0.5", "n1")


@pytest.mark.parametrize(
    ("labels", "where"),
    [
        ({"topology.istio.io/locality": "eu.west.rack-1"}, "eu/west/rack-1"),
        ({"istio-locality": "eu/west"}, "eu/west"),
        ({}, ""),
    ],
)
def test_a_pods_label_overrides_its_locality(labels, where):
    assert decoding.pod(pod(labels)).locality == where


def test_a_nodes_locality_comes_from_its_labels():
    labels = {"topology.kubernetes.io/region": "eu", "topology.kubernetes.io/zone": "eu-1"}
    assert decoding.node_locality({"metadata": {"labels": labels}}) == "eu/eu-1"
    assert decoding.node_locality({"metadata": {"labels": {**labels, "topology.istio.io/subzone": "r"}}}) == "eu/eu-1/r"
    assert decoding.node_locality({"metadata": {}}) == ""


def test_the_workload_of_a_pod_is_the_deployment_behind_its_replica_set():
    owners = [{"kind": "ReplicaSet", "name": "reviews-v1-abc", "controller": True}]
    assert decoding.owner(pod({"pod-template-hash": "abc"}, ownerReferences=owners)) == "reviews-v1"
    assert decoding.owner(pod(ownerReferences=[{"kind": "Job", "name": "once", "controller": True}])) == "once"
    assert decoding.owner(pod()) == "reviews-v1-abc-xyz"


def service(**spec):
    ports = [{"port": 80, "name": "http", "targetPort": "web"}, {"port": 81, "appProtocol": "http2"}]
    return {
        "metadata": {"name": "s", "namespace": "shop", "annotations": {"networking.istio.io/exportTo": "., b"}},
        "spec": {"ports": ports, **spec},
    }


def test_a_service_has_its_ports_addresses_and_audience():
    addresses = {"clusterIP": "10.9.0.1", "clusterIPs": ["10.9.0.1", "fd00::1"]}
    found = decoding.service(service(**addresses, selector={"a": "b"}), "cluster.local")
    assert found.ports == (
        o.ServicePort("http", 80, "web", "TCP"),
        o.ServicePort("", 81, 81, "TCP", "http2"),
    )
    assert found.all_addresses == ("10.9.0.1", "fd00::1")
    assert found.export_to == (".", "b")
    assert found.host == "s.shop.svc.cluster.local"
    assert not found.headless


def test_a_service_without_an_address_is_headless_and_an_external_name_is_not():
    assert decoding.service(service(clusterIP="None"), "cluster.local").headless
    external = decoding.service(service(type="ExternalName", externalName="example.com"), "cluster.local")
    assert (external.external_name, external.headless) == ("example.com", False)
    assert decoding.service(service(externalName="left-over.example.com"), "cluster.local").external_name == ""


def test_endpoints_that_are_not_ready_are_left_out():
    slice_ = {
        "ports": [{"name": "http", "port": 9080}, {"name": "none"}],
        "endpoints": [
            {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "p"}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": False}},
            {"addresses": ["10.0.0.3"], "targetRef": {"kind": "Node", "name": "n"}},
        ],
    }
    assert decoding.endpoints(slice_) == {
        "http": (o.Endpoint("10.0.0.1", 9080, "p"), o.Endpoint("10.0.0.3", 9080, "")),
        "none": (),
    }


def test_only_addresses_are_endpoints():
    ports = [{"name": "http", "port": 80}]
    names = {"addressType": "FQDN", "ports": ports, "endpoints": [{"addresses": ["a.example.com"]}]}
    assert decoding.endpoints(names) == {}
    mixed = {"addressType": "IPv6", "ports": ports, "endpoints": [{"addresses": ["a.example.com", "fd00::1"]}]}
    assert decoding.endpoints(mixed) == {"http": (o.Endpoint("fd00::1", 80, ""),)}


def secret(**data):
    encoded = {k.replace("_", "."): base64.b64encode(v.encode()).decode() for k, v in data.items()}
    return {"metadata": {"name": "c", "namespace": "shop"}, "data": encoded}


def test_a_secret_is_a_credential_in_either_spelling():
    wanted = o.Credential("shop", "c", "chain", "key")
    assert decoding.credential(secret(tls_crt="chain", tls_key="key")) == wanted
    assert decoding.credential(secret(cert="chain", key="key")) == wanted
    assert decoding.credential(secret(cacert="ca")) == o.Credential("shop", "c", ca="ca")
    assert decoding.credential(secret(tls_crt="chain")) is None
    assert decoding.credential({**secret(password="x"), "type": "istio.io/ca-root"}) is None
    assert decoding.credential(secret(password="x")) == o.Credential("shop", "c", entries=(("password", "x"),))


@pytest.mark.parametrize(("written", "dry"), [("true", True), ("T", True), ("1", True), ("no", False), (None, False)])
def test_a_policy_can_be_a_dry_run(written, dry):
    meta = {"name": "p", "namespace": "shop", "uid": "u", "generation": 3, "creationTimestamp": "2026"}
    if written is not None:
        meta["annotations"] = {"istio.io/dry-run": written}
    found = decoding.resource(kinds.AUTHORIZATION_POLICY.ref("shop", "p"), {"metadata": meta}, None)
    assert (found.dry_run, found.version) == (dry, "u/3")


def test_a_workload_entry_whose_probe_fails_is_not_healthy():
    status = {"conditions": [{"type": "Healthy", "status": "False"}]}
    obj = {"metadata": {"name": "w", "namespace": "shop"}, "status": status}
    assert not decoding.resource(kinds.WORKLOAD_ENTRY.ref("shop", "w"), obj, None).healthy


@pytest.mark.parametrize(
    ("transport", "name", "declared"),
    [("UDP", "http", "udp"), ("TCP", "udp-dns", "udp"), ("TCP", "udpx", ""), ("SCTP", "http", "http")],
)
def test_a_port_is_udp_by_its_transport_or_by_its_name(transport, name, declared):
    assert reading.declared_protocol(80, transport, name, "") == declared
