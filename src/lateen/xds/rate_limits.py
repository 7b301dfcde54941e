"""Rate limits: token buckets in each proxy (Envoy's local_ratelimit).

A rule is a descriptor: what must match (``header_value_match`` and others) makes its entries, of which those without a
value (``Distinct``) have a bucket for each value that comes. Limits in shadow mode have a filter of their own, because
Envoy enforces all of a filter's or none.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from envoy.config.core.v3 import base_pb2, extension_pb2
from envoy.config.route.v3 import route_components_pb2 as rc
from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2 as local
from envoy.extensions.rate_limit_descriptors.expr.v3 import expr_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2
from envoy.type.metadata.v3 import metadata_pb2
from envoy.type.v3 import token_bucket_pb2

from lateen.api import envoy_gateway as eg
from lateen.api import objects as o
from lateen.api.validate.backend_traffic import CLAIM, PEER
from lateen.kit.regex import escape
from lateen.mesh.outbound_view import Limits
from lateen.wire.quotas import NOBODY, UNITS_S, burst
from lateen.xds import claims, pb, predicates, quotas

ENFORCED, SHADOW = "lateen.rate_limit", "lateen.rate_limit_shadow"
"""Not Envoy's name, so that filters that users add with an EnvoyFilter are not configured by ours."""
SLOT = "lateen.rate_limiting"
"""The slot at a workload's port. Its former name, ``lateen.rate_limit``, took no single limit."""
ROUTE = "lateen.rate_limits"
"""The namespace of route metadata with the policies whose limits apply"""
UNLIMITED = 2**32 - 1
MOST_VALUES = 10_000
"""The maximum number of buckets for Distinct values; the least recently used one is evicted."""
_OFF = pb.any_of(rc.FilterConfig(disabled=True))
_URI, _DIGEST = "connection.uri_san_peer_certificate", "connection.sha256_peer_certificate_digest"
_PEER = f"!connection.mtls ? '{NOBODY}' : has({_URI}) ? {_URI} : {_DIGEST}"
"""Certificates of clients of a gateway need not have a URI. Where the expression fails, Envoy does not limit."""


def kinds_of(limits: Iterable[Limits]) -> tuple[str, ...]:
    """The filters that a gateway's host has, whose routes have these limits."""
    given = list(limits)
    return tuple(kind for kind in (ENFORCED, SHADOW) if any(_rules(some, kind) for some in given))


def on_routes(limits: Limits, routes: Iterable[Any], kinds: Iterable[str]) -> Iterator[Any]:
    """At a gateway: the routes with the names of the policies whose limits they have. Those of other gateways stay.
    ``kinds``: the filters of their host, which answer even where they count nothing (``x-ratelimit-limit``), so that
    they are off where a route has no limits of their kind."""
    own = {name(p): name(p) for p in limits if eg.rules(p.spec)}
    marks = [m for m in (quotas.marked(limits), pb.metadata(**{ROUTE: own}) if own else None) if m]
    off = [kind for kind in kinds if not _rules(limits, kind)]
    for route in routes:
        made = route
        if marks or off:
            made = rc.Route()
            made.CopyFrom(route)
        for mark in marks:
            made.metadata.MergeFrom(mark)
        for kind in off:
            made.typed_per_filter_config[kind].CopyFrom(_OFF)
        yield made


def on_host(host: rc.VirtualHost, limits: Iterable[Limits]) -> None:
    """The buckets of a gateway's host, whose routes have these limits: what is one rule to the user may be several
    routes, which Envoy would count each for itself."""
    given = tuple(dict.fromkeys(some for some in limits if some))
    for kind in kinds_of(given):
        host.typed_per_filter_config[kind].CopyFrom(pb.any_of(of_host(given, kind)))


def name(policy: o.Resource[eg.BackendTrafficPolicy]) -> str:
    return f"{policy.ref.namespace}/{policy.ref.name}"


def nothing(kind: str) -> Any:
    """A filter without limits."""
    everything = pb.percent(100)
    out = local.LocalRateLimit(stat_prefix=kind)
    out.token_bucket.CopyFrom(_bucket(UNLIMITED, UNLIMITED, 1))
    out.filter_enabled.default_value.CopyFrom(everything)
    out.filter_enforced.default_value.CopyFrom(everything if kind == ENFORCED else pb.percent(0))
    return out


@lru_cache(maxsize=4096)
def config(limits: Limits, kind: str) -> Any:
    """Of a workload's port: the limits that are enforced, or those in shadow mode; None where there are none."""
    return _config(kind, _rules(limits, kind), ())


@lru_cache(maxsize=4096)
def of_host(limits: tuple[Limits, ...], kind: str) -> Any:
    """As ``config``, for what the routes of a gateway's host have. A client is not told to wait longer than the limits
    of its own route may take, so where routes differ, ``retry-after`` is that of the shortest."""
    found = {at: (at, rule, p) for some in limits for at, rule, p in _rules(some, kind)}
    waits = [max(_pause_s(rule) for _, rule, _ in held) for some in limits if (held := _rules(some, kind))]
    return _config(kind, list(found.values()), waits)


_Rule = tuple[str, eg.LimitRule, str]
"""(its name, itself, its policy's name)"""


def _rules(limits: Limits, kind: str) -> list[_Rule]:
    return [
        (f"{name(p)}/{i}", rule, name(p))
        for p in limits
        for i, rule in enumerate(eg.rules(p.spec))
        if rule.shadow_mode == (kind == SHADOW)
    ]


def _config(kind: str, found: list[_Rule], waits: Sequence[int]) -> Any:
    """``waits``: at a gateway, the seconds until each of the routes takes requests again."""
    if not found:
        return None
    out = nothing(kind)
    out.always_consume_default_token_bucket.value = False
    out.rate_limited_as_resource_exhausted = True
    out.max_dynamic_descriptors.value = MOST_VALUES
    if kind != SHADOW:
        out.enable_x_ratelimit_headers = "DRAFT_VERSION_03"
        pause = min(waits) if waits else max(_pause_s(rule) for _, rule, _ in found)
        after = base_pb2.HeaderValue(key="retry-after", value=str(pause))
        out.response_headers_to_add.add(header=after, append_action="OVERWRITE_IF_EXISTS_OR_ADD")
    for at, rule, policy in found:
        assert rule.limit is not None
        routed = (_of_route(policy),) if waits else ()
        for long in ("", *_chosen_by_clients(rule)):
            descriptor = out.descriptors.add()
            descriptor.token_bucket.CopyFrom(_limit(rule.limit))
            asked = out.rate_limits.add()
            for action, key, value in (*routed, *_parts(at, rule, long)):
                asked.actions.append(action)
                descriptor.entries.append(ratelimit_pb2.RateLimitDescriptor.Entry(key=key, value=value))
    return out


def _limit(limit: eg.LimitValue) -> token_bucket_pb2.TokenBucket:
    return _bucket(burst(limit.requests, limit.unit), limit.requests, UNITS_S[limit.unit])


def _bucket(most: int, requests: int, seconds: int) -> token_bucket_pb2.TokenBucket:
    """A token bucket that is filled continuously with ``requests`` per ``seconds``."""
    return token_bucket_pb2.TokenBucket(
        max_tokens=most, tokens_per_fill=pb.u32(requests), fill_interval=pb.duration(seconds)
    )


def _pause_s(rule: eg.LimitRule) -> int:
    """Seconds until the next token."""
    return math.ceil(UNITS_S[rule.limit.unit] / rule.limit.requests) if rule.limit else 1


# --- which requests count ------------------------------------------------------------------------------------------

Part = tuple[rc.RateLimit.Action, str, str]
"""(action, key and value of the entry that it makes); an empty value is every one"""
_MATCH = "match"
_SHORT = string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=r"\C{0,1000}\C{0,1000}"))
"""What has a bucket of its own. Envoy keeps the values, twice: 10,000 headers of 60 kB would be more than 1 GB."""


def _of_route(policy: str) -> Part:
    """Whether the route has a policy's limits; without the metadata, the request does not count."""
    read = rc.RateLimit.Action.MetaData(
        descriptor_key="policy",
        metadata_key=metadata_pb2.MetadataKey(key=ROUTE, path=[metadata_pb2.MetadataKey.PathSegment(key=policy)]),
        source="ROUTE_ENTRY",
    )
    return rc.RateLimit.Action(metadata=read), "policy", policy


def _chosen_by_clients(rule: eg.LimitRule) -> list[str]:
    """The keys of the headers and parameters of which every value has a bucket."""
    headers = (h for c in rule.client_selectors for h in c.headers if h.type == "Distinct")
    params = (p for c in rule.client_selectors for p in c.query_params if p.type == "Distinct")
    found = (*(_key(h) for h in headers if not h.name.startswith("@")), *map(_key, params))
    return list(dict.fromkeys(found))


def _key(given: eg.HeaderMatch | eg.QueryParamMatch) -> str:
    return f"header {given.name.lower()}" if isinstance(given, eg.HeaderMatch) else f"parameter {given.name}"


def _parts(name: str, rule: eg.LimitRule, long: str) -> Iterator[Part]:
    """``long``: of the requests whose value of this key is too long for a bucket of its own, which have one together;
    empty: of those whose values are all short enough."""
    key = rc.RateLimit.Action.GenericKey(descriptor_key="rule", descriptor_value=name)
    yield rc.RateLimit.Action(generic_key=key), "rule", name
    if long:
        shared = rc.RateLimit.Action.GenericKey(descriptor_key="long", descriptor_value=long)
        yield rc.RateLimit.Action(generic_key=shared), "long", long
    headers = [h for c in rule.client_selectors for h in _headers(c, long)]
    if headers:
        match = rc.RateLimit.Action.HeaderValueMatch(descriptor_key="headers", descriptor_value=_MATCH, headers=headers)
        yield rc.RateLimit.Action(header_value_match=match), "headers", _MATCH
    for condition in rule.client_selectors:
        for header in condition.headers:
            yield from _of_header(header, long)
        for param in condition.query_params:
            yield from _of_param(param, long)
        if condition.source_cidr:
            yield from _of_address(condition.source_cidr)


def _headers(c: eg.SelectCondition, long: str) -> Iterator[rc.HeaderMatcher]:
    """All that is compared and the same for every value. ``long``: see ``_parts``."""
    for h in c.headers:
        if h.type == "Distinct" and not h.name.startswith("@"):
            if long and long != _key(h):
                yield rc.HeaderMatcher(name=h.name.lower(), present_match=True)
            else:
                yield rc.HeaderMatcher(name=h.name.lower(), string_match=_SHORT, invert_match=bool(long))
        if h.type != "Distinct" and not h.name.startswith("@"):
            # inverted, without the header, too: Envoy would not count who leaves it out
            pattern = predicates.limited_host(h)
            text = _regex(pattern) if pattern else _text(h.type, h.value or "")
            found = rc.HeaderMatcher(name=h.name.lower(), string_match=text)
            found.invert_match = found.treat_missing_header_as_empty = h.invert
            yield found
    if c.methods:
        wanted = "|".join(escape(m.value) for m in c.methods)
        inverted = c.methods[0].invert
        yield rc.HeaderMatcher(name=":method", string_match=_regex(wanted), invert_match=inverted)
    if c.path:
        yield rc.HeaderMatcher(
            name=":path", string_match=_regex(predicates.path_pattern(c.path)), invert_match=c.path.invert
        )


def _text(kind: str, value: str) -> string_pb2.StringMatcher:
    return _regex(value) if kind == "RegularExpression" else string_pb2.StringMatcher(exact=value)


def _regex(text: str) -> string_pb2.StringMatcher:
    return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=text))


def _of_header(header: eg.HeaderMatch, long: str) -> Iterator[Part]:
    if header.name == PEER:
        described = expr_pb2.Descriptor(descriptor_key=PEER, text=_PEER)
        action = rc.RateLimit.Action(
            extension=extension_pb2.TypedExtensionConfig(name=PEER, typed_config=pb.any_of(described))
        )
        yield action, PEER, f"spiffe://{header.value}" if header.value is not None else ""
    elif header.name.startswith(CLAIM):
        path = (claims.PAYLOAD, *header.name.removeprefix(CLAIM).split("."))
        segments = [metadata_pb2.MetadataKey.PathSegment(key=k) for k in path]
        read = rc.RateLimit.Action.MetaData(
            descriptor_key=header.name,
            metadata_key=metadata_pb2.MetadataKey(key=claims.FILTER, path=segments),
            default_value=NOBODY,
            source="DYNAMIC",
        )
        yield rc.RateLimit.Action(metadata=read), header.name, header.value or ""
    elif header.type == "Distinct" and not long:
        key = _key(header)
        given = rc.RateLimit.Action.RequestHeaders(header_name=header.name.lower(), descriptor_key=key)
        yield rc.RateLimit.Action(request_headers=given), key, ""


def _of_param(param: eg.QueryParamMatch, long: str) -> Iterator[Part]:
    key = _key(param)
    if param.type != "Distinct":
        wanted = rc.QueryParameterMatcher(name=param.name, string_match=_text(param.type, param.value or ""))
        yield _compared(key, wanted, not param.invert)
        return
    if not long or long == key:
        short = rc.QueryParameterMatcher(name=param.name, string_match=_SHORT)
        yield _compared(f"short {key}", short, not long)
    if long:
        yield _compared(key, rc.QueryParameterMatcher(name=param.name, present_match=True), True)
    else:
        each = rc.RateLimit.Action.QueryParameters(query_parameter_name=param.name, descriptor_key=key)
        yield rc.RateLimit.Action(query_parameters=each), key, ""


def _compared(key: str, wanted: rc.QueryParameterMatcher, matches: bool) -> Part:
    match = rc.RateLimit.Action.QueryParameterValueMatch(
        descriptor_key=key,
        descriptor_value=_MATCH,
        query_parameters=[wanted],
        expect_match=pb.boolean(matches),
    )
    return rc.RateLimit.Action(query_parameter_value_match=match), key, _MATCH


def _of_address(source: eg.SourceMatch) -> Iterator[Part]:
    network = ipaddress.ip_network(source.value, strict=False)
    masked = rc.RateLimit.Action.MaskedRemoteAddress()
    length = masked.v4_prefix_mask_len if network.version == 4 else masked.v6_prefix_mask_len
    length.value = network.prefixlen
    yield rc.RateLimit.Action(masked_remote_address=masked), "masked_remote_address", str(network)
    if source.type == "Distinct":
        each = rc.RateLimit.Action.RemoteAddress()
        yield rc.RateLimit.Action(remote_address=each), "remote_address", ""
