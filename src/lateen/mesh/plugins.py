"""Filters of the user, from WasmPlugins and TrafficExtensions: where each runs, and the Wasm modules that they need.

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
    """Where istiod fetches a module."""

    url: str
    sha256: str
    """What its checksum, or that of its image, must be; empty where nothing is asked."""
    secret: tuple[str, str]
    """(namespace, name) of the Secret for the registry; the name is empty where there is none."""
    version: str
    """Of the object, where the module is to be fetched again whenever the object changes; else empty."""


@dataclass(frozen=True)
class Module:
    digest: str = ""
    """SHA-256 of the code; empty where it could not be fetched."""
    code: bytes = field(default=b"", compare=False, repr=False)


NO_MODULE = Module()


@dataclass(frozen=True)
class Hook:
    """A plugin's position in the filter chains of one side of a proxy. It does not depend on what the plugin does, so
    that a new version of it changes no listener."""

    ref: o.Ref
    wasm: bool
    network: bool
    """Whether it is a filter of connections, not of requests."""
    phase: Phase
    open: bool
    """Whether requests pass where the plugin cannot run."""
    ports: tuple[int, ...] = ()
    """Empty for all."""

    def at(self, numbers: tuple[int, ...]) -> bool:
        """``numbers``: of a port, as clients and as servers know it; empty where it is not known."""
        return not self.ports or any(n in self.ports for n in numbers)


@dataclass(frozen=True)
class Plugin:
    """What runs at a workload."""

    source: Extension
    module: Module | None = None
    """None for Lua, and where the proxy has the module as a file."""

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
        """Where it runs on a side; None where it does not."""
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
    """Whether requests pass where its module cannot run."""
    wasm = wasm_of(e)
    return wasm is not None and wasm.fail_strategy == "FAIL_OPEN"


def order(e: Extension) -> tuple[int, tuple[str, str, str]]:
    """Of a phase: the highest priority comes first, then the oldest."""
    return -(e.spec.priority or 0), e.age_order


def hooks(plugins: Iterable[Plugin], mode: Mode) -> tuple[Hook, ...]:
    return tuple(h for p in plugins if (h := p.hook(mode)) is not None)


def source(e: Extension) -> ModuleSource | None:
    """None where istiod has nothing to fetch."""
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
    """Whether an image's tag is ``latest``, which it is where none is given."""
    name = image.rpartition("/")[2]
    return "@" not in name and name.partition(":")[2] in ("", "latest")


def scheme(url: str) -> str:
    """``oci`` where none is given, as in Istio."""
    found, separator, _ = url.partition("://")
    return found.lower() if separator else "oci"


def made(e: Extension, modules: Mapping[ModuleSource, Module]) -> Plugin | None:
    """None where it does not run: while its module is being fetched for the first time, and where that has failed and
    it is to fail open."""
    place = source(e)
    if place is None:
        return Plugin(e)
    module = modules.get(place)
    if module is None or (not module.digest and opens(e)):
        return None
    return Plugin(e, module)
