"""The parts of a dashboard, in the page's form and as Grafana's JSON. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lateen.console import shapes
from lateen.kit.jsons import Json

WINDOW = "$window"
"""Stands for the time over which rates are taken; the page and Grafana fill it in."""
GRAFANA_UNITS: dict[shapes.Unit, str] = {
    "rps": "reqps",
    "share": "percentunit",
    "ms": "ms",
    "Bps": "Bps",
    "bytes": "bytes",
    "s": "s",
    "count": "short",
    "cores": "short",
}
"""Grafana's names; it has no unit for cores:
https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats/categories.ts"""


@dataclass(frozen=True)
class Query:
    """``legend`` has labels in double braces, as in Grafana."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    title: str
    unit: shapes.Unit
    queries: tuple[Query, ...]


@dataclass(frozen=True)
class Variable:
    """A choice of the user: the values of ``label`` of ``metric``, given those that were chosen before it."""

    name: str
    title: str
    metric: str
    label: str


@dataclass(frozen=True)
class Board:
    name: str
    title: str
    panels: tuple[Panel, ...]
    variables: tuple[Variable, ...] = ()

    def json(self) -> shapes.Board:
        return {
            "name": self.name,
            "title": self.title,
            "variables": [
                {"name": v.name, "title": v.title, "metric": v.metric, "label": v.label} for v in self.variables
            ],
            "panels": [
                {
                    "title": p.title,
                    "unit": p.unit,
                    "queries": [{"expr": q.expr, "legend": q.legend} for q in p.queries],
                }
                for p in self.panels
            ],
        }


def grafana(board: Board) -> Json:
    """The board as Grafana imports it, two panels a row, for a data source that the user chooses."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    variables: list[Json] = [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    ]
    for v in board.variables:
        query = f"label_values({v.metric}, {v.label})"
        variables.append(
            {
                "name": v.name,
                "label": v.title,
                "type": "query",
                "datasource": source,
                "query": {"query": query, "refId": v.name},
                "refresh": 2,
                "sort": 1,
            }
        )
    panels = [
        {
            "id": i + 1,
            "type": "timeseries",
            "title": p.title,
            "datasource": source,
            "gridPos": {"x": 12 * (i % 2), "y": 8 * (i // 2), "w": 12, "h": 8},
            "fieldConfig": {"defaults": {"unit": GRAFANA_UNITS[p.unit], "min": 0}, "overrides": []},
            "targets": [
                {
                    "refId": chr(ord("A") + n),
                    "datasource": source,
                    "expr": q.expr.replace(WINDOW, "$__rate_interval"),
                    "legendFormat": q.legend,
                }
                for n, q in enumerate(p.queries)
            ],
        }
        for i, p in enumerate(board.panels)
    ]
    return {
        "uid": f"lateen-{board.name}",
        "title": f"Istio {board.title.lower()} (Lateen)",
        "tags": ["istio", "lateen"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "templating": {"list": variables},
        "annotations": {"list": []},
        "panels": panels,
    }
