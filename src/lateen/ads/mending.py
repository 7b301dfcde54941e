"""What a rejected extension leaves behind in Envoy, and how a proxy gets rid of it.

Envoy stores the configuration of an extension (ECDS) as the latest one of its name before it tries to use it
(``FilterConfigSubscription::onConfigUpdate``). If that fails, every listener that names the extension is rejected from
then on, whatever else changes in it. So the proxy gets back what it had before, or is told that there is nothing;
listeners wait until then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from lateen.wire.resource import Resource


@dataclass
class Mending:
    """Of one proxy's extensions."""

    before: dict[str, Resource] = field(default_factory=dict)
    """What it had accepted before a version that is in flight or rejected."""
    unknown: set[str] = field(default_factory=set)
    """Names of which it had something before that this session has never seen, as after a restart of istiod. It is not
    taken away: a listener that names a rejected extension is refused, and all others go on with what they have."""
    due: set[str] = field(default_factory=set)
    """Names whose rejected version is to be replaced."""
    sent: str = ""
    """The nonce of the response that does so."""

    def resumes(self, names: Iterable[str]) -> None:
        """The proxy has these from an earlier connection."""
        self.unknown.update(names)

    def replaces(self, old: Resource | None, version: str | None) -> None:
        """A new version is sent in the place of ``version``; ``old`` is what was offered before it."""
        if old is not None and old.version == version:
            self.before[old.name] = old

    def rejected(self, nonce: str, names: list[str]) -> None:
        """What was to mend is not mended again."""
        self.due.update(names if nonce != self.sent else ())

    def taken(self, nonce: str, names: list[str]) -> None:
        for name in names if nonce != self.sent else ():
            self.forget(name)

    def forget(self, name: str) -> None:
        self.before.pop(name, None)
        self.unknown.discard(name)

    def response(self, nonce: str) -> tuple[tuple[Resource, ...], tuple[str, ...]]:
        """(what the proxy gets back, the names of which it had nothing)"""
        due, self.due, self.sent = sorted(self.due), set(), nonce
        nothing = tuple(n for n in due if n not in self.before and n not in self.unknown)
        return tuple(self.before[n] for n in due if n in self.before), nothing
