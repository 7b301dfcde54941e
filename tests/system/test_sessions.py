"""Clients stay with the endpoint that has served them: the Gateway API's session persistence by real requests."""

import json
from itertools import count

import pytest

from lateen.api import crds, kinds
from lateen.kit import yamldoc

pytestmark = pytest.mark.system

ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: sessions, namespace: istio-system}
spec:
  gatewayClassName: istio
  addresses: [{type: Hostname, value: istio-ingressgateway.istio-system.svc.cluster.local}]
  listeners:
  - {name: http, port: 80, protocol: HTTP, hostname: sessions.example, allowedRoutes: {namespaces: {from: All}}}
---
apiVersion: v1
kind: Service
metadata: {name: reviews-2}
spec: {selector: {app: reviews, version: v2}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: reviews-3}
spec: {selector: {app: reviews, version: v3}, ports: [{name: http, port: 9080}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: sessions}
spec:
  parentRefs: [{name: sessions, namespace: istio-system}]
  rules:
  - matches: [{path: {value: /reviews}}]
    sessionPersistence: {sessionName: reader}
    backendRefs: [{name: reviews-2, port: 9080}, {name: reviews-3, port: 9080}]
"""
POLICY = """
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: %s}
spec:
  targetRefs: [{group: "", kind: Service, name: reviews}]
  retryConstraint: {budget: {percent: 25}, minRetryRate: {count: 3}}
  sessionPersistence: {sessionName: x-reviewer, type: Header}
"""
RETRIED = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: retried}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews}]
  rules:
  - matches: [{path: {value: /nowhere}}]
    retry: {codes: [404], attempts: 4, backoff: 25ms}
    backendRefs: [{name: reviews, port: 9080}]
"""


@pytest.fixture(scope="module")
def experimental(mesh):
    """The two kinds as the experimental channel has them."""
    mesh.apply(yamldoc.dump(crds.crd(kinds.HTTP_ROUTE, True)))
    mesh.apply(yamldoc.dump(crds.crd(kinds.X_BACKEND_TRAFFIC_POLICY, True)))
    mesh.kubectl("wait", "--for=condition=Established", "crd", "xbackendtrafficpolicies.gateway.networking.x-k8s.io")
    yield
    mesh.kubectl("delete", "crd", "xbackendtrafficpolicies.gateway.networking.x-k8s.io")
    mesh.apply(yamldoc.dump(crds.crd(kinds.HTTP_ROUTE)))


def conditions(mesh, name):
    """Of a policy, by ancestor."""
    found = json.loads(mesh.get("xbackendtrafficpolicy", name, "-o", "json"))
    return {
        (a["ancestorRef"]["kind"], a["ancestorRef"]["name"]): a["conditions"][0]["reason"]
        for a in found.get("status", {}).get("ancestors", [])
    }


def test_a_cookie_keeps_a_client_at_one_of_two_versions(mesh, experimental, tmp_path):
    fresh = count()

    def pod(jar=None):
        """Of a client that has these cookies, or is new."""
        jar = jar or tmp_path / f"new{next(fresh)}"
        code, body = mesh.page("/reviews/0", "-H", "Host: sessions.example", "-b", str(jar), "-c", str(jar))
        return json.loads(body)["podname"] if code == 200 else code

    mesh.apply(ROUTE)
    try:
        mesh.until(lambda: str(pod()).startswith("reviews-"), what="the route")
        assert len({pod() for _ in range(24)}) == 2
        for n in range(4):
            jar = tmp_path / f"client{n}"
            assert len({pod(jar) for _ in range(8)}) == 1
            assert "reader-backend" in jar.read_text()
    finally:
        mesh.kubectl("delete", "httproute/sessions", "service/reviews-2", "service/reviews-3")
        mesh.kubectl("delete", "gateway.gateway.networking.k8s.io", "sessions", "-n", "istio-system")


def test_a_policy_of_a_service_keeps_its_clients_and_limits_retries(mesh, experimental):
    def ask(*curl):
        """(pod, header of the session)"""
        done = mesh.inside("productpage", "curl", "-s", "-D-", *curl, "reviews:9080/reviews/0")
        head, _, body = done.stdout.replace("\r", "").partition("\n\n")
        said = [h.partition(": ")[2] for h in head.splitlines() if h.startswith("x-reviewer: ")]
        return json.loads(body)["podname"], said[0] if said else ""

    mesh.apply(POLICY % "first")
    try:
        mesh.until(lambda: ask()[1], what="the policy")
        assert len({ask()[0] for _ in range(24)}) == 3
        pod, session = ask()
        assert {ask("-H", f"x-reviewer: {session}")[0] for _ in range(8)} == {pod}
        mesh.until(lambda: conditions(mesh, "first") == {("Service", "reviews"): "Accepted"}, what="its status")
        mesh.apply(POLICY % "second")
        mesh.until(lambda: conditions(mesh, "second") == {("Service", "reviews"): "Conflicted"}, what="the conflict")
        fqdn = "reviews.default.svc.cluster.local"
        shown = mesh.lateen("pc", "cluster", mesh.pod("productpage"), "--fqdn", fqdn, "-o", "json").stdout
        assert '"retry_budget"' in shown
    finally:
        mesh.kubectl("delete", "xbackendtrafficpolicy", "--all")
    mesh.until(lambda: not ask()[1], what="the end of the policy")


def test_a_budget_limits_how_many_requests_are_retries(mesh, experimental):
    """Without one, each of the requests, which all fail, is tried five times."""
    asked, host = 40, "outbound|9080||reviews."

    def total():
        at = ("-c", "istio-proxy", "--", "pilot-agent", "request", "GET", "clusters")
        lines = mesh.kubectl("exec", mesh.pod("productpage"), *at).stdout.splitlines()
        return sum(int(ln.rsplit("::", 1)[1]) for ln in lines if ln.startswith(host) and "::rq_total::" in ln)

    def tried():
        before = total()
        url = f"reviews:9080/nowhere?n=[1-{asked}]"
        mesh.inside("productpage", "curl", "-s", "-Z", "--parallel-max", str(asked), "-o", "/dev/null", url)
        return total() - before

    mesh.apply(RETRIED)
    try:
        mesh.until(lambda: tried() >= 5 * asked, what="all retries")
        mesh.apply(POLICY % "budget")
        mesh.until(lambda: asked < tried() < 4 * asked, what="fewer retries")
    finally:
        mesh.kubectl("delete", "httproute/retried")
        mesh.kubectl("delete", "xbackendtrafficpolicy", "--all")
