"""Ports whose protocol is not declared, where something is asked of requests that connections cannot be asked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from lateen.analysis.registry import analyzer
from lateen.analysis.rules.policy import in_mesh
from lateen.analysis.snapshot import Message, Path, Snapshot, Source, message
from lateen.api import kinds
from lateen.api.reading import port_protocol
from lateen.kit.jsons import dig

SHOWN = 5
"""How many ports a finding names"""


@analyzer("authz.UndeclaredPortAnalyzer", "Checks the ports of policies that are asked about requests alone")
def custom(snapshot: Snapshot) -> Iterator[Message]:
    given = snapshot.mesh.get("extensionProviders") or []
    over_http = {p.get("name") for p in given if isinstance(p, dict) and p.get("envoyExtAuthzHttp")}
    for policy in snapshot.all(kinds.AUTHORIZATION_POLICY) if over_http else ():
        name = dig(policy.spec, "provider", "name")
        if policy.spec.get("action") != "CUSTOM" or name not in over_http or _attached(policy):
            continue
        says = f"is denied where the policy matches, since provider {name} is asked over HTTP"
        yield from _found(policy, _services(snapshot, policy), says, ("spec", "provider"))


def _attached(policy: Source) -> bool:
    return bool(policy.spec.get("targetRef") or policy.spec.get("targetRefs"))


def _services(snapshot: Snapshot, policy: Source) -> Iterable[Source]:
    """Those in front of the workloads of a policy."""
    root = str(snapshot.mesh.get("rootNamespace") or snapshot.root)
    labels = dig(policy.spec, "selector", "matchLabels", default={})
    pods = snapshot.pods(labels, "" if policy.namespace == root else policy.namespace)
    meshed = (p for p in pods if in_mesh(snapshot, p))
    found = {s.full: s for p in meshed for s in snapshot.services_of(p.namespace, p.labels)}
    return found.values()


@analyzer("ratelimit.UndeclaredPortAnalyzer", "Checks the ports of services whose requests are limited")
def limited(snapshot: Snapshot) -> Iterator[Message]:
    for policy in snapshot.all(kinds.BACKEND_TRAFFIC_POLICY):
        limits = [r for where in ("local", "global") for r in dig(policy.spec, "rateLimit", where, "rules", default=[])]
        if all(rule.get("shadowMode") for rule in limits):
            continue
        one = policy.spec.get("targetRef")
        for target in [one] if one else policy.spec.get("targetRefs") or []:
            if target.get("kind") != kinds.SERVICE.kind:
                continue
            service = snapshot.get(kinds.SERVICE, policy.namespace, str(target.get("name")))
            section = target.get("sectionName")
            path: Path = ("spec", "targetRef" if one else "targetRefs")
            if service is not None:
                yield from _found(policy, [service], "is closed, since only requests can be counted", path, section)


def _found(
    policy: Source, services: Iterable[Source], says: str, path: Path, section: str | None = None
) -> Iterator[Message]:
    ports = [
        f"{p.get('port')} of Service {s.full}"
        for s in services
        for p in s.spec.get("ports") or []
        if section in (None, p.get("name")) and not port_protocol(p)
    ]
    if ports:
        yield message("LAT0132", policy, _listed(sorted(ports)), says, path=path)


def _listed(ports: Collection[str]) -> str:
    shown = [*ports][:SHOWN]
    return ", ".join(shown) + (f" and {len(ports) - SHOWN} more" if len(ports) > SHOWN else "")
