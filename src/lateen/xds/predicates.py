"""Conditions of requests, as the predicates of Envoy's generic matcher (``xds.type.matcher.v3.Matcher``)."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import re2
from envoy.extensions.matching.common_inputs.network.v3 import network_inputs_pb2
from envoy.extensions.matching.input_matchers.ip.v3 import ip_pb2
from envoy.type.matcher.v3 import http_inputs_pb2
from google.protobuf import json_format
from google.protobuf.message import Message
from xds.core.v3 import extension_pb2
from xds.type.matcher.v3 import cel_pb2, matcher_pb2, string_pb2
from xds.type.matcher.v3 import http_inputs_pb2 as cel_inputs_pb2

from lateen.api import envoy_gateway as eg
from lateen.xds import pb

Predicate = matcher_pb2.Matcher.MatcherList.Predicate
Text = string_pb2.StringMatcher


def extension(message: Message) -> extension_pb2.TypedExtensionConfig:
    return extension_pb2.TypedExtensionConfig(name=message.DESCRIPTOR.name, typed_config=pb.any_of(message))


def path_pattern(path: eg.PathMatch) -> str:
    """A regular expression for ``:path``, which includes the query, of whatever bytes (``\\C``). A prefix is of whole
    elements: /a is /a and /a/b, not /ab."""
    if path.type == "RegularExpression":
        return rf"(?:{path.value})(?:\?\C*)?"
    if path.type == "Exact":
        return rf"{re2.escape(path.value)}(?:\?\C*)?"
    return rf"{re2.escape(path.value.rstrip('/'))}(?:[/?]\C*)?"


def host_pattern(value: str, spelled: Callable[[str], str] = re2.escape) -> str:
    """A regular expression for the ``Host`` of requests, in all spellings that servers treat like a host (see
    ``authz.spellings.host``). ``spelled``: that of its name, and of its port."""
    name, _, number = (value, "", "") if value.endswith("]") else value.partition("]:" if "]" in value else ":")
    name += "]" if number and "[" in name else ""
    after = f":{spelled(number)}" if number else r"(:\C*)?"
    return rf"(?i)(\C*@)?{spelled(name)}\.*{after}|\C*%\C*"


def limited_host(header: eg.HeaderMatch) -> str:
    """The pattern of the host that a rate limit is for, so that ``SHOP.test:80`` is no way around a limit of
    ``shop.test``. Empty for other conditions."""
    meant = header.name.lower() == "host" and header.type == "Exact" and not header.invert
    return host_pattern(header.value or "") if meant else ""


def every(predicates: list[Predicate]) -> Predicate:
    """All of them, or whatever comes where there are none; Envoy's "and" needs at least two."""
    if not predicates:
        return header(":method", matches(".*"))
    if len(predicates) == 1:
        return predicates[0]
    return Predicate(and_matcher=Predicate.PredicateList(predicate=predicates))


def inverted(predicate: Predicate, invert: bool) -> Predicate:
    return Predicate(not_matcher=predicate) if invert else predicate


def single(given: Message, text: Text) -> Predicate:
    return Predicate(single_predicate=Predicate.SinglePredicate(input=extension(given), value_match=text))


def header(name: str, text: Text) -> Predicate:
    return single(http_inputs_pb2.HttpRequestHeaderMatchInput(header_name=name), text)


def parameter(name: str, text: Text) -> Predicate:
    return single(http_inputs_pb2.HttpRequestQueryParamMatchInput(query_param=name), text)


def exactly(text: str) -> Text:
    return Text(exact=text)


def matches(pattern: str) -> Text:
    """The whole text, by RE2."""
    out = Text()
    out.safe_regex.google_re2.SetInParent()
    out.safe_regex.regex = pattern
    return out


def from_network(value: str) -> Predicate:
    """The client's address, at gateways that which is trusted of ``X-Forwarded-For``."""
    network = ipaddress.ip_network(value, strict=False)
    matcher = ip_pb2.Ip(stat_prefix="lateen")
    matcher.cidr_ranges.add(address_prefix=str(network.network_address), prefix_len=pb.u32(network.prefixlen))
    return _custom(network_inputs_pb2.SourceIPInput(), matcher)


def _custom(given: Message, matcher: Message) -> Predicate:
    found = Predicate.SinglePredicate(input=extension(given), custom_match=extension(matcher))
    return Predicate(single_predicate=found)


# --- CEL, as the parsed expressions that Envoy takes ------------------------------------------------------------------

Cel = dict[str, Any]


def field(name: str, *path: str) -> Cel:
    out: Cel = {"ident_expr": {"name": name}}
    for part in path:
        out = {"select_expr": {"operand": out, "field": part}}
    return out


def _constant(value: str) -> Cel:
    return {"const_expr": {"string_value": value}}


def entry(of: Cel, key: str) -> Cel:
    return {"call_expr": {"function": "_[_]", "args": [of, _constant(key)]}}


def called(function: str, left: Cel, value: str) -> Cel:
    """A function of something and a text."""
    return {"call_expr": {"function": function, "args": [left, _constant(value)]}}


def whole(expression: Cel) -> Cel:
    """An expression that is no part of another one."""
    return _numbered(expression, itertools.count(1))


def either(expressions: Sequence[Cel]) -> Cel:
    """Whether one of some expressions is true; of at least one. Halves of halves, since protobuf takes messages within
    messages only to a depth of 100."""
    if len(expressions) == 1:
        return expressions[0]
    half = len(expressions) // 2
    return {"call_expr": {"function": "_||_", "args": [either(expressions[:half]), either(expressions[half:])]}}


def cel_is(left: Cel, value: str) -> Predicate:
    """A missing field is an error in CEL, which matches nothing."""
    return _cel(whole(called("_==_", left, value)))


def cel_holds(expression: Cel) -> Predicate:
    """Whether an expression, which has a boolean, is true."""
    return _cel(whole(expression))


def _cel(expression: Cel) -> Predicate:
    parsed = {"expr_match": {"cel_expr_parsed": {"expr": expression}}}
    matcher = json_format.ParseDict(parsed, cel_pb2.CelMatcher())
    return _custom(cel_inputs_pb2.HttpAttributesCelMatchInput(), matcher)


def _numbered(expr: Cel, numbers: Iterator[int]) -> Cel:
    """Every node of an expression has a number of its own."""
    (kind, body), *_ = expr.items()
    inner = dict(body)
    if "operand" in inner:
        inner["operand"] = _numbered(inner["operand"], numbers)
    if "args" in inner:
        inner["args"] = [_numbered(a, numbers) for a in inner["args"]]
    return {"id": next(numbers), kind: inner}
