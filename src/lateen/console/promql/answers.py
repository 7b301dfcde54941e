"""What a query has found, as Prometheus' HTTP API writes it.

https://prometheus.io/docs/prometheus/latest/querying/api/#expression-query-result-formats
"""

from __future__ import annotations

import numpy as np

from lateen.console.promql.functions import text
from lateen.console.promql.selecting import Steps
from lateen.console.promql.values import Value, Vector, failed, refused
from lateen.console.promql.windows import Ranges
from lateen.kit.jsons import Json

MAX_VALUES = 1_000_000
"""The limit for all series in a response."""


def _point(at_ms: int, value: float) -> list[object]:
    return [at_ms / 1000 if at_ms % 1000 else at_ms // 1000, text(value)]


def instant(value: Value, at: int, limit: int) -> Json:
    if isinstance(value, str):
        return {"resultType": "string", "result": [at / 1000, value]}
    if not isinstance(value, Vector):
        return {"resultType": "scalar", "result": _point(at, float(value[0]))}
    rows = np.flatnonzero(value.there[:, 0]).tolist()[:limit]
    _within(len(rows))
    result = [{"metric": value.labels[i], "value": _point(at, float(value.values[i, 0]))} for i in rows]
    return {"resultType": "vector", "result": result}


def matrix(value: Value, steps: Steps, limit: int) -> Json:
    if isinstance(value, str):
        raise refused('invalid expression type "string" for range query, must be Scalar or instant Vector')
    if not isinstance(value, Vector):
        value = Vector([{}], value[None, :], np.ones((1, len(value)), np.bool_))
    _within(int(value.there.sum()))
    times = steps.times.tolist()
    result = []
    for row in sorted(np.flatnonzero(value.there.any(axis=1)).tolist(), key=lambda i: sorted(value.labels[i].items())):
        present = np.flatnonzero(value.there[row])
        numbers = value.values[row, present].tolist()
        points = [_point(times[j], v) for j, v in zip(present.tolist(), numbers, strict=True)]
        result.append({"metric": value.labels[row], "values": points})
    return {"resultType": "matrix", "result": result[:limit]}


def samples(found: Ranges, limit: int) -> Json:
    """The samples of a range of time themselves."""
    whole = found.whole()
    inside = whole.valid & (whole.times > whole.ends[0] - whole.range_ms)
    _within(int(inside.sum()))
    result: list[Json] = []
    for row in np.flatnonzero(inside.any(axis=1)).tolist()[:limit]:
        at = np.flatnonzero(inside[row])
        pairs = zip(whole.times[at].tolist(), whole.values[row, at].tolist(), strict=True)
        result.append({"metric": found.labels[row], "values": [_point(t, v) for t, v in pairs]})
    return {"resultType": "matrix", "result": result}


def _within(count: int) -> None:
    if count > MAX_VALUES:
        raise failed(f"the answer would have more than {MAX_VALUES:,} values; ask for fewer series or a longer step")
