"""Findings about a mesh of several clusters: hosts that exist only in another one."""

from lateen.analysis import Snapshot, Source, analyze
from lateen.kit import yamldoc

RULE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: default}
spec: {hosts: [shop], http: [{route: [{destination: {host: shop}}]}]}
"""
SHOP = """
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: default}
spec: {selector: {app: shop}, ports: [{name: http, port: 80}]}
"""


def found(*clusters, own=""):
    sources = [Source(d) for d in yamldoc.objects(RULE + own)]
    sources += [Source(yamldoc.load(text), cluster=name) for name, text in clusters]
    return analyze(Snapshot(sources))


def codes(*clusters, own=""):
    return {m.kind.code for m in found(*clusters, own=own)}


def test_a_host_of_another_cluster_of_the_mesh_is_found():
    assert "IST0101" in codes()
    assert not codes(("east", SHOP)) & {"IST0101", "LAT0101"}


def test_a_service_that_differs_between_clusters_is_named():
    assert "IST0170" in codes(("east", SHOP.replace("port: 80", "port: 81")), own="---" + SHOP)
    assert "IST0170" not in codes(("east", SHOP), own="---" + SHOP)


SUBSET = """---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: shop, namespace: default}
spec: {host: shop, subsets: [{name: v2, labels: {version: v2}}]}
"""


def test_a_subset_may_have_its_pods_in_another_cluster():
    assert "IST0173" in codes(own=SUBSET + "---" + SHOP)
    assert "IST0173" not in codes(("east", SHOP), own=SUBSET + "---" + SHOP)
    assert "IST0173" not in codes(("east", SHOP), own=SUBSET)


def test_a_service_of_another_cluster_has_findings_there_alone():
    """Its port has no protocol, its annotations are unknown, a condition of its status is negative."""
    faulty = SHOP.replace("name: http, ", "").replace("default}", "default, annotations: {sidecar.istio.io/nope: a}}")
    faulty += "status: {conditions: [{type: istio.io/WaypointBound, status: 'False'}]}\n"
    assert codes(own="---" + faulty) >= {"IST0108", "IST0118", "IST0171"}
    assert codes(("east", faulty)) == set()


def test_another_cluster_may_have_the_name_of_the_analyzed_one():
    both = found(("Kubernetes", SHOP.replace("port: 80", "port: 81")), own="---" + SHOP)
    (said,) = (m for m in both if m.kind.code == "IST0170")
    assert said.source.cluster == ""
    assert "[Kubernetes Kubernetes (analyzed)]" in said.text
