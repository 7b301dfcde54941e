"""What a file of tests leaves behind, and how it goes, so that each file finds the cluster as it came."""

import json
import re
import time

LASTING = re.compile(
    r"(apiservices|clustertrustbundles|csinodes|endpoints|endpointslices|events|flowschemas|ipaddresses|leases|nodes|"
    r"prioritylevelconfigurations)\b"
)
"""Kinds whose objects Kubernetes makes and deletes by itself, and the node."""
FIRST = ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "CustomResourceDefinition", "Namespace")
"""What goes before everything else: the rest goes with it, or could not go while it is there."""
SECONDS = 120


def everything(mesh):
    """(kind as kubectl takes it, namespace, name) of each object that can be deleted and has no owner. One whose owner
    is gone counts: garbage collection comes later, and the processes of such a pod would end during the next test."""

    def listed():
        """Nothing while a kind is being taken away."""
        named = mesh.kubectl("api-resources", "--verbs=list,delete", "-o", "name", ok=False).stdout.split()
        kinds = ",".join(k for k in named if not LASTING.match(k))
        done = mesh.kubectl("get", kinds, "-A", "-o", "json", ok=False)
        return None if done.returncode else json.loads(done.stdout)

    found = mesh.until(listed, SECONDS, "a list of everything")["items"]
    known = {o["metadata"]["uid"] for o in found}
    return {
        (o["kind"], _argument(o), o["metadata"].get("namespace", ""), o["metadata"]["name"])
        for o in found
        if not any(owner["uid"] in known for owner in o["metadata"].get("ownerReferences", ()))
    }


def _argument(obj):
    """``Deployment.v1.apps``: the kind without doubt."""
    group, _, version = obj["apiVersion"].rpartition("/")
    return f"{obj['kind']}.{version}.{group}" if group else obj["kind"]


def clear(mesh, before):
    """Delete what was not there before, and wait until it is gone."""
    deadline = time.monotonic() + SECONDS
    while left := everything(mesh) - before:
        assert time.monotonic() < deadline, f"still there: {sorted(left)}"
        kind = next((k for k in FIRST if any(k == found[0] for found in left)), None)
        for found, argument, namespace, name in sorted(left):
            if kind in (None, found):
                where = ("-n", namespace) if namespace else ()
                mesh.kubectl("delete", argument, name, *where, "--now", "--ignore-not-found", "--wait=false", ok=False)
        time.sleep(0.5)
