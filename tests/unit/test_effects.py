"""The table of an installation's fields tells the truth: each field that works changes an object, no other one does."""

import inspect
import re
import typing

import pytest

from lateen.api.config import Config, fields, unwrap
from lateen.cni import daemon
from lateen.control.settings import Settings
from lateen.install import effects, features, manifests, operator, options
from lateen.install.operator import OperatorError, resolve
from lateen.kit.jsons import copy, dig

SAMPLES = {
    "affinity": {"nodeAffinity": {"a": 1}},
    "allocateLoadBalancerNodePorts": True,
    "autoscaleBehavior": {"scaleUp": {}},
    "autoscaleEnabled": True,
    "autoscaleMax": 7,
    "autoscaleMin": 3,
    "clusterIPs": ["10.0.0.7"],
    "cpu": {"targetAverageUtilization": 7},
    "envVarFrom": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "a"}}}],
    "externalIPs": ["192.0.2.7"],
    "healthCheckNodePort": 30077,
    "hpaSpec": {"maxReplicas": 7},
    "image": "another",
    "imagePullPolicy": "Always",
    "externalTrafficPolicy": "Local",
    "internalTrafficPolicy": "Local",
    "ipFamilies": ["IPv6"],
    "ipFamilyPolicy": "PreferDualStack",
    "sessionAffinity": "ClientIP",
    "label": {"app": "another"},
    "loadBalancerSourceRanges": ["192.0.2.0/24"],
    "podDisruptionBudget": {"maxUnavailable": 7},
    "ports": [{"port": 7777, "name": "x"}],
    "publishNotReadyAddresses": True,
    "pullPolicy": "Always",
    "readinessProbe": {"periodSeconds": 77},
    "replicaCount": 7,
    "resources": {"limits": {"cpu": "7"}},
    "rollingMaxSurge": 7,
    "rollingMaxUnavailable": 7,
    "seLinuxOptions": {"level": "s0"},
    "seccompProfile": {"type": "RuntimeDefault"},
    "securityContext": {"runAsUser": 77},
    "serviceAccount": {"annotations": {"a": "b"}},
    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 7}},
    "strategy": {"type": "Recreate"},
    "terminationGracePeriodSeconds": 7,
    "type": "NodePort",
    "updateStrategy": {"type": "OnDelete"},
}
"""For fields that are neither texts, lists of objects nor maps of texts."""
LISTS = ("initContainers", "tolerations", "topologySpreadConstraints", "volumeMounts", "volumes")
GATEWAYS = ("ingressGateways", "egressGateways")
BASE = {
    "components": {
        "cni": {"enabled": True},
        **{k: [{"name": f"istio-{k[:-8]}gateway", "enabled": True}] for k in GATEWAYS},
    }
}


def sample(name):
    if name in SAMPLES:
        return SAMPLES[name]
    if name in LISTS:
        return [{"name": "mine"}]
    if name.endswith(("Annotations", "Labels", "elector")):
        return {"a": "b"}
    return "another"


def placed(path, value):
    """A specification with the field; gateways are those of BASE."""
    spec = copy(BASE)
    at, *steps = path.split(".")
    node = spec
    for step in (at, *steps[:-1]):
        node = node.setdefault(step[:-2], [{}])[0] if step.endswith("[]") else node.setdefault(step, {})
    node[steps[-1]] = value
    return spec


def rendered(spec):
    """Without the settings, which repeat what was asked for."""
    parts = manifests.render(resolve("default", [spec], []))
    skipped = ("ConfigMap", "CustomResourceDefinition")
    return [o for p in parts for o in p.objects if o["kind"] not in skipped]


def leaf_of(path):
    """The field below a component, as it is set by itself."""
    for mark in (".k8s.service.", ".k8s."):
        if mark in path:
            head, _, rest = path.partition(mark)
            return head + mark + rest.partition(".")[0].removesuffix("{}").removesuffix("[]")
    head = next(
        h for h in ("values.pilot.", "values.cni.", *(f"values.{g}." for g in effects.GATEWAYS)) if path.startswith(h)
    )
    return head + path.removeprefix(head).partition(".")[0].removesuffix("[]")


ELSEWHERE = ("overlays", "cniBinDir", "cniConfDir", "excludeNamespaces", "repair", "cni")
"""Fields with tests of their own."""
WORKING = dict.fromkeys(
    leaf_of(p)
    for p in effects.EFFECTIVE
    if ".k8s." in p or p.startswith(("values.pilot.", "values.cni.", "values.gateways.istio-"))
)


@pytest.mark.parametrize(
    "component", ["components.pilot", "components.cni", *(f"components.{g}" for g in GATEWAYS), "values"]
)
def test_each_field_that_works_changes_an_object_and_is_not_warned_about(component):
    before = rendered(BASE)
    silent, warned = [], []
    chosen = [p for p in WORKING if p.startswith(component) and p.rpartition(".")[2] not in ELSEWHERE]
    assert len(chosen) > 10
    for path in chosen:
        name = path.rpartition(".")[2]
        value = sample(name)
        if name == "env":
            variable = "EXCLUDE_NAMESPACES" if ".cni." in path else "TRUST_DOMAIN"
            value = [{"name": variable, "value": "x"}] if path.endswith("k8s.env") else {variable: "x"}
        spec = placed(path, value)
        if name.startswith("autoscale") or name == "cpu":
            at = dig(spec, *path.split(".")[:-1])
            at["autoscaleEnabled"] = True
            without = {k: v for k, v in at.items() if k != name} | {"autoscaleEnabled": name != "autoscaleEnabled"}
            other = placed(path.rpartition(".")[0], without)
        else:
            other = None
        if rendered(spec) == (rendered(other) if other else before):
            silent.append(path)
        warned += resolve("default", [spec], []).warnings
    assert (silent, warned) == ([], [])


def test_variables_of_the_plugin_are_those_that_its_daemon_reads():
    read = set(re.findall(r"""env(?:iron)?(?:\.get\(|\[)["']([A-Z_]+)["']""", inspect.getsource(daemon)))
    assert read == set(effects.OF_PLUGIN)
    settings = ["components.cni.k8s.env[0].name=NODE_NAME", "values.cni.env.AMBIENT_DNS_CAPTURE=true"]
    said = resolve("default", [], settings).warnings
    assert [any(name in text for text in said) for name in ("env[NODE_NAME]", "env.AMBIENT_DNS_CAPTURE")] == [True] * 2


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PILOT_TRACE_SAMPLING", 100, "use meshConfig.defaultConfig.tracing.sampling"),
        ("PILOT_SKIP_VALIDATE_TRUST_DOMAIN", True, "trustDomainAliases"),
        ("PILOT_SKIP_VALIDATE_TRUST_DOMAIN", "T", "trustDomainAliases"),
        ("PILOT_ENABLE_IP_AUTOALLOCATE", "false", "always on"),
        ("PILOT_ENABLE_QUIC_LISTENERS", True, "not implemented"),
        ("VERIFY_CERTIFICATE_AT_CLIENT", False, "use meshConfig.verifyCertificateAtClient"),
        ("PILOT_DEBOUNCE_AFTER", "1s", "insides"),
        ("ENABLE_INBOUND_RETRY_POLICY", True, "Istio has removed it"),
        ("PILOT_HTTP1", True, 'no such variable; did you mean "PILOT_HTTP10"?'),
        ("QUITE_ANOTHER", "x", "no such variable"),
    ],
)
def test_istios_variables_without_an_effect_say_what_to_use(name, value, says):
    for spec in (
        {"values": {"pilot": {"env": {name: value}}}},
        {"components": {"pilot": {"k8s": {"env": [{"name": name, "value": value}]}}}},
    ):
        (text,) = resolve("default", [spec], []).warnings
        assert f"env.{name} has no effect" in text or f"env[{name}] has no effect" in text
        assert says in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PILOT_ENABLE_IP_AUTOALLOCATE", True),
        ("ENABLE_AUTO_SNI", "1"),
        ("VERIFY_CERTIFICATE_AT_CLIENT", "true"),
        ("PILOT_ENABLE_AMBIENT", False),
        ("PILOT_CERT_PROVIDER", "istiod"),
    ],
)
def test_a_variable_that_asks_for_what_happens_anyway_is_no_matter(name, value):
    assert resolve("default", [{"values": {"pilot": {"env": {name: value}}}}], []).warnings == []


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PILOT_HTTP10", "yes", "neither true nor false"),
        ("ENABLE_NATIVE_SIDECARS", "maybe", "neither true nor false, nor auto"),
        ("PILOT_JWT_PUB_KEY_REFRESH_INTERVAL", 20, "PILOT_JWT_PUB_KEY_REFRESH_INTERVAL: "),
        ("MAX_WORKLOAD_CERT_TTL", "1ms", "at least 1s"),
        ("CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE", 100, "between 0 and 100"),
    ],
)
def test_a_value_with_which_istiod_would_not_start_is_refused_before(name, value, says):
    with pytest.raises(OperatorError, match=rf"spec.values.pilot.env.{name}: .*") as e:
        resolve("default", [{"values": {"pilot": {"env": {name: value}}}}], [])
    assert says in str(e.value)
    with pytest.raises(ValueError, match=name):
        Settings.of({name: str(value)})


@pytest.mark.parametrize(
    ("value", "native"),
    [("True", True), ("1", True), (True, True), ("F", False), ("false", False), ("auto", None), ("", None)],
)
def test_native_sidecars_are_asked_for_as_in_istio_which_reads_a_boolean(value, native):
    text = str(value).lower() if value is True else value
    assert Settings.of({"ENABLE_NATIVE_SIDECARS": text}).native_sidecars is native
    spec = {"values": {"pilot": {"env": {"ENABLE_NATIVE_SIDECARS": value or "auto"}}}}
    assert resolve("default", [spec], []).warnings == []


def test_every_variable_is_in_one_list():
    assert set(effects.VARIABLES) & set(features.IDLE) == set()
    assert set(features.CHECKS) <= set(effects.VARIABLES)


UNDECLARED = {
    "pilot": {"ports": "x", "type": "NodePort", "serviceAccount": {"annotations": {"a": "b"}}, "loadBalancerIP": "x"},
    "cni": {"replicaCount": 3, "envVarFrom": [{"name": "A"}], "autoscaleEnabled": True, "serviceAnnotations": "x"},
    "gateways.istio-ingressgateway": {"envVarFrom": [{"name": "A"}], "serviceAccountAnnotations": {"a": "b"}},
}


@pytest.mark.parametrize("component", UNDECLARED)
def test_values_that_a_component_does_not_have_change_nothing_and_are_warned_about(component):
    for name, value in UNDECLARED[component].items():
        spec = copy(BASE)
        node = spec
        for step in ("values", *component.split(".")):
            node = node.setdefault(step, {})
        node[name] = value
        assert rendered(spec) == rendered(BASE), name
        assert any(name in text for text in resolve("default", [spec], []).warnings), name


def typed(kind, path=""):
    for name, field in fields(kind).items():
        inner, at = unwrap(field), f"{path}.{name}".lstrip(".")
        item = unwrap(typing.get_args(inner)[0]) if typing.get_origin(inner) is tuple else inner
        many = "[]" if item is not inner else ""
        if isinstance(item, type) and issubclass(item, Config):
            yield from typed(item, at + many)
        else:
            yield at


def test_every_other_field_says_why_it_has_no_effect_or_is_refused():
    bare = [e.removesuffix(".**").removesuffix("{}").removesuffix("[]") for e in effects.EFFECTIVE]
    untold = [
        path
        for path in typed(options.Operator)
        if path not in ("meshConfig", "values")
        and path not in effects.ONLY
        and not effects.reason(path.replace("[]", "[0]"))
        and not any(path == e or path.startswith((f"{e}.", f"{e}[")) for e in bare)
    ]
    assert untold == []


@pytest.mark.parametrize("path", effects.ONLY)
def test_what_would_ask_for_another_mesh_is_refused(path):
    other = True if path.endswith("enabled") else "elsewhere"
    with pytest.raises(OperatorError, match=f"spec.{path}: "):
        resolve("default", [], [f"{path}={'true' if other is True else other}"])
    only, _ = effects.ONLY[path]
    assert resolve("default", [placed(path, only) if "." in path else {path: only}], []).warnings == []


def test_images_of_single_components():
    settings = ["hub=h", "tag=t", "components.pilot.hub=p", "components.cni.enabled=true", "components.cni.tag=007"]
    settings += ["components.ingressGateways[0].tag=g", "values.cni.image=mine", "values.pilot.image=a/b:c"]
    found = {o["metadata"]["name"]: o for o in rendered_with(settings) if o["kind"] in ("Deployment", "DaemonSet")}
    images = {n: o["spec"]["template"]["spec"]["containers"][0]["image"] for n, o in found.items()}
    assert images == {"istiod": "a/b:c", "istio-cni-node": "h/mine:007", "istio-ingressgateway": "h/proxyv2:g"}
    (istiod,) = (o for o in rendered_with(["hub=h", "tag=t", "components.pilot.tag=x"]) if is_istiod(o))
    container = istiod["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "h/pilot:x"
    assert {"name": "PROXY_IMAGE", "value": "h/proxyv2:t"} in container["env"]


def rendered_with(settings):
    return [o for p in manifests.render(resolve("default", [], settings)) for o in p.objects]


def is_istiod(obj):
    return (obj["kind"], obj["metadata"]["name"]) == ("Deployment", "istiod")


def test_the_plugin_in_a_namespace_of_its_own():
    parts = manifests.render(
        resolve("minimal", [], ["components.cni.enabled=true", "components.cni.namespace=kube-system"])
    )
    (plugin,) = (p for p in parts if p.title == "CNI")
    assert plugin.daemons == (("kube-system", "istio-cni-node"),)
    assert {o["metadata"].get("namespace") for o in plugin.objects} == {"kube-system", None}
    subjects = [s["namespace"] for o in plugin.objects for s in o.get("subjects", [])]
    assert subjects == ["kube-system"]


def test_without_the_base_no_definitions_are_installed():
    kinds = {o["kind"] for o in rendered_with(["components.base.enabled=false"])}
    assert "CustomResourceDefinition" not in kinds
    assert "Deployment" in kinds


# --- overlays -----------------------------------------------------------------------------------------------------


def overlaid(*patches, kind="Deployment", name="istiod", component="pilot", **more):
    """istiod's container and the whole object, with patches: (path, value), or (path,) to delete."""
    given = [{"path": p[0], **({"value": p[1]} if p[1:] else {})} for p in patches]
    overlay = {"kind": kind, "name": name, "patches": given, **more}
    found = resolve("default", [{"components": {component: {"k8s": {"overlays": [overlay]}}}}], [])
    assert found.warnings == []
    return next(
        o for p in manifests.render(found) for o in p.objects if (o["kind"], o["metadata"]["name"]) == (kind, name)
    )


def test_overlays_change_add_and_delete_fields_as_istioctl_does():
    """As in https://istio.io/latest/docs/setup/additional-setup/customize-installation/."""
    obj = overlaid(
        ("spec.template.spec.containers.[name:discovery].args.[discovery]", "serve"),
        ("spec.template.spec.containers.[name:discovery].args.[-1]", "--more"),
        ("spec.template.spec.containers[name:discovery].env[name:POD_NAME].valueFrom.fieldRef.fieldPath", "x"),
        ("spec.template.spec.containers[name:discovery].env[name:TRUST_DOMAIN]",),
        ("spec.template.spec.containers[name:discovery].ports", [{"containerPort": 1}]),
        ("spec.template.spec.containers[name:discovery].envFrom[0].secretRef.name", "s"),
        ("spec.template.spec.hostNetwork", True),
        ("spec.template.spec.containers[0].resources.requests.cpu",),
        (r"metadata.labels.example\.com/team", "a"),
        apiVersion="apps/v1",
    )  # fmt: skip
    pod = obj["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["args"] == ["serve", "--more"]
    env = {e["name"]: e for e in container["env"]}
    assert env["POD_NAME"]["valueFrom"]["fieldRef"]["fieldPath"] == "x"
    assert "TRUST_DOMAIN" not in env
    assert container["ports"] == [{"containerPort": 1}]
    assert container["envFrom"] == [{"secretRef": {"name": "s"}}]
    assert pod["hostNetwork"] is True
    assert container["resources"]["requests"] == {"memory": "2Gi"}
    assert obj["metadata"]["labels"]["example.com/team"] == "a"


def test_overlays_reach_every_component():
    crd = "gateways.networking.istio.io"
    obj = overlaid(("metadata.annotations.a", "b"), kind="CustomResourceDefinition", name=crd, component="base")
    assert obj["metadata"]["annotations"]["a"] == "b"
    assert overlaid(("rules", []), kind="ClusterRole", name="istiod-istio-system")["rules"] == []
    gateway = {"name": "istio-ingressgateway"}
    patch = {"path": "spec.sessionAffinity", "value": "ClientIP"}
    gateway["k8s"] = {"overlays": [{"kind": "Service", "name": gateway["name"], "patches": [patch]}]}
    found = resolve("default", [{"components": {"ingressGateways": [gateway]}}], [])
    services = [o for p in manifests.render(found) for o in p.objects if o["kind"] == "Service"]
    assert [o["spec"].get("sessionAffinity") for o in services] == [None, "ClientIP"]


AT = r"spec\.components\.pilot\.k8s\.overlays\[0\]"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "istoid"}, rf'{AT}: the component has no Deployment "istoid"; its Deployments are istiod'),
        ({"kind": "Deploiment"}, rf'{AT}: the component has no Deploiment "istiod"; it has: ClusterRole, '),
        ({"path": "spec.template.spec.containers[name:x].args"}, rf'{AT}\.patches\[0\]: ".*containers" has no item'),
        ({"path": "spec.replicas.x"}, '"spec.replicas" is not an object'),
        ({"path": "spec.replicas[0]"}, '"spec.replicas" is not a list'),
        ({"path": "spec..x"}, "is not a path"),
        ({"path": ""}, "ends with a dot"),
        ({"path": "metadata.name"}, r"patches\[0\]: metadata.name cannot be changed"),
        ({"path": "metadata"}, "metadata cannot be changed like that: metadata.name says which object"),
        ({"path": "metadata", "value": {"name": "istiod", "namespace": "istio-system"}}, "the label istio.io/rev says"),
        ({"path": "metadata.labels", "value": None}, "the label istio.io/rev says which installation"),
        ({"path": r"metadata.labels.istio\.io/rev"}, "the label istio.io/rev says which installation"),
        ({"path": "metadata.labels"}, "the label istio.io/rev says which installation"),
        ({"path": "apiVersion", "value": None}, "apiVersion says which object"),
        (
            {"apiVersion": "extensions/v1beta1"},
            rf'{AT}\.apiVersion: "extensions/v1beta1" is not .* Deployment: apps/v1',
        ),
    ],
)
def test_an_overlay_that_fits_nothing_is_refused_with_its_place(arguments, says):
    arguments = dict(arguments)
    path, value = arguments.pop("path", "spec.replicas"), arguments.pop("value", "x")
    with pytest.raises(OperatorError, match=says):
        overlaid((path, value), **arguments)


def test_an_overlay_without_a_name_is_refused():
    document = {"apiVersion": operator.API_VERSION, "kind": "IstioOperator"}
    spec = {"components": {"pilot": {"k8s": {"overlays": [{"kind": "Service"}]}}}}
    with pytest.raises(OperatorError, match=r"overlays\[0\]\.name: is required"):
        operator.specification(document | {"spec": spec})
