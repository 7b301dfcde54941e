"""metadata of any object (after apimachinery's ValidateObjectMeta)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lateen.cluster.apiserver.validation import names
from lateen.cluster.apiserver.validation.fields import Causes, bad, denied, required, too_long
from lateen.kit.jsons import Json

ANNOTATIONS = 256 * 1024
RBAC = "rbac.authorization.k8s.io"
Format = Callable[[str], list[str]]


def format_of(group: str, kind: str) -> Format:
    """The rule for names of a kind."""
    if group in (RBAC, "certificates.k8s.io"):
        return names.path_segment
    if kind == "Event" and group in ("", "events.k8s.io"):
        return names.path_segment
    if group == "" and kind in ("Service", "Namespace"):
        return names.dns_1035_label if kind == "Service" else names.dns_label
    return names.dns_subdomain


FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")
NO_FINALIZER = "name is neither a standard finalizer name nor is it fully qualified"


_OWN = frozenset(
    {
        *("", "apps", "autoscaling", "batch", "policy", "admissionregistration.k8s.io", "certificates.k8s.io"),
        *("coordination.k8s.io", "discovery.k8s.io", "events.k8s.io", "networking.k8s.io", RBAC, "scheduling.k8s.io"),
        "storage.k8s.io",
    }
)
"""Groups of Kubernetes' own, the finalizers of whose objects belong to a domain."""


def check(group: str, kind: str, meta: Json) -> Causes:
    name, prefix = str(meta.get("name") or ""), str(meta.get("generateName") or "")
    valid = format_of(group, kind)
    out: Causes = []
    if prefix:
        out += [bad("metadata.generateName", prefix, s) for s in valid(prefix.rstrip("-.") or prefix)]
    if not name:
        out.append(required("metadata.name", "name or generateName is required"))
    else:
        out += [bad("metadata.name", name, s) for s in valid(name)]
    out += labels(meta.get("labels") or {}, "metadata.labels")
    out += annotated(meta.get("annotations") or {}, "metadata.annotations")
    for i, finalizer in enumerate(meta.get("finalizers") or []):
        out += [bad("metadata.finalizers", finalizer, s) for s in names.qualified(finalizer)]
        if group in _OWN and "/" not in finalizer and finalizer not in FINALIZERS:
            out.append(bad(f"metadata.finalizers[{i}]", finalizer, NO_FINALIZER))
    return out + _owners(meta.get("ownerReferences") or [])


def standing(finalizers: list[str], path: str) -> Causes:
    """The finalizers of a namespace (``spec.finalizers``)."""
    out: Causes = []
    for name in finalizers:
        out += [bad(path, name, s) for s in names.qualified(name)]
        if "/" not in name and name not in FINALIZERS:
            out.append(bad(path, name, NO_FINALIZER))
    return out


def labels(values: Json, path: str) -> Causes:
    out: Causes = []
    for key, value in values.items():
        out += [bad(path, key, s) for s in names.qualified(key)]
        out += [bad(path, value, s) for s in names.label_value(value)]
    return out


def annotated(values: Json, path: str) -> Causes:
    out = [bad(path, key, s) for key in values for s in names.qualified(key.lower())]
    size = sum(len(k.encode()) + len(str(v).encode()) for k, v in values.items())
    return [*out, too_long(path, ANNOTATIONS)] if size > ANNOTATIONS else out


def selector(value: Json, path: str) -> Causes:
    """A LabelSelector."""
    out = labels(value.get("matchLabels") or {}, f"{path}.matchLabels")
    for i, e in enumerate(value.get("matchExpressions") or []):
        at, operator, values = f"{path}.matchExpressions[{i}]", e.get("operator"), e.get("values") or []
        if operator in ("In", "NotIn"):
            if not values:
                out.append(required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                says = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                out.append(denied(f"{at}.values", says))
        else:
            out.append(bad(f"{at}.operator", operator or "", "not a valid selector operator"))
        out += [bad(f"{at}.key", e.get("key") or "", s) for s in names.qualified(str(e.get("key") or ""))]
    return out


def _owners(refs: Iterable[Json]) -> Causes:
    out: Causes = []
    controllers = []
    for i, ref in enumerate(refs):
        path = f"metadata.ownerReferences[{i}]"
        out += [
            bad(f"{path}.{key}", "", "must not be empty")
            for key in ("apiVersion", "kind", "name", "uid")
            if not ref.get(key)
        ]
        if ref.get("controller"):
            controllers.append(str(ref.get("name")))
    if len(controllers) > 1:
        says = 'Only one reference can have Controller set to true. Found "true" in references for '
        out.append(bad("metadata.ownerReferences", controllers[1], says + " and ".join(controllers[:2])))
    return out
