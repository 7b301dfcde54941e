"""Incremental analysis: it covers only what has changed, with the same result as a full one."""

import random

import pytest
from test_analysis import GOOD, found

from lateen.analysis import Snapshot, Source, analyze, load, registry
from lateen.analysis.standing import Standing
from lateen.api import reading
from lateen.kit import certs, times

OBJECTS = [d.value for d in load.yamldoc.documents(GOOD)]


def codes(standing):
    return sorted((m.kind.code, ref) for ref, found in standing.findings().items() for m in found)


def standing(unread=frozenset()):
    made = Standing("istio-system", unread)
    for obj in OBJECTS:
        made.put(obj)
    return made


def changed(kind, **spec):
    obj = next(o for o in OBJECTS if o["kind"] == kind)
    return {**obj, "spec": {**obj["spec"], **spec}}


def test_a_changed_pod_does_not_have_the_virtual_services_looked_at_again():
    s = standing()
    assert codes(s) == []
    before = s.runs
    s.put(changed("Pod", nodeName="elsewhere"))
    assert codes(s) == []
    assert 0 < s.runs - before < len(registry.analyzers()) / 2
    again = s.runs
    assert codes(s) == []
    assert s.runs == again


def test_a_finding_disappears_when_its_mistake_is_corrected():
    s = standing()
    s.put(changed("VirtualService", hosts=["cart", "cart"]))
    assert codes(s) == [("IST0106", "VirtualService shop/cart")]
    s.put(changed("VirtualService", hosts=["cart"]))
    assert codes(s) == []
    s.drop(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "DestinationRule",
            "metadata": {"name": "cart", "namespace": "shop"},
        }
    )
    assert codes(s) == [("IST0101", "VirtualService shop/cart")]


@pytest.mark.parametrize("seed", range(3))
def test_incremental_findings_equal_those_of_a_full_analysis(seed):
    dice = random.Random(seed)
    s, there = standing(), {(o["kind"], o["metadata"]["name"]): o for o in OBJECTS}
    for _ in range(25):
        obj = dice.choice(OBJECTS)
        key = (obj["kind"], obj["metadata"]["name"])
        if key in there and dice.random() < 0.5:
            s.drop(there.pop(key))
        else:
            spec = {**obj.get("spec", {})}
            if dice.random() < 0.5 and spec:
                spec.pop(dice.choice(sorted(spec)))
            there[key] = {**obj, "spec": spec}
            s.put(there[key])
        fresh = analyze(Snapshot([Source(o) for o in there.values()], secrets=frozenset()))
        assert codes(s) == sorted((m.kind.code, m.source.ref) for m in fresh)


def test_an_analyzer_that_needs_unreadable_kinds_is_skipped_and_named():
    objects = [Source(o) for o in OBJECTS if o["kind"] != "DestinationRule"]
    snapshot = Snapshot(objects, unread=["DestinationRule"])
    assert analyze(snapshot) == []  # not: there is no such subset
    assert snapshot.incomplete["virtualservice.DestinationRuleAnalyzer"] == ["DestinationRule"]
    assert "virtualservice.DestinationHostAnalyzer" not in snapshot.incomplete


GATEWAY = """
apiVersion: v1
kind: Pod
metadata: {name: gw, namespace: istio-system, labels: {istio: ingressgateway}}
spec: {containers: [{name: istio-proxy, image: x}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: door, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: ["shop.test"]
    tls: {mode: MUTUAL, credentialName: noca}
"""


def secret(data):
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "noca", "namespace": "istio-system"}, **data}


def test_a_mutual_server_without_ca_certificates_is_reported(pair):
    docs = [Source(d.value) for d in load.yamldoc.documents(GATEWAY)]
    bare = secret({"stringData": {"tls.crt": pair.certificate, "tls.key": pair.key}})
    got = analyze(Snapshot([*docs, Source(bare)]), ["gateway.SecretAnalyzer"])
    assert [m.kind.code for m in got] == ["IST0161"]
    assert "Secret istio-system/noca has no ca.crt, which MUTUAL needs" in got[0].text
    bare["stringData"]["ca.crt"] = pair.certificate
    assert analyze(Snapshot([*docs, Source(bare)]), ["gateway.SecretAnalyzer"]) == []


@pytest.fixture(scope="module")
def pair():
    return certs.authority("", times.now(), organization="cluster.local")


def test_secrets_that_istiod_has_not_read_are_not_reported_as_missing():
    docs = [Source(d.value) for d in load.yamldoc.documents(GATEWAY)]
    assert ("IST0101", "Gateway shop/door") in found(GATEWAY)
    assert analyze(Snapshot(docs, secrets=frozenset({"elsewhere"})), ["gateway.SecretAnalyzer"]) == []


@pytest.mark.parametrize(
    ("namespace", "labels", "expected"),
    [
        ({}, {}, False),
        ({}, {"sidecar.istio.io/inject": "true"}, True),
        ({"istio-injection": "enabled"}, {}, True),
        ({"istio-injection": "enabled"}, {"sidecar.istio.io/inject": "false"}, False),
        ({"istio-injection": "disabled"}, {"sidecar.istio.io/inject": "true"}, False),
        ({"istio.io/rev": "canary"}, {}, True),
    ],
)
def test_there_is_one_reading_of_whether_a_pod_gets_a_sidecar(namespace, labels, expected):
    assert reading.asks_for_sidecar(namespace, labels, {}) is expected


def test_a_native_sidecar_is_a_proxy_too():
    assert reading.has_proxy({"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "istio-proxy"}]}})
