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


SELECTORS = {"Service": "selector", "ServiceEntry": "workloadSelector"}
"""The fields of targets by which they have workloads"""


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
