"""Policies that select workloads: Sidecar, Telemetry, AuthorizationPolicy, RequestAuthentication."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Path, Snapshot, Source, message, selector_text
from lateen.api import kinds
from lateen.api.reading import asks_for_sidecar, has_proxy
from lateen.kit.jsons import dig

SHOWN = 5
"""How many policies a finding names."""
NO_SIDECAR = "the policy has no impact"
MODE, REDIRECTION = "istio.io/dataplane-mode", "ambient.istio.io/redirection"


def _ambient(snapshot: Snapshot, namespace: str) -> bool:
    labels = snapshot.namespace_labels(namespace)
    return labels.get(MODE) == "ambient" and not asks_for_sidecar(labels, {}, {})


def in_mesh(snapshot: Snapshot, pod: Source) -> bool:
    """Whether the pod has a proxy, or would get one when recreated; its absence has a finding of its own."""
    return (
        has_proxy(pod.obj)
        or redirected(pod)
        or asks_for_sidecar(snapshot.namespace_labels(pod.namespace), pod.labels, pod.annotations)
    )


def redirected(pod: Source) -> bool:
    """Whether the pod is in ambient mode."""
    return pod.annotations.get(REDIRECTION) == "enabled"


def _conflicts(
    snapshot: Snapshot, chosen: list[tuple[Source, Mapping[str, Any]]], code: str, path: Path
) -> Iterator[Message]:
    """Objects of one namespace that select the same pod, for each such pod."""
    selecting: dict[str, list[Source]] = {}
    for s, labels in chosen:
        for pod in snapshot.pods(labels, s.namespace):
            selecting.setdefault(pod.full, []).append(s)
    for pod in snapshot.all(kinds.POD):
        mine = selecting.get(pod.full, ())
        if len(mine) < 2 or (code == "IST0110" and redirected(pod)):
            continue
        names = "[" + " ".join(sorted(s.name for s in mine)) + "]"
        for s in mine:
            yield message(code, s, names, pod.namespace, pod.name, path=path)


def _without_selector(sources: list[Source], code: str) -> Iterator[Message]:
    by: dict[str, list[Source]] = {}
    for s in sources:
        by.setdefault(s.namespace, []).append(s)
    for namespace, many in by.items():
        if len(many) > 1:
            names = "[" + " ".join(sorted(s.name for s in many)) + "]"
            for s in many:
                yield message(code, s, names, namespace, path=("metadata", "name"))


@analyzer(
    "sidecar.SelectorAnalyzer",
    "Validates that sidecars that define a workload selector match at least one pod, and that there aren't multiple "
    "sidecar resources that select overlapping pods",
)
def sidecars(snapshot: Snapshot) -> Iterator[Message]:
    chosen: list[tuple[Source, Mapping[str, Any]]] = []
    general: list[Source] = []
    for s in snapshot.all(kinds.SIDECAR):
        labels = dig(s.spec, "workloadSelector", "labels", default={})
        if not labels:
            if _ambient(snapshot, s.namespace):
                says = f"namespace is in ambient mode, {NO_SIDECAR}"
                yield message("IST0167", s, says, path=("metadata", "namespace"))
            else:
                general.append(s)
            continue
        chosen.append((s, labels))
        path = ("spec", "workloadSelector", "labels")
        pods = snapshot.pods(labels, s.namespace)
        if not pods:
            yield message("IST0101", s, "selector", selector_text(labels), path=path)
        elif any(redirected(p) for p in pods):
            yield message("IST0167", s, f"selected workload is in ambient mode, {NO_SIDECAR}", path=path)
    yield from _without_selector(general, "IST0111")
    yield from _conflicts(snapshot, chosen, "IST0110", ("spec", "workloadSelector", "labels"))


@analyzer(
    "telemetry.SelectorAnalyzer",
    "Validates that telemetries that define a selector match at least one pod, and that there aren't multiple "
    "telemetry resources that select overlapping pods",
)
def telemetries(snapshot: Snapshot) -> Iterator[Message]:
    chosen: list[tuple[Source, Mapping[str, Any]]] = []
    path = ("spec", "selector", "matchLabels")
    for t in snapshot.all(kinds.TELEMETRY):
        labels = dig(t.spec, "selector", "matchLabels", default={})
        if not labels:
            continue
        chosen.append((t, labels))
        if not snapshot.pods(labels, t.namespace):
            yield message("IST0101", t, "selector", selector_text(labels), path=path)
    yield from _conflicts(snapshot, chosen, "IST0159", path)


@analyzer(
    "telemetry.DefaultSelectorAnalyzer",
    "Validates that there aren't multiple telemetry resources that have no selector",
)
def default_telemetries(snapshot: Snapshot) -> Iterator[Message]:
    general = [
        t
        for t in snapshot.all(kinds.TELEMETRY)
        if not dig(t.spec, "selector", "matchLabels") and not t.spec.get("targetRef") and not t.spec.get("targetRefs")
    ]
    yield from _without_selector(general, "IST0160")


@analyzer("auth.AuthorizationPoliciesAnalyzer", "Checks the validity of authorization policies")
def authorization(snapshot: Snapshot) -> Iterator[Message]:
    root = str(snapshot.mesh.get("rootNamespace") or snapshot.root)
    for ap in snapshot.all(kinds.AUTHORIZATION_POLICY):
        labels = dig(ap.spec, "selector", "matchLabels", default={})
        targeted = ap.spec.get("targetRef") or ap.spec.get("targetRefs")
        everything = ap.namespace == root and not labels
        reach = () if targeted or everything else snapshot.pods(labels, "" if ap.namespace == root else ap.namespace)
        if not targeted and not everything and not any(in_mesh(snapshot, p) for p in reach):
            yield message("IST0127", ap, selector_text(labels), path=("spec", "selector", "matchLabels"))
        yield from _namespaces(snapshot, ap)


def _means(wanted: str, namespace: str) -> bool:
    """A wildcard is one ``*`` at the beginning or the end."""
    if wanted.startswith("*"):
        return namespace.endswith(wanted[1:])
    if wanted.endswith("*"):
        return namespace.startswith(wanted[:-1])
    return wanted == namespace


def _namespaces(snapshot: Snapshot, ap: Source) -> Iterator[Message]:
    known = {n.name for n in snapshot.all(kinds.NAMESPACE)}
    for i, rule in enumerate(ap.spec.get("rules") or []):
        for j, source in enumerate((rule or {}).get("from") or []):
            for field in ("namespaces", "notNamespaces"):
                for k, wanted in enumerate(dig(source, "source", field, default=[])):
                    if not any(_means(str(wanted), n) for n in known):
                        path: Path = ("spec", "rules", i, "from", j, "source", field, k)
                        yield message("IST0101", ap, "namespace", wanted, path=path, each=field == "namespaces")


@analyzer(
    "authn.BlockedCIDRsAnalyzer",
    "Checks that BLOCKED_CIDRS_IN_JWKS_URIS is configured on istiod when RequestAuthentication resources exist",
)
def blocked_cidrs(snapshot: Snapshot) -> Iterator[Message]:
    policies = sorted(ra.full for ra in snapshot.all(kinds.REQUEST_AUTHENTICATION))
    if not policies:
        return
    for d in snapshot.all(kinds.DEPLOYMENT):
        if d.labels.get("app") != "istiod":
            continue
        containers = dig(d.spec, "template", "spec", "containers", default=[])
        variables = {e.get("name"): e for c in containers for e in c.get("env") or []}
        given = variables.get("BLOCKED_CIDRS_IN_JWKS_URIS") or {}
        if not given.get("value") and not given.get("valueFrom"):
            shown = ", ".join(policies[:SHOWN])
            if len(policies) > SHOWN:
                shown += f", and {len(policies) - SHOWN} more"
            yield message("IST0175", d, len(policies), shown, path=("spec", "template"))


@analyzer("authn.KeysAnalyzer", "Checks that istiod has the keys of issuers and the Secrets that policies refer to")
def keys(snapshot: Snapshot) -> Iterator[Message]:
    """According to the status written by istiod: only a running mesh knows."""
    for kind, path in ((kinds.REQUEST_AUTHENTICATION, ("spec", "jwtRules")), (kinds.SECURITY_POLICY, ("spec",))):
        for policy in snapshot.all(kind):
            for c in dig(policy.obj, "status", "conditions", default=[]):
                if c.get("status") == "False" and c.get("type") == "KeysFetched":
                    yield message("LAT0111", policy, str(c.get("message")), path=path)
                elif c.get("status") == "False" and c.get("type") == "Enforced":
                    yield message("LAT0122", policy, str(c.get("message")), path=path)
