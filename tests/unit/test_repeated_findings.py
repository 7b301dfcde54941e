"""How often a finding is reported, and how it is suppressed: as by istioctl, on files."""

import pytest
from click.testing import CliRunner

from lateen.analysis import Snapshot, Source, analyze
from lateen.cli.analyze import analyze as command
from lateen.kit import yamldoc

HEAD = "apiVersion: networking.istio.io/v1\nkind: {}\nmetadata: {{name: a, namespace: shop}}\nspec:\n"


def networking(kind, spec):
    return HEAD.format(kind) + spec


def lines(analyzer, text, **options):
    """(code, line) of each finding."""
    sources = [Source(d.value, "f.yaml", d.position) for d in yamldoc.documents(text)]
    return [(m.kind.code, int(m.reference.split(":")[1])) for m in analyze(Snapshot(sources), [analyzer], **options)]


TWICE = """\
  hosts: [shop.test]
  http:
  - route:
    - destination:
        host: nowhere
    - destination:
        host: nowhere
"""
MIRRORED = """\
  hosts: [shop.test]
  http:
  - mirrors:
    - destination:
        host: nowhere
    - destination:
        host: nowhere
"""
GATEWAYS = "  hosts: [shop.test]\n  gateways:\n  - gone\n  - gone\n"
PORTS = """\
  hosts: [shop.test]
  ports:
  - number: 81
    name: a
    protocol: TCP
  - number: 82
    name: b
    protocol: tcp
"""
PERCENT = """\
  hosts: [shop.test]
  http:
  - fault: {delay: {percent: 1, fixedDelay: 1s}}
  - fault: {delay: {percent: 2, fixedDelay: 1s}}
"""
PATCHES = """\
  configPatches:
  - applyTo: HTTP_FILTER
    patch: {operation: REMOVE}
  - applyTo: HTTP_FILTER
    patch: {operation: REMOVE}
"""


@pytest.mark.parametrize(
    ("analyzer", "kind", "spec", "expected"),
    [
        ("virtualservice.DestinationHostAnalyzer", "VirtualService", TWICE, [("IST0101", 9), ("IST0101", 11)]),
        ("virtualservice.DestinationHostAnalyzer", "VirtualService", MIRRORED, [("IST0101", 9)]),
        (
            "virtualservice.GatewayAnalyzer",
            "VirtualService",
            GATEWAYS,
            [("IST0101", 7), ("IST0101", 8), ("IST0132", 7), ("IST0132", 8)],
        ),
        ("serviceentry.Analyzer", "ServiceEntry", PORTS, [("IST0134", 8), ("IST0134", 11)]),
        ("deprecation.DeprecationAnalyzer", "VirtualService", PERCENT, [("IST0002", 7)]),
        ("envoyfilter.EnvoyPatchAnalyzer", "EnvoyFilter", PATCHES, [("IST0151", 7)]),
    ],
)
def test_a_mistake_that_is_made_twice_is_reported_twice_where_istio_names_its_line(analyzer, kind, spec, expected):
    assert lines(analyzer, networking(kind, spec)) == expected


def test_a_mistake_that_is_made_twice_in_a_cluster_is_reported_once():
    live = Source(yamldoc.load(networking("VirtualService", TWICE)))
    assert len(analyze(Snapshot([live]), ["virtualservice.DestinationHostAnalyzer"])) == 1


CONDITION = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: web, namespace: shop, annotations: {{galley.istio.io/analyze-suppress: {own!r}}}}}
spec: {{gatewayClassName: istio, listeners: []}}
status: {{conditions: [{{type: Programmed, status: "False", reason: Pending, message: soon}}]}}
"""


@pytest.mark.parametrize(
    ("own", "given", "left"),
    [
        ("", [], True),
        ("IST0171", [], False),
        ("IST0001, IST0171", [], False),
        ("IST0001,*", [], False),
        ("IST0172", [], True),
        ("", [("IST0171", "Gateway shop/*")], False),  # as istioctl spells it
        ("", [("IST0171", "Gateway.gateway.networking.k8s.io shop/web")], False),
        ("", [("IST0171", "Gateway web.shop")], False),
        ("", [("IST0171", "Gateway shop")], True),
        ("", [("IST0101", "Gateway shop/*")], True),
        ("", [("*", "*")], False),
    ],
)
def test_a_finding_is_suppressed_by_its_objects_annotation_or_name(own, given, left):
    got = lines("conditions.ConditionAnalyzer", CONDITION.format(own=own), suppress=given)
    assert bool(got) == left


def test_a_code_that_does_not_exist_suppresses_nothing_and_is_named(tmp_path):
    file = tmp_path / "f.yaml"
    file.write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio-injection: enabled}}\n")
    said = CliRunner().invoke(command, [str(file), "--use-kube=false", "-S", "IST9999=Pod *"])
    assert said.exit_code == 0
    assert "there is no finding IST9999" in said.output
