"""Injection beyond the templates: probes, metrics, names, manifests, CNI, values of the installation, patches."""

import json

import pytest
from injecting import PROBED, argument, env, init, injected, pod, proxy

from lateen.api.annotations import problems
from lateen.api.canonical import canonical_name
from lateen.api.values import read
from lateen.inject import manifest, openshift, parts, pods
from lateen.inject.merge import merge
from lateen.inject.networks import with_network
from lateen.inject.workload import of_pod

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
    mine = {"proxy.istio.io/config": "proxyMetadata: {CUSTOM_ENV: mine}"}
    made = proxy(injected(mine, settings))
    told = env(made)
    assert (told["ISTIO_META_CLUSTER_ID"], told["ISTIO_META_NETWORK"], told["CUSTOM_ENV"]) == ("east/1", "n1", "foo")
    assert sorted(e["name"] for e in made["env"]) == sorted(told)
    assert "CUSTOM_ENV" not in env(proxy(injected({}, settings)))["PROXY_CONFIG"]


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
    assert with_network(given, "default/istio-cni") == made


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


@pytest.mark.parametrize(
    ("kind", "tag"), [("fips", "1-fips"), ("default", "1"), ("", "1-debug"), ("distroless", "1-distroless")]
)
def test_a_pod_chooses_among_the_image_types_of_its_hub(kind, tag):
    settings = pods.settings({"global": {"hub": "h", "tag": "1-debug"}})
    annotations = {"sidecar.istio.io/proxyImageType": kind}
    assert proxy(injected(annotations, settings))["image"] == f"h/proxyv2:{tag}"
    assert [p.says for p in problems(annotations)] == (
        ['Istio has no images of type "fips" (default, distroless, debug); the hub must have one']
        if kind == "fips"
        else []
    )


def test_an_image_type_is_the_end_of_a_tag():
    with pytest.raises(ValueError, match="cannot be the end of an image's tag"):
        injected({"sidecar.istio.io/proxyImageType": "a:b"})


@pytest.mark.parametrize(
    ("name", "value"), [("proxyImageType", "debug\n"), ("proxyImage", "h/p:1\n"), ("proxyCPU", "100m\n")]
)
def test_a_line_break_at_the_end_is_part_of_a_value(name, value):
    """As of a block in YAML. It ended up in the pod, which the API server then refused."""
    with pytest.raises(ValueError, match=f"sidecar.istio.io/{name}"):
        injected({f"sidecar.istio.io/{name}": value})


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
