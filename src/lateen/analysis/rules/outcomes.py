"""Outcomes of the mesh model as findings."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.model import model
from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Snapshot, Source, message
from lateen.kit.jsons import dig
from lateen.mesh.outcomes import GatewayStanding, ListenerSetStanding, PolicyStanding, Problem, RouteStanding


@analyzer("routes.OutcomeAnalyzer", "Checks whether gateways and routes can do what their objects ask for")
def outcomes(snapshot: Snapshot) -> Iterator[Message]:
    for outcome in model(snapshot).outcomes():
        source = snapshot.get(str(outcome.of.group_kind), outcome.of.namespace, outcome.of.name)
        if source is not None:
            for problem in outcome.problems:
                yield _message(source, problem)


ELSEWHERE = ("ListenersNotValid",)
"""Reasons that are reported for a part of the object."""
UNREAD = ("InvalidCertificateRef", "InvalidClientCertificateRef", "InvalidCACertificateRef", "NoValidCACertificate")
"""Reasons that depend on Secrets and ConfigMaps, which the analysis does not read: the statuses have them."""


@analyzer("routes.StandingAnalyzer", "Checks whether objects of the Gateway API have what they ask for")
def standings(snapshot: Snapshot) -> Iterator[Message]:
    for ref, standing in model(snapshot).standings().items():
        source = snapshot.get(str(ref.group_kind), ref.namespace, ref.name)
        if source is None:
            continue
        match standing:
            case RouteStanding():
                yield from _of_route(source, standing)
            case GatewayStanding() | ListenerSetStanding():
                yield from _of_listeners(source, standing)
            case PolicyStanding():
                yield from _of_policy(source, standing)


def _of_route(source: Source, standing: RouteStanding) -> Iterator[Message]:
    for parent in standing.parents:
        path = ("spec", "parentRefs", parent.position)
        name = dig(source.obj, *path, "name", default="")
        for c in parent.conditions:
            if not c.true:
                yield message("LAT0113", source, name, c.type, c.reason, c.says, path=path)


def _of_listeners(source: Source, standing: GatewayStanding | ListenerSetStanding) -> Iterator[Message]:
    for c in standing.conditions:
        if not c.true and c.type != "Programmed" and c.reason not in (*ELSEWHERE, *UNREAD):
            yield message("LAT0116", source, "", c.type, c.reason, c.says)
    given = [str(li.get("name")) for li in source.spec.get("listeners") or []]
    for li in standing.listeners:
        path = ("spec", "listeners", given.index(li.name)) if li.name in given else ()
        wrong = (c for c in li.conditions if c.type != "Programmed" and c.true == (c.type == "Conflicted"))
        bad = next((c for c in wrong if c.reason not in UNREAD), None)
        if bad is not None:
            yield message("LAT0116", source, f"listener {li.name}: ", bad.type, bad.reason, bad.says, path=path)


def _of_policy(source: Source, standing: PolicyStanding) -> Iterator[Message]:
    """A fault at all targets is reported once."""
    found = {(c.type, c.reason, c.says): None for a in standing.ancestors for c in a.conditions if not c.true}
    for kind, reason, says in found:
        if reason in UNREAD:
            continue
        yield message("LAT0116", source, "", kind, reason, says, path=("spec", "targetRefs"))


@analyzer("gateway.NamespaceAnalyzer", "Checks whether Gateways of several namespaces have a host at the same proxies")
def intrusions(snapshot: Snapshot) -> Iterator[Message]:
    """Only the newer object is reported."""
    for found in model(snapshot).intrusions():
        of, li = found.by.owner, found.by.written
        source = snapshot.get(str(of.group_kind), of.namespace, of.name)
        if source is not None:
            given = [str(other.get("name")) for other in source.spec.get("listeners") or []]
            path = ("spec", "listeners", given.index(li.name)) if li.name in given else ()
            yield message("LAT0119", source, li.name, found.host, li.port, str(found.on), path=path)


@analyzer("routes.ShadowAnalyzer", "Checks whether requests reach all rules of routes of the Gateway API")
def shadows(snapshot: Snapshot) -> Iterator[Message]:
    seen = set()
    for found in model(snapshot).shadowed():
        source = snapshot.get(str(found.of.group_kind), found.of.namespace, found.of.name)
        at = (found.of, found.rule, found.match)
        if source is None or at in seen:
            continue
        seen.add(at)
        path = ("spec", "rules", found.rule, *(("matches", found.match) if found.match >= 0 else ()))
        by = f"{found.by.kind} {found.by.name}.{found.by.namespace} rule {found.by_rule + 1}"
        yield message("LAT0117", source, found.rule + 1, found.host, by, path=path)


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
        case "NotSecured":
            return message("LAT0122", source, problem.says, path=problem.path)
    raise ValueError(f"no message for {problem.reason}")
