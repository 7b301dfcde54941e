"""The analyzers on small meshes of our own; the conformance runner holds them against Istio's cases."""

import pytest

from lateen.analysis import Snapshot, Source, analyze, analyzers, load, registry
from lateen.analysis.messages import CATALOGUE
from lateen.analysis.snapshot import EVERYTHING
from lateen.api import kinds
from lateen.cli.analyze import LIVE
from lateen.cli.precheck import gateway_api_findings
from lateen.kit import yamldoc

GOOD = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  selector: {app: cart}
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Pod
metadata: {name: cart-1, namespace: shop, labels: {app: cart, version: v1}}
spec: {containers: [{name: cart, image: x}, {name: istio-proxy, image: y}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec: {host: cart, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec:
  hosts: [cart]
  http: [{route: [{destination: {host: cart, subset: v1}}]}]
"""


def found(text, **options):
    docs = [Source(d.value, "f.yaml", d.position) for d in load.yamldoc.documents(text)]
    return [(m.kind.code, m.source.ref) for m in analyze(Snapshot(docs), **options)]


def test_a_mesh_without_mistakes_has_no_findings():
    assert found(GOOD) == []


def test_all_that_analyzers_read_is_read_from_a_cluster():
    snapshot = Snapshot([Source(d.value) for d in load.yamldoc.documents(GOOD)])
    read = frozenset().union(*(registry.run_one(a, snapshot)[1] for a in analyzers().values()))
    assert read - {EVERYTHING} <= {str(k.id) for k in (*LIVE, *kinds.owned())}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("subset: v1}", "subset: v2}", ("IST0101", "VirtualService shop/cart")),
        ("host: cart, subset: v1", "host: card, subset: v1", ("IST0101", "VirtualService shop/cart")),
        ("labels: {version: v1}}]}", "labels: {version: v9}}]}", ("IST0173", "DestinationRule shop/cart")),
        ("{host: cart, subsets", "{host: card, subsets", ("IST0174", "DestinationRule shop/cart")),
        ("name: http, port", "name: web, port", ("IST0118", "Service shop/cart")),
        (", {name: istio-proxy, image: y}", "", ("IST0103", "Pod shop/cart-1")),
        ("labels: {istio-injection: enabled}", "labels: {}", ("IST0102", "Namespace shop")),
        ("hosts: [cart]", "hosts: [cart, cart]", ("IST0106", "VirtualService shop/cart")),
        ("hosts: [cart]", "hosts: [cart]\n  gatways: [g]", ("IST0106", "VirtualService shop/cart")),
        ("spec:\n  hosts: [cart]", "bogus: 1\nspec:\n  hosts: [cart]", ("IST0106", "VirtualService shop/cart")),
    ],
)
def test_a_mistake_is_found_with_its_code(old, new, expected):
    assert old in GOOD
    assert expected in found(GOOD.replace(old, new))


def test_a_finding_names_file_line_and_column():
    docs = load.yamldoc.documents(GOOD.replace("subset: v1}", "subset: v2}"))
    messages = analyze(Snapshot([Source(d.value, "f.yaml", d.position) for d in docs]))
    assert [m.reference for m in messages] == ["f.yaml:28:46"]


def test_findings_are_suppressed_by_annotation_and_by_pattern():
    bad = GOOD.replace("subset: v1}", "subset: v2}")
    annotated = bad.replace(
        "metadata: {name: cart, namespace: shop}\nspec:\n  hosts",
        'metadata: {name: cart, namespace: shop, annotations: {galley.istio.io/analyze-suppress: "IST0101"}}'
        "\nspec:\n  hosts",
    )
    assert annotated != bad
    assert found(annotated) == []
    assert found(bad, suppress=[("IST0101", "VirtualService shop/*")]) == []
    assert found(bad, suppress=[("IST0101", "VirtualService other/*")]) != []


def test_every_message_that_an_analyzer_can_give_is_in_the_catalogue():
    assert len([c for c in CATALOGUE if c.startswith("IST")]) == 68
    assert len(analyzers()) >= 36


def test_a_failing_analyzer_is_reported_and_the_others_continue(monkeypatch):
    def broken(snapshot):
        raise TypeError("a mistake of ours")

    analyzers()
    monkeypatch.setitem(registry._FOUND, "test.Broken", registry.Analyzer("test.Broken", "", broken))
    got = found(GOOD.replace("subset: v1}", "subset: v2}"))
    assert got == [("IST0001", "Analyzer test.Broken"), ("IST0101", "VirtualService shop/cart")]


@pytest.mark.parametrize(
    ("kind", "versions", "expected"),
    [
        ("Gateway", ["v1alpha2"], ["IST0156"]),
        ("HTTPRoute", ["v1beta1"], ["IST0172"]),
        ("HTTPRoute", ["v1", "v1beta1"], []),
        ("ReferenceGrant", ["v1beta1"], []),
        ("TLSRoute", ["v1alpha2"], []),
    ],
)
def test_definitions_of_the_gateway_api_that_are_too_old_are_named(kind, versions, expected):
    crd = {
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "x"},
        "spec": {
            "group": "gateway.networking.k8s.io",
            "names": {"kind": kind},
            "versions": [{"name": v, "served": True} for v in versions],
        },
    }
    assert [m.kind.code for m in gateway_api_findings([Source(crd)])] == expected


@pytest.mark.parametrize(
    ("name", "mesh", "codes"),
    [
        ("istio", "outboundTrafficPolicy: REGISTRY_ONLY", ["IST0106"]),
        ("istio", "outboundTrafficPolicy: {mode: REGISTRY_ONLY}", []),
        ("istio", "nonsense: 1\nconnectTimeout: 5 parsecs", ["IST0106", "IST0106"]),
        ("other", "nonsense: 1", []),
    ],
)
def test_a_mistake_in_the_mesh_configuration_is_found(name, mesh, codes):
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "istio-system"}}
    assert [c for c, _ in found(yamldoc.dump({**config, "data": {"mesh": mesh}}))] == codes
