"""What the expressions of one request may cost, all policies and match conditions together.

Kubernetes gives each binding a budget of its own; here everything runs in one process, which others wait for.
"""

from __future__ import annotations

STEPS = 500_000
"""Estimated beforehand from the sizes of the object's lists: about 1.5 s."""
CHECK = STEPS // 30
"""The cost of one authorizer check, which reads every binding. In Kubernetes, too, about 28 use up a budget."""
_OVER = "validation failed due to running out of cost budget, no further validation rules will be run"


class Spent(ValueError):
    """Nothing is left; the message is Kubernetes'."""


class Budget:
    def __init__(self, steps: float = STEPS) -> None:
        self._left = steps

    def spend(self, steps: float) -> None:
        """Raises Spent once the budget is used up, and at every call after that."""
        self._left -= steps
        if self._left < 0:
            raise Spent(_OVER)
