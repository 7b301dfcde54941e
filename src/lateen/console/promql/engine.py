"""Evaluates a syntax tree for all steps of a query, within bounds of work and time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import promql_parser as ast

from lateen.console.promql import aggregates, calls, functions, parsing, relabel, selecting, windows
from lateen.console.promql.binary import Matching, operate
from lateen.console.promql.parsing import milliseconds
from lateen.console.promql.selecting import MAX_SAMPLES, MAX_SERIES, Steps, bounded
from lateen.console.promql.values import Scalar, Value, Vector, empty, failed, refused
from lateen.console.promql.windows import Ranges
from lateen.console.series.store import Store

DEFAULT_SUBQUERY_MS = 60_000
"""Prometheus' ``evaluation_interval``."""


class Engine:
    """For one query. ``in_time`` raises QueryError when it has taken too long."""

    def __init__(self, store: Store, in_time: Callable[[], None]) -> None:
        self.store, self.in_time = store, in_time

    def evaluate(self, node: ast.Expr, steps: Steps) -> Value:
        """Raises QueryError."""
        self.in_time()
        match node:
            case ast.NumberLiteral():
                return np.full(len(steps.times), node.val)
            case ast.StringLiteral():
                return node.val
            case ast.ParenExpr():
                return self.evaluate(node.expr, steps)
            case ast.UnaryExpr():
                return self._negated(self.evaluate(node.expr, steps))
            case ast.VectorSelector():
                return self._instant(node, steps)
            case ast.BinaryExpr():
                return self._binary(node, steps)
            case ast.AggregateExpr():
                return self._aggregate(node, steps)
            case ast.Call():
                return calls.call(self, node, steps)
        raise refused("a range of time is only allowed as the argument of a function, or alone in an instant query")

    @staticmethod
    def _negated(value: Value) -> Value:
        if isinstance(value, str):
            raise refused("unary expression only allowed on expressions of type scalar or instant vector, got string")
        return value.mapped(np.negative) if isinstance(value, Vector) else -value

    # --- samples of the store --------------------------------------------------------------------------------

    def _instant(self, node: ast.VectorSelector, steps: Steps) -> Vector:
        found = selecting.latest(self.store, node, steps)
        return Vector(found.labels, *found.chunked(windows.current))

    def ranges(self, node: ast.Expr, steps: Steps) -> Ranges:
        """Of an expression that is a range of time. Raises QueryError for others."""
        node = parsing.bare(node)
        if isinstance(node, ast.MatrixSelector):
            return selecting.within(self.store, node, steps)
        if isinstance(node, ast.SubqueryExpr):
            return self._subquery(node, steps)
        raise refused("a range of time is expected, such as metric[5m]")

    def _subquery(self, node: ast.SubqueryExpr, steps: Steps) -> Ranges:
        """Its steps are multiples of their distance, whatever the query's are."""
        times, span = steps.looked_at(node), milliseconds(node, "range")
        distance = milliseconds(node, "step") or DEFAULT_SUBQUERY_MS
        first = (int(times.min()) - span) // distance * distance + distance
        if (int(times.max()) - first) // distance > MAX_SAMPLES // 100:
            raise failed("the subquery has too many steps")
        instants = np.arange(first, int(times.max()) + 1, distance, dtype=np.int64)
        inner = self.evaluate(node.expr, steps.at(instants)) if len(instants) else empty(0)
        if not isinstance(inner, Vector):
            raise refused("a subquery is only allowed on instant vectors")
        values, there = inner.values, inner.there
        return Ranges(inner.labels, instants, times, span, lambda r: values[r], np.zeros(len(values), np.bool_), there)

    # --- operators -------------------------------------------------------------------------------------------

    def _binary(self, node: ast.BinaryExpr, steps: Steps) -> Value:
        left, right = self.evaluate(node.lhs, steps), self.evaluate(node.rhs, steps)
        self.in_time()
        found = operate(str(node.op).lower(), left, right, _matching(node.modifier))
        if isinstance(found, Vector):
            bounded(len(found.labels), steps)
        return found

    def _aggregate(self, node: ast.AggregateExpr, steps: Steps) -> Vector:
        vector = self.evaluate(node.expr, steps)
        if not isinstance(vector, Vector):
            raise refused(f"{node.op} takes an instant vector")
        self.in_time()
        op, modifier = str(node.op).lower(), node.modifier
        inclusive = modifier is None or modifier.type == ast.AggModifierType.By
        group = aggregates.Grouping(tuple(modifier.labels) if modifier else (), inclusive)
        if op in ("topk", "bottomk"):
            return aggregates.ranked(op, vector, group, self.scalar(node.param, steps))
        if op == "quantile":
            return aggregates.quantiles(vector, group, self.scalar(node.param, steps))
        if op == "count_values":
            label = relabel.name(self.text(node.param, steps), "invalid label name")
            return aggregates.counted_values(vector, group, label, functions.text, MAX_SERIES)
        return aggregates.aggregate(op, vector, group)

    # --- what operators and functions take ------------------------------------------------------------------

    def scalar(self, node: ast.Expr | None, steps: Steps) -> Scalar:
        found = self.evaluate(node, steps) if node is not None else None
        if not isinstance(found, np.ndarray):
            raise refused("a number is expected as parameter")
        return found

    def text(self, node: ast.Expr | None, steps: Steps) -> str:
        found = self.evaluate(node, steps) if node is not None else None
        if not isinstance(found, str):
            raise refused("a string is expected as parameter")
        return found

    def vector(self, node: ast.Expr, steps: Steps) -> Vector:
        found = self.evaluate(node, steps)
        if not isinstance(found, Vector):
            raise refused("an instant vector is expected as parameter")
        return found


def _matching(modifier: ast.BinModifier | None) -> Matching:
    if modifier is None:
        return Matching()
    if modifier.fill_values.lhs is not None or modifier.fill_values.rhs is not None:
        raise refused("fill values are not supported")
    left, right = ast.VectorMatchCardinality.ManyToOne, ast.VectorMatchCardinality.OneToMany
    many = "left" if modifier.card == left else "right" if modifier.card == right else ""
    on = modifier.matching is not None and modifier.matching.type == ast.LabelModifierType.Include
    labels = tuple(modifier.matching.labels) if modifier.matching is not None else ()
    return Matching(modifier.return_bool, on, labels, many, tuple(modifier.group_labels or ()))
