"""Parts that the templates share: a proxy's image, arguments, resources and probe.

Names and values are Istio's, because tools and users look for them; the conformance runner's golden cases check them.
"""

from __future__ import annotations

from typing import Any

from lateen.api.annotation_values import IMAGE_TYPES
from lateen.api.canonical import CANONICAL_NAME, CANONICAL_REVISION, canonical_name, canonical_revision
from lateen.api.domain import service_suffix
from lateen.inject.context import Context, text
from lateen.kit.jsons import Json, dig
from lateen.wire import ports

_RESOURCES = (
    ("requests", "cpu", "proxyCPU"),
    ("requests", "memory", "proxyMemory"),
    ("limits", "cpu", "proxyCPULimit"),
    ("limits", "memory", "proxyMemoryLimit"),
)


def resources(c: Context) -> Json:
    """Resources by the pod's annotations if it has any, otherwise the installation's, where None means no entry."""
    asked = {(part, unit): c.annotations.get(f"sidecar.istio.io/{name}") for part, unit, name in _RESOURCES}
    if any(v is not None for v in asked.values()):
        out: Json = {}
        for (part, unit), value in asked.items():
            if value is not None:
                out.setdefault(part, {})[unit] = value
        return out
    given = c.settings.proxy("resources") or {}
    parts = {part: {k: text(v) for k, v in (given.get(part) or {}).items() if v is not None} for part in given}
    return {part: found for part, found in parts.items() if found}


def image(c: Context, own: str = "") -> str:
    """The image: a full reference from the annotation, ``own`` (the installation's for this container) or
    ``values.global.proxy.image``; otherwise built from hub, name, tag and image type.
    Source: https://istio.io/latest/docs/ops/configuration/security/harden-docker-images/."""
    s = c.settings
    name = c.annotation("sidecar.istio.io/proxyImage", own if "/" in own else s.proxy("image") or "proxyv2")
    if "/" in name:
        return name
    installed = dig(c.config, "image", "imageType") or s.image_type
    kind = c.annotations.get("sidecar.istio.io/proxyImageType", installed)
    if s.image and not kind:
        return s.image
    return image_of(str(s.of_global("hub")), s.proxy("image") or "proxyv2", text(s.of_global("tag")), str(kind or ""))


def image_of(hub: str, name: str, tag: str, kind: str) -> str:
    if kind:
        tag = next((tag.removesuffix(f"-{k}") for k in IMAGE_TYPES if tag.endswith(f"-{k}")), tag)
        tag = tag if kind == "default" else f"{tag}-{kind}"
    return f"{hub}/{name}:{tag}"


def log_arguments(c: Context) -> list[str]:
    s = c.settings
    level = c.annotation("sidecar.istio.io/agentLogLevel", s.of_global("logging", "level") or "default:info")
    components = c.annotation("sidecar.istio.io/componentLogLevel", s.proxy("componentLogLevel"))
    out = [f"--proxyLogLevel={c.annotation('sidecar.istio.io/logLevel', s.proxy('logLevel') or 'warning')}"]
    outliers = s.proxy("outlierLogPath")
    out += [f"--proxyComponentLogLevel={components}", f"--log_output_level={level}", *json_log(c)]
    return [*out, *([f"--outlierLogPath={outliers}"] if outliers else [])]


def json_log(c: Context) -> list[str]:
    return ["--log_as_json"] if c.settings.of_global("logAsJson") else []


def arguments(c: Context, kind: str) -> list[str]:
    return [
        "proxy",
        kind,
        "--domain",
        f"$(POD_NAMESPACE){service_suffix(c.settings.cluster_domain)}",
        *log_arguments(c),
    ]


def readiness(c: Context, port: int = ports.HEALTH) -> Json:
    def value(name: str) -> int:
        return int(c.annotation(f"readiness.status.sidecar.istio.io/{name}", _installed(c, name)) or 0)

    out: Json = {"httpGet": {"path": "/healthz/ready", "port": port}, "timeoutSeconds": 3}
    for name in ("initialDelaySeconds", "periodSeconds", "failureThreshold"):
        if number := value(name):
            out[name] = number
    return out


def _installed(c: Context, name: str) -> Any:
    return c.settings.proxy(f"readiness{name[0].upper()}{name[1:]}")


def pull(c: Context) -> Json:
    policy = c.settings.of_global("imagePullPolicy")
    return {"imagePullPolicy": policy} if policy else {}


def pull_secrets(c: Context) -> Json:
    names = c.settings.of_global("imagePullSecrets") or []
    return {"imagePullSecrets": [{"name": n} for n in names]} if names else {}


def default_containers(c: Context) -> Json:
    """The container that ``kubectl logs`` and ``exec`` use by default."""
    out: Json = {}
    for name in ("kubectl.kubernetes.io/default-logs-container", "kubectl.kubernetes.io/default-container"):
        if c.applications and name not in c.annotations:
            out[name] = c.applications[0]
    return out


def canonical(c: Context) -> Json:
    return {
        CANONICAL_NAME: canonical_name(c.labels, c.workload.name),
        CANONICAL_REVISION: canonical_revision(c.labels),
    }
