"""The official client: typed calls, patches, the dynamic client, watches, exec, port-forward, leader election."""

import time

from kubernetes import client, config, dynamic, watch
from kubernetes.stream import portforward, stream

config.load_kube_config()
core, apps, NS = client.CoreV1Api(), client.AppsV1Api(), "py-kubernetes"
core.create_namespace({"metadata": {"name": NS}})
core.create_namespaced_config_map(NS, {"metadata": {"name": "m"}, "data": {"a": "1"}})
assert core.patch_namespaced_config_map("m", NS, {"data": {"b": "2"}}).data == {"a": "1", "b": "2"}
seen = [e["type"] for e in watch.Watch().stream(core.list_namespaced_config_map, NS, timeout_seconds=1)]
assert "ADDED" in seen, seen

maps = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="v1", kind="ConfigMap")
body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"a": "1"}}
made = maps.server_side_apply(body=body, name="applied", namespace=NS, field_manager="dynamic")
assert made.metadata.managedFields[0].operation == "Apply"
told = ""
try:
    maps.server_side_apply(body={**body, "data": {"a": "2"}}, name="applied", namespace=NS, field_manager="other")
except dynamic.exceptions.ConflictError as e:
    told = str(e.body)
assert "FieldManagerConflict" in told, told

pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "lateen/sleep"}]}}
core.create_namespaced_pod(NS, pod)
for _ in range(300):
    if core.read_namespaced_pod("p", NS).status.phase == "Running":
        break
    time.sleep(0.1)
said = stream(core.connect_get_namespaced_pod_exec, "p", NS, command=["echo", "hi"], stdout=True, stderr=True)
assert said == "hi\n", said
talk = stream(
    core.connect_get_namespaced_pod_exec,
    "p",
    NS,
    command=["head", "-c3"],
    stdin=True,
    stdout=True,
    _preload_content=False,
)
talk.write_stdin("abc")
talk.run_forever(timeout=10)
assert talk.read_stdout() == "abc"
forward = portforward(core.connect_get_namespaced_pod_portforward, "p", NS, ports="9")
assert forward.socket(9) is not None

scaling = {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "maxReplicas": 3}
older, newer = client.AutoscalingV1Api(), client.AutoscalingV2Api()
older.create_namespaced_horizontal_pod_autoscaler(
    NS, {"metadata": {"name": "h"}, "spec": {**scaling, "targetCPUUtilizationPercentage": 40}}
)
found = newer.read_namespaced_horizontal_pod_autoscaler("h", NS).spec.metrics[0].resource.target
assert found.average_utilization == 40
told = {"metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Test", "reason": "Tested"}
told |= {"note": "seen", "type": "Normal", "reportingController": "example.com/test", "reportingInstance": "test-1"}
told["regarding"] = {"kind": "Pod", "namespace": NS, "name": "p"}
assert client.EventsV1Api().create_namespaced_event(NS, told).regarding.name == "p"
assert core.read_namespaced_event("e", NS).message == "seen"
names = [s.metadata.name for s in client.ApiregistrationV1Api().list_api_service().items]
assert "v1.apps" in names, names
assert client.CertificatesV1Api().list_certificate_signing_request().items == []
core.delete_namespace(NS)
