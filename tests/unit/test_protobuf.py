"""Protobuf bodies from any client: decoded or rejected, never a crash."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lateen.cluster.apiserver.built_in import BUILT_IN
from lateen.cluster.apiserver.protobuf import MAGIC, Unsupported, decode
from lateen.kit.protowire import message


def unknown(kind, raw, version=b"v1"):
    return MAGIC + message(1, message(1, version) + message(2, kind)) + message(2, raw)


def test_a_config_map_is_read():
    entry = message(1, b"a") + message(2, b"b")
    raw = message(1, message(1, b"name") + message(3, b"")) + message(2, entry)
    assert decode(unknown(b"ConfigMap", raw)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "name"},
        "data": {"a": "b"},
    }


def test_another_kind_is_refused_with_what_to_do():
    with pytest.raises(Unsupported, match="kubectl apply -f"):
        decode(unknown(b"Flunder", b""))


def text(number, value):
    return message(number, value.encode())


def test_a_pod_is_read_as_go_would_write_it():
    """Zeroes that Go always writes are left out, those behind a pointer stay; inlined messages are in their parents."""
    empty_dir = text(1, "tmp") + message(2, message(2, b""))
    secret = text(1, "s") + message(2, message(6, text(1, "secret-name")))
    limit = text(1, "memory") + message(2, text(1, "64Mi"))
    probe = message(1, message(2, text(1, "/") + message(2, b"\x08\x01\x10\x00" + text(3, "http")))) + b"\x10\x00"
    port = text(1, "http") + b"\x10\x00\x18\x90\x3f" + text(4, "TCP")
    container = text(1, "c") + text(2, "i") + message(6, port) + message(8, message(1, limit)) + message(11, probe)
    grace = b"\x20\x00"
    spec = message(1, empty_dir) + message(1, secret) + message(2, container) + grace
    found = decode(unknown(b"Pod", message(1, text(1, "p") + message(8, b"\x08\x3c\x10\x00")) + message(2, spec)))
    assert found["metadata"] == {"name": "p", "creationTimestamp": "1970-01-01T00:01:00Z"}
    assert found["spec"] == {
        "terminationGracePeriodSeconds": 0,
        "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "secret-name"}}],
        "containers": [
            {
                "name": "c",
                "image": "i",
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "resources": {"limits": {"memory": "64Mi"}},
                "readinessProbe": {"httpGet": {"path": "/", "port": "http"}},
            }
        ],
    }


def test_a_lease_keeps_its_microseconds_and_negative_numbers_their_sign():
    renewed = message(4, b"\x08\x01\x10\xb8\x8e\x16")
    minus = b"\x10" + b"\xff" * 9 + b"\x01"
    found = decode(unknown(b"Lease", message(2, message(1, b"me") + minus + renewed), b"coordination.k8s.io/v1"))
    assert found["spec"] == {
        "holderIdentity": "me",
        "leaseDurationSeconds": -1,
        "renewTime": "1970-01-01T00:00:01.000362Z",
    }


def test_every_kind_that_is_stored_can_be_sent_as_protobuf():
    for r in BUILT_IN:
        if "create" not in r.verbs:
            continue
        assert decode(unknown(r.kind.encode(), b"", r.api_version().encode())) == {
            "apiVersion": r.api_version(),
            "kind": r.kind,
        }


@given(st.binary(max_size=200))
def test_junk_is_refused(junk):
    crd = (b"CustomResourceDefinition", junk, b"apiextensions.k8s.io/v1")
    for raw in (junk, MAGIC + junk, unknown(b"ConfigMap", junk), unknown(b"Pod", junk), unknown(*crd)):
        try:
            decode(raw)
        except Unsupported:
            continue


def test_a_number_where_a_map_is_expected_costs_nothing():
    assert decode(unknown(b"ConfigMap", b"\x10\xff\xff\xff\xff\xff\xff\xff\x7f"))["kind"] == "ConfigMap"


def test_a_binding_is_read():
    subject = message(1, b"ServiceAccount") + message(2, b"") + message(3, b"istiod") + message(4, b"istio-system")
    raw = message(1, message(1, b"b")) + message(2, subject) + message(3, message(2, b"Role") + message(3, b"r"))
    found = decode(unknown(b"RoleBinding", raw, b"rbac.authorization.k8s.io/v1"))
    assert found["subjects"] == [{"kind": "ServiceAccount", "name": "istiod", "namespace": "istio-system"}]
    assert found["roleRef"] == {"kind": "Role", "name": "r"}
