"""The user's own filters, from WasmPlugins and TrafficExtensions: their positions, and the Wasm modules that they need.

Source: https://istio.io/latest/docs/reference/config/proxy_extensions/wasm-plugin/.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from lateen.api import objects as o
from lateen.api.extensions import TrafficExtension, TrafficSelector, WasmConfig, WasmPlugin

Extension = o.Resource[WasmPlugin] | o.Resource[TrafficExtension]
Mode = Literal["CLIENT", "SERVER"]
Phase = Literal["AUTHN", "AUTHZ", "STATS", ""]
FILE = "file"


class ModuleSource(NamedTuple):
    """The source from which istiod fetches a module."""

    url: str
    sha256: str
    """The expected checksum of the module or of its image; empty if none is given."""
    secret: tuple[str, str]
    """(namespace, name) of the registry's pull Secret; the name is empty if there is none."""
    version: str
    """The object's version if the module is to be fetched again whenever the object changes; otherwise empty."""


@dataclass(frozen=True)
class Module:
    digest: str = ""
    """SHA-256 of the code; empty if it could not be fetched."""
    code: bytes = field(default=b"", compare=False, repr=False)


NO_MODULE = Module()


@dataclass(frozen=True)
class Hook:
    """A plugin's position in the filter chains of one side of a proxy. It is independent of the plugin's configuration,
    so that a new version of it changes no listener."""

    ref: o.Ref
    wasm: bool
    network: bool
    """Whether it is a network filter, not an HTTP filter."""
    phase: Phase
    open: bool
    """Whether it fails open: requests pass if the plugin cannot run."""
    ports: tuple[int, ...] = ()
    """Empty for all."""

    def at(self, numbers: tuple[int, ...]) -> bool:
        """Whether it runs at a port. ``numbers``: the port's numbers for clients and for servers; empty if unknown."""
        return not self.ports or any(n in self.ports for n in numbers)


@dataclass(frozen=True)
class Plugin:
    """A plugin at a workload."""

    source: Extension
    module: Module | None = None
    """None for Lua, and if the module is a file in the proxy."""

    @property
    def ref(self) -> o.Ref:
        return self.source.ref

    @property
    def wasm(self) -> WasmConfig | None:
        return wasm_of(self.source)

    @property
    def lua(self) -> str:
        spec = self.source.spec
        return spec.lua.inline_code if isinstance(spec, TrafficExtension) and spec.lua else ""

    def hook(self, mode: Mode) -> Hook | None:
        """Its position on a side; None if it does not run there."""
        found = [m for m in self.source.spec.match if m.mode in (mode, "UNDEFINED", "CLIENT_AND_SERVER")]
        if self.source.spec.match and not found:
            return None
        wasm, phase = self.wasm, self.source.spec.phase
        return Hook(
            self.ref,
            wasm is not None,
            wasm is not None and wasm.type == "NETWORK",
            phase if phase in ("AUTHN", "AUTHZ", "STATS") else "",
            wasm is None or opens(self.source),
            _ports(found),
        )


def _ports(found: list[TrafficSelector]) -> tuple[int, ...]:
    if any(not m.ports for m in found):
        return ()
    return tuple(sorted({p.number for m in found for p in m.ports if p is not None}))


def wasm_of(e: Extension) -> WasmConfig | None:
    return e.spec.wasm if isinstance(e.spec, TrafficExtension) else e.spec


def opens(e: Extension) -> bool:
    """Whether it fails open."""
    wasm = wasm_of(e)
    return wasm is not None and wasm.fail_strategy == "FAIL_OPEN"


def order(e: Extension) -> tuple[int, tuple[str, str, str]]:
    """Sort key within a phase: the highest priority first, then the oldest."""
    return -(e.spec.priority or 0), e.age_order


def hooks(plugins: Iterable[Plugin], mode: Mode) -> tuple[Hook, ...]:
    return tuple(h for p in plugins if (h := p.hook(mode)) is not None)


def source(e: Extension) -> ModuleSource | None:
    """The module's source; None if istiod has nothing to fetch."""
    wasm = wasm_of(e)
    if wasm is None or scheme(wasm.url) == FILE:
        return None
    again = wasm.image_pull_policy == "Always" or (
        wasm.image_pull_policy == "UNSPECIFIED_POLICY" and scheme(wasm.url) == "oci" and _is_latest(wasm.url)
    )
    return ModuleSource(
        wasm.url, wasm.sha256, (e.ref.namespace, wasm.image_pull_secret), f"{e.uid}/{e.version}" if again else ""
    )


def _is_latest(image: str) -> bool:
    """Whether an image's tag is ``latest``, which is the default."""
    name = image.rpartition("/")[2]
    return "@" not in name and name.partition(":")[2] in ("", "latest")


def scheme(url: str) -> str:
    """The scheme of a URL; ``oci`` if it has none, as in Istio."""
    found, separator, _ = url.partition("://")
    return found.lower() if separator else "oci"


def made(e: Extension, modules: Mapping[ModuleSource, Module]) -> Plugin | None:
    """The plugin; None if it does not run: while its module is being fetched for the first time, or if that has failed
    and it fails open."""
    place = source(e)
    if place is None:
        return Plugin(e)
    module = modules.get(place)
    if module is None or (not module.digest and opens(e)):
        return None
    return Plugin(e, module)
