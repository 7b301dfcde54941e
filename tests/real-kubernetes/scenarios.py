"""What is done to both clusters' controllers, step by step; each function is one scenario."""

import base64
import time

from both import NOBODY, now
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

WORKLOADS = ("Pod", "Event", "ControllerRevision", "PersistentVolumeClaim")


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


# --- Deployments and ReplicaSets -----------------------------------------------------------------------------------


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


# --- StatefulSets ---------------------------------------------------------------------------------------------------


def claims(*names):
    request = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "none",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    return [{"metadata": {"name": n}, "spec": request} for n in names]


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


# --- DaemonSets -----------------------------------------------------------------------------------------------------


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


# --- Jobs -----------------------------------------------------------------------------------------------------------


def job(name, **spec):
    made = {"template": template(name, restartPolicy=spec.pop("restartPolicy", "Never"))} | spec
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": made}


def job_plain(b):
    b.create(job("once"))
    b.ready()
    b.succeed()
    b.create(job("many", completions=3, parallelism=2))
    b.succeed("many", 1)
    b.succeed("many", 1)
    b.succeed("many", 1)
    b.create(job("queue", parallelism=2))
    b.ready("queue")
    b.succeed("queue", 1)
    b.succeed("queue", 1)


def job_fails(b):
    b.create(job("bad", backoffLimit=0, parallelism=2, completions=2))
    b.ready()
    b.fail("", 1)
    b.create(job("late", activeDeadlineSeconds=2))
    b.wait(3, "the deadline has passed")
    b.create(job("short", ttlSecondsAfterFinished=2))
    b.succeed("short")
    b.wait(3, "its time is over")


def job_policy(b):
    rules = [
        {"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "In", "values": [42]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "Count", "onExitCodes": {"operator": "In", "values": [3]}},
    ]
    b.create(job("picky", backoffLimit=3, parallelism=2, completions=2, podFailurePolicy={"rules": rules}))
    b.ready()
    b.fail("", 1, code=42)


def job_retries(b):
    b.create(job("again", backoffLimit=1))
    b.fail("again")
    b.wait(11, "the pause after the first failure")
    b.fail("again")


def job_ignores(b):
    """Failures that do not count, by podFailurePolicy."""
    rules = [
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [7]}},
        {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [8]}},
    ]
    more = {"completions": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1, "parallelism": 2}
    b.create(job("parts", podFailurePolicy={"rules": rules}, **more))
    b.fail("parts-0", code=7)
    b.fail("parts-1", code=8)
    b.wait(11, "the pause after the failure")
    b.succeed("parts-0")


def job_indexed(b):
    b.create(
        job("parts", completions=4, parallelism=2, completionMode="Indexed", backoffLimitPerIndex=0, maxFailedIndexes=2)
    )
    b.ready()
    b.succeed("parts-0")
    b.fail("parts-1")
    b.succeed("parts-2")
    b.succeed("parts-3")


def job_failed_indexes(b):
    b.create(
        job("parts", completions=4, parallelism=4, completionMode="Indexed", backoffLimitPerIndex=0, maxFailedIndexes=1)
    )
    b.ready()
    b.fail("parts-1")
    b.fail("parts-3")


def job_success_policy(b):
    rules = {"rules": [{"succeededIndexes": "0,2", "succeededCount": 1}]}
    b.create(job("parts", completions=3, parallelism=3, completionMode="Indexed", successPolicy=rules))
    b.ready()
    b.succeed("parts-1")
    b.succeed("parts-2")


def job_suspend(b):
    b.create(job("wait", suspend=True, parallelism=2, completions=2))
    b.patch("Job", "wait", {"spec": {"suspend": False}})
    b.ready()
    b.patch("Job", "wait", {"spec": {"suspend": True}})
    b.patch("Job", "wait", {"spec": {"suspend": False, "parallelism": 1}})
    b.patch("Job", "wait", {"spec": {"parallelism": 0}})
    b.patch("Job", "wait", {"spec": {"parallelism": 2}})
    b.succeed()
    b.create(job("kept", completions=1, podReplacementPolicy="Failed"))
    b.delete("Job", "kept", "Foreground")
    b.create(job("left"))
    b.delete("Job", "left", "Orphan")


def cron(name, schedule, **spec):
    spec = {"schedule": schedule, "jobTemplate": {"spec": job("x")["spec"]}} | spec
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name}, "spec": spec}


def minute(b):
    """The next one begins, and both make what is due."""
    b.wait_only(60 - time.time() % 60 + 2)


def cron_job(b):
    b.create(cron("never", "0 0 29 2 *"))
    b.create(cron("often", "* * * * *", timeZone="Europe/Berlin", concurrencyPolicy="Forbid"))
    minute(b)
    b.same("the first minute")
    b.succeed("often")
    b.patch("CronJob", "often", {"spec": {"suspend": True}})
    b.patch("CronJob", "often", {"spec": {"successfulJobsHistoryLimit": 0}})
    b.delete("CronJob", "often")


def cron_job_while_another_runs(b):
    for policy in ("Allow", "Forbid", "Replace"):
        b.create(cron(policy.lower(), "* * * * *", concurrencyPolicy=policy, startingDeadlineSeconds=30))
    minute(b)
    b.same("the first minute")
    minute(b)
    b.patch("CronJob", "allow", {"spec": {"suspend": True}}, step="the second minute")
    b.patch("CronJob", "forbid", {"spec": {"suspend": True}})
    b.patch("CronJob", "replace", {"spec": {"suspend": True}})
    b.fail("allow")
    b.delete("CronJob", "allow", "Orphan")


# --- budgets, quotas, autoscalers ------------------------------------------------------------------------------------


def budget(name, app="web", **spec):
    spec = {"selector": {"matchLabels": {"app": app}}} | spec
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name}, "spec": spec}


def budgets(b):
    wanted = {
        "percent": {"minAvailable": "50%"},
        "number": {"minAvailable": 3},
        "most": {"maxUnavailable": 1},
        "part": {"maxUnavailable": "30%", "unhealthyPodEvictionPolicy": "AlwaysAllow"},
    }
    b.create(*(workload("Deployment", name, replicas=3) for name in wanted))
    for name in wanted:
        b.ready(name, 2)
    b.create(
        *(budget(name, name, **spec) for name, spec in wanted.items()),
        budget("nobody", "none", minAvailable=1),
        budget("whatever", "none", maxUnavailable=1),
    )
    b.ready()
    for name in wanted:
        b.patch("Deployment", name, {"spec": {"replicas": 2}})
    b.patch("PodDisruptionBudget", "number", {"spec": {"minAvailable": 1}})
    b.create(workload("StatefulSet", "db", replicas=2, serviceName="db"))
    b.create(budget("db", "db", maxUnavailable="50%"))
    b.ready("db")
    b.ready("db")


def budget_of_bare_pods(b):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare", "labels": {"app": "bare"}}}
    b.create(pod | {"spec": template("bare")["spec"]})
    b.ready()
    b.create(budget("number", "bare", minAvailable=1), budget("most", "bare", maxUnavailable=1))
    b.create(job("task", parallelism=2))
    b.create(budget("task", "task", maxUnavailable=1))


def quotas(b):
    def quota(name, hard, **spec):
        return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": {"hard": hard, **spec}}

    def pod(name, **spec):
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": template(name, **spec)["spec"]}

    b.create(
        quota(
            "all",
            {"pods": "10", "requests.cpu": "4", "limits.memory": "4Gi", "cpu": "4", "count/deployments.apps": "3"},
        ),
        quota("ends", {"pods": "10"}, scopes=["Terminating"]),
        quota("stays", {"pods": "10", "requests.memory": "2Gi"}, scopes=["NotTerminating"]),
        quota("effort", {"pods": "10"}, scopes=["BestEffort"]),
        quota("no-effort", {"pods": "10", "limits.cpu": "4"}, scopes=["NotBestEffort"]),
        quota(
            "things",
            {"services": "5", "services.nodeports": "2", "secrets": "5", "configmaps": "9", "count/jobs.batch": "4"},
        ),
        quota(
            "storage",
            {
                "requests.storage": "10Gi",
                "none.storageclass.storage.k8s.io/requests.storage": "5Gi",
                "persistentvolumeclaims": "3",
            },
        ),
        quota(
            "class",
            {"pods": "5"},
            scopeSelector={
                "matchExpressions": [
                    {"scopeName": "PriorityClass", "operator": "In", "values": ["system-node-critical"]}
                ]
            },
        ),
    )
    amounts = {"requests": {"cpu": "250m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}}
    b.create(
        pod("some", container={"resources": amounts}),
        pod("ends", container={"resources": amounts}, activeDeadlineSeconds=100),
    )
    b.create(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": claims("c")[0]["spec"]}
    )
    b.create(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "s"},
            "spec": {"type": "NodePort", "ports": [{"port": 80}]},
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}},
        job("task", suspend=True),
    )
    b.succeed("some")
    b.delete("Pod", "ends")
    b.patch("ResourceQuota", "things", {"spec": {"hard": {"services": None, "secrets": "7"}}})


def autoscalers(b):
    def hpa(name, target, kind="Deployment", **spec):
        ref = {"apiVersion": "apps/v1", "kind": kind, "name": target}
        return {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": name},
            "spec": {"scaleTargetRef": ref, "maxReplicas": 3} | spec,
        }

    b.create(
        workload("Deployment", "many", replicas=5),
        workload("Deployment", "few"),
        workload("Deployment", "off", replicas=0),
    )
    # Kubernetes looks for the first time after 15 s.
    b.create(hpa("lost", "nothing"), hpa("strange", "x", "DaemonSet"), compare=False)
    b.create(hpa("many", "many"), hpa("few", "few", minReplicas=2), hpa("off", "off"), compare=False)
    b.wait(33, "scaled and looked at again")


# --- Services --------------------------------------------------------------------------------------------------------


def service(name, app="web", **spec):
    spec = {"selector": {"app": app}, "ports": [{"port": 80, "targetPort": 8080}]} | spec
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": {"of": name}}, "spec": spec}


def services(b):
    ports = [{"name": "http", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]
    named = [
        {"name": "web", "port": 80, "targetPort": "http", "appProtocol": "http"},
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns"},
    ]
    b.create(
        service("plain"),
        service("named", ports=named),
        service("headless", clusterIP="None"),
        service("early", publishNotReadyAddresses=True),
        service("nobody", "nobody"),
        service("portless", clusterIP="None", ports=[]),
    )
    b.create(
        workload(
            "StatefulSet",
            "web",
            replicas=2,
            serviceName="headless",
            podManagementPolicy="Parallel",
            template=template("web", nodeName=b.node(), container={"ports": ports}),
        )
    )
    b.ready("web-0")
    b.unready("web-1")
    b.ready("web-1")
    b.patch("Pod", "web-1", {"metadata": {"labels": {"app": "other"}}})
    b.patch("Service", "plain", {"spec": {"selector": {"app": "other"}}, "metadata": {"labels": {"of": "others"}}})
    b.patch("Service", "named", {"spec": {"ports": [{"name": "web", "port": 80, "targetPort": "other"}]}})
    b.succeed("web-0")
    b.patch("Service", "early", {"spec": {"selector": None}})
    b.delete("Service", "headless")


def services_of_terminating_pods(b):
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "going", "labels": {"app": "web"}, "finalizers": ["a.b/c"]},
    }
    b.create(
        service("plain"),
        service("early", publishNotReadyAddresses=True),
        pod | {"spec": template("web", nodeName=b.node())["spec"]},
    )
    b.ready()
    b.delete("Pod", "going")
    b.patch("Pod", "going", {"metadata": {"finalizers": None}})


def services_of_different_ports(b):
    node = b.node()

    def pod(name, number):
        spec = template(name, nodeName=node, container={"ports": [{"name": "http", "containerPort": number}]})["spec"]
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}}, "spec": spec}

    b.create(service("named", ports=[{"port": 80, "targetPort": "http"}]), pod("a", 81), pod("b", 82), pod("c", 82))
    b.ready()


# --- ownership, namespaces, accounts, storage ------------------------------------------------------------------------


def config(name, *owners, **meta):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **meta}}


def garbage(b):
    b.create(
        workload("Deployment", "a", replicas=1), workload("Deployment", "b", replicas=1), workload("Deployment", "c")
    )
    b.delete("Deployment", "a", "Foreground")
    b.delete("Deployment", "b", "Orphan")
    b.delete("Deployment", "c", "Background")
    b.create(workload("Deployment", "d", replicas=1))
    b.patch("Pod", "d-HASH1-#1", {"metadata": {"finalizers": ["a.b/c"]}})
    b.delete("Deployment", "d", "Foreground")
    b.patch("Pod", "d-HASH1-#1", {"metadata": {"finalizers": None}})


def accounts(b):
    token = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "t", "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "type": "kubernetes.io/service-account-token",
    }
    b.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}})
    b.create(token)
    b.delete("ServiceAccount", "robot")
    b.delete("ServiceAccount", "default")
    b.delete("ConfigMap", "kube-root-ca.crt")


def storage(b):
    ns = b.namespace

    def claim(name, of_class, size="1Gi", **spec):
        wanted = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": of_class,
            "resources": {"requests": {"storage": size}},
        }
        return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": wanted | spec}

    def volume(name, of_class, size="1Gi", policy="Retain", **spec):
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": size},
            "storageClassName": of_class,
            "persistentVolumeReclaimPolicy": policy,
            "hostPath": {"path": "/x"},
        } | spec
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{ns}-{name}"},
            "spec": spec,
            "cluster": True,
        }

    b.create(volume("big", ns, "9Gi"), volume("small", ns, "2Gi"))
    b.create(claim("early", ns))
    b.create(claim("named", ns, volumeName=f"{ns}-big"))
    b.create(claim("absent", ns, volumeName=f"{ns}-none"))
    b.create(claim("nowhere", ""), claim("huge", ns, "99Gi"))
    b.delete("PersistentVolumeClaim", "early")
    b.create(volume("gone", ns, "3Gi", "Delete"))
    b.create(claim("lost", ns, "3Gi"))
    for side in b.sides:
        side.api.ask("DELETE", f"/api/v1/persistentvolumes/{ns}-gone")
    b.same("a volume in use is to be deleted")
    for side in b.sides:
        side.api.ask(
            "PATCH",
            f"/api/v1/persistentvolumes/{ns}-gone",
            {"metadata": {"finalizers": None}},
            "application/merge-patch+json",
        )
    b.same("a volume is lost")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "user"}}
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "named"}}]
    b.create(pod | {"spec": template("user", volumes=volumes)["spec"]})
    b.delete("PersistentVolumeClaim", "named")
    b.delete("Pod", "user")


def namespace_ends(b):
    b.create(config("kept", finalizers=["a.b/c"]), config("other"))
    for side in b.sides:
        side.api.ask("DELETE", f"/api/v1/namespaces/{b.namespace}")
    b.same("the namespace waits for a finalizer")
    b.patch("ConfigMap", "kept", {"metadata": {"finalizers": None}})


def requests(b):
    def request(name, signer, *usages):
        key = ec.generate_private_key(ec.SECP256R1())
        name_ = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "someone")])
        made = x509.CertificateSigningRequestBuilder().subject_name(name_).sign(key, hashes.SHA256())
        pem = base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()
        spec = {"request": pem, "signerName": signer, "usages": usages}
        meta = {"name": f"{b.namespace}-{name}"}
        return {"kind": "CertificateSigningRequest", "metadata": meta, "spec": spec, "cluster": True}

    def decide(name, kind):
        decision = {"type": kind, "status": "True", "reason": "Test", "message": "by a test", "lastUpdateTime": now()}
        b.patch(
            "CertificateSigningRequest",
            f"{b.namespace}-{name}",
            {"status": {"conditions": [decision | {"lastTransitionTime": now()}]}},
            "approval",
            cluster=True,
        )

    b.create(
        request("client", "kubernetes.io/kube-apiserver-client", "client auth"),
        request("server", "kubernetes.io/kube-apiserver-client", "server auth"),
        request("denied", "kubernetes.io/kube-apiserver-client", "client auth"),
        request("strange", "example.com/signer", "client auth"),
        request("kubelet", "kubernetes.io/kubelet-serving", "server auth"),
    )
    decide("client", "Approved")
    decide("server", "Approved")
    decide("denied", "Denied")
    decide("strange", "Approved")
    decide("kubelet", "Approved")


def taints(b):
    node = b.node()

    def pod(name, *tolerations):
        spec = template(name, nodeName=node, tolerations=list(tolerations), terminationGracePeriodSeconds=0)["spec"]
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}

    stays = {"key": "out", "operator": "Exists", "effect": "NoExecute"}
    b.create(pod("goes"), pod("stays", stays), pod("waits", stays | {"tolerationSeconds": 3}))
    b.ready()
    taint = {"key": "out", "effect": "NoExecute"}
    b.patch("Node", node, {"spec": {"taints": [taint]}}, cluster=True, step="the node is tainted")
    b.wait(4, "the toleration is over")


OF_SERVICES = ("Endpoints", "EndpointSlice", "Event")
SCENARIOS = {
    deployment_rolling: ("Deployment", "ReplicaSet", *WORKLOADS),
    deployment_recreate: ("Deployment", "ReplicaSet", *WORKLOADS),
    deployment_late: ("Deployment", "ReplicaSet", *WORKLOADS),
    deployment_quota: ("Deployment", "ReplicaSet", "ResourceQuota", *WORKLOADS),
    replica_set: ("ReplicaSet", *WORKLOADS),
    replication_controller: ("ReplicationController", *WORKLOADS),
    stateful_ordered: ("StatefulSet", *WORKLOADS),
    stateful_parallel: ("StatefulSet", *WORKLOADS),
    stateful_on_delete: ("StatefulSet", *WORKLOADS),
    stateful_broken: ("StatefulSet", *WORKLOADS),
    daemon_set: ("DaemonSet", *WORKLOADS),
    daemon_set_surge: ("DaemonSet", *WORKLOADS),
    job_plain: ("Job", *WORKLOADS),
    job_fails: ("Job", *WORKLOADS),
    job_policy: ("Job", *WORKLOADS),
    job_retries: ("Job", *WORKLOADS),
    job_ignores: ("Job", *WORKLOADS),
    job_indexed: ("Job", *WORKLOADS),
    job_failed_indexes: ("Job", *WORKLOADS),
    job_success_policy: ("Job", *WORKLOADS),
    job_suspend: ("Job", *WORKLOADS),
    cron_job: ("CronJob", "Job", *WORKLOADS),
    cron_job_while_another_runs: ("CronJob", "Job", *WORKLOADS),
    budgets: ("PodDisruptionBudget", "ReplicaSet", "ControllerRevision", "Event"),
    budget_of_bare_pods: ("PodDisruptionBudget", "Event"),
    quotas: ("ResourceQuota",),
    autoscalers: ("HorizontalPodAutoscaler", "Deployment", "ReplicaSet", "Event"),
    services: OF_SERVICES,
    services_of_terminating_pods: OF_SERVICES,
    services_of_different_ports: OF_SERVICES,
    garbage: ("Deployment", "ReplicaSet", *WORKLOADS),
    accounts: ("ServiceAccount", "Secret", "ConfigMap"),
    storage: ("PersistentVolumeClaim", "PersistentVolume", "Event"),
    requests: ("CertificateSigningRequest",),
    taints: ("Pod", "Event"),
    namespace_ends: ("ConfigMap", "Namespace"),
}
