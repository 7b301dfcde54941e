"""Jobs and CronJobs (follows pkg/apis/batch/validation)."""

from __future__ import annotations

import re
from typing import Any

from lateen.cluster.apiserver.validation import meta, names, pods
from lateen.cluster.apiserver.validation.fields import (
    Causes,
    bad,
    denied,
    duplicate,
    immutable,
    required,
    too_many,
    unsupported,
)
from lateen.cluster.apiserver.validation.workloads import negative
from lateen.kit import cron, selectors
from lateen.kit.jsons import Json, dig

MAX_CRON_NAME = 52
"""The names of its Jobs have eleven characters more."""
CONTROLLER = "kubernetes.io/job-controller"
_RESTART = ("OnFailure", "Never")
_MODES = ("NonIndexed", "Indexed")
_ACTIONS = ("FailIndex", "FailJob", "Ignore", "Count")
_MAX_INDEXED, _MAX_RULES = 100_000, 20
UID = "batch.kubernetes.io/controller-uid"
_INDEXES = re.compile(r"[0-9]{1,6}(-[0-9]{1,6})?(,[0-9]{1,6}(-[0-9]{1,6})?)*")


def job(obj: Json, old: Json | None) -> Causes:
    spec = obj.get("spec") or {}
    out = job_spec(spec, "spec")
    selector, labels = spec.get("selector"), dig(spec, "template", "metadata", "labels", default={})
    if not selector:
        out.append(required("spec.selector"))
    elif not spec.get("manualSelector") and UID not in (selector.get("matchLabels") or {}):
        out.append(bad("spec.selector", selector, "`selector` not auto-generated"))
    if not selector or not selectors.matches(selector, labels):
        out.append(bad("spec.template.metadata.labels", labels, "`selector` does not match template `labels`"))
    return out + (_unchanged(spec, old) if old is not None else [])


def job_spec(spec: Json, path: str) -> Causes:
    """Of a Job, or of what a CronJob makes."""
    counts = ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished")
    out = negative(spec, *counts, "backoffLimitPerIndex", "maxFailedIndexes", at=path)
    out += _of_indexes(spec, path)
    if spec.get("managedBy") not in (None, CONTROLLER):
        out.append(denied(f"{path}.managedBy", "other controllers are not available in the embedded cluster"))
    mode = spec.get("completionMode", "NonIndexed")
    if mode not in _MODES:
        out.append(unsupported(f"{path}.completionMode", mode, _MODES))
    if mode == "Indexed":
        if spec.get("completions") is None:
            out.append(required(f"{path}.completions", f"when completion mode is {mode}"))
        elif spec["completions"] > _MAX_INDEXED:
            says = f"must be less than or equal to {_MAX_INDEXED} when completion mode is Indexed"
            out.append(bad(f"{path}.completions", spec["completions"], says))
    if spec.get("selector"):
        out += meta.selector(spec["selector"], f"{path}.selector")
    if spec.get("podReplacementPolicy", "Failed") not in ("TerminatingOrFailed", "Failed"):
        at = f"{path}.podReplacementPolicy"
        out.append(unsupported(at, spec["podReplacementPolicy"], ("TerminatingOrFailed", "Failed")))
    template = spec.get("template") or {}
    out += pods.template(template, f"{path}.template", _RESTART)
    if policy := spec.get("podFailurePolicy"):
        out += _failure_policy(policy, spec, path)
    return out


def _of_indexes(spec: Json, path: str) -> Causes:
    """What only Indexed Jobs have."""
    out: Causes = []
    limit, most, policy = (spec.get(key) for key in ("backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"))
    completions = spec.get("completions")
    if spec.get("completionMode") != "Indexed":
        says = "requires indexed completion mode"
        found = (("backoffLimitPerIndex", limit), ("maxFailedIndexes", most), ("successPolicy", policy))
        out += [bad(f"{path}.{key}", value, says) for key, value in found if value is not None]
    elif completions is not None and most is not None and most > completions:
        out.append(bad(f"{path}.maxFailedIndexes", most, "must be less than or equal to completions"))
    if limit is None and most is not None:
        out.append(required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    if limit is not None and (restart := dig(spec, "template", "spec", "restartPolicy")) != "Never":
        says = 'only "Never" is supported when backoffLimitPerIndex is specified'
        out.append(bad(f"{path}.template.spec.restartPolicy", restart, says))
    if policy is not None:
        out += _success_policy(policy, completions, f"{path}.successPolicy.rules")
    return out


def _success_policy(policy: Json, completions: int | None, path: str) -> Causes:
    rules = policy.get("rules") or []
    if not rules:
        return [required(path, "at least one rules must be specified when the successPolicy is specified")]
    out: Causes = [too_many(path, len(rules), _MAX_RULES)] if len(rules) > _MAX_RULES else []
    for i, rule in enumerate(rules):
        count, indexes = rule.get("succeededCount"), rule.get("succeededIndexes")
        listed, wrong = _listed(indexes, completions) if indexes is not None else (None, "")
        if count is None and indexes is None:
            out.append(required(f"{path}[{i}]", "at least one of succeededCount or succeededIndexes must be specified"))
        if wrong:
            out.append(bad(f"{path}[{i}].succeededIndexes", indexes, f"error parsing succeededIndexes: {wrong}"))
        if count is not None and count < 1:
            out.append(bad(f"{path}[{i}].succeededCount", count, "must be greater than 0"))
        elif count is not None and completions is not None and count > completions:
            says = f"must be less than or equal to {completions} (the number of specified completions)"
            out.append(bad(f"{path}[{i}].succeededCount", count, says))
        elif count is not None and listed is not None and not wrong and count > listed:
            says = f"must be less than or equal to {listed} (the number of indexes in succeededIndexes)"
            out.append(bad(f"{path}[{i}].succeededCount", count, says))
    return out


def _listed(text: str, completions: int | None) -> tuple[int, str]:
    """How many indexes a text as ``0-2,5`` names, and what is wrong with it: they ascend, and each is below
    ``completions``."""
    if not _INDEXES.fullmatch(text):
        return 0, "must be numbers and ranges, as in 1,3-5"
    last, total = -1, 0
    for part in text.split(","):
        bounds = [int(n) for n in part.split("-")]
        for index in bounds:
            if completions is not None and index >= completions:
                return 0, f'too large index: "{index}"'
            if index <= last:
                return 0, f"non-increasing order, previous: {last}, current: {index}"
            last = index
        total += bounds[-1] - bounds[0] + 1
    return total, ""


def _failure_policy(policy: Json, spec: Json, path: str) -> Causes:
    out: Causes = []
    restart = dig(spec, "template", "spec", "restartPolicy")
    if restart != "Never":
        says = 'only "Never" is supported when podFailurePolicy is specified'
        out.append(bad(f"{path}.template.spec.restartPolicy", restart, says))
    for i, rule in enumerate(policy.get("rules") or []):
        at = f"{path}.podFailurePolicy.rules[{i}]"
        if rule.get("action") not in _ACTIONS:
            out.append(unsupported(f"{at}.action", rule.get("action"), _ACTIONS))
        if rule.get("action") == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
            out.append(bad(f"{at}.action", "FailIndex", "requires the backoffLimitPerIndex to be set"))
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions") or []
        if bool(codes) == bool(conditions):
            out.append(bad(at, at, "specifying one of OnExitCodes and OnPodConditions is required"))
        if codes:
            out += _exit_codes(codes, f"{at}.onExitCodes")
            named, pod = codes.get("containerName"), dig(spec, "template", "spec", default={})
            known = {c.get("name") for key in ("containers", "initContainers") for c in pod.get(key) or []}
            if named is not None and named not in known:
                says = "must be one of the container or initContainer names in the pod template"
                out.append(bad(f"{at}.onExitCodes.containerName", named, says))
        for j, pattern in enumerate(conditions):
            kind = str(pattern.get("type") or "")
            out += [bad(f"{at}.onPodConditions[{j}].type", kind, s) for s in names.qualified(kind)]
            if pattern.get("status") not in ("True", "False", "Unknown"):
                where = f"{at}.onPodConditions[{j}].status"
                out.append(unsupported(where, pattern.get("status"), ("True", "False", "Unknown")))
    return out


def _exit_codes(codes: Json, at: str) -> Causes:
    out: Causes = []
    if codes.get("operator") not in ("In", "NotIn"):
        out.append(unsupported(f"{at}.operator", codes.get("operator"), ("In", "NotIn")))
    values = codes.get("values") or []
    if not values:
        out.append(bad(f"{at}.values", values, "at least one value is required"))
    for i, value in enumerate(values):
        if value in values[:i]:
            out.append(duplicate(f"{at}.values[{i}]", value))
        elif codes.get("operator") == "In" and value == 0:
            out.append(bad(f"{at}.values[{i}]", 0, "must not be 0 for the In operator"))
    if values != sorted(values):
        out.append(bad(f"{at}.values", values, "must be ordered"))
    return out


def _unchanged(spec: Json, old: Json) -> Causes:
    was = old["spec"]
    out: Causes = []
    fixed = [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "manualSelector",
        "backoffLimitPerIndex",
        "successPolicy",
    ]
    elastic = spec.get("completionMode") == "Indexed" and spec.get("completions") == spec.get("parallelism")
    if not elastic:
        fixed.append("completions")
    out += [immutable(f"spec.{key}", spec.get(key)) for key in fixed if spec.get(key) != was.get(key)]
    free = was.get("suspend") and not dig(old, "status", "startTime")
    if _template(spec, bool(free)) != _template(was, bool(free)):
        out.append(immutable("spec.template", spec.get("template")))
    return out


def _template(spec: Json, free: bool) -> Any:
    """The part of the template that does not change; a Job that has never run may still be told where to."""
    found = spec.get("template") or {}
    if not free:
        return found
    inner = dict(found.get("spec") or {})
    for key in ("nodeSelector", "affinity", "tolerations", "schedulingGates"):
        inner.pop(key, None)
    return {**found, "spec": inner, "metadata": {}}


def cron_job(obj: Json, _: Json | None) -> Causes:
    spec, name = obj.get("spec") or {}, str(obj["metadata"].get("name") or "")
    out: Causes = []
    if len(name) > MAX_CRON_NAME:
        out.append(bad("metadata.name", name, f"must be no more than {MAX_CRON_NAME} characters"))
    out += negative(spec, "startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit")
    policies = ("Allow", "Forbid", "Replace")
    if spec.get("concurrencyPolicy") not in policies:
        out.append(unsupported("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), policies))
    if dig(spec, "jobTemplate", "spec", "manualSelector"):
        where = "spec.jobTemplate.spec.manualSelector"
        out.append(unsupported(where, True, ("nil", "false"), ordered=True))
    out += _schedule(str(spec.get("schedule") or ""), spec.get("timeZone"))
    return out + job_spec(dig(spec, "jobTemplate", "spec", default={}), "spec.jobTemplate.spec")


def _schedule(text: str, zone: str | None) -> Causes:
    if not text:
        return [required("spec.schedule")]
    out: Causes = []
    if "TZ" in text:
        says = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        return [bad("spec.schedule", text, says)]
    try:
        cron.parse(text)
    except ValueError as e:
        out.append(bad("spec.schedule", text, str(e)))
    try:
        cron.zone(zone)
    except ValueError as e:
        out.append(bad("spec.timeZone", zone, str(e)))
    return [*out, bad("spec.timeZone", zone, "timeZone must be nil or non-empty string")] if zone == "" else out
