"""One request to the API, independent of its transport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lateen.cluster.apiserver.auth import ADMIN, User
from lateen.cluster.apiserver.errors import bad_request
from lateen.cluster.apiserver.resources import Resource
from lateen.cluster.store.history import Entry
from lateen.kit import jsons
from lateen.kit.digits import digits
from lateen.kit.jsons import Json


@dataclass
class Call:
    """``body`` is decoded; ``query`` has the last value of each parameter; ``warnings`` go back to the client.

    ``agent``: the program that asks, who holds what it writes unless ``fieldManager`` names another. ``through``: the
    subresource that a write of the object itself came by. ``created`` is set where an apply has made the object.
    ``asked``: what the client has named, where that is stored as another resource or version.
    """

    resource: Resource
    version: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    query: dict[str, str] = field(default_factory=dict)
    body: Any = None
    patch_type: str = ""
    user: User = ADMIN
    agent: str = ""
    through: str = ""
    asked: tuple[Resource, str] | None = None
    created: bool = False
    warnings: list[str] = field(default_factory=list)

    @property
    def dry_run(self) -> bool:
        return self.query.get("dryRun") == "All"

    def flag(self, name: str) -> bool:
        """A boolean parameter: everything but absence, "0" and "false" is true (as apimachinery converts it)."""
        return is_true(self.query.get(name))

    def number(self, name: str) -> int | None:
        """A parameter that is a non-negative whole number; None if absent or empty. Raises ApiError."""
        return whole(self.query, name)

    def on(self, **changes: Any) -> Call:
        """The same request for something else; warnings are shared."""
        return replace(self, **changes)


def is_true(text: str | None) -> bool:
    return text is not None and text != "0" and text.lower() != "false"


def whole(query: Mapping[str, str], name: str) -> int | None:
    """A parameter that is a non-negative whole number; None if absent or empty. Raises ApiError."""
    text = query.get(name) or ""
    if not text:
        return None
    if not digits(text):
        raise bad_request(f'the parameter {name} must be a non-negative whole number, not "{text[:40]}"')
    return int(text)


@dataclass(frozen=True)
class Listing:
    """One page of a collection. ``following`` continues it; ``remaining`` is None if it has not been counted;
    ``stored``: what the items have been made of, if they are all stored."""

    items: list[Json]
    rv: str
    following: str = ""
    remaining: int | None = None
    stored: Sequence[Entry] = ()

    def encoded(self) -> list[bytes]:
        """The items as JSON; those that are shown as they are stored are encoded already."""
        if not self.stored:
            return [jsons.dumps(o) for o in self.items]
        return [e.raw if o is e.obj else jsons.dumps(o) for o, e in zip(self.items, self.stored, strict=True)]


@dataclass(frozen=True)
class WatchEvent:
    """``raw``: the object as JSON, where it is encoded already."""

    type: str
    obj: Json
    raw: bytes = b""
