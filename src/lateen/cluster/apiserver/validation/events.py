"""Events (follows pkg/apis/core/validation/events.go): lenient in the core group, strict in events.k8s.io."""

from __future__ import annotations

from lateen.cluster.apiserver.validation import names
from lateen.cluster.apiserver.validation.fields import Causes, bad, required
from lateen.kit.jsons import Json

_LENGTHS = {"reportingInstance": 128, "action": 128, "reason": 128, "note": 1024}


def event(obj: Json) -> Causes:
    about, own = obj.get("involvedObject") or {}, obj["metadata"].get("namespace") or ""
    namespace = about.get("namespace") or ""
    if namespace != own and not (not namespace and own == "default"):
        return [bad("involvedObject.namespace", namespace, "does not match event.namespace")]
    return []


def strict(obj: Json) -> Causes:
    """An event as the recorder of events.k8s.io writes it."""
    out: Causes = [] if obj.get("eventTime") else [required("eventTime")]
    if not obj.get("reportingController"):
        out.append(required("reportingController"))
    else:
        wrong = names.qualified(str(obj["reportingController"]))
        out += [bad("reportingController", obj["reportingController"], s) for s in wrong]
    out += [required(key) for key in ("reportingInstance", "action", "reason") if not obj.get(key)]
    for key, most in _LENGTHS.items():
        if len(str(obj.get(key) or "").encode()) > most:
            says = f"can have at most {most} {'characters' if most < 1000 else 'bytes'}"
            out.append(bad(key, "", says))
    if obj.get("type") not in ("Normal", "Warning"):
        out.append(bad("type", obj.get("type") or "", "has invalid value: "))
    return out
