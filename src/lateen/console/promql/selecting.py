"""Selectors: the samples of the store that a query means."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import promql_parser as ast

from lateen.console.promql import parsing
from lateen.console.promql.parsing import milliseconds
from lateen.console.promql.values import failed
from lateen.console.promql.windows import Ranges
from lateen.console.series.codec import Ints
from lateen.console.series.selection import Selection, TooMany
from lateen.console.series.store import Store

LOOKBACK_MS = 300_000
MAX_SAMPLES = 10_000_000
"""Samples that one selector may read, and values that one step of the evaluation may have."""
MAX_SERIES = 50_000


@dataclass(frozen=True)
class Steps:
    """The instants of a query (ms, ascending), and the first and last one of the outermost query (for ``@``)."""

    times: Ints
    start: int
    end: int

    @property
    def distance(self) -> int:
        return int(self.times[1] - self.times[0]) if len(self.times) > 1 else 0

    def looked_at(self, node: ast.VectorSelector | ast.SubqueryExpr) -> Ints:
        """The instants that a selector looks at: the steps, unless it has ``@`` or ``offset``."""
        times = self.times
        if node.at is not None:
            moment = parsing.moment(node.at)
            bound = self.start if node.at.type == ast.AtModifierType.Start else self.end
            times = np.full_like(times, bound if moment is None else round(moment.timestamp() * 1000))
        return times - milliseconds(node, "offset")

    def at(self, times: Ints) -> Steps:
        """Of a part of the query that is evaluated at other instants."""
        return replace(self, times=times)


def bounded(series: int, steps: Steps) -> None:
    """Raises QueryError where there are too many values."""
    if series * len(steps.times) > MAX_SAMPLES:
        raise failed(f"the query has more than {MAX_SAMPLES} values; ask for fewer series or a longer step")


def latest(store: Store, node: ast.VectorSelector, steps: Steps) -> Ranges:
    """The windows whose last samples are an instant vector."""
    return _ranges(store, node, steps, LOOKBACK_MS, steps.distance)


def within(store: Store, node: ast.MatrixSelector, steps: Steps) -> Ranges:
    """``metric[5m]``. A dozen samples in a window are enough for every function."""
    span = milliseconds(node, "range")
    return _ranges(store, node.vector_selector, steps, span, min(steps.distance, span // 12))


def _ranges(store: Store, node: ast.VectorSelector, steps: Steps, span: int, apart: int) -> Ranges:
    """Raises QueryError."""
    times = steps.looked_at(node)
    apart = apart if node.at is None else 0  # then it is one instant, however far apart the steps are
    found = _select(store, node, max(int(times.min()) - span + 1, 0), int(times.max()), apart)
    bounded(len(found.names), steps)
    return Ranges(found.names, found.times, times, span, found.rows, found.steady)


def _select(store: Store, node: ast.VectorSelector, start: int, end: int, apart: int) -> Selection:
    try:
        return store.select(parsing.selector(node), start, end, apart, MAX_SAMPLES, MAX_SERIES)
    except TooMany as e:
        raise failed(str(e)) from None
