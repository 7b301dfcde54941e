"""Finds mistakes in configuration: pure functions over objects from files or a cluster, with Istio's findings and
codes."""

from lateen.analysis.registry import analyze, analyzers
from lateen.analysis.snapshot import Message, Snapshot, Source

__all__ = ["Message", "Snapshot", "Source", "analyze", "analyzers"]
