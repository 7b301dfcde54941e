"""Is the configuration right? Pure functions over objects, from files or from a cluster; Istio's findings and codes."""

from lateen.analysis.registry import analyze, analyzers
from lateen.analysis.snapshot import Message, Snapshot, Source

__all__ = ["Message", "Snapshot", "Source", "analyze", "analyzers"]
