"""What the mesh could not do of what objects ask for, in the words of the analysis."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.model import model
from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Snapshot, Source, message
from lateen.kit.jsons import dig
from lateen.mesh.outcomes import Problem, RouteStanding


@analyzer("routes.OutcomeAnalyzer", "Checks whether gateways and routes can do what their objects ask for")
def outcomes(snapshot: Snapshot) -> Iterator[Message]:
    for outcome in model(snapshot).outcomes():
        source = snapshot.get(str(outcome.of.group_kind), outcome.of.namespace, outcome.of.name)
        if source is not None:
            for problem in outcome.problems:
                yield _message(source, problem)


@analyzer("routes.StandingAnalyzer", "Checks whether routes of the Gateway API are attached and lead somewhere")
def standings(snapshot: Snapshot) -> Iterator[Message]:
    for ref, standing in model(snapshot).standings().items():
        source = snapshot.get(str(ref.group_kind), ref.namespace, ref.name)
        if source is None or not isinstance(standing, RouteStanding):
            continue
        for parent in standing.parents:
            path = ("spec", "parentRefs", parent.position)
            name = dig(source.obj, *path, "name", default="")
            for c in parent.conditions:
                if not c.true:
                    yield message("LAT0113", source, name, c.type, c.reason, c.says, path=path)


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
        case "OverriddenByRoute":
            return message("LAT0112", source, problem.says, problem.about, path=problem.path)
        case "NoLimit":
            return message("LAT0120", source, problem.says, path=problem.path)
    raise ValueError(f"no message for {problem.reason}")
