"""AuthorizationPolicy and PeerAuthentication between real proxies."""

import json
import re
import time

import pytest

pytestmark = pytest.mark.system

POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: default{annotations}}}
spec: {spec}
"""


@pytest.fixture
def policies(mesh):
    """Applies policies; removes them all at the end."""

    def apply(**specs):
        text = "---".join(POLICY.format(name=n, spec=json.dumps(s), annotations="") for n, s in specs.items())
        mesh.apply(text)

    yield apply
    mesh.kubectl("delete", "authorizationpolicies,peerauthentications", "--all", "-n", "default")
    mesh.until(lambda: code(mesh, "ratings", "details:9080/details/0") == 200, what="no policy")
    mesh.until(lambda: mesh.page()[0] == 200, what="no policy at the gateway's side")


def code(mesh, source, target, *more):
    """Of a request from a pod's application."""
    out = mesh.inside(source, "curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", *more, target, ok=False)
    return int(out.stdout or 0)


def becomes(mesh, wanted, source, target, *more):
    """Requests on connections that were there before may get one more answer by the old rules."""
    mesh.until(lambda: code(mesh, source, target, *more) == wanted, 15, f"{source} -> {target}: {wanted}")


DETAILS = {"selector": {"matchLabels": {"app": "details"}}}


def test_a_policy_without_rules_denies_everything(mesh, policies):
    policies(nothing=DETAILS)
    becomes(mesh, 403, "ratings", "details:9080/details/0")
    denied = "RBAC: access denied"
    mesh.until(lambda: mesh.inside("ratings", "curl", "-s", "details:9080/details/0").stdout == denied, what=denied)
    assert code(mesh, "details", "ratings:9080/ratings/0") == 200


def test_only_the_named_caller_gets_in(mesh, policies):
    principal = "cluster.local/ns/default/sa/bookinfo-productpage"
    policies(callers={**DETAILS, "rules": [{"from": [{"source": {"principals": [principal]}}]}]})
    becomes(mesh, 403, "ratings", "details:9080/details/0")
    assert code(mesh, "productpage", "details:9080/details/0") == 200


def test_deny_wins_and_knows_paths_methods_and_headers(mesh, policies):
    policies(
        all={**DETAILS, "rules": [{}]},
        some={
            **DETAILS,
            "action": "DENY",
            "rules": [
                {"to": [{"operation": {"paths": ["/details/1"]}}]},
                {"to": [{"operation": {"methods": ["DELETE"]}}]},
                {"when": [{"key": "request.headers[x-bad]", "values": ["yes"]}]},
            ],
        },
    )
    becomes(mesh, 403, "ratings", "details:9080/details/1")
    assert code(mesh, "ratings", "details:9080/details/0") == 200
    becomes(mesh, 403, "ratings", "details:9080/details/0", "-X", "DELETE")
    becomes(mesh, 403, "ratings", "details:9080/details/0", "-H", "x-bad: yes")


def test_a_policy_in_the_root_namespace_is_for_all(mesh, policies):
    rules = [{"to": [{"operation": {"paths": ["/productpage"]}}]}]
    mesh.apply(
        POLICY.format(name="mesh", annotations="", spec=json.dumps({"action": "DENY", "rules": rules})).replace(
            "namespace: default", "namespace: istio-system"
        )
    )
    try:
        mesh.until(lambda: mesh.page()[0] == 403, what="refused by the gateway itself")
        becomes(mesh, 403, "ratings", "productpage:9080/productpage")
    finally:
        mesh.kubectl("delete", "authorizationpolicy", "mesh", "-n", "istio-system")
    mesh.until(lambda: mesh.page()[0] == 200, what="open again")


def test_a_dry_run_denies_nothing(mesh, policies):
    dry = ', annotations: {istio.io/dry-run: "true"}'
    mesh.apply(
        POLICY.format(name="dry", annotations=dry, spec=json.dumps({**DETAILS, "action": "DENY", "rules": [{}]}))
    )

    def counted():
        assert code(mesh, "ratings", "details:9080/details/0") == 200
        stats = mesh.lateen("x", "envoy-stats", "deploy/details-v1").stdout
        return any("istio_dry_run_deny_" in s and not s.endswith(": 0") for s in stats.splitlines())

    mesh.until(counted, what="counted what it would have refused")
    where = "localhost:15020/stats/prometheus?only=standard"
    shown = mesh.inside("details", "curl", "-s", where, container="istio-proxy").stdout
    denied = (
        r'envoy_http_rbac{http_conn_manager_prefix="inbound_.*authz_dry_run_action="deny",.*_result="denied"} [1-9]'
    )
    assert re.search(denied, shown), "what the console's dashboards are drawn from"


def test_the_object_says_that_its_proxies_have_it_and_authz_check_shows_it(mesh, policies):
    policies(seen={**DETAILS, "action": "DENY", "rules": [{"to": [{"operation": {"ports": ["1"]}}]}]})

    def status():
        found = json.loads(mesh.get("authorizationpolicy", "seen", "-o", "json")).get("status", {})
        return {c["type"]: (c["status"], c["message"]) for c in found.get("conditions", [])}

    mesh.until(lambda: status().get("Reconciled", ("",))[0] == "True", what="the condition")
    assert status()["Accepted"][0] == "True"
    shown = mesh.lateen("x", "authz", "check", "deploy/details-v1").stdout
    assert shown.splitlines()[1].split() == ["DENY", "seen.default", "1"]


def test_one_port_can_be_left_without_mutual_tls(mesh, policies):
    mesh.apply(
        """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: details, namespace: default}
spec:
  selector: {matchLabels: {app: details}}
  mtls: {mode: STRICT}
  portLevelMtls: {"9080": {mode: DISABLE}}
"""
    )

    def plain():
        listeners = mesh.lateen("pc", "listener", "deploy/details-v1", "--port", "15006").stdout
        mine = [line for line in listeners.splitlines() if "Addr: *:9080" in line]
        return mine and not any("Trans: tls" in line for line in mine)

    mesh.until(plain, what="only plain text on the port")
    becomes(mesh, 200, "ratings", "details:9080/details/0")


STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
"""


@pytest.fixture(scope="module")
def collector(mesh):
    mesh.lateen("addons", "apply", "prometheus")


@pytest.mark.parametrize("built_in", ["", "yes"], ids=["real kubectl", "built in"])
def test_before_strict_is_applied_lateen_kubectl_lists_who_calls_in_plaintext(mesh, collector, built_in, monkeypatch):
    monkeypatch.setitem(mesh.environment, "LATEEN_KUBECTL_BUILT_IN", built_in)
    where = ("exec", "-n", "istio-system", "deploy/istiod", "--", "curl", "-s", "-o", "/dev/null")

    def warned():
        """Calls that are refused are none, so the policy goes at once; and the first one only begins the series."""
        for _ in range(3):
            mesh.kubectl(*where, "details.default:9080/details/0", ok=False)
            time.sleep(1.5)
        told = mesh.lateen("kubectl", "apply", "-f", "-", stdin=STRICT).stderr
        mesh.kubectl("delete", "peerauthentication", "default", "-n", "default")
        return "pod istiod-" in told and "details.default: about" in told

    mesh.until(warned, 60, what="the caller")
