"""One table of kinds: a row is all that a new kind needs, and kinds of one name in two groups stay apart."""

import asyncio
import importlib.util
import json
import pathlib

import pytest
from click.testing import CliRunner
from test_webhooks import answer

from lateen.analysis import Snapshot, Source, analyze
from lateen.api import crds, effective, kinds, validate
from lateen.api.config import Config
from lateen.api.validate.findings import no
from lateen.cli.analyze import validate as validate_command
from lateen.cli.output import BAD_DATA
from lateen.control import conditions
from lateen.control.world import World
from lateen.install import manifests
from lateen.install.operator import resolve
from lateen.kube.apply import kind_of
from lateen.mesh.objects import COLLECTIONS

KEY = ("default", "one")


class Lantern(Config):
    brightness: int
    color: str = ""


def lantern_rules(spec, meta):
    if spec.brightness > 9:
        yield no("spec.brightness", f"{meta['name']} is too bright")


def lantern(**spec):
    meta = {"name": "one", "namespace": "default", "uid": "u", "generation": 1}
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
    monkeypatch.setitem(kinds.TABLE, made.id, made)
    return made


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


def test_a_row_without_effect_says_so_at_apply_in_the_status_and_in_the_documentation(row, monkeypatch):
    idle = kinds.Kind(*(getattr(row, f) for f in row.__slots__ if f != "idle"), idle="there is no oil")
    monkeypatch.setitem(kinds.TABLE, idle.id, idle)
    assert "there is no oil" in effective.ineffective(idle, {"brightness": 1})[0]
    assert conditions.accepted(idle, "")["reason"] == "NotImplemented"
    path = pathlib.Path(__file__).parents[2] / "tools" / "docs.py"
    spec = importlib.util.spec_from_file_location("docs_of_kinds", path)
    docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(docs)
    assert "| Lantern | there is no oil |" in docs.fields()


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
    """Secrets are watched namespace by namespace, where istiod may read them."""
    assert [k for k in COLLECTIONS.values() if not k.watched] == [kinds.SECRET]


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


def test_kinds_of_others_are_nobodys_mistake():
    for obj in ({"apiVersion": "batch/v1", "kind": "Job"}, {"apiVersion": "v1", "kind": "Pod"}, {"kind": "x"}):
        assert kinds.stranger(obj) == ""
