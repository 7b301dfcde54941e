"""What policies of Istio's kinds are attached to by targetRefs."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.registry import analyzer
from lateen.analysis.rules.policy import redirected
from lateen.analysis.snapshot import Message, Path, Snapshot, Source, message
from lateen.api import kinds
from lateen.api.reading import has_proxy, is_finished, is_terminating

POLICIES = (
    kinds.TELEMETRY,
    kinds.AUTHORIZATION_POLICY,
    kinds.REQUEST_AUTHENTICATION,
    kinds.WASM_PLUGIN,
    kinds.TRAFFIC_EXTENSION,
    kinds.ENVOY_FILTER,
)
TARGETS = {k.kind: k for k in (kinds.SERVICE, kinds.SERVICE_ENTRY, kinds.KUBERNETES_GATEWAY)}
"""By the names that references have; classes of gateways are looked for nowhere, since istiod makes some itself."""


ENFORCED = (
    kinds.AUTHORIZATION_POLICY,
    kinds.REQUEST_AUTHENTICATION,
    kinds.SECURITY_POLICY,
    kinds.BACKEND_TRAFFIC_POLICY,
)
"""What the proxies of a Service's pods ask of requests"""
SELECTORS = {"Service": "selector", "ServiceEntry": "workloadSelector"}
"""The field of a target that selects its workloads"""


@analyzer("policy.TargetAnalyzer", "Checks that the targets of policies exist, and have workloads")
def missing(snapshot: Snapshot) -> Iterator[Message]:
    for kind in POLICIES:
        for policy in snapshot.all(kind):
            for target, path in _targets(policy):
                wanted = TARGETS.get(str(target.get("kind")))
                name = str(target.get("name") or "")
                if not wanted or not name:
                    continue
                selects = _known(snapshot, wanted).get((policy.namespace, name))
                if selects is None:
                    says = f"there is no {wanted.kind} {name} in namespace {policy.namespace}"
                    yield message("LAT0131", policy, says, path=path)
                elif not selects:
                    field = SELECTORS[wanted.kind]
                    says = f"the {wanted.kind} {name} has no {field}, and the policy is for workloads that it selects"
                    yield message("LAT0131", policy, says, path=path)


@analyzer("policy.ProxyAnalyzer", "Checks that the pods of Services that policies are for have a proxy")
def unenforced(snapshot: Snapshot) -> Iterator[Message]:
    for kind in ENFORCED:
        for policy in snapshot.all(kind):
            for target, path in _targets(policy):
                name = str(target.get("name") or "")
                if target.get("kind") == "Service" and (many := _without_proxy(snapshot, policy.namespace, name)):
                    yield message("LAT0133", policy, many, name, path=path)


def _without_proxy(snapshot: Snapshot, namespace: str, name: str) -> str:
    """Whether no pod of a Service has a proxy, or not every one, as a subject of a sentence, which does not change with
    every pod; empty if all have one, or there are none."""
    service = snapshot.get(str(kinds.SERVICE.id), namespace, name)
    selector = service.spec.get("selector") if service else None
    found = snapshot.pods(selector, namespace) if selector else []
    there = (p for p in found if not is_finished(p.obj) and not is_terminating(p.obj))
    lacking = [not has_proxy(p.obj) and not redirected(p) for p in there]
    return ("No pod" if all(lacking) else "Not every pod") if any(lacking) else ""


def _known(snapshot: Snapshot, kind: kinds.Kind) -> dict[tuple[str, str], bool]:
    """Namespaces and names -> whether workloads are selected; a Service may be in another cluster of the mesh."""

    def make() -> dict[tuple[str, str], bool]:
        out: dict[tuple[str, str], bool] = {}
        field = SELECTORS.get(kind.kind)
        for s in snapshot.everywhere(kind):
            place = (s.namespace, s.name)
            out[place] = out.get(place, False) or field is None or bool(s.spec.get(field))
        return out

    return snapshot.index(f"names of {kind.id}", make)


def _targets(policy: Source) -> Iterator[tuple[dict[str, object], Path]]:
    if isinstance(one := policy.spec.get("targetRef"), dict):
        yield one, ("spec", "targetRef")
    for i, one in enumerate(policy.spec.get("targetRefs") or []):
        if isinstance(one, dict):
            yield one, ("spec", "targetRefs", i)
