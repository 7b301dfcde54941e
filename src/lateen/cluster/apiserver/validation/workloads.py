"""Deployments and ReplicaSets."""

from __future__ import annotations

import re
from typing import Any

from lateen.cluster.apiserver.validation import meta, pods
from lateen.cluster.apiserver.validation.fields import Causes, bad, denied, immutable, required, unsupported
from lateen.kit import selectors
from lateen.kit.jsons import Json, dig

_PERCENT = re.compile(r"[0-9]{1,9}%")
_STRATEGIES = ("Recreate", "RollingUpdate")


def deployment(obj: Json, old: Json | None) -> Causes:
    spec = obj.get("spec") or {}
    out = _scaled(spec, old)
    for key in ("minReadySeconds", "revisionHistoryLimit"):
        if spec.get(key, 0) < 0:
            out.append(bad(f"spec.{key}", spec[key], "must be greater than or equal to 0"))
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None and deadline <= spec.get("minReadySeconds", 0):
        out.append(bad("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    return out + _strategy(spec.get("strategy") or {})


def replica_set(obj: Json, old: Json | None) -> Causes:
    return _scaled(obj.get("spec") or {}, old)


def _scaled(spec: Json, old: Json | None) -> Causes:
    """What all kinds that keep a number of pods have: replicas, selector, template."""
    out: Causes = []
    if spec.get("replicas", 0) < 0:
        out.append(bad("spec.replicas", spec["replicas"], "must be greater than or equal to 0"))
    selector, template = spec.get("selector"), spec.get("template") or {}
    if not selector:
        out.append(required("spec.selector"))
    elif wrong := meta.selector(selector, "spec.selector"):
        out += wrong
    else:
        labels: Json = dig(template, "metadata", "labels", default={})
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            out.append(bad("spec.selector", selector, "empty selector is invalid for deployment"))
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
        return [unsupported("spec.strategy.type", kind, _STRATEGIES)]
    if kind == "Recreate":
        says = "may not be specified when strategy `type` is 'Recreate'"
        return [] if rolling is None else [denied("spec.strategy.rollingUpdate", says)]
    rolling, at = rolling or {}, "spec.strategy.rollingUpdate"
    out = _share(rolling.get("maxSurge"), f"{at}.maxSurge") + _share(
        rolling.get("maxUnavailable"), f"{at}.maxUnavailable"
    )
    nothing = (0, "0", "0%")
    if not out and rolling.get("maxUnavailable") in nothing and rolling.get("maxSurge") in nothing:
        out.append(bad(f"{at}.maxUnavailable", rolling["maxUnavailable"], "may not be 0 when `maxSurge` is 0"))
    if not out and str(rolling.get("maxUnavailable", "")).endswith("%") and int(rolling["maxUnavailable"][:-1]) > 100:
        out.append(bad(f"{at}.maxUnavailable", rolling["maxUnavailable"], "must not be greater than 100%"))
    return out


def _share(value: Any, path: str) -> Causes:
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
