"""What the analysis says of the targets of policies."""

import pytest

from lateen.analysis import Snapshot, Source, analyze

PLACE = {"name": "web", "namespace": "shop"}
SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": PLACE, "spec": {"selector": {"app": "web"}}}


def found(kind, group, *others, **spec):
    obj = {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": "p", "namespace": "shop"}, "spec": spec}
    messages = analyze(Snapshot([Source(obj), *map(Source, others or (SERVICE,))]))
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


@pytest.mark.parametrize(
    ("kind", "group", "version", "spec", "field"),
    [
        ("Service", "", "v1", {"ports": [{"port": 80}]}, "selector"),
        ("Service", "", "v1", {"type": "ExternalName", "externalName": "a.test"}, "selector"),
        ("ServiceEntry", "networking.istio.io", "networking.istio.io/v1", {"hosts": ["a.test"]}, "workloadSelector"),
    ],
)
def test_a_policy_for_a_target_without_workloads_is_enforced_nowhere(kind, group, version, spec, field):
    target = {"apiVersion": version, "kind": kind, "metadata": PLACE, "spec": spec}
    refs = [{"group": group, "kind": kind, "name": "web"}]
    ((text, path),) = found("AuthorizationPolicy", "security.istio.io", target, targetRefs=refs)
    assert f"the {kind} web has no {field}" in text
    assert path == ("spec", "targetRefs", 0)
    chosen = {**target, "spec": {**spec, field: {"app": "web"}}}
    assert found("AuthorizationPolicy", "security.istio.io", chosen, targetRefs=refs) == []


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


def pod(name, *containers):
    meta = {"name": name, "namespace": "shop", "labels": {"app": "web"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"containers": [{"name": c} for c in containers]},
    }


@pytest.mark.parametrize(
    ("pods", "says"),
    [
        ([], None),
        ([pod("a", "app", "istio-proxy")], None),
        ([pod("a", "app", "istio-proxy"), pod("b", "app")], "Not every pod of the Service web has a proxy"),
        ([pod("a", "app"), pod("b", "app")], "No pod of the Service web has a proxy"),
        ([pod("a", "app") | {"status": {"phase": "Succeeded"}}], None),
    ],
)
@pytest.mark.parametrize(
    ("kind", "version"),
    [
        ("SecurityPolicy", "gateway.envoyproxy.io/v1alpha1"),
        ("BackendTrafficPolicy", "gateway.envoyproxy.io/v1alpha1"),
        ("AuthorizationPolicy", "security.istio.io/v1"),
    ],
)
def test_a_policy_of_a_service_whose_pods_have_no_proxy_is_told_so(kind, version, pods, says):
    refs = [{"group": "", "kind": "Service", "name": "web"}]
    meta = {"name": "p", "namespace": "shop"}
    policy = {"apiVersion": version, "kind": kind, "metadata": meta, "spec": {"targetRefs": refs}}
    messages = analyze(Snapshot([Source(SERVICE), Source(policy), *map(Source, pods)]), ["policy.ProxyAnalyzer"])
    assert [m.kind.code for m in messages] == (["LAT0133"] if says else [])
    assert all(says in m.text for m in messages)
