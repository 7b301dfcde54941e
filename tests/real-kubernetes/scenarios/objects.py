"""What scenarios make."""

from both import NOBODY

WORKLOADS = ("Pod", "Event", "ControllerRevision", "PersistentVolumeClaim")
"""Besides the workload itself."""


def template(name, image="x:1", **spec):
    container = {"name": "c", "image": image} | spec.pop("container", {})
    return {
        "metadata": {"labels": {"app": name}},
        "spec": {"schedulerName": NOBODY, "containers": [container], **spec},
    }


def workload(kind, name, version="apps/v1", **spec):
    spec = {"selector": {"matchLabels": {"app": name}}, "template": template(name)} | spec
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}


def image(tag):
    return {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": f"x:{tag}"}]}}}}


def claims(*names):
    request = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "none",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    return [{"metadata": {"name": n}, "spec": request} for n in names]


def job(name, **spec):
    made = {"template": template(name, restartPolicy=spec.pop("restartPolicy", "Never"))} | spec
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": made}
