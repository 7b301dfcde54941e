"""The Wasm modules that WasmPlugins and TrafficExtensions name.

istiod fetches a module once for the whole mesh (in Istio, each proxy's agent does), checks it, and sends it with the
plugin's configuration: so all proxies have the same one, even if a tag moves, and registry credentials never leave
istiod.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from lateen.api.kinds import Ref
from lateen.control.facts import AGAIN_S, Facts
from lateen.control.fetching import NotFetched
from lateen.control.world import World
from lateen.mesh.plugins import NO_MODULE, Extension, Module, ModuleSource, opens, source

MAX_TOTAL = 256 << 20
"""The limit for all modules together, in bytes."""
Fetch = Callable[[ModuleSource, str], Awaitable[Module]]
"""(source, the requesting namespace) -> a module. Raises NotFetched."""


Named = tuple[Ref, ...]
"""The objects that refer to a module"""


class Modules(Facts[ModuleSource, Named, Module]):
    def __init__(self, world: World, fetch: Fetch, again_s: float = AGAIN_S) -> None:
        async def one(place: ModuleSource, named: Named) -> Module:
            found = await fetch(place, named[0].namespace if named else "")
            others = {m.digest: len(m.code) for p, m in world.objects.modules.items() if p != place}
            if sum(others.values()) + (len(found.code) if found.digest not in others else 0) > MAX_TOTAL:
                raise NotFetched(f"{place.url}: all modules together have more than {MAX_TOTAL >> 20} MiB")
            return found

        super().__init__("module", lambda: world.objects.modules, world.know_module, one, NO_MODULE, again_s=again_s)
        self.awaited: set[ModuleSource] = set()
        """Modules wanted since istiod started that have neither been fetched nor failed yet. Proxies may have them from
        an earlier istiod, and must not lose them."""

    async def first(self, limit_s: float) -> None:
        """See ``Facts.first``; called when istiod starts."""
        self.awaited = {place for place in self._wanted if place not in self._known()}
        await super().first(limit_s)

    def follow(self, wanted: Mapping[ModuleSource, Named]) -> None:
        super().follow(wanted)
        self.awaited = {place for place in self.awaited if place in wanted and place not in self._known()}

    def _begin(self, new: ModuleSource, before: Mapping[ModuleSource, Named]) -> None:
        """Keep a plugin's former module until the new version has been fetched: requests must not bypass it."""
        mine = set(self._wanted[new])
        former = [place for place, named in before.items() if not mine.isdisjoint(named)]
        kept = (self._known().get(place) for place in former)
        if (module := next((m for m in kept if m is not None and m.digest), None)) is not None:
            self._know(new, module)
        elif any(place in self.awaited and place not in self._known() for place in former):
            self.awaited.add(new)

    def missing(self, e: Extension) -> list[str] | None:
        """The problems of an object's module; None if istiod fetches none for it."""
        place = source(e)
        if place is None:
            return None
        why, known = self.problems.get(place), self._known().get(place)
        if why is None and known is not None:
            return []
        if known is not None and known.digest:
            then = "the previous one stays in use"
        elif known is None and place in self.awaited and not opens(e):
            then = "proxies that need it keep what they have"
        elif known is None:
            then = "it does not run yet"
        else:
            then = "requests pass without it" if opens(e) else "everything is denied"
        return [f"the module cannot be fetched: {why or 'not tried yet'}; {then}"]
