"""Traffic rules between real proxies."""

import pytest

pytestmark = pytest.mark.system

SOURCES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings, namespace: default}
spec:
  hosts: [ratings]
  http:
  - match: [{sourceLabels: {app: details}}]
    directResponse: {status: 418}
  - match: [{sourceNamespace: elsewhere}]
    directResponse: {status: 419}
  - route: [{destination: {host: ratings}}]
"""


def code(mesh, source):
    out = mesh.inside(
        source, "curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "ratings:9080/ratings/0", ok=False
    )
    return int(out.stdout or 0)


def test_a_rule_can_be_for_some_clients_only(mesh):
    mesh.apply(SOURCES)
    try:
        mesh.until(lambda: code(mesh, "details") == 418, 15, "the rule for details")
        assert code(mesh, "productpage") == 200
        assert code(mesh, "reviews") == 200
    finally:
        mesh.kubectl("delete", "virtualservice", "ratings")
    mesh.until(lambda: code(mesh, "details") == 200, 15, "no rule")
