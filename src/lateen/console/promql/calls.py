"""The functions of PromQL, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol, cast

import numpy as np
import promql_parser as ast

from lateen.console.promql import calendar, functions, histograms, parsing, relabel, selecting, windows
from lateen.console.promql.selecting import Steps
from lateen.console.promql.values import Scalar, Value, Vector, refused, unnamed
from lateen.console.promql.windows import Ranges, Windows
from lateen.console.series import codec
from lateen.console.series.codec import Labels
from lateen.console.series.registry import NAME
from lateen.console.series.store import Store


class Evaluator(Protocol):
    """What functions need of the engine. All raise QueryError."""

    store: Store

    def in_time(self) -> None: ...
    def scalar(self, node: ast.Expr | None, steps: Steps) -> Scalar: ...
    def text(self, node: ast.Expr | None, steps: Steps) -> str: ...
    def vector(self, node: ast.Expr, steps: Steps) -> Vector: ...
    def ranges(self, node: ast.Expr, steps: Steps) -> Ranges: ...


def call(e: Evaluator, node: ast.Call, steps: Steps) -> Value:
    """Raises QueryError."""
    name, args = node.func.name, cast(list[ast.Expr], node.args)
    if name in functions.RANGES or name in functions.EACH or name in _OVER_RANGES:
        return _over_range(e, name, args, steps)
    if name in functions.MAPS:
        return e.vector(args[0], steps).mapped(functions.MAPS[name])
    if name in calendar.PARTS:
        moments = e.vector(args[0], steps) if args else _all_one(steps.times / 1000)
        return moments.mapped(calendar.PARTS[name])
    special: Callable[[Evaluator, list[ast.Expr], Steps], Value] | None = _SPECIAL.get(name)
    if special is None:
        raise refused(f'the function "{name}" is not supported')
    return special(e, args, steps)


def _over_range(e: Evaluator, name: str, args: list[ast.Expr], steps: Steps) -> Vector:
    function: Callable[[Windows], windows.Result]
    if name in functions.RANGES:
        function = functions.RANGES[name]
    elif name in functions.EACH:
        each, least = functions.EACH[name]
        function = _timed(e, lambda w: windows.one_by_one(w, each, least))
    elif name == "quantile_over_time":
        q = e.scalar(args[0], steps)
        return _windowed(e, e.ranges(args[1], steps), _timed(e, lambda w: _quantiles(w, q)), name)
    else:  # predict_linear: from the step's time on, wherever the window is
        ahead = e.scalar(args[1], steps)
        return _windowed(e, e.ranges(args[0], steps), _timed(e, lambda w: _predicted(w, steps, ahead)), name)
    return _windowed(e, e.ranges(args[0], steps), function, name)


def _timed(e: Evaluator, function: Callable[[Windows], windows.Result]) -> Callable[[Windows], windows.Result]:
    """For what takes long: a few series at a time."""

    def timed(some: Windows) -> windows.Result:
        e.in_time()
        return function(some)

    return timed


def _windowed(e: Evaluator, found: Ranges, function: Callable[[Windows], windows.Result], name: str) -> Vector:
    e.in_time()
    out = Vector(found.labels, *found.chunked(function))
    return out if name in functions.KEEPS_NAME else unnamed(out)


def _timestamp(e: Evaluator, args: list[ast.Expr], steps: Steps) -> Value:
    node = parsing.bare(args[0])
    if isinstance(node, ast.VectorSelector):
        found = selecting.latest(e.store, node, steps)
        return unnamed(Vector(found.labels, *found.chunked(windows.measured)))
    vector = e.vector(node, steps)
    return unnamed(Vector(vector.labels, np.broadcast_to(steps.times / 1000, vector.values.shape), vector.there))


def _absent(e: Evaluator, args: list[ast.Expr], steps: Steps) -> Value:
    return _missing(args[0], e.vector(args[0], steps).there)


def _absent_over_time(e: Evaluator, args: list[ast.Expr], steps: Steps) -> Value:
    found = e.ranges(args[0], steps)
    _, some = found.chunked(windows.counted)
    return _missing(args[0].vector_selector if isinstance(args[0], ast.MatrixSelector) else args[0], some)


def _vector_of(e: Evaluator, args: list[ast.Expr], steps: Steps) -> Value:
    return _all_one(e.scalar(args[0], steps))


def _all_one(values: Scalar) -> Vector:
    """A scalar as a series without labels."""
    return Vector([{}], values[None, :], np.ones((1, len(values)), np.bool_))


def _clamp(e: Evaluator, args: list[ast.Expr], steps: Steps) -> Value:
    low, high = e.scalar(args[1], steps), e.scalar(args[2], steps)
    return functions.clamped(e.vector(args[0], steps), low, high)


def _clamp_min(e: Evaluator, args: list[ast.Expr], steps: Steps) -> Value:
    low = e.scalar(args[1], steps)
    return e.vector(args[0], steps).mapped(lambda v: np.maximum(v, low))


def _clamp_max(e: Evaluator, args: list[ast.Expr], steps: Steps) -> Value:
    high = e.scalar(args[1], steps)
    return e.vector(args[0], steps).mapped(lambda v: np.minimum(v, high))


def _round(e: Evaluator, args: list[ast.Expr], steps: Steps) -> Value:
    to = e.scalar(args[1], steps) if len(args) > 1 else np.ones(len(steps.times))
    return functions.rounded(e.vector(args[0], steps), to)


def _histogram_quantile(e: Evaluator, args: list[ast.Expr], steps: Steps) -> Value:
    return histograms.histogram_quantile(e.scalar(args[0], steps), e.vector(args[1], steps))


def _label_replace(e: Evaluator, args: list[ast.Expr], steps: Steps) -> Value:
    to, replacement, source, expression = (e.text(a, steps) for a in args[1:5])
    return relabel.label_replace(e.vector(args[0], steps), to, replacement, source, expression)


def _label_join(e: Evaluator, args: list[ast.Expr], steps: Steps) -> Value:
    to, separator, *sources = (e.text(a, steps) for a in args[1:])
    return relabel.label_join(e.vector(args[0], steps), to, separator, tuple(sources))


_OVER_RANGES = ("quantile_over_time", "predict_linear")
_SPECIAL: dict[str, Callable[[Evaluator, list[ast.Expr], Steps], Value]] = {
    "pi": lambda _e, _a, s: np.full(len(s.times), np.pi),
    "time": lambda _e, _a, s: s.times / 1000,
    "timestamp": _timestamp,
    "absent": _absent,
    "absent_over_time": _absent_over_time,
    "vector": _vector_of,
    "scalar": lambda e, a, s: functions.scalar(e.vector(a[0], s)),
    "clamp": _clamp,
    "clamp_min": _clamp_min,
    "clamp_max": _clamp_max,
    "round": _round,
    "histogram_quantile": _histogram_quantile,
    "label_replace": _label_replace,
    "label_join": _label_join,
    "sort": lambda e, a, s: functions.in_order(e.vector(a[0], s), False),
    "sort_desc": lambda e, a, s: functions.in_order(e.vector(a[0], s), True),
}


def _quantiles(w: Windows, q: Scalar) -> windows.Result:
    if (q == q[0]).all():
        return windows.one_by_one(w, partial(_quantile, float(q[0])))
    return _stepwise(w, [partial(_quantile, one) for one in q.tolist()], 1)


def _quantile(q: float, _: codec.Floats, values: codec.Floats) -> float:
    return windows.quantile(q, values)


def _predicted(w: Windows, steps: Steps, ahead: Scalar) -> windows.Result:
    """``ahead``: seconds from each step on."""
    until = (steps.times - w.times[0]) / 1000 + ahead
    return _stepwise(w, [partial(_at, one) for one in until.tolist()], 2)


def _at(at: float, times: codec.Floats, values: codec.Floats) -> float:
    return windows.slope(times, values, at)[1]


def _stepwise(w: Windows, functions: list[windows.Each], least: int) -> windows.Result:
    """With a function of its own for each step."""
    shape = len(w.values), len(w.ends)
    values, there = np.zeros(shape), np.zeros(shape, np.bool_)
    for step, function in enumerate(functions):
        one = replace(w, ends=w.ends[step : step + 1])
        column, present = windows.one_by_one(one, function, least)
        values[:, step], there[:, step] = column[:, 0], present[:, 0]
    return values, there


def _missing(node: ast.Expr, there: codec.Bools) -> Vector:
    """1 at steps where no series is, with the labels that the selector says such a series would have."""
    labels: Labels = {}
    if isinstance(node, ast.VectorSelector):
        asked = [m.name for m in node.matchers.matchers]
        equal = [m for m in node.matchers.matchers if m.op == ast.MatchOp.Equal and m.name != NAME]
        labels = {m.name: m.value for m in equal if asked.count(m.name) == 1}
    nobody = np.logical_not(there.any(axis=0))[None, :]
    return Vector([labels], nobody.astype(np.float64), nobody)
