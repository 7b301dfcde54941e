"""The cluster's domain and name are spelled in one place, and one setting of an installation changes them."""

import ast
import json
import pathlib

import judge

from lateen.analysis import analyze
from lateen.analysis.snapshot import Snapshot, Source
from lateen.api import kinds
from lateen.control.settings import Settings
from lateen.control.world import World
from lateen.inject import pods
from lateen.install import manifests, operator
from lateen.install.effects import VARIABLES
from lateen.kit import yamldoc
from lateen.mesh.model import Mesh
from lateen.mesh.settings import Cluster
from lateen.mesh.views import Views
from lateen.wire import names

SOURCE = pathlib.Path(__file__).parents[2] / "src" / "lateen"
HOME = SOURCE / "api" / "domain.py"


def literals(path):
    """(line, text) of the strings that a module works with; those that stand alone are documentation."""
    tree = ast.parse(path.read_text())
    alone = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    for n in ast.walk(tree):
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in alone:
            yield n.lineno, n.value


def test_only_one_module_contains_the_cluster_domain():
    found = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path != HOME
        for line, text in literals(path)
        if "cluster.local" in text
    ]
    assert found == []
    assert any("cluster.local" in text for _, text in literals(HOME))


def test_no_module_but_one_names_the_cluster():
    allowed = (
        "analysis/rules/mesh.py",
        "cli/precheck.py",
        "cluster/apiserver/openapi.py",
        "control/registryz.py",
    )  # the product
    found = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path != HOME and str(path.relative_to(SOURCE)) not in allowed
        for line, text in literals(path)
        if text == "Kubernetes"
    ]
    assert found == []
    assert any(text == "Kubernetes" for _, text in literals(HOME))


# --- another domain ------------------------------------------------------------------------------------------------

OTHER = Cluster("east", "example.internal")
OBJECTS = """
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default, uid: a}
spec: {clusterIP: 10.96.1.1, ports: [{name: http, port: 9080}], selector: {app: reviews}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: default, uid: b, labels: {app: client}}
spec: {serviceAccountName: client, containers: [{name: app}]}
status: {podIP: 10.244.0.9}
---
apiVersion: v1
kind: Pod
metadata: {name: gateway, namespace: default, uid: f, labels: {istio: ingressgateway}}
spec: {serviceAccountName: gateway, containers: [{name: istio-proxy}]}
status: {podIP: 10.244.0.10}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: short, namespace: default, uid: c}
spec: {hosts: [reviews], http: [{timeout: 2s, route: [{destination: {host: reviews.default.svc}}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: full, namespace: default, uid: d}
spec: {host: reviews.default.svc.example.internal, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: default, uid: e, annotations: {kubernetes.io/ingress.class: istio}}
spec:
  defaultBackend: {service: {name: reviews, port: {number: 9080}}}
"""


def resources(cluster, name="client"):
    world = World("istio-system", lambda: None, cluster=cluster)
    for obj in yamldoc.objects(OBJECTS.replace(OTHER.domain, cluster.domain)):
        kind = next(k for k in kinds.TABLE.values() if k.id == kinds.group_kind(obj))
        world.changed(kind, ("default", obj["metadata"]["name"]), None, obj)
    views = Views(Mesh(world.objects))
    pod = world.objects.pods[("default", name)]
    found = judge.messages(views.of(pod, "router" if name == "gateway" else "sidecar"))
    return found, str({k: str(v) for k, v in found.items()})


def test_every_name_of_a_cluster_follows_its_domain():
    found, text = resources(OTHER)
    assert "cluster.local" not in text.replace("spiffe://cluster.local", "")
    assert "Kubernetes" not in text
    assert "outbound|9080|v1|reviews.default.svc.example.internal" in found[names.CDS]
    host = found[names.VHDS]["9080/reviews.default.svc.example.internal:9080"]
    assert host.routes[0].route.timeout.seconds == 2
    assert list(host.domains)[:5] == [
        "reviews.default.svc.example.internal",
        "reviews.default.svc.example.internal.",
        "reviews",
        "reviews.default",
        "reviews.default.svc",
    ]


def test_an_ingress_leads_to_a_service_of_the_domain():
    found, _ = resources(OTHER, "gateway")
    (host,) = judge.routes(found, "http.80").virtual_hosts
    assert host.routes[0].route.cluster == "outbound|9080||reviews.default.svc.example.internal"


def test_another_domain_gives_the_same_resources_under_other_names():
    ours, others = resources(Cluster())[0], resources(OTHER)[0]
    back = {t: [n.replace("example.internal", "cluster.local") for n in found] for t, found in others.items()}
    assert back == {t: list(found) for t, found in ours.items()}


def test_the_analysis_knows_the_domain_of_the_installation():
    values = {"global": {"proxy": {"clusterDomain": "example.internal"}}}
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "istio-sidecar-injector", "namespace": "istio-system"},
        "data": {"values": json.dumps(values)},
    }
    rule = next(yamldoc.objects(OBJECTS.split("---")[4]))
    route = next(yamldoc.objects(OBJECTS.split("---")[3]))
    route["spec"]["http"][0]["route"][0]["destination"] = {"host": "reviews", "subset": "v1"}
    service = next(yamldoc.objects(OBJECTS))
    wanted = ["virtualservice.DestinationRuleAnalyzer", "virtualservice.DestinationHostAnalyzer"]
    objects = [Source(o) for o in (service, route, rule)]
    assert not analyze(Snapshot([*objects, Source(config)]), wanted)
    assert analyze(Snapshot(objects), wanted)  # elsewhere, the rule is for another host


def test_one_setting_of_an_installation_reaches_istiod_gateways_and_injected_pods():
    given = ["values.global.proxy.clusterDomain=example.internal", "values.global.multiCluster.clusterName=east"]
    made = [o for part in manifests.render(operator.resolve("demo", [], given)) for o in part.objects]
    containers = {
        o["metadata"]["name"]: o["spec"]["template"]["spec"]["containers"][0] for o in made if o["kind"] == "Deployment"
    }
    environment = {e["name"]: e.get("value", "") for e in containers["istiod"]["env"]}
    assert Settings.of(environment).cluster == OTHER
    assert "istiod.istio-system.svc.example.internal" in Settings.of(environment).host_names
    gateway = containers["istio-ingressgateway"]
    assert "$(POD_NAMESPACE).svc.example.internal" in gateway["args"]
    assert {"name": "ISTIO_META_CLUSTER_ID", "value": "east"} in gateway["env"]
    values = next(o for o in made if o["metadata"]["name"] == "istio-sidecar-injector" and o["kind"] == "ConfigMap")
    injected = pods.settings(json.loads(values["data"]["values"]))
    assert (injected.cluster_domain, injected.cluster_name) == ("example.internal", "east")


GIVEN_BY_THE_INSTALLATION = {"CLUSTER_DOMAIN", "CLUSTER_ID", "POD_NAME", "POD_NAMESPACE", "REVISION", "SERVICE_ACCOUNT"}


def test_every_variable_that_istiod_reads_can_be_set_at_installation():
    class Read(dict):
        def get(self, name, default=None):
            self[name] = True
            return {"EXTERNAL_CA": "ISTIOD_RA_KUBERNETES_API", "K8S_SIGNER": "a.example/b"}.get(name, default)

    environment = Read()
    Settings.of(environment)
    assert set(environment) - GIVEN_BY_THE_INSTALLATION == set(VARIABLES)
