"""Rows of workloads other than Deployments, and of what limits them."""

from __future__ import annotations

from typing import Any

from lateen.cluster.apiserver.tables.cells import NONE, Printer, age, first, images, labels, name, selector, since
from lateen.kit import duration, times
from lateen.kit.jsons import Json, dig


def _stateful_set(o: Json) -> list[Any]:
    ready, wanted = dig(o, "status", "readyReplicas", default=0), dig(o, "spec", "replicas", default=1)
    return [name(o), f"{ready}/{wanted}", age(o), *images(o["spec"])]


def _daemon_set(o: Json) -> list[Any]:
    spec, status = o["spec"], o.get("status") or {}
    counts = (
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    )
    return [
        name(o),
        *(status.get(key, 0) for key in counts),
        labels(dig(spec, "template", "spec", "nodeSelector")),
        age(o),
        *images(spec),
        selector(spec.get("selector")),
    ]


def _replication_controller(o: Json) -> list[Any]:
    spec, status = o["spec"], o.get("status") or {}
    counts = (spec.get("replicas", 1), status.get("replicas", 0), status.get("readyReplicas", 0))
    return [name(o), *counts, age(o), *images(spec), labels(spec.get("selector"))]


def _pod_template(o: Json) -> list[Any]:
    return [name(o), *images(o), labels(dig(o, "template", "metadata", "labels"))]


def _job(o: Json) -> list[Any]:
    spec, status = o["spec"], o.get("status") or {}
    done, wanted = status.get("succeeded", 0), spec.get("completions")
    if wanted is None:
        parallel = spec.get("parallelism", 1)
        shown = f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"
    else:
        shown = f"{done}/{wanted}"
    return [name(o), _job_status(o), shown, _took(status), age(o), *images(spec), selector(spec.get("selector"))]


def _job_status(o: Json) -> str:
    found = {c["type"] for c in dig(o, "status", "conditions", default=[]) if c.get("status") == "True"}
    for condition in ("Complete", "Failed"):
        if condition in found:
            return condition
    if o["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for condition, says in (
        ("Suspended", "Suspended"),
        ("FailureTarget", "FailureTarget"),
        ("SuccessCriteriaMet", "SuccessCriteriaMet"),
    ):
        if condition in found:
            return says
    return "Running"


def _took(status: Json) -> str:
    began, ended = status.get("startTime"), status.get("completionTime")
    if not began:
        return ""
    if not ended:
        return since(began)
    return duration.age((times.parse(ended) - times.parse(began)).total_seconds())


def _cron_job(o: Json) -> list[Any]:
    spec, last = o["spec"], dig(o, "status", "lastScheduleTime")
    inner = dig(spec, "jobTemplate", "spec", default={})
    return [
        name(o),
        spec.get("schedule"),
        spec.get("timeZone") or NONE,
        "True" if spec.get("suspend") else "False",
        len(dig(o, "status", "active", default=[])),
        since(last) if last else NONE,
        age(o),
        *images(inner),
        selector(inner.get("selector")),
    ]


def _revision(o: Json) -> list[Any]:
    controller = next((r for r in dig(o, "metadata", "ownerReferences", default=[]) if r.get("controller")), None)
    shown = NONE
    if controller:
        group = str(controller["apiVersion"]).rpartition("/")[0]
        shown = f"{controller['kind'].lower()}{f'.{group}' if group else ''}/{controller['name']}"
    return [name(o), shown, o.get("revision"), age(o)]


def _budget(o: Json) -> list[Any]:
    spec = o["spec"]
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    shown = ["N/A" if value is None else str(value) for value in (least, most)]
    return [name(o), *shown, dig(o, "status", "disruptionsAllowed", default=0), age(o)]


def _priority_class(o: Json) -> list[Any]:
    return [name(o), o.get("value", 0), bool(o.get("globalDefault")), age(o), o.get("preemptionPolicy")]


def _autoscaler(o: Json) -> list[Any]:
    spec, status = o["spec"], o.get("status") or {}
    ref = spec.get("scaleTargetRef") or {}
    current = status.get("currentMetrics") or []
    shown = [_metric(m, current[i] if i < len(current) else {}) for i, m in enumerate(spec.get("metrics") or [])]
    return [
        name(o),
        f"{ref.get('kind')}/{ref.get('name')}",
        first(shown),
        str(spec.get("minReplicas", "<unset>")),
        spec.get("maxReplicas"),
        status.get("currentReplicas", 0),
        age(o),
    ]


def _metric(metric: Json, current: Json) -> str:
    key = "containerResource" if metric["type"] == "ContainerResource" else "resource"
    target, now = dig(metric, key, "target", default={}), dig(current, key, "current", default={})
    percent = target.get("type") == "Utilization"
    of = "averageUtilization" if percent else "averageValue"
    has = f"{now[of]}{'%' if percent else ''}" if of in now else "<unknown>"
    return f"{dig(metric, key, 'name', default='')}: {has}/{target.get(of)}{'%' if percent else ''}"


def _quota(o: Json) -> list[Any]:
    used, hard = dig(o, "status", "used", default={}), dig(o, "status", "hard", default={})
    requests: list[str] = []
    limits: list[str] = []
    for key in sorted(hard):
        text = f"{key}: {used.get(key, 0)}/{hard[key]}"
        (limits if key.startswith("limits") else requests).append(text)
    return [name(o), ", ".join(requests), ", ".join(limits), age(o)]


PRINTERS = {
    "StatefulSet": Printer(("Name", "Ready", "Age", "+Containers", "+Images"), _stateful_set),
    "DaemonSet": Printer(
        (
            "Name",
            "#Desired",
            "#Current",
            "#Ready",
            "#Up-to-date",
            "#Available",
            "Node Selector",
            "Age",
            "+Containers",
            "+Images",
            "+Selector",
        ),
        _daemon_set,
    ),
    "ReplicationController": Printer(
        ("Name", "#Desired", "#Current", "#Ready", "Age", "+Containers", "+Images", "+Selector"),
        _replication_controller,
    ),
    "Job": Printer(("Name", "Status", "Completions", "Duration", "Age", "+Containers", "+Images", "+Selector"), _job),
    "CronJob": Printer(
        (
            "Name",
            "Schedule",
            "Timezone",
            "Suspend",
            "#Active",
            "Last Schedule",
            "Age",
            "+Containers",
            "+Images",
            "+Selector",
        ),
        _cron_job,
    ),
    "PodTemplate": Printer(("Name", "Containers", "Images", "Pod Labels"), _pod_template),
    "ControllerRevision": Printer(("Name", "Controller", "Revision", "Age"), _revision),
    "PodDisruptionBudget": Printer(
        ("Name", "Min Available", "Max Unavailable", "#Allowed Disruptions", "Age"), _budget
    ),
    "PriorityClass": Printer(("Name", "#Value", "Global-Default", "Age", "PreemptionPolicy"), _priority_class),
    "LimitRange": Printer(("Name", "Created At"), lambda o: [name(o), o["metadata"].get("creationTimestamp", "")]),
    "HorizontalPodAutoscaler": Printer(
        ("Name", "Reference", "Targets", "MinPods", "#MaxPods", "#Replicas", "Age"), _autoscaler
    ),
    "Scale": Printer(
        ("Name", "#Desired", "#Available", "Age"),
        lambda o: [name(o), dig(o, "spec", "replicas", default=0), dig(o, "status", "replicas", default=0), age(o)],
    ),
    "ResourceQuota": Printer(("Name", "Request", "Limit", "Age"), _quota),
}
