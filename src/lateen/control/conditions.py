"""One object's status, as JSON. Pure.

``Accepted``: whether the mesh accepts the object. ``Analyzed``: the findings of the analysis. ``Reconciled``: whether
the affected proxies have this generation of it. Their number is not written, because every proxy that connects or
disconnects would then change every object: ``lateen x wait`` and ``lateen proxy-status`` query istiod.

Every object of the mesh gets a status, even without any problem, so that ``kubectl wait
--for=condition=Reconciled`` works on all of them. Istio writes none unless its analysis is enabled
(``PILOT_ENABLE_ANALYSIS``), and then validation messages only, which have the same form here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lateen.analysis.messages import documentation
from lateen.api import kinds
from lateen.control.findings import Found
from lateen.control.reach import Reach
from lateen.kit.jsons import Json, dig

SHADOWED = "LAT0101"
OF_ANALYSIS = ("Analyzed", "Shadowed")
"""Conditions that come from the analysis."""
OF_ISSUING = ("Ready", "Issuing")
"""Conditions of issuers and certificates, as in cert-manager."""
ISSUED = ("acme", "notBefore", "notAfter", "renewalTime", "lastFailureTime", "failedIssuanceAttempts")
"""Fields of their status."""
SHOWN, MESSAGES = 5, 20
"""How many findings a condition names, and how many are listed as messages."""


class Facts(NamedTuple):
    """What is known about one object."""

    bad: str = ""
    """Why it is left out of the mesh; empty if it is not."""
    far: Reach = Reach()
    found: Sequence[Found] | None = ()
    """None until the analysis has answered: its part of the status is left unchanged until then."""
    extras: Sequence[Json] = ()
    """Conditions that only some objects have."""
    addresses: Sequence[Json] = ()
    """The addresses allocated for a ServiceEntry's hosts."""
    fields: Json | None = {}
    """Further fields of the status; None if they are not known yet and must be left unchanged."""


class Outcome(NamedTuple):
    status: Json | None
    """The status to write; None if it is already written."""
    settled: bool
    """Whether it is final, that is, does not depend on pending acknowledgements."""


def outcome(kind: kinds.Kind, obj: Json, facts: Facts, now: str) -> Outcome:
    """The status of an object. ``now``: RFC 3339, for conditions whose status changes."""
    generation = dig(obj, "metadata", "generation")
    status: Json = obj.get("status") or {}
    old: list[Json] = status.get("conditions") or []
    done = any(
        c.get("type") == "Reconciled" and c.get("status") == "True" and c.get("observedGeneration") == generation
        for c in old
    )
    far = reconciled(kind, facts.far, done)
    made = [accepted(kind, facts.bad), *_of_analysis(facts.found), far, *facts.extras]
    new = [c | {"observedGeneration": generation} for c in made]
    kept: tuple[str, ...] = (
        ("Healthy",) if facts.found is not None else ("Healthy", *OF_ANALYSIS)
    )  # this condition is the probe's, not ours
    kept += OF_ISSUING if facts.fields is None else ()
    fields = {k: status[k] for k in ISSUED if k in status} if facts.fields is None else facts.fields
    new += [_bare(c) for c in old if c.get("type") in kept]
    before: list[Json] = status.get("validationMessages") or []
    messages = before if facts.found is None else validation_messages(facts.found)
    settled = far["status"] == "True" or far["reason"] == "NoProxy"
    same = before == messages and (status.get("addresses") or []) == list(facts.addresses)
    same = same and all(status.get(k) == fields.get(k) for k in ISSUED)
    if same and len(old) == len(new) and {c.get("type"): _bare(c) for c in old} == {c["type"]: c for c in new}:
        return Outcome(None, settled)
    written = {
        "conditions": merged(old, new, now),
        "observedGeneration": generation,
        "validationMessages": messages,
        **{k: fields.get(k) for k in ISSUED if k in fields or k in status},
        **({"addresses": list(facts.addresses)} if facts.addresses or status.get("addresses") else {}),
    }
    return Outcome(written, settled)


def _of_analysis(found: Sequence[Found] | None) -> list[Json]:
    return [] if found is None else [analyzed(found), *shadowed(found)]


def _bare(c: Json) -> Json:
    return {k: v for k, v in c.items() if k != "lastTransitionTime"}


def condition(kind: str, status: str, reason: str, text: str) -> Json:
    return {"type": kind, "status": status, "reason": reason, "message": text[:2000]}


def accepted(kind: kinds.Kind, bad: str) -> Json:
    """``bad`` says why the object is left out; empty if it is not."""
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
    """``before``: whether all proxies already had this generation. A proxy that connects later gets it along with
    everything else, which does not change the object's status."""
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
    """A separate condition, because a shadowed rule otherwise looks as if it worked."""
    says = [f.text for f in found if f.code == SHADOWED][:SHOWN]
    return [condition("Shadowed", "True", "OlderRule", "; ".join(says))] if says else []


def conflicted(says: list[str]) -> Json:
    text = "; ".join(says[:SHOWN])
    return condition("Conflicted", "True", "OlderGateway", f"{text}. Give it another port, or other workloads.")


FETCHED = {
    kinds.REQUEST_AUTHENTICATION: ("KeysFetched", "istiod has fetched the keys of all issuers"),
    kinds.SECURITY_POLICY: ("KeysFetched", "istiod has fetched everything that the policy needs"),
    kinds.WASM_PLUGIN: ("ModuleFetched", "istiod has the module"),
    kinds.TRAFFIC_EXTENSION: ("ModuleFetched", "istiod has the module"),
}
"""Kinds whose objects refer to documents that istiod fetches -> the condition, and its message on success."""


def fetched(what: tuple[str, str], missing: list[str]) -> Json:
    """``what``: an entry of FETCHED; ``missing``: the problems."""
    name, says = what
    if missing:
        return condition(name, "False", "FetchFailed", "; ".join(missing[:SHOWN]))
    return condition(name, "True", "Fetched", says)


def enforced(says: list[str]) -> Json:
    """The condition of a SecurityPolicy about whether all its parts can be enforced."""
    if says:
        return condition("Enforced", "False", "Broken", "; ".join(says[:SHOWN]))
    return condition("Enforced", "True", "Complete", "everything that the policy refers to exists")


def patched(says: list[str]) -> Json:
    """The condition of an EnvoyFilter about the effect of each patch."""
    if not says:
        return condition("Patched", "Unknown", "NoProxies", "no connected proxy is concerned")
    bad = any(": rejected" in s for s in says)
    idle = any(": matches nothing" in s for s in says)
    reason = "Rejected" if bad else "NotMatched" if idle else "Applied"
    return condition("Patched", "False" if bad or idle else "True", reason, "; ".join(says))


def merged(old: list[Json], new: list[Json], now: str) -> list[Json]:
    """Carry over or set the time at which each condition last changed its status."""
    before = {c.get("type"): c for c in old}
    out = []
    for c in new:
        was = before.get(c["type"], {})
        since = was.get("lastTransitionTime") if was.get("status") == c["status"] else None
        out.append(c | {"lastTransitionTime": since or now})
    return out


def validation_messages(found: Sequence[Found]) -> list[Json]:
    """In the format of Istio's status."""
    return [
        {
            "type": {"code": f.code, "name": f.name},
            "level": f.level.upper(),
            "documentationUrl": documentation(f.code),
            "message": f.text,
        }
        for f in found[:MESSAGES]
    ]
