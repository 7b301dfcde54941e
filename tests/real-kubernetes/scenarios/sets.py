"""StatefulSets and DaemonSets."""

from scenarios.objects import WORKLOADS, claims, image, workload


def stateful_ordered(b):
    b.create(workload("StatefulSet", "db", replicas=3, serviceName="db", volumeClaimTemplates=claims("data")))
    b.ready("db-0")
    b.unready("db-1")
    b.ready("db-1")
    b.ready("db-2")
    b.patch("StatefulSet", "db", image(2))
    b.ready("db-2")
    b.unready("db-0")
    b.ready("db-1")
    b.ready("db-0")
    b.ready("db-0")
    b.ready()
    b.patch("StatefulSet", "db", {"spec": {"replicas": 1}})
    b.fail("db-0")
    b.patch("StatefulSet", "db", {"spec": {"replicas": 0}})
    b.delete("StatefulSet", "db")


def stateful_parallel(b):
    policy = {"whenDeleted": "Delete", "whenScaled": "Delete"}
    b.create(
        workload(
            "StatefulSet",
            "db",
            replicas=3,
            serviceName="db",
            podManagementPolicy="Parallel",
            volumeClaimTemplates=claims("data"),
            persistentVolumeClaimRetentionPolicy=policy,
            ordinals={"start": 5},
            minReadySeconds=1,
        )
    )
    b.ready()
    b.wait(1, "available")
    b.patch("StatefulSet", "db", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}}}} | image(1))
    change = image(2)
    b.patch("StatefulSet", "db", change)
    b.ready()
    b.wait(1, "available")
    b.patch("StatefulSet", "db", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})
    b.ready()
    b.wait(1, "available")
    b.ready()
    b.wait(1, "available")
    b.patch("StatefulSet", "db", {"spec": {"replicas": 2}}, step="its claim goes with a pod")
    b.patch("StatefulSet", "db", {"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain"}}})
    b.delete("StatefulSet", "db", "Foreground")


def stateful_on_delete(b):
    strategy = {"type": "OnDelete"}
    b.create(
        workload("StatefulSet", "db", replicas=2, serviceName="db", updateStrategy=strategy, revisionHistoryLimit=1)
    )
    b.ready()
    b.ready()
    b.patch("StatefulSet", "db", image(2))
    b.delete("Pod", "db-1")
    b.ready()
    b.patch("StatefulSet", "db", image(3))
    b.patch("StatefulSet", "db", image(4))
    b.patch("StatefulSet", "db", image(1))
    b.delete("StatefulSet", "db", "Orphan")


def stateful_broken(b):
    """A rollout that cannot go on, and is taken back."""
    b.create(workload("StatefulSet", "db", replicas=2, serviceName="db"))
    b.ready()
    b.ready()
    b.patch("StatefulSet", "db", image("broken"))
    b.unready("db-1")
    b.patch("StatefulSet", "db", image(1))
    b.delete("Pod", "db-1")
    b.ready("db-1")


def daemon_set(b):
    b.create(workload("DaemonSet", "agent"))
    b.ready()
    b.patch("DaemonSet", "agent", image(2))
    b.ready()
    b.fail()
    b.ready()
    b.patch("DaemonSet", "agent", {"spec": {"template": {"spec": {"nodeSelector": {"none": "such"}}}}})
    b.patch("DaemonSet", "agent", {"spec": {"template": {"spec": {"nodeSelector": None}}}})
    b.delete("DaemonSet", "agent")


def daemon_set_surge(b):
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    b.create(workload("DaemonSet", "agent", updateStrategy=strategy, minReadySeconds=1, revisionHistoryLimit=0))
    b.ready()
    b.wait(1, "available")
    b.patch("DaemonSet", "agent", image(2))
    b.ready("#2")
    b.wait(1, "available")
    b.patch("DaemonSet", "agent", {"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}} | {})
    b.patch("DaemonSet", "agent", image(3))
    b.delete("DaemonSet", "agent", "Orphan")


SCENARIOS = {
    stateful_ordered: ("StatefulSet", *WORKLOADS),
    stateful_parallel: ("StatefulSet", *WORKLOADS),
    stateful_on_delete: ("StatefulSet", *WORKLOADS),
    stateful_broken: ("StatefulSet", *WORKLOADS),
    daemon_set: ("DaemonSet", *WORKLOADS),
    daemon_set_surge: ("DaemonSet", *WORKLOADS),
}
