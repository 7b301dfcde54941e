"""Installations whose recorded settings an earlier version has accepted, and which are refused today, can be replaced,
upgraded and removed; and an autoscaler that is taken back leaves nothing behind."""

import asyncio

import pytest
from apiserver import Cluster
from click.testing import CliRunner

from lateen.api import kinds
from lateen.cli import gateways
from lateen.cli import install as cli
from lateen.cli.connect import Target
from lateen.cli.output import CliError
from lateen.cluster.apiserver.direct import DirectClient
from lateen.install import installer
from lateen.kit import yamldoc

SYSTEM = "istio-system"
TAKEN_BACK = ["values.pilot", "values.gateways", "values.global.imagePullSecrets", "components.pilot.k8s.hpaSpec"]
REFUSED = {
    "an autoscaler by text": {"values": {"pilot": {"autoscaleEnabled": "true"}}},
    "no autoscaler by text": {"values": {"gateways": {"istio-ingressgateway": {"autoscaleEnabled": "false"}}}},
    "tolerations that are a map": {"values": {"pilot": {"tolerations": {}}}},
    "an autoscaler that is text": {"components": {"pilot": {"k8s": {"hpaSpec": "x"}}}},
    "secrets that are objects": {"values": {"global": {"imagePullSecrets": [{"name": "x"}]}}},
}


class Mesh:
    """The commands against an API server without controllers."""

    def __init__(self, monkeypatch):
        self._cluster = Cluster()
        self.client = DirectClient(self._cluster.api, "lateen")
        monkeypatch.setattr(Target, "run", lambda _, work: asyncio.run(self._carried_out(work)))
        monkeypatch.setattr(installer, "wait_available", self._ready)
        monkeypatch.setattr(installer, "_stays", self._definitions_stay)
        monkeypatch.setattr(gateways, "TRIES", 1)
        self.run(cli.install, "--set", "profile=default")

    async def _carried_out(self, work):
        try:
            return await work(self.client)
        finally:
            await self._cluster.webhooks.close()

    async def _ready(self, *_):
        pass

    async def _definitions_stay(self, _, obj):
        return "" if obj["kind"] == "CustomResourceDefinition" else None

    def run(self, command, *options):
        done = CliRunner().invoke(command, [*options, "-y"])
        assert done.exception is None, (done.exception, done.output)
        return " ".join(done.output.split())

    def record(self, overlay):
        """As an earlier version has written it."""
        change = {"data": {"overlays": yamldoc.dump([overlay]), "settings": "[]"}}
        asyncio.run(self.client.patch(kinds.CONFIG_MAP, SYSTEM, "istio-installation", change))

    def get(self, kind, name, namespace=SYSTEM):
        return asyncio.run(self.client.get(kind, namespace, name))

    def left(self):
        """The names of what is there of the mesh."""

        async def names():
            every = [(await self.client.list(k))[0] for k in (*installer.OWN, *installer.HOOKS)]
            listed = [o["metadata"] for found in every for o in found]
            return sorted(m["name"] for m in listed if "istio" in m["name"] and not m["name"].endswith("-ca-root-cert"))

        return asyncio.run(names())


@pytest.fixture(scope="module")
def made():
    with pytest.MonkeyPatch.context() as patched:
        yield Mesh(patched)


@pytest.fixture
def mesh(monkeypatch):
    return Mesh(monkeypatch)


@pytest.mark.parametrize("overlay", REFUSED.values(), ids=REFUSED)
def test_what_was_accepted_once_can_be_replaced_and_corrected(made, overlay):
    made.record(overlay)
    refused = CliRunner().invoke(cli.upgrade, ["-y"]).exception
    assert isinstance(refused, CliError)
    assert str(refused).startswith("spec.")
    corrected = made.run(cli.upgrade, *(w for name in TAKEN_BACK for w in ("--set", f"{name}=null")))
    assert "are not valid" in corrected
    assert "Upgrade complete" in corrected
    made.record(overlay)
    replaced = made.run(cli.install, "--set", "profile=default")
    assert "are not valid" in replaced
    assert "Installation complete" in replaced


def test_a_mesh_is_removed_whatever_is_recorded_of_it(mesh):
    options = ["components.ingressGateways[0].name=edge", "components.ingressGateways[0].enabled=true"]
    more = ["values.pilot.autoscaleEnabled=true", "values.global.defaultPodDisruptionBudget.enabled=true"]
    mesh.run(cli.install, *(word for s in [*options, *more] for word in ("--set", s)))
    assert mesh.get(kinds.AUTOSCALER, "istiod")
    mesh.record(REFUSED["an autoscaler that is text"])
    mesh.run(cli.uninstall)
    assert mesh.left() == []
    assert mesh.get(kinds.DEPLOYMENT, "edge") is None
    assert mesh.get(kinds.POD_DISRUPTION_BUDGET, "edge") is None


def test_an_autoscaler_is_gone_before_its_deployment_gets_its_replicas(mesh, monkeypatch):
    mesh.run(cli.install, "--set", "values.pilot.autoscaleEnabled=true")
    seen = []
    plain = installer.apply

    async def apply(client, obj, before=None):
        if (obj["kind"], obj["metadata"]["name"]) == ("Deployment", "istiod"):
            seen.append(await client.get(kinds.AUTOSCALER, SYSTEM, "istiod"))
        return await plain(client, obj, before)

    monkeypatch.setattr(installer, "apply", apply)
    mesh.run(cli.upgrade, "--set", "values.pilot.autoscaleEnabled=false", "--set", "values.pilot.replicaCount=2")
    assert seen == [None]
    assert mesh.get(kinds.DEPLOYMENT, "istiod")["spec"]["replicas"] == 2


@pytest.mark.parametrize("labels", [{}, {"istio.io/rev": "default"}, {"istio.io/rev": "canary"}])
def test_an_autoscaler_of_somebody_else_stays(made, labels):
    spec = {
        "maxReplicas": 3,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "istiod"},
    }
    meta = {"name": "istiod", "namespace": SYSTEM, "labels": labels}
    obj = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": meta, "spec": spec}
    asyncio.run(made.client.create(kinds.AUTOSCALER, obj))
    made.run(cli.install, "--set", "profile=default")
    assert asyncio.run(made.client.delete(kinds.AUTOSCALER, SYSTEM, "istiod"))
