"""SecurityPolicies in Envoy: the configuration of one filter for each part of a policy.

A part that cannot be enforced rejects all requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.route.v3 import route_components_pb2 as rc
from envoy.extensions.filters.http.api_key_auth.v3 import api_key_auth_pb2 as keys_pb2
from envoy.extensions.filters.http.basic_auth.v3 import basic_auth_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.oauth2.v3 import oauth_pb2 as oauth
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac
from envoy.type.matcher.v3 import metadata_pb2, string_pb2, value_pb2
from google.protobuf import any_pb2

from lateen.api import security_policy as sp
from lateen.kit.derived import derived
from lateen.kit.regex import escape
from lateen.mesh.secured import Policy, Secured
from lateen.wire.names import BASIC, KEYS, LOGIN, SECURITY, secured
from lateen.xds import claims, jwt, oidc, pb, security_rules
from lateen.xds.authz import filters, matchers
from lateen.xds.authz.tokens import Places, places, unverified

CORS = f"{SECURITY}.cors"
"""The CORS filter of SecurityPolicies: not a slot, since its settings belong to routes"""
EXT, JWT, RULES = (f"{SECURITY}.{n}" for n in ("ext", "jwt", "rules"))
OIDC = LOGIN
GATE = f"{SECURITY}.gate"
"""At gateways: blocks a policy's routes on listeners that do not have the policy's filters yet"""
AROUND = ("first", "then")
"""Before and after logins"""
RULED = "rules"
"""The slot of rules, which comes after RequestAuthentications, AuthorizationPolicies and plugins of these phases"""
_FIELDS = {KEYS: "apiKeyAuth", BASIC: "basicAuth", EXT: "extAuth", OIDC: "oidc", JWT: "jwt", RULES: "authorization"}
PARTS = tuple(_FIELDS)
"""In the order in which they run: authentication, then authorization"""


def parts(found: Secured) -> tuple[str, ...]:
    """The parts that a policy has."""
    spec = found.policy.spec
    has = {
        KEYS: spec.api_key_auth,
        BASIC: spec.basic_auth,
        EXT: spec.ext_auth,
        OIDC: spec.oidc,
        JWT: spec.jwt,
        RULES: spec.authorization or any(_places(found)) or None,
    }
    return tuple(part for part in PARTS if has[part] is not None)


def around(logins: bool) -> tuple[tuple[str, ...], ...]:
    """The parts in each slot; the last slot is that of the rules. In its slot, the question to an authorization service
    comes last (``filters.several``)."""
    return ((KEYS, BASIC, EXT), (JWT,), (RULES,)) if logins else ((KEYS, BASIC, JWT, EXT), (RULES,))


def named(found: Secured, part: str) -> str:
    """The filter of one part of a policy."""
    return secured(part, found.policy.ref.namespace, found.policy.ref.name)


def login(found: Secured) -> str:
    return named(found, OIDC)


def slots(found: Secured) -> tuple[str, ...]:
    """The filters of a policy at gateways, in order; the last is the slot of its rules."""
    place = named(found, SECURITY)
    ruled = f"{place}/{RULED}"
    if not found.policy.spec.oidc:
        return place, ruled
    first, then = (f"{place}/{when}" for when in AROUND)
    return first, login(found), then, ruled


@derived
def config(found: Secured, part: str, gateway: bool) -> any_pb2.Any:
    spec = found.policy.spec
    if found.why_broken(_FIELDS[part]):
        return pb.any_of(nobody(found.policy, part))
    made: Any = http_rbac.RBAC()  # without the part: allows everything
    if part == EXT and found.provider is not None and spec.ext_auth:
        made = _asked(found, spec.ext_auth)
    elif part == KEYS and spec.api_key_auth:
        made = _keys(found, spec.api_key_auth)
    elif part == BASIC and spec.basic_auth:
        made = _users(found, spec.basic_auth)
    elif part == OIDC and found.login is not None and spec.oidc:
        made = oauth.OAuth2(config=oidc.config(found.policy, found.login, spec.oidc))
    elif part == JWT and spec.jwt:
        again, read = gateway and chooses_again(spec), providers_read(spec)
        places = [security_rules.payload(found.policy, p.name) if p.name in read else "" for p in spec.jwt.providers]
        made = jwt.required(found.tokens, places, spec.jwt.optional, again)
    elif part == RULES:
        made = security_rules.rules(found.policy, spec.authorization or sp.Authorization(default_action="Allow"))
        for name, policy in unverified(_places(found)):
            made.rules.policies[f"{security_rules.called(found.policy)}-{name}"].CopyFrom(policy)
    return pb.any_of(made)


def _places(found: Secured) -> Places:
    """Where tokens are looked for, and the headers that say to applications who it is."""
    spec, given = found.policy.spec, places(rule for rule, _ in found.tokens)
    headers = (
        spec.api_key_auth.forward_client_id_header if spec.api_key_auth else "",
        spec.basic_auth.forward_username_header if spec.basic_auth else "",
        *(spec.ext_auth.http.headers_to_backend if spec.ext_auth and spec.ext_auth.http else ()),
    )
    return given.and_written(headers)


def providers_read(spec: sp.SecurityPolicy) -> frozenset[str]:
    """The providers whose tokens the policy's rules read; to store the claims of others costs as much as to verify
    them."""
    rules = spec.authorization.rules if spec.authorization else ()
    return frozenset(r.principal.jwt.provider for r in rules if r.principal and r.principal.jwt)


def chooses_again(spec: sp.SecurityPolicy) -> bool:
    """Whether, at a gateway, routes are chosen again once the claims of tokens are known."""
    return spec.jwt is not None and any(p.recompute_route for p in spec.jwt.providers)


def nobody(policy: Policy, part: str) -> http_rbac.RBAC:
    out = http_rbac.RBAC()
    out.rules.action = rbac_pb2.RBAC.DENY
    out.rules.policies[f"{security_rules.called(policy)}-{_FIELDS[part]}-broken"].CopyFrom(_always())
    return out


def _always() -> rbac_pb2.Policy:
    out = rbac_pb2.Policy()
    out.permissions.add(any=True)
    out.principals.add(any=True)
    return out


# --- authentication
# -------------------------------------------------------------------------------------------------------


def _asked(found: Secured, ext: sp.ExtAuth) -> Any:
    assert found.provider is not None
    out = filters.asking(found.provider)
    if ext.headers_to_ext_auth:
        wanted = (string_pb2.StringMatcher(exact=h, ignore_case=True) for h in ext.headers_to_ext_auth)
        out.allowed_headers.patterns.extend(wanted)
    return out


def _keys(found: Secured, auth: sp.APIKeyAuth) -> Any:
    out = keys_pb2.ApiKeyAuth()
    for client, key in found.keys:
        out.credentials.add(client=client, key=key)
    for place in auth.extract_from:
        out.key_sources.extend(keys_pb2.KeySource(header=h) for h in place.headers)
        out.key_sources.extend(keys_pb2.KeySource(query=p) for p in place.params)
        out.key_sources.extend(keys_pb2.KeySource(cookie=c) for c in place.cookies)
    if auth.forward_client_id_header:
        out.forwarding.header = auth.forward_client_id_header
    out.forwarding.hide_credentials = auth.sanitize
    return out


def _users(found: Secured, auth: sp.BasicAuth) -> Any:
    users = base_pb2.DataSource(inline_string=found.users)
    return basic_auth_pb2.BasicAuth(users=users, forward_username_header=auth.forward_username_header)


# --- CORS ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def cors(given: sp.CORS) -> any_pb2.Any:
    out = cors_pb2.CorsPolicy(
        allow_origin_string_match=map(_origin, given.allow_origins),
        allow_methods=",".join(given.allow_methods),
        allow_headers=",".join(given.allow_headers),
        expose_headers=",".join(given.expose_headers),
        max_age=str(int(given.max_age.seconds)) if given.max_age else "",
    )
    if given.allow_credentials is not None:
        out.allow_credentials.value = given.allow_credentials
    # A preflight that does not match goes on to the parts that want credentials, which it never has.
    out.forward_not_matching_preflights.value = False
    out.filter_enabled.default_value.CopyFrom(pb.percent(100))
    return pb.any_of(out)


def _origin(text: str) -> string_pb2.StringMatcher:
    """A star in the place of a name is any name below; in the place of a port, any port; alone, whatever comes."""
    if "*" not in text:
        return string_pb2.StringMatcher(exact=text)
    if text == "*":
        return matchers.regex(".*")
    scheme, _, rest = text.partition("://")
    if rest == "*":
        return matchers.regex(f"{scheme}://.*")
    host, colon, port = rest.rpartition(":") if rest.endswith(":*") else (rest, "", "")
    pattern = "".join("[^/:]+" if c == "*" else escape(c) for c in host)
    return matchers.regex(f"{scheme}://{pattern}" + (":[0-9]+" if colon and port == "*" else ""))


# --- routes -----------------------------------------------------------------------------------------------------------

_CORS_OF_ROUTES = "envoy.filters.http.cors"
_SLOTS = "slots"
"""In the metadata of a route: those of its policies"""
_ON = pb.any_of(rc.FilterConfig(config=any_pb2.Any()))


def on_routes(found: Sequence[Secured], routes: Iterable[Any]) -> Iterator[Any]:
    """At a gateway. The routes are shared, so those with a policy are others."""
    for route in routes:
        made = route
        if found:
            made = rc.Route()
            made.CopyFrom(route)
            for name in (GATE, *(n for one in found for n in slots(one))):
                made.typed_per_filter_config[name].CopyFrom(_ON)
            made.metadata.MergeFrom(pb.metadata(**{SECURITY: {_SLOTS: together(found)}}))
            if _CORS_OF_ROUTES in made.typed_per_filter_config:  # preflight requests are answered before authentication
                made.typed_per_filter_config[CORS].CopyFrom(made.typed_per_filter_config[_CORS_OF_ROUTES])
            across(made, found)
        yield made


def together(found: Iterable[Secured]) -> str:
    """The slots of a route's policies."""
    return " ".join(n for one in found for n in slots(one))


def gate(known: Iterable[str]) -> http_rbac.RBAC:
    """Blocks all routes except those with the ``known`` slots (``together``)."""
    out = http_rbac.RBAC()
    out.rules.action = rbac_pb2.RBAC.DENY
    denied = out.rules.policies["listener-from-before-the-SecurityPolicy"]
    denied.permissions.add(any=True)
    values = [value_pb2.ValueMatcher(string_match=string_pb2.StringMatcher(exact=one)) for one in known]
    if not values:
        denied.principals.add(any=True)
        return out
    path = [metadata_pb2.MetadataMatcher.PathSegment(key=_SLOTS)]
    matcher = metadata_pb2.MetadataMatcher(filter=SECURITY, path=path, value=claims.any_of(values))
    here = rbac_pb2.SourcedMetadata(metadata_matcher=matcher, metadata_source="ROUTE")
    denied.principals.add(not_id=rbac_pb2.Principal(sourced_metadata=here))
    return out


def across(route: Any, found: Iterable[Secured]) -> None:
    """The CORS settings of a route: those of the oldest policy that has some."""
    if given := next((one.policy.spec.cors for one in found if one.policy.spec.cors), None):
        route.typed_per_filter_config[CORS].CopyFrom(cors(given))
