"""What becomes of the users' objects: where a dialect could not do what one asks for. Statuses and the analysis say it
in their own words.
"""

from __future__ import annotations

from typing import NamedTuple

from lateen.api import objects as o

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
