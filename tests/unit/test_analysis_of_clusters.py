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


def codes(*clusters, own=""):
    sources = [Source(d) for d in yamldoc.objects(RULE + own)]
    sources += [Source(yamldoc.load(text), cluster=name) for name, text in clusters]
    return {m.kind.code for m in analyze(Snapshot(sources))}


def test_a_host_of_another_cluster_of_the_mesh_is_found():
    assert "IST0101" in codes()
    assert not codes(("east", SHOP)) & {"IST0101", "LAT0101"}


def test_a_service_that_differs_between_clusters_is_named():
    assert "IST0170" in codes(("east", SHOP.replace("port: 80", "port: 81")), own="---" + SHOP)
    assert "IST0170" not in codes(("east", SHOP), own="---" + SHOP)
