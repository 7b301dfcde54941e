"""The logins of SecurityPolicies in Envoy: its OAuth2 filter, and the secrets that it reads."""

from __future__ import annotations

import hashlib

from envoy.config.core.v3 import http_uri_pb2
from envoy.extensions.filters.http.oauth2.v3 import oauth_pb2 as oauth
from envoy.type.matcher.v3 import path_pb2, string_pb2

from lateen.api import security_policy as sp
from lateen.api.validate.security_policy_logins import callback
from lateen.mesh.secured import Login, Policy
from lateen.xds import pb, sds
from lateen.xds.authz import matchers

_LOGIN_S = 10.0
"""The timeout of requests to the token endpoint, in seconds"""


def secret_names(policy: Policy) -> tuple[str, str]:
    """(the client's secret, the key of the cookies) as SDS resources"""
    place = f"{policy.ref.namespace}/{policy.ref.name}"
    return f"login-client://{place}", f"login-cookies://{place}"


def config(policy: Policy, login: Login, oidc: sp.OIDC) -> oauth.OAuth2Config:
    """The configuration of Envoy's OAuth2 filter."""
    passing = sp.token_headers(policy.spec.jwt) if oidc.pass_through_auth_header else ()
    bearer = any(h.name == "authorization" for h in passing)
    out = oauth.OAuth2Config(
        token_endpoint=http_uri_pb2.HttpUri(uri=login.token, cluster=login.cluster, timeout=pb.duration(_LOGIN_S)),
        authorization_endpoint=login.authorization,
        end_session_endpoint=login.end_session,
        redirect_uri=oidc.redirect_url or sp.REDIRECT,
        redirect_path_matcher=_path(callback(oidc)),
        signout_path=_path(oidc.logout_path or sp.LOGOUT),
        forward_bearer_token=oidc.forward_access_token,
        auth_scopes=dict.fromkeys(("openid", *oidc.scopes)),
        resources=oidc.resources,
        use_refresh_token=pb.boolean(oidc.refresh_token),
        disable_token_encryption=oidc.disable_token_encryption,
        preserve_authorization_header=bearer and not oidc.forward_access_token,
    )
    client, cookies = secret_names(policy)
    out.credentials.client_id = oidc.client_id
    out.credentials.token_secret.CopyFrom(sds.by_ads(client))
    out.credentials.hmac_secret.CopyFrom(sds.by_ads(cookies))
    out.credentials.cookie_domain = oidc.cookie_domain
    _cookies(out, policy, oidc)
    for h in passing:
        made = out.pass_through_matcher.add(name=h.name)
        if h.value_prefix:
            made.string_match.prefix = h.value_prefix
        else:
            made.present_match = True
    for header in oidc.deny_redirect.headers if oidc.deny_redirect else ():
        out.deny_redirect_matcher.add(name=header.name, string_match=_text(header))
    for field, value in (
        ("default_expires_in", oidc.default_token_ttl),
        ("default_refresh_token_expires_in", oidc.default_refresh_token_ttl),
        ("csrf_token_expires_in", oidc.csrf_token_ttl),
    ):
        if value is not None:
            getattr(out, field).CopyFrom(pb.duration(value.seconds))
    return out


def _path(path: str) -> path_pb2.PathMatcher:
    return path_pb2.PathMatcher(path=string_pb2.StringMatcher(exact=path))


def _text(header: sp.DenyHeader) -> string_pb2.StringMatcher:
    if header.type == "RegularExpression":
        return matchers.regex(header.value)
    out = string_pb2.StringMatcher()
    setattr(out, header.type.lower(), header.value)
    return out


def _cookies(out: oauth.OAuth2Config, policy: Policy, oidc: sp.OIDC) -> None:
    """Of several policies for one host, each has cookies of its own."""
    suffix = hashlib.blake2b(str(policy.ref).encode(), digest_size=4).hexdigest()
    own = out.credentials.cookie_names
    given = oidc.cookie_names or sp.CookieNames()
    own.bearer_token = given.access_token or f"AccessToken-{suffix}"
    own.id_token = given.id_token or f"IdToken-{suffix}"
    own.refresh_token, own.oauth_hmac = f"RefreshToken-{suffix}", f"OauthHMAC-{suffix}"
    own.oauth_expires, own.oauth_nonce = f"OauthExpires-{suffix}", f"OauthNonce-{suffix}"
    own.code_verifier = f"CodeVerifier-{suffix}"
    if oidc.cookie_config is not None:
        for field in out.cookie_configs.DESCRIPTOR.fields_by_name:
            kind = getattr(out.cookie_configs, field)
            kind.same_site = oauth.CookieConfig.SameSite.Value(oidc.cookie_config.same_site.upper())
