"""The conditions of one object's status, as JSON. Pure.

``Accepted``: whether the mesh takes it. ``Analyzed``: what the analysis finds. ``Reconciled``: whether the proxies that
it concerns have this generation of it. How many these are is not written here, else every proxy that comes or goes
would change every object: ``lateen x wait`` and ``lateen proxy-status`` ask istiod.
"""

from __future__ import annotations

from collections.abc import Sequence

from lateen.analysis.messages import documentation
from lateen.api import kinds
from lateen.control.analyst import Found
from lateen.control.reach import Reach
from lateen.kit.jsons import Json

SHADOWED = "LAT0101"
SHOWN, MESSAGES = 5, 20
"""How many findings a condition names, and how many are listed as messages."""


def condition(kind: str, status: str, reason: str, text: str) -> Json:
    return {"type": kind, "status": status, "reason": reason, "message": text[:2000]}


def accepted(kind: kinds.Kind, bad: str) -> Json:
    """``bad`` is why the object is left out, empty where it is not."""
    if bad:
        return condition("Accepted", "False", "Invalid", bad)
    if kind.idle:
        return condition("Accepted", "False", "NotImplemented", f"{kind.kind} has no effect yet: {kind.idle}")
    return condition("Accepted", "True", "Accepted", "the object is valid")


def analyzed(found: Sequence[Found]) -> Json:
    if not found:
        return condition("Analyzed", "True", "NoFindings", "the analysis has no findings")
    reason = "Errors" if any(f.level == "Error" for f in found) else "Findings"
    return condition("Analyzed", "True", reason, "; ".join(f"[{f.code}] {f.text}" for f in found[:SHOWN]))


def reconciled(kind: kinds.Kind, far: Reach, before: bool) -> Json:
    """``before``: whether all proxies had this generation already. One that connects later gets it with everything
    else, which is no news about the object."""
    if far.refused:
        proxy, text = far.refused[0]
        more = f" (and {len(far.refused) - 1} more)" if len(far.refused) > 1 else ""
        return condition("Reconciled", "False", "Refused", f"proxy {proxy}{more} refused it: {text}")
    if kind is kinds.GATEWAY and not far.concerned:
        return condition("Reconciled", "Unknown", "NoProxy", "no connected proxy serves this Gateway")
    if far.have == far.concerned or before:
        return condition("Reconciled", "True", "UpToDate", "all connected proxies that it concerns have it")
    return condition("Reconciled", "Unknown", "Pushing", "not yet acknowledged by all proxies that it concerns")


def shadowed(found: Sequence[Found]) -> list[Json]:
    """A condition of its own, since a rule that is shadowed otherwise looks as if it worked."""
    says = [f.text for f in found if f.code == SHADOWED][:SHOWN]
    return [condition("Shadowed", "True", "OlderRule", "; ".join(says))] if says else []


def conflicted(says: list[str]) -> Json:
    text = "; ".join(says[:SHOWN])
    return condition("Conflicted", "True", "OlderGateway", f"{text}. Give it another port, or other workloads.")


def patched(says: list[str]) -> Json:
    """What each patch of an EnvoyFilter does."""
    if not says:
        return condition("Patched", "Unknown", "NoProxies", "no connected proxy is concerned")
    bad = any(": rejected" in s for s in says)
    idle = any(": matches nothing" in s for s in says)
    reason = "Rejected" if bad else "NotMatched" if idle else "Applied"
    return condition("Patched", "False" if bad or idle else "True", reason, "; ".join(says))


def merged(old: list[Json], new: list[Json], now: str) -> list[Json]:
    """With the time at which each condition took its present status."""
    before = {c.get("type"): c for c in old}
    out = []
    for c in new:
        was = before.get(c["type"], {})
        since = was.get("lastTransitionTime") if was.get("status") == c["status"] else None
        out.append(c | {"lastTransitionTime": since or now})
    return out


def validation_messages(found: Sequence[Found]) -> list[Json]:
    """In the form of Istio's status."""
    return [
        {
            "type": {"code": f.code, "name": f.name},
            "level": f.level.upper(),
            "documentationUrl": documentation(f.code),
            "message": f.text,
        }
        for f in found[:MESSAGES]
    ]
