"""Bindings: how a scheduler assigns a pod to a node (after kube-apiserver's BindingREST)."""

from __future__ import annotations

from lateen.cluster.apiserver import decoding, errors, matching, reading
from lateen.cluster.apiserver.admission import Webhooks
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.commit import Committer
from lateen.cluster.apiserver.errors import bad_request
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.apiserver.resources import Resource
from lateen.cluster.apiserver.validation.fields import required, unsupported
from lateen.cluster.store.objects import Store
from lateen.kit import jsons, times
from lateen.kit.jsons import Json, dig

BINDING = Resource("", "v1", "bindings", "Binding")
_KIND = (BINDING.group, BINDING.version, BINDING.kind)


async def bind(store: Store, registry: Registry, webhooks: Webhooks, committer: Committer, c: Call) -> Json:
    """POST of a Binding to ``pods/NAME/binding``, or to ``bindings``. Raises ApiError."""
    to = c.on(resource=BINDING, version="v1")
    binding = decoding.decode(to, c.body)
    if not c.name:
        c = c.on(name=str(binding["metadata"].get("name") or ""), subresource="binding")
    if not c.name or binding["metadata"].setdefault("name", c.name) != c.name:
        raise bad_request("name in URL does not match name in Binding object")
    pods = registry.by_collection("pods")
    assert pods is not None
    c = c.on(resource=pods, version=pods.version)
    _check(binding, c.name)
    reading.entry(store, c)
    admitted = await webhooks.admit(matching.review("CREATE", c, binding, None, _KIND))
    if admitted is not None and admitted is not binding:
        binding = decoding.decode(to, admitted)
        _check(binding, c.name)
    entry = reading.entry(store, c)
    reading.expect(c, entry, binding["metadata"])
    if entry.obj["metadata"].get("deletionTimestamp"):
        raise errors.conflict(
            "pods/binding", c.name, "", f"pod {c.name} is being deleted, cannot be assigned to a host"
        )
    if node := dig(entry.obj, "spec", "nodeName"):
        raise errors.conflict("pods/binding", c.name, "", f'pod {c.name} is already assigned to node "{node}"')
    if entry.obj["spec"].get("schedulingGates"):
        raise errors.conflict("pods/binding", c.name, "", f"pod {c.name} has non-empty .spec.schedulingGates")
    if not c.dry_run:
        assigned = _assigned(entry.obj, binding)
        committer.stored(pods, c.name, lambda: store.update("pods", c.namespace, c.name, assigned, entry))
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def _check(binding: Json, name: str) -> None:
    target = binding.get("target") or {}
    causes = []
    if target.get("kind") not in (None, "", "Node"):
        causes.append(unsupported("target.kind", target["kind"], ["Node", "<empty>"]))
    if not target.get("name"):
        causes.append(required("target.name", ""))
    if causes:
        raise errors.invalid("Binding", "", name, causes)


def _assigned(pod: Json, binding: Json) -> Json:
    obj = jsons.copy(pod)
    obj["spec"]["nodeName"] = binding["target"]["name"]
    for key in ("annotations", "labels"):
        if more := binding["metadata"].get(key):
            obj["metadata"][key] = {**(obj["metadata"].get(key) or {}), **more}
    status = obj.setdefault("status", {})
    others = [c for c in status.get("conditions") or [] if c["type"] != "PodScheduled"]
    status["conditions"] = [
        *others,
        {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": times.stamp()},
    ]
    return obj
