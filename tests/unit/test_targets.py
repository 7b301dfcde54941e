"""What the analysis says of the targets of policies."""

import pytest

from lateen.analysis import Snapshot, Source, analyze

SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"}, "spec": {}}


def found(kind, group, **spec):
    obj = {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": "p", "namespace": "shop"}, "spec": spec}
    messages = analyze(Snapshot([Source(SERVICE), Source(obj)]))
    return [(m.text, m.path) for m in messages if m.kind.code == "LAT0131"]


@pytest.mark.parametrize(
    ("kind", "group"),
    [
        ("Telemetry", "telemetry.istio.io"),
        ("AuthorizationPolicy", "security.istio.io"),
        ("RequestAuthentication", "security.istio.io"),
    ],
)
def test_a_policy_whose_target_is_not_there_is_told_so(kind, group):
    refs = [
        {"group": "", "kind": "Service", "name": "web"},
        {"group": "", "kind": "Service", "name": "wbe"},
        {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "front"},
    ]
    assert sorted(found(kind, group, targetRefs=refs), key=lambda one: one[1]) == [
        ("The target has no effect: there is no Service wbe in namespace shop.", ("spec", "targetRefs", 1)),
        ("The target has no effect: there is no Gateway front in namespace shop.", ("spec", "targetRefs", 2)),
    ]
    assert found(kind, group, targetRef=refs[0]) == []
    assert [path for _, path in found(kind, group, targetRef=refs[2])] == [("spec", "targetRef")]


def test_classes_and_policies_without_targets_are_left_alone():
    class_ = {"group": "gateway.networking.k8s.io", "kind": "GatewayClass", "name": "istio"}
    assert found("Telemetry", "telemetry.istio.io", targetRefs=[class_]) == []
    assert found("Telemetry", "telemetry.istio.io") == []


def test_a_service_of_another_cluster_is_a_target():
    elsewhere = {**SERVICE, "metadata": {"name": "far", "namespace": "shop"}}
    spec = {"targetRefs": [{"group": "", "kind": "Service", "name": "far"}]}
    meta = {"name": "p", "namespace": "shop"}
    policy = {"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "metadata": meta, "spec": spec}
    messages = analyze(Snapshot([Source(SERVICE), Source(elsewhere, cluster="east"), Source(policy)]))
    assert "LAT0131" not in [m.kind.code for m in messages]
