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
core.delete_namespace(NS)
