"""Injection: what is added to a pod, what its annotations change, and what its owner is warned about."""

import json

import pytest
from injecting import PROBED, argument, env, init, injected, pod, proxy

from lateen.api.annotations import KNOWN, problems
from lateen.api.reading import has_envoy
from lateen.inject import pods
from lateen.inject.notes import notes
from lateen.inject.settings import native_nodes

# --- annotations ---------------------------------------------------------------------------------------------------

VALUES = {
    "gateway.istio.io/name-override": None,  # of a Gateway; what is made for it hands it down
    "gateway.istio.io/service-account": None,
    "inject.istio.io/templates": "gateway",
    "istio.io/reroute-virtual-interfaces": "net1",
    "istio.io/rev": None,  # selects the webhook
    "prometheus.istio.io/merge-metrics": "false",
    "prometheus.istio.io/scrape-targets": "8080:/m,9100:/n",
    "proxy.istio.io/config": "concurrency: 3",
    "proxy.istio.io/overrides": None,  # written by the injection itself
    "sidecar.istio.io/init-containers-before-proxy": None,  # test_injection_as_istio
    "sidecar.istio.io/inject": None,  # decides whether, not what
    "sidecar.istio.io/status": None,
    "sidecar.istio.io/agentLogLevel": "all:debug",
    "sidecar.istio.io/bootstrapOverride": "my-config",
    "sidecar.istio.io/capNetBindService": "true",
    "sidecar.istio.io/componentLogLevel": "http:debug",
    "sidecar.istio.io/enableCoreDump": "true",
    "sidecar.istio.io/interceptionMode": "NONE",
    "sidecar.istio.io/logLevel": "debug",
    "sidecar.istio.io/nativeSidecar": "true",
    "sidecar.istio.io/proxyCPU": "7m",
    "sidecar.istio.io/proxyCPULimit": "8m",
    "sidecar.istio.io/proxyImage": "example.com/proxy:2",
    "sidecar.istio.io/proxyImageType": "debug",
    "sidecar.istio.io/proxyMemory": "9Mi",
    "sidecar.istio.io/proxyMemoryLimit": "10Mi",
    "sidecar.istio.io/rewriteAppHTTPProbers": "false",
    **dict.fromkeys(
        [f"sidecar.istio.io/stats{n}" for n in ("FlushInterval", "HistogramBuckets")]
        + [f"sidecar.istio.io/statsInclusion{n}" for n in ("Prefixes", "Regexps", "Suffixes")]
    ),  # the agent reads them (test_agent)
    "sidecar.istio.io/userVolume": '{"v": {"emptyDir": {}}}',
    "sidecar.istio.io/userVolumeMount": '{"v": {"mountPath": "/v"}}',
    "status.sidecar.istio.io/port": "15999",
    "readiness.status.sidecar.istio.io/failureThreshold": "5",
    "readiness.status.sidecar.istio.io/initialDelaySeconds": "6",
    "readiness.status.sidecar.istio.io/periodSeconds": "7",
    "traffic.sidecar.istio.io/excludeInboundPorts": "1,2",
    "traffic.sidecar.istio.io/excludeInterfaces": "eth1",
    "traffic.sidecar.istio.io/excludeOutboundIPRanges": "10.0.0.0/8",
    "traffic.sidecar.istio.io/excludeOutboundPorts": "3",
    "traffic.sidecar.istio.io/includeInboundPorts": "80",
    "traffic.sidecar.istio.io/includeOutboundIPRanges": "10.0.0.0/8",
    "traffic.sidecar.istio.io/includeOutboundPorts": "443",
    "traffic.sidecar.istio.io/kubevirtInterfaces": "net0",
}


@pytest.mark.parametrize("name", [n for n, a in KNOWN.items() if "Pod" in a.on and not a.idle])
def test_every_annotation_that_works_changes_the_pod(name):
    value = VALUES[name]
    if value is None:
        return
    with_it = injected({name: value}, containers=[PROBED])
    with_it["metadata"]["annotations"].pop(name, None)
    without = injected({}, containers=[PROBED])
    assert with_it != without
    assert not [p for p in problems({name: value}) if p.error]


@pytest.mark.parametrize("name", [n for n, a in KNOWN.items() if "Pod" in a.on and a.idle])
def test_every_annotation_without_an_effect_is_warned_about_by_name(name):
    value = "8080" if name.endswith("applicationPorts") else "x"
    assert any(name in said and "no effect" in said for said in notes(pod({name: value}), pods.settings()))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "abc", '"abc" is not a port'),
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0/99", '"10.0.0.0/99" is not a range'),
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0/255.0.0.0", "is not a range"),
        ("traffic.sidecar.istio.io/includeInboundPorts", "80,70000", '"70000" is not a port'),
        ("traffic.sidecar.istio.io/includeInboundPorts", "٣", '"٣" is not a port'),
        ("sidecar.istio.io/interceptionMode", "tproxy", 'did you mean "TPROXY"?'),
        ("sidecar.istio.io/proxyCPU", "a lot", "not a quantity"),
        ("sidecar.istio.io/userVolume", "[1]", "expected an object"),
        ("sidecar.istio.io/userVolumeMount", '{"v": {}}', '"v" needs a mountPath'),
        ("sidecar.istio.io/logLevel", "loud", '"loud" is not'),
        ("status.sidecar.istio.io/port", "x", '"x" is not a port'),
        ("sidecar.istio.io/rewriteAppHTTPProbers", "perhaps", "neither true nor false"),
        ("proxy.istio.io/config", "nosuchfield: 3", "nosuchfield: unknown field"),
        ("proxy.istio.io/config", "holdApplicationUntilProxyStart: true", "holdApplicationUntilProxyStarts"),
        ("proxy.istio.io/config", "[1]", "proxy.istio.io/config: expected an object"),
        ("sidecar.istio.io/bootstrapOverride", "../../x", '"../../x" is not the name of a ConfigMap'),
        ("proxy.istio.io/config", "{a", "cannot be read"),
        ("inject.istio.io/templates", "a b", "is not a list of names"),
    ],
)
def test_a_value_that_cannot_be_used_refuses_the_pod_with_the_annotations_name(name, value, says):
    with pytest.raises(ValueError, match="annotation") as e:
        notes(pod({name: value}), pods.settings())
    assert name in str(e.value)
    assert says in str(e.value)


def test_labels_without_an_effect_are_warned_about_by_name():
    given = {"istio.io/use-waypoint": "w", "istio.io/dataplane-mode": "ambient", "app": "a"}
    said = notes({"metadata": {"labels": given}}, pods.settings())
    assert [text.split(":")[0] for text in said] == ["label istio.io/use-waypoint", "label istio.io/dataplane-mode"]
    assert notes({"metadata": {"labels": {"istio.io/dataplane-mode": "none"}}}, pods.settings()) == []


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ("sidecar.istio.io/injct", 'did you mean "sidecar.istio.io/inject"?'),
        ("istio.io/inject", 'did you mean "sidecar.istio.io/inject"?'),
        ("istio.io/revision", 'did you mean "istio.io/rev"?'),
        ("topology.istio.io/netwrk", 'did you mean "topology.istio.io/network"?'),
        ("zzz.istio.io/q", "Istio has no such label"),
    ],
)
def test_a_label_that_istio_does_not_have_is_told(label, says):
    (said,) = notes({"metadata": {"labels": {label: "x", "app": "a"}}}, pods.settings())
    assert said.startswith(f"label {label}: Istio has no such label")
    assert said.endswith(says)


def test_istios_labels_and_those_of_others_are_no_matter():
    given = {"istio.io/rev": "default", "service.istio.io/canonical-name": "a", "topology.istio.io/subzone": "a",
             "install.operator.istio.io/owning-resource": "x", "operator.istio.io/component": "Pilot",
             "notistio.io/x": "1", "security.istio.io/tlsMode": "istio", "istio": "ingressgateway"}  # fmt: skip
    assert notes({"metadata": {"labels": given}}, pods.settings()) == []


def test_a_misspelt_annotation_gets_a_suggestion():
    (said,) = notes(pod({"sidecar.istio.io/proxyCpu": "1"}), pods.settings())
    assert 'did you mean "sidecar.istio.io/proxyCPU"?' in said
    assert notes(pod({"example.com/proxyCpu": "1"}), pods.settings()) == []


def test_a_proxy_config_field_without_an_effect_is_warned_about():
    (said,) = notes(pod({"proxy.istio.io/config": "{concurrency: 1, extraStatTags: [a]}"}), pods.settings())
    assert "extraStatTags" in said


def test_a_template_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ValueError, match=r'no template "ambient".*gateway.*sidecar'):
        injected({"inject.istio.io/templates": "ambient"})


# --- the proxy -----------------------------------------------------------------------------------------------------


def test_the_proxy_gets_the_meshs_and_the_pods_own_configuration():
    settings = pods.settings(mesh={"defaultConfig": {"proxyMetadata": {"A": "1", "B": "1"}, "concurrency": 4}})
    found = proxy(injected({"proxy.istio.io/config": "proxyMetadata: {B: '2'}"}, settings))
    told = json.loads(env(found)["PROXY_CONFIG"])
    assert told == {"proxyMetadata": {"A": "1", "B": "2"}, "concurrency": 4}
    assert (env(found)["A"], env(found)["B"]) == ("1", "2")
    assert {"name": "A", "value": "1"} in init(injected({}, settings))["env"]


def test_the_application_waits_for_its_proxy_only_where_somebody_asks():
    assert injected()["spec"]["containers"][-1]["name"] == "istio-proxy"
    held = injected({"proxy.istio.io/config": "holdApplicationUntilProxyStarts: true"})
    assert held["spec"]["containers"][0]["name"] == "istio-proxy"
    assert held["spec"]["containers"][0]["lifecycle"]["postStart"]["exec"]["command"] == ["pilot-agent", "wait"]


def test_null_resources_mean_none():
    values = {"global": {"proxy": {"resources": {"limits": {"cpu": None, "memory": "5Mi"}, "requests": None}}}}
    assert proxy(injected({}, pods.settings(values)))["resources"] == {"limits": {"memory": "5Mi"}}


def test_a_pod_keeps_its_group_of_files():
    assert "securityContext" not in injected()["spec"]


def test_a_native_sidecar_comes_before_the_users_init_containers():
    given = {"initContainers": [{"name": "migrate", "image": "m"}]}
    native = injected({}, pods.settings(native=True), **given)
    assert [c["name"] for c in native["spec"]["initContainers"]] == ["istio-init", "istio-proxy", "migrate"]
    assert native["spec"]["initContainers"][1]["restartPolicy"] == "Always"
    ordinary = injected({}, **given)
    assert [c["name"] for c in ordinary["spec"]["initContainers"]] == ["migrate", "istio-init"]


def test_a_cluster_without_native_sidecars_gets_ordinary_ones_and_a_warning():
    settings = pods.settings(native_supported=False)
    wish = {"sidecar.istio.io/nativeSidecar": "true"}
    assert injected(wish, settings)["spec"]["containers"][-1]["name"] == "istio-proxy"
    assert "ordinary container" in notes(pod(wish), settings)[0]


@pytest.mark.parametrize(
    ("versions", "native"), [(["v1.33.0"], True), (["v1.34.1+k3s1", "v1.32.9"], False), ([], False), (["x"], False)]
)
def test_native_sidecars_are_the_default_where_every_node_has_them(versions, native):
    assert native_nodes(versions) is native


def test_the_users_own_proxy_container_wins_over_the_template():
    own = {
        "name": "istio-proxy",
        "image": "auto",
        "env": [{"name": "MINE", "value": "1"}],
        "resources": {"requests": {"cpu": "3m"}},
        "securityContext": {"runAsUser": 1234},
    }
    found = injected({}, containers=[{"name": "app", "image": "a"}, own])
    made = proxy(found)
    assert made["image"].startswith("docker.io/lateen/proxyv2")
    assert made["resources"]["requests"] == {"cpu": "3m", "memory": "128Mi"}
    assert env(made)["MINE"] == "1"
    assert "POD_NAME" in env(made)
    assert argument(init(found), "-u") == "1234"
    kept = json.loads(found["metadata"]["annotations"]["proxy.istio.io/overrides"])
    assert kept["containers"][0]["name"] == "istio-proxy"
    assert "image" not in kept["containers"][0]


def test_a_second_injection_changes_nothing():
    own = {"name": "istio-proxy", "image": "auto", "env": [{"name": "MINE", "value": "1"}]}
    probed = {**PROBED, "lifecycle": {"preStop": {"tcpSocket": {"port": 9}}}}
    once = injected({"prometheus.io/port": "9000"}, containers=[probed, own])
    assert pods.inject(once, "shop", pods.settings()) == once


def test_an_injected_gateway_has_no_redirection_and_runs_as_a_router():
    own = {"name": "istio-proxy", "image": "auto"}
    found = injected({"inject.istio.io/templates": "gateway"}, containers=[own])
    assert proxy(found)["args"][:2] == ["proxy", "router"]
    assert not found["spec"].get("initContainers")
    assert found["spec"]["securityContext"]["sysctls"][0]["value"] == "0"


def test_a_template_of_the_installation_is_filled_and_merged():
    text = """
metadata:
  annotations:
    team: {{ index .ObjectMeta.Labels `team` | default "nobody" | quote }}
spec:
  containers:
  {{- range $i, $c := .Spec.Containers }}
  {{- if ne $c.Name "istio-proxy" }}
  - name: {{ $c.Name }}
    env:
    - name: PORT
      value: "{{ (index $c.Ports 0).ContainerPort }}"
  {{- end }}
  {{- end }}
  - name: istio-proxy
    env:
    - name: REVISION
      value: "{{ .Revision }}"
"""
    settings = pods.settings({"sidecarInjectorWebhook": {"templates": {"mine": text}}})
    found = injected({"inject.istio.io/templates": "sidecar,mine"}, settings, labels={"team": "red"})
    assert found["metadata"]["annotations"]["team"] == "red"
    assert env(found["spec"]["containers"][0])["PORT"] == "80"
    assert env(proxy(found))["REVISION"] == "default"
    native = injected(
        {"inject.istio.io/templates": "sidecar,mine"},
        pods.settings({"sidecarInjectorWebhook": {"templates": {"mine": text}}}, native=True),
    )
    assert [c["name"] for c in native["spec"]["containers"]] == ["app"]
    assert env(proxy(native))["REVISION"] == "default"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{{ if }}", "line 1"),
        ("a: {{ nosuch 1 }}", 'no function "nosuch"'),
        ("{{ range .Spec.Containers }}", "no {{ end }}"),
        ('{{ define "a" }}{{ template "a" . }}{{ end }}{{ template "a" . }}', "endlessly"),
        ("- a", "mapping"),
        ("{{ fail `stop here` }}", "stop here"),
    ],
)
def test_a_template_with_a_mistake_is_one_sentence(text, says):
    settings = pods.settings({"sidecarInjectorWebhook": {"templates": {"mine": text}}})
    with pytest.raises(ValueError, match='the template "mine"') as e:
        injected({"inject.istio.io/templates": "mine"}, settings)
    assert says in str(e.value)


@pytest.mark.parametrize("name", ["grpc-agent", "grpc-simple"])
def test_an_application_that_speaks_xds_gets_no_redirection(name):
    found = injected({"inject.istio.io/templates": name}, containers=[PROBED])
    names = {c["name"] for c in [*found["spec"]["containers"], *found["spec"].get("initContainers", [])]}
    assert "istio-init" not in names
    app = next(c for c in found["spec"]["containers"] if c["name"] == "app")
    assert "GRPC_XDS_BOOTSTRAP" in env(app)
    assert app["readinessProbe"] == PROBED["readinessProbe"]


def test_an_application_that_speaks_xds_starts_once_its_bootstrap_file_is_there():
    """gRPC that finds none serves plain text, whatever policies say."""
    found = injected({"inject.istio.io/templates": "grpc-agent"}, containers=[PROBED])
    agent, app = found["spec"]["containers"]
    assert (agent["name"], app["name"]) == ("istio-proxy", "app")
    assert agent["lifecycle"]["postStart"]["exec"]["command"][:2] == ["pilot-agent", "wait"]


@pytest.mark.parametrize(("name", "expected"), [("sidecar", True), ("grpc-agent", False), ("grpc-simple", False)])
def test_an_agent_of_grpc_is_no_envoy_whose_connection_and_certificates_are_checked(name, expected):
    assert has_envoy(injected({"inject.istio.io/templates": name}, containers=[PROBED])) is expected
