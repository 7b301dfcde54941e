"""kr8s: objects, label selectors, logs and exec of a pod."""

import kr8s
from kr8s.objects import ConfigMap, Namespace, Pod

NS = "py-kr8s"
Namespace({"metadata": {"name": NS}}).create()
made = ConfigMap({"metadata": {"name": "m", "namespace": NS, "labels": {"a": "b"}}, "data": {"a": "1"}})
made.create()
made.patch({"data": {"b": "2"}})
(found,) = kr8s.get("configmaps", namespace=NS, label_selector="a=b")
assert dict(found.data) == {"a": "1", "b": "2"}
spec = {"containers": [{"name": "c", "image": "lateen/sleep"}]}
pod = Pod({"metadata": {"name": "p", "namespace": NS}, "spec": spec})
pod.create()
pod.wait("condition=Ready", timeout=60)
assert pod.exec(["echo", "hi"]).stdout.decode() == "hi\n"
Namespace.get(NS).delete()
