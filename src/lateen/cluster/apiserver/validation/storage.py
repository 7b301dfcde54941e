"""Claims, volumes and storage classes (follows core and storage validation)."""

from __future__ import annotations

from typing import Any

from lateen.cluster.apiserver.validation import meta, names, volumes
from lateen.cluster.apiserver.validation.fields import Causes, bad, denied, immutable, required, unsupported
from lateen.cluster.rules import amounts
from lateen.kit.jsons import Json, dig

_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_LIFECYCLES = ("Ephemeral", "Persistent")
_GROUP_POLICIES = ("File", "None", "ReadWriteOnceWithFSType")
_RECLAIM = ("Delete", "Recycle", "Retain")
_BINDING = ("Immediate", "WaitForFirstConsumer")
_NOT_SOURCES = {
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
}


def claim(obj: Json, old: Json | None) -> Causes:
    spec = obj.get("spec") or {}
    out = claim_spec(spec, "spec")
    if old is None:
        return out
    was = old["spec"]
    if _fixed(spec, was) != _fixed(was, was):
        says = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        out.append(denied("spec", says))
    before, now = (dig(s, "resources", "requests", "storage") for s in (was, spec))
    if before is not None and now is not None and not out and amounts.parse(now) < amounts.parse(before):
        out.append(denied("spec.resources.requests.storage", "field can not be less than previous value"))
    return out


def _fixed(spec: Json, was: Json) -> Json:
    """A volume's name may be set once; a bound claim may ask for more."""
    free = {"resources"} if was.get("volumeName") else set()
    if not was.get("volumeName"):
        free.add("volumeName")
    if not was.get("storageClassName"):
        free.add("storageClassName")  # given afterwards to claims that were made before there was a default
    return {k: v for k, v in spec.items() if k not in free}


def claim_spec(spec: Json, path: str) -> Causes:
    """Of a claim, or of a template for claims."""
    out = _access(spec.get("accessModes") or [], f"{path}.accessModes")
    out += meta.selector(spec["selector"], f"{path}.selector") if spec.get("selector") else []
    asked = dig(spec, "resources", "requests", "storage")
    out += _size(asked, f"{path}.resources[storage]")
    out += _mode(spec, path)
    if name := spec.get("storageClassName"):
        out += [bad(f"{path}.storageClassName", name, s) for s in names.dns_subdomain(name)]
    if name := spec.get("volumeName"):
        out += [bad(f"{path}.volumeName", name, s) for s in names.dns_subdomain(name)]
    for key in ("dataSource", "dataSourceRef"):
        if spec.get(key):
            out.append(denied(f"{path}.{key}", "not available in the embedded cluster"))
    return out


def _mode(spec: Json, path: str) -> Causes:
    if spec.get("volumeMode") == "Block":
        return [denied(f"{path}.volumeMode", "block devices are not available in the embedded cluster; use Filesystem")]
    if spec.get("volumeMode", "Filesystem") != "Filesystem":
        return [unsupported(f"{path}.volumeMode", spec["volumeMode"], ("Block", "Filesystem"))]
    return []


def _access(modes: list[str], path: str) -> Causes:
    if not modes:
        return [required(path, "at least 1 access mode is required")]
    out = [unsupported(path, m, _MODES) for m in modes if m not in _MODES]
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        out.append(denied(path, "may not use ReadWriteOncePod with other access modes"))
    return out


def _size(value: Any, path: str) -> Causes:
    if value is None:
        return [required(path)]
    try:
        amount = amounts.parse(value)
    except ValueError as e:
        return [bad(path, value, str(e))]
    return [] if amount > 0 else [bad(path, value, "must be greater than zero")]


def volume(obj: Json, old: Json | None) -> Causes:
    spec = obj.get("spec") or {}
    out = _access(spec.get("accessModes") or [], "spec.accessModes")
    if dig(spec, "capacity", "storage") is None:
        out += [required("spec.capacity"), unsupported("spec.capacity", spec.get("capacity") or {}, ("storage",))]
    else:
        out += _size(spec["capacity"]["storage"], "spec.capacity[storage]")
        if len(spec["capacity"]) > 1:
            out.append(unsupported("spec.capacity", spec["capacity"], ("storage",)))
    out += _placed(spec)
    if name := spec.get("storageClassName"):
        out += [bad("spec.storageClassName", name, s) for s in names.dns_subdomain(name)]
    out += _mode(spec, "spec")
    reclaim = spec.get("persistentVolumeReclaimPolicy")
    if reclaim not in _RECLAIM:
        out.append(unsupported("spec.persistentVolumeReclaimPolicy", reclaim, _RECLAIM))
    found = sources(spec)
    if not found:
        out.append(required("spec", "must specify a volume type"))
    out += [denied(f"spec.{k}", "may not specify more than 1 volume type") for k in found[1:]]
    for kind in ("hostPath", "local"):
        if kind in spec:
            path = str(dig(spec, kind, "path", default=""))
            out += [] if path else [required(f"spec.{kind}.path")]
            out += [bad(f"spec.{kind}.path", path, s) for s in names.no_back_steps(path)]
    if "local" in spec and not spec.get("nodeAffinity"):
        out.append(required("spec.nodeAffinity", "Local volume requires node affinity"))
    if "csi" in spec:
        out += [required(f"spec.csi.{k}") for k in ("driver", "volumeHandle") if not spec["csi"].get(k)]
    if old is not None:
        was = old["spec"]
        if any(spec.get(k) != was.get(k) for k in {*found, *sources(was)}):
            out.append(denied("spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation"))
        if spec.get("volumeMode") != was.get("volumeMode"):
            out.append(immutable("spec.volumeMode", spec.get("volumeMode")))
    return out


def _placed(spec: Json) -> Causes:
    """Where a volume can be used, and what its folder is."""
    out: Causes = []
    if (affinity := spec.get("nodeAffinity")) is not None:
        at = "spec.nodeAffinity.required"
        if affinity.get("required") is None:
            out.append(required(at, "must specify required node constraints"))
        elif not affinity["required"].get("nodeSelectorTerms"):
            out.append(required(f"{at}.nodeSelectorTerms", "must have at least one node selector term"))
    kind = str(dig(spec, "hostPath", "type", default=""))
    if kind not in volumes.HOST_TYPES:
        out.append(unsupported("spec.hostPath.type", kind, volumes.HOST_TYPES))
    return out


def sources(spec: Json) -> list[str]:
    return [k for k in spec if k not in _NOT_SOURCES]


def storage_class(obj: Json, old: Json | None) -> Causes:
    maker = str(obj.get("provisioner") or "").lower()
    out: Causes = [bad("provisioner", maker, s) for s in names.qualified(maker)] if maker else [required("provisioner")]
    for i, topology in enumerate(obj.get("allowedTopologies") or []):
        for j, term in enumerate(topology.get("matchLabelExpressions") or []):
            if not term.get("values"):
                out.append(required(f"allowedTopologies[{i}].matchLabelExpressions[{j}].values"))
    if "" in (obj.get("parameters") or {}):
        out.append(bad("parameters", "", "field can not be empty."))
    if obj.get("reclaimPolicy") not in ("Delete", "Retain"):
        out.append(unsupported("reclaimPolicy", obj.get("reclaimPolicy"), ("Delete", "Retain")))
    if obj.get("volumeBindingMode") not in _BINDING:
        out.append(unsupported("volumeBindingMode", obj.get("volumeBindingMode"), _BINDING))
    for key in ("parameters", "provisioner", "reclaimPolicy") if old is not None else ():
        if obj.get(key) != (old or {}).get(key):
            out.append(denied(key, f"updates to {key} are forbidden."))
    if old is not None and obj.get("volumeBindingMode") != old.get("volumeBindingMode"):
        out.append(immutable("volumeBindingMode", obj.get("volumeBindingMode")))
    return out


def csi_driver(obj: Json, _: Json | None) -> Causes:
    spec = obj.get("spec") or {}
    out: Causes = []
    for i, mode in enumerate(spec.get("volumeLifecycleModes") or []):
        if mode not in _LIFECYCLES:
            out.append(unsupported(f"spec.volumeLifecycleModes[{i}]", mode, _LIFECYCLES))
    if spec.get("fsGroupPolicy", "None") not in _GROUP_POLICIES:
        out.append(unsupported("spec.fsGroupPolicy", spec["fsGroupPolicy"], _GROUP_POLICIES))
    return out
