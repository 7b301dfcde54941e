"""Where the JWT filter stores the claims of verified tokens, and how policies and routes match them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from envoy.type.matcher.v3 import metadata_pb2, value_pb2

from lateen.wire.resource import ResourceSet

FILTER, PAYLOAD = "envoy.filters.http.jwt_authn", "payload"
"""The namespace of the dynamic metadata, and the key there, as in Istio"""

FIRST, LAST = -1, 1
"""The ranks of what stores claims, and of what does not any more: they are there before something reads them, and until
nothing does."""
_READERS = (FILTER.encode(), b"metadata", b"envoy.extensions.access_loggers.grpc.v3.Http")
"""In what reads them: their namespace, a word of expressions about all of it, and loggers that send all of it"""


def read_by(found: ResourceSet) -> bool:
    """Whether one of the resources may read claims; rather once too often."""
    return any(word in r.wrapped for r in found.resources.values() for word in _READERS)


def matcher(keys: Iterable[str], value: value_pb2.ValueMatcher, place: str = PAYLOAD) -> metadata_pb2.MetadataMatcher:
    """A claim, or with several keys one within others. ``place``: the key of its token's claims."""
    segments = [metadata_pb2.MetadataMatcher.PathSegment(key=k) for k in (place, *keys)]
    return metadata_pb2.MetadataMatcher(filter=FILTER, path=segments, value=value)


def one_of(
    keys: Iterable[str], values: Iterable[Any], place: str = PAYLOAD, others: Iterable[value_pb2.ValueMatcher] = ()
) -> metadata_pb2.MetadataMatcher:
    """A claim that is one of the values (matchers of strings, and ``others``), or a list that has one of them."""
    texts = any_of([*(value_pb2.ValueMatcher(string_match=v) for v in values), *others])
    as_list = value_pb2.ValueMatcher(list_match=value_pb2.ListMatcher(one_of=texts))
    return matcher(keys, any_of([as_list, texts]), place)


def single(keys: Iterable[str], values: Iterable[Any], place: str = PAYLOAD) -> metadata_pb2.MetadataMatcher:
    """A claim that is a string, one of the values."""
    return matcher(keys, any_of([value_pb2.ValueMatcher(string_match=v) for v in values]), place)


def any_of(matchers: list[value_pb2.ValueMatcher]) -> value_pb2.ValueMatcher:
    """Envoy's "or" needs at least two matchers."""
    if len(matchers) == 1:
        return matchers[0]
    return value_pb2.ValueMatcher(or_match=value_pb2.OrMatcher(value_matchers=matchers))
