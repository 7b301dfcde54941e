"""One table of kinds: a new kind needs a single row, and kinds of the same name in two groups stay distinct."""

import asyncio
import dataclasses
import importlib.util
import json
import pathlib

import pytest
from click.testing import CliRunner
from test_webhooks import answer

from lateen.analysis import Snapshot, Source, analyze, load
from lateen.analysis.standing import Standing
from lateen.api import crds, effective, kind, kinds, validate
from lateen.api.config import Config
from lateen.api.validate.findings import no
from lateen.cli.output import BAD_DATA
from lateen.cli.validate import validate as validate_command
from lateen.control import conditions
from lateen.control.world import World
from lateen.install import manifests
from lateen.install.operator import resolve
from lateen.kit.queries import query
from lateen.kube.apply import kind_of
from lateen.mesh.base import Base, in_namespace
from lateen.mesh.objects import COLLECTIONS

KEY = ("default", "one")


class Lantern(Config):
    brightness: int
    color: str = ""


def lantern_rules(spec, meta):
    if spec.brightness > 9:
        yield no("spec.brightness", f"{meta['name']} is too bright")


def lantern(**spec):
    meta = {"name": "one", "namespace": "default", "uid": "u", "generation": spec.get("brightness")}
    return {"apiVersion": "lights.example.com/v1", "kind": "Lantern", "metadata": meta, "spec": spec}


@pytest.fixture
def row(monkeypatch):
    """A made-up kind: its type, its rules, and one row."""
    made = kinds.Kind(
        "lights.example.com",
        "v1",
        "lanterns",
        "Lantern",
        versions=("v1",),
        short=("la",),
        spec_at=f"{__name__}:Lantern",
        rules_at=f"{__name__}:lantern_rules",
        columns=(("Brightness", ".spec.brightness"),),
        owned=True,
        watched=True,
    )
    for part in ("TABLE", "_FIRST"):
        monkeypatch.setattr(kind, part, dict(getattr(kind, part)))
    monkeypatch.setattr(kinds, "TABLE", kind.TABLE)
    return kinds.row(made)


def installed():
    parts = manifests.render(resolve("default", [], []))
    return {(o["kind"], o["metadata"]["name"]): o for part in parts for o in part.objects}


def test_a_row_makes_a_definition_that_is_installed_with_the_rights_and_the_webhook(row):
    found = installed()
    made = found["CustomResourceDefinition", "lanterns.lights.example.com"]["spec"]
    version = made["versions"][0]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert spec["properties"]["brightness"] == {"type": "integer"}
    assert spec["required"] == ["brightness"]
    assert version["additionalPrinterColumns"][0]["name"] == "Brightness"
    assert made["names"]["shortNames"] == ["la"]
    rules = found["ClusterRole", "istiod-istio-system"]["rules"]
    assert any(row.group in r["apiGroups"] and "watch" in r["verbs"] for r in rules)
    hooks = found["ValidatingWebhookConfiguration", "istio-validator-istio-system"]["webhooks"]
    assert row.group in hooks[0]["rules"][0]["apiGroups"]


def test_a_row_makes_objects_that_are_validated_everywhere(row):
    bright = lantern(brightness=10)
    assert validate.problems(bright) == [("spec.brightness", "one is too bright")]
    assert validate.problems(lantern(brightness="much"))[0][0] == "spec.brightness"
    _, said = asyncio.run(answer([json.dumps({"request": {"uid": "u", "object": bright}}).encode()]))
    response = json.loads(said)["response"]
    assert (response["allowed"], "one is too bright" in response["status"]["message"]) == (False, True)
    found = analyze(Snapshot([Source(lantern(brightness=10, size=1))]), ["schema.ValidationAnalyzer"])
    assert [(m.kind.code, m.source.ref) for m in found] == [("IST0106", "Lantern default/one")] * 2
    assert kind_of(bright) is row


def test_a_row_makes_objects_that_istiod_reads(row):
    assert row in kinds.watched()
    world = World("istio-system", lambda: None)
    world.changed(row, KEY, None, lantern(brightness=3))
    assert world.objects.of(row)[KEY].spec == Lantern(brightness=3)
    assert world.objects.of(row)[KEY].origins == ("Lantern default/one",)
    world.changed(row, KEY, lantern(brightness=3), lantern(brightness=10))
    assert world.objects.of(row)[KEY].spec.brightness == 3
    assert "too bright" in world.bad[row.ref(*KEY)]
    assert conditions.accepted(row, "")["status"] == "True"


class Lanterns(Base):
    """The lookup of the made-up kind."""

    def __init__(self, objects, row):
        super().__init__(objects)
        self._lanterns = self.objects.of(row)
        self._lanterns_in = self._lanterns.index(in_namespace)
        self.runs = 0

    @query
    def light(self, namespace):
        self.runs += 1
        return sum(found.spec.brightness for found in self._lanterns_in.get(namespace))


def test_a_row_makes_a_table_that_lookups_read(row):
    world = World("istio-system", lambda: None)
    world.changed(row, KEY, None, lantern(brightness=3))
    mesh = Lanterns(world.objects, row)
    assert mesh.light("default") == 3
    world.changed(row, ("other", "one"), None, lantern(brightness=5))
    mesh.advance(world.objects)
    assert (mesh.light("default"), mesh.runs) == (3, 1)
    world.changed(row, KEY, lantern(brightness=3), lantern(brightness=4))
    mesh.advance(world.objects)
    assert (mesh.light("default"), mesh.light("other"), mesh.runs) == (4, 5, 3)
    world.changed(row, KEY, lantern(brightness=4), None)
    mesh.advance(world.objects)
    assert mesh.light("default") == 0


def test_a_row_makes_findings_that_come_and_go_with_its_objects(row):
    standing = Standing("istio-system", frozenset())
    standing.put(lantern(brightness=10))
    assert [m.kind.code for m in standing.findings()["Lantern default/one"]] == ["IST0106"]
    standing.put(lantern(brightness=9))
    assert standing.findings() == {}
    standing.put(lantern(brightness="much"))
    assert "Lantern default/one" in standing.findings()
    standing.drop(lantern())
    assert standing.findings() == {}


def test_a_row_takes_the_namespace_of_the_command_unless_it_has_none(row, monkeypatch, tmp_path):
    file = tmp_path / "lantern.json"
    bare = lantern(brightness=1)
    file.write_text(json.dumps(bare | {"metadata": {"name": "one"}}))
    assert [s.ref for s in load.sources(file, "harbour")] == ["Lantern harbour/one"]
    wide = dataclasses.replace(row, namespaced=False)
    monkeypatch.setitem(kinds.TABLE, wide.id, wide)
    assert [s.ref for s in load.sources(file, "harbour")] == ["Lantern one"]
    assert crds.crd(wide)["spec"]["scope"] == "Cluster"


def test_a_field_without_effect_is_named_at_apply_and_in_the_documentation(row, monkeypatch):
    monkeypatch.setitem(effective.UNSUPPORTED, row, {"color": "all lanterns are white"})
    _, said = asyncio.run(
        answer([json.dumps({"request": {"uid": "u", "object": lantern(brightness=1, color="red")}}).encode()])
    )
    warnings = json.loads(said)["response"]["warnings"]
    assert [w for w in warnings if "spec.color" in w and "all lanterns are white" in w]
    assert effective.ineffective(row, {"brightness": 1}) == []
    assert "| `spec.color` | all lanterns are white |" in documentation().split("## Lantern\n")[1]


def test_a_row_without_effect_says_so_at_apply_in_the_status_and_in_the_documentation(row, monkeypatch):
    idle = dataclasses.replace(row, idle="there is no oil")
    monkeypatch.setitem(kinds.TABLE, idle.id, idle)
    assert "there is no oil" in effective.ineffective(idle, {"brightness": 1})[0]
    assert conditions.accepted(idle, "")["reason"] == "NotImplemented"
    assert "| Lantern | there is no oil |" in documentation()


def documentation():
    path = pathlib.Path(__file__).parents[2] / "tools" / "docs.py"
    spec = importlib.util.spec_from_file_location("docs_of_kinds", path)
    docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(docs)
    return docs.fields()


ISTIO, OTHER = kinds.GATEWAY.ref("default", "web"), kinds.KUBERNETES_GATEWAY.ref("default", "web")


def test_gateways_of_two_groups_are_two_objects():
    assert ISTIO != OTHER
    assert str(ISTIO) == "Gateway default/web"
    assert str(OTHER) == "Gateway.gateway.networking.k8s.io default/web"
    meta = {"name": "web", "namespace": "default"}
    both = [
        Source({"apiVersion": k.api_version, "kind": "Gateway", "metadata": meta})
        for k in (kinds.GATEWAY, kinds.KUBERNETES_GATEWAY)
    ]
    snapshot = Snapshot(both)
    assert [snapshot.get(k, "default", "web") for k in (kinds.GATEWAY, kinds.KUBERNETES_GATEWAY)] == both
    assert [s.ref for s in both] == [str(ISTIO), str(OTHER)]


def test_objects_of_two_clusters_are_two_objects():
    here, there = kinds.SERVICE.ref("a", "b"), kinds.SERVICE.ref("a", "b", "east")
    assert here != there
    assert (str(here), str(there)) == ("Service a/b", "Service a/b@east")


def test_the_analysis_tells_objects_of_two_clusters_apart():
    def service(cluster, number):
        spec = {"ports": [{"port": number}]}
        obj = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "a"}, "spec": spec}
        return Source(obj, cluster=cluster)

    mine, east, west = service("", 80), service("east", 80), service("west", 81)
    snapshot = Snapshot([mine, east, west])
    assert snapshot.get("Service", "a", "web") is mine
    assert len({s.ref for s in snapshot.everywhere("Service")}) == 3
    assert snapshot.all("Service") == [mine]
    (found,) = analyze(snapshot, ["services.MultiClusterServiceAnalyzer"])
    assert (found.kind.code, found.source.ref) == ("IST0170", "Service a/web")


def test_no_two_kinds_are_spelled_alike():
    rows = list(kinds.TABLE.values())
    assert len({str(k.id) for k in rows}) == len(rows)
    assert all(kinds.named(str(k.id)) is k for k in rows)
    strangers = [kinds.GroupKind("example.com", "Gateway"), kinds.GroupKind("", "Gateway")]
    assert len({str(k) for k in [*strangers, *(k.id for k in rows)]}) == len(rows) + 2


@pytest.mark.parametrize("kind", kinds.owned(), ids=lambda k: k.kind)
def test_every_kind_of_ours_has_a_type_and_rules(kind):
    assert issubclass(kind.spec, Config)
    assert kind.rules is not None
    assert kind.version in kind.versions
    assert crds.crd(kind)["metadata"]["name"] == f"{kind.plural}.{kind.group}"


def test_every_kind_that_the_mesh_reads_is_watched():
    """Secrets are watched namespace by namespace, where istiod may read them; definitions are asked for by name."""
    assert [k for k in COLLECTIONS.values() if not k.watched] == [kinds.SECRET, kinds.CRD]


@pytest.mark.parametrize(
    ("api_version", "kind", "says"),
    [
        ("networking.istio.io/v1", "VirtualServce", "did you mean VirtualService?"),
        ("security.istio.io/v1", "VirtualService", "write apiVersion: networking.istio.io/v1"),
        ("networking.istio.io/v7", "VirtualService", 'no version "v7"'),
        ("security.istio.io/v1", "MeshPolicy", 'security.istio.io has no kind "MeshPolicy"'),
    ],
)
def test_a_kind_that_our_groups_do_not_have_is_named(api_version, kind, says, tmp_path):
    obj = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "a", "namespace": "b"}, "spec": {}}
    obj["spec"] = {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}}]}]}
    found = analyze(Snapshot([Source(obj)]), ["schema.ValidationAnalyzer"])
    assert any(says in m.text for m in found), found
    file = tmp_path / "a.yaml"
    file.write_text(json.dumps(obj))
    result = CliRunner().invoke(validate_command, ["-f", str(file)])
    assert says in result.stderr
    assert result.exception.code == BAD_DATA


def test_the_webhook_names_a_kind_of_our_groups_that_it_does_not_know():
    obj = {"apiVersion": "networking.istio.io/v1", "kind": "Future", "metadata": {"name": "a", "namespace": "b"}}
    _, said = asyncio.run(answer([json.dumps({"request": {"uid": "u", "object": obj}}).encode()]))
    response = json.loads(said)["response"]
    assert response["allowed"] is True
    assert response["warnings"] == ['networking.istio.io has no kind "Future"; it is stored and ignored']


def test_kinds_of_other_groups_are_not_reported():
    for obj in ({"apiVersion": "batch/v1", "kind": "Job"}, {"apiVersion": "v1", "kind": "Pod"}, {"kind": "x"}):
        assert kinds.stranger(obj) == ""


def test_a_name_is_one_element_of_a_path_whatever_it_contains():
    assert kinds.POD.path("default", "web-1", "log") == "/api/v1/namespaces/default/pods/web-1/log"
    assert kinds.POD.path("a/configmaps?x=", "b") == "/api/v1/namespaces/a%2Fconfigmaps%3Fx%3D/pods/b"
    assert kinds.POD.path("default", "../x") == "/api/v1/namespaces/default/pods/..%2Fx"
