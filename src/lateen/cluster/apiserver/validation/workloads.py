"""Workloads that keep a number of pods: Deployments, ReplicaSets, StatefulSets, DaemonSets."""

from __future__ import annotations

import re
from typing import Any

from lateen.cluster.apiserver.validation import meta, names, pods
from lateen.cluster.apiserver.validation.fields import Causes, bad, denied, immutable, required, unsupported
from lateen.kit import selectors
from lateen.kit.jsons import Json, dig

_PERCENT = re.compile(r"[0-9]{1,9}%")
_STRATEGIES = ("Recreate", "RollingUpdate")


def deployment(obj: Json, old: Json | None) -> Causes:
    spec = obj.get("spec") or {}
    out = _scaled(spec, old, "deployment") + negative(spec, "minReadySeconds", "revisionHistoryLimit")
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None and deadline <= spec.get("minReadySeconds", 0):
        out.append(bad("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    return out + _strategy(spec.get("strategy") or {})


def replica_set(obj: Json, old: Json | None) -> Causes:
    spec = obj.get("spec") or {}
    return _scaled(spec, old, "deployment") + negative(spec, "minReadySeconds")


def stateful_set(obj: Json, old: Json | None) -> Causes:
    spec = obj.get("spec") or {}
    out = _scaled({**spec, "template": _with_claims(spec)}, None, "statefulset")
    out += negative(spec, "minReadySeconds")
    if name := spec.get("serviceName"):
        out += [bad("spec.serviceName", name, s) for s in names.dns_label(name)]
    if spec.get("podManagementPolicy") not in ("OrderedReady", "Parallel"):
        says = "must be 'OrderedReady' or 'Parallel'"
        out.append(bad("spec.podManagementPolicy", spec.get("podManagementPolicy"), says))
    out += _update_strategy(spec.get("updateStrategy") or {}, ("partition",))
    out += negative(spec.get("ordinals") or {}, "start", at="spec.ordinals")
    retention = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    for key in ("whenDeleted", "whenScaled"):
        if retention.get(key) not in ("Retain", "Delete"):
            at = f"spec.persistentVolumeClaimRetentionPolicy.{key}"
            out.append(unsupported(at, retention.get(key), ("Retain", "Delete")))
    for i, claim in enumerate(spec.get("volumeClaimTemplates") or []):
        at, name = f"spec.volumeClaimTemplates[{i}]", str(dig(claim, "metadata", "name", default=""))
        out += [bad(f"{at}.metadata.name", name, s) for s in names.dns_label(name)]
    if old is not None and _fixed(spec) != _fixed(old["spec"]):
        out.append(denied("spec", f"updates to statefulset spec for fields other than {_FREE_SAYS} are forbidden"))
    return out


def _with_claims(spec: Json) -> Json:
    """The template with the volumes that its pods will have."""
    template: Json = spec.get("template") or {}
    inner = template.get("spec") or {}
    claimed = [str(dig(c, "metadata", "name", default="")) for c in spec.get("volumeClaimTemplates") or []]
    kept = [v for v in inner.get("volumes") or [] if v.get("name") not in claimed]
    named = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claimed if name]
    return {**template, "spec": {**inner, "volumes": [*kept, *named]}}


_FREE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)
_FREE_SAYS = ", ".join(f"'{f}'" for f in _FREE[:-1]) + f" and '{_FREE[-1]}'"


def _fixed(spec: Json) -> Json:
    return {k: v for k, v in spec.items() if k not in _FREE}


def daemon_set(obj: Json, old: Json | None) -> Causes:
    spec = obj.get("spec") or {}
    out = _scaled(spec, old, "daemonset") + negative(spec, "minReadySeconds", "revisionHistoryLimit")
    return out + _update_strategy(spec.get("updateStrategy") or {}, ("maxSurge", "maxUnavailable"))


def replication_controller(obj: Json, _: Json | None) -> Causes:
    spec = obj.get("spec") or {}
    selector = spec.get("selector") or {}
    out = meta.labels(selector, "spec.selector") if selector else [required("spec.selector")]
    out += negative(spec, "replicas", "minReadySeconds")
    template = spec.get("template") or {}
    if not template.get("metadata") and not dig(template, "spec", "containers"):
        return [*out, required("spec.template")]
    labels: Json = dig(template, "metadata", "labels", default={})
    if not selectors.subset(selector, labels):
        says = "`selector` does not match template `labels`"
        out.append(bad("spec.template.metadata.labels", labels, says))
    return out + pods.template(template, "spec.template")


def controller_revision(obj: Json, old: Json | None) -> Causes:
    out = negative(obj, "revision", at="")
    if old is not None and obj.get("data") != old.get("data"):
        out.append(immutable("data", obj.get("data")))
    return out


def negative(spec: Json, *keys: str, at: str = "spec") -> Causes:
    """Numbers that must not be below zero."""
    return [
        bad(f"{at}.{key}".lstrip("."), spec[key], "must be greater than or equal to 0")
        for key in keys
        if (spec.get(key) or 0) < 0
    ]


def _update_strategy(strategy: Json, keys: tuple[str, ...]) -> Causes:
    kind, rolling, at = strategy.get("type"), strategy.get("rollingUpdate"), "spec.updateStrategy"
    if kind not in ("RollingUpdate", "OnDelete"):
        if "partition" in keys:
            return [bad(at, kind or "", "must be 'RollingUpdate' or 'OnDelete'")]
        return [unsupported(at, kind or "", ("RollingUpdate", "OnDelete"))]
    if kind == "OnDelete":
        says = "only allowed for updateStrategy 'RollingUpdate'"
        return [] if rolling is None else [bad(f"{at}.rollingUpdate", rolling, says)]
    at, rolling = f"{at}.rollingUpdate", rolling or {}
    out = negative(rolling, "partition", at=at) if "partition" in keys else []
    for key in ("maxSurge", "maxUnavailable"):
        wrong = share(rolling.get(key), f"{at}.{key}")
        if not wrong and str(rolling.get(key)).endswith("%") and int(rolling[key][:-1]) > 100:
            wrong = [bad(f"{at}.{key}", rolling[key], "must not be greater than 100%")]
        out += wrong
    nothing = (0, "0", "0%")
    if "maxSurge" in keys and not out:
        none = [rolling.get(key) in nothing for key in ("maxSurge", "maxUnavailable")]
        if all(none):
            out.append(required(f"{at}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
        if not any(none):
            out.append(bad(f"{at}.maxSurge", rolling["maxSurge"], "may not be set when maxUnavailable is non-zero"))
    elif "maxSurge" not in keys and rolling.get("maxUnavailable") in nothing:
        out.append(bad(f"{at}.maxUnavailable", rolling["maxUnavailable"], "cannot be 0"))
    return out


def _scaled(spec: Json, old: Json | None, kind: str) -> Causes:
    """What all kinds that keep a number of pods have: replicas, selector, template."""
    out = negative(spec, "replicas")
    selector, template = spec.get("selector"), spec.get("template") or {}
    labels: Json = dig(template, "metadata", "labels", default={})
    if selector is None:
        says = "`selector` does not match template `labels`"
        out += [] if kind == "daemonset" else [required("spec.selector")]
        out.append(bad("spec.template.metadata.labels", labels, says))
    elif wrong := meta.selector(selector, "spec.selector"):
        out += [*wrong, bad("spec.selector", selector, "invalid label selector")]
    else:
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            out.append(bad("spec.selector", selector, f"empty selector is invalid for {kind}"))
        elif not selectors.matches(selector, labels):
            says = "`selector` does not match template `labels`"
            out.append(bad("spec.template.metadata.labels", labels, says))
    out += pods.template(template, "spec.template")
    if old is not None and selector != dig(old, "spec", "selector"):
        out.append(immutable("spec.selector", selector))
    return out


def _strategy(strategy: Json) -> Causes:
    kind, rolling = strategy.get("type", "RollingUpdate"), strategy.get("rollingUpdate")
    if kind not in _STRATEGIES:
        return [unsupported("spec.strategy", kind, _STRATEGIES)]
    if kind == "Recreate":
        says = "may not be specified when strategy `type` is 'Recreate'"
        return [] if rolling is None else [denied("spec.strategy.rollingUpdate", says)]
    rolling, at = rolling or {}, "spec.strategy.rollingUpdate"
    out = share(rolling.get("maxSurge"), f"{at}.maxSurge") + share(
        rolling.get("maxUnavailable"), f"{at}.maxUnavailable"
    )
    nothing = (0, "0", "0%")
    if not out and rolling.get("maxUnavailable") in nothing and rolling.get("maxSurge") in nothing:
        out.append(bad(f"{at}.maxUnavailable", rolling["maxUnavailable"], "may not be 0 when `maxSurge` is 0"))
    if not out and str(rolling.get("maxUnavailable", "")).endswith("%") and int(rolling["maxUnavailable"][:-1]) > 100:
        out.append(bad(f"{at}.maxUnavailable", rolling["maxUnavailable"], "must not be greater than 100%"))
    return out


def share(value: Any, path: str) -> Causes:
    if value is None:
        return []
    if isinstance(value, str):
        if _PERCENT.fullmatch(value):
            return []
        says = (
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex "
            "used for validation is '[0-9]+%')"
        )
        return [bad(path, value, says)]
    return [] if value >= 0 else [bad(path, value, "must be greater than or equal to 0")]
