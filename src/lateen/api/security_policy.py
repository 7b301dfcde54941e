"""gateway.envoyproxy.io: Envoy Gateway's SecurityPolicy.

Field names and meanings are Envoy Gateway's: https://gateway.envoyproxy.io/docs/api/extension_types/#securitypolicy.
Lateen accepts Services and Istio's Gateways as targets, too.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import Any, Literal

import msgspec

from lateen.api.config import Config, Duration
from lateen.api.envoy_gateway import TargetReference, TargetSelector

HTPASSWD, CLIENT_SECRET = ".htpasswd", "client-secret"
"""The keys in Secrets of the users file and of an OAuth client's secret"""
CALLBACK, LOGOUT = "/oauth2/callback", "/logout"
REDIRECT = f"%REQ(x-forwarded-proto)%://%REQ(:authority)%{CALLBACK}"
"""Envoy Gateway's defaults for OIDC"""
_ENDPOINT = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(:[0-9]+)?([/?#][!#-;=?-\[\]_a-z~]*)?")


class SecretReference(Config):
    group: str = ""
    kind: str = "Secret"
    name: str = ""
    namespace: str | None = None


class CORS(Config):
    allow_origins: tuple[str, ...] = ()
    """``https://*.example.com``: every name below; ``*``: every origin."""
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: Duration | None = None
    allow_credentials: bool | None = None


class KeySource(Config):
    """Where a request may carry its key."""

    headers: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    cookies: tuple[str, ...] = ()


class APIKeyAuth(Config):
    credential_refs: tuple[SecretReference, ...] = ()
    """Secrets whose entries are clients and their keys."""
    extract_from: tuple[KeySource, ...] = ()
    forward_client_id_header: str = msgspec.field(default="", name="forwardClientIDHeader")
    sanitize: bool = False
    """Whether the key is removed from the request."""


class BasicAuth(Config):
    users: SecretReference | None = None
    forward_username_header: str = ""


class RemoteJWKS(Config):
    uri: str = ""
    backend_ref: dict[str, Any] = {}
    backend_refs: tuple[dict[str, Any], ...] = ()
    backend_settings: dict[str, Any] = {}
    cache_duration: Duration | None = None


class LocalJWKS(Config):
    type: Literal["Inline", "ValueRef"] = "Inline"
    inline: str = ""
    value_ref: dict[str, Any] = {}


class ClaimToHeader(Config):
    header: str = ""
    claim: str = ""


class HeaderToken(Config):
    name: str = ""
    value_prefix: str = ""


class TokenSource(Config):
    headers: tuple[HeaderToken, ...] = ()
    cookies: tuple[str, ...] = ()
    params: tuple[str, ...] = ()


class JWTProvider(Config):
    name: str = ""
    issuer: str = ""
    audiences: tuple[str, ...] = ()
    remote_jwks: RemoteJWKS | None = msgspec.field(default=None, name="remoteJWKS")
    local_jwks: LocalJWKS | None = msgspec.field(default=None, name="localJWKS")
    claim_to_headers: tuple[ClaimToHeader, ...] = ()
    recompute_route: bool = False
    extract_from: TokenSource | None = None


class JWT(Config):
    optional: bool = False
    """Whether requests without a token are let through; invalid tokens are always rejected."""
    providers: tuple[JWTProvider, ...] = ()


class OIDCProvider(Config):
    issuer: str = ""
    authorization_endpoint: str = ""
    token_endpoint: str = ""
    end_session_endpoint: str = ""
    backend_ref: dict[str, Any] = {}
    backend_refs: tuple[dict[str, Any], ...] = ()
    backend_settings: dict[str, Any] = {}


class CookieNames(Config):
    access_token: str = ""
    id_token: str = ""


class CookieConfig(Config):
    same_site: Literal["Lax", "Strict", "None"] = "Lax"


class DenyHeader(Config):
    name: str = ""
    type: Literal["Exact", "Prefix", "Suffix", "RegularExpression"] = "Exact"
    value: str = ""


class DenyRedirect(Config):
    headers: tuple[DenyHeader, ...] = ()


class OIDC(Config):
    provider: OIDCProvider | None = None
    client_id: str = msgspec.field(default="", name="clientID")
    client_id_ref: dict[str, Any] = msgspec.field(default={}, name="clientIDRef")
    client_secret: SecretReference | None = None
    cookie_names: CookieNames | None = None
    cookie_config: CookieConfig | None = None
    cookie_domain: str = ""
    scopes: tuple[str, ...] = ()
    """Besides ``openid``."""
    resources: tuple[str, ...] = ()
    redirect_url: str = msgspec.field(default="", name="redirectURL")
    deny_redirect: DenyRedirect | None = None
    """Requests that are answered with 401 instead of a redirect to the provider."""
    logout_path: str = ""
    forward_access_token: bool = False
    default_token_ttl: Duration | None = msgspec.field(default=None, name="defaultTokenTTL")
    refresh_token: bool = True
    default_refresh_token_ttl: Duration | None = msgspec.field(default=None, name="defaultRefreshTokenTTL")
    csrf_token_ttl: Duration | None = msgspec.field(default=None, name="csrfTokenTTL")
    disable_token_encryption: bool = False
    pass_through_auth_header: bool = False
    """Whether requests with a token in one of the headers of ``jwt`` (``token_headers``) skip the login."""


class BackendRef(Config):
    group: str = ""
    kind: str = "Service"
    name: str = ""
    namespace: str | None = None
    port: int = 0


class GRPCExtAuth(Config):
    backend_ref: BackendRef | None = None
    backend_refs: tuple[BackendRef, ...] = ()
    backend_settings: dict[str, Any] = {}


class HTTPExtAuth(Config):
    backend_ref: BackendRef | None = None
    backend_refs: tuple[BackendRef, ...] = ()
    backend_settings: dict[str, Any] = {}
    path: str = ""
    headers_to_backend: tuple[str, ...] = ()


class BodyToExtAuth(Config):
    max_request_bytes: int = 0


class ExtAuth(Config):
    headers_to_ext_auth: tuple[str, ...] = ()
    body_to_ext_auth: BodyToExtAuth | None = None
    grpc: GRPCExtAuth | None = None
    http: HTTPExtAuth | None = None
    fail_open: bool = False
    recompute_route: bool = False
    status_on_error: int | None = None
    timeout: Duration | None = None
    context_extensions: tuple[dict[str, Any], ...] = ()


class Operation(Config):
    methods: tuple[str, ...] = ()


class JWTClaim(Config):
    name: str = ""
    value_type: Literal["String", "StringArray"] = "String"
    values: tuple[str, ...] = ()


class JWTPrincipal(Config):
    provider: str = ""
    claims: tuple[JWTClaim, ...] = ()
    scopes: tuple[str, ...] = ()


class HeaderPrincipal(Config):
    name: str = ""
    values: tuple[str, ...] = ()


class Principal(Config):
    """All conditions that are set must hold; of each list of values, one."""

    client_cidrs: tuple[str, ...] = msgspec.field(default=(), name="clientCIDRs")
    jwt: JWTPrincipal | None = None
    headers: tuple[HeaderPrincipal, ...] = ()
    source_cidrs: tuple[str, ...] = msgspec.field(default=(), name="sourceCIDRs")
    client_ip_geo_locations: tuple[dict[str, Any], ...] = msgspec.field(default=(), name="clientIPGeoLocations")


class AuthorizationRule(Config):
    name: str = ""
    action: Literal["Allow", "Deny"] = "Allow"
    operation: Operation | None = None
    principal: Principal | None = None


class Authorization(Config):
    """The first rule that matches decides."""

    rules: tuple[AuthorizationRule, ...] = ()
    default_action: Literal["Allow", "Deny"] = "Deny"


class SecurityPolicy(Config):
    target_ref: TargetReference | None = None
    target_refs: tuple[TargetReference, ...] = ()
    target_selectors: tuple[TargetSelector, ...] = ()
    merge_type: str = ""
    cors: CORS | None = None
    api_key_auth: APIKeyAuth | None = None
    basic_auth: BasicAuth | None = None
    jwt: JWT | None = None
    oidc: OIDC | None = None
    ext_auth: ExtAuth | None = None
    authorization: Authorization | None = None


def secrets(policy: SecurityPolicy) -> tuple[SecretReference, ...]:
    """The Secrets that a policy names."""
    found = [*policy.api_key_auth.credential_refs] if policy.api_key_auth else []
    found += [policy.basic_auth.users] if policy.basic_auth and policy.basic_auth.users else []
    found += [policy.oidc.client_secret] if policy.oidc and policy.oidc.client_secret else []
    return tuple(found)


def token_headers(jwt: JWT | None) -> tuple[HeaderToken, ...]:
    """The headers in which the providers look for tokens: by default, ``Authorization`` with the prefix ``Bearer ``."""
    found: dict[HeaderToken, None] = {}
    for p in jwt.providers if jwt else ():
        own = p.extract_from or TokenSource()
        given = (HeaderToken(name="authorization", value_prefix="Bearer "),) if own == TokenSource() else own.headers
        found |= dict.fromkeys(HeaderToken(name=h.name.lower(), value_prefix=h.value_prefix) for h in given)
    return tuple(found)


def backend(given: GRPCExtAuth | HTTPExtAuth) -> BackendRef | None:
    """The authorization service; validation permits exactly one."""
    return given.backend_refs[0] if given.backend_refs else given.backend_ref


def is_endpoint(text: str) -> bool:
    """Whether Envoy's OAuth2 filter can parse a URL: it rejects a host with anything but letters, digits, ``-`` and
    ``.``, an empty port, and characters that RFC 3986 excludes."""
    try:
        _ = urllib.parse.urlsplit(text).port
    except ValueError:
        return False
    return _ENDPOINT.fullmatch(text) is not None
