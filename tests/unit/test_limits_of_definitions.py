"""Values that Istio's definitions refuse, although its webhook would take them: ours refuse them, too."""

import pytest
from apiserver import Cluster

from lateen.api import crds, kinds, validate

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


EMPTY = {"selector": {}, "targetRefs": []}
SE = {"hosts": ["a.b"], "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]}
TAGS = {"metrics": [{"overrides": [{"tagOverrides": {"a": {"operation": "REMOVE", "value": ""}}}]}]}
TLS = {"mode": "SIMPLE", "credentialName": "", "credentialNames": ["a"]}
SERVER = {"port": {"number": 443, "name": "https", "protocol": "HTTPS"}, "hosts": ["*"], "tls": TLS}
SOURCE = {"serviceAccounts": ["a"], "namespaces": []}
HOST = {"name": "A", "value": "", "valueFrom": "HOST"}


@pytest.mark.parametrize(
    ("kind", "spec", "says"),
    [
        (
            kinds.AUTHORIZATION_POLICY,
            EMPTY,
            'spec: Invalid value: "object": only one of targetRefs or selector can be set',
        ),
        (kinds.REQUEST_AUTHENTICATION, EMPTY, "only one of targetRefs or selector can be set"),
        (kinds.TELEMETRY, EMPTY, "only one of targetRefs or selector can be set"),
        (kinds.WASM_PLUGIN, {**EMPTY, "url": "oci://a.b/c"}, "only one of targetRefs or selector can be set"),
        (kinds.TRAFFIC_EXTENSION, {**EMPTY, "lua": {}}, "only one of targetRefs or selector can be set"),
        (
            kinds.ENVOY_FILTER,
            {"workloadSelector": {}, "targetRefs": []},
            "only one of targetRefs or workloadSelector can be set",
        ),
        (
            kinds.SERVICE_ENTRY,
            {**SE, "resolution": "STATIC", "workloadSelector": {"labels": {"a": "b"}}, "endpoints": []},
            "only one of WorkloadSelector or Endpoints can be set",
        ),
        (kinds.SERVICE_ENTRY, {**SE, "endpoints": []}, "NONE mode cannot set endpoints"),
        (kinds.WORKLOAD_ENTRY, {"address": "unix:///a", "ports": {}}, "UDS may not include ports"),
        (kinds.GATEWAY, {"servers": [SERVER]}, "only one of credentialName or credentialNames can be set"),
        (
            kinds.REQUEST_AUTHENTICATION,
            {"jwtRules": [{"issuer": "a", "jwks": "", "jwksUri": "https://a.b"}]},
            'spec.jwtRules[0]: Invalid value: "object": only one of jwks or jwksUri can be set',
        ),
        (
            kinds.AUTHORIZATION_POLICY,
            {"rules": [{"from": [{"source": SOURCE}]}]},
            "Cannot set serviceAccounts with namespaces or principals",
        ),
        (kinds.TELEMETRY, TAGS, "value must not be set when operation is REMOVE"),
        (
            kinds.WASM_PLUGIN,
            {"url": "oci://a.b/c", "vmConfig": {"env": [HOST]}},
            "value may only be set when valueFrom is INLINE",
        ),
    ],
)
def test_an_empty_field_excludes_others_as_in_istios_definitions(cluster, kind, spec, says):
    url = f"/apis/{kind.api_version}/namespaces/default/{kind.plural}"
    obj = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "x"}, "spec": spec}
    code, answer = cluster.ask("POST", url, obj)
    assert (code, says in answer["message"]) == (422, True), answer


def test_patches_of_waypoints_name_what_they_patch_there():
    patch = {"applyTo": "CLUSTER", "match": {"context": "WAYPOINT"}, "patch": {"operation": "MERGE", "value": {}}}
    obj = {"apiVersion": kinds.ENVOY_FILTER.api_version, "kind": "EnvoyFilter", "metadata": {"name": "x"}}
    assert [p for p, _ in validate.problems({**obj, "spec": {"configPatches": [patch]}})] == [
        "spec.configPatches[0].match.waypoint"
    ]
