"""The PromQL query for the number of calls, by labels, in a time range.

``increase()`` leaves out what a series had counted at its first sample, which would be the whole of a first call. So a
series that has begun within a window counts with its value, provided that its target answered the collector at the
window's start, or its agent has started since: a series that is missing there because the target was not read, or not
known yet, may have counted for days.
"""

from __future__ import annotations

STEPS = 60
"""The number of steps of the time range, which determines how exactly the time of a call is known."""
LEAST_S, WINDOW_S = 15, 60
"""The shortest step, and the shortest window, such that it has two samples of the coarsest resolution."""


def step(seconds: int) -> int:
    return max(seconds // STEPS, LEAST_S)


def counted(metric: str, by: str, seconds: int) -> str:
    """A range query with ``step(seconds)``: the values of its series add up to the calls in that many seconds."""
    each = step(seconds)
    window = max(each, WINDOW_S)
    series = f'{metric}{{reporter="destination"}}'
    known = f"(up offset {window}s == 1 or istio_agent_uptime_seconds < {window})"
    begun = f"({series} unless {series} offset {window}s) and on (instance) {known}"
    return f"sum by ({by}) (({begun}) or increase({series}[{window}s])) * {each} / {window}"


def asked(query: str, seconds: int, step: int, now: float) -> dict[str, str]:
    """The parameters of ``/api/v1/query_range`` for the last ``seconds`` before ``now`` (Unix time). The range ends at
    this very moment: one that ended with the last whole second would miss the newest calls for a step."""
    return {"query": query, "start": f"{now - seconds:.3f}", "end": f"{now:.3f}", "step": str(step)}
