"""Several filters in one slot, so that the first of them, and the last, come and go without the listener.

Envoy's composite filter runs a chain of filters that is chosen for each request; ours is the same for all of them. A
filter that waits (for an authorization service, say) has to be the last one: when it goes on, Envoy goes on with what
comes after the composite filter, and not with the rest of the chain.
Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/composite_filter
"""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.core.v3 import extension_pb2
from envoy.extensions.common.matching.v3 import extension_matcher_pb2
from envoy.extensions.filters.http.composite.v3 import composite_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from google.protobuf import any_pb2

from lateen.xds import pb

_TYPE = "type.googleapis.com/"
TYPES = tuple(_TYPE + m.DESCRIPTOR.full_name for m in (extension_matcher_pb2.ExtensionWithMatcher, rbac_pb2.RBAC))
"""The types of filters that such a slot may contain"""


def several(found: Iterable[tuple[str, any_pb2.Any]]) -> any_pb2.Any:
    """(name, configuration) of each filter, in order. Without any, a filter that lets everything pass."""
    held = [extension_pb2.TypedExtensionConfig(name=name, typed_config=config) for name, config in found]
    if not held:
        return pb.any_of(rbac_pb2.RBAC())
    chain = composite_pb2.FilterChainConfiguration(typed_config=held)
    action = composite_pb2.ExecuteFilterAction(filter_chain=chain)
    out = extension_matcher_pb2.ExtensionWithMatcher()
    out.extension_config.name = "composite"
    out.extension_config.typed_config.CopyFrom(pb.any_of(composite_pb2.Composite()))
    always = out.xds_matcher.on_no_match.action
    always.name = "chain"
    always.typed_config.CopyFrom(pb.any_of(action))
    return pb.any_of(out)
