"""What Kubernetes would refuse of the replicas, autoscalers, budgets and pods of an installation's components, said
before anything is changed. Pure.

Source: Kubernetes ``pkg/apis/{apps,autoscaling,policy,core}/validation``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lateen.api.annotations import KNOWN
from lateen.api.mesh.reading import spoken
from lateen.install import k8s, options
from lateen.kit.jsons import Json, dig

_PERCENTAGE = re.compile(r"[0-9]{1,9}%")
_MOST = 2**31 - 1
_HUB = re.compile(r"[a-z0-9][-a-z0-9._:/]*", re.IGNORECASE)
_TAG = re.compile(r"[A-Za-z0-9_][-\w.]{0,127}", re.ASCII)
"""https://github.com/distribution/reference"""
_OBJECTS = ("affinity", "readinessProbe")
_LISTS = ("initContainers", "tolerations", "topologySpreadConstraints", "volumeMounts", "volumes")
_PULL = ("Always", "IfNotPresent", "Never")
_QUANTITY = KNOWN["sidecar.istio.io/proxyCPU"].check


def problems(spec: Json, path: str = "spec") -> Iterator[str]:
    """One sentence each, which begins with the path of the field. The types of all fields must be right, and the
    specification complete: minima are compared with maxima."""
    yield from _image(spec, path)
    yield from _image(dig(spec, "values", "global", default={}), f"{path}.values.global")
    for at, component in _components(spec):
        yield from _image(component, f"{path}.{at}")
        yield from _options(component.get("k8s") or {}, f"{path}.{at}.k8s")
    for name, kind in options.COMPONENTS.items():
        given = dig(spec, "values", *name.split("."), default={})
        known = k8s.declared(given, kind)
        yield from _image(known, f"{path}.values.{name}")
        yield from _values(known, f"{path}.values.{name}")


def _image(given: Json, at: str) -> Iterator[str]:
    """``hub`` and ``tag``, which may be a number."""
    for name, pattern, says in (("hub", _HUB, "a registry and a path"), ("tag", _TAG, "the tag of an image")):
        value = given.get(name)
        text = isinstance(value, (str, int, float)) and not isinstance(value, bool)
        if value not in (None, "") and not (text and pattern.fullmatch(str(value))):
            yield f"{at}.{name}: expected {says}, got {spoken(value)}"


def _components(spec: Json) -> Iterator[tuple[str, Json]]:
    components = spec.get("components") or {}
    for name in ("pilot", "cni"):
        yield f"components.{name}", components.get(name) or {}
    for kind in ("ingressGateways", "egressGateways"):
        for gateway in components.get(kind) or []:
            if gateway.get("enabled"):
                yield f"components.{kind}[name:{gateway['name']}]", gateway


def _options(given: Json, at: str) -> Iterator[str]:
    """``k8s`` of a component."""
    yield from _pod(given, at)
    if (pull := given.get("imagePullPolicy")) and pull not in _PULL:
        yield f'{at}.imagePullPolicy: "{pull}" is not {" or ".join(_PULL)}'
    if scaled := given.get("hpaSpec"):
        yield from _autoscaler(scaled, f"{at}.hpaSpec", ("minReplicas", "maxReplicas"))
        yield from _behavior(scaled.get("behavior"), f"{at}.hpaSpec.behavior")
    yield from _budget(given.get("podDisruptionBudget") or {}, f"{at}.podDisruptionBudget")
    strategy = given.get("strategy") or {}
    kind, rolling = strategy.get("type") or "RollingUpdate", strategy.get("rollingUpdate")
    if kind not in ("RollingUpdate", "Recreate"):
        yield f'{at}.strategy.type: "{kind}" is not RollingUpdate or Recreate'
    elif rolling and kind == "Recreate":
        yield f"{at}.strategy.rollingUpdate: it cannot be combined with the type Recreate; remove one of them"
    elif rolling is not None and not isinstance(rolling, dict):
        yield f"{at}.strategy.rollingUpdate: expected a map, got {spoken(rolling)}"
    else:
        yield from _rolling(rolling or {}, f"{at}.strategy.rollingUpdate", ("maxSurge", "maxUnavailable"))


def _values(given: Json, at: str) -> Iterator[str]:
    """``values`` of a component."""
    yield from _pod(given, at)
    if given.get("autoscaleEnabled"):
        yield from _autoscaler(given, at, ("autoscaleMin", "autoscaleMax"))
    if (seconds := given.get("terminationGracePeriodSeconds")) is not None:
        yield from _count(seconds, f"{at}.terminationGracePeriodSeconds", 0)
    if (kind := (given.get("updateStrategy") or {}).get("type")) not in (None, "RollingUpdate", "OnDelete"):
        yield f"{at}.updateStrategy.type: {spoken(kind)} is not RollingUpdate or OnDelete"
    yield from _behavior(given.get("autoscaleBehavior"), f"{at}.autoscaleBehavior")
    if (percent := dig(given, "cpu", "targetAverageUtilization")) is not None:
        yield from _count(percent, f"{at}.cpu.targetAverageUtilization", 1)
    yield from _rolling(given, at, ("rollingMaxSurge", "rollingMaxUnavailable"))


def _pod(given: Json, at: str) -> Iterator[str]:
    """What ``k8s`` and ``values`` have alike."""
    if (replicas := given.get("replicaCount")) is not None:
        yield from _count(replicas, f"{at}.replicaCount", 0)
    for name in _OBJECTS:
        if given.get(name) is not None and not isinstance(given[name], dict):
            yield f"{at}.{name}: expected a map, got {spoken(given[name])}"
    for name in _LISTS:
        for i, item in enumerate(given.get(name) or ()):
            if not isinstance(item, dict):
                yield f"{at}.{name}[{i}]: expected a map, got {spoken(item)}"
    for which in ("requests", "limits"):
        yield from _amounts(dig(given, "resources", which, default={}), f"{at}.resources.{which}")


def _autoscaler(given: Json, at: str, names: tuple[str, str]) -> Iterator[str]:
    counts: list[int] = []
    for name, default in zip(names, (k8s.LEAST, k8s.MOST), strict=True):
        value: Any = default if given.get(name) is None else given[name]
        wrong = list(_count(value, f"{at}.{name}", 1))
        yield from wrong
        counts.append(0 if wrong else value)
    least, most = counts
    if least > most > 0:
        unset = ", its default" if given.get(names[1]) is None else ""
        yield f"{at}.{names[0]}: {least} is more than {names[1]} ({most}{unset}); raise {names[1]}"


def _behavior(given: Any, at: str) -> Iterator[str]:
    """How fast an autoscaler may be: in each direction, which policy counts, of some."""
    if given is not None and not isinstance(given, dict):
        yield f"{at}: expected a map, got {spoken(given)}"
        return
    for name, rules in (given or {}).items():
        if name not in ("scaleUp", "scaleDown"):
            yield f"{at}.{name}: unknown field; there are scaleUp and scaleDown"
        elif rules is not None and not isinstance(rules, dict):
            yield f"{at}.{name}: expected a map, got {spoken(rules)}"
        elif rules:
            yield from _scaling(rules, f"{at}.{name}")


def _scaling(given: Json, at: str) -> Iterator[str]:
    if (seconds := given.get("stabilizationWindowSeconds")) is not None:
        yield from _count(seconds, f"{at}.stabilizationWindowSeconds", 0, 3600)
    if (chosen := given.get("selectPolicy")) not in (None, "Max", "Min", "Disabled"):
        yield f"{at}.selectPolicy: {spoken(chosen)} is not Max, Min or Disabled"
    policies = given.get("policies")
    if policies is None:
        return
    if not isinstance(policies, list) or not policies:
        yield f"{at}.policies: expected a list of at least one policy, got {spoken(policies)}; or leave it out"
        return
    for i, policy in enumerate(policies):
        if not isinstance(policy, dict):
            yield f"{at}.policies[{i}]: expected a map, got {spoken(policy)}"
            continue
        if (kind := policy.get("type")) not in ("Pods", "Percent"):
            yield f"{at}.policies[{i}].type: {spoken(kind)} is not Pods or Percent"
        yield from _count(policy.get("value"), f"{at}.policies[{i}].value", 1)
        yield from _count(policy.get("periodSeconds"), f"{at}.policies[{i}].periodSeconds", 1, 1800)


def _budget(given: Json, at: str) -> Iterator[str]:
    names = [n for n in ("minAvailable", "maxUnavailable") if given.get(n) is not None]
    for name in names:
        yield from _share(given[name], f"{at}.{name}")
    if len(names) > 1:
        yield f"{at}: minAvailable and maxUnavailable exclude each other; remove one of them"


def _rolling(given: Json, at: str, names: tuple[str, str]) -> Iterator[str]:
    shares = [given.get(n) for n in names]
    for name, value in zip(names, shares, strict=True):
        if value is not None:
            yield from _share(value, f"{at}.{name}")
    if all(s in (0, "0%") and s is not False for s in shares):
        yield f"{at}: {' and '.join(names)} cannot both be 0, since no pod could be replaced; raise one of them"


def _share(value: Any, at: str) -> Iterator[str]:
    """A number of pods, or a percentage of them."""
    if isinstance(value, str):
        if not _PERCENTAGE.fullmatch(value):
            yield f"{at}: expected a number or a percentage such as 25%, got {spoken(value)}"
    else:
        yield from _count(value, at, 0)


def _count(value: Any, at: str, least: int, most: int = _MOST) -> Iterator[str]:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        bounds = f"of at least {least}" if most == _MOST else f"from {least} to {most}"
        yield f"{at}: expected a whole number {bounds}, got {spoken(value)}"


def _amounts(given: Any, at: str) -> Iterator[str]:
    if not isinstance(given, dict):
        yield f"{at}: expected a map"
        return
    for name, value in given.items():
        try:
            assert _QUANTITY is not None
            _QUANTITY(str(value))
        except ValueError as e:
            yield f"{at}.{name}: {e}"
