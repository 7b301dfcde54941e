"""The mesh at one instant, and the queries over it.

``Mesh.advance`` moves it to the next instant; objects that the change does not affect stay the same, so values derived
from them remain valid. Each group of lookups has its own module; all of them are queries over the same tables
(``kit.queries``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lateen.mesh.attachments import Attachments
from lateen.mesh.objects import Key


class Mesh(Attachments):
    """Services (``services``), their instances (``endpoints``), the rules for hosts (``rules``), the policies of
    workloads (``policies``), and what gateways serve (``attachments``)."""


def differing(old: Mapping[Key, Any], new: Mapping[Key, Any]) -> list[Key]:
    """Keys whose values are not identical objects."""
    return [k for k, v in new.items() if old.get(k) is not v] + [k for k in old if k not in new]
