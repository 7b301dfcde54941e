"""Deployments, ReplicaSets, ReplicationControllers."""

from scenarios.objects import WORKLOADS, image, template, workload


def deployment_rolling(b):
    b.create(workload("Deployment", "web", replicas=3))
    b.ready()
    b.patch("Deployment", "web", image(2))
    b.ready("HASH2")
    b.ready("HASH2")
    b.ready("HASH2")
    b.patch("Deployment", "web", {"spec": {"replicas": 5}})
    b.ready()
    b.patch("Deployment", "web", {"metadata": {"annotations": {"kubernetes.io/change-cause": "why"}}} | image(1))
    b.patch("Deployment", "web", {"spec": {"replicas": 8}})
    b.patch("Deployment", "web", {"spec": {"paused": True}})
    b.ready()
    b.patch("Deployment", "web", {"spec": {"paused": None}})
    b.ready()
    b.ready()
    b.ready()
    b.patch("Deployment", "web", {"spec": {"replicas": 0}})
    b.delete("Deployment", "web")


def deployment_recreate(b):
    b.create(workload("Deployment", "web", replicas=2, strategy={"type": "Recreate"}, revisionHistoryLimit=1))
    b.ready()
    b.patch("Deployment", "web", image(2))
    b.ready()
    b.patch("Deployment", "web", image(3))
    b.ready()
    b.patch("Deployment", "web", {"spec": {"strategy": {"type": "RollingUpdate"}}})
    b.unready("", 1)
    b.delete("Deployment", "web", "Orphan")


def deployment_late(b):
    b.create(workload("Deployment", "web", replicas=2, progressDeadlineSeconds=3, minReadySeconds=1))
    b.wait(3, "the deadline has passed")
    b.ready()
    b.wait(2, "available")
    b.patch("Deployment", "web", image(2))
    b.wait(4, "late again")
    b.patch("Deployment", "web", image(1))


def deployment_quota(b):
    hard = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}}
    b.create(hard)
    b.create(workload("Deployment", "web", replicas=3))
    b.patch("ResourceQuota", "q", {"spec": {"hard": {"pods": "2"}}})
    b.patch("Deployment", "web", {"spec": {"replicas": 2}})


def replica_set(b):
    b.create(workload("ReplicaSet", "web", replicas=3))
    b.ready("", 2)
    b.patch("ReplicaSet", "web", {"spec": {"replicas": 2}}, step="the pod that is not ready goes")
    b.fail("", 1)
    b.ready()
    b.patch("Pod", "web-#1", {"metadata": {"labels": {"app": "other"}}}, step="a pod is released")
    b.patch("Pod", "web-#2", {"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}}})
    b.ready()
    b.patch("ReplicaSet", "web", {"spec": {"replicas": 1}}, step="the cheapest pod goes")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stray", "labels": {"app": "web"}}}
    b.create(pod | {"spec": template("web")["spec"]}, step="a stray pod is adopted")
    b.delete("ReplicaSet", "web", "Orphan")


def replication_controller(b):
    rc = workload("ReplicationController", "web", "v1", replicas=2, selector={"app": "web"}, minReadySeconds=1)
    b.create(rc)
    b.ready("", 1)
    b.wait(1, "available")
    b.patch("ReplicationController", "web", {"spec": {"replicas": 1}})
    b.patch("ReplicationController", "web", image(2))
    b.delete("ReplicationController", "web", "Foreground")


SCENARIOS = {
    deployment_rolling: ("Deployment", "ReplicaSet", *WORKLOADS),
    deployment_recreate: ("Deployment", "ReplicaSet", *WORKLOADS),
    deployment_late: ("Deployment", "ReplicaSet", *WORKLOADS),
    deployment_quota: ("Deployment", "ReplicaSet", "ResourceQuota", *WORKLOADS),
    replica_set: ("ReplicaSet", *WORKLOADS),
    replication_controller: ("ReplicationController", *WORKLOADS),
}
