"""What policies would do to the calls that have been seen."""

import pytest

from lateen.cli.trial import NOBODY, Verdict, allows, calls, judged, told

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


def test_denied_calls_are_counted_by_caller():
    found = judged(
        [policy(**{"from": source(principals=[WEB])})],
        [(PLACE, WEB, 10_237), (PLACE, "cluster.local/ns/a/sa/b", 2), (PLACE, NOBODY, 1), (("x", "y"), WEB, 5)],
        {PLACE: {"app": "api"}, ("x", "y"): {}},
        "istio-system",
    )
    assert found == {PLACE: Verdict(10_237, 0, {"cluster.local/ns/a/sa/b": 2, NOBODY: 1})}
    assert told(found)[:2] == ["api.shop: would deny 3 of 10,240", "  2 from cluster.local/ns/a/sa/b"]


def test_policies_of_the_root_namespace_are_for_all():
    for namespace, wanted in (("istio-system", 1), ("other", 0)):
        found = judged([policy(namespace=namespace)], [(PLACE, WEB, 1)], {PLACE: {}}, "istio-system")
        assert len(found) == wanted


def test_callers_are_read_from_the_collectors_answers():
    labels = {"destination_workload_namespace": "shop", "destination_canonical_service": "api"}
    series = [
        {"metric": {**labels, "source_principal": f"spiffe://{WEB}"}, "values": [[0, "3"]]},
        {"metric": {**labels, "source_principal": "unknown"}, "values": [[0, "1"]]},
        {"metric": labels, "values": [[0, "0"]]},
    ]
    assert calls(series) == [(PLACE, WEB, 3.0), (PLACE, NOBODY, 1.0)]
