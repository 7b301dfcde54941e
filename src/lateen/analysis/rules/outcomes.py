"""What the mesh could not do of what objects ask for, in the words of the analysis."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.model import model
from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Snapshot, Source, message
from lateen.mesh.outcomes import Problem


@analyzer("routes.OutcomeAnalyzer", "Checks whether gateways and routes can do what their objects ask for")
def outcomes(snapshot: Snapshot) -> Iterator[Message]:
    for outcome in model(snapshot).outcomes():
        source = snapshot.get(str(outcome.of.group_kind), outcome.of.namespace, outcome.of.name)
        if source is not None:
            for problem in outcome.problems:
                yield _message(source, problem)


def _message(source: Source, problem: Problem) -> Message:
    match problem.reason:
        case "DelegateNotFound":
            return message("IST0101", source, "delegate", problem.about, path=problem.path)
        case "DelegateUnused":
            return message("LAT0104", source, problem.about, problem.says, path=problem.path)
        case "BackendNotFound":
            return message("LAT0108", source, problem.says, path=problem.path)
        case "OlderGateway":
            return message("LAT0109", source, problem.says, path=problem.path)
    raise ValueError(f"no message for {problem.reason}")
