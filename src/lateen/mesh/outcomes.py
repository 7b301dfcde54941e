"""Outcomes of the users' objects: what a dialect could not do as requested. Statuses and analysis word it in their own
ways.
"""

from __future__ import annotations

from typing import NamedTuple

from lateen.api import objects as o
from lateen.api.kinds import GroupKind

Path = tuple[str | int, ...]


class Problem(NamedTuple):
    reason: str
    """A condition's reason in CamelCase: BackendNotFound, OlderGateway."""
    says: str
    path: Path = ()
    """The path in the object."""
    about: str = ""
    """``namespace/name`` of another object that is involved; empty if there is none."""


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
    """The kinds of routes that may attach to it."""
    attached: int
    """How many routes are attached."""
    conditions: tuple[Condition, ...]


class GatewayStanding(NamedTuple):
    conditions: tuple[Condition, ...]
    listeners: tuple[ListenerStanding, ...]
    services: tuple[str, ...]
    """Hosts of the Services in front of its proxies."""
    sets: int = 0
    """The number of ListenerSets with at least one valid listener."""


class ListenerSetStanding(NamedTuple):
    gateway: o.Ref
    conditions: tuple[Condition, ...]
    """Includes Programmed only if that is impossible; otherwise the Gateway's proxies decide it."""
    listeners: tuple[ListenerStanding, ...]
    of_gateway: GatewayStanding
    """The standing of its Gateway."""


class AncestorStanding(NamedTuple):
    ancestor: o.Ref
    conditions: tuple[Condition, ...]


class PolicyStanding(NamedTuple):
    ancestors: tuple[AncestorStanding, ...]
    """The Gateways that the policy affects."""


class ParentStanding(NamedTuple):
    position: int
    """The position of the reference in the route's ``parentRefs``."""
    conditions: tuple[Condition, ...]


class RouteStanding(NamedTuple):
    parents: tuple[ParentStanding, ...]
    """Only the parents that are ours."""


class ClassStanding(NamedTuple):
    conditions: tuple[Condition, ...]
    features: tuple[str, ...]


Standing = GatewayStanding | RouteStanding | ClassStanding | ListenerSetStanding | PolicyStanding
