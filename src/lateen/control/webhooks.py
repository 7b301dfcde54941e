"""The admission webhooks: injection and validation."""

from __future__ import annotations

import asyncio
import base64
import difflib
import logging
import time
from collections.abc import Callable

from aiohttp import web

from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.effective import ineffective
from lateen.api.mesh import effect, reading
from lateen.control.injection import Injector
from lateen.control.measures import Measures
from lateen.inject import grpc, pods
from lateen.inject.notes import notes
from lateen.inject.required import SKIPPED_NAMESPACES
from lateen.kit import bodies, faults, jsons, yamldoc
from lateen.kit.jsons import Json, dig
from lateen.mesh.model import Mesh
from lateen.xds.patches.check import verdict

log = logging.getLogger("lateen.control.webhooks")

MAX_BODY = 4 * 1024 * 1024
SHOWN = 5
"""The most pods that a warning names"""
NEWS_S = 0.5
"""Seconds to wait for a delayed watch event before warning about a missing host."""


class Webhooks:
    def __init__(
        self,
        injector: Injector,
        mesh: Callable[[], Mesh],
        mesh_config: str = "",
        measures: Measures | None = None,
        foreign: Callable[[], frozenset[kinds.Kind]] = frozenset,
    ) -> None:
        """``mesh``: the mesh of all known objects, pushed or not. ``mesh_config``: the name of the mesh
        configuration's ConfigMap. ``foreign``: kinds that another controller in the cluster serves."""
        self._foreign = foreign
        self._injector, self._mesh, self._mesh_config = injector, mesh, mesh_config
        self._measures = measures or Measures()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/inject", self.inject),
            web.post("/inject/{path:.*}", self.inject),
            web.post("/validate", self.validate),
        ]

    async def inject(self, request: web.Request) -> web.Response:
        review = await self._asked(request)
        self._measures.injection_requests.add()
        began = time.monotonic()
        try:
            return self._injected(request, review)
        finally:
            self._measures.injection_time.observe(time.monotonic() - began)

    def _injected(self, request: web.Request, review: Json) -> web.Response:
        pod, namespace = review.get("object"), str(review.get("namespace") or "default")
        answer: Json = {"uid": review["uid"], "allowed": True}
        if not isinstance(pod, dict) or not isinstance(pod.get("spec"), dict):
            return _answer(answer)
        try:
            settings = self._injector.settings(pod, namespace, request.path)
            if not pods.wanted(pod, namespace, settings):
                self._measures.injection_skipped.add()
                return _answer(answer)
            told = notes(pod, settings)
            done = pods.inject(pod, namespace, settings)
        except ValueError as e:
            self._measures.injection_failed.add()
            return _answer(
                {**answer, "allowed": False, "status": {"code": 400, "reason": "BadRequest", "message": str(e)}}
            )
        self._measures.injected.add()
        if told:
            answer["warnings"] = told
        patch = jsons.dumps(pods.patch(pod, done))
        return _answer({**answer, "patchType": "JSONPatch", "patch": base64.b64encode(patch).decode()})

    async def _asked(self, request: web.Request) -> Json:
        try:
            return await _review(request)
        except web.HTTPException as e:
            self._measures.bad_reviews.add(str(e.status))
            raise

    async def validate(self, request: web.Request) -> web.Response:
        review = await self._asked(request)
        obj = review.get("object")
        answer: Json = {"uid": review["uid"], "allowed": True}
        if not isinstance(obj, dict):
            return _answer(answer)
        if kinds.of(obj) is kinds.CONFIG_MAP:
            return _answer(answer | self._config_map(obj))
        if (of := kinds.of(obj)) is not None and of in self._foreign():
            return _answer(answer)
        findings = verdict(obj)
        if found := [f"{f.path}: {f.says}" for f in findings if not f.warning]:
            self._measures.invalid.add(*resource_of(obj), "invalid_resource")
            message = "; ".join(found)
            return _answer(
                {
                    **answer,
                    "allowed": False,
                    "status": {"code": 400, "reason": "BadRequest", "message": f"configuration is invalid: {message}"},
                }
            )
        self._measures.valid.add(*resource_of(obj))
        kind = kinds.of(obj)
        if kind is not None and kind.owned:
            answer["warnings"] = [f"{f.path}: {f.says}" for f in findings] + await self._advice(kind, obj)
        elif unknown := kinds.stranger(obj):
            answer["warnings"] = [f"{unknown}; it is stored and ignored"]
        return _answer(answer)

    async def _advice(self, kind: kinds.Kind, obj: Json) -> list[str]:
        """Warnings about a valid object. A fault in one of them must not refuse the object."""
        try:
            found = ineffective(kind, obj.get("spec") or {}) + await self._missing_hosts(obj)
            return found + in_plaintext(obj, self._mesh())
        except Exception as e:
            log.exception("warnings about %s", "/".join(resource_of(obj)))
            return [faults.sentence(e)]

    async def _missing_hosts(self, obj: Json) -> list[str]:
        """Warnings about missing hosts. Waits a little, because the host may be in the same file, with its event still
        pending."""
        deadline = time.monotonic() + NEWS_S
        while (found := missing_hosts(obj, self._mesh())) and time.monotonic() < deadline:
            await asyncio.sleep(NEWS_S / 10)
        return found

    def _config_map(self, obj: Json) -> Json:
        """The response for a ConfigMap of the control plane; only the mesh configuration is validated."""
        if dig(obj, "metadata", "name") != self._mesh_config:
            return {}
        text = dig(obj, "data", "mesh", default="")
        try:
            reading.mesh_config(text)
        except reading.Invalid as e:
            self._measures.invalid.add(*resource_of(obj), "invalid_resource")
            message = f"configuration is invalid: data.mesh: {e}"
            return {"allowed": False, "status": {"code": 400, "reason": "BadRequest", "message": message}}
        self._measures.valid.add(*resource_of(obj))
        return {"warnings": [f"data.mesh: {w}" for w in effect.ineffective(yamldoc.load(text) or {}, "mesh")]}


def resource_of(obj: Json) -> tuple[str, str, str]:
    """(group, version, plural) of an object; of a kind that is not known, the last is empty."""
    group, _, version = str(obj.get("apiVersion", "")).rpartition("/")
    kind = kinds.of(obj)
    return (group, version, kind.plural) if kind is not None else ("", "", "")


def in_plaintext(obj: Json, mesh: Mesh) -> list[str]:
    """Warnings about pods without a sidecar, whose calls a STRICT PeerAuthentication would reject (only the collector
    knows actual callers). The author of a policy may not be allowed to read other namespaces, so only a policy in the
    root namespace, which applies to all of them, names pods in other namespaces.
    """
    modes = [dig(obj, "spec", "mtls", "mode")]
    modes += [dig(m, "mode") for m in dig(obj, "spec", "portLevelMtls", default={}).values()]
    if kinds.of(obj) is not kinds.PEER_AUTHENTICATION or "STRICT" not in modes:
        return []
    namespace = dig(obj, "metadata", "namespace", default="default")
    found = [
        p
        for p in mesh.objects.pods.values()
        if not p.meshed and not _speaks_xds(p) and p.namespace not in (mesh.root_namespace, *SKIPPED_NAMESPACES)
    ]
    if not found:
        return []
    told = sorted(f"{p.namespace}/{p.name}" for p in found if namespace in (p.namespace, mesh.root_namespace))
    says = f"calls in plaintext are refused, and {_without_sidecar(told, len(found) - len(told))}"
    return [f'spec.mtls.mode: {says}; "lateen x authz plaintext" lists callers seen in plaintext']


def _speaks_xds(pod: o.Pod) -> bool:
    """Whether its application needs no sidecar for mutual TLS."""
    templates = dict(pod.notes).get(pods.TEMPLATES, "").split(",")
    return any(name.strip() in grpc.NAMES for name in templates)


def _without_sidecar(told: list[str], others: int) -> str:
    """``others``: the number of pods that are not named."""
    elsewhere = f"{others} {'pod' if others == 1 else 'pods'} in other namespaces"
    if not told:
        return f"{elsewhere} {'has' if others == 1 else 'have'} no sidecar"
    shown = ", ".join(told[:SHOWN]) + (f" and {len(told) - SHOWN} more" if len(told) > SHOWN else "")
    return f"these pods have no sidecar: {shown}" + (f", and {elsewhere}" if others else "")


def missing_hosts(obj: Json, mesh: Mesh) -> list[str]:
    """Destinations for which there is no service: requests to them get 503."""
    out = []
    namespace = dig(obj, "metadata", "namespace", default="default")
    for i, http in enumerate(dig(obj, "spec", "http", default=[])):
        for j, route in enumerate(http.get("route") or []):
            host = dig(route, "destination", "host", default="")
            if host and mesh.service(mesh.resolve(host, namespace)) is None:
                known = sorted({s.name for s in mesh.hosts() if s.namespace == namespace})
                near = difflib.get_close_matches(host, known, 1)
                hint = f'; did you mean "{near[0]}"?' if near else ""
                out.append(
                    f'spec.http[{i}].route[{j}].destination.host: there is no service "{host}" in namespace '
                    f'"{namespace}", requests to it will get 503{hint}'
                )
    return out


async def _review(request: web.Request) -> Json:
    try:
        raw = await bodies.whole(request.content.iter_any(), MAX_BODY)
    except bodies.TooLong as e:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY, MAX_BODY + 1, text=f"an AdmissionReview of {e}") from None
    try:
        review = jsons.loads(raw)["request"]
        if not isinstance(review.get("uid"), str):
            raise ValueError
        return dict(review)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise web.HTTPBadRequest(text="expected an AdmissionReview") from None


def _answer(response: Json) -> web.Response:
    body = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response}
    return web.Response(body=jsons.dumps(body), content_type="application/json")
