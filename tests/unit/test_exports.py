"""Whom objects are exported to when they do not say it themselves, and hosts that a Sidecar excludes."""

from dataclasses import replace

import meshes as mesh
import pytest

from lateen.analysis.hosts import Hosts
from lateen.analysis.snapshot import Snapshot, Source
from lateen.api.mesh.reading import mesh_config
from lateen.mesh.configuration import settings
from lateen.mesh.model import Mesh
from lateen.mesh.scope import scope
from lateen.mesh.views import Views

REVIEWS = "reviews.default.svc.cluster.local"
ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: partner, namespace: default}
spec: {hosts: [partner.example], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS%s}
"""
RULE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}]%s}
"""
TRAFFIC = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec: {host: reviews, trafficPolicy: {loadBalancer: {simple: RANDOM}}%s}
"""
FIELDS = ("defaultServiceExportTo", "defaultVirtualServiceExportTo", "defaultDestinationRuleExportTo")


def config(*fields, to="."):
    text = "".join(f"{name}: ['{to}']\n" for name in fields)
    return settings(mesh_config(text), "istio-system")


def seen(found, viewer):
    """Which of a Service, a ServiceEntry, a VirtualService and a DestinationRule a namespace's clients know."""
    return (
        found.service(REVIEWS, viewer) is not None,
        found.service("partner.example", viewer) is not None,
        bool(found.mesh_rules(REVIEWS, viewer)),
        bool(found.destination_rule(REVIEWS, viewer)),
    )


@pytest.mark.parametrize(
    ("fields", "elsewhere"),
    [
        ((), (True, True, True, True)),
        (FIELDS[:1], (False, False, True, True)),
        (FIELDS[1:2], (True, True, False, True)),
        (FIELDS[2:], (True, True, True, False)),
    ],
)
def test_objects_are_exported_to_whom_the_mesh_says_unless_they_say_it(fields, elsewhere):
    documents = f"{ENTRY}---{RULE}---{TRAFFIC}"
    found = Mesh(mesh.objects(documents % ("", "", ""), config(*fields)))
    assert seen(found, "default") == (True, True, True, True)
    assert seen(found, "other") == elsewhere
    public = ", exportTo: ['*']"
    found = Mesh(mesh.objects(documents % (public, public, public), config(*FIELDS)))
    assert seen(found, "other") == (False, True, True, True)  # the Service has no annotation


def traffic(name, export_to):
    """A rule for reviews with one subset."""
    rule = TRAFFIC.replace("name: reviews", f"name: {name}") % f", exportTo: {export_to}"
    return rule.replace("trafficPolicy", f"subsets: [{{name: {name}, labels: {{version: {name}}}}}], trafficPolicy")


@pytest.mark.parametrize(
    ("first", "second", "own", "elsewhere"),
    [
        ("[]", "['*']", ["v1", "v2"], ["v1", "v2"]),
        ("['.']", "[default]", ["v1", "v2"], []),
        ("['.']", "[other]", ["v1"], ["v2"]),
        ("['.']", "['*']", ["v2"], ["v2"]),
        ("['*']", "['.']", ["v2"], ["v1"]),
        ("['.']", "['.', other]", ["v1", "v2"], ["v2"]),
        ("['.', other]", "['.']", ["v2"], ["v1"]),
    ],
)
def test_rules_for_one_host_are_merged_if_they_are_exported_alike(first, second, own, elsewhere):
    """Rules that are exported otherwise are rules of their own, of which the youngest applies, as in Istio; but a rule
    that is exported to more namespaces completes an older one."""
    found = Mesh(mesh.objects(f"{traffic('v1', first)}---\n{traffic('v2', second)}"))
    for viewer, wanted in (("default", own), ("other", elsewhere)):
        assert [dr.ref.name for dr in found.destination_rule(REVIEWS, viewer)] == wanted


def test_a_changed_default_holds_at_once():
    objects = mesh.objects(RULE % "", config())
    found = Mesh(objects)
    assert found.mesh_rules(REVIEWS, "other")
    found.advance(replace(objects, config=config(FIELDS[1])))
    assert not found.mesh_rules(REVIEWS, "other")
    assert found.interest(REVIEWS).namespaces == frozenset({"default"})


def test_services_can_be_exported_to_nobody():
    found = Mesh(mesh.objects("", config(FIELDS[0], to="~")))
    assert found.service(REVIEWS, "default") is None


def test_the_analysis_knows_the_default():
    service = Source(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "shop"}, "spec": {}}
    )
    for default, visible in ((None, True), (["."], False)):
        snapshot = Snapshot([service], {"defaultServiceExportTo": default} if default else {})
        assert bool(Hosts.of(snapshot).find("a.shop.svc.cluster.local", "mall", {"mall"})) is visible


SIDECAR = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: default}
spec: {egress: [{hosts: [%s]}]}
"""


@pytest.mark.parametrize(
    ("hosts", "known"),
    [
        ('"*/*"', {"productpage", "ratings", "reviews", "istio-ingressgateway"}),
        ('"*/*", "~istio-system/*"', {"productpage", "ratings", "reviews"}),
        (f'"*/*", "~default/{REVIEWS}"', {"productpage", "ratings", "istio-ingressgateway"}),
        (f'"./*", "~./{REVIEWS}"', {"productpage", "ratings"}),
        (f'"*/*", "~/{REVIEWS}"', {"productpage", "ratings", "istio-ingressgateway"}),
        (f'"*/*", "~mall/{REVIEWS}"', {"productpage", "ratings", "reviews", "istio-ingressgateway"}),
        ('"*/*", "~/*"', set()),
        ('"~/*"', set()),
    ],
)
def test_a_sidecar_sees_what_it_imports_but_what_it_excludes(hosts, known):
    found = Mesh(mesh.objects(SIDECAR % hosts))
    (sidecar,) = found.objects.sidecars.values()
    groups = scope(found, sidecar.spec, "default").groups
    assert {host.partition(".")[0] for members in groups.values() for host, _ in members} == known


def test_a_rule_for_an_excluded_host_is_not_imported_either():
    documents = (RULE % "") + "---" + SIDECAR % f'"*/*", "~default/{REVIEWS}"'
    found = Mesh(mesh.objects(documents))
    (sidecar,) = found.objects.sidecars.values()
    assert not scope(found, sidecar.spec, "default").rules


LIMITS = """
serviceEntryVisibility:
  defaultVisibility: %s
  applyToSidecars: %s
  policies:
  - visibility: PUBLIC
    matchingRules: [{namespaceSelector: {matchLabels: {open: "yes"}}}, {namespaceSelector: {matchLabels: {team: a}}}]
"""
SPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {%s}}\n"


@pytest.mark.parametrize(
    ("level", "applied", "labels", "export_to", "own", "elsewhere"),
    [
        ("NAMESPACE", "true", "", "", True, False),
        ("NAMESPACE", "true", "", ", exportTo: ['*']", True, False),
        ("NAMESPACE", "true", "", ", exportTo: [other]", False, False),
        ("NONE", "true", "", "", False, False),
        ("PUBLIC", "true", "", "", True, True),
        ("PUBLIC", "true", "", ", exportTo: ['.']", True, False),
        ("NONE", "true", "open: 'yes', team: a", "", True, True),
        ("NONE", "true", "open: 'yes'", "", False, False),
        ("NONE", "true", "open: 'yes', team: a", ", exportTo: ['.']", True, False),
        ("NONE", "false", "", "", True, True),
    ],
)
def test_the_mesh_limits_how_far_service_entries_are_exported(level, applied, labels, export_to, own, elsewhere):
    """It narrows ``exportTo``, never widens it; Services of Kubernetes are not concerned."""
    limits = settings(mesh_config(LIMITS % (level, applied)), "istio-system")
    found = Mesh(mesh.objects("---\n".join((ENTRY % export_to, SPACE % labels)), config=limits))
    assert (found.service("partner.example", "default") is not None) == own
    assert (found.service("partner.example", "other") is not None) == elsewhere
    assert found.service(REVIEWS, "other") is not None


def test_a_namespace_that_gets_a_label_shows_its_service_entries():
    limits = settings(mesh_config(LIMITS % ("NAMESPACE", "true")), "istio-system")
    before = mesh.objects("---\n".join((ENTRY % "", SPACE % "")), config=limits)
    views = Views(Mesh(before))
    assert [h.host for h in views.outbound("other").hosts if h.host == "partner.example"] == []
    labels = next(iter(mesh.yamldoc.objects(SPACE % "open: 'yes', team: a")))
    views.advance(mesh.add(before, labels, 9))
    assert [h.host for h in views.outbound("other").hosts if h.host == "partner.example"] == ["partner.example"]
