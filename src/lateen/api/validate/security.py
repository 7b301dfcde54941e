"""The rules of PeerAuthentication and RequestAuthentication between their fields; AuthorizationPolicy has a module of
its own.

Source: istio.io/istio ``pkg/config/validation/validation.go`` and the CEL rules of the CRDs.
"""

from __future__ import annotations

import contextlib
import urllib.parse

from lateen.api import security as sec
from lateen.api.validate import scalars as s
from lateen.api.validate.common import selector, target_refs
from lateen.api.validate.findings import Findings, hint, no
from lateen.kit import addresses, jwks
from lateen.kit.digits import digits
from lateen.kit.jsons import Json

MAX_URI, MAX_CLAIMS = 2048, 64
MAX_PLACES, MAX_PLACE = 16, 256
"""The most parameters, or cookies, in which one rule looks for tokens, and the most bytes of a name: proxies have a
regular expression for each."""


def peer_authentication(pa: sec.PeerAuthentication, _: Json) -> Findings:
    yield from selector(pa.selector)
    if pa.port_level_mtls and not (pa.selector and pa.selector.match_labels):
        says = "mesh/namespace peer authentication cannot have port level mTLS"
        yield no("spec.portLevelMtls", f"{says}; give a selector with matchLabels")
    for key in pa.port_level_mtls:
        if not (digits(key) and 1 <= int(key) <= 65535):
            yield no(f"spec.portLevelMtls[{key}]", f'port must be in range 1..65535, is "{key}"')


def request_authentication(ra: sec.RequestAuthentication, _: Json) -> Findings:
    yield from selector(ra.selector)
    yield from target_refs(ra.target_ref, ra.target_refs, ra.selector is not None)
    for i, rule in enumerate(ra.jwt_rules):
        yield from _jwt(rule, f"spec.jwtRules[{i}]")


def _jwt(r: sec.JWTRule, at: str) -> Findings:
    if not r.issuer and not (r.jwks_uri or r.jwks_uri_old):
        yield no(f"{at}.issuer", "issuer or jwksUri must be non-empty string")
    yield from _full(r.audiences, f"{at}.audiences", "audience")
    yield from _keys(r, at)
    for i, h in enumerate(r.from_headers):
        where = f"{at}.fromHeaders[{i}]"
        if not h.name:
            yield no(f"{where}.name", "location header name must be non-empty string")
        else:
            yield from s.header_name(h.name, f"{where}.name")
        yield from s.plain_value(h.prefix, f"{where}.prefix")
    yield from _full(r.from_params, f"{at}.fromParams", "location query")
    yield from _full(r.from_cookies, f"{at}.fromCookies", "cookie name")
    yield from places(r.from_params, f"{at}.fromParams")
    yield from places(r.from_cookies, f"{at}.fromCookies")
    if r.output_payload_to_header:
        yield from s.header_name(r.output_payload_to_header, f"{at}.outputPayloadToHeader")
    yield from _claims(r, at)
    yield from s.duration(r.timeout, f"{at}.timeout")


def places(names: tuple[str, ...], at: str) -> Findings:
    """``names``: of parameters or cookies with tokens."""
    for i, name in enumerate(names):
        yield from s.compared(name, f"{at}[{i}]", MAX_PLACE)
    if len(names) > MAX_PLACES:
        yield no(at, f"must have at most {MAX_PLACES} items, has {len(names)}")


def _full(given: tuple[str, ...], at: str, what: str) -> Findings:
    for i, text in enumerate(given):
        if not text:
            yield no(f"{at}[{i}]", f"{what} must be non-empty string")


def _keys(r: sec.JWTRule, at: str) -> Findings:
    uri = r.jwks_uri or r.jwks_uri_old
    if (uri and r.jwks) or (r.jwks_uri and r.jwks_uri_old):
        yield no(at, "only one of jwks or jwksUri can be set")
    if uri:
        yield from url(uri, f"{at}.jwksUri")
    if r.jwks:
        yield from key_set(r.jwks, f"{at}.jwks")
    elif not uri and r.issuer and not r.issuer.startswith(("https://", "http://")):
        says = (
            "the issuer is no URL by which keys could be found, so all of its tokens are rejected; give jwks or jwksUri"
        )
        yield hint(f"{at}.issuer", says)


def url(uri: str, at: str) -> Findings:
    """From which istiod fetches."""
    if len(uri) > MAX_URI:
        yield no(at, f"may not be longer than {MAX_URI}")
        return
    try:
        parts = urllib.parse.urlsplit(uri)
        _ = parts.port
    except ValueError as e:
        yield no(at, f'"{uri[:80]}" is not a URL: {e}')
        return
    if parts.scheme not in ("http", "https"):
        yield no(at, f'URI scheme "{parts.scheme}" is not supported; url must have scheme http:// or https://')
    elif not parts.hostname:
        yield no(at, f'"{uri[:80]}" names no host')
    else:
        with contextlib.suppress(ValueError):  # a name is looked up when the keys are fetched
            if why := addresses.refused(parts.hostname):
                yield hint(
                    at, f"istiod does not fetch from {parts.hostname}: {why}; all tokens of the issuer are rejected"
                )


def _claims(r: sec.JWTRule, at: str) -> Findings:
    for i, c in enumerate(r.output_claim_to_headers):
        where = f"{at}.outputClaimToHeaders[{i}]"
        if not c.header or not c.claim:
            yield no(where, "outputClaimToHeaders header and claim value must be non-empty string")
        else:
            yield from s.strict_header_name(c.header, f"{where}.header")
    yield from _full(r.space_delimited_claims, f"{at}.spaceDelimitedClaims", "claim")
    if len(r.space_delimited_claims) > MAX_CLAIMS:
        yield no(f"{at}.spaceDelimitedClaims", f"must have at most {MAX_CLAIMS} items")


def key_set(text: str, at: str) -> Findings:
    try:
        kept, wrong = jwks.examine(text)
    except ValueError as e:
        yield no(at, f"jwks parse error: {e}")
        return
    if not kept:
        yield no(at, f"jwks parse error: {wrong[0] if wrong else 'there is no key in it'}")
        return
    for says in wrong:
        yield hint(at, f"{says}; it is left out")
