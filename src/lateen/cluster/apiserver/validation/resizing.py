"""Resources of a pod that runs (follows core validation's ValidatePodResize, and validateResizePolicy)."""

from __future__ import annotations

from lateen.cluster.apiserver.validation import containers
from lateen.cluster.apiserver.validation.fields import Causes, bad, denied, duplicate, unsupported
from lateen.cluster.rules import amounts
from lateen.kit.jsons import Json, dig

RESIZABLE = ("cpu", "memory")
_ONLY = "only cpu and memory resources are mutable"
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
    for key in ("containers", "initContainers"):
        for i, (now, was) in enumerate(zip(new.get(key) or [], old.get(key) or [], strict=True)):
            at = f"spec.{key}[{i}]"
            if key == "initContainers" and now.get("restartPolicy") != "Always":
                if (now.get("resources") or {}) != (was.get("resources") or {}):
                    out.append(denied(f"{at}.resources", "resources for non-sidecar init containers are immutable"))
                continue
            if (now.get("resizePolicy") or []) != (was.get("resizePolicy") or []):
                out.append(denied("spec", _ONLY))
            out += _changed(now, was, f"{at}.resources")
    return out


def _changed(now: Json, was: Json, at: str) -> Causes:
    out: Causes = []
    for part in ("limits", "requests"):
        new, old = (amounts.of(dig(c, "resources", part)) for c in (now, was))
        if any(new.get(name) != old.get(name) for name in {*new, *old} if name not in RESIZABLE):
            out.append(denied("spec", _ONLY))
        if any(name not in new for name in old):
            out.append(denied(at, f"resource {part} cannot be removed"))
        less = part == "limits" and new.get("memory", old.get("memory", 0)) < old.get("memory", 0)
        if less and not amounts.restarts(now, ("memory",)):
            says = "memory limits cannot be decreased unless resizePolicy is RestartContainer"
            out.append(denied(f"{at}.limits[memory]", says))
    return out
