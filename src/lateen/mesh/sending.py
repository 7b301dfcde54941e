"""XBackendTrafficPolicies: settings for requests to a Service, whoever sends them.

Source: https://gateway-api.sigs.k8s.io/geps/gep-3388/; conflicts: GEP-713, the oldest policy of a Service applies.
"""

from __future__ import annotations

from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.gateway_api import XBackendTrafficPolicy
from lateen.kit.queries import query
from lateen.mesh.dialects.gateway_api.sessions import session
from lateen.mesh.endpoints import Endpoints
from lateen.mesh.objects import Key
from lateen.mesh.routing import Sending

SendingPolicy = o.Resource[XBackendTrafficPolicy]


class Sendings(Endpoints):
    def sending_to(self, service: o.Service) -> Sending | None:
        if not self.objects.x_backend_traffic_policies or service.hostname:
            return None
        return self._sending(service.namespace, service.name)

    @query
    def _sending(self, namespace: str, name: str) -> Sending | None:
        policy = self._oldest_sending((namespace, name))
        if policy is None:
            return None
        asked, retries = policy.spec.retry_constraint, None
        if asked is not None:
            retries = (float(asked.budget.percent), asked.min_retry_rate.count)
        return Sending(policy.ref, retries, session(policy.spec.session_persistence, policy.ref))

    def _oldest_sending(self, service: Key) -> SendingPolicy | None:
        return min(self._sending_policies_of.get(service), key=lambda p: p.age_order, default=None)

    def _sending_trouble(self, policy: SendingPolicy, service: Key) -> tuple[str, str] | None:
        """(reason, sentence) why a policy does not apply to one of its Services; None if it does."""
        if service not in self.objects.services:
            return "TargetNotFound", f"there is no Service {'/'.join(service)}"
        first = self._oldest_sending(service)
        if first is not None and first.ref != policy.ref:
            where = f"{first.ref.namespace}/{first.ref.name}"
            return (
                "Conflicted",
                f"the older {kinds.X_BACKEND_TRAFFIC_POLICY.kind} {where} is for Service {service[1]}, too",
            )
        return None
