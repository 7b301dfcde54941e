"""Kubernetes' Ingress at the mesh's gateway."""

import judge
import meshes as mesh
import pytest
from test_gateways import pair

from lateen.analysis import Snapshot, Source, analyze, load
from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.mesh.reading import mesh_config
from lateen.control.ingress_status import changes
from lateen.mesh.configuration import settings
from lateen.mesh.dialects.ingress import SUFFIX
from lateen.mesh.model import Mesh
from lateen.wire import names

PATH = "{path: %s, pathType: %s, backend: {service: {name: %s, port: {%s}}}}"

BUCKET = "{path: /, pathType: Prefix, backend: {resource: {kind: Bucket, name: b}}}"


def path(path, kind="Prefix", service="productpage", port="number: 9080"):
    return PATH % (path, kind, service, port)


def ingress(*paths, name="web", host="web.example.com", more=""):
    return f"""
kind: Ingress
metadata: {{name: {name}}}
spec:
  ingressClassName: istio
  {more}
  rules:
  - host: "{host}"
    http:
      paths: [{", ".join(paths)}]
"""


def configuration(*documents, name="http.8080"):
    found = mesh.view(mesh.objects("---".join(documents)), "ingress", "istio-system")
    return judge.routes(judge.messages(found), name)


def shown(host):
    """(path, answer) of each route, in order."""
    out = []
    for r in host.routes:
        taken = r.match.path or (
            f"{r.match.path_separated_prefix}(/...)" if r.match.path_separated_prefix else f"{r.match.prefix}..."
        )
        cluster = r.route.cluster.partition("||")[2].partition(".")[0]
        out.append((taken, cluster or r.direct_response.status))
    return out


def test_exact_paths_go_first_and_longer_ones_before_shorter_ones():
    (host,) = configuration(
        ingress(path("/"), path("/a", "Exact", "ratings"), path("/a/b", service="reviews"), path("/a"))
    ).virtual_hosts
    assert shown(host) == [
        ("/a", "ratings"),
        ("/a/b(/...)", "reviews"),
        ("/a(/...)", "productpage"),
        ("/...", "productpage"),
    ]


def test_a_prefix_matches_whole_elements_and_a_trailing_slash_makes_no_difference():
    (host,) = configuration(ingress(path("/a/"))).virtual_hosts
    assert shown(host) == [("/a(/...)", "productpage")]


def test_paths_of_one_host_from_two_objects_are_one_list_and_the_older_is_first_among_equals():
    older, younger = ingress(path("/a")), ingress(path("/a", service="ratings"), path("/a/b"), name="other")
    (host,) = configuration(older, younger).virtual_hosts
    assert shown(host) == [("/a/b(/...)", "productpage"), ("/a(/...)", "productpage"), ("/a(/...)", "ratings")]


def test_the_default_backend_gets_what_no_rule_matches():
    default = "defaultBackend: {service: {name: reviews, port: {number: 9080}}}"
    hosts = {h.domains[0]: shown(h) for h in configuration(ingress(path("/a"), more=default)).virtual_hosts}
    assert hosts == {
        "web.example.com": [("/a(/...)", "productpage"), ("/...", "reviews")],
        "*": [("/...", "reviews")],
    }


def test_a_port_may_be_named():
    (host,) = configuration(ingress(path("/", port="name: http"))).virtual_hosts
    assert host.routes[0].route.cluster == "outbound|9080||productpage.default.svc.cluster.local"


@pytest.mark.parametrize(
    ("wanted", "answer", "says"),
    [
        (path("/", service="nobody"), "nobody", "there is no Service default/nobody"),
        (path("/", port="number: 81"), "productpage", "Service default/productpage has no port 81"),
        (path("/", port="name: other"), 503, "Service default/productpage has no port other"),
        (
            "{path: /, pathType: Prefix, backend: {resource: {kind: Bucket, name: b}}}",
            503,
            "its backend is not a Service",
        ),
    ],
)
def test_a_missing_backend_answers_503_and_the_outcome_says_why(wanted, answer, says):
    """A cluster that no proxy knows answers so by itself."""
    text = ingress(path("/a"), wanted)
    (host,) = configuration(text).virtual_hosts
    assert shown(host) == [("/a(/...)", "productpage"), ("/...", answer)]
    (outcome,) = Mesh(mesh.objects(text)).outcomes()
    assert str(outcome.of) == "Ingress default/web"
    (problem,) = outcome.problems
    assert problem.says == says
    assert problem.path == ("spec", "rules", 0, "http", "paths", 1, "backend")


def test_a_missing_service_that_comes_later_is_no_problem_any_more():
    model = Mesh(mesh.objects(ingress(path("/", service="later"))))
    assert model.outcomes()
    service = o.Service("default", "later", "10.96.1.1", (o.ServicePort("http", 9080, 9080, "TCP"),))
    model.advance(model.instant.put(kinds.SERVICE, ("default", "later"), service))
    assert model.outcomes() == ()


def test_routes_and_resources_name_the_ingress():
    found = configuration(ingress(path("/")))
    route = found.virtual_hosts[0].routes[0]
    assert route.name == "ingress/default/web"
    config = route.metadata.filter_metadata["istio"]["config"]
    assert config == "/apis/networking.k8s.io/v1/namespaces/default/ingress/web"
    view = mesh.view(mesh.objects(ingress(path("/"))), "ingress", "istio-system")
    assert {s.origins for s in view.gateway.servers} == {("Ingress default/web",)}


def test_tls_is_for_its_secrets_hosts_and_exact_hosts_precede_the_default(tmp_path):
    default = "defaultBackend: {service: {name: reviews, port: {number: 9080}}}"
    more = f"{default}\n  tls: [{{hosts: [web.example.com], secretName: web}}]"
    mine = pair("web.example.com")
    secret = o.Credential("istio-system", "web", mine.certificate, mine.key)
    objects = mesh.objects(ingress(path("/a"), more=more)).put(kinds.SECRET, ("istio-system", "web"), secret)
    found = mesh.view(objects, "ingress", "istio-system")
    judge.validate(found, tmp_path)
    messages = judge.messages(found)
    (chain,) = messages[names.LDS]["0.0.0.0_443"].filter_chains
    assert list(chain.filter_chain_match.server_names) == ["web.example.com"]
    (host,) = judge.routes(
        messages, f"https.443.https-443-ingress-web-default-0.web-{SUFFIX}-default.istio-system"
    ).virtual_hosts
    assert shown(host)[:2] == [("/a(/...)", "productpage"), ("/...", "reviews")]


def test_what_another_controller_serves_has_no_routes():
    text = ingress(path("/")).replace("ingressClassName: istio", "ingressClassName: nginx")
    view = mesh.view(mesh.objects(text), "ingress", "istio-system")
    assert view.gateway.servers == ()


def test_the_analysis_names_missing_backends_and_their_line():
    text = f"apiVersion: networking.k8s.io/v1{ingress(path('/', service='nobody'))}"
    text = text.replace("name: web}", "name: web, namespace: default}", 1)
    (document,) = load.yamldoc.documents(text)
    found = analyze(Snapshot([Source(document.value, "web.yaml", document.position)]))
    (m,) = [m for m in found if m.kind.code == "LAT0108"]
    assert m.text == "Requests get status 503: there is no Service default/nobody."
    assert m.reference == "web.yaml:10:43"


def addresses(text="{}", **services):
    """The addresses in the status of an Ingress, with the gateway's Services."""
    found = mesh.objects(ingress(path("/")), config=settings(mesh_config(text), "istio-system"))
    key = next(iter(found.ingresses))
    (change,) = changes(Mesh(found), {("istio-system", n): s for n, s in services.items()}, {key: {}})
    return [next(iter(i.values())) for i in change.body["status"]["loadBalancer"]["ingress"]]


def service(*ips, **spec):
    at = {"loadBalancer": {"ingress": [{"ip": ip, "ipMode": "VIP"} for ip in ips]}}
    return {"spec": {"selector": {"istio": "ingressgateway"}, **spec}, "status": at}


def test_ingresses_have_the_addresses_of_the_gateways_services_or_of_the_one_that_the_mesh_names():
    both = {"a": service("192.0.2.1"), "b": service("192.0.2.2", externalIPs=["192.0.2.3", "192.0.2.2"])}
    assert addresses(**both) == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert addresses("ingressService: b", **both) == ["192.0.2.2", "192.0.2.3"]
    elsewhere = {"c": {"spec": {"type": "ExternalName", "externalName": "lb.example.com"}}}
    assert addresses("ingressService: c", **both, **elsewhere) == ["lb.example.com"]
