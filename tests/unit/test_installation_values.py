"""Helm values of an installation, its gateways, and kube-inject's input: what cannot be is a sentence with its path."""

import pytest
from click.testing import CliRunner

from lateen.analysis import Snapshot, Source, analyze
from lateen.api import kinds, values
from lateen.cli.kube_inject import kube_inject
from lateen.control.accepted import Accepted
from lateen.control.injection import Injector
from lateen.inject import pods
from lateen.inject import settings as injection
from lateen.inject.notes import notes
from lateen.install.operator import OperatorError, resolve
from lateen.kit import jsons, yamldoc
from lateen.wire.revision import Revision

INJECTOR = "sidecarInjectorWebhook"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("global=x", "expected a map"),
        ("global.proxy=x", "expected a map"),
        ("global.proxy.resources=x", "expected a map"),
        ("global.proxy.resources.limits.cpu=lots", "not a quantity"),
        ("global.proxy.statusPort=99999", "not a port"),
        ("global.proxy.logLevel=loud", '"loud" is not'),
        ("global.proxy.componentLogLevel=foo", "component:level"),
        ("global.proxy.includeIPRanges=abc", "not a range"),
        ("global.proxy.excludeInboundPorts=abc", "not a port"),
        ("global.proxy.autoInject=maybe", "expected enabled or disabled"),
        ("global.proxy.privileged=perhaps", "expected true or false"),
        ("global.proxy.startupProbe.failureThreshold=abc", "expected a number"),
        ("global.proxy.readinessPeriodSeconds=abc", "not a number"),
        ("global.imagePullPolicy=Sometimes", "Always"),
        ("global.imagePullSecrets=abc", "expected a list"),
        ("global.logging.level=foo", "scope:level"),
        (f"{INJECTOR}.neverInjectSelector=x", "expected a list"),
        (f"{INJECTOR}.neverInjectSelector[0].matchLabels=x", "expected a map"),
        (f"{INJECTOR}.alwaysInjectSelector[0].matchExpressions[0].key=x", "a key and an operator"),
        (f"{INJECTOR}.templates=x", "expected a map"),
        (f"{INJECTOR}.defaultTemplates=gateway", "expected a list"),
        (f"{INJECTOR}.aliases.a=b", "expected a list"),
        (f"{INJECTOR}.rewriteAppHTTPProbe=perhaps", "expected true or false"),
        ("pilot.env=x", "expected a map"),
        ("pilot.cni.enabled=perhaps", "expected true or false"),
    ],
)
def test_a_wrong_value_is_refused_at_install_by_its_path(setting, says):
    path = setting.partition("=")[0]
    with pytest.raises(OperatorError, match=says) as e:
        resolve("default", [], [f"values.{setting}"])
    assert str(e.value).startswith(f"spec.values.{path}".removesuffix(".key"))


def test_what_istios_charts_set_is_right():
    assert values.problems(injection.DEFAULTS) == []
    assert values.problems({"global": {"proxy": None}, "pilot": {"env": {"A": True, "B": 3}}, "other": 3}) == []


def test_every_value_that_pods_are_made_of_is_checked():
    free = {"global.meshNetworks"}
    shapes = {rule.replace("[]", "").replace("{}", "") for rule in values.RULES}
    names = [n.removesuffix(".**").replace("[]", "") for n in injection.EFFECTIVE]
    assert [n for n in names if n not in shapes and n not in free] == []


def test_null_removes_a_default():
    spec = resolve("default", [], ["values.global.proxy.resources=null"]).spec
    assert spec["values"]["global"]["proxy"]["resources"] is None
    settings = [f"{path}=null" for path in ("hub", "values.pilot.hub", "values.gateways.istio-ingressgateway.type")]
    assert resolve("default", [], settings).spec["values"]["pilot"]["hub"] is None, "and not the text"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "Bad_Name"}, r'ingressGateways\[name:Bad_Name\].name: "Bad_Name" is not the name of a Service'),
        ({"k8s": {"service": {"ports": [{"port": 99999}]}}}, "99999 is not a port"),
        ({"k8s": {"service": {"ports": [{"port": 80}, {"port": 81}]}}}, "each needs a name"),
        ({"k8s": {"service": {"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}}}, "the number 80/TCP"),
        ({"k8s": {"service": {"type": "Foo"}}}, '"Foo" is not ClusterIP'),
        ({"k8s": {"resources": {"limits": {"cpu": "lots"}}}}, "limits.cpu"),
        ({"namespace": "Bad_Name"}, "not the name of a namespace"),
    ],
)
def test_a_gateway_that_kubernetes_would_refuse_is_refused_before_anything_is_installed(settings, says):
    gateway = {"name": "edge", "enabled": True, **settings}
    with pytest.raises(OperatorError, match=says):
        resolve("minimal", [{"components": {"ingressGateways": [gateway]}}], [])


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("values.gateways.istio-ingressgateway.type=Foo", r"spec\.values\.gateways\.istio-ingressgateway\.type: "),
        ("values.gateways.istio-egressgateway.ports[0].port=99999", r"egressgateway\.ports\[0\]\.port: 99999 is not a"),
        ("values.gateways.istio-ingressgateway.externalTrafficPolicy=local", '"local" is not Cluster or Local'),
        ("values.pilot.ipFamilies[0]=IPv5", r'spec\.values\.pilot\.ipFamilies: "IPv5" is not IPv4 or IPv6'),
        (
            "components.pilot.k8s.service.ports[0].port=7777",
            r"pilot.*\.ports\[0\]: of several ports, each needs a name",
        ),
        ("components.cni.namespace=Bad_Name", r'spec\.components\.cni\.namespace: "Bad_Name" is not the name of a'),
    ],
)
def test_what_kubernetes_would_refuse_of_services_and_namespaces_is_refused_in_values_too(setting, says):
    with pytest.raises(OperatorError, match=says):
        resolve("default", [], ["components.cni.enabled=true", setting])


def test_a_port_may_not_have_the_name_of_one_that_istiod_has():
    def asked(**port):
        service = {"ports": [port]}
        return resolve("default", [{"components": {"pilot": {"k8s": {"service": service}}}}], [])

    with pytest.raises(
        OperatorError, match=r'pilot\.k8s\.service\.ports: 2 ports have the name "grpc-xds", with those'
    ):
        asked(port=7777, name="grpc-xds")
    asked(port=15010, nodePort=30010)  # its own one, which has a name
    asked(port=7777, name="mine")


def test_two_gateways_of_one_name_are_refused():
    both = {k: [{"name": "edge", "enabled": True}] for k in ("ingressGateways", "egressGateways")}
    with pytest.raises(
        OperatorError, match=r"egressGateways\[name:edge\]: another gateway of namespace istio-system has the same name"
    ):
        resolve("minimal", [{"components": both}], [])


# --- the ConfigMap of the injector, edited by hand -----------------------------------------------------------------


def config_map(config="", values="{}"):
    meta = {"name": "istio-sidecar-injector", "namespace": "istio-system"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"config": config, "values": values}}


def test_an_injector_whose_values_were_broken_by_hand_keeps_the_last_ones_and_analyze_says_why():
    injector = Injector(lambda: None)
    right, wrong = config_map("policy: disabled"), config_map("neverInjectSelector: {matchLabels: {a: b}}")
    injector.changed(kinds.CONFIG_MAP, ("istio-system", "istio-sidecar-injector"), right)
    injector.changed(kinds.CONFIG_MAP, ("istio-system", "istio-sidecar-injector"), wrong)
    assert "neverInjectSelector: expected a list, got an object" in injector.problem
    assert injector._values["global"]["proxy"]["autoInject"] == "disabled"
    ((code, text),) = [(m.kind.code, m.text) for m in analyze(Snapshot([Source(wrong)]))]
    assert code == "IST0106"
    assert "neverInjectSelector: expected a list" in text
    assert analyze(Snapshot([Source(right)])) == []


@pytest.mark.parametrize("first", ["configuration", "what was kept"])
def test_a_restart_does_not_lose_the_last_valid_settings_of_the_injector(first):
    """istiod's events come in any order."""
    root, kept = "istio-system", Accepted("istio-system", Revision())
    before = Injector(lambda: None, kept=kept)
    before.changed(kinds.CONFIG_MAP, (root, "istio-sidecar-injector"), config_map("policy: disabled"))
    stored = {"data": {k: v for k, v in kept.wanted.items() if v is not None}}
    after = Injector(lambda: None)
    events = [
        ((root, "istio-sidecar-injector"), config_map("neverInjectSelector: {matchLabels: {a: b}}")),
        ((root, "istio-accepted-config"), stored),
    ]
    for key, new in events if first == "configuration" else reversed(events):
        after.changed(kinds.CONFIG_MAP, key, new)
    assert "neverInjectSelector: expected a list" in after.problem
    assert after._values["global"]["proxy"]["autoInject"] == "disabled"


def test_annotations_of_the_installation_are_text_whatever_they_were_written_as():
    settings = pods.settings({INJECTOR: {"injectedAnnotations": {"number": 3, "flag": True}}})
    found = pods.inject({"metadata": {}, "spec": {"containers": [{"name": "app"}]}}, "shop", settings)
    assert (found["metadata"]["annotations"]["number"], found["metadata"]["annotations"]["flag"]) == ("3", "true")


# --- kube-inject ---------------------------------------------------------------------------------------------------


def kube_injected(tmp_path, text, given="{}"):
    (tmp_path / "in.yaml").write_text(text)
    (tmp_path / "values").write_text(given)
    return CliRunner().invoke(kube_inject, ["-f", str(tmp_path / "in.yaml"), "--valuesFile", str(tmp_path / "values")])


POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: a%s}\nspec: %s\n"
APP = "{containers: [{name: app, image: i}]}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (POD % (", annotations: {status.sidecar.istio.io/port: 15999}", APP), "status.sidecar.istio.io/port"),
        (POD % (", labels: [x]", APP), "Pod a: metadata.labels"),
        (POD % ("", "{containers: {name: x}}"), "Pod a: spec.containers"),
        (POD % ("", "{containers: [x]}"), "Pod a: spec.containers[0]"),
        (POD % ("", "{containers: [{name: app, readinessProbe: x}]}"), "readinessProbe"),
        (POD % ("", "{containers: [{name: app, readinessProbe: {httpGet: x}}]}"), "httpGet"),
        (POD % ("", "hello"), "Pod a: spec"),
        ("apiVersion: v1\nkind: Pod\nmetadata: [x]\nspec: {}\n", "metadata: expected an object"),
    ],
)
def test_what_is_no_pod_is_said_by_the_path_of_the_field(tmp_path, text, says):
    done = kube_injected(tmp_path, text)
    assert says in str(done.exception)
    assert done.output == ""


def test_cron_jobs_without_a_pod_are_left_alone(tmp_path):
    for job in ("x", "{spec: x}", "{spec: {template: x}}"):
        text = f"apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: a}}\nspec: {{jobTemplate: {job}}}\n"
        assert yamldoc.load(kube_injected(tmp_path, text).output) == yamldoc.load(text)


def test_a_file_of_values_may_be_yaml_as_istioctl_has_it(tmp_path):
    done = kube_injected(tmp_path, POD % ("", APP), "global:\n  proxy: {logLevel: debug}\n")
    assert "--proxyLogLevel=debug" in done.output


def test_a_mistake_in_a_file_of_values_says_what_it_is_about(tmp_path):
    done = kube_injected(tmp_path, POD % ("", APP), jsons.dumps({"global": "x"}).decode())
    assert 'values.global: expected a map, got the text "x"' in str(done.exception)


# --- labels --------------------------------------------------------------------------------------------------------


def test_a_label_that_is_neither_true_nor_false_is_told_at_injection_and_by_analyze():
    labels = {"sidecar.istio.io/inject": "no"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app"}]}}
    (said,) = notes(pod, pods.settings())
    assert said.startswith('label sidecar.istio.io/inject: "no" is neither "true" nor "false"')
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"template": pod},
    }
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "shop", "labels": {"istio-injection": "true"}},
    }
    told = [m for m in analyze(Snapshot([Source(deployment), Source(namespace)])) if m.kind.code == "LAT0125"]
    assert sorted(m.source.kind for m in told) == ["Deployment", "Namespace"]
    assert any('istio-injection=true has no effect: only "enabled" and "disabled" count' in m.text for m in told)
