"""pykube-ng: objects and watches."""

import pykube

NS = "py-pykube"
api = pykube.HTTPClient(pykube.KubeConfig.from_env())
pykube.Namespace(api, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}}).create()
body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": NS}, "data": {"a": "1"}}
made = pykube.ConfigMap(api, body)
made.create()
made.obj["data"]["b"] = "2"
made.update()
assert pykube.ConfigMap.objects(api).filter(namespace=NS).get_by_name("m").obj["data"] == {"a": "1", "b": "2"}
event = next(iter(pykube.ConfigMap.objects(api).filter(namespace=NS).watch()))
assert event.object.obj["kind"] == "ConfigMap"
pykube.Namespace.objects(api).get_by_name(NS).delete()
