"""lightkube: create, server-side apply with and without force, status, delete."""

from lightkube import ApiError, Client
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap, Namespace

NS = "py-lightkube"
client = Client(namespace=NS, field_manager="lightkube")
client.create(Namespace(metadata=ObjectMeta(name=NS)))
config = ConfigMap(apiVersion="v1", kind="ConfigMap", metadata=ObjectMeta(name="m"), data={"a": "1"})
assert client.apply(config).data == {"a": "1"}
config.data = {"a": "2"}
told = None
try:
    client.apply(config, field_manager="other")
except ApiError as e:
    told = e.status
assert told is not None
assert told.code == 409, told
assert client.apply(config, field_manager="other", force=True).data == {"a": "2"}
assert [m.metadata.name for m in client.list(ConfigMap) if m.metadata.name == "m"]
client.delete(Namespace, NS)
