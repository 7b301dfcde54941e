"""spec.volumes of pods, whose names and paths become files (follows core validation's validateVolumeSource)."""

from __future__ import annotations

import re

from lateen.cluster.apiserver.validation import names
from lateen.cluster.apiserver.validation.fields import Causes, bad, denied, duplicate, required, unsupported
from lateen.kit.jsons import Json

DOWNWARD = {"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"}
ENV = {
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
}
_LABELS = {
    *(*DOWNWARD, *ENV, "spec.restartPolicy", "spec.schedulerName", "spec.hostNetwork", "status.phase"),
    "status.nominatedNodeName",
}
"""Every field of a pod that has a name in selectors."""
_SUBSCRIPT = re.compile(r"(metadata\.(?:labels|annotations))\['([^']*)'\]")
HOST_TYPES = (
    "",
    "DirectoryOrCreate",
    "Directory",
    "FileOrCreate",
    "File",
    "Socket",
    "CharDevice",
    "BlockDevice",
)


def check(volumes: list[Json], path: str) -> Causes:
    out: Causes = []
    seen: set[str] = set()
    for i, volume in enumerate(volumes):
        at, name = f"{path}[{i}]", str(volume.get("name") or "")
        if not name:
            out.append(required(f"{at}.name"))
        elif wrong := names.dns_label(name):
            out += [bad(f"{at}.name", name, s) for s in wrong]
        elif name in seen:
            out.append(duplicate(f"{at}.name", name))
        seen.add(name)
        out += _source(volume, at)
    return out


def _source(volume: Json, at: str) -> Causes:
    kinds = [k for k in volume if k != "name"]
    if not kinds:
        return [required(at, "must specify a volume type")]
    out: Causes = [denied(f"{at}.{k}", "may not specify more than 1 volume type") for k in kinds[1:]]
    kind = kinds[0]
    source, path = volume[kind], f"{at}.{kind}"
    match kind:
        case "hostPath":
            return out + _host_path(source, path)
        case "configMap":
            return out + _files(source, path, "name")
        case "secret":
            return out + _files(source, path, "secretName")
        case "downwardAPI":
            return out + _downward(source, path)
        case "projected":
            return out + _projected(source, path)
        case "emptyDir" if str(source.get("sizeLimit") or "").startswith("-"):
            out.append(denied(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity"))
        case "nfs":
            out += [] if source.get("server") else [required(f"{path}.server")]
            if not str(source.get("path") or "").startswith("/"):
                out.append(bad(f"{path}.path", source.get("path") or "", "must be an absolute path"))
        case "ephemeral" if not source.get("volumeClaimTemplate"):
            out.append(required(f"{path}.volumeClaimTemplate"))
        case "csi":
            driver = str(source.get("driver") or "")
            out += [] if driver else [required(f"{path}.driver")]
            out += [bad(f"{path}.driver", driver, s) for s in names.dns_subdomain(driver)]
        case "persistentVolumeClaim" if not source.get("claimName"):
            out.append(required(f"{path}.claimName"))
    return out


def _host_path(source: Json, path: str) -> Causes:
    value, kind = str(source.get("path") or ""), str(source.get("type") or "")
    out: Causes = [] if value else [required(f"{path}.path")]
    out += [bad(f"{path}.path", value, s) for s in names.no_back_steps(value)]
    return out if kind in HOST_TYPES else [*out, unsupported(f"{path}.type", kind, HOST_TYPES)]


def _files(source: Json, path: str, name: str) -> Causes:
    out: Causes = [] if source.get(name) else [required(f"{path}.{name}")]
    return out + _mode(source, path, "defaultMode") + _keys(source.get("items") or [], f"{path}.items")


def _keys(items: list[Json], path: str) -> Causes:
    """KeyToPath: which key becomes which file."""
    out: Causes = []
    for i, item in enumerate(items):
        at = f"{path}[{i}]"
        if not item.get("key"):
            out.append(required(f"{at}.key"))
        out += _file(item, at) + _mode(item, at, "mode")
    return out


def _file(item: Json, at: str) -> Causes:
    value = str(item.get("path") or "")
    if not value:
        return [required(f"{at}.path")]
    return [bad(f"{at}.path", value, s) for s in names.projected_path(value)]


def _mode(source: Json, path: str, name: str) -> Causes:
    mode = source.get(name)
    if mode is None or 0 <= mode <= 0o777:
        return []
    return [bad(f"{path}.{name}", mode, "must be a number between 0 and 0777 (octal), both inclusive")]


def _downward(source: Json, path: str) -> Causes:
    out = _mode(source, path, "defaultMode")
    at = path  # as Kubernetes, which does not say which item
    for item in source.get("items") or []:
        out += _file(item, at) + _mode(item, at, "mode")
        if item.get("fieldRef") is not None:
            out += field_ref(item["fieldRef"], f"{at}.fieldRef", DOWNWARD)
            if item.get("resourceFieldRef") is not None:
                out.append(bad(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
        elif item.get("resourceFieldRef") is None:
            out.append(required(at, "one of fieldRef and resourceFieldRef is required"))
        elif not item["resourceFieldRef"].get("containerName"):
            out.append(required(f"{at}.resourceFieldRef.containerName"))
    return out


def field_ref(ref: Json, path: str, allowed: set[str]) -> Causes:
    field = str(ref.get("fieldPath") or "")
    if not field:
        return [required(f"{path}.fieldPath")]
    if m := _SUBSCRIPT.fullmatch(field):
        return [bad(f"{path}.fieldPath", m[2], s) for s in names.qualified(m[2].lower())]
    if field not in _LABELS:
        return [bad(f"{path}.fieldPath", field, f"error converting fieldPath: field label not supported: {field}")]
    return [] if field in allowed else [unsupported(f"{path}.fieldPath", field, allowed)]


def _projected(source: Json, path: str) -> Causes:
    out = _mode(source, path, "defaultMode")
    files: set[str] = set()
    for i, part in enumerate(source.get("sources") or []):
        at = f"{path}.sources[{i}]"
        kinds = list(part)
        if not kinds:  # which kube-apiserver accepts, too
            continue
        out += [denied(f"{at}.{k}", "may not specify more than 1 volume type") for k in kinds[1:]]
        kind = kinds[0]
        one, where = part[kind], f"{at}.{kind}"
        if kind in ("configMap", "secret"):
            out += [] if one.get("name") else [required(f"{where}.name")]
            out += _keys(one.get("items") or [], f"{where}.items")
        elif kind == "downwardAPI":
            out += _downward(one, where)
        else:
            out += _token(one, where)
        for item in [one] if kind == "serviceAccountToken" else one.get("items") or []:
            name = str(item.get("path") or "")
            if name in files:
                out.append(bad(path, name, "conflicting duplicate paths"))
            files.add(name)
    return out


def _token(source: Json, path: str) -> Causes:
    out = _file(source, path)
    seconds = source.get("expirationSeconds", 3600)
    if seconds < 600:
        out.append(bad(f"{path}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"))
    elif seconds > 1 << 32:
        out.append(bad(f"{path}.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds"))
    return out
