"""What injected pods have in common with those of Istio, where a user meets it in kube-inject and the webhook alike."""

import pytest

from lateen.inject import manifest, pods


def deployment(annotations=None, labels=None, **spec):
    meta = {"annotations": annotations or {}, "labels": labels or {}}
    template = {"metadata": meta, "spec": {"containers": [{"name": "app"}], **spec}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {"template": template}}


def injected(obj, values=None, told=None, **more):
    settings = pods.settings(values or {}, {}, **more)
    return manifest.into(obj, "shop", settings, [] if told is None else told)["spec"]["template"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0"),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "*"),
        ("traffic.sidecar.istio.io/includeInboundPorts", "http"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "*"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "80;90"),
        ("status.sidecar.istio.io/port", "many"),
        ("sidecar.istio.io/interceptionMode", "REDIRCT"),
        ("prometheus.istio.io/merge-metrics", "perhaps"),
        ("readiness.status.sidecar.istio.io/periodSeconds", "-1"),
    ],
)
def test_kube_inject_refuses_a_bad_annotation_as_the_webhook_does(name, value):
    with pytest.raises(ValueError, match=f"annotation {name}"):
        injected(deployment({name: value}))


def test_kube_inject_tells_which_annotations_have_no_effect():
    told = []
    injected(deployment({"sidecar.istio.io/statsCompression": "gzip"}), told=told)
    assert [t for t in told if "statsCompression" in t]


@pytest.mark.parametrize(("label", "network"), [({}, "east"), ({"topology.istio.io/network": "west"}, "west")])
def test_an_injected_pod_is_labelled_with_its_network(label, network):
    found = injected(deployment(labels=label), {"global": {"network": "east"}})
    assert found["metadata"]["labels"]["topology.istio.io/network"] == network
    assert "topology.istio.io/network" not in injected(deployment())["metadata"]["labels"]


@pytest.mark.parametrize("names", ["vault,fetch", "vault, fetch", " vault ,fetch "])
def test_init_containers_may_be_put_before_a_native_proxy(names):
    mine = [{"name": name} for name in ("migrate", "vault", "fetch")]
    before = {"sidecar.istio.io/init-containers-before-proxy": names}
    found = injected(deployment(before, initContainers=mine), native=True)["spec"]["initContainers"]
    assert [c["name"] for c in found] == ["istio-init", "vault", "fetch", "istio-proxy", "migrate"]
