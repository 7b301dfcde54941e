"""The CEL of admission policies and of webhooks' match conditions.

Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/. Unlike the rules of custom
resources, an expression that the library cannot evaluate is refused when it is written: nobody should rely on it.
"""

from __future__ import annotations

import re
from typing import Any

from lateen.cluster.apiserver.budget import Budget, Spent
from lateen.cluster.apiserver.custom import programs
from lateen.cluster.apiserver.policies.authorizer import FUNCTIONS, Authorizer
from lateen.kit.jsons import Json

ALWAYS = frozenset({"object", "oldObject", "request", "authorizer", "namespaceObject"})
_SPLITS = re.compile(r"\b(split|findAll)\b")
"""Functions that make lists of strings, as long as these are."""
MAX_TEXT = 1 << 20
"""The longest string that a variable may hold: each variable can double the one before."""
_VARIABLE = re.compile(r"\bvariables\s*\.\s*([A-Za-z_]\w*)")


def compiled(expression: str, params: bool = False, variables: bool = False) -> Any:
    """Raises ValueError."""
    known = ALWAYS | ({"params"} if params else set()) | ({"variables"} if variables else set())
    try:
        return programs.compiled(expression, frozenset(known), frozenset(FUNCTIONS))
    except programs.Unsupported as e:
        raise ValueError(f"compilation failed: the embedded cluster lacks {e}") from None


def variables_of(expression: str) -> list[str]:
    """The policy's variables that an expression uses."""
    return list(dict.fromkeys(_VARIABLE.findall(expression)))


class Failed(Exception):
    """An expression has no value; the message says why."""


class Evaluation:
    """The expressions of one policy about one object and one parameter; each variable is computed when it is used."""

    def __init__(self, given: Json, authorizer: Authorizer, variables: list[Json], costs: Budget) -> None:
        self._given, self._authorizer, self._costs = given, authorizer, costs
        self._variables = {str(v["name"]): str(v["expression"]) for v in variables}
        self._found: dict[str, Any] = {}
        values = [given.get(k) for k in ("object", "oldObject", "params")]
        self._most = max(map(programs.largest, values))
        self._longest = max(map(programs.longest, values))

    def _measure(self, name: str) -> None:
        """A computed variable may be larger than what it was computed from."""
        found = self._found[name]
        self._most, longest = max(self._most, programs.largest(found)), programs.longest(found)
        if longest > MAX_TEXT:
            raise Failed(f"the variable {name} has a text of more than {MAX_TEXT} characters")
        self._longest = max(self._longest, longest)

    def value(self, expression: str) -> Any:
        """Raises Failed."""
        needed = [name for name in variables_of(expression) if name in self._variables]
        for name in needed:
            if name not in self._found:
                self._found[name] = None  # one that uses itself is refused when it is written
                self._found[name] = self.value(self._variables[name])
                self._measure(name)
        try:
            most = max(self._most, self._longest) if _SPLITS.search(expression) else self._most
            self._costs.spend(most ** programs.depth(expression))
            program = compiled(expression, params=True, variables=True)
            given = {**self._given, "variables": {n: self._found[n] for n in needed}}
            value = program.execute(programs.context(given, self._authorizer.functions()))
            self._costs.spend(0)  # an operator may have swallowed a function's error that the budget is spent
            return value
        except Spent as e:
            raise Failed(str(e)) from None
        except programs.FAILURES as e:
            raise Failed(programs.why(e)) from None
