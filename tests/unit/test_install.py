"""Installations: what a profile and an overlay come to, and that nothing in them is ignored in silence."""

import pytest

from lateen.install import manifests, profiles


def overlay(spec):
    return {"apiVersion": profiles.API_VERSION, "kind": "IstioOperator", "spec": spec}


def objects(operator):
    return {(o["kind"], o["metadata"]["name"]): o for part in manifests.render(operator) for o in part.objects}


def test_profiles_differ_in_their_gateways():
    assert ("Deployment", "istio-egressgateway") in objects(profiles.resolve("demo", [], []))
    default = objects(profiles.resolve("default", [], []))
    assert ("Deployment", "istio-egressgateway") not in default
    assert ("Deployment", "istio-ingressgateway") in default
    assert not any(kind == "Deployment" for kind, _ in objects(profiles.resolve("empty", [], [])))


def test_an_overlay_reaches_the_objects():
    gateway = {
        "name": "istio-ingressgateway",
        "k8s": {
            "resources": {"requests": {"cpu": "7m"}},
            "service": {"type": "NodePort", "ports": [{"port": 1, "targetPort": 2, "name": "x"}]},
        },
    }
    found = objects(profiles.resolve("default", [overlay({"components": {"ingressGateways": [gateway]}})], []))
    container = found[("Deployment", "istio-ingressgateway")]["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"] == {"requests": {"cpu": "7m"}}
    service = found[("Service", "istio-ingressgateway")]["spec"]
    assert (service["type"], [p["port"] for p in service["ports"]]) == ("NodePort", [1])


def test_istiod_reads_secrets_only_where_gateways_are():
    gateway = {"name": "edge", "namespace": "edge", "enabled": True}
    parts = manifests.render(profiles.resolve("demo", [overlay({"components": {"ingressGateways": [gateway]}})], []))
    found = [o for part in parts for o in part.objects]
    readers = [
        (o["kind"], o["metadata"].get("namespace"))
        for o in found
        for rule in o.get("rules", [])
        if "secrets" in rule["resources"] and "list" in rule["verbs"]
    ]
    assert sorted(readers) == [("Role", "edge"), ("Role", "istio-system")]
    assert ("edge", "edge") in {d for part in parts for d in part.deployments}


@pytest.mark.parametrize(
    ("spec", "ignored"),
    [
        ({"hub": "example.com"}, ["hub"]),
        (
            {"components": {"ingressGateways": [{"name": "a", "k8s": {"hpaSpec": {"maxReplicas": 3}}}]}},
            ["components.ingressGateways[].k8s.hpaSpec.maxReplicas"],
        ),
        (
            {"components": {"pilot": {"k8s": {"env": [{"name": "PILOT_X", "value": "1"}]}}}},
            ["components.pilot.k8s.env[PILOT_X]"],
        ),
        ({"values": {"pilot": {"autoscaleEnabled": False}}}, []),
        ({"values": {"pilot": {"autoscaleEnabled": True}}}, ["values.pilot.autoscaleEnabled"]),
        ({"meshConfig": {"accessLogFile": "/dev/stdout", "enableTracing": True}}, ["meshConfig.enableTracing"]),
    ],
)
def test_what_has_no_effect_is_named(spec, ignored):
    assert profiles.resolve("default", [overlay(spec)], []).ignored == ignored


def test_mistakes_are_sentences():
    with pytest.raises(profiles.ProfileError, match='no profile "dmo"'):
        profiles.resolve("default", [], ["profile=dmo"])
    with pytest.raises(profiles.ProfileError, match="path=value"):
        profiles.resolve("default", [], ["profile"])
    with pytest.raises(profiles.ProfileError, match="IstioOperator"):
        profiles.resolve("default", [{"kind": "Pod"}], [])
