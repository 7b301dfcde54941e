"""Rate limits by BackendTrafficPolicy and by Istio's EnvoyFilters, asked of real proxies."""

import contextlib
import json
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from samples import NS, obj, tasks  # noqa: F401 - a fixture of this module

pytestmark = pytest.mark.system

ENVOY_GATEWAY = "gateway.envoyproxy.io/v1alpha1"
SERVICE = '[{group: "", kind: Service, name: httpbin}]'
HOUR = "limit: {requests: 3, unit: Hour}"


def policy(rules, targets=SERVICE, name="limited"):
    spec = f"{{targetRefs: {targets}, rateLimit: {{type: Local, local: {{rules: {rules}}}}}}}"
    return obj("BackendTrafficPolicy", name, spec, ENVOY_GATEWAY)


SHADOW = f"{{clientSelectors: [{{path: {{value: /anything/first}}}}], {HOUR}, shadowMode: true}}"


def limited(found, rules):
    """Change the rules of the service's policy, and wait until the proxy has them. One is always about a path: the
    first and the last such rule change the listener, and requests on connections to the old one do not count."""
    rules = f"[{rules[1:-1]}, {SHADOW}]"
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


@pytest.fixture(scope="module", autouse=True)
def fresh(tasks):  # noqa: F811
    """A connection for each request: those to a listener that has been replaced keep its limits until they are drained,
    and which of them a request takes depends on the client proxy's worker that gets it."""
    pool = "{connectionPool: {http: {maxRequestsPerConnection: 1}}}"
    with tasks.applied(obj("DestinationRule", "fresh", f"{{host: httpbin, trafficPolicy: {pool}}}")):
        yield


@pytest.fixture(scope="module")
def one(tasks):  # noqa: F811
    """httpbin with a single pod, and with a policy."""
    tasks.mesh.kubectl("scale", "deploy/httpbin-v2", "-n", NS, "--replicas=0")
    tasks.until(lambda: tasks.mesh.get("endpoints", "httpbin", "-n", NS).count("8080") == 1, what="one endpoint")
    first = f"{{clientSelectors: [{{path: {{value: /anything/first}}}}], {HOUR}}}"
    limited(tasks, f"[{first}]")
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
    "{hosts: [l.test], gateways: [limited], http: [{match: [{uri: {prefix: /get}}, {uri: {prefix: /anything}}],"
    " route: [{destination: {host: httpbin, port: {number: 8000}}}]}]}",
)


def test_a_gateway_limits_what_it_serves_however_many_routes_lead_there(one):
    target = "[{group: networking.istio.io, kind: Gateway, name: limited}]"
    with one.applied(GATEWAY, ROUTE):
        host = ("-H", "Host: l.test")
        one.until(lambda: one.mesh.page("/get", *host)[0] == 200, what="the gateway's route")
        with one.applied(policy(f"[{{{HOUR}}}]", target, "gateway")):
            where = ("backendtrafficpolicy", "gateway", "-n", NS)
            one.mesh.kubectl("wait", *where, "--for=condition=Reconciled", "--timeout=30s")
            paths = ("/get", "/anything", "/get", "/anything", "/get")
            assert [one.mesh.page(path, *host)[0] for path in paths] == [200, 200, 200, 429, 429]
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
    # Of several rules any may have been the one.
    named = re.compile(rf"refused by (one of )?BackendTrafficPolicy shared\.{NS}, rule 0")
    logs = ("logs", "--explain", "deploy/httpbin", "-n", NS)
    two.until(lambda: named.search(two.mesh.lateen(*logs).stdout), what="the policy in the explained log")
    assert found["allowed"] < 35, "each pod alone would let twenty through"
    assert answers(two, 5, path="/anything/shadow") == {200: 5}
    assert answers(two, 5) == {200: 5}
    two.mesh.kubectl("rollout", "restart", "deploy/istiod", "-n", "istio-system")
    assert answers(two, 10, path="/anything/twenty") == {429: 10}
    two.mesh.kubectl("rollout", "status", "deploy/istiod", "-n", "istio-system", "--timeout=60s", timeout=70)
    assert answers(two, 10, path="/anything/twenty").get(200, 0) <= 1


ISTIOD = ("lateen.control", "discovery")


def restarts(mesh):
    where = ("pods", "-n", "istio-system", "-l", "app=istiod", "-o")
    return int(mesh.get(*where, "jsonpath={.items[0].status.containerStatuses[0].restartCount}"))


def test_a_limit_is_still_used_up_when_istiod_is_killed_and_comes_back(two):
    two.until(
        lambda: answers(two, 10, path="/anything/twenty") == {429: 10}, what="the end of what both may let through"
    )
    before = restarts(two.mesh)
    two.mesh.signal(signal.SIGKILL, *ISTIOD)
    assert answers(two, 10, path="/anything/twenty") == {429: 10}
    two.until(lambda: restarts(two.mesh) > before, what="another istiod")
    two.mesh.kubectl("rollout", "status", "deploy/istiod", "-n", "istio-system", "--timeout=60s", timeout=70)
    assert answers(two, 10, path="/anything/twenty").get(200, 0) <= 1


# --- how exact limits are -------------------------------------------------------------------------------------------

STEADY = f"""
apiVersion: {ENVOY_GATEWAY}
kind: BackendTrafficPolicy
metadata: {{name: steady, namespace: {NS}}}
spec:
  targetRefs: {SERVICE}
  rateLimit:
    local:
      rules: [{{clientSelectors: [{{path: {{value: /anything/local}}}}], limit: {{requests: 20, unit: Second}}}}]
    global:
      rules: [{{clientSelectors: [{{path: {{value: /anything/global}}}}], limit: {{requests: 30, unit: Second}}}}]
"""
LOAD = r"""
import http.client, json, sys, threading, time
rates, path, seconds = json.load(sys.stdin)
passed, lock, begin = dict.fromkeys(rates, 0), threading.Lock(), time.monotonic()
def ask(address, every, first):
    connection, due = http.client.HTTPConnection(address, 8080, timeout=10), begin + first
    while due < begin + seconds:
        time.sleep(max(0, due - time.monotonic()))
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        with lock:
            passed[address] += answer.status == 200
        due += every
threads = [threading.Thread(target=ask, args=(a, 4 / r, i / r)) for a, r in rates.items() for i in range(4)]
for t in threads: t.start()
for t in threads: t.join()
print(json.dumps([passed, time.monotonic() - begin]))
"""


@pytest.fixture
def three(tasks):  # noqa: F811
    """The addresses of three pods of httpbin, whose proxies have a limit each and one together."""
    tasks.mesh.kubectl("delete", "backendtrafficpolicy", "--all", "-n", NS)
    tasks.mesh.kubectl("scale", "deploy/httpbin-v2", "-n", NS, "--replicas=2")
    addresses = ("endpoints", "httpbin", "-n", NS, "-o", "jsonpath={.subsets[*].addresses[*].ip}")
    found = tasks.until(lambda: len(f := tasks.mesh.get(*addresses).split()) == 3 and f, what="three endpoints")
    tasks.mesh.apply(STEADY)
    tasks.mesh.kubectl("wait", "btp/steady", "-n", NS, "--for=condition=Reconciled", "--timeout=30s")
    yield found
    tasks.mesh.kubectl("delete", "backendtrafficpolicy", "--all", "-n", NS)
    tasks.mesh.kubectl("scale", "deploy/httpbin-v2", "-n", NS, "--replicas=1")


def passing(found, rates, path, seconds=10):
    """(requests that passed at each address, seconds that it took) under a load of so many requests a second."""
    pod = found.mesh.pod("ratings")
    command = ("exec", "-i", pod, "-c", "ratings", "--", "python3", "-c", LOAD)
    return json.loads(found.mesh.kubectl(*command, stdin=json.dumps([rates, path, seconds])).stdout)


@pytest.mark.long
def test_a_limit_of_each_proxy_is_kept_within_five_percent(tasks, three):  # noqa: F811
    """A bucket that is full lets through what it holds at first; after that, over ten seconds."""
    rates = dict(zip(three, (40, 30, 10), strict=True))
    passing(tasks, rates, "/anything/local", 2)
    passed, took = passing(tasks, rates, "/anything/local")
    for address, wanted in zip(three, (20, 20, 10), strict=True):
        assert abs(passed[address] - wanted * took) <= 0.05 * wanted * took + 1, (passed, took)


@pytest.mark.long
def test_a_limit_that_three_proxies_share_is_kept_within_five_percent_under_skewed_load(tasks, three):  # noqa: F811
    seen = []

    def exact():
        rates = dict(zip(three, (50, 15, 5), strict=True))
        passed, took = passing(tasks, rates, "/anything/global")
        seen.append(sum(passed.values()) / took)
        return abs(seen[-1] - 30) <= 1.5

    tasks.until(exact, 90, f"30 requests a second: {seen}")
    assert all(rate <= 31.5 for rate in seen[1:]), seen


@contextlib.contextmanager
def scaled(mesh):
    mesh.kubectl("scale", "deploy/istiod", "-n", "istio-system", "--replicas=0")
    try:
        yield
    finally:
        mesh.kubectl("scale", "deploy/istiod", "-n", "istio-system", "--replicas=1")


@contextlib.contextmanager
def killed(mesh):
    """It hangs with its connections open, and dies without closing them."""
    before = restarts(mesh)
    mesh.signal(signal.SIGSTOP, *ISTIOD)
    try:
        yield
    finally:
        mesh.signal(signal.SIGKILL, *ISTIOD)
        mesh.until(lambda: restarts(mesh) > before, 60, "another istiod")


LIMIT = 30
CLOSED = STEADY.replace("name: steady, ", 'name: closed, annotations: {lateen.dev/fail-closed: "true"}, ')


def together(found, addresses, seconds=10):
    """Requests a second that pass at all proxies together, once what they had saved up before is used up."""
    rates = dict(zip(addresses, (50, 15, 5), strict=True))
    passing(found, rates, "/anything/global", 2)
    passed, took = passing(found, rates, "/anything/global", seconds)
    return sum(passed.values()) / took


def exact(rate):
    return abs(rate - LIMIT) <= 0.05 * LIMIT


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("without", [scaled, killed])
@pytest.mark.parametrize(("text", "wanted"), [(STEADY, LIMIT), (CLOSED, 0)], ids=["stays", "closes"])
def test_without_istiod_a_limit_stays_or_closes_as_the_policy_says(tasks, three, text, wanted, without):  # noqa: F811
    mesh = tasks.mesh
    mesh.kubectl("delete", "btp/steady", "-n", NS)
    mesh.apply(text)
    mesh.kubectl("wait", "btp", "--all", "-n", NS, "--for=condition=Reconciled", "--timeout=30s")
    tasks.until(lambda: exact(together(tasks, three)), 90, "the limit")
    with without(mesh):
        time.sleep(20)  # more than the 15 s after which a proxy gives a share up that is to be closed
        rate = together(tasks, three)
        assert rate == 0 if wanted == 0 else exact(rate), rate
    rate = together(tasks, three, 20)
    assert rate <= 1.05 * LIMIT, "shares of before and of the istiod that is back add up"
    tasks.until(lambda: exact(together(tasks, three)), 90, "the limit of the istiod that is back")


@pytest.mark.long
def test_a_limit_is_exact_while_istiod_is_killed_and_comes_back_at_once(tasks, three):  # noqa: F811
    tasks.until(lambda: exact(together(tasks, three)), 90, "the limit")
    before = restarts(tasks.mesh)
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(together, tasks, three, 30)
        time.sleep(5)
        tasks.mesh.signal(signal.SIGKILL, *ISTIOD)
        assert exact(load.result()), load.result()
    assert restarts(tasks.mesh) > before
