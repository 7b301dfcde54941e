"""lateen x authz test: the effect of policies on observed calls, before they are applied.

The collector knows the caller and the service of each call, but not its path or headers: calls whose outcome depends on
these are counted separately.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click

from lateen.api import decoding, kinds, validate
from lateen.api import security as sec
from lateen.api.config import decode
from lateen.api.decoding import is_dry_run
from lateen.api.domain import TRUST_DOMAIN
from lateen.api.mesh.reading import Invalid, mesh_config
from lateen.api.reading import has_proxy
from lateen.cli.base import command
from lateen.cli.collected import total
from lateen.cli.connect import Target, target_options
from lateen.cli.output import BAD_DATA, USAGE, CliError
from lateen.cli.suggest import BY, CONNECTIONS, called
from lateen.console.plaintext import SCHEME
from lateen.kit import duration, yamldoc
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient
from lateen.mesh.selecting import has_labels
from lateen.mesh.workloads import described
from lateen.xds.authz import matchers

Place = tuple[str, str]
"""(namespace, service)"""
NOBODY = ""
"""A caller without an identity"""
UNKNOWN = "paths, methods, headers, ports, addresses, tokens"
_BY = f"{BY}, destination_canonical_revision"
_ABOUT_CALLERS = {
    "source.principal": ("principals", "not_principals"),
    "source.namespace": ("namespaces", "not_namespaces"),
    "source.trustDomain": ("trust_domains", "not_trust_domains"),
    "source.serviceAccount": ("service_accounts", "not_service_accounts"),
}
"""Keys of conditions that say the same as fields of sources"""


class Call(NamedTuple):
    """Calls of one caller: requests, or with ``tcp`` connections."""

    place: Place
    revision: str
    """Of the service: pods of other versions may have other policies."""
    caller: str
    times: float
    tcp: bool = False


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


class Known(NamedTuple):
    """What is known of the mesh."""

    labels: Mapping[tuple[Place, str], Json]
    """(service, revision) -> the labels of its pods"""
    root: str
    """The namespace whose policies are for all"""
    domains: tuple[str, ...] = ()
    """The mesh's trust domain, then its aliases"""


def judged(policies: Sequence[Json], calls: Iterable[Call], known: Known) -> dict[Place, Verdict]:
    out: dict[Place, Verdict] = {}
    for call in calls:
        labels = known.labels.get((call.place, call.revision))
        mine = [p for p in policies if labels is not None and _is_for(p, call.place, labels, known.root)]
        if not mine:
            continue
        verdict = out.setdefault(call.place, Verdict())
        passes = allows(mine, call.caller, call.tcp, known.domains)
        if passes is None:
            verdict.depends += call.times
        elif passes:
            verdict.allowed += call.times
        else:
            verdict.denied[call.caller] = verdict.denied.get(call.caller, 0) + call.times
    return out


def _is_for(policy: Json, place: Place, labels: Json, root: str) -> bool:
    """Whether a policy applies to a service. Policies with targetRefs, and those in dry-run mode, are left out."""
    spec, meta = policy.get("spec") or {}, policy["metadata"]
    if spec.get("targetRef") or spec.get("targetRefs") or (is_dry_run(meta) and "uid" in meta):
        return False
    wanted = (spec.get("selector") or {}).get("matchLabels") or {}
    return meta.get("namespace") in (place[0], root) and has_labels(wanted, labels)


def allows(policies: Sequence[Json], caller: str, tcp: bool = False, domains: tuple[str, ...] = ()) -> bool | None:
    """The decision as in proxies, DENY before ALLOW; None if it depends on the request."""
    found = [(p["metadata"], decode(sec.AuthorizationPolicy, p.get("spec") or {})) for p in policies]

    def matched(action: str) -> list[bool | None]:
        """Of each policy with the action."""
        at = [_Judge(m["namespace"], caller, tcp, action != "ALLOW", domains) for m, _ in found]
        return [judge.policy(s) for judge, (_, s) in zip(at, found, strict=True) if s.action == action]

    denied, wanted = matched("DENY"), matched("ALLOW")
    if True in denied:
        return False
    # an external provider may deny any request
    asks = any(one is not False for one in matched("CUSTOM"))
    if wanted and True not in wanted:
        return None if None in wanted else False
    return None if None in denied or asks else True


class _Judge(NamedTuple):
    """Whether something matches the calls of a caller; None if that depends on the request."""

    own: str
    """The policy's namespace"""
    caller: str
    tcp: bool
    lenient: bool
    """What is about requests counts as met by connections, instead of dropping its rule."""
    domains: tuple[str, ...]

    def policy(self, policy: sec.AuthorizationPolicy) -> bool | None:
        return _any([self.rule(r) for r in policy.rules])

    def rule(self, rule: sec.Rule) -> bool | None:
        sources = _any([self.source(f.source or sec.Source()) for f in rule.from_ or ()] or [True])
        operations = _any([self.operation(t.operation or sec.Operation()) for t in rule.to or ()] or [True])
        return _all([sources, operations, *map(self.condition, rule.when)])

    def operation(self, operation: sec.Operation) -> bool | None:
        ports = (operation.ports, operation.not_ports)
        names = (operation.hosts, operation.not_hosts, operation.methods, operation.not_methods)
        paths = (operation.paths, operation.not_paths)
        return _all([None if any(ports) else True, self._of_request() if any((*names, *paths)) else True])

    def condition(self, condition: sec.Condition) -> bool | None:
        if fields := _ABOUT_CALLERS.get(condition.key):
            given = (condition.values or None, condition.not_values or None)
            return self.source(sec.Source(**dict(zip(fields, given, strict=True))))
        return self._of_request() if condition.key.startswith("request.") else None

    def _of_request(self) -> bool | None:
        return self.lenient if self.tcp else None

    def source(self, source: sec.Source) -> bool | None:
        caller = self.caller
        domain, _, rest = caller.partition("/ns/")
        namespace, _, account = rest.partition("/sa/")
        spread = partial(matchers.in_every_domain, domains=self.domains)
        every = partial(matchers.with_aliases, domains=self.domains)
        known: tuple[tuple[Any, Any, Any], ...] = (
            (spread(source.principals or ()), spread(source.not_principals or ()), lambda v: _like(v, caller)),
            (source.namespaces, source.not_namespaces, lambda v: _like(v, namespace)),
            (every(source.trust_domains or ()), every(source.not_trust_domains or ()), lambda v: _like(v, domain)),
            (
                source.service_accounts,
                source.not_service_accounts,
                lambda v: f"{namespace}/{account}" == (v if "/" in v else f"{self.own}/{v}"),
            ),
        )
        for values, but, is_ in known:
            if (values and not (caller and any(map(is_, values)))) or (but and caller and any(map(is_, but))):
                return False
        addresses = (source.ip_blocks, source.not_ip_blocks, source.remote_ip_blocks, source.not_remote_ip_blocks)
        tokens = (source.request_principals, source.not_request_principals)
        return _all([None if any(addresses) else True, self._of_request() if any(tokens) else True])


def _any(found: Sequence[bool | None]) -> bool | None:
    return True if True in found else None if None in found else False


def _all(found: Sequence[bool | None]) -> bool | None:
    return False if False in found else None if None in found else True


def _like(pattern: str, text: str) -> bool:
    """Match a pattern with a wildcard at the beginning or the end."""
    return fnmatchcase(text, pattern.replace("[", "[[]").replace("?", "[?]"))


def told(found: dict[Place, Verdict]) -> list[str]:
    out = []
    for (namespace, name), v in sorted(found.items()):
        denied = sum(v.denied.values())
        says = f"{name}.{namespace}: would deny {denied:,.0f} of {v.total:,.0f}"
        if v.depends:
            says += f"; {v.depends:,.0f} depend on the request itself ({UNKNOWN})"
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

    async def work(client: HttpClient) -> tuple[list[Call], list[Json], Known]:
        found = await called(client, target.istio_namespace, seconds, _BY)
        pods, _ = await client.list(kinds.POD, "")
        policies, _ = await client.list(kinds.AUTHORIZATION_POLICY, "")
        config = await client.get(kinds.CONFIG_MAP, target.istio_namespace, "istio")
        return calls(found), policies, _known(pods, config, target.istio_namespace)

    made, applied, known = target.run(work)
    mine = {_name(p) for p in given}
    found = judged([*given, *(p for p in applied if _name(p) not in mine)], made, known)
    concerned = {
        place for (place, _), labels in known.labels.items() for p in given if _is_for(p, place, labels, known.root)
    }
    lines = told({place: verdict for place, verdict in found.items() if place in concerned})
    if not lines:
        raise CliError(f"none of the policies applies to a service that was called in {since}")
    click.echo("\n".join(lines))


def calls(found: Mapping[str, Iterable[Json]]) -> list[Call]:
    """From the answers of ``called``."""
    out = []
    for metric, series in found.items():
        for one in series:
            labels, times = one["metric"], total(one)
            place = (labels.get("destination_workload_namespace", ""), labels.get("destination_canonical_service", ""))
            principal = labels.get("source_principal", "")
            caller = principal.removeprefix(SCHEME) if principal.startswith(SCHEME) else NOBODY
            if times > 0:
                revision = labels.get("destination_canonical_revision", "")
                out.append(Call(place, revision, caller, times, metric == CONNECTIONS))
    return out


def _known(pods: Iterable[Json], config: Json | None, namespace: str) -> Known:
    """``config``: the ConfigMap of the mesh configuration; without one that is valid, its defaults count."""
    labels = {}
    for pod in filter(has_proxy, pods):
        one = decoding.pod(pod)
        of = described(one)
        labels[(of["namespace"], of["service"]), of["revision"]] = one.label_map
    try:
        mesh = mesh_config(dig(config or {}, "data", "mesh") or "{}")
    except Invalid:
        mesh = mesh_config("{}")
    root = mesh.root_namespace or namespace
    return Known(labels, root, (mesh.trust_domain or TRUST_DOMAIN, *mesh.trust_domain_aliases))


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
