"""Global rate limits: Envoy's filter for the rate limit quota service.

A proxy decides by itself, with a token bucket that istiod assigns to it (``control.quotas``); no request waits for
anybody. A filter finds one bucket for a request, so that each rule has a filter of its own. Envoy takes no settings of
routes for this filter: at gateways, a route says in its metadata whose limits it has.

Where istiod is away, a proxy keeps its last share for a while (``ads.quotas``). What follows is a blanket rule, since
Envoy 1.40 ends with a segmentation fault when an assignment expires and a token bucket is to replace it, and does not
reuse the last assignment when told to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import re2
from envoy.config.core.v3 import base_pb2, extension_pb2
from envoy.extensions.filters.http.rate_limit_quota.v3 import rate_limit_quota_pb2 as quota
from envoy.extensions.matching.common_inputs.ssl.v3 import ssl_inputs_pb2
from envoy.type.v3 import ratelimit_strategy_pb2
from xds.type.matcher.v3 import matcher_pb2

from lateen.api import envoy_gateway as eg
from lateen.api import objects as o
from lateen.api.validate.backend_traffic import CLAIM, PEER, by_caller
from lateen.mesh.outbound_view import Limits
from lateen.wire import quotas
from lateen.xds import claims, pb, predicates
from lateen.xds.predicates import Predicate

PREFIX = "lateen.quota"
ROUTE = "lateen.quota"
"""The namespace of a route's metadata, whose ``policy`` names the policy that limits it."""
CLUSTER = "xds-grpc"
"""The name of istiod's cluster in the bootstrap."""
DAY_S = 86400
RESOURCE_EXHAUSTED = 8
"""A status of gRPC"""
_ALLOW, _DENY = (ratelimit_strategy_pb2.RateLimitStrategy(blanket_rule=r) for r in ("ALLOW_ALL", "DENY_ALL"))
Policy = o.Resource[eg.BackendTrafficPolicy]
Config = quota.RateLimitQuotaFilterConfig
_Value = quota.RateLimitQuotaBucketSettings.BucketIdBuilder.ValueBuilder
_Bucket = matcher_pb2.Matcher.MatcherList.FieldMatcher


def rules(limits: Limits) -> list[tuple[Policy, int, eg.LimitRule]]:
    """(policy, position in it, rule) of all global limits."""
    return [(p, i, rule) for p in limits for i, rule in enumerate(eg.quotas(p.spec))]


def most(limits: Sequence[Limits]) -> int:
    """The number of filters that is needed for the largest of several sets of limits."""
    return max((len(rules(found)) for found in limits), default=0)


def at_port(limits: Limits, position: int) -> Config:
    """The filter for one of the rules of a port."""
    found = rules(limits)
    return _config(_buckets(*found[position]) if position < len(found) else [])


def at_gateway(limits: Sequence[Limits], position: int) -> Config:
    """The filter for one rule of each set of limits, chosen by the route's metadata."""
    each = (_buckets(*found[position], routed=True) for found in map(rules, limits) if position < len(found))
    return _config([b for buckets in each for b in buckets])


def nothing() -> Config:
    return _config([])


def marked(limits: Limits) -> base_pb2.Metadata | None:
    """The metadata of a route that has limits; None if none of them is global."""
    found = [p for p in limits if eg.quotas(p.spec)]
    return pb.metadata(**{ROUTE: {"policy": str(found[0].ref)}}) if found else None


# --- one rule --------------------------------------------------------------------------------------------------------


def _config(buckets: Sequence[_Bucket]) -> Config:
    out = Config(domain=quotas.DOMAIN)
    out.rlqs_server.envoy_grpc.cluster_name = CLUSTER
    # The message must have a matcher: this one matches nothing.
    never = predicates.header(":method", predicates.exactly(""))
    found = buckets or [_Bucket(predicate=never, on_match=_on_match("-", ()))]
    out.bucket_matchers.matcher_list.matchers.extend(found)
    return out


def _buckets(policy: Policy, position: int, rule: eg.LimitRule, routed: bool = False) -> list[_Bucket]:
    """Where each caller has a bucket of its own, those without an identity have one together: else whoever sends plain
    text would have no limit."""
    assert rule.limit is not None
    conditions = list(_conditions(rule))
    if routed:
        conditions.insert(0, _of_route(policy))
    name = quotas.name(policy.ref.namespace, policy.ref.name, position)
    closed = eg.fails_closed(policy.notes) and not rule.shadow_mode
    pause = math.ceil(quotas.UNITS_S[rule.limit.unit] / rule.limit.requests)
    headers = (
        ("retry-after", str(pause)),
        ("x-ratelimit-limit", f"{rule.limit.requests}, {rule.limit.requests};w={quotas.UNITS_S[rule.limit.unit]}"),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", str(pause)),
    )
    values: list[tuple[list[Predicate], _Value | None]] = [(conditions, None)]
    if by_caller(rule):
        known, unknown = _Value(custom_value=_caller()), _Value(string_value=quotas.NOBODY)
        values = [([*conditions, *_some_caller()], known), (conditions, unknown)]
    return [
        _Bucket(
            predicate=predicates.every(wanted),
            on_match=_on_match(name, () if rule.shadow_mode else headers, value, closed),
        )
        for wanted, value in values
    ]


def _on_match(
    name: str, headers: Sequence[tuple[str, str]], value: _Value | None = None, closed: bool = False
) -> matcher_pb2.Matcher.OnMatch:
    settings = quota.RateLimitQuotaBucketSettings(reporting_interval=pb.duration(quotas.REPORT_S))
    parts = settings.bucket_id_builder.bucket_id_builder
    parts[quotas.RULE].string_value = name
    if value is not None:
        parts[quotas.VALUE].CopyFrom(value)
    settings.deny_response_settings.http_status.code = 429  # type: ignore[assignment]
    # Envoy's own is UNAVAILABLE, after which clients and sidecars try again at once
    settings.deny_response_settings.grpc_status.code = RESOURCE_EXHAUSTED
    for key, text in headers:
        settings.deny_response_settings.response_headers_to_add.add(
            header=base_pb2.HeaderValue(key=key, value=text), append_action="OVERWRITE_IF_EXISTS_OR_ADD"
        )
    settings.no_assignment_behavior.fallback_rate_limit.CopyFrom(_DENY if closed else _ALLOW)
    expired = settings.expired_assignment_behavior
    expired.expired_assignment_behavior_timeout.seconds = DAY_S
    expired.fallback_rate_limit.CopyFrom(_DENY if closed else _ALLOW)
    return matcher_pb2.Matcher.OnMatch(action=predicates.extension(settings))


# --- which requests count --------------------------------------------------------------------------------------------


def _conditions(rule: eg.LimitRule) -> Iterator[Predicate]:
    for c in rule.client_selectors:
        for h in c.headers:
            if h.name == PEER:
                if h.type == "Exact":
                    path = ("connection", "uri_san_peer_certificate")
                    yield predicates.cel_is(predicates.field(*path), f"spiffe://{h.value}")
            elif h.name.startswith(CLAIM):
                yield predicates.cel_is(_claim(h.name.removeprefix(CLAIM)), h.value or "")
            else:
                yield predicates.inverted(predicates.header(h.name.lower(), _of_header(h)), h.invert)
        if c.methods:
            wanted = "|".join(re2.escape(m.value) for m in c.methods)
            yield predicates.inverted(predicates.header(":method", predicates.matches(wanted)), c.methods[0].invert)
        if c.path:
            yield predicates.inverted(
                predicates.header(":path", predicates.matches(predicates.path_pattern(c.path))), c.path.invert
            )
        for p in c.query_params:
            yield predicates.inverted(predicates.parameter(p.name, _text(p.type, p.value or "")), p.invert)
        if c.source_cidr:
            yield predicates.from_network(c.source_cidr.value)


def _of_header(h: eg.HeaderMatch) -> predicates.Text:
    pattern = predicates.limited_host(h)
    return predicates.matches(pattern) if pattern else _text(h.type, h.value or "")


def _text(kind: str, value: str) -> predicates.Text:
    return predicates.matches(value) if kind == "RegularExpression" else predicates.exactly(value)


def _some_caller() -> tuple[Predicate, Predicate]:
    """Whether a caller has an identity to count by. Where there is no TLS, Envoy finds no bucket at all once it has
    looked for the name in a certificate, so that it must not look."""
    mutual = predicates.cel_holds(predicates.field("connection", "mtls"))
    return mutual, predicates.single(ssl_inputs_pb2.UriSanInput(), predicates.matches(".+"))


def _caller() -> extension_pb2.TypedExtensionConfig:
    found = ssl_inputs_pb2.UriSanInput()
    return extension_pb2.TypedExtensionConfig(name=found.DESCRIPTOR.name, typed_config=pb.any_of(found))


def _of_route(policy: Policy) -> Predicate:
    metadata = predicates.field("xds", "route_metadata", "filter_metadata")
    return predicates.cel_is(predicates.entry(predicates.entry(metadata, ROUTE), "policy"), str(policy.ref))


def _claim(name: str) -> predicates.Cel:
    out = predicates.entry(predicates.field("metadata", "filter_metadata"), claims.FILTER)
    for key in (claims.PAYLOAD, *name.split(".")):
        out = predicates.entry(out, key)
    return out
