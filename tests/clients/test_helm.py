"""The real Helm 3 and Helm 4 with our charts, each against an embedded cluster with nothing in it (``binaries``)."""

import re
import sys

import binaries
import pytest
import yaml
from world import ROOT, Mesh

from lateen.install import absent

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", params=["helm3", "helm4"])
def helm(request, tmp_path_factory):
    program = binaries.needed(request.param)
    tmp = tmp_path_factory.mktemp("helm")
    mesh = Mesh(tmp / "home", tmp)
    charts = tmp / "charts"
    try:
        started = mesh.lateen("cluster", "start", ok=False)
        if "cannot create namespaces" in started.stderr:
            pytest.skip(started.stderr.strip())
        assert started.returncode == 0, started.stderr
        mesh.run(sys.executable, str(ROOT / "tools" / "charts.py"), str(charts))

        def run(verb, release, *argv, namespace="istio-system", **more):
            chart = [str(charts / argv[0]), *argv[1:]] if argv else []
            return mesh.run(program, verb, release, *chart, "-n", namespace, **more)

        run.mesh, run.program, run.charts = mesh, program, charts
        # The autoscaler has set the replicas, and Helm 4 applies at the server, where that is a conflict.
        run.forced = ("--force-conflicts",) if request.param == "helm4" else ()
        yield run
    finally:
        mesh.lateen("cluster", "delete", ok=False)


def test_helm_finds_nothing_wrong_with_the_charts(helm):
    said = helm.mesh.run(helm.program, "lint", *map(str, sorted(helm.charts.iterdir()))).stdout
    assert "5 chart(s) linted, 0 chart(s) failed" in said
    assert "[WARNING]" not in said


def by_name(text):
    found = [o for o in yaml.load_all(text, yaml.CSafeLoader) if o]
    return {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]): o for o in found}


@pytest.mark.parametrize("settings", [(), ("revision=canary", "pilot.autoscaleEnabled=true", "global.hub=example.com")])
def test_templates_are_what_lateen_generates(helm, settings):
    """Apart from the settings, whose form differs, and the record that lateen upgrade starts from."""
    ours = ("revision" if s.startswith("revision") else f"values.{s.partition('=')[0]}" for s in settings)
    asked = [w for s, name in zip(settings, ours, strict=True) for w in ("--set", f"{name}={s.partition('=')[2]}")]
    wanted = by_name(helm.mesh.lateen("manifest", "generate", "--set", "profile=minimal", *asked).stdout)
    given = [word for s in settings for word in ("--set", s)]
    found = by_name(helm("template", "istio-base", "base", "--include-crds").stdout)
    kept = {k: o for k, o in found.items() if k[0] == "CustomResourceDefinition"}
    for crd in kept.values():
        assert crd["metadata"]["annotations"].pop("helm.sh/resource-policy") == "keep"
        if not crd["metadata"]["annotations"]:
            del crd["metadata"]["annotations"]
    assert kept == {k: o for k, o in wanted.items() if k[0] == "CustomResourceDefinition"}
    found = by_name(helm("template", "istiod", "istiod", *given).stdout)
    rest = {k: o for k, o in wanted.items() if k[0] not in ("CustomResourceDefinition", "ConfigMap")}
    assert {k: o for k, o in found.items() if k[0] != "ConfigMap"} == rest
    maps = {k for k in wanted if k[0] == "ConfigMap" and "istio-installation" not in k[2]}
    assert {k for k in found if k[0] == "ConfigMap"} == maps


def test_values_of_pilot_may_be_at_the_top_as_in_istios_chart(helm):
    given = "{0}replicaCount=3,{0}rollingMaxSurge=0,{0}env.MAX_WORKLOAD_CERT_TTL=1h,{0}cni.enabled=true"
    found = [helm("template", "istiod", "istiod", "--set", given.format(at)).stdout for at in ("", "pilot.")]
    assert found[0] == found[1] != helm("template", "istiod", "istiod").stdout


def test_values_copied_from_istios_charts_are_taken_where_they_ask_for_nothing_else(helm):
    """helm show values istio/gateway > values.yaml"""
    plain = helm("template", "gw", "gateway").stdout
    given = ("kind=Deployment", "rbac.enabled=true", "revision=", "platform=", "autoscaling.enabled=false")
    assert helm("template", "gw", "gateway", *(w for value in given for w in ("--set", value))).stdout == plain
    done = helm("template", "gw", "gateway", "--set", "kind=DaemonSet", ok=False)
    assert "'/kind'" in done.stderr
    assert "Deployment" in done.stderr


@pytest.mark.parametrize("chart", ["base", "istiod", "gateway", "cni"])
def test_istios_own_defaults_change_nothing(helm, chart, tmp_path):
    """helm show values istio/istiod > values.yaml"""
    whole = {}
    for path, value in absent.ANYWAY[chart].items():
        *above, last = path.split(".")
        at = whole
        for step in above:
            at = at.setdefault(step, {})
        at[last] = value[0] if isinstance(value, tuple) else value
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(whole))
    plain, found = (helm("template", "it", chart, *more).stdout for more in ((), ("-f", str(file))))
    # the injector's ConfigMap has all values below global, of which it reads its own
    assert [w for w in found.splitlines() if not w.startswith("  values: ")] == [
        w for w in plain.splitlines() if not w.startswith("  values: ")
    ]


THEIRS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: certificates.cert-manager.io, labels: {app.kubernetes.io/name: cert-manager}}
spec:
  group: cert-manager.io
  names: {kind: Certificate, plural: certificates, singular: certificate, listKind: CertificateList}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""


def test_charts_install_a_mesh_that_serves(helm):
    """Also beside cert-manager, whose definitions are its own."""
    mesh = helm.mesh
    mesh.apply(THEIRS)
    helm("install", "istio-base", "base", "--create-namespace")
    labels = ("crd", "certificates.cert-manager.io", "-o", "jsonpath={.metadata.labels}")
    assert "Helm" not in mesh.get(*labels), "it is left to cert-manager"
    assert "httproutes" in mesh.get("crd", "httproutes.gateway.networking.k8s.io", "-o", "name")
    helm("upgrade", "istio-base", "base")
    assert "httproutes" in mesh.get("crd", "httproutes.gateway.networking.k8s.io", "-o", "name")
    helm("install", "istiod", "istiod", "--wait", "--set", "pilot.resources=null")
    helm("install", "istio-ingressgateway", "gateway", "--wait", "--set", "resources=null")
    mesh.kubectl("label", "namespace", "default", "istio-injection=enabled")
    mesh.kubectl("apply", "-f", str(ROOT / "samples/httpbin/httpbin.yaml"))
    mesh.kubectl("rollout", "status", "deployment/httpbin", "--timeout=60s")
    mesh.apply("""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: ["*"], gateways: [web], http: [{route: [{destination: {host: httpbin, port: {number: 8000}}}]}]}
""")
    mesh.until(lambda: mesh.page("/status/200")[0] == 200, what="an answer through the gateway")
    assert "istio-proxy" in mesh.get("pod", mesh.pod("httpbin"), "-o", "jsonpath={.spec}")


def test_an_upgrade_changes_what_its_values_say(helm):
    mesh = helm.mesh
    more = ("--set", "pilot.resources=null", "--set", "meshConfig.accessLogFile=/dev/stdout", "--wait")
    helm("upgrade", "istiod", "istiod", *more)
    assert "accessLogFile" in mesh.get("configmap", "istio", "-n", "istio-system", "-o", "jsonpath={.data.mesh}")

    def logged():
        mesh.page("/status/418")
        gateway = mesh.pod("istio-ingressgateway", "istio-system")
        return "/status/418" in mesh.kubectl("logs", gateway, "-n", "istio-system").stdout

    mesh.until(logged, what="a line in the access log")


def test_a_rollback_restores_the_release_before(helm):
    mesh = helm.mesh
    config = ("configmap", "istio", "-n", "istio-system", "-o", "jsonpath={.data.mesh}")
    helm("upgrade", "istiod", "istiod", "--set", "pilot.resources=null", "--wait", *helm.forced)
    assert "accessLogFile" not in mesh.get(*config)
    mesh.run(helm.program, "rollback", "istiod", "-n", "istio-system", "--wait")
    assert "accessLogFile" in mesh.get(*config)
    mesh.kubectl("rollout", "status", "deployment/istiod", "-n", "istio-system", "--timeout=60s")
    mesh.until(lambda: mesh.page("/status/200")[0] == 200, what="an answer through the gateway")


def test_an_autoscaler_has_the_replicas_and_a_budget_keeps_one(helm):
    mesh = helm.mesh
    more = ("pilot.resources=null", "pilot.autoscaleEnabled=true", "pilot.autoscaleMin=2", "revisionTags={prod}")
    more += ("global.defaultPodDisruptionBudget.enabled=true",)
    helm("upgrade", "istiod", "istiod", "--wait", *(word for value in more for word in ("--set", value)))

    def replicas():
        return mesh.get("deployment", "istiod", "-n", "istio-system", "-o", "jsonpath={.status.readyReplicas}")

    mesh.until(lambda: replicas() == "2", 60, "two replicas")
    assert "1" in mesh.get("pdb", "istiod", "-n", "istio-system", "-o", "jsonpath={.spec.minAvailable}")
    assert "istio-revision-tag-prod" in mesh.get("mutatingwebhookconfigurations", "-o", "name")
    helm("upgrade", "istiod", "istiod", "--set", "pilot.resources=null", "--wait", *helm.forced)
    assert "istiod" not in mesh.get("hpa,pdb", "-n", "istio-system", "-o", "name")
    mesh.until(lambda: replicas() == "1", 60, "one replica")


@pytest.mark.parametrize("verb", ["upgrade", "install"])
def test_what_helm_has_installed_is_left_to_helm(helm, verb):
    done = helm.mesh.lateen(verb, "-y", ok=False)
    assert done.returncode
    assert "helm upgrade istiod" in done.stderr


def test_values_that_have_no_effect_are_refused(helm):
    done = helm("upgrade", "istiod", "istiod", "--set", "pilot.traceSampling=50", ok=False)
    assert done.returncode
    assert "traceSampling" in done.stderr
    for setting, where in {
        "pilot.replicaCount=two": "replicaCount",
        "pilot.autoscaleEnabled=perhaps": "autoscaleEnabled",
        "pilot.tolerations=all": "tolerations",
        "pilot.nodeSelector=ssd": "nodeSelector",
        "global.proxy.logLevel[0]=debug": "logLevel",
    }.items():
        done = helm("upgrade", "istiod", "istiod", "--set", setting, ok=False)
        assert done.returncode
        assert re.search(rf"\bpilot\W{where}|\bproxy\W{where}", done.stderr), done.stderr
        assert re.search(r"[gG]ot:? \w+, want|Invalid type. Expected: \w+, given: \w+|got \w+, want", done.stderr), (
            done.stderr
        )
    done = helm("install", "other", "istiod", namespace="default", ok=False)
    assert "into the namespace istio-system" in done.stderr


def test_uninstalled_charts_leave_nothing_that_rejects(helm):
    mesh = helm.mesh
    for release in ("istio-ingressgateway", "istiod"):
        helm("uninstall", release)
    hooks = mesh.get("mutatingwebhookconfigurations,validatingwebhookconfigurations", "-o", "name")
    assert "istio" not in hooks
    maps = ("configmaps", "-n", "istio-system", "-o", "name")
    mesh.until(lambda: "istio-accepted-config" not in mesh.get(*maps), what="the end of istiod's own ConfigMap")
    helm("uninstall", "istio-base")
    assert "virtualservice" in mesh.get("virtualservices", "web", "-o", "name"), "users' objects stay"
    mesh.kubectl("run", "plain", "--image=curlimages/curl", "--", "sleep", "60")
