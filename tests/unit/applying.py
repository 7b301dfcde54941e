"""Server-side apply without an API server: writers, objects, and who holds which field."""

from lateen.cluster.apiserver import managed, schema
from lateen.cluster.apiserver.managed import typed

NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
DEPLOYMENT = schema.definitions()["io.k8s.api.apps.v1.Deployment"]
CUSTOM = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "size": {"type": "integer"},
                "hosts": {"type": "array", "items": {"type": "string"}},
                "tags": {
                    "type": "array",
                    "x-kubernetes-list-type": "set",
                    "items": {"type": "string"},
                },
                "ports": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "properties": {
                            "name": {"type": "string"},
                            "port": {"type": "integer"},
                            "note": {"type": "string"},
                        },
                    },
                },
                "ref": {
                    "type": "object",
                    "x-kubernetes-map-type": "atomic",
                    "properties": {
                        "name": {"type": "string"},
                        "kind": {"type": "string"},
                    },
                },
                "free": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": True,
                },
            },
        },
        "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
    },
}


def writer(manager, of=CUSTOM, subresource="", now=NOW):
    native = of is not CUSTOM
    version = "apps/v1" if of is DEPLOYMENT else "v1" if native else "example.com/v1"
    return managed.Writer(manager, version, subresource, typed.root(of), native, True, now)


def obj(name="x", meta=None, **content):
    return {
        "apiVersion": "v",
        "kind": "K",
        "metadata": {"name": name, **(meta or {})},
        **content,
    }


def apply(live, manager, config, of=CUSTOM, force=False, now=NOW, subresource=""):
    return managed.apply(writer(manager, of, subresource, now), live, config, force)


def write(live, manager, new, of=CUSTOM, now=NOW, subresource=""):
    """What an update leaves behind: the object with its managedFields."""
    fields = managed.update(writer(manager, of, subresource, now), live, new)
    return {**new, "metadata": {**new["metadata"], "managedFields": fields}}


def held(o):
    """``manager operation`` -> its fields."""
    entries = o["metadata"].get("managedFields") or []
    return {
        f"{e['manager']} {e['operation']}{' ' + e['subresource'] if 'subresource' in e else ''}": e["fieldsV1"]
        for e in entries
    }


def spec(**content):
    return obj(spec=content)
