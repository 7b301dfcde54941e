"""Evaluates a syntax tree for all steps of a query, within bounds of work and time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import cast

import numpy as np
import promql_parser as ast

from lateen.console.promql import aggregates, functions, histograms, parsing, relabel, windows
from lateen.console.promql.binary import Matching, operate
from lateen.console.promql.values import (
    QueryError,
    Scalar,
    Value,
    Vector,
    empty,
    failed,
    refused,
    unnamed,
)
from lateen.console.promql.windows import Windows
from lateen.console.series import codec
from lateen.console.series.codec import Ints, Labels
from lateen.console.series.registry import NAME
from lateen.console.series.store import Selection, Store, TooMany

LOOKBACK_MS = 300_000
MAX_SAMPLES = 10_000_000
"""Samples that one selector may read, and values that one step of the evaluation may have."""
MAX_SERIES = 50_000
DEFAULT_SUBQUERY_MS = 60_000
"""Prometheus' ``evaluation_interval``."""


@dataclass(frozen=True)
class Steps:
    """The instants of a query (ms, ascending), and the first and last one of the outermost query (for ``@``)."""

    times: Ints
    start: int
    end: int

    @property
    def distance(self) -> int:
        return int(self.times[1] - self.times[0]) if len(self.times) > 1 else 0


class Engine:
    """For one query: ``deadline`` is a time of ``time.monotonic``."""

    def __init__(self, store: Store, deadline: float) -> None:
        self._store, self._deadline = store, deadline

    def evaluate(self, node: ast.Expr, steps: Steps) -> Value:
        """Raises QueryError."""
        self._in_time()
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
                return self._instant(node, steps)[0]
            case ast.BinaryExpr():
                return self._binary(node, steps)
            case ast.AggregateExpr():
                return self._aggregate(node, steps)
            case ast.Call():
                return self._call(node, steps)
        raise refused("a range of time is only allowed as the argument of a function, or alone in an instant query")

    def _in_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise QueryError("timeout", "query timed out in expression evaluation")

    @staticmethod
    def _negated(value: Value) -> Value:
        if isinstance(value, str):
            raise refused("unary expression only allowed on expressions of type scalar or instant vector, got string")
        return value.mapped(np.negative) if isinstance(value, Vector) else -value

    # --- samples of the store --------------------------------------------------------------------------------

    def _at(self, node: ast.VectorSelector | ast.SubqueryExpr, steps: Steps) -> Ints:
        """The instants that a selector looks at: those of the steps, unless it has ``@`` or ``offset``."""
        times = steps.times
        if node.at is not None:
            moment = node.at.at
            bound = steps.start if node.at.type == ast.AtModifierType.Start else steps.end
            times = np.full_like(times, bound if moment is None else round(moment.timestamp() * 1000))
        return times - _ms(node.offset)

    def _select(self, node: ast.VectorSelector, times: Ints, back_ms: int, step_ms: int) -> Selection:
        ids = np.array(find(self._store, parsing.selector(node)), np.int64)
        if len(ids) > MAX_SERIES:
            raise failed(f"the query reads more than {MAX_SERIES} series")
        start = max(int(times.min()) - back_ms + 1, 0)
        try:
            return self._store.select(ids, start, int(times.max()), step_ms, MAX_SAMPLES)
        except TooMany:
            raise failed(f"query processing would load too many samples into memory ({MAX_SAMPLES})") from None

    def _instant(self, node: ast.VectorSelector, steps: Steps) -> tuple[Vector, Ints]:
        """(the vector, when each of its values was measured)."""
        times = self._at(node, steps)
        selection = self._select(node, times, LOOKBACK_MS, steps.distance)
        self._bounded(len(selection.labels), steps)
        nothing = np.zeros((len(selection.labels), len(times)))
        if not len(selection.times) or not selection.labels:
            return Vector(selection.labels, nothing, nothing > 0), nothing.astype(np.int64)
        columns = np.arange(len(selection.times))
        last = np.maximum.accumulate(np.where(codec.absent(selection.values), -1, columns), axis=1)
        high = np.searchsorted(selection.times, times, "right") - 1
        chosen = np.where(high >= 0, last[:, np.maximum(high, 0)], -1)
        rows = np.arange(len(selection.labels))[:, None]
        values, when = selection.values[rows, chosen], selection.times[chosen]
        there = (chosen >= 0) & (when > times - LOOKBACK_MS) & ~codec.stale(values)
        return Vector(selection.labels, np.where(there, values, 0.0), there), when

    def _range(self, node: ast.Expr, steps: Steps) -> Windows:
        while isinstance(node, ast.ParenExpr):
            node = node.expr
        if isinstance(node, ast.MatrixSelector):
            span = _ms(node.range)
            times = self._at(node.vector_selector, steps)
            # A dozen samples in a window are enough for every function.
            selection = self._select(node.vector_selector, times, span, min(steps.distance, span // 12))
            valid = ~(codec.absent(selection.values) | codec.stale(selection.values))
            self._bounded(len(selection.labels), steps)
            return Windows(selection.labels, selection.times, selection.values, valid, times, span)
        if isinstance(node, ast.SubqueryExpr):
            return self._subquery(node, steps)
        raise refused("a range of time is expected, such as metric[5m]")

    def _subquery(self, node: ast.SubqueryExpr, steps: Steps) -> Windows:
        """Its steps are multiples of their distance, whatever the query's are."""
        times, span = self._at(node, steps), _ms(node.range)
        distance = _ms(node.step) or DEFAULT_SUBQUERY_MS
        first = (int(times.min()) - span) // distance * distance + distance
        if (int(times.max()) - first) // distance > MAX_SAMPLES // 100:
            raise failed("the subquery has too many steps")
        instants = np.arange(first, int(times.max()) + 1, distance, dtype=np.int64)
        if not len(instants):
            return Windows([], instants, empty(0).values, empty(0).there, times, span)
        inner = self.evaluate(node.expr, replace(steps, times=instants))
        if not isinstance(inner, Vector):
            raise refused("a subquery is only allowed on instant vectors")
        return Windows(inner.labels, instants, inner.values, inner.there, times, span)

    def _bounded(self, series: int, steps: Steps) -> None:
        if series * len(steps.times) > MAX_SAMPLES:
            raise failed(f"the query has more than {MAX_SAMPLES} values; ask for fewer series or a longer step")

    def samples(self, node: ast.MatrixSelector, steps: Steps) -> Windows:
        """What an instant query for a range of time answers."""
        return self._range(node, steps)

    # --- operators -------------------------------------------------------------------------------------------

    def _binary(self, node: ast.BinaryExpr, steps: Steps) -> Value:
        left, right = self.evaluate(node.lhs, steps), self.evaluate(node.rhs, steps)
        self._in_time()
        found = operate(str(node.op).lower(), left, right, _matching(node.modifier))
        if isinstance(found, Vector):
            self._bounded(len(found.labels), steps)
        return found

    def _aggregate(self, node: ast.AggregateExpr, steps: Steps) -> Vector:
        vector = self.evaluate(node.expr, steps)
        if not isinstance(vector, Vector):
            raise refused(f"{node.op} takes an instant vector")
        self._in_time()
        op, modifier = str(node.op).lower(), node.modifier
        inclusive = modifier is None or modifier.type == ast.AggModifierType.By
        group = aggregates.grouping(modifier.labels if modifier else (), inclusive)
        if op in ("topk", "bottomk"):
            return aggregates.ranked(op, vector, group, self._scalar(node.param, steps))
        if op == "quantile":
            return aggregates.quantiles(vector, group, self._scalar(node.param, steps))
        if op == "count_values":
            label = self._text(node.param, steps)
            return aggregates.counted_values(vector, group, label, functions.text, MAX_SERIES)
        return aggregates.aggregate(op, vector, group)

    # --- functions -------------------------------------------------------------------------------------------

    def _scalar(self, node: ast.Expr | None, steps: Steps) -> Scalar:
        found = self.evaluate(node, steps) if node is not None else None
        if not isinstance(found, np.ndarray):
            raise refused("a number is expected as parameter")
        return found

    def _text(self, node: ast.Expr | None, steps: Steps) -> str:
        found = self.evaluate(node, steps) if node is not None else None
        if not isinstance(found, str):
            raise refused("a string is expected as parameter")
        return found

    def _vector(self, node: ast.Expr, steps: Steps) -> Vector:
        found = self.evaluate(node, steps)
        if not isinstance(found, Vector):
            raise refused("an instant vector is expected as parameter")
        return found

    def _call(self, node: ast.Call, steps: Steps) -> Value:
        name, args = node.func.name, cast(list[ast.Expr], node.args)
        if name in functions.RANGES or name in functions.EACH or name in _OVER_RANGES:
            return self._over_range(name, args, steps)
        if name in functions.MAPS:
            return self._vector(args[0], steps).mapped(functions.MAPS[name])
        special: Callable[[Engine, list[ast.Expr], Steps], Value] | None = _SPECIAL.get(name)
        if special is None:
            raise refused(f'the function "{name}" is not supported')
        return special(self, args, steps)

    def _over_range(self, name: str, args: list[ast.Expr], steps: Steps) -> Vector:
        function: Callable[[Windows], windows.Result]
        if name in functions.RANGES:
            function = functions.RANGES[name]
        elif name in functions.EACH:
            each, least = functions.EACH[name]
            function = self._each(each, least)
        elif name == "quantile_over_time":
            function = self._each(partial(_quantile, float(self._scalar(args[0], steps)[0])), 1)
        else:  # predict_linear; the point in time that counts is the step's
            ahead = float(self._scalar(args[1], steps)[0])
            found = self._range(args[0], steps)
            return self._windowed(found, lambda w: _predicted(w, ahead), name)
        return self._windowed(self._range(args[-1 if name == "quantile_over_time" else 0], steps), function, name)

    def _each(self, each: windows.Each, least: int) -> Callable[[Windows], windows.Result]:
        def function(some: Windows) -> windows.Result:
            self._in_time()
            return windows.one_by_one(some, each, least)

        return function

    def _windowed(self, found: Windows, function: Callable[[Windows], windows.Result], name: str) -> Vector:
        self._in_time()
        out = Vector(found.labels, *found.chunked(function))
        return out if name in functions.KEEPS_NAME else unnamed(out)

    def _time(self, _: list[ast.Expr], steps: Steps) -> Value:
        return steps.times / 1000

    def _timestamp(self, args: list[ast.Expr], steps: Steps) -> Value:
        node = args[0]
        if isinstance(node, ast.VectorSelector):
            vector, when = self._instant(node, steps)
            return unnamed(Vector(vector.labels, when / 1000, vector.there))
        vector = self._vector(node, steps)
        return unnamed(Vector(vector.labels, np.broadcast_to(steps.times / 1000, vector.values.shape), vector.there))

    def _absent(self, args: list[ast.Expr], steps: Steps) -> Value:
        return _missing(args[0], self._vector(args[0], steps).there)

    def _absent_over_time(self, args: list[ast.Expr], steps: Steps) -> Value:
        found = self._range(args[0], steps)
        _, some = found.chunked(windows.counted)
        return _missing(args[0].vector_selector if isinstance(args[0], ast.MatrixSelector) else args[0], some)

    def _vector_of(self, args: list[ast.Expr], steps: Steps) -> Value:
        values = self._scalar(args[0], steps)[None, :]
        return Vector([{}], values, np.ones(values.shape, np.bool_))

    def _clamp(self, args: list[ast.Expr], steps: Steps) -> Value:
        low, high = self._scalar(args[1], steps), self._scalar(args[2], steps)
        return functions.clamped(self._vector(args[0], steps), low, high)

    def _clamp_min(self, args: list[ast.Expr], steps: Steps) -> Value:
        low = self._scalar(args[1], steps)
        return self._vector(args[0], steps).mapped(lambda v: np.maximum(v, low))

    def _clamp_max(self, args: list[ast.Expr], steps: Steps) -> Value:
        high = self._scalar(args[1], steps)
        return self._vector(args[0], steps).mapped(lambda v: np.minimum(v, high))

    def _round(self, args: list[ast.Expr], steps: Steps) -> Value:
        to = self._scalar(args[1], steps) if len(args) > 1 else np.ones(len(steps.times))
        return functions.rounded(self._vector(args[0], steps), to)

    def _histogram_quantile(self, args: list[ast.Expr], steps: Steps) -> Value:
        return histograms.histogram_quantile(self._scalar(args[0], steps), self._vector(args[1], steps))

    def _label_replace(self, args: list[ast.Expr], steps: Steps) -> Value:
        to, replacement, source, expression = (self._text(a, steps) for a in args[1:5])
        return relabel.label_replace(self._vector(args[0], steps), to, replacement, source, expression)

    def _label_join(self, args: list[ast.Expr], steps: Steps) -> Value:
        to, separator, *sources = (self._text(a, steps) for a in args[1:])
        return relabel.label_join(self._vector(args[0], steps), to, separator, tuple(sources))


_OVER_RANGES = ("quantile_over_time", "predict_linear")
_SPECIAL: dict[str, Callable[[Engine, list[ast.Expr], Steps], Value]] = {
    "time": Engine._time,
    "timestamp": Engine._timestamp,
    "absent": Engine._absent,
    "absent_over_time": Engine._absent_over_time,
    "vector": Engine._vector_of,
    "scalar": lambda e, a, s: functions.scalar(e._vector(a[0], s)),
    "clamp": Engine._clamp,
    "clamp_min": Engine._clamp_min,
    "clamp_max": Engine._clamp_max,
    "round": Engine._round,
    "histogram_quantile": Engine._histogram_quantile,
    "label_replace": Engine._label_replace,
    "label_join": Engine._label_join,
    "sort": lambda e, a, s: functions.in_order(e._vector(a[0], s), False),
    "sort_desc": lambda e, a, s: functions.in_order(e._vector(a[0], s), True),
}
SUPPORTED = frozenset({*functions.RANGES, *functions.EACH, *functions.MAPS, *_OVER_RANGES, *_SPECIAL})
"""All functions, for the documentation."""


def find(store: Store, chosen: parsing.Selector) -> list[int]:
    """The series that a selector means."""
    found = {number for tests in chosen.ways for number in store.registry.matching(chosen.name, tests)}
    return sorted(found)


def _quantile(q: float, _: codec.Floats, values: codec.Floats) -> float:
    return windows.quantile(q, values)


def _predicted(w: Windows, ahead: float) -> windows.Result:
    values, there = np.zeros((len(w.values), len(w.ends))), np.zeros((len(w.values), len(w.ends)), np.bool_)
    for step, end in enumerate(w.ends.tolist()):
        one = replace(w, ends=w.ends[step : step + 1])

        def value(times: codec.Floats, found: codec.Floats, at: float = end / 1000) -> float:
            slope, start = windows.slope(times, found, at)
            return start + slope * ahead

        column, present = windows.one_by_one(one, value, 2)
        values[:, step], there[:, step] = column[:, 0], present[:, 0]
    return values, there


def _ms(duration: timedelta | None) -> int:
    return round(duration.total_seconds() * 1000) if duration is not None else 0


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


def _missing(node: ast.Expr, there: codec.Bools) -> Vector:
    """1 at steps where no series is, with the labels that the selector says such a series would have."""
    labels: Labels = {}
    if isinstance(node, ast.VectorSelector):
        asked = [m.name for m in node.matchers.matchers]
        equal = [m for m in node.matchers.matchers if m.op == ast.MatchOp.Equal and m.name != NAME]
        labels = {m.name: m.value for m in equal if asked.count(m.name) == 1}
    nobody = np.logical_not(there.any(axis=0))[None, :]
    return Vector([labels], nobody.astype(np.float64), nobody)
