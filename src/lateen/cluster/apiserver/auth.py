"""Who is asking (client certificates, service-account tokens) and whether they may (RBAC)."""

from __future__ import annotations

import base64
import hmac
import time
import uuid
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, cast

from lateen.cluster.store.objects import Store
from lateen.kit import jsons
from lateen.kit.jsons import Json, dig

ISSUER = "https://kubernetes.default.svc.cluster.local"
DEFAULT_AUDIENCE = ISSUER


@dataclass(frozen=True)
class User:
    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""


ADMIN = User("system:admin", ("system:masters", "system:authenticated"))
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


class Tokens:
    """Service-account tokens: JWTs signed with a key that only the API server has (HS256)."""

    def __init__(self, key: bytes, store: Store) -> None:
        self._key, self._store = key, store

    def issue(
        self, namespace: str, name: str, uid: str, audiences: list[str], seconds: int, pod: Json | None = None
    ) -> tuple[str, int]:
        """The token and the Unix time at which it expires."""
        now = int(time.time())
        bound: Json = {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}}
        if pod:
            bound["pod"] = {"name": pod["name"], "uid": pod.get("uid", "")}
        claims = {
            "iss": ISSUER,
            "sub": f"system:serviceaccount:{namespace}:{name}",
            "aud": audiences,
            "exp": now + seconds,
            "iat": now,
            "nbf": now,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": bound,
        }
        head = _b64(jsons.dumps({"alg": "HS256", "typ": "JWT"})) + "." + _b64(jsons.dumps(claims))
        return f"{head}.{self._sign(head)}", now + seconds

    def _sign(self, head: str) -> str:
        return _b64(hmac.new(self._key, head.encode(), sha256).digest())

    def verify(self, token: str, audiences: list[str]) -> tuple[User, Json] | None:
        """The user and the claims of a token that is genuine, in time, for one of ``audiences``, and whose
        service account (and pod, where bound to one) still exists; None otherwise."""
        head, _, signature = token.rpartition(".")
        try:
            if len(token) > 8192 or not hmac.compare_digest(signature.encode(), self._sign(head).encode()):
                return None
            claims = cast(Json, jsons.loads(_unb64(head.partition(".")[2])))
        except (ValueError, TypeError):
            return None
        now = time.time()
        if not claims["nbf"] - 60 <= now < claims["exp"] or not set(audiences) & set(claims["aud"]):
            return None
        bound = claims["kubernetes.io"]
        namespace, account = bound["namespace"], bound["serviceaccount"]
        found = self._store.get("serviceaccounts", namespace, account["name"])
        if found is None or dig(found.obj, "metadata", "uid") != account["uid"]:
            return None
        if pod := bound.get("pod"):
            live = self._store.get("pods", namespace, pod["name"])
            if live is None or dig(live.obj, "metadata", "uid") != pod["uid"]:
                return None
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return User(claims["sub"], groups, account["uid"]), claims


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def from_certificate(peer: dict[str, Any] | None) -> User | None:
    """CN is the user, each O a group; the certificate was verified by the TLS layer."""
    if not peer:
        return None
    parts = [pair for rdn in peer.get("subject", ()) for pair in rdn]
    name = next((v for k, v in parts if k == "commonName"), None)
    groups = tuple(v for k, v in parts if k == "organizationName")
    return User(name, (*groups, "system:authenticated")) if name else None


@dataclass(frozen=True)
class Attributes:
    """What is asked for, in RBAC's terms. ``resource`` includes the subresource: ``pods/exec``."""

    verb: str
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


_PUBLIC = ("/version", "/healthz", "/livez", "/readyz", "/api", "/apis", "/openapi")


def allowed(store: Store, user: User, a: Attributes) -> bool:
    if "system:masters" in user.groups:
        return True
    if a.path:
        public = any(a.path == p or a.path.startswith(p + "/") for p in _PUBLIC)
        return public and ("system:authenticated" in user.groups or a.path.rstrip("/") in _PUBLIC[:4])
    if a.group == "authorization.k8s.io" and a.resource.startswith("self"):
        return "system:authenticated" in user.groups
    for binding in store.list("clusterrolebindings.rbac.authorization.k8s.io"):
        if _subject(binding.obj, user, "") and _grants(store, binding.obj, "", a):
            return True
    if a.namespace:
        for binding in store.list("rolebindings.rbac.authorization.k8s.io", a.namespace):
            if _subject(binding.obj, user, a.namespace) and _grants(store, binding.obj, a.namespace, a):
                return True
    return False


def _subject(binding: Json, user: User, namespace: str) -> bool:
    for s in binding.get("subjects") or []:
        match s.get("kind"):
            case "User" if s["name"] == user.name:
                return True
            case "Group" if s["name"] in user.groups:
                return True
            case "ServiceAccount" if user.name == (
                f"system:serviceaccount:{s.get('namespace') or namespace}:{s['name']}"
            ):
                return True
    return False


def _grants(store: Store, binding: Json, namespace: str, a: Attributes) -> bool:
    ref = binding["roleRef"]
    plural, where = ("clusterroles", "") if ref["kind"] == "ClusterRole" else ("roles", namespace)
    role = store.get(f"{plural}.rbac.authorization.k8s.io", where, ref["name"])
    return role is not None and any(_rule(r, a) for r in role.obj.get("rules") or [])


def _rule(rule: Json, a: Attributes) -> bool:
    def has(key: str, value: str) -> bool:
        given = rule.get(key) or []
        return "*" in given or value in given

    names = rule.get("resourceNames") or []
    return (
        has("verbs", a.verb)
        and has("apiGroups", a.group)
        and has("resources", a.resource)
        and (not names or a.name in names)
    )
