"""Admission: webhooks, called over HTTPS with their selectors, timeouts and failure policies, and policies in CEL."""

from __future__ import annotations

import base64
import logging
import ssl
import uuid
from typing import Any

from lateen.cluster.apiserver import matching
from lateen.cluster.apiserver import patch as patches
from lateen.cluster.apiserver.errors import ApiError, forbidden
from lateen.cluster.apiserver.matching import Review
from lateen.cluster.apiserver.policies import evaluation
from lateen.cluster.apiserver.policies.authorizer import Authorizer
from lateen.cluster.apiserver.policies.expressions import Evaluation, Failed
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.store.objects import Store
from lateen.kit import bodies, jsons
from lateen.kit.jsons import Json, dig
from lateen.kit.later import aiohttp

log = logging.getLogger("lateen.apiserver.admission")

# Never sent to webhooks: a broken webhook must not be able to lock itself in.
EXEMPT_GROUPS = ("admissionregistration.k8s.io",)
MAX_ANSWER = 3 * 1024 * 1024


class Webhooks:
    def __init__(self, store: Store, registry: Registry) -> None:
        self._store, self._registry = store, registry
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._session: aiohttp.ClientSession | None = None

    async def admit(self, review: Review) -> Json | None:
        """The object after mutation. Raises ApiError if a policy or a webhook refuses it, or one cannot be called."""
        obj = await self.mutate(review)
        await self.validate(review.of(obj))
        return obj

    async def mutate(self, review: Review) -> Json | None:
        """The object after mutation: the review's own where nothing has changed it. Raises ApiError."""
        for hook in self._hooks("mutatingwebhookconfigurations", review):
            seen = self._seen(hook, review)
            changed = await self._call(hook, seen) if seen else None
            if seen is not None and changed is not None:
                review = seen.of(changed).shown(review.resource, review.version)
        return review.obj

    async def validate(self, review: Review) -> None:
        """Raises ApiError."""
        evaluation.check(self._store, self._registry, review)
        for hook in self._hooks("validatingwebhookconfigurations", review):
            if seen := self._seen(hook, review):
                await self._call(hook, seen)

    def _hooks(self, plural: str, review: Review) -> list[Json]:
        if review.resource.group in EXEMPT_GROUPS:
            return []
        entries = self._store.list(f"{plural}.admissionregistration.k8s.io")
        return [hook for entry in entries for hook in entry.obj.get("webhooks") or []]

    def _seen(self, hook: Json, review: Review) -> Review | None:
        """The review to send to the webhook; None if the webhook does not select the request."""
        seen = matching.as_named(hook.get("rules") or [], hook, review)
        wanted = seen and matching.selected(hook, seen, self._store) and self._meets(hook, seen)
        return seen if wanted else None

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
            answer = await self._post(hook, body)
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
            return patches.json_patch(review.obj, jsons.loads(base64.b64decode(response["patch"])))
        except ApiError:
            raise
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError) as e:
            if hook.get("failurePolicy", "Fail") == "Ignore":
                log.warning("webhook %s failed and is ignored: %s: %s", name, type(e).__name__, e)
                return None
            raise ApiError(
                500,
                "InternalError",
                f'Internal error occurred: failed calling webhook "{name}": '
                f"{_url(hook)}: {str(e) or type(e).__name__}; is the webhook's pod running and ready?",
            ) from e

    async def _post(self, hook: Json, body: bytes) -> Any:
        config = hook["clientConfig"]
        timeout = aiohttp.ClientTimeout(total=min(float(hook.get("timeoutSeconds") or 10), 30))
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=32))
        url, hostname = self._target(config)
        async with self._session.post(
            url,
            data=body,
            timeout=timeout,
            ssl=self._context(config.get("caBundle")),
            server_hostname=hostname,
            allow_redirects=False,
            headers={"Content-Type": "application/json"},
        ) as response:
            raw = await bodies.whole(response.content.iter_any(), MAX_ANSWER)
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}: {raw[:200].decode(errors='replace')}")
            return jsons.loads(raw)

    def _target(self, config: Json) -> tuple[str, str | None]:
        if "url" in config:
            return str(config["url"]), None
        service = config["service"]
        namespace, name = service["namespace"], service["name"]
        found = self._store.get("services", namespace, name)
        if found is None:
            raise ValueError(f'service "{namespace}/{name}" not found')
        port = int(service.get("port") or 443)
        port_name = next((p.get("name") for p in found.obj["spec"].get("ports") or [] if p["port"] == port), None)
        endpoints = self._store.get("endpoints", namespace, name)
        for subset in (endpoints.obj.get("subsets") if endpoints else None) or []:
            for p in subset.get("ports") or []:
                if p.get("name") == port_name and subset.get("addresses"):
                    path = service.get("path") or "/"
                    return f"https://{subset['addresses'][0]['ip']}:{p['port']}{path}", f"{name}.{namespace}.svc"
        raise ValueError(f'no endpoints available for service "{namespace}/{name}"')

    def _context(self, bundle: str | None) -> ssl.SSLContext:
        key = bundle or ""
        if key not in self._contexts:
            self._contexts[key] = ssl.create_default_context(cadata=base64.b64decode(key).decode() if key else None)
        return self._contexts[key]

    async def close(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None


def _code(given: object) -> int:
    """A failure's HTTP code only: what a webhook has refused must not look successful."""
    return given if isinstance(given, int) and 400 <= given <= 599 else 400


def _url(hook: Json) -> str:
    service = dig(hook, "clientConfig", "service", default={})
    return str(
        dig(hook, "clientConfig", "url", default="")
        or f"https://{service.get('name')}.{service.get('namespace')}.svc{service.get('path', '/')}"
    )
