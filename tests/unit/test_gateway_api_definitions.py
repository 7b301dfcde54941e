"""The release and channel of the Gateway API's definitions: kept, named, and checked."""

import asyncio

import meshes as mesh
import pytest
from test_gateway_api import CLASS, of

from lateen.analysis import analyze
from lateen.analysis.snapshot import Snapshot, Source
from lateen.api import crds, kinds
from lateen.api.crds import Bundle
from lateen.control.definitions import Definitions
from lateen.install import installer
from lateen.kube.errors import KubeError
from lateen.mesh.model import Mesh

NAME = "httproutes.gateway.networking.k8s.io"


def crd(release=crds.RELEASE, channel="standard", ours=True, kind=kinds.HTTP_ROUTE):
    out = crds.crd(kind, channel == "experimental")
    out["metadata"]["annotations"] |= {crds.BUNDLE: release, crds.CHANNEL: channel}
    if not ours:
        out["metadata"]["labels"] = {}
    return out


class Api:
    """An API server with these definitions, which may be read or not."""

    def __init__(self, *found, readable=True):
        self.found, self.readable = {d["metadata"]["name"]: d for d in found}, readable

    async def get(self, _kind, _namespace, name):
        if not self.readable:
            raise KubeError(403, "Forbidden", "no")
        return self.found.get(name)


@pytest.mark.parametrize(
    ("there", "channel", "wanted"),
    [
        (None, "standard", None),
        (crd(), "standard", None),
        (crd("v1.5.0"), "standard", None),
        (crd(), "experimental", None),
        (crd("v1.7.0"), "standard", "v1.7.0"),
        (crd("v1.6.10"), "standard", "v1.6.10"),
        (crd(channel="experimental"), "standard", "experimental"),
        (crd(ours=False), "standard", ""),
        (crd("v1.4.0", ours=False), "standard", "they were not installed by Lateen: v1.4.0"),
        (crd("v1.9.0", ours=False), "standard", "they were not installed by Lateen: v1.9.0"),
        (crd(ours=False), "experimental", "not installed by Lateen"),
    ],
)
def test_install_replaces_no_newer_definitions_and_takes_no_fields_away(there, channel, wanted):
    api = Api(*([there] if there else []))
    says = asyncio.run(installer._stays(api, crd(channel=channel)))
    assert says == wanted if wanted in (None, "") else wanted in says


def classes(experimental=False, **found):
    objects = mesh.objects(CLASS)
    for name, bundle in found.items():
        objects = objects.put(kinds.CRD, ("", f"{name}.gateway.networking.k8s.io"), Bundle(*bundle))
    made = Mesh(objects)
    return made.standings()[kinds.GATEWAY_CLASS.ref("", "istio")]


@pytest.mark.parametrize(
    ("release", "supported"),
    [("v1.0.0", True), ("v1.6.1", True), ("v1.6.9", True), ("v1.7.0-rc.1", False), ("v0.8.0", False), ("", False)],
)
def test_a_class_says_whether_the_clusters_definitions_are_supported(release, supported):
    found = of(classes(httproutes=(release, "standard"), gateways=("v1.6.1", "standard")).conditions)
    assert found["Accepted"] == ("True", "Accepted")
    reason = "SupportedVersion" if supported else "UnsupportedVersion"
    assert found["SupportedVersion"] == (str(supported), reason)
    assert "SupportedVersion" not in of(classes().conditions)


def test_istiod_knows_the_definitions_that_it_may_read():
    def look(api, known):
        def know(kind, found):
            known[kind.kind] = found

        asyncio.run(Definitions(api, know, lambda _: None).look())
        return known

    known = look(Api(crd("v1.5.1", "experimental")), {})
    assert known["HTTPRoute"] == Bundle("v1.5.1", "experimental")
    assert known["Gateway"] is None
    assert look(Api(readable=False), known) is known


def codes(*objects):
    found = analyze(Snapshot([Source(o) for o in objects]))
    return {
        (m.kind.code, ".".join(map(str, m.path))) for m in found if m.kind.code in ("IST0176", "LAT0114", "LAT0115")
    }


def http_route(**rule):
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": "default"},
        "spec": {"rules": [{"backendRefs": [{"name": "b", "port": 80}]} | rule]},
    }


POLICY = {
    "apiVersion": "gateway.networking.x-k8s.io/v1alpha1",
    "kind": "XBackendTrafficPolicy",
    "metadata": {"name": "p", "namespace": "default"},
    "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "b"}]},
}


def test_analysis_names_definitions_that_are_too_old_or_new_and_fields_that_they_lack():
    retried = http_route(retry={"attempts": 2}, sessionPersistence={})
    assert codes(crd(), http_route(timeouts={"request": "1s"})) == set()
    assert codes(retried) == set()  # files alone
    assert codes(crd("v1.0.0", kind=kinds.GRPC_ROUTE)) == {("IST0176", f"metadata.annotations.{crds.BUNDLE}")}
    assert codes(crd("v1.7.0")) == {("LAT0114", f"metadata.annotations.{crds.BUNDLE}")}
    assert codes(crd(), retried) == {
        ("LAT0115", "spec.rules.0.retry"),
        ("LAT0115", "spec.rules.0.sessionPersistence"),
    }
    assert codes(crd(channel="experimental"), retried) == set()
    assert codes(crd(), POLICY) == {("LAT0115", "")}
    experimental = crd(channel="experimental", kind=kinds.X_BACKEND_TRAFFIC_POLICY)
    assert codes(experimental, POLICY) == set()
