"""kopf: an operator of a custom resource, with a finalizer, a status and a child that goes with its owner."""

import asyncio
import contextlib
import threading
import time

import kopf
import pykube

NS = "py-kopf"
GROUP = "kopf.example.com"
SCHEMA = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"toys.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "toys", "kind": "Toy", "singular": "toy"},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": SCHEMA}}],
    },
}
api = pykube.HTTPClient(pykube.KubeConfig.from_env())
gone = threading.Event()


class Toy(pykube.objects.NamespacedAPIObject):
    version, endpoint, kind = f"{GROUP}/v1", "toys", "Toy"


@kopf.on.create("toys", group=GROUP)
def created(spec, **_):
    child = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "child"},
        "data": {"size": str(spec["size"])},
    }
    kopf.adopt(child)
    pykube.ConfigMap(api, child).create()
    return {"size": spec["size"]}


@kopf.on.delete("toys", group=GROUP)
def deleted(**_):
    gone.set()


def until(test, what):
    for _ in range(300):
        with contextlib.suppress(pykube.exceptions.ObjectDoesNotExist):
            if test():
                return
        time.sleep(0.1)
    raise AssertionError(what)


pykube.Namespace(api, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}}).create()
pykube.object_factory(api, CRD["apiVersion"], CRD["kind"])(api, CRD).create()
stop, ready = threading.Event(), threading.Event()
operator = threading.Thread(
    target=lambda: asyncio.run(kopf.operator(namespaces=[NS], stop_flag=stop, ready_flag=ready, standalone=True))
)
operator.start()
try:
    ready.wait(60)
    toy = Toy(
        api,
        {"apiVersion": f"{GROUP}/v1", "kind": "Toy", "metadata": {"name": "t", "namespace": NS}, "spec": {"size": 3}},
    )
    toy.create()
    maps, toys = (k.objects(api).filter(namespace=NS) for k in (pykube.ConfigMap, Toy))
    until(lambda: maps.get_by_name("child").obj["data"] == {"size": "3"}, "the operator has not made the child")
    written = {"created": {"size": 3}}
    until(lambda: written.items() <= toys.get_by_name("t").obj.get("status", {}).items(), "the status was not written")
    toy.delete()
    until(gone.is_set, "the deletion has not been handled")
    until(lambda: not [m for m in maps.all() if m.name == "child"], "the child has not been collected")
finally:
    stop.set()
    operator.join(30)
    pykube.Namespace.objects(api).get_by_name(NS).delete()
