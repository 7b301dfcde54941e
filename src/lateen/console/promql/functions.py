"""Functions that take instant vectors and scalars, and those over ranges, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from lateen.console.promql import windows
from lateen.console.promql.values import Scalar, Vector
from lateen.console.promql.windows import Each, Result, Windows
from lateen.console.series.codec import Floats

RANGES: dict[str, Callable[[Windows], Result]] = {
    "rate": partial(windows.extrapolated, counter=True, per_second=True),
    "increase": partial(windows.extrapolated, counter=True, per_second=False),
    "delta": partial(windows.extrapolated, counter=False, per_second=False),
    "irate": partial(windows.last_two, counter=True, per_second=True),
    "idelta": partial(windows.last_two, counter=False, per_second=False),
    "last_over_time": windows.newest,
    "count_over_time": windows.counted,
}
EACH: dict[str, tuple[Each, int]] = {
    "sum_over_time": (lambda _, v: float(v.sum()), 1),
    "avg_over_time": (lambda _, v: float(v.mean()), 1),
    "min_over_time": (lambda _, v: float(np.fmin.reduce(v)), 1),
    "max_over_time": (lambda _, v: float(np.fmax.reduce(v)), 1),
    "stddev_over_time": (lambda _, v: float(v.std()), 1),
    "stdvar_over_time": (lambda _, v: float(v.var()), 1),
    "present_over_time": (lambda *_: 1.0, 1),
    "changes": (windows.changes, 1),
    "resets": (windows.resets, 1),
    "deriv": (lambda t, v: windows.slope(t, v, float(t[0]))[0], 2),
}
"""(the result of one window, how many samples it needs)."""
KEEPS_NAME = ("last_over_time",)


def _rounded(values: Floats, to: Floats) -> Floats:
    """To the nearest multiple, halves up."""
    inverse = 1.0 / to
    return np.floor(values * inverse + 0.5) / inverse


MAPS: dict[str, Callable[[Floats], Floats]] = {
    "abs": np.abs,
    "ceil": np.ceil,
    "floor": np.floor,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "ln": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "sgn": np.sign,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "deg": np.degrees,
    "rad": np.radians,
}


def clamped(vector: Vector, low: Scalar, high: Scalar) -> Vector:
    out = vector.mapped(lambda v: np.maximum(low, np.minimum(high, v)))
    return Vector(out.labels, out.values, out.there & ~(low > high))


def rounded(vector: Vector, to: Scalar) -> Vector:
    return vector.mapped(lambda v: _rounded(v, to))


def scalar(vector: Vector) -> Scalar:
    """NaN at steps that do not have exactly one series."""
    one = vector.there.sum(axis=0) == 1
    return np.where(one, np.where(vector.there, vector.values, 0.0).sum(axis=0), np.nan)


def in_order(vector: Vector, descending: bool) -> Vector:
    """Only instant queries have an order; NaN comes last."""
    if vector.values.shape[1] != 1:
        return vector
    values = vector.values[:, 0]
    judged = np.where(np.isnan(values), np.inf, -values if descending else values)
    return vector.row_subset(np.argsort(judged, kind="stable"))


def text(value: float) -> str:
    """A number as Prometheus writes it in JSON (Go's ``FormatFloat(v, 'f', -1, 64)``)."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    if value == int(value) and abs(value) < 1e15:
        return "-0" if value == 0 and str(value)[0] == "-" else str(int(value))
    written = repr(value)
    return np.format_float_positional(value, trim="-") if "e" in written else written.removesuffix(".0")
