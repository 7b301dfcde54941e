"""The authorization rules of SecurityPolicies as an RBAC filter of Envoy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.route.v3 import route_components_pb2 as rc
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac
from envoy.type.matcher.v3 import string_pb2

from lateen.api import security_policy as sp
from lateen.mesh.secured import Policy
from lateen.xds import claims, jwt
from lateen.xds.authz import matchers, spellings
from lateen.xds.authz.shorter import shorter


def called(policy: Policy) -> str:
    """The policy's name in logs, in the form of Istio's policies."""
    return f"ns[{policy.ref.namespace}]-policy[SecurityPolicy/{policy.ref.name}]"


def payload(policy: Policy, provider: str) -> str:
    """The metadata key for the claims of a provider's tokens, separate for each policy and provider."""
    return f"{policy.ref.namespace}/{policy.ref.name}/{provider}"


def rules(policy: Policy, given: sp.Authorization) -> http_rbac.RBAC:
    """The first rule that matches decides. Written as what is denied, so that each denial names its rule: what a rule
    denies that no earlier one allows; and by default, what none allows."""
    out = rbac_pb2.RBAC(action="DENY")
    allowed: list[rbac_pb2.Principal] = []
    for i, rule in enumerate(given.rules):
        matched = rbac_pb2.Principal(and_ids=rbac_pb2.Principal.Set(ids=list(_conditions(policy, rule))))
        if rule.action == "Allow":
            allowed.append(matched)
        else:
            out.policies[f"{called(policy)}-rule[{rule.name or i}]"].CopyFrom(_denial(matched, allowed))
    if given.default_action == "Deny":
        anybody = rbac_pb2.Principal(any=True)
        out.policies[f"{called(policy)}-rule[default]"].CopyFrom(_denial(anybody, allowed))
    return http_rbac.RBAC(rules=shorter(out))


def _denial(matched: rbac_pb2.Principal, allowed: Iterable[rbac_pb2.Principal]) -> rbac_pb2.Policy:
    out = rbac_pb2.Policy()
    out.permissions.add(any=True)
    others = [rbac_pb2.Principal(not_id=one) for one in allowed]
    out.principals.add(and_ids=rbac_pb2.Principal.Set(ids=[matched, *others]))
    return out


def _conditions(policy: Policy, rule: sp.AuthorizationRule) -> Iterator[rbac_pb2.Principal]:
    if rule.operation is not None:
        yield _one_of(matchers.request_header(":method", m) for m in rule.operation.methods)
    p = rule.principal or sp.Principal()
    if p.client_cidrs:
        yield _one_of(matchers.remote_ip(block) for block in p.client_cidrs)
    for header in p.headers:
        one = _header if rule.action == "Allow" else spellings.header_with
        yield _one_of(one(header.name, value) for value in header.values)
    if p.jwt is not None:
        yield from _token(policy, p.jwt)


def _one_of(given: Iterable[rbac_pb2.Principal]) -> rbac_pb2.Principal:
    return rbac_pb2.Principal(or_ids=rbac_pb2.Principal.Set(ids=list(given)))


def _header(name: str, value: str) -> rbac_pb2.Principal:
    """A header with exactly this value: a star is literal."""
    exact = string_pb2.StringMatcher(exact=value)
    return rbac_pb2.Principal(header=rc.HeaderMatcher(name=name, string_match=exact))


def _token(policy: Policy, wanted: sp.JWTPrincipal) -> Iterator[rbac_pb2.Principal]:
    place = payload(policy, wanted.provider)
    for scope in wanted.scopes:
        matched = claims.one_of(("scope",), [string_pb2.StringMatcher(exact=scope)], place)
        yield rbac_pb2.Principal(metadata=matched)
    for claim in wanted.claims:
        values = [string_pb2.StringMatcher(exact=v) for v in claim.values]
        path = claim.name.split(".")
        # the JWT filter splits some strings into lists
        lists = claim.value_type == "StringArray" or path[0] in jwt.SPACE_DELIMITED
        found = claims.one_of(path, values, place) if lists else claims.single(path, values, place)
        yield rbac_pb2.Principal(metadata=found)
