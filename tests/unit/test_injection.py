"""Injection: what is added to a pod, what its annotations change, and what its owner is warned about."""

import json

import pytest

from lateen.api.annotations import KNOWN, problems
from lateen.api.values import read
from lateen.inject import manifest, openshift, parts, pods, sidecar
from lateen.inject.merge import merge
from lateen.inject.notes import notes
from lateen.inject.settings import native_nodes
from lateen.inject.workload import canonical_name, of_pod


def pod(annotations=None, labels=None, containers=None, **spec):
    app = {"name": "app", "image": "app:1", "ports": [{"name": "http", "containerPort": 80}]}
    return {
        "metadata": {"name": "web", "labels": labels or {}, "annotations": annotations or {}},
        "spec": {"containers": containers or [app], **spec},
    }


def injected(annotations=None, settings=None, **more):
    return pods.inject(pod(annotations, **more), "shop", settings or pods.settings())


def proxy(found):
    return pods.proxy_of(found)


def env(container):
    return {e["name"]: e.get("value") for e in container["env"]}


def init(found):
    return next(c for c in found["spec"]["initContainers"] if c["name"] == "istio-init")


def argument(container, flag):
    return container["args"][container["args"].index(flag) + 1]


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
PROBED = {"name": "app", "image": "app:1", "readinessProbe": {"httpGet": {"port": 80}}}


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
        ("proxy.istio.io/config", "[1]", "expected an object"),
        ("proxy.istio.io/config", "{a", "cannot be read"),
        ("inject.istio.io/templates", "a b", "is not a list of names"),
    ],
)
def test_a_value_that_cannot_be_used_refuses_the_pod_with_the_annotations_name(name, value, says):
    with pytest.raises(ValueError, match="annotation") as e:
        notes(pod({name: value}), pods.settings())
    assert name in str(e.value)
    assert says in str(e.value)


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


# --- probes and metrics --------------------------------------------------------------------------------------------


def test_probes_and_hooks_of_all_containers_go_to_the_agent():
    app = {
        "name": "app",
        "image": "a",
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/ok", "port": "http", "scheme": "HTTPS"}, "timeoutSeconds": 3},
        "livenessProbe": {"tcpSocket": {"port": 9}},
        "startupProbe": {"grpc": {"port": 7, "service": "s"}},
        "lifecycle": {"preStop": {"httpGet": {"port": 5}}, "postStart": {"exec": {"command": ["x"]}}},
    }
    helper = {"name": "helper", "image": "h", "restartPolicy": "Always", "readinessProbe": {"tcpSocket": {"port": 1}}}
    found = injected({}, containers=[app], initContainers=[helper])
    made = next(c for c in found["spec"]["containers"] if c["name"] == "app")
    assert made["readinessProbe"] == {
        "httpGet": {"path": "/app-health/app/readyz", "port": 15020, "scheme": "HTTP"},
        "timeoutSeconds": 3,
    }
    assert made["livenessProbe"] == {"httpGet": {"path": "/app-health/app/livez", "port": 15020}}
    assert made["startupProbe"] == {"httpGet": {"path": "/app-health/app/startupz", "port": 15020}}
    assert made["lifecycle"]["preStop"]["httpGet"]["path"] == "/app-lifecycle/app/prestopz"
    assert made["lifecycle"]["postStart"] == {"exec": {"command": ["x"]}}
    assert json.loads(env(proxy(found))["ISTIO_KUBE_APP_PROBERS"]) == {
        "/app-health/app/livez": {"tcpSocket": {"port": 9}},
        "/app-health/app/readyz": {"httpGet": {"path": "/ok", "port": 8080, "scheme": "HTTPS"}, "timeoutSeconds": 3},
        "/app-health/app/startupz": {"grpc": {"port": 7, "service": "s"}},
        "/app-health/helper/readyz": {"tcpSocket": {"port": 1}},
        "/app-lifecycle/app/prestopz": {"httpGet": {"port": 5}},
    }


def test_probes_stay_as_they_are_where_the_installation_or_the_agents_port_says_so():
    off = pods.settings({"sidecarInjectorWebhook": {"rewriteAppHTTPProbe": False}})
    for found in (
        injected({}, off, containers=[PROBED]),
        injected({"status.sidecar.istio.io/port": "0"}, containers=[PROBED]),
    ):
        assert found["spec"]["containers"][0]["readinessProbe"] == PROBED["readinessProbe"]


def test_the_applications_metrics_are_handed_to_the_agent_in_every_spelling():
    found = injected({"prometheus.io.port": "9000", "prometheus_io_path": "/m"})
    assert json.loads(env(proxy(found))["ISTIO_PROMETHEUS_ANNOTATIONS"]) == {
        "scrape": "",
        "path": "/m",
        "port": "9000",
    }
    annotations = found["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == "15020"
    assert "prometheus.io.port" not in annotations


# --- names, manifests, small things --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "owner", "said"),
    [
        ({"pod-template-hash": "5d"}, ("ReplicaSet", "web-5d", "apps/v1"), "apps/v1/namespaces/n/deployments/web"),
        ({}, ("StatefulSet", "db", "apps/v1"), "apps/v1/namespaces/n/statefulsets/db"),
        ({}, ("Job", "nightly-28391040", "batch/v1"), "batch/v1/namespaces/n/cronjobs/nightly"),
        ({}, ("Job", "once", "batch/v1"), "batch/v1/namespaces/n/jobs/once"),
        (
            {"deploymentconfig": "dc"},
            ("ReplicationController", "dc-1", "v1"),
            "v1/namespaces/n/deploymentconfigs/dc",
        ),
    ],
)
def test_the_owner_is_the_workload_that_the_user_has_written(labels, owner, said):
    kind, name, version = owner
    ref = {"kind": kind, "name": name, "apiVersion": version, "controller": True}
    assert of_pod({"metadata": {"labels": labels, "ownerReferences": [ref]}}, "n").owner.endswith(said)


def test_a_long_name_is_cut_to_a_valid_label():
    assert canonical_name({}, "a" * 62 + "-b") == "a" * 62


def test_kube_inject_reaches_every_kind_of_workload_and_says_what_it_leaves_alone():
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
    host = {"spec": {**template["spec"], "hostNetwork": True}}
    told = []
    listed = {
        "kind": "List",
        "items": [
            *({"kind": k, "metadata": {"name": "x"}, "spec": {"template": template}} for k in ("DaemonSet", "Job")),
            {"kind": "CronJob", "metadata": {"name": "c"}, "spec": {"jobTemplate": {"spec": {"template": template}}}},
            {"kind": "Deployment", "metadata": {"name": "h", "namespace": "n"}, "spec": {"template": host}},
            {"kind": "Service", "metadata": {"name": "s"}, "spec": {}},
        ],
    }
    daemon, job, cron, untouched, service = manifest.into(listed, "", pods.settings(), told)["items"]
    for made in (daemon, job):
        assert pods.proxy_of(made["spec"]["template"])
    assert pods.proxy_of(cron["spec"]["jobTemplate"]["spec"]["template"])
    assert untouched["spec"]["template"] == host
    assert service == listed["items"][-1]
    assert told == ['Skipping injection because Deployment "n/h" has host networking enabled']


@pytest.mark.parametrize(
    ("policy", "labels", "annotations", "wanted"),
    [
        ("enabled", {}, {}, True),
        ("disabled", {}, {}, False),
        ("disabled", {}, {"sidecar.istio.io/inject": "true"}, True),
        ("enabled", {"sidecar.istio.io/inject": "false"}, {"sidecar.istio.io/inject": "true"}, False),
        ("enabled", {"never": "x"}, {}, False),
        ("disabled", {"always": "x"}, {}, True),
        ("disabled", {"always": "x", "never": "x"}, {}, False),
        ("enabled", {"sidecar.istio.io/inject": "random"}, {}, True),
        ("sometimes", {}, {}, False),
    ],
)
def test_labels_take_precedence_over_selectors_and_selectors_over_the_policy(policy, labels, annotations, wanted):
    settings = pods.settings(
        {
            "global": {"proxy": {"autoInject": policy}},
            "sidecarInjectorWebhook": {
                "neverInjectSelector": [{"matchExpressions": [{"key": "never", "operator": "Exists"}]}],
                "alwaysInjectSelector": [{"matchLabels": {"always": "x"}}, {}],
            },
        }
    )
    assert pods.wanted(pod(annotations, labels), "shop", settings) is wanted


def test_the_webhooks_address_names_cluster_network_and_variables():
    found = pods.url_environment("/inject/cluster/east--slash--1/net/n1/custom_env/foo/")
    assert found == {"ISTIO_META_CLUSTER_ID": "east/1", "ISTIO_META_NETWORK": "n1", "CUSTOM_ENV": "foo"}
    settings = pods.with_cluster(pods.settings(), found)
    told = env(proxy(injected({}, settings)))
    assert (told["ISTIO_META_CLUSTER_ID"], told["ISTIO_META_NETWORK"], told["CUSTOM_ENV"]) == ("east/1", "n1", "foo")


def test_values_and_configuration_are_read_as_istio_writes_them():
    config = "policy: disabled\ndefaultTemplates: [sidecar, mine]\ntemplates: {mine: 'a: b', sidecar: ''}\n"
    found = read(config, '{"global": {"hub": "example.com"}}')
    settings = pods.settings(found)
    assert (settings.policy, settings.templates) == ("disabled", {"mine": "a: b"})
    assert pods.chosen(pod(), settings) == ["sidecar", "mine"]


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        ({}, (1337, 1337)),
        ({openshift.UIDS: "1000650000/10000", openshift.GROUPS: "1000650000/10000"}, (1000659999, 1000659999)),
        ({openshift.UIDS: "5-9"}, (9, 1337)),
    ],
)
def test_the_proxy_takes_the_last_id_of_its_namespace_on_openshift(given, ids):
    assert openshift.proxy_ids(given) == ids


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("", "default/istio-cni"),
        ("a, b", "a, b, default/istio-cni"),
        ('[{"name": "a"}]', '[{"name": "a"}, {"name": "default/istio-cni"}]'),
        ('[{"name": "default/istio-cni"}]', '[{"name": "default/istio-cni"}]'),
    ],
)
def test_a_pods_own_networks_are_kept(given, made):
    assert sidecar.multus_network(given) == made


def test_with_a_cni_plugin_the_pod_needs_no_rights():
    found = injected({}, pods.settings({"pilot": {"cni": {"enabled": True}}}))
    (check,) = found["spec"]["initContainers"]
    assert check["name"] == "istio-validation"
    assert "--run-validation" in check["args"]
    assert "add" not in check["securityContext"]["capabilities"]
    assert found["metadata"]["annotations"]["traffic.sidecar.istio.io/excludeInboundPorts"] == "15020"


def test_a_cni_plugin_is_told_all_ports_even_if_none_are_included():
    found = injected(
        {"traffic.sidecar.istio.io/includeInboundPorts": ""}, pods.settings({"pilot": {"cni": {"enabled": True}}})
    )
    assert found["metadata"]["annotations"]["traffic.sidecar.istio.io/includeInboundPorts"] == ""


def test_values_of_the_installation_reach_the_redirection_and_the_proxy():
    seccomp = {"type": "RuntimeDefault"}
    values = {
        "global": {
            "proxy": {"seccompProfile": seccomp, "outlierLogPath": "/dev/stdout"},
            "proxy_init": {"image": "hub.example/init:1", "forceApplyIptables": True},
        }
    }
    found = injected({}, pods.settings(values))
    assert init(found)["image"] == "hub.example/init:1"
    assert "--force-apply" in init(found)["args"]
    assert init(found)["securityContext"]["seccompProfile"] == seccomp
    assert proxy(found)["securityContext"]["seccompProfile"] == seccomp
    assert "--outlierLogPath=/dev/stdout" in proxy(found)["args"]
    assert proxy(found)["image"] != "hub.example/init:1"


def test_the_security_of_gateways_is_the_installations():
    security = {"runAsNonRoot": True}
    values = {"gateways": {"securityContext": security, "seccompProfile": {"type": "RuntimeDefault"}}}
    found = injected({"inject.istio.io/templates": "gateway"}, pods.settings(values))
    assert found["spec"]["securityContext"] == {**security, "seccompProfile": {"type": "RuntimeDefault"}}


def test_with_tproxy_the_redirection_knows_the_proxy_by_the_usual_id():
    settings = pods.settings(uid=1000700001, gid=1000700001)
    assert argument(init(injected({}, settings)), "-u") == "1000700001"
    assert argument(init(injected({"sidecar.istio.io/interceptionMode": "TPROXY"}, settings)), "-u") == "1337"


def test_pods_without_redirection_say_so_wherever_that_was_chosen():
    """istiod knows of a pod what its annotations say."""
    name = "sidecar.istio.io/interceptionMode"
    for found in (
        injected({"proxy.istio.io/config": "interceptionMode: NONE"}),
        injected({}, pods.settings(mesh={"defaultConfig": {"interceptionMode": "NONE"}})),
        injected({name: "NONE"}),
    ):
        assert found["metadata"]["annotations"][name] == "NONE"
    assert name not in injected()["metadata"]["annotations"]


def test_image_types():
    assert parts.image_of("h", "p", "1-debug", "distroless") == "h/p:1-distroless"
    assert parts.image_of("h", "p", "1-debug", "default") == "h/p:1"


def test_a_strategic_merge_matches_items_by_name():
    base = {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}], "args": ["a"], "x": 1}
    patch = {"env": [{"name": "B", "value": "2"}, {"name": "C", "value": "3"}], "args": ["b"], "x": None}
    assert merge(base, patch) == {
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "C", "value": "3"}],
        "args": ["b"],
    }
    gone = {"env": [{"name": "A", "$patch": "delete"}]}
    assert merge(base, gone)["env"] == [{"name": "B", "value": "1"}]


def test_the_patch_of_a_webhook_leads_from_the_pod_to_its_injected_form():
    before = pod({"prometheus.io/port": "1"})
    after = pods.inject(before, "shop", pods.settings())
    out = json.loads(json.dumps(before))
    for step in pods.patch(before, after):
        _, part, key = step["path"].split("/")
        if step["op"] == "remove":
            del out[part][key]
        else:
            out[part][key] = step["value"]
    assert out == after


@pytest.mark.parametrize(
    ("annotations", "mesh", "port"),
    [
        ({"status.sidecar.istio.io/port": "15099"}, {}, 15099),
        ({}, {"defaultConfig": {"statusPort": 15098}}, 15098),
        ({"proxy.istio.io/config": "statusPort: 15097"}, {"defaultConfig": {"statusPort": 15098}}, 15097),
        ({}, {}, 15020),
    ],
)
def test_probes_scrapes_and_the_redirection_agree_on_the_agents_port(annotations, mesh, port):
    probe = {"httpGet": {"path": "/", "port": 80}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "annotations": {"prometheus.io/scrape": "true", **annotations}},
        "spec": {"containers": [{"name": "app", "image": "b", "readinessProbe": probe}]},
    }
    made = pods.inject(pod, "default", pods.settings({}, mesh))
    spec = {c["name"]: c for c in (*made["spec"]["containers"], *made["spec"]["initContainers"])}
    assert spec["app"]["readinessProbe"]["httpGet"]["port"] == port
    assert made["metadata"]["annotations"]["prometheus.io/port"] == str(port)
    excluded = spec["istio-init"]["args"][spec["istio-init"]["args"].index("-d") + 1]
    assert excluded == f"15090,15021,{port}"
