"""The input of templates: the pod, with its annotations and its proxy's configuration interpreted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lateen.inject import workload as w
from lateen.inject.settings import Settings
from lateen.kit import jsons, yamldoc
from lateen.kit.jsons import Json, dig

PROXY = "istio-proxy"


@dataclass(frozen=True)
class Context:
    """The input of a template. ``pod`` does not contain what an earlier injection added."""

    pod: Json
    namespace: str
    workload: w.Workload
    settings: Settings
    config: Json
    """The pod's complete ProxyConfig: the mesh's, overridden by the workload's, overridden by the annotation."""

    @property
    def annotations(self) -> dict[str, str]:
        return {k: str(v) for k, v in dig(self.pod, "metadata", "annotations", default={}).items()}

    @property
    def labels(self) -> dict[str, str]:
        return {k: str(v) for k, v in dig(self.pod, "metadata", "labels", default={}).items()}

    @property
    def containers(self) -> list[Json]:
        return list(dig(self.pod, "spec", "containers", default=[]))

    @property
    def applications(self) -> list[str]:
        return [str(c.get("name")) for c in self.containers if c.get("name") != PROXY]

    def annotation(self, name: str, default: Any) -> str:
        """The annotation's value, or the default; a null value of the installation becomes an empty string."""
        return self.annotations.get(name, text(default))

    @property
    def mode(self) -> str:
        """REDIRECT, TPROXY or NONE."""
        return self.annotation("sidecar.istio.io/interceptionMode", self.config.get("interceptionMode") or "REDIRECT")

    @property
    def hold(self) -> bool:
        return bool(
            self.config.get("holdApplicationUntilProxyStarts") or self.settings.proxy("holdApplicationUntilProxyStarts")
        )

    @property
    def native(self) -> bool:
        """Whether the proxy is a native sidecar: an init container that keeps running."""
        said = self.annotations.get("sidecar.istio.io/nativeSidecar")
        wanted = self.settings.native if said is None else said.lower() != "false"
        return wanted and self.settings.native_supported

    @property
    def metadata(self) -> dict[str, str]:
        return {str(k): str(v) for k, v in (self.config.get("proxyMetadata") or {}).items()}

    @property
    def status_port(self) -> str:
        """The agent's port: the annotation's, otherwise the ProxyConfig's, otherwise the installation's; 0 disables
        it."""
        default = self.config.get("statusPort") or self.settings.proxy("statusPort") or 0
        return str(int(self.annotation("status.sidecar.istio.io/port", default)))


def text(value: Any) -> str:
    """A value as Go templates print it."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def proxy_config(pod: Json, settings: Settings) -> Json:
    """The mesh's ``defaultConfig`` with the pod's annotation on top; nested maps are merged, lists replaced.
    Raises ValueError if the annotation cannot be parsed (``api.annotations`` checks its fields)."""
    out = jsons.copy(settings.default_config)
    if given := dig(pod, "metadata", "annotations", default={}).get("proxy.istio.io/config"):
        try:
            found = yamldoc.load(str(given)) or {}
        except yamldoc.YamlError as e:
            raise ValueError(f"the annotation proxy.istio.io/config cannot be parsed: {e}") from e
        if not isinstance(found, dict):
            raise ValueError("the annotation proxy.istio.io/config must be a mapping")
        out = _under(out, {_camel(k): v for k, v in found.items() if v is not None})
    return out


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(p.title() for p in rest)


def _under(base: Json, given: Json) -> Json:
    out = dict(base)
    for key, value in given.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _under(out[key], value) if both else value
    return out
