"""Authentication: client certificates and service account tokens."""

from __future__ import annotations

import hmac
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import Any, cast

from lateen.api.domain import CLUSTER_DOMAIN, service_host
from lateen.cluster.store.objects import Store
from lateen.kit import jose, jsons
from lateen.kit.jsons import Json, dig

ISSUER = f"https://{service_host('kubernetes', 'default', CLUSTER_DOMAIN)}"
DEFAULT_AUDIENCE = ISSUER
FOREVER = 100 * 365 * 24 * 3600
"""Seconds: the lifetime of tokens that are valid for as long as the object that they are bound to exists."""
BOUND = {"pod": ("pods", True), "secret": ("secrets", True), "node": ("nodes", False)}
"""What tokens can be bound to: the collection, and whether it is of the account's namespace."""


@dataclass(frozen=True)
class User:
    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def info(self) -> Json:
        """UserInfo, as passed to reviews and webhooks."""
        out: Json = {"username": self.name, "groups": list(self.groups)}
        if self.uid:
            out["uid"] = self.uid
        return out | ({"extra": {k: list(v) for k, v in self.extra}} if self.extra else {})


ADMIN = User("system:admin", ("system:masters", "system:authenticated"))
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


class Tokens:
    """Service account tokens: JWTs signed with a key that only the API server has (HS256)."""

    def __init__(self, key: bytes, store: Store) -> None:
        self._key, self._store = key, store

    def issue(
        self,
        namespace: str,
        name: str,
        uid: str,
        audiences: list[str],
        seconds: int,
        bound: Mapping[str, Json] = MappingProxyType({}),
    ) -> tuple[str, int]:
        """The token and the Unix time at which it expires. ``bound``: the metadata of what it is bound to, as ``pod``,
        ``secret`` or ``node``; one that is bound to a pod may name the pod's node, too."""
        now = int(time.time())
        about: Json = {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}}
        about |= {kind: {"name": meta["name"], "uid": meta.get("uid", "")} for kind, meta in bound.items()}
        claims = {
            "iss": ISSUER,
            "sub": f"system:serviceaccount:{namespace}:{name}",
            "aud": audiences,
            "exp": now + seconds,
            "iat": now,
            "nbf": now,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": about,
        }
        head = jose.encode(jsons.dumps({"alg": "HS256", "typ": "JWT"})) + "." + jose.encode(jsons.dumps(claims))
        return f"{head}.{self._sign(head)}", now + seconds

    def of_secret(self, account: Json, secret: Json) -> str:
        """A token that is valid for as long as its service account and its Secret exist."""
        meta = account["metadata"]
        return self.issue(
            meta["namespace"], meta["name"], meta["uid"], [DEFAULT_AUDIENCE], FOREVER, {"secret": secret["metadata"]}
        )[0]

    def _sign(self, head: str) -> str:
        return jose.encode(hmac.new(self._key, head.encode(), sha256).digest())

    def verify(self, token: str, audiences: list[str]) -> tuple[User, Json] | None:
        """The user and the claims of a token that is genuine, not expired, for one of ``audiences``, and whose
        service account (and what it is bound to) still exists; None otherwise."""
        head, _, signature = token.rpartition(".")
        try:
            if len(token) > 8192 or not hmac.compare_digest(signature.encode(), self._sign(head).encode()):
                return None
            claims = cast(Json, jsons.loads(jose.decode(head.partition(".")[2])))
        except (ValueError, TypeError):
            return None
        now = time.time()
        if not claims["nbf"] - 60 <= now < claims["exp"] or not set(audiences) & set(claims["aud"]):
            return None
        bound = claims["kubernetes.io"]
        namespace, account = bound["namespace"], bound["serviceaccount"]
        if not self._exists("serviceaccounts", namespace, account):
            return None
        for kind, (collection, within) in BOUND.items():
            needed = kind in bound and not (kind == "node" and "pod" in bound)  # a pod's node is only named
            if needed and not self._exists(collection, namespace if within else "", bound[kind]):
                return None
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        extra = [("authentication.kubernetes.io/credential-id", (f"JTI={claims['jti']}",))]
        for kind in ("pod", "node"):
            for key, value in (bound.get(kind) or {}).items():
                extra.append((f"authentication.kubernetes.io/{kind}-{key}", (value,)))
        return User(claims["sub"], groups, account["uid"], tuple(extra)), claims

    def _exists(self, collection: str, namespace: str, ref: Json) -> bool:
        found = self._store.get(collection, namespace, ref["name"])
        return found is not None and dig(found.obj, "metadata", "uid") == ref["uid"]


def from_certificate(peer: dict[str, Any] | None) -> User | None:
    """CN is the user, each O a group; the certificate was verified by the TLS layer."""
    if not peer:
        return None
    parts = [pair for rdn in peer.get("subject", ()) for pair in rdn]
    name = next((v for k, v in parts if k == "commonName"), None)
    groups = tuple(v for k, v in parts if k == "organizationName")
    return User(name, (*groups, "system:authenticated")) if name else None
