"""Protobuf bodies from anybody: decoded or refused, never a crash."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lateen.cluster.apiserver.protobuf import MAGIC, Unsupported, decode
from lateen.kit.protowire import message


def unknown(kind, raw):
    return MAGIC + message(1, message(1, b"v1") + message(2, kind)) + message(2, raw)


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
        decode(unknown(b"Deployment", b""))


@given(st.binary(max_size=200))
def test_junk_is_refused(junk):
    for raw in (junk, MAGIC + junk, unknown(b"ConfigMap", junk)):
        try:
            decode(raw)
        except Unsupported:
            continue


def test_a_number_where_a_map_is_expected_costs_nothing():
    assert decode(unknown(b"ConfigMap", b"\x10\xff\xff\xff\xff\xff\xff\xff\x7f"))["kind"] == "ConfigMap"


def test_a_binding_is_read():
    subject = message(1, b"ServiceAccount") + message(2, b"") + message(3, b"istiod") + message(4, b"istio-system")
    raw = message(1, message(1, b"b")) + message(2, subject) + message(3, message(2, b"Role") + message(3, b"r"))
    found = decode(unknown(b"RoleBinding", raw))
    assert found["subjects"] == [{"kind": "ServiceAccount", "name": "istiod", "namespace": "istio-system"}]
    assert found["roleRef"] == {"kind": "Role", "name": "r"}
