"""Server-side apply with the real kubectl, as the documentation of Kubernetes shows it."""

import json

import pytest
from world import kubectls

pytestmark = pytest.mark.system


def config_map(**data):
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owned"}, "data": data})


def widget(**spec):
    body = {"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": "owned"}, "spec": spec}
    return json.dumps(body)


@pytest.fixture
def clean(mesh):
    yield mesh
    mesh.kubectl("delete", "configmap/owned", "sidecar/owned", "--ignore-not-found")


def apply(mesh, text, *more, **options):
    return mesh.kubectl("apply", "--server-side", *more, "-f", "-", stdin=text, **options)


@pytest.mark.parametrize("binary", kubectls())
def test_conflicts_are_told_and_can_be_forced(clean, binary):
    apply(clean, config_map(a="1", b="1"), binary=binary)
    assert "serverside-applied" in apply(clean, config_map(a="1", b="2"), binary=binary).stdout
    clean.kubectl("patch", "configmap", "owned", "-p", '{"data": {"b": "3"}}', "--field-manager=other", binary=binary)
    done = apply(clean, config_map(a="1", b="2"), ok=False, binary=binary)
    assert done.returncode == 1
    assert 'Apply failed with 1 conflict: conflict with "other" using v1: .data.b' in done.stderr
    apply(clean, config_map(a="1", b="2"), "--force-conflicts", binary=binary)
    apply(clean, config_map(a="1"), binary=binary)
    assert json.loads(clean.get("configmap", "owned", "-o", "json"))["data"] == {"a": "1"}


def test_kubectl_shows_who_holds_what_and_what_an_apply_would_change(clean):
    apply(clean, config_map(a="1"), "--field-manager=one")
    apply(clean, config_map(b="2"), "--field-manager=two")
    assert "managedFields" not in clean.get("configmap", "owned", "-o", "yaml")
    shown = json.loads(clean.get("configmap", "owned", "-o", "json", "--show-managed-fields"))
    held = {e["manager"]: e["fieldsV1"]["f:data"] for e in shown["metadata"]["managedFields"]}
    assert held == {"one": {"f:a": {}}, "two": {"f:b": {}}}
    would = clean.kubectl("diff", "--server-side", "--field-manager=one", "-f", "-", stdin=config_map(c="3"), ok=False)
    assert would.returncode == 1
    assert {'-  a: "1"', '+  c: "3"'} <= set(would.stdout.splitlines())
    assert apply(clean, config_map(c="3"), "--dry-run=server", "--field-manager=one").stdout.endswith(
        "(server dry run)\n"
    )
    assert "c" not in json.loads(clean.get("configmap", "owned", "-o", "json"))["data"]


def test_what_was_applied_from_the_clients_side_goes_on_from_the_servers(clean):
    clean.apply(config_map(a="1", b="1"))
    apply(clean, config_map(a="2"))
    found = json.loads(clean.get("configmap", "owned", "-o", "json"))
    assert found["data"] == {"a": "2"}
    clean.apply(config_map(a="3"))
    assert json.loads(clean.get("configmap", "owned", "-o", "json"))["data"] == {"a": "3"}


def test_the_meshs_own_kinds_are_applied_too(clean):
    apply(clean, widget(egress=[{"hosts": ["./*"]}]))
    apply(clean, widget(outboundTrafficPolicy={"mode": "REGISTRY_ONLY"}), "--field-manager=other")
    spec = json.loads(clean.get("sidecar", "owned", "-o", "json"))["spec"]
    assert spec == {"egress": [{"hosts": ["./*"]}], "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}
    done = apply(clean, widget(egress=[{"hosts": ["*/*"]}]), "--field-manager=other", ok=False)
    assert ".spec.egress" in done.stderr
