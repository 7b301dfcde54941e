"""Tokens of end users, verified by Envoy's JWT filter.

A request without a token passes, without a principal; each token that it has must be valid. The filter puts the claims
where authorization and routes look (``xds.claims``), as in Istio, but at sidecars only while something does.

Source: istio.io/istio ``pilot/pkg/security/authn/policy_applier.go``; it differs in two points. Keys that could not be
fetched are no made-up keys but a fetch that fails, so that nobody can have the other half. And where rules look for
tokens in different places, all places count: Istio accepts an invalid token beside a valid one of another issuer, which
the application might then believe.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

from envoy.config.core.v3 import http_uri_pb2
from envoy.config.route.v3 import route_components_pb2 as rc
from envoy.extensions.filters.http.jwt_authn.v3 import config_pb2 as jwt

from lateen.api.security import JWTRule
from lateen.mesh.authentication import Authentication
from lateen.wire import names
from lateen.xds import pb
from lateen.xds.claims import PAYLOAD

SPACE_DELIMITED = ("scope", "permission")
"""Claims that are lists separated by spaces, as in Istio, besides those that a rule names."""
FETCH_S = 1.0
"""Required by Envoy; a request to the black hole fails at once."""
_HEADER, _PARAMETER, _COOKIE = "header", "parameter", "cookie"
Place = tuple[str, str]


def configuration(found: Authentication, gateway: bool, claims: bool = True) -> jwt.JwtAuthentication:
    """``claims``: whether something reads them. To store them costs as much as all the rest of the filter."""
    out = jwt.JwtAuthentication()
    rules = {f"origins-{i}": rule for i, (rule, _) in enumerate(found)}
    for (name, rule), (_, keys) in zip(rules.items(), found, strict=True):
        out.providers[name].CopyFrom(_provider(rule, keys, gateway, PAYLOAD if claims else ""))
    families = _families(rules)
    _add_checks(out, families)
    wanted = frozenset(name for name, rule in rules.items() if rule.presence == "REQUIRED")
    if wanted:
        # A preflight has no credentials, so that it could never get past a rule that wants some. What it has counts:
        # Envoy's own bypass would let it pass with any token, and with headers that say who it is.
        out.rules.add(match=_preflight(), requires=_requirement(families))
    if rules:
        # An empty prefix, so that "*" and the targets of CONNECT are no way around it.
        out.rules.add(requires=_requirement(families, wanted)).match.prefix = ""
    return out


def _preflight() -> rc.RouteMatch:
    """As Envoy's CORS filter knows them, to which an empty header is none."""
    out = rc.RouteMatch(prefix="")
    out.headers.add(name=":method").string_match.exact = "OPTIONS"
    for name in ("origin", "access-control-request-method"):
        out.headers.add(name=name).string_match.safe_regex.regex = r"\C+"
    return out


def claimed_headers(rules: Sequence[JWTRule]) -> tuple[str, ...]:
    """The headers in which routes and applications read what verified tokens say, but for those that tokens are in."""
    claims = {c.header.lower() for rule in rules for c in rule.output_claim_to_headers}
    payloads = {rule.output_payload_to_header.lower() for rule in rules if rule.output_payload_to_header}
    tokens = {name for rule in rules for kind, name in _places(rule) if kind == _HEADER}
    return tuple(sorted((claims | payloads) - tokens))


def required(
    found: Sequence[tuple[JWTRule, str]], places: Sequence[str], optional: bool, again: bool
) -> jwt.JwtAuthentication:
    """A token of one of the issuers, which ``optional`` requests need not have. ``places``: where each one's claims go.
    ``again``: routes are chosen again once the claims are known. Preflights need a token, too: where there are settings
    for other sites, they are answered before."""
    out = jwt.JwtAuthentication()
    rules = {f"origins-{i}": rule for i, (rule, _) in enumerate(found)}
    for (name, rule), (_, keys), place in zip(rules.items(), found, places, strict=True):
        out.providers[name].CopyFrom(_provider(rule, keys, again, place))
    families = _families(rules) if optional else [[list(rules)]]
    _add_checks(out, families)
    out.rules.add(requires=_requirement(families, frozenset() if optional else rules.keys())).match.prefix = ""
    return out


def _provider(rule: JWTRule, keys: str, gateway: bool, place: str = PAYLOAD) -> jwt.JwtProvider:
    out = jwt.JwtProvider(
        issuer=rule.issuer,
        audiences=rule.audiences,
        forward=rule.forward_original_token,
        forward_payload_header=rule.output_payload_to_header,
        from_params=rule.from_params,
        from_cookies=rule.from_cookies,
        payload_in_metadata=place,
        clear_route_cache=gateway,
    )
    for header in rule.from_headers:
        out.from_headers.add(name=header.name, value_prefix=header.prefix)
    for claim in rule.output_claim_to_headers:
        out.claim_to_headers.add(header_name=claim.header, claim_name=claim.claim)
    # Signatures are verified once: until the keys change, Envoy keeps the tokens that were valid, but looks again
    # whether they have expired.
    out.jwt_cache_config.SetInParent()
    if place:
        delimited = dict.fromkeys((*SPACE_DELIMITED, *rule.space_delimited_claims))
        out.normalize_payload_in_metadata.space_delimited_claims.extend(delimited)
    if keys:
        out.local_jwks.inline_string = keys
    else:
        uri = http_uri_pb2.HttpUri(uri="http://no-keys", cluster=names.BLACK_HOLE, timeout=pb.duration(FETCH_S))
        out.remote_jwks.http_uri.CopyFrom(uri)
    return out


# --- what is required ------------------------------------------------------------------------------------------------


def _places(rule: JWTRule) -> set[Place]:
    """Where a rule looks for tokens; without a word of it in the Authorization header and in ``access_token``."""
    out = {(_HEADER, h.name.lower()) for h in rule.from_headers}
    out |= {(_PARAMETER, p) for p in rule.from_params}
    out |= {(_COOKIE, c) for c in rule.from_cookies}
    return out or {(_HEADER, "authorization"), (_PARAMETER, "access_token")}


def _groups(rules: dict[str, JWTRule]) -> list[list[str]]:
    """The rules' names, those together that have places in common: of a token that is there, one of them must be
    right about it, and the others need not."""
    out: list[tuple[set[Place], list[str]]] = []
    for name, rule in rules.items():
        places, together = _places(rule), [name]
        rest = []
        for known, names_ in out:
            if known & places:
                places, together = known | places, names_ + together
            else:
                rest.append((known, names_))
        out = [*rest, (places, together)]
    return [together for _, together in out]


def _families(rules: dict[str, JWTRule]) -> list[list[list[str]]]:
    """The groups, those together that write into the same headers."""
    out: list[tuple[set[str], list[list[str]]]] = []
    for group in _groups(rules):
        headers, together = set(claimed_headers([rules[name] for name in group])), [group]
        rest = []
        for known, groups in out:
            if known & headers:
                headers, together = known | headers, [*groups, *together]
            else:
                rest.append((known, groups))
        out = [*rest, (headers, together)]
    return [together for _, together in out]


def _add_checks(out: jwt.JwtAuthentication, families: list[list[list[str]]]) -> None:
    """For groups that write into the same headers: providers that write nothing, and leave tokens where they are."""
    for name in (name for family in families if len(family) > 1 for group in family for name in group):
        made = out.providers[_checked(name)]
        made.CopyFrom(out.providers[name])
        made.forward = True
        for field in ("claim_to_headers", "forward_payload_header", "payload_in_metadata"):
            made.ClearField(field)


def _checked(name: str) -> str:
    return f"{name}-checked"


def _requirement(families: list[list[list[str]]], wanted: Set[str] = frozenset()) -> jwt.JwtRequirement:
    """``wanted``: the rules of which a token must be there, or of another rule of the same group."""
    return _all([one for family in families for one in _of_family(family, wanted)])


def _of_family(family: list[list[str]], wanted: Set[str]) -> Iterator[jwt.JwtRequirement]:
    """Envoy takes away the headers of each rule that it looks at, also those that the token of another group has just
    been written into. So such groups are first only checked; then the first valid token is written, as in Istio."""
    if len(family) > 1:
        for group in family:
            yield _group([_checked(name) for name in group], not wanted.isdisjoint(group))
    every = [name for group in family for name in group]
    yield _group(every, not wanted.isdisjoint(every))


def _group(group: list[str], required: bool) -> jwt.JwtRequirement:
    """A token of one of the issuers, or unless it is required none."""
    each = [jwt.JwtRequirement(provider_name=name) for name in group]
    if required:
        return _any(each)
    absent = _missing()
    # Envoy's own "or missing" of several providers looks at the last token alone, so each provider has its own.
    return _any([*each, absent if len(each) == 1 else _all([_any([one, absent]) for one in each])])


def _missing() -> jwt.JwtRequirement:
    out = jwt.JwtRequirement()
    out.allow_missing.SetInParent()
    return out


def _any(found: Sequence[jwt.JwtRequirement]) -> jwt.JwtRequirement:
    """Envoy's "or" needs at least two."""
    if len(found) == 1:
        return found[0]
    return jwt.JwtRequirement(requires_any=jwt.JwtRequirementOrList(requirements=found))


def _all(found: Sequence[jwt.JwtRequirement]) -> jwt.JwtRequirement:
    if len(found) == 1:
        return found[0]
    return jwt.JwtRequirement(requires_all=jwt.JwtRequirementAndList(requirements=found))
