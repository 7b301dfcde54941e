"""Installations: the result of a profile and an overlay, and that nothing in them is ignored silently."""

import asyncio
import contextlib
import re

import pytest

from lateen.api import crds, kinds
from lateen.cli.install import carry_out
from lateen.cli.output import CliError
from lateen.cluster.apiserver import patch
from lateen.install import core, installer, manifests, operator, paths, reader, state, webhooks
from lateen.install.operator import OperatorError, resolve
from lateen.kit import selectors
from lateen.wire.revision import Revision


def document(spec):
    return {"apiVersion": operator.API_VERSION, "kind": "IstioOperator", "spec": spec}


def objects(found):
    return {(o["kind"], o["metadata"]["name"]): o for part in manifests.render(found) for o in part.objects}


def test_profiles_differ_in_their_gateways():
    assert ("Deployment", "istio-egressgateway") in objects(resolve("demo", [], []))
    default = objects(resolve("default", [], []))
    assert ("Deployment", "istio-egressgateway") not in default
    assert ("Deployment", "istio-ingressgateway") in default
    assert not any(kind == "Deployment" for kind, _ in objects(resolve("empty", [], [])))


def test_an_overlay_reaches_the_objects():
    gateway = {
        "name": "istio-ingressgateway",
        "k8s": {
            "resources": {"requests": {"cpu": "7m"}},
            "service": {"type": "NodePort", "ports": [{"port": 1, "targetPort": 2, "name": "x"}]},
        },
    }
    found = objects(resolve("default", [{"components": {"ingressGateways": [gateway]}}], []))
    container = found[("Deployment", "istio-ingressgateway")]["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"] == {"requests": {"cpu": "7m"}}
    service = found[("Service", "istio-ingressgateway")]["spec"]
    assert (service["type"], [p["port"] for p in service["ports"]]) == ("NodePort", [1])


OPTIONS = {
    "affinity": {"nodeAffinity": {}},
    "deploymentAnnotations": {"a": "of the deployment"},
    "env": [{"name": "TRUST_DOMAIN", "value": "td"}],
    "hpaSpec": {"maxReplicas": 7},
    "imagePullPolicy": "Always",
    "nodeSelector": {"disk": "ssd"},
    "podAnnotations": {"a": "of the pod"},
    "podDisruptionBudget": {"maxUnavailable": 3},
    "priorityClassName": "critical",
    "readinessProbe": {"periodSeconds": 77},
    "replicaCount": 0,
    "resources": {"limits": {"cpu": "77"}},
    "securityContext": {"runAsUser": 77},
    "service": {"loadBalancerIP": "192.0.2.7"},
    "serviceAnnotations": {"a": "of the service"},
    "strategy": {"type": "Recreate"},
    "tolerations": [{"key": "dedicated"}],
    "topologySpreadConstraints": [{"maxSkew": 7}],
    "volumeMounts": [{"name": "mine", "mountPath": "/mine"}],
    "volumes": [{"name": "mine", "emptyDir": {}}],
}


@pytest.mark.parametrize("component", ["pilot", "ingressGateways"])
def test_options_of_kubernetes_change_istiod_and_gateways(component):
    given = {"k8s": {name: value for name, value in OPTIONS.items() if name != "hpaSpec"}}
    listed = [{"name": "istio-ingressgateway", **given}]
    asked = resolve("default", [{"components": {component: given if component == "pilot" else listed}}], [])
    assert asked.warnings == []
    found, workload = objects(asked), "istiod" if component == "pilot" else "istio-ingressgateway"
    for name, option in given["k8s"].items():
        kind = "Service" if name.startswith("service") else "Deployment"
        kind = "PodDisruptionBudget" if name == "podDisruptionBudget" else kind
        value = next(iter(option.values())) if isinstance(option, dict) else option
        assert repr(value).strip("[]") in repr(found[kind, workload]), name


def test_two_replicas_that_an_autoscaler_counts_and_a_budget_by_the_values_of_istios_charts():
    settings = ["autoscaleEnabled=true", "autoscaleMin=2", "cpu.targetAverageUtilization=60", "rollingMaxSurge=1"]
    more = ["values.global.defaultPodDisruptionBudget.enabled=true", "values.global.imagePullSecrets[0]=registry"]
    asked = resolve("default", [], [*(f"values.pilot.{s}" for s in settings), *more])
    assert asked.warnings == []
    found = objects(asked)
    scaled, spec = found["HorizontalPodAutoscaler", "istiod"]["spec"], found["Deployment", "istiod"]["spec"]
    assert (scaled["minReplicas"], scaled["maxReplicas"]) == (2, 5)
    assert scaled["metrics"][0]["resource"]["target"]["averageUtilization"] == 60
    assert scaled["scaleTargetRef"]["name"] == "istiod"
    assert "replicas" not in spec
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": "25%"}
    assert spec["template"]["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    for name in ("istiod", "istio-ingressgateway"):
        budget = found["PodDisruptionBudget", name]["spec"]
        assert budget == {"minAvailable": 1, "selector": found["Deployment", name]["spec"]["selector"]}


def test_istiod_reads_secrets_only_where_gateways_are():
    gateway = {"name": "edge", "namespace": "edge", "enabled": True}
    parts = manifests.render(resolve("demo", [{"components": {"ingressGateways": [gateway]}}], []))
    found = [o for part in parts for o in part.objects]
    bound = {(o["roleRef"]["kind"], o["roleRef"]["name"]) for o in found if "roleRef" in o}
    readers = [
        (o["kind"], o["metadata"].get("namespace"))
        for o in found
        if (o["kind"], o["metadata"]["name"]) in bound
        for rule in o.get("rules", [])
        if "secrets" in rule["resources"] and "list" in rule["verbs"]
    ]
    assert sorted(readers) == [("Role", "edge"), ("Role", "istio-system")]
    assert ("edge", "edge") in {d for part in parts for d in part.deployments}


@pytest.mark.parametrize(
    ("spec", "ignored"),
    [
        ({"hub": "example.com", "tag": "7"}, None),
        ({"installPackagePath": "x"}, "spec.installPackagePath"),
        ({"components": {"base": {"k8s": {"replicaCount": 2}}}}, "it has no pods"),
        (
            {"components": {"pilot": {"k8s": {"env": [{"name": "PILOT_X", "value": "1"}]}}}},
            "spec.components.pilot.k8s.env[PILOT_X]",
        ),
        ({"values": {"pilot": {"autoscaleEnabled": False}}}, None),
        ({"values": {"pilot": {"autoscaleEnabled": True}}}, None),
        ({"values": {"pilot": {"seccompProfile": {"type": "X"}}}}, None),
        (
            {"values": {"revisionTags": ["prod"]}},
            "spec.values.revisionTags has no effect in this version of Lateen: use",
        ),
        ({"values": {"pilot": {"traceSampling": 1}}}, "use `meshConfig.defaultConfig.tracing.sampling`"),
        ({"meshConfig": {"accessLogFile": "/dev/stdout", "proxyListenPort": 3128}}, "spec.meshConfig.proxyListenPort"),
        ({"meshConfig": {"accessLogFile": "/tmp/log"}}, "/tmp/log: where a proxy cannot open this file"),
    ],
)
def test_settings_without_effect_are_named(spec, ignored):
    said = resolve("default", [spec], []).warnings
    assert [ignored in text for text in said] == ([True] if ignored else [])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["profile=dmo"], 'no profile "dmo"'),
        (["profile"], "path=value"),
        (["nosuchthing=1"], "spec.nosuchthing: unknown field"),
        (["meshConfig.connectTimeout=5 parsecs"], "spec.meshConfig.connectTimeout: expected a duration"),
        (["meshConfig.outboundTrafficPolicy.mode=REGISTRY_ONLI"], 'did you mean "REGISTRY_ONLY"'),
        (["meshConfig.outboundTrafficPolicy=REGISTRY_ONLY"], "{mode: REGISTRY_ONLY}"),
        (["components.pilot.enabled=maybe"], "spec.components.pilot.enabled: expected true or false"),
        (["components.egressGateways[7].enabled=true"], "has 1 items; the next one is"),
        (["components.egressGateways[x].enabled=true"], "name:value"),
        (["components.pilot[0]=x"], "is not a list"),
        (["revision=1.21.0"], "1-21-0"),
        (["values.pilot.replicaCount=two"], "spec.values.pilot.replicaCount: expected a whole number"),
        (["values.global.imagePullSecrets=x"], "spec.values.global.imagePullSecrets: expected a list"),
        (["values.global.imagePullSecrets[0].name=x"], "spec.values.global.imagePullSecrets[0]: expected text"),
        (["values.global.defaultPodDisruptionBudget=x"], "spec.values.global.defaultPodDisruptionBudget: expected an"),
        (["values.pilot=x"], "spec.values.pilot: expected a map"),
        (["components.pilot.tag=a b"], 'spec.components.pilot.tag: expected the tag of an image, got the text "a b"'),
        (["tag.x=1"], "spec.tag: expected the tag of an image"),
        (["hub=https:// x"], "spec.hub: expected a registry and a path"),
        (["values.cni.tag=:1"], "spec.values.cni.tag: expected the tag"),
        (["values.pilot.autoscaleBehavior.scaleDown.policies[0]=x"], "scaleDown.policies[0]: expected a map"),
        (["values.pilot.autoscaleBehavior.scaleUp.selectPolicy=x"], "selectPolicy: the text"),
        (["values.pilot.env=x"], "spec.values.pilot.env: expected a map"),
        (["components.pilot.k8s.hpaSpec=x"], "spec.components.pilot.k8s.hpaSpec: expected a map"),
    ],
)
def test_mistakes_in_settings_are_sentences(settings, says):
    with pytest.raises(OperatorError) as caught:
        resolve("default", [], settings)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"components": {"ingressGateways": [{"enabled": True}]}}, "spec.components.ingressGateways[0].name"),
        ({"components": {"ingressGateways": [3]}}, "spec.components.ingressGateways[0]: expected an object"),
        ({"components": {"ingressGateways": {"name": "a"}}}, "spec.components.ingressGateways: expected a list"),
        ({"components": "all"}, "spec.components: expected an object"),
        ({"meshConfig": {"nonsense": 1}}, "spec.meshConfig.nonsense: unknown field"),
        ("all", "spec: expected an object"),
    ],
)
def test_mistakes_in_files_are_sentences(spec, says):
    with pytest.raises(OperatorError) as caught:
        operator.specification(document(spec))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"policies": []}, "policies: expected a list of at least one policy"),
        ({"policies": [{"type": "Pods", "value": 1, "periodSeconds": 3600}]}, "from 1 to 1800"),
        ({"stabilizationWindowSeconds": 3601}, "from 0 to 3600"),
    ],
)
def test_an_autoscaler_that_kubernetes_would_refuse_is_refused_before(wrong, says):
    behavior = {"scaleDown": wrong}
    for spec in (
        {"components": {"pilot": {"k8s": {"hpaSpec": {"behavior": behavior}}}}},
        {"values": {"gateways": {"istio-ingressgateway": {"autoscaleBehavior": behavior}}}},
    ):
        with pytest.raises(OperatorError, match=says):
            resolve("default", [spec], [])


def test_a_file_of_another_kind_is_refused():
    with pytest.raises(OperatorError, match="IstioOperator"):
        operator.specification({"kind": "Pod"})


def test_target_port_defaults_to_port():
    gateway = {"name": "edge", "enabled": True, "k8s": {"service": {"ports": [{"name": "http2", "port": 80}]}}}
    found = objects(resolve("minimal", [{"components": {"ingressGateways": [gateway]}}], []))
    assert found[("Service", "edge")]["spec"]["ports"] == [
        {"protocol": "TCP", "targetPort": 80, "name": "http2", "port": 80}
    ]


# --- paths of --set -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a.b", ["a", "b"]),
        ("a[0].b[-1]", ["a", 0, "b", -1]),
        ("a[name:x].b", ["a", ("name", "x"), "b"]),
        (r"labels.istio\.io/rev", ["labels", "istio.io/rev"]),
        ("a[0][1]", ["a", 0, 1]),
    ],
)
def test_paths_are_read_as_istioctl_reads_them(text, steps):
    assert paths.parse(text) == steps


@pytest.mark.parametrize("text", ["", "a.", ".a", "a[0", "a[]", "a[-2]", "[0]"])
def test_bad_paths_are_refused(text):
    with pytest.raises(ValueError, match=r"\S"):
        paths.parse(text)


def test_an_egress_gateway_is_switched_on_as_in_istios_task():
    given = ["components.egressGateways[0].name=istio-egressgateway", "components.egressGateways[0].enabled=true"]
    found = resolve("minimal", [], given)
    assert ("Deployment", "istio-egressgateway") in objects(found)
    assert found.warnings == []


def test_items_are_appended_and_found_by_name():
    found = resolve(
        "default",
        [],
        [
            "meshConfig.extensionProviders[-1].name=authz",
            "meshConfig.extensionProviders[name:authz].envoyExtAuthzHttp.service=authz.default.svc.cluster.local",
            "meshConfig.extensionProviders[name:authz].envoyExtAuthzHttp.port=8000",
            "components.ingressGateways[name:istio-ingressgateway].namespace=edge",
        ],
    )
    provider = {"name": "authz", "envoyExtAuthzHttp": {"service": "authz.default.svc.cluster.local", "port": 8000}}
    assert found.spec["meshConfig"]["extensionProviders"] == [provider]
    assert found.spec["components"]["ingressGateways"][0]["namespace"] == "edge"


def test_strings_stay_strings():
    """As in Istio's documentation of DNS proxying."""
    found = resolve("default", [], ["meshConfig.defaultConfig.proxyMetadata.ISTIO_META_DNS_CAPTURE=true"])
    assert found.spec["meshConfig"]["defaultConfig"]["proxyMetadata"] == {"ISTIO_META_DNS_CAPTURE": "true"}


# --- revisions ----------------------------------------------------------------------------------------------------


def test_istioctl_finds_by_its_labels_what_belongs_to_a_revision():
    """It removes what has the revision's label, the installation's namespace, and a component that is not shared."""
    parts = manifests.render(resolve("demo", [{"revision": "canary"}], []))
    for obj in (o for part in parts for o in part.objects):
        labels = obj["metadata"].get("labels", {})
        component = labels.get("operator.istio.io/component")
        assert (labels.get("istio.io/rev") == "canary") == (component in ("Pilot", "IngressGateways", "EgressGateways"))
        if component:
            assert labels["install.operator.istio.io/owning-resource-namespace"] == "istio-system"


def test_a_revision_shares_nothing_with_the_default_one_but_definitions_and_namespace():
    default, canary = objects(resolve("minimal", [], [])), objects(resolve("minimal", [], ["revision=canary"]))
    assert {kind for kind, _ in default.keys() & canary.keys()} == {"Namespace", "CustomResourceDefinition"}
    istiod = canary[("Deployment", "istiod-canary")]
    assert istiod["spec"]["template"]["metadata"]["labels"]["istio.io/rev"] == "canary"
    hook = canary[("MutatingWebhookConfiguration", "istio-sidecar-injector-canary")]["webhooks"][0]
    assert hook["clientConfig"]["service"]["name"] == "istiod-canary"
    services = [default[("Service", "istiod")], canary[("Service", "istiod-canary")]]
    labels = istiod["spec"]["template"]["metadata"]["labels"]
    assert [selectors.subset(s["spec"]["selector"], labels) for s in services] == [False, True]


SPACES = [
    {},
    {"istio-injection": "enabled"},
    {"istio-injection": "disabled"},
    {"istio.io/rev": "default"},
    {"istio.io/rev": "canary"},
    {"istio.io/rev": "prod"},
    {"istio-injection": "enabled", "istio.io/rev": "canary"},
]
PODS = [
    {},
    {"sidecar.istio.io/inject": "true"},
    {"sidecar.istio.io/inject": "false"},
    {"istio.io/rev": "canary"},
    {"istio.io/rev": "prod", "sidecar.istio.io/inject": "true"},
]
EXPECTED = {
    0: ["", "default", "", "canary", "prod"],
    1: ["default", "default", "", "default", "default"],
    2: ["", "", "", "", ""],
    3: ["default", "default", "", "default", "default"],
    4: ["canary", "canary", "", "canary", "canary"],
    5: ["prod", "prod", "", "prod", "prod"],
    6: ["default", "default", "", "default", "default"],
}


@pytest.mark.parametrize("space", range(len(SPACES)))
def test_a_pod_is_injected_once_and_by_the_revision_it_chose(space):
    """With the revisions default and canary, and the tag prod."""
    configs = {
        "default": webhooks.injector("istio-sidecar-injector", Revision()),
        "canary": webhooks.injector("istio-sidecar-injector-canary", Revision("canary")),
        "prod": webhooks.injector("istio-revision-tag-prod", Revision("canary"), "prod"),
    }
    namespace = {"kubernetes.io/metadata.name": "shop", **SPACES[space]}
    chosen = [
        ",".join(
            name
            for name, config in configs.items()
            for hook in config["webhooks"]
            if selectors.matches(hook["namespaceSelector"], namespace)
            and selectors.matches(hook["objectSelector"], pod)
        )
        for pod in PODS
    ]
    assert chosen == EXPECTED[space]


def test_without_istiod_other_controllers_get_on_with_their_objects():
    """cert-manager's CertificateRequests, Gateways of another class: nobody could write them while istiod was down."""
    for tag, default, names in (("", True, 2), ("", False, 1), ("default", True, 1)):
        config = webhooks.validator("v", Revision(), default, tag)
        policies = {"Fail": [], "Ignore": []}
        for hook in config["webhooks"]:
            policies[hook["failurePolicy"]] += [
                (group, plural) for r in hook["rules"] for group in r["apiGroups"] for plural in r["resources"]
            ]
        assert {group for group, _ in policies["Fail"]} == {g for g in kinds.groups() if g.endswith("istio.io")}
        others = [(k.group, k.plural) for k in kinds.owned() if not k.group.endswith("istio.io")]
        assert sorted(r for r in policies["Ignore"] if r[0]) == sorted(others * names)
        assert ("cert-manager.io", "certificates") in others


# --- upgrades -----------------------------------------------------------------------------------------------------


def test_an_upgrade_keeps_the_settings_and_what_was_edited_by_hand():
    asked = resolve(
        "demo",
        [{"components": {"egressGateways": [{"name": "istio-egressgateway", "enabled": False}]}}],
        ["meshConfig.outboundTrafficPolicy.mode=REGISTRY_ONLY"],
    )
    edited = {"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}, "connectTimeout": "3s"}
    here = state.Installation(
        Revision(), "1.0", asked.profile, tuple(asked.overlays), tuple(asked.settings), mesh=edited
    )
    again = here.operator([], ["meshConfig.accessLogFile=/dev/stdout"])
    assert again.spec["meshConfig"] == {**edited, "accessLogFile": "/dev/stdout"}
    assert ("Deployment", "istio-egressgateway") not in objects(again)
    assert any("accessLogFile" in line and line.startswith("+") for line in state.changes(here.operator(), again))
    assert not any(line.startswith("-") for line in state.changes(here.operator(), again))


class Objects:
    """An API server that keeps what it is given, by kind, namespace and name, and merges patches."""

    def __init__(self):
        self.kept = {}

    async def get(self, kind, namespace, name):
        return self.kept.get((kind.kind, namespace, name))

    async def list(self, kind, namespace="", labels="", **_):  # noqa: ARG002
        ready = {"observedGeneration": 1, "updatedReplicas": 1, "readyReplicas": 1, "replicas": 1}
        return [{"status": ready, **o} for (k, n, _), o in self.kept.items() if (k, n) == (kind.kind, namespace)], ""

    async def create(self, kind, obj):
        self.kept[kind.kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"]] = obj

    async def patch(self, kind, namespace, name, change):
        key = (kind.kind, namespace, name)
        self.kept[key] = patch.merge(self.kept[key], change)
        return self.kept[key]

    async def delete(self, kind, namespace, name):
        return self.kept.pop((kind.kind, namespace, name), None) is not None


def test_what_helm_has_installed_is_known_as_helms():
    """lateen upgrade would give it the default profile's gateways, and take its objects from Helm."""
    client = Objects()

    async def found(**meta):
        meta = {"name": "istiod", "namespace": "istio-system", **meta}
        await client.create(kinds.DEPLOYMENT, {"metadata": meta, "spec": {}})
        return (await state.installed(client))["default"]

    notes = {"meta.helm.sh/release-name": "mesh", "meta.helm.sh/release-namespace": "istio-system"}
    labels = {"app": "istiod", "istio.io/rev": "default"}
    helms = labels | {"app.kubernetes.io/managed-by": "Helm"}
    here = asyncio.run(found(labels=helms, annotations=notes))
    assert 'revision default is the Helm release "mesh"' in here.helms
    assert "helm upgrade mesh CHART -n istio-system" in here.helms
    assert not asyncio.run(found(labels=labels, annotations=notes)).helms
    record = {"metadata": {"name": Revision().installation, "namespace": "istio-system"}, "data": {}}
    asyncio.run(client.create(kinds.CONFIG_MAP, record))
    assert not asyncio.run(found(labels=helms, annotations=notes)).helms, "it has been taken over before"


def test_settings_that_are_taken_back_leave_nothing_behind():
    plain = resolve("minimal", [], [])
    names = ["nodeSelector", "strategy", "hpaSpec", "podDisruptionBudget", "deploymentAnnotations"]
    patched = {"path": "spec.template.spec.hostAliases[0].ip", "value": "192.0.2.7"}
    overlays = {"overlays": [{"kind": "Deployment", "name": "istiod", "patches": [patched]}]}
    asked = resolve("minimal", [{"components": {"pilot": {"k8s": {n: OPTIONS[n] for n in names} | overlays}}}], [])
    client = Objects()

    def install(now, before=()):
        parts = [p for p in manifests.render(now) if p.title == "Istiod"]
        asyncio.run(installer.install(client, parts, lambda _: contextlib.nullcontext(), 1, before))
        return {key: client.kept[key] for key in sorted(client.kept)}

    first = install(plain)
    client.kept["Deployment", "istio-system", "istiod"]["spec"]["replicas"] = 1
    scaled = install(asked, manifests.render(plain))
    assert ("HorizontalPodAutoscaler", "istio-system", "istiod") in scaled
    assert scaled["Deployment", "istio-system", "istiod"]["spec"]["replicas"] == 1
    assert install(plain, manifests.render(asked)) == first


def installing(client, settings, before=(), spec=None):
    """Install over what was asked for before; the parts, and the steps that were told."""
    told = []

    def step(title):
        told.append(title)
        return contextlib.nullcontext()

    parts = [p for p in manifests.render(resolve("demo", [spec] if spec else [], settings)) if p.title != "Istio core"]
    asyncio.run(installer.install(client, parts, step, 1, before))
    return parts, told


def of(client, *words):
    return {(kind, name) for kind, _, name in client.kept if any(word in name for word in words)}


def test_what_the_settings_no_longer_ask_for_is_removed(monkeypatch):
    """lateen upgrade --set components.cni.enabled=false: Istio prunes, too."""

    async def available(*_):
        pass

    monkeypatch.setattr(installer, "wait_available", available)
    client = Objects()
    parts, _ = installing(client, ["components.cni.enabled=true"])
    assert ("DaemonSet", "istio-cni-node") in of(client, "cni")
    theirs = ("ServiceAccount", "istio-system", "istio-egressgateway-service-account")
    client.kept[theirs] = patch.merge(client.kept[theirs], {"metadata": {"labels": {"istio.io/rev": "canary"}}})
    _, told = installing(client, ["profile=default"], parts)
    assert told[-1] == "Deployment istio-system/istio-egressgateway, DaemonSet istio-system/istio-cni-node removed"
    assert of(client, "cni", "egress") == {("ServiceAccount", theirs[2])}, "another revision has taken it over"
    assert of(client, "ingress") >= {("Deployment", "istio-ingressgateway"), ("Service", "istio-ingressgateway")}


def test_what_was_to_be_removed_is_removed_by_the_next_attempt_if_one_fails(monkeypatch):
    """A slow cluster: the settings that named the egress gateway have been replaced by then."""
    fails = False

    async def available(*_):
        if fails:
            raise TimeoutError("not ready after 120 s: istiod")

    monkeypatch.setattr(installer, "wait_available", available)
    client = Objects()

    def attempt(settings, before):
        parts = manifests.render(resolve("demo", [], settings))
        asyncio.run(installer.install(client, parts, lambda _: contextlib.nullcontext(), 1, before))
        return parts

    first = attempt([], [])
    fails, changed = True, ["profile=default"]
    with pytest.raises(TimeoutError):
        attempt(changed, first)
    assert ("Deployment", "istio-egressgateway") in of(client, "egress")
    fails = False
    attempt(changed, manifests.render(resolve("demo", [], changed)))  # what is recorded now
    assert of(client, "egress") == set()
    record = client.kept["ConfigMap", "istio-system", Revision().installation]
    assert installer.LEAVING not in record["metadata"].get("annotations", {})


def test_a_gateway_that_moves_leaves_its_namespace_unless_another_one_is_there(monkeypatch):
    async def available(*_):
        pass

    monkeypatch.setattr(installer, "wait_available", available)

    def at(namespace):
        return {"components": {"ingressGateways": [{"name": "edge", "enabled": True, "namespace": namespace}]}}

    for another in (False, True):
        client = Objects()
        parts, _ = installing(client, [], spec=at("first"))
        if another:
            labels = {"operator.istio.io/component": "IngressGateways"}
            client.kept["Deployment", "first", "another"] = {"metadata": {"name": "another", "labels": labels}}
        installing(client, [], parts, at("second"))
        left = {(kind, name) for kind, namespace, name in client.kept if namespace == "first"}
        rights = {("Role", "istiod-secrets"), ("RoleBinding", "istiod-secrets"), ("Deployment", "another")}
        assert left == (rights if another else set())


def test_a_purge_takes_the_rights_of_other_clusters_control_planes():
    """They are of the chart base, or of create-remote-secret, and of no revision."""
    client = Objects()
    for obj in reader.objects():
        asyncio.run(client.create(kinds.of(obj), obj))
    name = "istio-reader-clusterrole-istio-system"
    for purge, left in ((False, {"ClusterRole", "ClusterRoleBinding"}), (True, set())):
        asyncio.run(installer.uninstall(client, [], [Revision()], purge))
        assert {kind for kind, _, n in client.kept if n == name} == left
    theirs = {"kind": "ClusterRole", "metadata": {"name": name, "labels": {"app": "somebody-elses"}}}
    client.kept["ClusterRole", "", name] = theirs
    asyncio.run(installer.uninstall(client, [], [Revision()], True))
    assert client.kept["ClusterRole", "", name] is theirs


def test_nothing_is_installed_where_a_namespace_is_missing():
    gateway = {"name": "edge", "enabled": True, "namespace": "edges"}
    spec = {"components": {"cni": {"enabled": True, "namespace": "plugins"}, "ingressGateways": [gateway]}}
    client = Objects()
    with pytest.raises(
        CliError, match=r'"plugins" does not exist and the namespace "edges" .* kubectl create namespace pl'
    ):
        asyncio.run(carry_out(client, resolve("minimal", [spec], []), 1, None))
    assert client.kept == {}
    client.kept["Namespace", "", "plugins"] = {}
    found = manifests.render(resolve("minimal", [spec], []))
    assert asyncio.run(installer.absent_namespaces(client, found)) == ["edges"]


class Definitions:
    """An API server that has these CustomResourceDefinitions."""

    def __init__(self, *found):
        self.found = {d["metadata"]["name"]: d for d in found}

    async def get(self, _kind, _namespace, name):
        return self.found.get(name)


@pytest.mark.parametrize("kind", [k for k in kinds.owned() if not k.group.endswith(".istio.io")], ids=str)
def test_definitions_of_other_projects_that_are_there_are_left_as_they_are(kind):
    ours = crds.crd(kind)
    others = {**ours, "metadata": {"name": ours["metadata"]["name"], "labels": {"app": "somebody-elses"}}}
    assert asyncio.run(installer._is_others(Definitions(others), ours))
    assert not asyncio.run(installer._is_others(Definitions(ours), ours))
    assert not asyncio.run(installer._is_others(Definitions(), ours))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("x", "gatewayClasses: expected a map"),
        ({"istio": "x"}, "gatewayClasses.istio: expected a map"),
        ({"istio": {"secret": {}}}, "gatewayClasses.istio.secret: there is no such object; there are: deployment, "),
        ({"istio": {"service": "ClusterIP"}}, "gatewayClasses.istio.service: expected a map"),
        ({"Not A Name": {}}, '"Not A Name" is not the name of a class'),
        ({"Istio": {}}, '"Istio" is not the name of a class'),
        ({"a" * 64: {}}, "use at most 63 lower-case letters"),
    ],
)
def test_parameters_of_a_class_that_would_leave_its_gateways_without_proxies(given, says):
    with pytest.raises(OperatorError, match=re.escape(says)):
        resolve("default", [{"values": {"gatewayClasses": given}}], [])


def test_the_name_of_a_class_may_be_as_long_as_a_label():
    (made,) = core.classes({"c" * 63: {}}, Revision("1-32"))
    assert max(map(len, made["metadata"]["labels"].values())) == 63


def test_ports_are_open_where_the_network_denies_by_default():
    found = objects(resolve("default", [], ["values.global.networkPolicy.enabled=true"]))
    for name, own in (("istiod", {8080, 15010, 15012, 15014, 15017}), ("istio-ingressgateway", {15020, 15090})):
        policy, pods = found["NetworkPolicy", name]["spec"], found["Deployment", name]["spec"]["template"]
        assert policy["podSelector"]["matchLabels"].items() <= pods["metadata"]["labels"].items()
        listened = {p["containerPort"] for p in pods["spec"]["containers"][0]["ports"]}
        assert {p["port"] for p in policy["ingress"][0]["ports"]} == listened | own
    assert not any(kind == "NetworkPolicy" for kind, _ in objects(resolve("default", [], [])))


def test_no_variable_is_there_twice():
    """kubectl apply --server-side refuses: duplicate entries for key [name="TRUST_DOMAIN"]"""
    asked = [{"name": n, "value": "x"} for n in ("TRUST_DOMAIN", "CLUSTER_ID", "PROXY_IMAGE")]
    gateway = {"name": "istio-ingressgateway", "k8s": {"env": [{"name": "TRUST_DOMAIN", "value": "x"}]}}
    components = {"pilot": {"k8s": {"env": asked}}, "ingressGateways": [gateway]}
    values = {"pilot": {"envVarFrom": [{"name": "PROXY_IMAGE", "value": "y"}]}}
    found = objects(resolve("default", [{"components": components, "values": values}], []))
    for name in ("istiod", "istio-ingressgateway"):
        env = found[("Deployment", name)]["spec"]["template"]["spec"]["containers"][0]["env"]
        assert len({e["name"] for e in env}) == len(env)
        assert {"name": "TRUST_DOMAIN", "value": "x"} in env
    istiod = found[("Deployment", "istiod")]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "PROXY_IMAGE", "value": "y"} in istiod
    assert {"name": "CLUSTER_ID", "value": "Kubernetes"} in istiod  # as before: the installation's own
