"""Values that Istio's definitions refuse, although its webhook would take them: ours refuse them, too."""

import pytest
from apiserver import Cluster

from lateen.api import crds, kinds

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
LONG = "a" * 2049
LABELS = {"matchLabels": {"app": "a" * 64}}
TARGET = {"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": "a" * 254}


@pytest.fixture(scope="module")
def cluster():
    out = Cluster()
    for crd in crds.crds():
        out.must("POST", CRDS, crd)
    return out


@pytest.mark.parametrize(
    ("kind", "spec", "field"),
    [
        (kinds.AUTHORIZATION_POLICY, {"selector": LABELS}, "spec.selector.matchLabels.app"),
        (kinds.SIDECAR, {"workloadSelector": {"labels": {"app": "a" * 64}}}, "spec.workloadSelector.labels.app"),
        (kinds.TELEMETRY, {"targetRefs": [TARGET]}, "spec.targetRefs[0].name"),
        (kinds.AUTHORIZATION_POLICY, {"rules": [{}] * 513}, "spec.rules"),
        (kinds.WORKLOAD_ENTRY, {"address": "1.1.1.1", "network": LONG}, "spec.network"),
        (kinds.WORKLOAD_ENTRY, {"address": "1.1.1.1", "serviceAccount": "a" * 254}, "spec.serviceAccount"),
        (kinds.REQUEST_AUTHENTICATION, {"jwtRules": [{"issuer": "a", "jwksUri": ""}]}, "spec.jwtRules[0].jwksUri"),
        (kinds.WASM_PLUGIN, {"url": "oci://a.b/c", "imagePullSecret": ""}, "spec.imagePullSecret"),
        (
            kinds.SERVICE_ENTRY,
            {"hosts": ["a.b"], "ports": [{"number": 80, "name": "http", "targetPort": 0}]},
            "spec.ports[0].targetPort",
        ),
    ],
)
def test_the_api_server_refuses_what_istios_definitions_refuse(cluster, kind, spec, field):
    url = f"/apis/{kind.api_version}/namespaces/default/{kind.plural}"
    obj = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "x"}, "spec": spec}
    code, answer = cluster.ask("POST", url, obj)
    assert (code, f"{field}:" in answer["message"]) == (422, True), answer
