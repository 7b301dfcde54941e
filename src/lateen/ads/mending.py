"""Recovery from rejected extensions (ECDS), which leave a broken configuration behind in Envoy.

Envoy stores the configuration of an extension as the latest one of its name before it tries to use it
(``FilterConfigSubscription::onConfigUpdate``). If that fails, every listener that names the extension is rejected from
then on, whatever else changes in it. So the proxy is sent the previous version again, or the extension is withdrawn;
listeners are held back until then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from lateen.wire.resource import Resource


@dataclass
class Mending:
    """The state of one proxy's extensions."""

    before: dict[str, Resource] = field(default_factory=dict)
    """What the proxy had accepted before a version that is in flight or rejected."""
    unknown: set[str] = field(default_factory=set)
    """Names of extensions of which the proxy has a version that this session has never seen, as after a restart of
    istiod. They are not withdrawn: a listener that names a rejected extension is rejected, and all others keep what
    they have."""
    due: set[str] = field(default_factory=set)
    """Names whose rejected versions are still to be replaced."""
    sent: str = ""
    """The nonce of the response that replaces them."""

    def resumes(self, names: Iterable[str]) -> None:
        """The proxy has these extensions from an earlier connection."""
        self.unknown.update(names)

    def replaces(self, old: Resource | None, version: str | None) -> None:
        """A new version replaces ``version``; ``old`` is the resource that was offered before it."""
        if old is not None and old.version == version:
            self.before[old.name] = old

    def rejected(self, nonce: str, names: list[str]) -> None:
        """Rejected extensions are due for replacement, unless the rejected response was itself such a replacement."""
        self.due.update(names if nonce != self.sent else ())

    def taken(self, nonce: str, names: list[str]) -> None:
        for name in names if nonce != self.sent else ():
            self.forget(name)

    def forget(self, name: str) -> None:
        self.before.pop(name, None)
        self.unknown.discard(name)

    def response(self, nonce: str) -> tuple[tuple[Resource, ...], tuple[str, ...]]:
        """(previous versions to send again, names to withdraw because there was no previous version)"""
        due, self.due, self.sent = sorted(self.due), set(), nonce
        nothing = tuple(n for n in due if n not in self.before and n not in self.unknown)
        return tuple(self.before[n] for n in due if n in self.before), nothing
