"""The embedded API with the real kubectl: what its refusals, identities and collected garbage look like to a user."""

import json

import pytest
from world import kubectls

pytestmark = pytest.mark.system

ESCAPE = """
apiVersion: v1
kind: Pod
metadata: {name: escape}
spec:
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - {name: c, image: lateen/sleep, volumeMounts: [{name: v, mountPath: /m, subPath: ../../..}]}
"""


def test_a_manifest_with_paths_outside_of_its_pod_is_refused(mesh):
    done = mesh.kubectl("apply", "--validate=false", "-f", "-", stdin=ESCAPE, ok=False)
    assert done.returncode == 1
    assert "spec.containers[0].volumeMounts[0].subPath: Invalid value" in done.stderr
    assert "must not contain '..'" in done.stderr


def test_every_kubectl_can_impersonate(mesh):
    for binary in kubectls():
        secrets = mesh.kubectl("get", "secrets", "-n", "istio-system", "--as=joe", ok=False, binary=binary)
        assert 'User "joe" cannot list resource "secrets"' in secrets.stderr
        assert mesh.kubectl("auth", "can-i", "get", "pods", "--as=joe", ok=False, binary=binary).stdout.strip() == "no"
    pod = mesh.pod("details")
    assert "forbidden" in mesh.kubectl("exec", pod, "-c", "details", "--as=joe", "--", "id", ok=False).stderr
    listed = mesh.kubectl("auth", "can-i", "--list", "--as=joe").stdout
    assert "selfsubjectreviews.authentication.k8s.io" in listed
    assert "*.*" not in listed


def test_create_commands_send_protobuf_and_debug_gets_an_answer(mesh):
    try:
        mesh.kubectl("create", "deployment", "proto", "--image=lateen/sleep", "--replicas=0")
        mesh.kubectl("create", "service", "clusterip", "proto", "--tcp=80:8080")
        mesh.kubectl("create", "ingress", "proto", "--rule=a.example.com/=proto:80")
        assert json.loads(mesh.get("deploy", "proto", "-o", "json"))["spec"]["replicas"] == 0
        assert json.loads(mesh.get("svc", "proto", "-o", "json"))["spec"]["ports"][0]["targetPort"] == 8080
    finally:
        mesh.kubectl("delete", "deploy/proto", "svc/proto", "ingress/proto", "--ignore-not-found")
    done = mesh.kubectl("debug", mesh.pod("details"), "--image=lateen/sleep", "--target=details", ok=False)
    assert "panic" not in done.stderr


def test_a_missing_service_account_is_an_event_and_blocks_nothing_else(mesh):
    def deployment(name, account):
        return json.dumps(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name},
                "spec": {
                    "selector": {"matchLabels": {"app": name}},
                    "template": {
                        "metadata": {"labels": {"app": name, "sidecar.istio.io/inject": "false"}},
                        "spec": {"serviceAccountName": account, "containers": [{"name": "c", "image": "lateen/sleep"}]},
                    },
                },
            }
        )

    try:
        mesh.apply(deployment("without", "nobody"))
        mesh.until(lambda: "FailedCreate" in mesh.get("events"), what="an event of the failure")
        mesh.apply(deployment("beside", ""))
        mesh.kubectl("rollout", "status", "deploy/beside", "--timeout=60s")
    finally:
        mesh.kubectl("delete", "deploy/without", "deploy/beside", "--ignore-not-found")
    mesh.until(lambda: "without" not in mesh.get("rs"), what="the end of the ReplicaSets")
