"""What becomes of the users' objects: where a dialect could not do what one asks for. Statuses and the analysis say it
in their own words.
"""

from __future__ import annotations

from typing import NamedTuple

from lateen.api import objects as o
from lateen.api.kinds import GroupKind

Path = tuple[str | int, ...]


class Problem(NamedTuple):
    reason: str
    """In one word, as conditions have it: BackendNotFound, OlderGateway."""
    says: str
    path: Path = ()
    """Where in the object."""
    about: str = ""
    """``namespace/name`` of the other object that it is about, where there is one."""


class Outcome(NamedTuple):
    of: o.Ref
    problems: tuple[Problem, ...] = ()


# --- the Gateway API, whose statuses have conditions of their own --------------------------------------------------


class Condition(NamedTuple):
    type: str
    true: bool
    reason: str
    says: str


class ListenerStanding(NamedTuple):
    name: str
    kinds: tuple[GroupKind, ...]
    """Kinds of routes that may attach to it."""
    attached: int
    """How many routes are attached."""
    conditions: tuple[Condition, ...]


class GatewayStanding(NamedTuple):
    conditions: tuple[Condition, ...]
    listeners: tuple[ListenerStanding, ...]
    services: tuple[str, ...]
    """Hosts of the Services in front of its proxies."""
    sets: int = 0
    """How many ListenerSets add listeners that work."""


class ListenerSetStanding(NamedTuple):
    gateway: o.Ref
    conditions: tuple[Condition, ...]
    """With Programmed where it cannot be; else the Gateway's proxies decide about that."""
    listeners: tuple[ListenerStanding, ...]
    of_gateway: GatewayStanding
    """Of its Gateway."""


class AncestorStanding(NamedTuple):
    ancestor: o.Ref
    conditions: tuple[Condition, ...]


class PolicyStanding(NamedTuple):
    ancestors: tuple[AncestorStanding, ...]
    """The Gateways that a policy has an effect at."""


class ParentStanding(NamedTuple):
    position: int
    """Of the reference in the route's ``parentRefs``."""
    conditions: tuple[Condition, ...]


class RouteStanding(NamedTuple):
    parents: tuple[ParentStanding, ...]
    """Only those that are ours to judge."""


class ClassStanding(NamedTuple):
    conditions: tuple[Condition, ...]
    features: tuple[str, ...]


Standing = GatewayStanding | RouteStanding | ClassStanding | ListenerSetStanding | PolicyStanding
