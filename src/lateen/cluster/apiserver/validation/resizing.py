"""Resources of a pod that runs (follows core validation's ValidatePodResize, and validateResizePolicy)."""

from __future__ import annotations

from lateen.cluster.apiserver.validation import containers
from lateen.cluster.apiserver.validation.fields import Causes, bad, denied, duplicate, unsupported
from lateen.cluster.rules import amounts
from lateen.kit.jsons import Json, dig

RESIZABLE = ("cpu", "memory")
_ONLY = "only cpu and memory resources are mutable"
_ONLY_OF_SIDECARS = "only cpu and memory resources for sidecar containers are mutable"
_NONE = "resources for non-sidecar init containers are immutable"
POLICIES = ("NotRequired", amounts.RESTARTS)


def policy(container: Json, restart: str, path: str) -> Causes:
    """A container's ``resizePolicy``; ``restart``: the restart policy of its pod."""
    out: Causes = []
    seen: set[str] = set()
    for i, rule in enumerate(container.get("resizePolicy") or []):
        at, name, wanted = f"{path}.resizePolicy[{i}]", str(rule.get("resourceName") or ""), rule.get("restartPolicy")
        if name not in RESIZABLE:
            out.append(unsupported(f"{at}.resourceName" if name else at, name, RESIZABLE))
        if wanted not in POLICIES:
            out.append(unsupported(f"{at}.restartPolicy", wanted or "", POLICIES))
        elif wanted == amounts.RESTARTS and restart == "Never":
            says = "must be 'NotRequired' when `restartPolicy` is 'Never'"
            out.append(bad(f"{path}.resizePolicy", wanted, says))
        out += [duplicate(f"{path}.resizePolicy", name)] if name in seen else []
        seen.add(name)
    return out


def check(new: Json, old: Json) -> Causes:
    """The spec of a pod, of which only resources have been changed."""
    out: Causes = []
    before, after = amounts.qos(old), amounts.qos(new)
    if before != after:
        out.append(bad("spec", before, "Pod QOS Class may not change as a result of resizing"))
    shared = containers.Names(new)
    out += containers.check(new.get("containers") or [], "spec.containers", shared)
    out += containers.check(new.get("initContainers") or [], "spec.initContainers", shared, init=True)
    for key in ("containers", "initContainers"):
        for i, (now, was) in enumerate(zip(new.get(key) or [], old.get(key) or [], strict=True)):
            at = f"spec.{key}[{i}]"
            if key == "containers":
                out += [denied("spec", _ONLY)] if _fixed(now) != _fixed(was) else []
            elif now.get("restartPolicy") == "Always":
                out += [denied("spec", _ONLY_OF_SIDECARS)] if _fixed(now) != _fixed(was) else []
            else:
                out += [denied("spec", _NONE)] if _all(now) != _all(was) else []
                continue
            out += _changed(now, was, f"{at}.resources")
    return out


def _all(container: Json, but: tuple[str, ...] = ()) -> Json:
    """What a write through this subresource can change, apart from some resources."""
    resources = container.get("resources") or {}
    out: Json = {"claims": resources.get("claims") or [], "resizePolicy": container.get("resizePolicy") or []}
    for part in ("limits", "requests"):
        out[part] = {k: v for k, v in amounts.of(resources.get(part)).items() if k not in but}
    return out


def _fixed(container: Json) -> Json:
    return _all(container, RESIZABLE)


def _changed(now: Json, was: Json, at: str) -> Causes:
    out: Causes = []
    for part in ("requests", "limits"):
        new, old = (dig(c, "resources", part, default={}) or {} for c in (now, was))
        if any(name not in new for name in old):
            out.append(denied(f"{at}.{part}", f"resource {part} cannot be removed"))
    after, before = (amounts.of(dig(c, "resources", "limits")).get("memory") for c in (now, was))
    if after is None or amounts.restarts(now, ("memory",)) or (before is not None and after >= before):
        return out
    how = "added" if before is None else "decreased"
    says = f"memory limits cannot be {how} unless resizePolicy is {amounts.RESTARTS}"
    return [*out, denied(f"{at}.limits[memory]", says)]
