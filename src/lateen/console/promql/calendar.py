"""The parts of a date, of values that are seconds since 1970 (UTC)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from lateen.console.series.codec import Floats

Dates = npt.NDArray[np.datetime64]

DAY_S = 86_400
LATEST_S = 1e11
"""Beyond that (about the year 5000), and for what is no number, there is no date."""


def _days(moments: Floats) -> Dates:
    return np.floor(moments / DAY_S).astype("datetime64[D]")


def _since(days: Dates, unit: str) -> Floats:
    return np.asarray((days - days.astype(f"datetime64[{unit}]")).astype(np.float64))


def _whole(days: Dates, unit: str) -> Floats:
    """Months or years since 1970."""
    return np.asarray(days.astype(f"datetime64[{unit}]").astype(np.float64))


def _days_in_month(moments: Floats) -> Floats:
    months = _days(moments).astype("datetime64[M]")
    return np.asarray(((months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")).astype(np.float64))


def _dated(part: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    def found(moments: Floats) -> Floats:
        known = np.abs(moments) < LATEST_S
        return np.where(known, part(np.trunc(np.where(known, moments, 0.0))), np.nan)

    return found


PARTS: dict[str, Callable[[Floats], Floats]] = {
    "minute": _dated(lambda m: np.floor(m / 60) % 60),
    "hour": _dated(lambda m: np.floor(m / 3600) % 24),
    "day_of_week": _dated(lambda m: (np.floor(m / DAY_S) + 4) % 7),
    "day_of_month": _dated(lambda m: _since(_days(m), "M") + 1),
    "day_of_year": _dated(lambda m: _since(_days(m), "Y") + 1),
    "days_in_month": _dated(_days_in_month),
    "month": _dated(lambda m: _whole(_days(m), "M") % 12 + 1),
    "year": _dated(lambda m: _whole(_days(m), "Y") + 1970),
}
"""By the functions' names; Sunday is 0."""
