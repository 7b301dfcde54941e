"""What policies would do to the calls that have been seen."""

import pytest

from lateen.cli.suggest import CONNECTIONS, REQUESTS
from lateen.cli.trial import NOBODY, Call, Known, Verdict, allows, calls, judged, told

WEB = "cluster.local/ns/shop/sa/web"
PLACE = ("shop", "api")


def policy(action="ALLOW", name="p", namespace="shop", **rule):
    spec = {"action": action, "rules": [rule] if rule else []}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def source(**given):
    return [{"source": given}]


@pytest.mark.parametrize(
    ("policies", "caller", "passes"),
    [
        ([policy(**{"from": source(principals=[WEB])})], WEB, True),
        ([policy(**{"from": source(principals=[WEB])})], NOBODY, False),
        ([policy(**{"from": source(principals=["*/sa/web"])})], WEB, True),
        ([policy(**{"from": source(namespaces=["sh?p"])})], WEB, False),
        ([policy(**{"from": source(serviceAccounts=["web"])})], WEB, True),
        ([policy(**{"from": source(serviceAccounts=["other/web"])})], WEB, False),
        ([policy(**{"from": source(notPrincipals=["*"])})], NOBODY, True),
        ([policy(**{"from": source(principals=[WEB], ipBlocks=["10.0.0.0/8"])})], WEB, None),
        ([policy(**{"from": source(principals=["x"], ipBlocks=["10.0.0.0/8"])})], WEB, False),
        ([policy(to=[{"operation": {"paths": ["/x"]}}])], WEB, None),
        ([policy(when=[{"key": "request.headers[x]", "values": ["y"]}])], WEB, None),
        ([policy(when=[{"key": "source.principal", "values": [WEB]}])], WEB, True),
        ([policy(when=[{"key": "source.namespace", "notValues": ["shop"]}])], WEB, False),
        ([policy("DENY", when=[{"key": "source.serviceAccount", "values": ["web"]}])], WEB, False),
        ([policy("DENY", when=[{"key": "source.trustDomain", "notValues": ["cluster.local"]}])], WEB, True),
        ([policy("DENY", when=[{"key": "source.ip", "values": ["10.0.0.1"]}])], WEB, None),
        ([policy(**{"from": source(principals=["old.test/ns/shop/sa/web"])})], WEB, False),
        ([policy("ALLOW")], WEB, False),
        ([policy("DENY", **{"from": source(namespaces=["shop"])})], WEB, False),
        ([policy("DENY", to=[{"operation": {"methods": ["GET"]}}])], WEB, None),
        (
            [policy("DENY", **{"from": source(namespaces=["x"])}), policy(**{"from": source(namespaces=["*"])})],
            WEB,
            True,
        ),
        ([policy("CUSTOM", to=[{"operation": {"paths": ["/x"]}}])], WEB, None),
        ([policy("AUDIT", **{"from": source(namespaces=["shop"])})], WEB, True),
    ],
)
def test_who_calls_decides_as_far_as_that_is_known(policies, caller, passes):
    assert allows(policies, caller) is passes


@pytest.mark.parametrize(
    ("given", "passes"),
    [
        (policy(to=[{"operation": {"methods": ["GET"]}}]), False),
        (policy("DENY", to=[{"operation": {"methods": ["GET"]}}]), False),
        (policy("DENY", to=[{"operation": {"methods": ["GET"], "ports": ["80"]}}]), None),
        (policy(to=[{"operation": {"ports": ["80"]}}]), None),
        (policy(**{"from": source(requestPrincipals=["*"])}), False),
        (policy("DENY", **{"from": source(notRequestPrincipals=["*"], namespaces=["shop"])}), False),
        (policy("DENY", **{"from": source(notRequestPrincipals=["*"], namespaces=["x"])}), True),
        (policy("DENY", when=[{"key": "request.headers[x]", "values": ["y"]}]), False),
        (policy(when=[{"key": "request.auth.principal", "values": ["y"]}]), False),
    ],
)
def test_connections_have_no_requests_to_depend_on(given, passes):
    assert allows([given], WEB, tcp=True) is passes


def test_principals_of_one_trust_domain_are_those_of_its_aliases():
    domains = ("new.test", "old.test")
    for domain, passes in (("old.test", True), ("cluster.local", True), ("other.test", False)):
        given = policy(**{"from": source(principals=[f"{domain}/ns/shop/sa/web"])})
        assert allows([given], "new.test/ns/shop/sa/web", domains=domains) is passes
    given = policy(**{"from": source(trustDomains=["old.test"])})
    assert allows([given], "new.test/ns/shop/sa/web", domains=domains) is True


def known(place=PLACE, revision="latest", **labels):
    return Known({(place, revision): labels}, "istio-system")


def test_denied_calls_are_counted_by_caller():
    times = {WEB: 10_237, "cluster.local/ns/a/sa/b": 2, NOBODY: 1}
    found = judged(
        [policy(**{"from": source(principals=[WEB])})],
        [*(Call(PLACE, "latest", who, n) for who, n in times.items()), Call(("x", "y"), "latest", WEB, 5)],
        known(app="api"),
    )
    assert found == {PLACE: Verdict(10_237, 0, {"cluster.local/ns/a/sa/b": 2, NOBODY: 1})}
    assert told(found)[:2] == ["api.shop: would deny 3 of 10,240", "  2 from cluster.local/ns/a/sa/b"]


def test_a_policy_for_one_version_is_judged_by_the_calls_of_that_version():
    given = policy("DENY", **{"from": source(namespaces=["shop"])})
    given["spec"]["selector"] = {"matchLabels": {"version": "v2"}}
    labels = {(PLACE, v): {"app": "api", "version": v} for v in ("v1", "v2")}
    made = [Call(PLACE, "v1", WEB, 70), Call(PLACE, "v2", WEB, 30)]
    assert judged([given], made, Known(labels, "istio-system")) == {PLACE: Verdict(0, 0, {WEB: 30})}


@pytest.mark.parametrize("written", ["true", "True", "1", "t"])
def test_applied_policies_in_dry_run_decide_nothing_however_that_is_written(written):
    applied = policy()
    applied["metadata"] |= {"uid": "u", "annotations": {"istio.io/dry-run": written}}
    assert judged([applied], [Call(PLACE, "latest", WEB, 1)], known()) == {}


def test_policies_of_the_root_namespace_are_for_all():
    for namespace, wanted in (("istio-system", 1), ("other", 0)):
        found = judged([policy(namespace=namespace)], [Call(PLACE, "latest", WEB, 1)], known())
        assert len(found) == wanted


def test_callers_are_read_from_the_collectors_answers():
    labels = {"destination_workload_namespace": "shop", "destination_canonical_service": "api"}
    labels["destination_canonical_revision"] = "v1"
    series = [
        {"metric": {**labels, "source_principal": f"spiffe://{WEB}"}, "values": [[0, "3"]]},
        {"metric": {**labels, "source_principal": "unknown"}, "values": [[0, "1"]]},
        {"metric": labels, "values": [[0, "0"]]},
    ]
    assert calls({REQUESTS: series, CONNECTIONS: series[:1]}) == [
        Call(PLACE, "v1", WEB, 3.0),
        Call(PLACE, "v1", NOBODY, 1.0),
        Call(PLACE, "v1", WEB, 3.0, tcp=True),
    ]
