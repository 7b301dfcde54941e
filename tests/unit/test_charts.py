"""Helm's charts have the objects of ``lateen install``; rendered here by the engine of injection templates."""

import copy
import importlib
import sys
from pathlib import Path

import pytest

from lateen.api import crds
from lateen.api.values import overlay, read
from lateen.inject import settings as injection
from lateen.inject.gotemplate import render
from lateen.inject.gotemplate.functions import FUNCTIONS
from lateen.install import manifests, webhooks
from lateen.install.operator import resolve
from lateen.kit import yamldoc
from lateen.kit.jsons import dig
from lateen.wire.revision import Revision

TOOLS = Path(__file__).parents[2] / "tools"
sys.path.insert(0, str(TOOLS))
charts = importlib.import_module("charts")
values = importlib.import_module("chart_values")
FILES = charts.charts()


def _set(mapping, key, value):
    mapping[key] = value
    return mapping


def _merged(first, second):
    """Sprig's merge: the second one fills what is missing."""
    return {**second, **{k: _merged(v, second[k]) if isinstance(v, dict) and isinstance(second.get(k), dict) else v
                         for k, v in first.items()}}  # fmt: skip


OF_HELM = {
    "set": _set,
    "merge": _merged,
    "deepCopy": copy.deepcopy,
    "kindIs": lambda kind, value: {"map": dict}[kind] is type(value),
}
"""Functions that Helm's templates have, and those of injection have not, since they change what they are given."""


def helm(chart, own=None, name="it", namespace="istio-system"):
    """The objects that ``helm template`` prints, by kind and name."""
    given = overlay(yamldoc.load(FILES[f"{chart}/values.yaml"]), own or {})
    data = {"Values": given, "Release": {"Name": name, "Namespace": namespace}}
    with pytest.MonkeyPatch.context() as patched:
        for function in OF_HELM:
            patched.setitem(FUNCTIONS, function, OF_HELM[function])
        found = [
            o
            for at, text in FILES.items()
            if at.startswith(f"{chart}/templates/") and ".Files." not in text
            for o in yamldoc.objects(render(text, data))
        ]
    out = {(o["kind"], o["metadata"]["name"]): o for o in found}
    assert len(out) == len(found)
    return out


def installed(*settings):
    """What ``lateen install`` applies for the control plane, apart from what the chart ``base`` has."""
    found = [o for part in manifests.render(resolve("minimal", [], list(settings))) for o in part.objects]
    skipped = ("Namespace", "CustomResourceDefinition")
    return {(o["kind"], o["metadata"]["name"]): o for o in found if o["kind"] not in skipped}


CASES = {
    "as it comes": ({}, ()),
    "a revision": ({"revision": "1-32"}, ("revision=1-32",)),
    "images of another hub": (
        {"global": {"hub": "example.com/mesh", "tag": "v1"}},
        ("values.global.hub=example.com/mesh", "values.global.tag=v1"),
    ),
    "an image of istiod's own": (
        {"pilot": {"hub": "example.com/mine", "tag": "v2", "image": "istiod"}},
        ("values.pilot.hub=example.com/mine", "values.pilot.tag=v2", "values.pilot.image=istiod"),
    ),
    "a whole image": ({"pilot": {"image": "example.com/a/b:c"}}, ("values.pilot.image=example.com/a/b:c",)),
    "one of several clusters": (
        {"global": {"multiCluster": {"clusterName": "east"}, "network": "n"}},
        ("values.global.multiCluster.clusterName=east", "values.global.network=n"),
    ),
    "a mesh configuration": (
        {"meshConfig": {"trustDomain": "td", "accessLogFile": "/dev/stdout"}},
        ("meshConfig.trustDomain=td", "meshConfig.accessLogFile=/dev/stdout"),
    ),
    "an autoscaler and budgets": (
        {
            "pilot": {"autoscaleEnabled": True, "autoscaleMin": 2, "cpu": {"targetAverageUtilization": 60}},
            "global": {"defaultPodDisruptionBudget": {"enabled": True}},
        },
        (
            "values.pilot.autoscaleEnabled=true",
            "values.pilot.autoscaleMin=2",
            "values.pilot.cpu.targetAverageUtilization=60",
            "values.global.defaultPodDisruptionBudget.enabled=true",
        ),
    ),
    "pods as somebody wants them": (
        {
            "pilot": {
                "podLabels": {"team": "a"},
                "deploymentLabels": {"team": "b"},
                "serviceAnnotations": {"team": "c"},
                "topologySpreadConstraints": [{"maxSkew": 1}],
                "volumes": [{"name": "v"}],
                "volumeMounts": [{"name": "v"}],
                "rollingMaxSurge": 1,
                "replicaCount": 0,
            },
            "global": {"priorityClassName": "p", "imagePullPolicy": "Always", "imagePullSecrets": ["r"]},
        },
        (
            "values.pilot.podLabels.team=a",
            "values.pilot.deploymentLabels.team=b",
            "values.pilot.serviceAnnotations.team=c",
            "values.pilot.topologySpreadConstraints[0].maxSkew=1",
            "values.pilot.volumes[0].name=v",
            "values.pilot.volumeMounts[0].name=v",
            "values.pilot.rollingMaxSurge=1",
            "values.pilot.replicaCount=0",
            "values.global.priorityClassName=p",
            "values.global.imagePullPolicy=Always",
            "values.global.imagePullSecrets[0]=r",
        ),
    ),
    "policies for a network that denies by default": (
        {"global": {"networkPolicy": {"enabled": True}}},
        ("values.global.networkPolicy.enabled=true",),
    ),
    "parameters of a class of gateways": (
        {
            "gatewayClasses": {
                "istio": {"service": {"spec": {"type": "ClusterIP"}}, "deployment": {"spec": {"replicas": 2}}},
                "42": {"service": {"spec": {"type": "NodePort"}}},
                "of-a-team-with-a-long-name-that-no-label-has-a-place-beside": {
                    "service": {"spec": {"type": "NodePort"}}
                },
            }
        },
        (
            "values.gatewayClasses.42.service.spec.type=NodePort",
            "values.gatewayClasses.of-a-team-with-a-long-name-that-no-label-has-a-place-beside.service.spec.type=NodePort",
            "values.gatewayClasses.istio.service.spec.type=ClusterIP",
            "values.gatewayClasses.istio.deployment.spec.replicas=2",
        ),
    ),
    "istiod's variables": (
        {"pilot": {"env": {"ENABLE_NATIVE_SIDECARS": True, "MAX_WORKLOAD_CERT_TTL": "1h"}}},
        ("values.pilot.env.ENABLE_NATIVE_SIDECARS=true", "values.pilot.env.MAX_WORKLOAD_CERT_TTL=1h"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_chart_of_istiod_installs_what_lateen_install_does(case):
    given, settings = CASES[case]
    ours, wanted = helm("istiod", given), installed(*settings)
    revision = given.get("revision", "default")
    end = "" if revision == "default" else f"-{revision}"
    wanted.pop(("ConfigMap", f"istio-installation{end}"))  # what lateen upgrade starts from
    assert ours.keys() == wanted.keys()
    for key in (("ConfigMap", f"istio{end}"), ("ConfigMap", f"istio-sidecar-injector{end}")):
        a, b = ours.pop(key), wanted.pop(key)
        assert a["metadata"] == b["metadata"]
        assert _read(a["data"]) == _read(b["data"])
    assert ours == wanted


def test_values_of_pilot_may_be_at_the_top_as_in_istios_chart():
    given = {
        "replicaCount": 3,
        "env": {"MAX_WORKLOAD_CERT_TTL": "1h"},
        "resources": {"requests": {"cpu": "1"}},
        "rollingMaxSurge": 0,
        "podAnnotations": {"a": "b"},
        "cni": {"enabled": True},
        "tolerations": [{"key": "x"}],
    }
    assert helm("istiod", given) == helm("istiod", {"pilot": given})
    assert helm("istiod", given) != helm("istiod")
    assert all(allowed("istiod", path) for path in ("resources.requests", "cpu.targetAverageUtilization", "env"))
    assert not any(allowed("istiod", path) for path in ("traceSampling", "memory", "cpu.other", "env.OTHER"))


def _read(data):
    """As istiod reads it."""
    if "values" not in data:
        return {name: yamldoc.load(text) for name, text in data.items()}
    found = overlay(values.istiod_values(), read(data["config"], data["values"]))
    found.pop("pilot")  # pilot.env and the like, which are the Deployment's
    found["sidecarInjectorWebhook"].pop("enableNamespacesByDefault", None)
    return found


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7", "mesh.example.com"])
def test_a_cluster_whose_control_plane_is_elsewhere(address):
    east = {"remotePilotAddress": address, "multiCluster": {"clusterName": "east"}, "network": "n/1"}
    ours = helm("istiod", {"istiodRemote": {"enabled": True}, "global": east})
    settings = [f"remotePilotAddress={address}", "multiCluster.clusterName=east", "network=n/1"]
    parts = manifests.render(resolve("remote", [], [f"values.global.{s}" for s in settings]))
    found = {(o["kind"], o["metadata"]["name"]): o for p in parts if p.title == "Istiod remote" for o in p.objects}
    wanted = {key: o for key, o in found.items() if key[0] in ("Service", "Endpoints", "MutatingWebhookConfiguration")}
    assert {key: ours.get(key) for key in wanted} == wanted
    assert {kind for kind, _ in ours.keys() - wanted.keys()} == {"ClusterRole", "ClusterRoleBinding"}
    rights = [o["rules"] for o in (*ours.values(), *helm("base").values()) if o["kind"] == "ClusterRole"]
    (granted,) = (o["rules"] for o in found.values() if o["kind"] == "ClusterRole")
    assert [rule for rules in rights for rule in rules if rule not in granted] == []
    assert len([rule for rules in rights for rule in rules]) == len(granted)


def test_a_cluster_whose_control_plane_is_nowhere_is_refused():
    with pytest.raises(ValueError, match=r"global\.remotePilotAddress: say where"):
        helm("istiod", {"istiodRemote": {"enabled": True}})
    with pytest.raises(ValueError, match=r"global\.multiCluster\.clusterName: name this cluster"):
        helm("istiod", {"istiodRemote": {"enabled": True}, "global": {"remotePilotAddress": "192.0.2.7"}})


@pytest.mark.parametrize(("revision", "service"), [("default", "istiod"), ("1-32", "istiod-1-32")])
def test_tags_lead_to_the_revision_of_their_chart(revision, service):
    made = helm("istiod", {"revision": revision, "revisionTags": ["prod", "test"]})
    for tag in ("prod", "test"):
        config = made["MutatingWebhookConfiguration", f"istio-revision-tag-{tag}"]
        wanted = webhooks.tagged(tag, Revision(revision))
        assert [config] == wanted
        assert config["webhooks"][0]["clientConfig"]["service"]["name"] == service
    with pytest.raises(ValueError, match="defaultRevision of the chart base"):
        helm("istiod", {"revisionTags": ["default"]})


def test_proxies_of_other_clusters_are_served():
    env = helm("istiod", {"global": {"externalIstiod": True}})["Deployment", "istiod"]["spec"]["template"]["spec"]
    assert {"name": "EXTERNAL_ISTIOD", "value": "true"} in env["containers"][0]["env"]


def test_values_that_a_chart_does_not_know_are_refused_by_its_schema():
    known = yamldoc.load(FILES["istiod/values.schema.json"])
    assert known["additionalProperties"] is False
    pilot = known["properties"]["pilot"]
    assert pilot["additionalProperties"] is False
    assert "strange" not in pilot["properties"]
    assert pilot["properties"]["env"]["additionalProperties"] is False
    assert known["properties"]["meshConfig"]["additionalProperties"] is True


def test_a_chart_for_another_namespace_or_another_authority_is_refused():
    with pytest.raises(ValueError, match="into the namespace istio-system"):
        helm("istiod", namespace="default")
    with pytest.raises(ValueError, match="EXTERNAL_CA needs permissions"):
        helm("istiod", {"pilot": {"env": {"EXTERNAL_CA": "ISTIOD_RA_KUBERNETES_API"}}})


def test_parameters_of_a_class_are_for_objects_that_a_gateway_has():
    with pytest.raises(ValueError, match=r"gatewayClasses\.istio\.secret: there is no such object"):
        helm("istiod", {"gatewayClasses": {"istio": {"secret": {}}}})


def test_settings_of_istiods_pod():
    given = {"replicaCount": 2, "nodeSelector": {"a": "b"}, "podAnnotations": {"x": "y"}, "resources": {"limits": {}}}
    made = helm("istiod", {"pilot": given})[("Deployment", "istiod")]["spec"]
    assert made["replicas"] == 2
    pod = made["template"]
    assert pod["spec"]["nodeSelector"] == {"a": "b"}
    assert pod["metadata"]["annotations"]["x"] == "y"
    assert "limits" in pod["spec"]["containers"][0]["resources"]


def test_a_gateway_is_completed_by_the_injector():
    made = helm("gateway", {"labels": {"team": "a"}}, "istio-ingress", "edge")
    assert {kind for kind, _ in made} == {"Deployment", "Service", "ServiceAccount", "Role", "RoleBinding"}
    deployment, service = (made[kind, "istio-ingress"] for kind in ("Deployment", "Service"))
    pod = deployment["spec"]["template"]
    assert {o["metadata"]["namespace"] for o in made.values()} == {"edge"}
    assert pod["metadata"]["annotations"]["inject.istio.io/templates"] == "gateway"
    assert pod["metadata"]["labels"]["sidecar.istio.io/inject"] == "true"
    assert pod["metadata"]["labels"]["team"] == "a"
    chosen = {"app": "istio-ingress", "istio": "ingress"}
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == chosen
    assert [p["port"] for p in service["spec"]["ports"]] == [15021, 80, 443]
    assert pod["spec"]["containers"][0]["image"] == "auto"
    named = helm("gateway", {"networkGateway": "n1", "revision": "1-32"}, "eastwest", "edge")
    assert named["Service", "eastwest"]["metadata"]["labels"]["topology.istio.io/network"] == "n1"
    assert named["Deployment", "eastwest"]["spec"]["template"]["metadata"]["labels"]["istio.io/rev"] == "1-32"
    assert not any(kind == "ServiceAccount" for kind, _ in helm("gateway", {"serviceAccount": {"create": False}}))


def test_labels_of_a_gateway_may_be_changed_by_an_upgrade():
    """helm upgrade gw istio/gateway --set labels.team=b: the selector of a Deployment cannot be changed."""
    more = {"labels": {"team": "b"}, "networkGateway": "n1", "podDisruptionBudget": {"minAvailable": 1}}
    before, after = helm("gateway"), helm("gateway", more)
    for kind in ("Deployment", "Service"):
        assert before[kind, "it"]["spec"]["selector"] == after[kind, "it"]["spec"]["selector"]
    assert after["PodDisruptionBudget", "it"]["spec"]["selector"] == after["Deployment", "it"]["spec"]["selector"]
    assert after["Deployment", "it"]["spec"]["template"]["metadata"]["labels"]["team"] == "b"


def test_a_gateway_may_choose_the_labels_that_it_is_selected_by():
    """helm install gw istio/gateway --set labels.app=web --set labels.istio=ingressgateway"""
    made = helm("gateway", {"labels": {"app": "web", "istio": "ingressgateway"}})
    chosen = {"app": "web", "istio": "ingressgateway"}
    spec = made["Deployment", "it"]["spec"]
    assert made["Service", "it"]["spec"]["selector"] == spec["selector"]["matchLabels"] == chosen
    assert spec["template"]["metadata"]["labels"].items() >= chosen.items()


def test_the_gateway_of_a_network_has_the_ports_of_one():
    """helm install istio-eastwestgateway istio/gateway --set networkGateway=network1"""
    script = (charts.ADDONS.parent / "multicluster" / "gen-eastwest-gateway.sh").read_text()
    for revision in ("default", "1-32"):
        made = helm("gateway", {"networkGateway": "network1", "revision": revision}, "istio-eastwestgateway")
        service = made["Service", "istio-eastwestgateway"]
        assert service["metadata"]["labels"]["topology.istio.io/network"] == "network1"
        listed = service["spec"]["ports"]
        assert [p["port"] for p in listed] == [15021, 15443, 15010, 15012, 15017]
        assert all(f"name: {p['name']}\n                port: {p['port']}\n" in script for p in listed)
    moved = helm("gateway", {"networkGateway": "network1", "networkGatewayPorts": {"tls": {"port": 443}}})
    assert {"name": "tls", "port": 443, "protocol": "TCP", "targetPort": 15443} in moved["Service", "it"]["spec"][
        "ports"
    ]
    own = [{"name": "tls", "port": 443, "targetPort": 15443}]
    given = {"networkGateway": "network1", "service": {"ports": own}}
    assert helm("gateway", given)["Service", "it"]["spec"]["ports"] == own


def test_a_gateway_is_reached_where_the_network_denies_by_default():
    def opened(**given):
        made = helm("gateway", {"global": {"networkPolicy": {"enabled": True}}, **given})
        spec, pods = made["NetworkPolicy", "it"]["spec"], made["Deployment", "it"]["spec"]["selector"]
        assert spec["podSelector"] == pods
        assert spec["egress"] == [{}]
        return {(p["port"], p["protocol"]) for p in spec["ingress"][0]["ports"]}

    always = {(p, "TCP") for p in (15020, 15021, 15090)}
    assert opened() == always | {(80, "TCP"), (443, "TCP")}
    udp = [{"name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP"}]
    assert opened(service={"ports": udp}, revision="1-32") == always | {(5353, "UDP")}
    assert (15443, "TCP") in opened(networkGateway="n")
    assert ("NetworkPolicy", "it") not in helm("gateway", {"global": {"hub": "of a chart around it"}})


def test_a_gateway_without_an_account_of_its_own_has_the_namespaces():
    def account(**given):
        made = helm("gateway", {"serviceAccount": given})
        assert ("ServiceAccount", "mine") not in made
        return made["Deployment", "it"]["spec"]["template"]["spec"]["serviceAccountName"]

    assert account(create=False) == "default"
    assert account(create=False, name="mine") == "mine"
    assert account() == "it"


def test_annotations_of_a_gateway_are_on_all_of_its_objects():
    more = {"autoscaling": {"enabled": True}, "podDisruptionBudget": {"minAvailable": 1}}
    made = helm("gateway", {"annotations": {"a": "b", "c": "d"}, "service": {"annotations": {"a": "x"}}, **more})
    assert {k for (k, _), o in made.items() if o["metadata"]["annotations"] == {"a": "b", "c": "d"}} == {
        *("Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Role", "RoleBinding", "ServiceAccount"),
    }
    assert made["Service", "it"]["metadata"]["annotations"] == {"a": "x", "c": "d"}


TWICE = {
    "gateway": {
        "labels": dict.fromkeys(("app", "istio", "release", "istio.io/rev", "topology.istio.io/network"), "x"),
        "networkGateway": "n",
        "podAnnotations": {"inject.istio.io/templates": "gateway"},
    },
    "cni": {
        "podLabels": {"k8s-app": "x", "app": "x"},
        "daemonSetLabels": {"k8s-app": "x", "release": "x"},
        "env": {"REPAIR_ENABLED": "false", "CNI_NET_DIR": "/x"},
    },
    "istiod": {
        "global": {"externalIstiod": True},
        "pilot": {
            "env": {"TRUST_DOMAIN": "x", "PROXY_IMAGE": "x", "EXTERNAL_ISTIOD": True},
            "podAnnotations": {"prometheus.io/scrape": "false"},
            "podLabels": {"app": "x", "istio.io/rev": "x"},
            "deploymentLabels": {"app": "x", "release": "x"},
        },
    },
}


@pytest.mark.parametrize("chart", TWICE)
def test_nothing_is_there_twice_whatever_a_users_mappings_have(chart):
    """Flux and kustomize refuse a key that is there twice (as does ``helm`` here), server-side apply a variable."""
    for revision in ("default", "1-32"):
        made = helm(chart, {"revision": revision, **TWICE[chart]})
        (pod,) = (o["spec"]["template"] for (kind, _), o in made.items() if kind in ("Deployment", "DaemonSet"))
        given = [e["name"] for e in pod["spec"]["containers"][0].get("env") or []]
        assert sorted(set(given)) == sorted(given)
        selector = next(o["spec"]["selector"]["matchLabels"] for o in made.values() if "template" in o.get("spec", {}))
        assert selector.items() <= pod["metadata"]["labels"].items()


def test_istiods_own_variables_may_be_set_with_either_way_of_installing():
    asked = {"TRUST_DOMAIN": "td", "PROXY_IMAGE": "a/b:c"}
    ours = helm("istiod", {"pilot": {"env": asked}})["Deployment", "istiod"]
    theirs = installed(*(f"values.pilot.env.{k}={v}" for k, v in asked.items()))["Deployment", "istiod"]
    assert ours == theirs
    env = ours["spec"]["template"]["spec"]["containers"][0]["env"]
    assert [e["value"] for e in env if e["name"] in asked] == ["a/b:c", "td"]


def test_the_base_has_the_definitions_the_reader_and_the_default_revision():
    found = {dig(o, "metadata", "name") for o in yamldoc.objects(FILES["base/files/crds.yaml"])}
    assert "virtualservices.networking.istio.io" in found
    assert ("ServiceAccount", "istio-reader-service-account") in helm("base")
    assert not any(kind.endswith("WebhookConfiguration") for kind, _ in helm("base"))
    tagged = helm("base", {"defaultRevision": "1-32"})
    hook = tagged["MutatingWebhookConfiguration", "istio-revision-tag-default"]["webhooks"][0]
    assert hook["clientConfig"]["service"]["name"] == "istiod-1-32"


def test_helm_never_deletes_a_definition():
    """helm uninstall istio-base, helm upgrade --set base.enableGatewayAPI=false: users' objects would go with it."""
    names = set()
    for file in (at for at in FILES if at.startswith("base/files/")):
        for crd in yamldoc.objects(FILES[file]):
            assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
            names.add(crd["metadata"]["name"])
    assert names == {c["metadata"]["name"] for c in crds.crds(False)}


def test_addons_are_installed_one_by_one():
    everything = helm("addons", {"hub": "example.com/m"})
    images = {
        c["image"] for o in everything.values() for c in dig(o, "spec", "template", "spec", "containers", default=[])
    }
    assert images == {f"example.com/m/console:{charts.__version__}"}
    some = helm("addons", {"jaeger": {"enabled": False}})
    assert ("Deployment", "jaeger") in everything.keys() - some.keys()
    assert ("Deployment", "kiali") in some


def allowed(chart, path):
    """Whether the chart's schema lets somebody set a value."""
    found = yamldoc.load(FILES[f"{chart}/values.schema.json"])
    for key in path.split("."):
        if key not in found.get("properties", {}):
            return found.get("additionalProperties", True)
        found = found["properties"][key]
    return not nothing(found)


def nothing(schema):
    """Whether all that somebody may say is that he asks for nothing."""
    if inner := schema.get("properties"):
        return not schema.get("additionalProperties", True) and all(map(nothing, inner.values()))
    return "enum" in schema or 0 in (schema.get("maxProperties"), schema.get("maxItems"))


@pytest.mark.parametrize("chart", values.REFUSED)
def test_what_istios_values_say_of_what_is_so_anyway_may_be_said(chart):
    """helm show values istio/gateway > values.yaml; helm install -f values.yaml"""
    schema = yamldoc.load(FILES[f"{chart}/values.schema.json"])
    for path, value in values.absent.ANYWAY[chart].items():
        assert any(at == path or path.startswith(f"{at}.") for at in values.REFUSED[chart]), path
        found = schema
        for key in path.split("."):
            found = found.get("properties", {}).get(key, {})
        kinds = {dict: "object", list: "array"}
        if found:  # Helm gives what is below ``global`` to every chart
            for one in value if isinstance(value, tuple) else (value,):
                assert one in found.get("enum", []) or kinds.get(type(one)) in found.get("type", []), path
            assert nothing(found), path


@pytest.mark.parametrize("chart", ["istiod", "gateway", "cni"])
def test_an_empty_revision_is_the_default_one_as_in_istios_charts(chart):
    for given in ("", None):
        assert helm(chart, {"revision": given}) == helm(chart)


def test_values_that_ask_for_nothing_reach_neither_objects_nor_the_injector():
    said = {"ownerName": "", "traceSampling": None, "configMap": True, "memory": {}, "experimental": {}, "variant": ""}
    assert helm("istiod", said) == helm("istiod")
    assert helm("gateway", {"kind": "Deployment", "rbac": {"enabled": True}}) == helm("gateway")


@pytest.mark.parametrize("chart", values.REFUSED)
def test_values_of_istio_that_have_no_effect_are_refused(chart):
    let_through = [path for path in values.REFUSED[chart] if allowed(chart, path)]
    # Helm gives what is below ``global`` to every chart; the chart of definitions has no use for any of it.
    assert let_through == (["global.istioNamespace"] if chart == "base" else [])


@pytest.mark.parametrize("chart", values.CHARTS)
def test_a_value_of_another_type_is_refused(chart):
    default, free = values.CHARTS[chart]
    schema = yamldoc.load(FILES[f"{chart}/values.schema.json"])
    json = {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}
    for path, given in values.leaves(default(), free):
        if path in ("global.istioNamespace", "pilot.env"):
            continue
        found = schema
        for key in path.split("."):
            found = found["properties"][key]
        types = found["type"] if isinstance(found["type"], list) else [found["type"]]
        if path in values.SCALARS:
            continue
        assert json[type(given)] in types, path
        if not isinstance(given, str):
            assert "string" not in types, path


def other(path, default):
    """Another value than the default one."""
    budget = {"maxUnavailable": 0}
    special = {
        "service.ports": [],
        "podDisruptionBudget": budget,
        "base.enableCRDs": None,
        "base.enableGatewayAPI": None,
        "global": {"networkPolicy": {"enabled": True}},
    }
    if path in special:
        return special[path]
    made = {bool: lambda d: not d, int: lambda d: d + 1, str: lambda d: f"{d}x", list: lambda d: [*d, "x"]}
    return made.get(type(default), lambda d: {**d, "other": "x"})(default)


def nested(path, value):
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


CNI_CASES = {
    "as it comes": ({}, ()),
    "a revision": ({"revision": "v2"}, ("revision=v2",)),
    "other directories": (
        {"cniBinDir": "/var/bin", "cniConfDir": "/var/conf", "excludeNamespaces": ["a", "b"]},
        (
            "values.cni.cniBinDir=/var/bin",
            "values.cni.cniConfDir=/var/conf",
            "values.cni.excludeNamespaces[0]=a",
            "values.cni.excludeNamespaces[1]=b",
        ),
    ),
    "without repair": ({"repair": {"enabled": False}}, ("values.cni.repair.enabled=false",)),
    "pods as somebody wants them": (
        {
            "podLabels": {"a": "b"},
            "daemonSetLabels": {"c": "d"},
            "env": {"MINE": "f"},
            "seccompProfile": {"type": "RuntimeDefault"},
            "seLinuxOptions": {"level": "s0"},
            "serviceAccountAnnotations": {"g": "h"},
            "terminationGracePeriodSeconds": 0,
            "rollingMaxUnavailable": "10%",
        },
        (
            "values.cni.podLabels.a=b",
            "values.cni.daemonSetLabels.c=d",
            "values.cni.env.MINE=f",
            "values.cni.seccompProfile.type=RuntimeDefault",
            "values.cni.seLinuxOptions.level=s0",
            "values.cni.serviceAccountAnnotations.g=h",
            "values.cni.terminationGracePeriodSeconds=0",
            "values.cni.rollingMaxUnavailable=10%",
        ),
    ),
    "pods that are replaced when somebody deletes them": (
        {"updateStrategy": {"type": "OnDelete"}},
        ("values.cni.updateStrategy.type=OnDelete",),
    ),
    "an image of its own": (
        {"hub": "example.com/mine", "image": "plugin", "pullPolicy": "Always"},
        ("values.cni.hub=example.com/mine", "values.cni.image=plugin", "values.cni.pullPolicy=Always"),
    ),
    "a whole image": ({"image": "example.com/a/b:c"}, ("values.cni.image=example.com/a/b:c",)),
    "an image of another hub": ({"global": {"hub": "example.com/m", "tag": "v1"}}, ("hub=example.com/m", "tag=v1")),
}


@pytest.mark.parametrize("case", CNI_CASES)
def test_the_chart_of_the_cni_plugin_installs_what_lateen_install_does(case):
    given, settings = CNI_CASES[case]
    parts = manifests.render(resolve("empty", [], ["components.cni.enabled=true", *settings]))
    (wanted,) = (p.objects for p in parts if p.title == "CNI")
    assert helm("cni", given) == {(o["kind"], o["metadata"]["name"]): o for o in wanted}


NEEDED = {
    "pilot.autoscaleEnabled": {},
    "autoscaling.enabled": {},
    "pilot.autoscale": {"pilot": {"autoscaleEnabled": True}},
    "pilot.cpu": {"pilot": {"autoscaleEnabled": True}},
    "autoscaling.": {"autoscaling": {"enabled": True}},
    "networkGatewayPorts.": {"networkGateway": "n"},
}
"""Values that say more about something that others switch on."""


@pytest.mark.parametrize("chart", ["cni", "gateway", "istiod"])
def test_every_value_of_a_chart_makes_a_difference(chart):
    default, free = values.CHARTS[chart]
    without = []
    for path, given in values.leaves(default(), free):
        if chart == "istiod" and not path.startswith(("pilot.", "global.multiCluster", "revision")):
            continue  # the injector reads them in its ConfigMap: tests of injection say what they do
        if path in ("global.istioNamespace", "pilot.env"):
            continue
        on = next((more for start, more in NEEDED.items() if path.startswith(start)), {})
        before, after = helm(chart, on), helm(chart, injection.overlay(on, nested(path, other(path, given))))
        if path.startswith("pilot.") and not path.startswith("pilot.cni."):
            for found in (before, after):
                found.pop(("ConfigMap", "istio-sidecar-injector"))
        if before == after:
            without.append(path)
    assert without == []
