"""Rate limits by BackendTrafficPolicy and by Istio's EnvoyFilters, asked of real proxies."""

import json
import re
import time

import pytest
from samples import NS, obj, tasks  # noqa: F401 - a fixture of this module

pytestmark = pytest.mark.system

ENVOY_GATEWAY = "gateway.envoyproxy.io/v1alpha1"
SERVICE = '[{group: "", kind: Service, name: httpbin}]'
HOUR = "limit: {requests: 3, unit: Hour}"


def policy(rules, targets=SERVICE, name="limited"):
    spec = f"{{targetRefs: {targets}, rateLimit: {{type: Local, local: {{rules: {rules}}}}}}}"
    return obj("BackendTrafficPolicy", name, spec, ENVOY_GATEWAY)


def limited(found, rules):
    """Change the rules of the service's policy, and wait until the proxy has them."""
    found.mesh.apply(policy(rules).replace("metadata: {", f"metadata: {{namespace: {NS}, "))

    def reconciled():
        got = json.loads(found.mesh.get("backendtrafficpolicy", "limited", "-n", NS, "-o", "json"))
        conditions = {c["type"]: c for c in got.get("status", {}).get("conditions", [])}
        mine = conditions.get("Reconciled", {})
        return mine.get("status") == "True" and mine.get("observedGeneration") == got["metadata"]["generation"]

    found.until(reconciled, what="the policy in the proxy")
    time.sleep(1)  # Envoy's workers take a configuration a moment after its main thread has acknowledged it


def answers(found, times, *curl, path="/get"):
    """Status -> number of answers. One version of the server alone, since each proxy counts on its own."""
    return found.codes(f"httpbin.{NS}:8000{path}", times, *curl)


@pytest.fixture(scope="module")
def one(tasks):  # noqa: F811
    """httpbin with a single pod, and with a policy: the first one of a service changes the listener, and requests on
    connections to the old one do not count."""
    tasks.mesh.kubectl("scale", "deploy/httpbin-v2", "-n", NS, "--replicas=0")
    tasks.until(lambda: tasks.mesh.get("endpoints", "httpbin", "-n", NS).count("8080") == 1, what="one endpoint")
    first = f"{{clientSelectors: [{{path: {{value: /anything/first}}}}], {HOUR}}}"
    shadow = f"{{clientSelectors: [{{path: {{value: /anything/first}}}}], {HOUR}, shadowMode: true}}"
    limited(tasks, f"[{first}, {shadow}]")
    tasks.until(lambda: answers(tasks, 4, path="/anything/first").get(429), what="the first limit")
    yield tasks
    tasks.mesh.kubectl("delete", "backendtrafficpolicy", "--all", "-n", NS)


def test_a_service_takes_so_many_requests_and_says_when_it_takes_more(one):
    limited(one, f"[{{{HOUR}}}]")
    assert answers(one, 5) == {200: 3, 429: 2}
    _, said = one.get(f"httpbin.{NS}:8000/get", "-D", "-", "-o", "/dev/null")
    head = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in said.splitlines())}
    assert head["retry-after"] == "1200"
    assert (head["x-ratelimit-limit"].split(",")[0], head["x-ratelimit-remaining"]) == ("3", "0")


def test_a_rule_is_for_what_it_selects(one):
    selected = (
        "clientSelectors: [{headers: [{name: x-plan, value: free}], methods: [{value: GET}], path: {value: /anything}}]"
    )
    limited(one, f"[{{{selected}, {HOUR}}}]")
    free = ("-H", "'x-plan: free'")
    assert answers(one, 5) == {200: 5}
    assert answers(one, 5, *free) == {200: 5}
    assert answers(one, 5, *free, "-X", "POST", path="/anything/a") == {200: 5}
    assert answers(one, 5, *free, path="/anything/a") == {200: 3, 429: 2}


def test_each_value_and_each_caller_has_a_limit_of_its_own(one):
    users = f"{{clientSelectors: [{{headers: [{{name: x-user, type: Distinct}}]}}], {HOUR}}}"
    limited(one, f"[{users}]")
    assert answers(one, 5, "-H", "'x-user: a'") == {200: 3, 429: 2}
    assert answers(one, 4, "-H", "'x-user: b'") == {200: 3, 429: 1}
    assert answers(one, 5) == {200: 5}
    callers = f'{{clientSelectors: [{{headers: [{{name: "@source.principal", type: Distinct}}]}}], {HOUR}}}'
    limited(one, f"[{callers}]")
    assert answers(one, 5) == {200: 3, 429: 2}
    script = f"for i in 1 2 3 4; do curl -s -o /dev/null -w '%{{http_code}} ' httpbin.{NS}:8000/get; done"
    assert one.mesh.inside("ratings", "sh", "-c", script).stdout.split() == ["200", "200", "200", "429"]


def test_in_shadow_mode_requests_are_counted_and_let_in(one):
    limited(one, f"[{{{HOUR}, shadowMode: true}}]")

    def counted():
        stats = one.mesh.lateen("x", "envoy-stats", "deploy/httpbin", "-n", NS).stdout
        found = (line.partition(": ") for line in stats.splitlines())
        return next(int(n) for name, _, n in found if name.endswith("_shadow.http_local_rate_limit.rate_limited"))

    before = counted()
    assert answers(one, 5) == {200: 5}
    assert counted() == before + 2


GATEWAY = obj(
    "Gateway",
    "limited",
    "{selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [l.test]}]}",
)
ROUTE = obj(
    "VirtualService",
    "limited",
    "{hosts: [l.test], gateways: [limited], http: [{route: [{destination: {host: httpbin, port: {number: 8000}}}]}]}",
)


def test_a_gateway_limits_what_it_serves(one):
    target = "[{group: networking.istio.io, kind: Gateway, name: limited}]"
    with one.applied(GATEWAY, ROUTE):
        host = ("-H", "Host: l.test")
        one.until(lambda: one.mesh.page("/get", *host)[0] == 200, what="the gateway's route")
        with one.applied(policy(f"[{{{HOUR}}}]", target, "gateway")):
            where = ("backendtrafficpolicy", "gateway", "-n", NS)
            one.mesh.kubectl("wait", *where, "--for=condition=Reconciled", "--timeout=30s")
            assert [one.mesh.page("/get", *host)[0] for _ in range(5)] == [200, 200, 200, 429, 429]
            assert one.mesh.page()[0] == 200
        one.until(lambda: one.mesh.page("/get", *host)[0] == 200, what="no limit")


def test_what_cannot_be_done_is_said(one):
    each = f"[{{clientSelectors: [{{headers: [{{name: x-user, type: Distinct}}]}}], {HOUR}}}]"
    done = one.mesh.apply(policy(each).replace("type: Local", "type: Global").replace("local:", "global:"), ok=False)
    assert "clients choose the value" in done.stderr
    nowhere = policy(f"[{{{HOUR}}}]", '[{group: "", kind: Service, name: nowhere}]', "nowhere").replace(
        "spec: {", "spec: {retry: {numRetries: 1}, "
    )
    with one.applied(nowhere):
        found = one.mesh.lateen("analyze", "-n", NS, ok=False).stdout
        assert "LAT0120" in found
        assert f"there is no Service {NS}/nowhere" in found or f'there is no Service "nowhere" in {NS}' in found


TYPES = "type.googleapis.com/envoy.extensions.filters"
ISTIOS = {
    "configPatches": [
        {
            "applyTo": "HTTP_FILTER",
            "match": {
                "context": "SIDECAR_INBOUND",
                "listener": {"filterChain": {"filter": {"name": "envoy.filters.network.http_connection_manager"}}},
            },
            "patch": {
                "operation": "INSERT_BEFORE",
                "value": {
                    "name": "envoy.filters.http.local_ratelimit",
                    "typed_config": {
                        "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
                        "type_url": f"{TYPES}.http.local_ratelimit.v3.LocalRateLimit",
                        "value": {
                            "stat_prefix": "http_local_rate_limiter",
                            "token_bucket": {"max_tokens": 3, "tokens_per_fill": 3, "fill_interval": "3600s"},
                            "filter_enabled": {
                                "runtime_key": "local_rate_limit_enabled",
                                "default_value": {"numerator": 100, "denominator": "HUNDRED"},
                            },
                            "filter_enforced": {
                                "runtime_key": "local_rate_limit_enforced",
                                "default_value": {"numerator": 100, "denominator": "HUNDRED"},
                            },
                            "response_headers_to_add": [
                                {"append": False, "header": {"key": "x-local-rate-limit", "value": "true"}}
                            ],
                        },
                    },
                },
            },
        }
    ],
    "workloadSelector": {"labels": {"app": "httpbin"}},
}
"""The filter of Istio's task about local rate limits, with a longer interval"""


def test_the_envoy_filter_of_istios_task_limits_alike(one):
    with one.applied(obj("EnvoyFilter", "local", json.dumps(ISTIOS), "networking.istio.io/v1alpha3")):

        def refused():
            said = one.get(f"httpbin.{NS}:8000/get", "-D", "-", "-o", "/dev/null")[1]
            return " 429 " in said and said

        assert "x-local-rate-limit: true" in one.until(refused, what="a limit")


# --- limits that all proxies share ----------------------------------------------------------------------------------


SHARED = f"""
apiVersion: {ENVOY_GATEWAY}
kind: BackendTrafficPolicy
metadata: {{name: shared, namespace: {NS}}}
spec:
  targetRefs: {SERVICE}
  rateLimit:
    global:
      rules:
      - {{clientSelectors: [{{path: {{value: /anything/twenty}}}}], limit: {{requests: 20, unit: Hour}}}}
      - clientSelectors: [{{path: {{value: /anything/shadow}}}}]
        limit: {{requests: 1, unit: Hour}}
        shadowMode: true
"""


@pytest.fixture
def two(tasks):  # noqa: F811
    """httpbin with two pods, which share a limit of twenty requests an hour."""
    tasks.mesh.kubectl("delete", "backendtrafficpolicy", "--all", "-n", NS)
    tasks.mesh.kubectl("scale", "deploy/httpbin-v2", "-n", NS, "--replicas=1")
    tasks.until(lambda: tasks.mesh.get("endpoints", "httpbin", "-n", NS).count("8080") == 2, what="two endpoints")
    tasks.mesh.apply(SHARED)
    tasks.mesh.kubectl("wait", "btp/shared", "-n", NS, "--for=condition=Reconciled", "--timeout=20s")
    yield tasks
    tasks.mesh.kubectl("delete", "backendtrafficpolicy", "--all", "-n", NS)


def test_two_pods_share_a_limit_also_while_istiod_restarts(two):
    two.until(
        lambda: answers(two, 10, path="/anything/twenty") == {429: 10}, what="the end of what both may let through"
    )
    rule = f'rule="{NS}/shared/0",outcome='

    def counted():
        """What istiod has been told of: outcome -> requests."""
        where = ("exec", "deploy/istiod", "-n", "istio-system", "--", "curl", "-s", "localhost:15014/metrics")
        told = two.mesh.kubectl(*where).stdout
        return {o: float(n) for o, n in re.findall(rf'requests_total{{{rule}"(\w+)"}} (\S+)', told)}

    found = two.until(lambda: (c := counted()).get("limited") and c, what="the reports of the proxies")
    assert found["allowed"] < 35, "each pod alone would let twenty through"
    assert answers(two, 5, path="/anything/shadow") == {200: 5}
    assert answers(two, 5) == {200: 5}
    two.mesh.kubectl("rollout", "restart", "deploy/istiod", "-n", "istio-system")
    assert answers(two, 10, path="/anything/twenty") == {429: 10}
    two.mesh.kubectl("rollout", "status", "deploy/istiod", "-n", "istio-system", "--timeout=60s", timeout=70)
    assert answers(two, 10, path="/anything/twenty").get(200, 0) <= 1
