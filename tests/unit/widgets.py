"""A custom resource in two versions: v1 has a size ("3x4"), v2 a width and a height."""

from apiserver import Cluster

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
V1, V2 = (f"/apis/example.com/{v}/namespaces/default/widgets" for v in ("v1", "v2"))


def schema(**spec):
    status = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
    return {
        "openAPIV3Schema": {
            "type": "object",
            "properties": {"spec": {"type": "object", "properties": spec}, "status": status},
        }
    }


def definition(conversion=None, stored="v2"):
    text, number = {"type": "string"}, {"type": "integer"}
    own = {
        "v1": schema(size=text, color={**text, "default": "red"}),
        "v2": schema(width=number, height={**number, "minimum": 1}, color=text),
    }
    parts = {
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.width", "statusReplicasPath": ".status.n"}}
    }
    columns = {"additionalPrinterColumns": [{"name": "Size", "type": "string", "jsonPath": ".spec.size"}]}
    versions = [
        {"name": n, "served": True, "storage": n == stored, "schema": s, **(parts if n == "v2" else columns)}
        for n, s in own.items()
    ]
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": versions}
    return {
        "metadata": {"name": "widgets.example.com"},
        "spec": spec | ({"conversion": conversion} if conversion else {}),
    }


def by(hook, versions=("v1",)):
    config = {"url": hook.url + "convert", "caBundle": hook.bundle}
    return {"strategy": "Webhook", "webhook": {"clientConfig": config, "conversionReviewVersions": list(versions)}}


def widget(name="w", **spec):
    return {"metadata": {"name": name}, "spec": spec}


def stored(cluster, name="w"):
    return cluster.store.get("widgets.example.com", "default", name).obj


def changed(cluster, **conversion):
    """The definition with another conversion."""
    crd = cluster.store.get("customresourcedefinitions.apiextensions.k8s.io", "", "widgets.example.com").obj
    return {**crd, "spec": {**crd["spec"], "conversion": conversion}}


def answered(**response):
    return lambda answer: answer["response"].update(response)


def first(change):
    return lambda answer: change(answer["response"]["convertedObjects"][0])


def converting(hook):
    """A cluster whose widgets the webhook converts."""
    made = Cluster()
    made.must("POST", CRDS, definition(by(hook)))
    return made
