"""Budgets, quotas, autoscalers."""

from scenarios.objects import claims, job, template, workload


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


SCENARIOS = {
    budgets: ("PodDisruptionBudget", "ReplicaSet", "ControllerRevision", "Event"),
    budget_of_bare_pods: ("PodDisruptionBudget", "Event"),
    quotas: ("ResourceQuota",),
    autoscalers: ("HorizontalPodAutoscaler", "Deployment", "ReplicaSet", "Event"),
}
