"""Admission: webhooks, called over HTTPS with their selectors, timeouts and failure policies, and policies in CEL."""

from __future__ import annotations

import base64
import logging
import uuid

from lateen.cluster.apiserver import hooks, matching, pod_security
from lateen.cluster.apiserver import patch as patches
from lateen.cluster.apiserver.errors import ApiError, forbidden
from lateen.cluster.apiserver.matching import Review
from lateen.cluster.apiserver.policies import evaluation
from lateen.cluster.apiserver.policies.authorizer import Authorizer
from lateen.cluster.apiserver.policies.expressions import Evaluation, Failed
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.apiserver.versions import Versions
from lateen.cluster.store.objects import Store
from lateen.kit import jsons
from lateen.kit.jsons import Json

log = logging.getLogger("lateen.apiserver.admission")

# Never sent to webhooks: a broken webhook must not be able to lock itself in.
EXEMPT_GROUPS = ("admissionregistration.k8s.io",)
MAX_SECONDS = 30.0


class Webhooks:
    def __init__(self, store: Store, registry: Registry) -> None:
        self._store, self._registry = store, registry
        self._caller = hooks.Caller(store)
        self.versions = Versions(self._caller)

    async def admit(self, review: Review) -> Json | None:
        """The object after mutation. Raises ApiError if a policy or a webhook refuses it, or one cannot be called."""
        obj = await self.mutate(review)
        await self.validate(review.of(obj))
        return obj

    async def mutate(self, review: Review) -> Json | None:
        """The object after mutation: the review's own where nothing has changed it. Raises ApiError."""
        review = review.afresh()
        for hook in self._hooks("mutatingwebhookconfigurations", review):
            seen = await self._seen(hook, review)
            changed = await self._call(hook, seen) if seen else None
            if seen is not None and changed is not None:
                review = await matching.shown(self.versions, seen.of(changed), (review.resource, review.version))
        return review.obj

    async def validate(self, review: Review) -> None:
        """Raises ApiError."""
        review = review.afresh()
        pod_security.check(self._store, review)
        await evaluation.check(self._store, self._registry, self.versions, review)
        for hook in self._hooks("validatingwebhookconfigurations", review):
            if seen := await self._seen(hook, review):
                await self._call(hook, seen)

    def _hooks(self, plural: str, review: Review) -> list[Json]:
        if review.resource.group in EXEMPT_GROUPS:
            return []
        entries = self._store.list(f"{plural}.admissionregistration.k8s.io")
        return [hook for entry in entries for hook in entry.obj.get("webhooks") or []]

    async def _seen(self, hook: Json, review: Review) -> Review | None:
        """The review to send to the webhook; None if the webhook does not select the request."""
        form = matching.named_form(hook.get("rules") or [], hook, review)
        if form is None or not matching.selected(hook, review, self._store):
            return None
        seen = await matching.shown(self.versions, review, form)
        return seen if self._meets(hook, seen) else None

    def _meets(self, hook: Json, review: Review) -> bool:
        """The match conditions; where one cannot be evaluated, the failure policy decides. Raises ApiError."""
        conditions = hook.get("matchConditions") or []
        if not conditions:
            return True
        authorizer = Authorizer(self._store, review.user, review.costs)
        given = evaluation.variables(self._store, review, authorizer)
        try:
            return evaluation.met(conditions, Evaluation(given, authorizer, [], review.costs))
        except Failed as e:
            if hook.get("failurePolicy", "Fail") == "Ignore":
                return False
            says = f'{review.resource.qualified} "{review.name}" is forbidden: {e}'
            raise forbidden(says, review.resource.plural, review.name, review.resource.group) from None

    async def _call(self, hook: Json, review: Review) -> Json | None:
        """The object as the webhook has changed it; None if it has not. Raises ApiError."""
        name = hook.get("name", "?")
        uid = str(uuid.uuid4())
        request = {**review.request(uid), "object": review.obj, "oldObject": review.old}
        body = jsons.dumps({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request})
        try:
            seconds = min(float(hook.get("timeoutSeconds") or 10), MAX_SECONDS)
            answer = await self._caller.post(hook["clientConfig"], body, seconds)
            response = answer["response"]
            if response.get("uid") != uid:
                raise ValueError("the answer's uid differs from the request's")
            review.warnings.extend(str(w) for w in response.get("warnings") or [])
            if not response.get("allowed"):
                status = response.get("status") or {}
                raise ApiError(
                    _code(status.get("code")),
                    status.get("reason") or "Invalid",
                    f'admission webhook "{name}" denied the request: {status.get("message") or "without explanation"}',
                )
            if review.obj is None or not response.get("patch"):
                return None
            operations = jsons.loads(base64.b64decode(response["patch"]))
            made: Json = jsons.nestable(patches.json_patch(review.obj, operations))
            return made
        except ApiError:
            raise
        except (hooks.Failure, ValueError, KeyError, TypeError) as e:
            if hook.get("failurePolicy", "Fail") == "Ignore":
                log.warning("webhook %s failed and is ignored: %s: %s", name, type(e).__name__, e)
                return None
            raise ApiError(
                500,
                "InternalError",
                f'Internal error occurred: failed calling webhook "{name}": '
                f"{hooks.url(hook['clientConfig'])}: {str(e) or type(e).__name__}; is the webhook's pod running and "
                "ready?",
            ) from e

    async def close(self) -> None:
        await self.versions.close()
        await self._caller.close()


def _code(given: object) -> int:
    """A failure's HTTP code only: what a webhook has refused must not look successful."""
    return given if isinstance(given, int) and 400 <= given <= 599 else 400
