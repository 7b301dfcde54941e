"""Validation rules of the logins of a SecurityPolicy, and of what its other parts have in common with them.

Source: as of ``security_policy``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lateen.api import security_policy as sp
from lateen.api.config import Duration
from lateen.api.validate import scalars as s
from lateen.api.validate.findings import Findings, no
from lateen.api.validate.security import url

COOKIE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_DOMAIN = re.compile(r"\.?[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")


def secret(ref: sp.SecretReference | None, at: str, own: str) -> Findings:
    if ref is None or not ref.name:
        yield no(at, "name a Secret of the policy's namespace: {name: my-secret}")
        return
    if ref.group not in ("", "core") or ref.kind != "Secret":
        yield no(at, f'the reference is to {ref.kind} of the group "{ref.group}"; it can be to a Secret')
    if ref.namespace and own and ref.namespace != own:
        yield no(f"{at}.namespace", "the Secret must be in the policy's own namespace")


def named(given: Sequence[str], at: str, what: str) -> Findings:
    for i, name in enumerate(given):
        if not name:
            yield no(f"{at}[{i}]", f"the name of the {what} is empty")


def oidc_login(oidc: sp.OIDC, own: str) -> Findings:
    at = "spec.oidc"
    if oidc.client_id_ref:
        yield no(f"{at}.clientIDRef", "a client id in a Secret is not implemented; write it into clientID")
    elif not oidc.client_id:
        yield no(f"{at}.clientID", "the provider knows the client by an id; give it")
    yield from secret(oidc.client_secret, f"{at}.clientSecret", own)
    if oidc.provider is None:
        yield no(f"{at}.provider", "name the provider: {issuer: https://accounts.example.com}")
    else:
        yield from _provider(oidc.provider, f"{at}.provider")
    names = oidc.cookie_names or sp.CookieNames()
    for field, name in (("accessToken", names.access_token), ("idToken", names.id_token)):
        if name and not COOKIE.fullmatch(name):
            yield no(f"{at}.cookieNames.{field}", f'"{name[:80]}" is not the name of a cookie')
    if oidc.cookie_domain and not _DOMAIN.fullmatch(oidc.cookie_domain):
        yield no(f"{at}.cookieDomain", f'"{oidc.cookie_domain[:80]}" is not a domain')
    yield from named(oidc.scopes, f"{at}.scopes", "scope")
    yield from named(oidc.resources, f"{at}.resources", "resource")
    yield from _paths(oidc)
    for i, header in enumerate(oidc.deny_redirect.headers if oidc.deny_redirect else ()):
        where = f"{at}.denyRedirect.headers[{i}]"
        yield from s.header_name(header.name, f"{where}.name")
        if header.type == "RegularExpression":
            yield from s.regex(header.value, f"{where}.value")
        elif not header.value:
            yield no(f"{where}.value", "the value is missing")
    ttls: tuple[tuple[str, Duration | None], ...] = (
        ("defaultTokenTTL", oidc.default_token_ttl),
        ("defaultRefreshTokenTTL", oidc.default_refresh_token_ttl),
        ("csrfTokenTTL", oidc.csrf_token_ttl),
    )
    for field, value in ttls:
        yield from s.duration(value, f"{at}.{field}")


def _provider(p: sp.OIDCProvider, at: str) -> Findings:
    yield from url(p.issuer, f"{at}.issuer")
    ends = (
        ("authorizationEndpoint", p.authorization_endpoint),
        ("tokenEndpoint", p.token_endpoint),
        ("endSessionEndpoint", p.end_session_endpoint),
    )
    for field, value in ends:
        if value:
            yield from url(value, f"{at}.{field}")
            if not sp.is_endpoint(value):
                says = "is not a URL for Envoy: a host name has letters, digits, - and .; write a space as %20"
                yield no(f"{at}.{field}", f"{value[:80]!r} {says}")
    if bool(p.authorization_endpoint) != bool(p.token_endpoint):
        yield no(at, "give both authorizationEndpoint and tokenEndpoint, or neither: istiod then asks the issuer")
    if p.backend_ref or p.backend_refs:
        yield no(f"{at}.backendRefs", "the provider is reached by its own address; leave this out")


def passed_through(oidc: sp.OIDC, jwt: sp.JWT | None) -> Findings:
    """A request with a token gets past the login, so that each such token must be verified."""
    at = "spec.oidc.passThroughAuthHeader"
    if not oidc.pass_through_auth_header:
        return
    if jwt is None:
        yield no(at, 'without jwt, whoever sends "Authorization: Bearer x" would pass; set spec.jwt, or leave this out')
    elif jwt.providers and not sp.token_headers(jwt):
        yield no(at, "no provider of spec.jwt takes tokens from a header (extractFrom), so that no request would pass")


def _paths(oidc: sp.OIDC) -> Findings:
    """Where the provider sends browsers back to, and where they log out."""
    at = "spec.oidc"
    if oidc.redirect_url:
        yield from s.header_value(oidc.redirect_url, f"{at}.redirectURL")
        if callback(oidc) == "/":
            says = "the path of the address must be one that the application does not have, such as /oauth2/callback"
            yield no(f"{at}.redirectURL", says)
    if oidc.logout_path and not oidc.logout_path.startswith("/"):
        yield no(f"{at}.logoutPath", f'"{oidc.logout_path[:80]}" is not a path: it begins with /')
    if (oidc.logout_path or sp.LOGOUT) == callback(oidc):
        yield no(f"{at}.logoutPath", "it is the path to which the provider sends browsers back")


def callback(oidc: sp.OIDC) -> str:
    """The path of ``redirectURL``, whose scheme and host may be Envoy's variables."""
    _, _, rest = (oidc.redirect_url or sp.REDIRECT).partition("://")
    return "/" + re.split("[?#]", rest.partition("/")[2])[0]
