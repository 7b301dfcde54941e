"""SecurityPolicies with all references resolved: what they require of requests."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from lateen.api import objects as o
from lateen.api import security as sec
from lateen.api import security_policy as sp
from lateen.api.claims import DISCOVERY
from lateen.api.config import Duration
from lateen.api.mesh import ExtAuthzGrpc, ExtAuthzHttp, ExtensionProvider, RequestBody
from lateen.mesh.authentication import KeySource, keys_of, source

Policy = o.Resource[sp.SecurityPolicy]
COOKIE_SECRET, COOKIE_KEY = "lateen-oidc", "hmac-secret"
"""The Secret in istiod's namespace, and its entry, from which the keys that sign login cookies are derived"""
TIMEOUT = Duration("10s")
"""The timeout of authorization requests, as in Envoy Gateway"""


class Outside(NamedTuple):
    """A server that is not a service of the mesh."""

    host: str
    port: int
    tls: bool


@dataclass(frozen=True)
class Login:
    """An OpenID Connect provider, and our client credentials."""

    authorization: str
    token: str
    end_session: str
    cluster: str
    """The proxy's cluster for the token endpoint."""
    outside: Outside | None
    """The server of that cluster; None if it is a service of the mesh."""
    client_secret: str = field(repr=False)
    cookie_key: str = field(repr=False)
    """Signs and encrypts the cookies of this policy only: one policy's key cannot forge another policy's cookies."""


@dataclass(frozen=True)
class Secured:
    """A resolved policy. A part that cannot be enforced is ``broken``: it rejects all requests."""

    policy: Policy
    tokens: tuple[tuple[sec.JWTRule, str], ...] = ()
    """The rules for accepted tokens, each with its keys."""
    keys: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """(client, its key)"""
    users: str = field(default="", repr=False)
    """The users, in the format of an htpasswd file."""
    provider: ExtensionProvider | None = field(default=None, hash=False)
    login: Login | None = None
    broken: tuple[tuple[str, str], ...] = ()
    """(part, reason) in the user's field names"""

    def why_broken(self, part: str) -> str:
        return dict(self.broken).get(part, "")

    @property
    def guards(self) -> bool:
        """Whether some requests may be refused: then plain connections must not pass."""
        spec = self.policy.spec
        return any((spec.api_key_auth, spec.basic_auth, spec.jwt, spec.oidc, spec.ext_auth, spec.authorization))


# --- keys and users -------------------------------------------------------------------------------------------------


class Broken(Exception):
    """Why a part of a policy cannot be enforced, as a sentence that reveals no secret."""


Find = Mapping[tuple[str, str], o.Credential]


def _entries(policy: Policy, ref: sp.SecretReference, found: Find, root: str) -> dict[str, str]:
    """The entries of the Secret that a policy refers to. Raises Broken."""
    where = (policy.ref.namespace, ref.name)
    own = found.get(where) if where != (root, COOKIE_SECRET) else None
    if own is None:
        raise Broken(f'there is no Secret "{ref.name}" in {policy.ref.namespace} that istiod can read')
    return dict(own.entries)


def api_keys(policy: Policy, auth: sp.APIKeyAuth, found: Find, root: str) -> tuple[tuple[str, str], ...]:
    """(client, key) pairs; of a client in several Secrets, that of the first. Raises Broken, also if two clients have
    the same key, because requests would be ambiguous."""
    out: dict[str, str] = {}
    for ref in auth.credential_refs:
        out = {c: k.strip() for c, k in _entries(policy, ref, found, root).items() if k.strip()} | out
    if not out:
        raise Broken("the Secrets have no keys")
    if len(set(out.values())) < len(out):
        most = Counter(out.values()).most_common(1)[0][0]
        raise Broken(f"the clients {' and '.join(sorted(c for c, k in out.items() if k == most))} have the same key")
    return tuple(sorted(out.items()))


def users(policy: Policy, auth: sp.BasicAuth, found: Find, root: str) -> str:
    """The htpasswd text; only SHA-1 hashes, because Envoy verifies no others. Raises Broken."""
    if auth.users is None:
        raise Broken("there are no users")
    text = _entries(policy, auth.users, found, root).get(sp.HTPASSWD, "")
    lines = [line for one in text.splitlines() if (line := one.strip()) and not line.startswith("#")]
    seen: set[str] = set()
    for i, line in enumerate(lines, 1):
        name, _, hashed = line.partition(":")
        if not name or name in seen or not _is_sha(hashed):
            why = "repeats a user's name" if name in seen else 'is not "user:{SHA}hash"; make it with htpasswd -s'
            raise Broken(f'user {i} in {sp.HTPASSWD} of the Secret "{auth.users.name}" {why}')
        seen.add(name)
    if not lines:
        raise Broken(f'the Secret "{auth.users.name}" has no users in {sp.HTPASSWD}')
    return "\n".join(lines)


def _is_sha(text: str) -> bool:
    try:
        return text.startswith("{SHA}") and len(base64.b64decode(text[5:], validate=True)) == 20
    except (ValueError, binascii.Error):
        return False


# --- tokens ---------------------------------------------------------------------------------------------------------


def jwt_rules(jwt: sp.JWT) -> tuple[sec.JWTRule, ...]:
    """The JWT providers in the form of RequestAuthentications. Tokens are forwarded, as in Envoy Gateway."""
    return tuple(_rule(p, jwt.optional) for p in jwt.providers)


def _rule(p: sp.JWTProvider, optional: bool) -> sec.JWTRule:
    places = p.extract_from or sp.TokenSource()
    return sec.JWTRule(
        issuer=p.issuer,
        audiences=p.audiences,
        jwks_uri=p.remote_jwks.uri if p.remote_jwks else "",
        jwks=p.local_jwks.inline if p.local_jwks else "",
        from_headers=tuple(sec.JWTHeader(name=h.name, prefix=h.value_prefix) for h in places.headers),
        from_params=places.params,
        from_cookies=places.cookies,
        forward_original_token=True,
        output_claim_to_headers=tuple(sec.ClaimToHeader(header=c.header, claim=c.claim) for c in p.claim_to_headers),
        presence="OPTIONAL" if optional else "REQUIRED",
    )


def tokens(jwt: sp.JWT, fetched: Mapping[KeySource, str]) -> tuple[tuple[sec.JWTRule, str], ...]:
    return tuple((rule, keys_of(rule, fetched)) for rule in jwt_rules(jwt))


def sources(spec: sp.SecurityPolicy) -> Iterator[tuple[str, KeySource]]:
    """(description, source) of the documents that istiod has to fetch for a policy."""
    for p, rule in zip(spec.jwt.providers, jwt_rules(spec.jwt), strict=True) if spec.jwt else ():
        if (found := source(rule)) is not None:
            yield f"the keys of {p.name}", found
    if spec.oidc and (found := discovered(spec.oidc)) is not None:
        yield f"the endpoints of {found.url.removesuffix(DISCOVERY)}", found


# --- logins ---------------------------------------------------------------------------------------------------------


def discovered(oidc: sp.OIDC) -> KeySource | None:
    """The provider's discovery document; None if the policy names the endpoints itself."""
    p = oidc.provider
    if p is None or p.token_endpoint:
        return None
    return KeySource(p.issuer.rstrip("/") + DISCOVERY, True, endpoints=True)


class Endpoints(NamedTuple):
    authorization: str
    token: str
    end_session: str


def endpoints(oidc: sp.OIDC, fetched: Mapping[KeySource, str]) -> Endpoints:
    """Raises Broken."""
    given = oidc.provider or sp.OIDCProvider()
    at = discovered(oidc)
    if at is None:
        return Endpoints(given.authorization_endpoint, given.token_endpoint, given.end_session_endpoint)
    text = fetched.get(at, "")
    if not text:
        raise Broken(f"the provider's endpoints cannot be fetched from {at.url}")
    found = json.loads(text)
    out = Endpoints(
        found["authorization_endpoint"],
        found["token_endpoint"],
        given.end_session_endpoint or found.get("end_session_endpoint", ""),
    )
    for name, value in out._asdict().items():
        if value and not sp.is_endpoint(value):
            raise Broken(f"the {name}_endpoint in {at.url} is not a URL that Envoy accepts")
    return out


def server(url: str) -> Outside:
    parts = urllib.parse.urlsplit(url)
    return Outside(
        parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80), parts.scheme == "https"
    )


def client_secret(policy: Policy, oidc: sp.OIDC, found: Find, root: str) -> str:
    """Raises Broken."""
    ref = oidc.client_secret or sp.SecretReference()
    own = _entries(policy, ref, found, root).get(sp.CLIENT_SECRET, "").strip()
    if not own:
        raise Broken(f'the Secret "{ref.name}" has no {sp.CLIENT_SECRET}')
    return own


def cookie_key(policy: Policy, found: Find, root: str) -> str:
    """Raises Broken."""
    own = found.get((root, COOKIE_SECRET))
    master = dict(own.entries).get(COOKIE_KEY, "") if own else ""
    if not master:
        raise Broken("istiod has not created the key of its cookies yet")
    return hmac.new(master.encode(), str(policy.ref).encode(), hashlib.sha256).hexdigest()


# --- external authorization
# ---------------------------------------------------------------------------------------------------


def provider(ext: sp.ExtAuth, host: str, port: int) -> ExtensionProvider:
    """The authorization service in the form of an extension provider."""
    code = str(ext.status_on_error) if ext.status_on_error else ""
    body = None
    if ext.body_to_ext_auth:
        # larger requests are rejected, so that nothing can be hidden from the provider
        body = RequestBody(max_request_bytes=ext.body_to_ext_auth.max_request_bytes)
    if ext.grpc is not None:
        grpc = ExtAuthzGrpc(
            service=host,
            port=port,
            timeout=ext.timeout or TIMEOUT,
            fail_open=ext.fail_open,
            clear_route_cache=ext.recompute_route,
            status_on_error=code,
            include_request_body_in_check=body,
        )
        return ExtensionProvider(name=host, envoy_ext_authz_grpc=grpc)
    given = ext.http or sp.HTTPExtAuth()
    http = ExtAuthzHttp(
        service=host,
        port=port,
        timeout=ext.timeout or TIMEOUT,
        path_prefix=given.path,
        fail_open=ext.fail_open,
        clear_route_cache=ext.recompute_route,
        status_on_error=code,
        include_request_body_in_check=body,
        headers_to_upstream_on_allow=given.headers_to_backend,
    )
    return ExtensionProvider(name=host, envoy_ext_authz_http=http)
