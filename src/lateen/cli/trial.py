"""lateen x authz test: the effect of policies on observed calls, before they are applied.

The collector knows the caller and the service of each call, but not its path or headers: calls whose outcome depends on
these are counted separately.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click

from lateen.api import kinds, validate
from lateen.api import security as sec
from lateen.api.config import decode
from lateen.cli.base import command
from lateen.cli.collected import total
from lateen.cli.connect import Target, target_options
from lateen.cli.output import BAD_DATA, USAGE, CliError
from lateen.cli.suggest import called
from lateen.console.plaintext import SCHEME, services
from lateen.kit import duration, yamldoc
from lateen.kit.jsons import Json
from lateen.kube.client import HttpClient
from lateen.mesh.selecting import has_labels

Place = tuple[str, str]
"""(namespace, service)"""
NOBODY = ""
"""A caller without an identity"""


@dataclass
class Verdict:
    """The outcome of a service's calls, in numbers of requests and connections."""

    allowed: float = 0
    depends: float = 0
    """Calls whose outcome depends on a path, a method or something else that the collector does not know."""
    denied: dict[str, float] = field(default_factory=dict)
    """By caller"""

    @property
    def total(self) -> float:
        return self.allowed + self.depends + sum(self.denied.values())


def judged(
    policies: Sequence[Json], calls: Iterable[tuple[Place, str, float]], labels: dict[Place, Json], root: str
) -> dict[Place, Verdict]:
    """``calls``: (service, the caller's principal, number); ``labels``: of the services' pods."""
    out: dict[Place, Verdict] = {}
    for place, caller, times in calls:
        if place not in labels:
            continue
        mine = [p for p in policies if _is_for(p, place, labels[place], root)]
        if not mine:
            continue
        verdict = out.setdefault(place, Verdict())
        passes = allows(mine, caller)
        if passes is None:
            verdict.depends += times
        elif passes:
            verdict.allowed += times
        else:
            verdict.denied[caller] = verdict.denied.get(caller, 0) + times
    return out


def _is_for(policy: Json, place: Place, labels: Json, root: str) -> bool:
    """Whether a policy applies to a service. Policies with targetRefs, and those in dry-run mode, are left out."""
    spec, notes = policy.get("spec") or {}, policy["metadata"].get("annotations") or {}
    if (
        spec.get("targetRef")
        or spec.get("targetRefs")
        or (notes.get("istio.io/dry-run") == "true" and "uid" in policy["metadata"])
    ):
        return False
    wanted = (spec.get("selector") or {}).get("matchLabels") or {}
    return policy["metadata"].get("namespace") in (place[0], root) and has_labels(wanted, labels)


def allows(policies: Sequence[Json], caller: str) -> bool | None:
    """The decision as in proxies, DENY before ALLOW; None if it depends on the request."""
    found = [(p["metadata"], decode(sec.AuthorizationPolicy, p.get("spec") or {})) for p in policies]
    denied = [_matches(s, m["namespace"], caller) for m, s in found if s.action == "DENY"]
    if True in denied:
        return False
    wanted = [_matches(s, m["namespace"], caller) for m, s in found if s.action == "ALLOW"]
    # an external provider may deny any request
    asks = any(s.action == "CUSTOM" and _matches(s, m["namespace"], caller) is not False for m, s in found)
    if wanted and True not in wanted:
        return None if None in wanted else False
    return None if None in denied or asks else True


def _matches(policy: sec.AuthorizationPolicy, own: str, caller: str) -> bool | None:
    found = [_rule(r, own, caller) for r in policy.rules]
    return True if True in found else None if None in found else False


def _rule(rule: sec.Rule, own: str, caller: str) -> bool | None:
    sources = [_source(f.source or sec.Source(), own, caller) for f in rule.from_ or ()] or [True]
    best = True if True in sources else None if None in sources else False
    if best is False:
        return False
    open_ = any(t.operation is None or t.operation == sec.Operation() for t in rule.to or (sec.To(),))
    return best if open_ and not rule.when else None


def _source(source: sec.Source, own: str, caller: str) -> bool | None:
    domain, _, rest = caller.partition("/ns/")
    namespace, _, account = rest.partition("/sa/")
    known: tuple[tuple[Any, Any, Any], ...] = (
        (source.principals, source.not_principals, lambda v: caller and _like(v, caller)),
        (source.namespaces, source.not_namespaces, lambda v: caller and _like(v, namespace)),
        (source.trust_domains, source.not_trust_domains, lambda v: caller and _like(v, domain)),
        (
            source.service_accounts,
            source.not_service_accounts,
            lambda v: caller and f"{namespace}/{account}" == (v if "/" in v else f"{own}/{v}"),
        ),
    )
    for values, but, is_ in known:
        if (values and not any(map(is_, values))) or (but and any(map(is_, but))):
            return False
    rest_of_it = (
        source.request_principals,
        source.not_request_principals,
        source.ip_blocks,
        source.not_ip_blocks,
        source.remote_ip_blocks,
        source.not_remote_ip_blocks,
    )
    return None if any(rest_of_it) else True


def _like(pattern: str, text: str) -> bool:
    """Match a pattern with a wildcard at the beginning or the end."""
    return fnmatchcase(text, pattern.replace("[", "[[]").replace("?", "[?]"))


def told(found: dict[Place, Verdict]) -> list[str]:
    out = []
    for (namespace, name), v in sorted(found.items()):
        denied = sum(v.denied.values())
        says = f"{name}.{namespace}: would deny {denied:,.0f} of {v.total:,.0f}"
        if v.depends:
            says += f"; {v.depends:,.0f} depend on the request itself (paths, methods, headers, addresses, tokens)"
        out.append(says)
        for caller, times in sorted(v.denied.items(), key=lambda item: -item[1]):
            out.append(f"  {times:,.0f} from {caller or 'callers without an identity (in plaintext, or from outside)'}")
    return out


@command("test")
@click.argument("names", nargs=-1)
@click.option("-f", "--filename", "more", multiple=True, help="A file with policies; - for standard input.")
@click.option("--since", default="1h", help="How far back to look; the collector keeps 24 hours.")
@target_options
def authz_test(target: Target, names: tuple[str, ...], more: tuple[str, ...], since: str) -> None:
    """Show which observed calls AuthorizationPolicies would deny, together with the applied ones.

    Nothing is changed: lateen x authz test -f FILE"""
    try:
        seconds = round(duration.seconds(since))
    except ValueError as e:
        raise CliError(f"--since: {e}", USAGE) from None
    given = [p for name in (*names, *more) for p in _policies(name, target.namespace)]
    if not given:
        raise CliError("name a file with AuthorizationPolicies: lateen x authz test -f FILE", USAGE)

    async def work(client: HttpClient) -> tuple[list[Json], list[Json], list[Json]]:
        series = await called(client, target.istio_namespace, seconds)
        pods, _ = await client.list(kinds.POD, "")
        policies, _ = await client.list(kinds.AUTHORIZATION_POLICY, "")
        return series, pods, policies

    series, pods, applied = target.run(work)
    mine = {_name(p) for p in given}
    labels = {place: pod["metadata"].get("labels") or {} for pod in pods for place in services([pod])}
    found = judged(
        [*given, *(p for p in applied if _name(p) not in mine)], calls(series), labels, target.istio_namespace
    )
    lines = told(
        {
            place: v
            for place, v in found.items()
            if any(_is_for(p, place, labels[place], target.istio_namespace) for p in given)
        }
    )
    if not lines:
        raise CliError(f"none of the policies applies to a service that was called in {since}")
    click.echo("\n".join(lines))


def calls(series: Iterable[Json]) -> list[tuple[Place, str, float]]:
    out = []
    for one in series:
        labels, value = one["metric"], total(one)
        place = (labels.get("destination_workload_namespace", ""), labels.get("destination_canonical_service", ""))
        principal = labels.get("source_principal", "")
        if value > 0:
            out.append((place, principal.removeprefix(SCHEME) if principal.startswith(SCHEME) else NOBODY, value))
    return out


def _name(policy: Json) -> tuple[str, str]:
    return policy["metadata"].get("namespace", ""), policy["metadata"]["name"]


def _policies(name: str, namespace: str) -> list[Json]:
    """The policies in a file. Raises CliError for one that would be rejected, or that has targetRefs."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text()
        documents = list(yamldoc.objects(text))
    except (OSError, ValueError) as e:
        raise CliError(f"{name}: {e}", BAD_DATA) from None
    out = []
    for doc in documents:
        if kinds.of(doc) is not kinds.AUTHORIZATION_POLICY:
            continue
        doc["metadata"].setdefault("namespace", namespace)
        if problems := list(validate.problems(doc)):
            raise CliError(f"{name}: {doc['metadata']['name']}: {problems[0][0]}: {problems[0][1]}", BAD_DATA)
        if doc["spec"].get("targetRef") or doc["spec"].get("targetRefs"):
            raise CliError(f"{name}: {doc['metadata']['name']}: targetRefs cannot be tested; use a selector", BAD_DATA)
        out.append(doc)
    return out
