"""Validation rules of BackendTrafficPolicy.

Source: the markers and CEL rules of https://gateway.envoyproxy.io/docs/api/extension_types/#backendtrafficpolicy, and
the capabilities of Envoy's local rate limit filter.
"""

from __future__ import annotations

from lateen.api import envoy_gateway as eg
from lateen.api.validate import scalars as s
from lateen.api.validate.findings import Findings, no
from lateen.api.validate.policy_targets import targets
from lateen.kit.jsons import Json

MAX_RULES, MAX_SELECTORS, MAX_REQUESTS = 16, 8, 2**32 - 1
MAX_NAME = 1024
"""Bytes of the name of a parameter, in Envoy"""
CLAIM = "@request.auth.claims."
PEER = "@source.principal"
"""In place of a header name: the identity in the caller's certificate (a Lateen extension, in the style of Istio's
claims)."""


def backend_traffic_policy(policy: eg.BackendTrafficPolicy, meta: Json) -> Findings:
    yield from targets(policy)
    closed = (meta.get("annotations") or {}).get(eg.FAIL_CLOSED, "false")
    if closed not in ("true", "false"):
        yield no(f"metadata.annotations[{eg.FAIL_CLOSED}]", f'"{str(closed)[:80]}" is neither "true" nor "false"')
    if policy.rate_limit is not None:
        yield from _rate_limit(policy.rate_limit)


def _rate_limit(given: eg.RateLimit) -> Findings:
    at = "spec.rateLimit"
    scopes = {"Local": ("local", given.local), "Global": ("global", given.global_)}
    if given.type is not None and scopes[given.type][1] is None:
        field = scopes[given.type][0]
        yield no(f"{at}.{field}", f"the type is {given.type}, and there are no {field} limits")
    elif given.local is None and given.global_ is None:
        yield no(
            at,
            "there is no limit: give local (each proxy counts on its own) or global (all proxies share it) with rules",
        )
    for field, found in scopes.values():
        if found is None:
            continue
        if not found.rules:
            yield no(f"{at}.{field}.rules", "there is no rule: give at least one, with a limit")
        if len(found.rules) > MAX_RULES:
            yield no(f"{at}.{field}.rules", f"must have at most {MAX_RULES} items, has {len(found.rules)}")
        for i, rule in enumerate(found.rules):
            yield from _rule(rule, f"{at}.{field}.rules[{i}]")
            if field == "global":
                yield from _counted(rule, f"{at}.{field}.rules[{i}]")


def by_caller(rule: eg.LimitRule) -> bool:
    """Whether each caller has a limit of its own."""
    return any(h.name == PEER and h.type == "Distinct" for c in rule.client_selectors for h in c.headers)


def _counted(rule: eg.LimitRule, at: str) -> Findings:
    """Clients must not choose the values of a Distinct global limit: each value has its own quota, so they could create
    any number of quotas."""
    says = (
        f"clients choose the value, and each value would have its own quota: with type Distinct, a global limit needs "
        f"{PEER}; a local limit may use any header"
    )
    for i, c in enumerate(rule.client_selectors):
        where = f"{at}.clientSelectors[{i}]"
        for k, header in enumerate(c.headers):
            if header.type == "Distinct" and header.name != PEER:
                yield no(f"{where}.headers[{k}].type", says)
        for k, param in enumerate(c.query_params):
            if param.type == "Distinct":
                yield no(f"{where}.queryParams[{k}].type", says)
        if c.source_cidr is not None and c.source_cidr.type == "Distinct":
            yield no(f"{where}.sourceCIDR.type", says)


def _rule(rule: eg.LimitRule, at: str) -> Findings:
    if rule.limit is None:
        yield no(f"{at}.limit", "the limit is missing: {requests: 10, unit: Second}")
    elif rule.limit.requests == 0:
        yield no(f"{at}.limit.requests", "must be at least 1; to reject all requests, use an AuthorizationPolicy")
    elif not 0 < rule.limit.requests <= MAX_REQUESTS:
        yield no(f"{at}.limit.requests", f"must be in the range 1..{MAX_REQUESTS}")
    if len(rule.client_selectors) > MAX_SELECTORS:
        yield no(f"{at}.clientSelectors", f"must have at most {MAX_SELECTORS} items, has {len(rule.client_selectors)}")
    sources = 0
    for i, condition in enumerate(rule.client_selectors):
        where = f"{at}.clientSelectors[{i}]"
        if condition == eg.SelectCondition():
            yield no(where, "at least one of headers, methods, path, sourceCIDR or queryParams must be specified")
        yield from _condition(condition, where)
        sources += condition.source_cidr is not None
        if sources > 1:
            yield no(f"{where}.sourceCIDR", "only one clientSelector of a rule can have a sourceCIDR")


def _condition(c: eg.SelectCondition, at: str) -> Findings:
    for i, header in enumerate(c.headers):
        where = f"{at}.headers[{i}]"
        if header.name.startswith("@"):
            yield from _identity(header, where)
        else:
            yield from s.header_name(header.name, f"{where}.name")
        yield from _match(header, where)
        yield from s.compared(header.value or "", f"{where}.value")
    for i, param in enumerate(c.query_params):
        if not param.name:
            yield no(f"{at}.queryParams[{i}].name", "the name of the parameter is missing")
        elif (length := len(param.name.encode())) > MAX_NAME:
            yield no(f"{at}.queryParams[{i}].name", f"must have at most {MAX_NAME} bytes, has {length}")
        yield from _match(param, f"{at}.queryParams[{i}]")
    for i, method in enumerate(c.methods):
        if not method.value.isalpha() or method.value != method.value.upper():
            yield no(f"{at}.methods[{i}].value", f'"{method.value[:80]}" is not a method such as GET or POST')
        if method.invert and len(c.methods) > 1:
            yield no(
                f"{at}.methods[{i}].invert",
                "an inverted method must be the only one, because any one of several methods is enough",
            )
    if c.path is not None:
        if c.path.type == "RegularExpression":
            yield from s.regex(c.path.value, f"{at}.path.value")
        yield from s.compared(c.path.value, f"{at}.path.value")
        if c.path.type != "RegularExpression" and not c.path.value.startswith("/"):
            yield no(f"{at}.path.value", f'"{c.path.value[:80]}" is not a path; paths begin with /')
    if c.source_cidr is not None:
        yield from s.cidr(c.source_cidr.value, f"{at}.sourceCIDR.value")


def _match(given: eg.HeaderMatch | eg.QueryParamMatch, at: str) -> Findings:
    if given.type == "Distinct":
        if given.value is not None:
            yield no(f"{at}.value", "must not be set with type Distinct, which is for every value")
        if given.invert:
            yield no(f"{at}.invert", "must not be set with type Distinct")
    elif given.value is None:
        yield no(f"{at}.value", "the value is missing; type Distinct is for every value")
    elif given.type == "RegularExpression" and not given.value:
        yield no(f"{at}.value", "the regular expression is empty; .* is for every value, also an empty one")
    elif given.type == "RegularExpression":
        yield from s.regex(given.value, f"{at}.value")


def _identity(header: eg.HeaderMatch, at: str) -> Findings:
    claim = header.name.removeprefix(CLAIM) if header.name.startswith(CLAIM) else ""
    if header.name != PEER and not all(claim.split(".")):
        yield no(f"{at}.name", f'"{header.name[:80]}": names that begin with @ are {PEER} and {CLAIM}NAME')
    if header.type == "RegularExpression" or header.invert:
        yield no(f"{at}.type", f"{header.name[:80]} can be of type Exact or Distinct, and not inverted")
