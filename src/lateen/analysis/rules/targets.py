"""What policies of Istio's kinds are attached to by targetRefs."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Path, Snapshot, Source, message
from lateen.api import kinds

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


@analyzer("policy.TargetAnalyzer", "Checks that the targets of policies exist")
def missing(snapshot: Snapshot) -> Iterator[Message]:
    for kind in POLICIES:
        for policy in snapshot.all(kind):
            for target, path in _targets(policy):
                wanted = TARGETS.get(str(target.get("kind")))
                name = str(target.get("name") or "")
                if wanted and name and (policy.namespace, name) not in _known(snapshot, wanted):
                    yield message("LAT0131", policy, wanted.kind, name, policy.namespace, path=path)


def _known(snapshot: Snapshot, kind: kinds.Kind) -> set[tuple[str, str]]:
    """Namespaces and names; a Service may be in another cluster of the mesh."""

    def make() -> set[tuple[str, str]]:
        return {(s.namespace, s.name) for s in snapshot.everywhere(kind)}

    return snapshot.index(f"names of {kind.id}", make)


def _targets(policy: Source) -> Iterator[tuple[dict[str, object], Path]]:
    if isinstance(one := policy.spec.get("targetRef"), dict):
        yield one, ("spec", "targetRef")
    for i, one in enumerate(policy.spec.get("targetRefs") or []):
        if isinstance(one, dict):
            yield one, ("spec", "targetRefs", i)
