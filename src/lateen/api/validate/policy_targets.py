"""Validation of what a policy of Envoy Gateway is for."""

from __future__ import annotations

from lateen.api import envoy_gateway as eg
from lateen.api import kinds
from lateen.api.security_policy import SecurityPolicy
from lateen.api.validate.findings import Findings, no, warn

ROUTES = ("HTTPRoute", "GRPCRoute")
TARGETS = (
    "a Service, a Gateway of networking.istio.io, or a Gateway, an HTTPRoute or a GRPCRoute of " + kinds.GATEWAY_API
)


def targets(policy: eg.BackendTrafficPolicy | SecurityPolicy) -> Findings:
    if policy.target_ref is not None and policy.target_refs:
        yield no("spec.targetRef", "either targetRef or targetRefs can be used")
    if policy.target_selectors:
        yield no("spec.targetSelectors", "selecting targets by labels is not implemented; name them in targetRefs")
    elif not eg.targets(policy):
        yield no("spec.targetRefs", f"name the target of the policy: {TARGETS}")
    named = [("spec.targetRef", policy.target_ref)] if policy.target_ref else []
    for at, ref in [*named, *((f"spec.targetRefs[{i}]", r) for i, r in enumerate(policy.target_refs))]:
        if not ref.name:
            yield no(f"{at}.name", "targetRef name must be set")
        known = kinds.find(group(ref), ref.kind)
        if known in (kinds.SERVICE, kinds.GATEWAY):
            continue
        if ref.group != kinds.GATEWAY_API or ref.kind not in ("Gateway", *ROUTES):
            yield no(at, f'the target is {ref.kind or "nothing"} of the group "{ref.group}"; it can be {TARGETS}')
        elif known is None or known.idle or not known.watched:
            says = f"{ref.kind} of {ref.group} is not implemented in this version of Lateen"
            yield warn(at, f"{says}, so the policy has no effect")


def group(ref: eg.TargetReference) -> str:
    return "" if ref.group == "core" else ref.group
