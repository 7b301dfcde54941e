"""HorizontalPodAutoscalers (follows pkg/apis/autoscaling/validation)."""

from __future__ import annotations

from lateen.cluster.apiserver.validation import names
from lateen.cluster.apiserver.validation.fields import Causes, bad, denied, required, unsupported
from lateen.cluster.rules import amounts
from lateen.kit.jsons import Json

_HERE = {"Resource": "resource", "ContainerResource": "containerResource"}
_TARGETS = ("AverageValue", "Utilization")
_HOUR = 3600


def autoscaler(obj: Json, _: Json | None) -> Causes:
    spec = obj.get("spec") or {}
    least, most = spec.get("minReplicas", 1), spec.get("maxReplicas", 0)
    out: Causes = []
    if least < 1:
        out.append(bad("spec.minReplicas", least, "must be greater than or equal to 1"))
        if least == 0:
            out.append(denied("spec.metrics", "scaling to zero needs an Object or External metric"))
    if most < 1:
        out.append(bad("spec.maxReplicas", most, "must be greater than 0"))
    if most < least:
        out.append(bad("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"))
    for key in ("kind", "name"):
        found = str((spec.get("scaleTargetRef") or {}).get(key) or "")
        at = f"spec.scaleTargetRef.{key}"
        out += [bad(at, found, s) for s in names.path_segment(found)] if found else [required(at)]
    for i, metric in enumerate(spec.get("metrics") or []):
        out += _metric(metric, f"spec.metrics[{i}]")
    for way in ("scaleUp", "scaleDown"):
        out += _behavior((spec.get("behavior") or {}).get(way) or {}, f"spec.behavior.{way}")
    return out


def _metric(metric: Json, at: str) -> Causes:
    kind = str(metric.get("type") or "")
    if kind in ("Pods", "Object", "External"):
        says = "metrics other than the CPU and memory of pods are not available in the embedded cluster"
        return [denied(f"{at}.type", says)]
    if kind not in _HERE:
        return [unsupported(f"{at}.type", kind, _HERE)]
    at, source = f"{at}.{_HERE[kind]}", metric.get(_HERE[kind])
    if not source:
        return [required(at, "must populate information for the given metric source")]
    out: Causes = []
    if not source.get("name"):
        out.append(required(f"{at}.name", "must specify a resource name"))
    elif source["name"] not in ("cpu", "memory"):
        out.append(unsupported(f"{at}.name", source.get("name") or "", ("cpu", "memory")))
    if kind == "ContainerResource" and not source.get("container"):
        out.append(required(f"{at}.container"))
    target = source.get("target") or {}
    if target.get("type") not in _TARGETS:
        says = "must be either Utilization, Value, or AverageValue"
        out.append(bad(f"{at}.target.type", target.get("type") or "", says))
        return [
            *out,
            required(f"{at}.target.averageUtilization", "must set either a target raw value or a target utilization"),
        ]
    key = "averageUtilization" if target["type"] == "Utilization" else "averageValue"
    if target.get(key) is None:
        return [*out, required(f"{at}.target.{key}")]
    try:
        if amounts.parse(target[key]) <= 0:
            out.append(bad(f"{at}.target.{key}", target[key], "must be greater than 0"))
    except ValueError as e:
        out.append(bad(f"{at}.target.{key}", target[key], str(e)))
    return out


def _behavior(rules: Json, at: str) -> Causes:
    out: Causes = []
    window = rules.get("stabilizationWindowSeconds", 0)
    if not 0 <= window <= _HOUR:
        out.append(bad(f"{at}.stabilizationWindowSeconds", window, f"must be between 0 and {_HOUR}"))
    if rules.get("selectPolicy", "Max") not in ("Max", "Min", "Disabled"):
        out.append(unsupported(f"{at}.selectPolicy", rules["selectPolicy"], ("Disabled", "Max", "Min")))
    if rules.get("policies") == []:
        out.append(required(f"{at}.policies", "must specify at least one Policy"))
    for i, policy in enumerate(rules.get("policies") or []):
        where = f"{at}.policies[{i}]"
        if policy.get("type") not in ("Pods", "Percent"):
            out.append(unsupported(f"{where}.type", policy.get("type") or "", ("Percent", "Pods")))
        if policy.get("value", 0) <= 0:
            out.append(bad(f"{where}.value", policy.get("value", 0), "must be greater than zero"))
        if not 0 < policy.get("periodSeconds", 0) <= _HOUR // 2:
            says = f"must be greater than zero and at most {_HOUR // 2}"
            out.append(bad(f"{where}.periodSeconds", policy.get("periodSeconds", 0), says))
    return out
