"""Validation rules of SecurityPolicy.

Source: the markers and CEL rules of https://gateway.envoyproxy.io/docs/api/extension_types/#securitypolicy, and what
Envoy's filters can do.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from lateen.api import envoy_gateway as eg
from lateen.api import security_policy as sp
from lateen.api.validate import scalars as s
from lateen.api.validate.findings import Findings, no, warn
from lateen.api.validate.policy_targets import targets
from lateen.api.validate.security import key_set, places, url
from lateen.api.validate.security_policy_logins import COOKIE, named, oidc_login, passed_through, secret
from lateen.kit.jsons import Json

MAX_RULES = 64
MAX_ORIGIN = 253
"""Bytes of an origin, as in the CRD of Envoy Gateway"""
MAX_KEY_NAME = 1024
"""Characters of the name of a header, parameter or cookie with an API key, in Envoy"""
_ORIGIN = re.compile(
    r"\*|https?://(\*|(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(:(\*|[0-9]{1,5}))?"
)
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
PARTS = ("cors", "apiKeyAuth", "basicAuth", "jwt", "oidc", "extAuth", "authorization")


def security_policy(policy: sp.SecurityPolicy, meta: Json) -> Findings:
    yield from targets(policy)
    if policy == sp.SecurityPolicy(
        target_ref=policy.target_ref,
        target_refs=policy.target_refs,
        target_selectors=policy.target_selectors,
        merge_type=policy.merge_type,
    ):
        yield no("spec", f"the policy asks for nothing; give one of {', '.join(PARTS)}")
    own = str(meta.get("namespace") or "")
    if policy.cors is not None:
        yield from _cors(policy.cors)
    if policy.api_key_auth is not None:
        yield from _api_keys(policy.api_key_auth, own)
    if policy.basic_auth is not None:
        yield from _basic(policy.basic_auth, own)
    if policy.jwt is not None:
        yield from _jwt(policy.jwt)
    if policy.oidc is not None:
        yield from oidc_login(policy.oidc, own)
        yield from passed_through(policy.oidc, policy.jwt)
    if policy.ext_auth is not None:
        yield from _ext_auth(policy.ext_auth, own)
    if policy.authorization is not None:
        yield from _authorization(policy.authorization, policy.jwt)
    yield from _less_than_hoped(policy)


def _less_than_hoped(policy: sp.SecurityPolicy) -> Findings:
    """What is accepted, but protects less than it seems to."""
    if any(ref.kind == "Service" for ref in eg.targets(policy)):
        for i, rule in enumerate(policy.authorization.rules if policy.authorization else ()):
            if rule.principal and rule.principal.client_cidrs:
                says = (
                    "at a Service, every caller inside of the mesh can set X-Forwarded-For, from which the address is "
                    "taken; use ipBlocks of an AuthorizationPolicy for the address of the connection"
                )
                yield warn(f"spec.authorization.rules[{i}].principal.clientCIDRs", says)
    if (cookies := policy.oidc and policy.oidc.cookie_config) and cookies.same_site == "Strict":
        says = (
            "browsers do not send these cookies when they come back from a provider of another site (another "
            "registrable domain), so that its logins never end; Lax is the default"
        )
        yield warn("spec.oidc.cookieConfig.sameSite", says)
    if (
        policy.ext_auth
        and policy.ext_auth.fail_open
        and policy.ext_auth.http
        and policy.ext_auth.http.headers_to_backend
    ):
        says = (
            "while the authorization service does not answer, requests pass with what clients write into the headers "
            "of headersToBackend"
        )
        yield warn("spec.extAuth.failOpen", says)
    anew = [
        (f"jwt.providers[{i}]", p.recompute_route) for i, p in enumerate(policy.jwt.providers if policy.jwt else ())
    ]
    anew += [("extAuth", policy.ext_auth.recompute_route)] if policy.ext_auth else []
    for at, again in anew:
        if again:
            says = "a request whose route is chosen anew keeps the policy of its first route, not that of the new one"
            yield warn(f"spec.{at}.recomputeRoute", says)


def _cors(cors: sp.CORS) -> Findings:
    at = "spec.cors"
    for i, origin in enumerate(cors.allow_origins):
        yield from s.compared(origin, f"{at}.allowOrigins[{i}]", MAX_ORIGIN)
        if not _ORIGIN.fullmatch(origin):
            says = f'"{origin[:80]}" is not an origin: https://shop.example.com, https://*.example.com, or *'
            yield no(f"{at}.allowOrigins[{i}]", says)
        elif origin == "*" and cors.allow_credentials:
            says = "with allowCredentials, every site could act as the user who visits it; name the origins"
            yield no(f"{at}.allowOrigins[{i}]", says)
    for i, method in enumerate(cors.allow_methods):
        if method != "*" and not (method.isascii() and method.isalpha()):
            yield no(f"{at}.allowMethods[{i}]", f'"{method[:80]}" is not a method such as GET, or *')
    for field, found in (("allowHeaders", cors.allow_headers), ("exposeHeaders", cors.expose_headers)):
        for i, name in enumerate(found):
            if name != "*":
                yield from s.header_name(name, f"{at}.{field}[{i}]")
    yield from s.duration(cors.max_age, f"{at}.maxAge")


def _api_keys(auth: sp.APIKeyAuth, own: str) -> Findings:
    at = "spec.apiKeyAuth"
    if not auth.credential_refs:
        yield no(f"{at}.credentialRefs", "name at least one Secret, whose entries are clients and their keys")
    for i, ref in enumerate(auth.credential_refs):
        yield from secret(ref, f"{at}.credentialRefs[{i}]", own)
    if not auth.extract_from:
        yield no(f"{at}.extractFrom", "say where requests have their key: [{headers: [x-api-key]}]")
    for i, place in enumerate(auth.extract_from):
        where = f"{at}.extractFrom[{i}]"
        if place == sp.KeySource():
            yield no(where, "give headers, params or cookies")
        for k, name in enumerate(place.headers):
            yield from _key_header(name, f"{where}.headers[{k}]")
        yield from named(place.params, f"{where}.params", "parameter")
        for k, name in enumerate(place.params):
            yield from s.plain_value(name, f"{where}.params[{k}]")
            yield from _short(name, f"{where}.params[{k}]")
        for k, name in enumerate(place.cookies):
            if not COOKIE.fullmatch(name):
                yield no(f"{where}.cookies[{k}]", f"{name[:80]!r} is not the name of a cookie")
    if auth.forward_client_id_header:
        yield from _key_header(auth.forward_client_id_header, f"{at}.forwardClientIDHeader")


def _key_header(name: str, at: str) -> Findings:
    yield from s.header_name(name, at)
    yield from _short(name, at)


def _short(name: str, at: str) -> Findings:
    if len(name) > MAX_KEY_NAME:
        yield no(at, f"must have at most {MAX_KEY_NAME} characters, has {len(name)}")


def _basic(auth: sp.BasicAuth, own: str) -> Findings:
    yield from secret(auth.users, "spec.basicAuth.users", own)
    if auth.forward_username_header:
        yield from s.header_name(auth.forward_username_header, "spec.basicAuth.forwardUsernameHeader")


def _jwt(jwt: sp.JWT) -> Findings:
    if not jwt.providers:
        yield no("spec.jwt.providers", "give at least one provider, with its name and keys")
    for name, times in Counter(p.name for p in jwt.providers).items():
        if times > 1:
            yield no("spec.jwt.providers", f'the name "{name}" is there {times} times')
    for i, p in enumerate(jwt.providers):
        at = f"spec.jwt.providers[{i}]"
        if not p.name:
            yield no(f"{at}.name", "the provider needs a name")
        yield from _keys(p, at)
        yield from named(p.audiences, f"{at}.audiences", "audience")
        for k, c in enumerate(p.claim_to_headers):
            if not c.claim:
                yield no(f"{at}.claimToHeaders[{k}].claim", "the name of the claim is empty")
            yield from s.strict_header_name(c.header, f"{at}.claimToHeaders[{k}].header")
        if p.extract_from is not None:
            yield from _tokens(p.extract_from, f"{at}.extractFrom")


def _tokens(given: sp.TokenSource, at: str) -> Findings:
    for i, h in enumerate(given.headers):
        yield from s.header_name(h.name, f"{at}.headers[{i}].name")
        yield from s.plain_value(h.value_prefix, f"{at}.headers[{i}].valuePrefix")
    yield from named(given.cookies, f"{at}.cookies", "cookie")
    yield from named(given.params, f"{at}.params", "parameter")
    yield from places(given.cookies, f"{at}.cookies")
    yield from places(given.params, f"{at}.params")


def _keys(p: sp.JWTProvider, at: str) -> Findings:
    if (p.remote_jwks is None) == (p.local_jwks is None):
        yield no(at, "give either remoteJWKS (an address from which istiod fetches the keys) or localJWKS (the keys)")
    if p.remote_jwks is not None:
        yield from url(p.remote_jwks.uri, f"{at}.remoteJWKS.uri")
        if p.remote_jwks.backend_ref or p.remote_jwks.backend_refs:
            yield no(f"{at}.remoteJWKS.backendRefs", "istiod fetches the keys from uri itself; leave this out")
    if p.local_jwks is not None:
        if p.local_jwks.type != "Inline" or p.local_jwks.value_ref:
            yield no(f"{at}.localJWKS.valueRef", "keys in a ConfigMap are not implemented; write them into inline")
        elif not p.local_jwks.inline:
            yield no(f"{at}.localJWKS.inline", "the keys are missing")
        else:
            yield from key_set(p.local_jwks.inline, f"{at}.localJWKS.inline")


def _ext_auth(ext: sp.ExtAuth, own: str) -> Findings:
    at = "spec.extAuth"
    asked: tuple[tuple[str, Any], ...] = (("grpc", ext.grpc), ("http", ext.http))
    found = [(name, given) for name, given in asked if given is not None]
    if len(found) != 1:
        yield no(at, "one of grpc or http must be specified")
    for name, given in found:
        if (given.backend_ref is not None and given.backend_refs) or len(given.backend_refs) > 1:
            yield no(f"{at}.{name}.backendRefs", "one service is asked; name one")
        backend = sp.backend(given)
        if backend is None:
            yield no(f"{at}.{name}.backendRefs", "name the service that is asked, with its port")
            continue
        if backend.group not in ("", "core") or backend.kind != "Service":
            yield no(f"{at}.{name}.backendRefs", f"a {backend.kind} cannot be used here; name a Service")
        if not backend.name:
            yield no(f"{at}.{name}.backendRefs", "the name of the Service is missing")
        if backend.namespace and own and backend.namespace != own:
            yield no(f"{at}.{name}.backendRefs", "the Service must be in the policy's own namespace")
        yield from s.port(backend.port, f"{at}.{name}.backendRefs")
    for i, header in enumerate(ext.headers_to_ext_auth):
        yield from _whole_name(header, f"{at}.headersToExtAuth[{i}]")
    if ext.http is not None:
        for i, header in enumerate(ext.http.headers_to_backend):
            yield from _whole_name(header, f"{at}.http.headersToBackend[{i}]")
        if ext.http.path and not ext.http.path.startswith("/"):
            yield no(f"{at}.http.path", f'"{ext.http.path[:80]}" is not a path: it begins with /')
    if ext.body_to_ext_auth is not None and ext.body_to_ext_auth.max_request_bytes < 1:
        yield no(f"{at}.bodyToExtAuth.maxRequestBytes", "must be at least 1")
    if ext.status_on_error is not None:
        yield from s.status(ext.status_on_error, f"{at}.statusOnError")
    yield from s.duration(ext.timeout, f"{at}.timeout")


def _whole_name(header: str, at: str) -> Findings:
    yield from s.header_name(header, at)
    if "*" in header:
        yield no(at, f'"{header[:80]}" is no pattern: name each header')


def _authorization(given: sp.Authorization, jwt: sp.JWT | None) -> Findings:
    at = "spec.authorization"
    if len(given.rules) > MAX_RULES:
        yield no(f"{at}.rules", f"must have at most {MAX_RULES} items, has {len(given.rules)}")
    for i, rule in enumerate(given.rules):
        where = f"{at}.rules[{i}]"
        p = rule.principal
        if p is None and rule.operation is None:
            yield no(where, "at least one of operation or principal must be specified")
        for k, method in enumerate(rule.operation.methods if rule.operation else ()):
            if method not in _METHODS:
                yield no(f"{where}.operation.methods[{k}]", f'"{method[:80]}" is not one of {", ".join(_METHODS)}')
        if rule.operation is not None and not rule.operation.methods:
            yield no(f"{where}.operation.methods", "name at least one method")
        if p is not None:
            yield from _principal(p, f"{where}.principal", jwt)


def _principal(p: sp.Principal, at: str, jwt: sp.JWT | None) -> Findings:
    if p.source_cidrs:
        says = "not implemented; use ipBlocks of an AuthorizationPolicy for the address of the connection"
        yield no(f"{at}.sourceCIDRs", says)
    if p.client_ip_geo_locations:
        yield no(f"{at}.clientIPGeoLocations", "not implemented: Lateen has no table of the places of addresses")
    if not (p.client_cidrs or p.jwt or p.headers):
        yield no(at, "at least one of clientCIDRs, jwt, or headers must be specified")
    for i, block in enumerate(p.client_cidrs):
        yield from s.cidr(block, f"{at}.clientCIDRs[{i}]")
    for i, header in enumerate(p.headers):
        yield from s.header_name(header.name, f"{at}.headers[{i}].name")
        if not header.values:
            yield no(f"{at}.headers[{i}].values", "give at least one value")
        for k, value in enumerate(header.values):
            yield from s.compared(value, f"{at}.headers[{i}].values[{k}]")
    if p.jwt is not None:
        yield from _token(p.jwt, f"{at}.jwt", jwt)


def _token(given: sp.JWTPrincipal, at: str, jwt: sp.JWT | None) -> Findings:
    if given.provider not in {p.name for p in (jwt.providers if jwt else ())}:
        yield no(f"{at}.provider", f'"{given.provider[:80]}" is not the name of a provider in spec.jwt.providers')
    if not given.claims and not given.scopes:
        yield no(at, "at least one of claims or scopes must be specified")
    for i, claim in enumerate(given.claims):
        if not claim.name or not all(claim.name.split(".")):
            yield no(f"{at}.claims[{i}].name", f'"{claim.name[:80]}" is not the name of a claim')
        if not claim.values:
            yield no(f"{at}.claims[{i}].values", "give at least one value")
    yield from named(given.scopes, f"{at}.scopes", "scope")
