"""Replicas, autoscalers, budgets and rollouts that Kubernetes would refuse in the middle of an installation are refused
before it, for every component; what is accepted, the API server accepts, too."""

import pytest
from apiserver import Cluster

from lateen.install import manifests
from lateen.install.operator import OperatorError, resolve, specification
from lateen.kit import jsons
from lateen.kube.apply import kind_of

COMPONENTS = ("pilot", "gateways.istio-ingressgateway", "gateways.istio-egressgateway")
SCALED = {"autoscaleEnabled": True}


def of_values(name, given):
    for step in reversed(name.split(".")):
        given = {step: given}
    return {"values": given}


def of_k8s(name, given):
    if name in ("pilot", "cni"):
        return {"components": {name: {"enabled": True, "k8s": given}}}
    kind = "ingressGateways" if "ingress" in name else "egressGateways"
    return {"components": {kind: [{"name": name.partition(".")[2], "enabled": True, "k8s": given}]}}


@pytest.mark.parametrize("name", COMPONENTS)
@pytest.mark.parametrize(
    ("given", "says"),
    [
        (SCALED | {"autoscaleMin": 4, "autoscaleMax": 2}, r"autoscaleMin: 4 is more than autoscaleMax \(2\)"),
        (SCALED | {"autoscaleMin": 6}, r"autoscaleMin: 6 is more than autoscaleMax \(5, its default\)"),
        (SCALED | {"autoscaleMin": 0}, "autoscaleMin: expected a whole number of at least 1"),
        (SCALED | {"autoscaleMax": 0}, "autoscaleMax: expected a whole number of at least 1"),
        ({"replicaCount": -1}, "replicaCount: "),
        ({"replicaCount": 2**31}, "replicaCount: expected a whole number"),
        ({"cpu": {"targetAverageUtilization": "x"}}, "cpu.targetAverageUtilization: expected a whole number"),
        ({"cpu": {"targetAverageUtilization": 0}}, "cpu.targetAverageUtilization: expected a whole number"),
        ({"cpu": "x"}, "cpu: expected an object"),
        ({"rollingMaxSurge": {}}, "rollingMaxSurge: expected a whole number"),
        ({"rollingMaxUnavailable": "1"}, "rollingMaxUnavailable: expected a number or a percentage"),
        ({"rollingMaxSurge": 0, "rollingMaxUnavailable": "0%"}, "cannot both be 0"),
        ({"affinity": "x"}, "affinity: expected a map"),
        ({"tolerations": ["x"]}, r"tolerations\[0\]: expected a map"),
        ({"resources": {"limits": {"cpu": "lots"}}}, "resources.limits.cpu"),
        ({"podAnnotations": {"a": 1}}, r"podAnnotations\[a\]: expected text"),
    ],
)
def test_values_that_kubernetes_would_refuse(name, given, says):
    with pytest.raises(OperatorError, match=says) as e:
        resolve("demo", [of_values(name, given)], [])
    assert str(e.value).startswith(f"spec.values.{name}")


@pytest.mark.parametrize("name", COMPONENTS)
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"hpaSpec": {"minReplicas": 6}}, r"minReplicas: 6 is more than maxReplicas \(5, its default\)"),
        ({"hpaSpec": {"maxReplicas": "x"}}, "hpaSpec.maxReplicas: expected a whole number"),
        ({"podDisruptionBudget": {"minAvailable": 1, "maxUnavailable": 1}}, "exclude each other"),
        ({"podDisruptionBudget": {"minAvailable": {}}}, "podDisruptionBudget.minAvailable"),
        ({"strategy": {"type": "Sudden"}}, '"Sudden" is not RollingUpdate or Recreate'),
        ({"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}, "cannot be combined"),
        ({"strategy": {"rollingUpdate": "x"}}, "rollingUpdate: expected a map"),
        ({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}, "cannot both be 0"),
        ({"imagePullPolicy": "Sometimes"}, '"Sometimes" is not Always'),
        ({"readinessProbe": "x"}, "readinessProbe: expected a map"),
        ({"resources": {"requests": {"memory": "lots"}}}, "resources.requests.memory"),
    ],
)
def test_options_of_components_that_kubernetes_would_refuse(name, given, says):
    with pytest.raises(OperatorError, match=says) as e:
        resolve("demo", [of_k8s(name, given)], [])
    assert str(e.value).startswith("spec.components.")


def test_the_cni_plugin_is_checked_too():
    with pytest.raises(OperatorError, match=r"spec\.components\.cni\.k8s\.resources\.limits\.cpu"):
        resolve("default", [of_k8s("cni", {"resources": {"limits": {"cpu": "lots"}}})], [])


def test_a_file_may_have_a_minimum_whose_maximum_is_set_elsewhere():
    spec = of_values("pilot", SCALED | {"autoscaleMin": 6})
    document = {"apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator", "spec": spec}
    assert resolve("default", [specification(document)], ["values.pilot.autoscaleMax=9"])


@pytest.mark.parametrize("name", COMPONENTS)
@pytest.mark.parametrize("place", [of_values, of_k8s], ids=["values", "k8s"])
def test_numbers_may_be_text_and_are_numbers_in_the_objects(name, place):
    workload = "istiod" if name == "pilot" else name.partition(".")[2]
    overlay = place(name, {"replicaCount": "2"})
    before = jsons.copy(overlay)
    found = resolve("demo", [overlay], [])
    made = {(o["kind"], o["metadata"]["name"]): o for part in manifests.render(found) for o in part.objects}
    assert made["Deployment", workload]["spec"]["replicas"] == 2
    assert found.overlays == [before]


def test_what_is_set_on_the_command_line_is_not_written_into_the_files():
    overlay = {"values": {"pilot": {"resources": {}}}}
    assert resolve("minimal", [overlay], ["values.pilot.replicaCount=2"]).overlays == [
        {"values": {"pilot": {"resources": {}}}}
    ]


def test_an_annotation_that_is_set_is_text():
    made = resolve("minimal", [], ["values.pilot.podAnnotations.a=1", "components.pilot.k8s.podAnnotations.b=true"])
    assert made.spec["values"]["pilot"]["podAnnotations"] == {"a": "1"}
    assert made.spec["components"]["pilot"]["k8s"]["podAnnotations"] == {"b": "true"}


@pytest.mark.parametrize("setting", ["values.pilot=null", "values.pilot.replicaCount=1", "values=null"])
def test_pods_are_injected_for_the_cni_plugin(setting):
    found = resolve("default", [], ["components.cni.enabled=true", setting])
    assert found.spec["values"]["pilot"]["cni"]["enabled"]


@pytest.mark.parametrize("setting", ["values.pilot=x", "values.pilot.cni=x"])
def test_values_without_a_place_for_the_cni_plugin_are_refused(setting):
    with pytest.raises(OperatorError, match=r"^spec\.values\.pilot"):
        resolve("default", [], ["components.cni.enabled=true", setting])


ACCEPTED = [
    of_values("pilot", SCALED | {"autoscaleMin": "2", "cpu": {"targetAverageUtilization": "60"}}),
    of_values("pilot", SCALED | {"autoscaleMin": 5, "autoscaleBehavior": {"scaleDown": {"selectPolicy": "Min"}}}),
    of_values("pilot", {"rollingMaxSurge": 0, "rollingMaxUnavailable": 1, "replicaCount": 0}),
    of_values("pilot", {"rollingMaxSurge": "50%", "rollingMaxUnavailable": 0}),
    of_k8s("pilot", {"strategy": {"type": "Recreate"}, "podDisruptionBudget": {"maxUnavailable": "10%"}}),
    of_k8s("pilot", {"hpaSpec": {"maxReplicas": 9, "minReplicas": 9}, "imagePullPolicy": "Never"}),
    of_k8s("pilot", {"resources": {"limits": {"cpu": 2, "memory": "1Gi"}}, "podAnnotations": {"a": "1"}}),
]


@pytest.fixture(scope="module")
def cluster():
    found = Cluster()
    found.must("POST", "/api/v1/namespaces", {"metadata": {"name": "istio-system"}})
    return found


@pytest.mark.parametrize("overlay", ACCEPTED)
def test_what_is_accepted_here_the_api_server_accepts(cluster, overlay):
    wanted = ("Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget")
    made = [o for part in manifests.render(resolve("minimal", [overlay], [])) for o in part.objects]
    for obj in (o for o in made if o["kind"] in wanted):
        kind = kind_of(obj)
        where = f"/apis/{kind.api_version}/namespaces/istio-system/{kind.plural}?dryRun=All"
        code, answer = cluster.ask("POST", where, obj)
        assert code == 201, answer


def test_an_update_of_the_plugin_that_kubernetes_would_refuse():
    with pytest.raises(OperatorError, match=r'spec\.values\.cni\.updateStrategy\.type: the text "Sudden" is not Roll'):
        resolve("demo", [of_values("cni", {"updateStrategy": {"type": "Sudden"}})], [])
