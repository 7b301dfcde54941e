"""Short constructors for Envoy's messages, and the one place that serializes them."""

from __future__ import annotations

import hashlib
from functools import cache

from envoy.config.core.v3 import address_pb2, base_pb2, config_source_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.service.discovery.v3 import discovery_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import any_pb2, duration_pb2, struct_pb2, wrappers_pb2
from google.protobuf.message import Message

from lateen.wire.resource import Resource


def any_of(message: Message) -> any_pb2.Any:
    out = any_pb2.Any()
    out.Pack(message, deterministic=True)
    return out


def duration(seconds: float) -> duration_pb2.Duration:
    nanos = round(seconds * 1e9)
    return duration_pb2.Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)


def u32(value: int) -> wrappers_pb2.UInt32Value:
    return wrappers_pb2.UInt32Value(value=value)


def boolean(value: bool) -> wrappers_pb2.BoolValue:
    return wrappers_pb2.BoolValue(value=value)


def address(host: str, port: int, network_namespace: str = "") -> address_pb2.Address:
    """``network_namespace``: the path of the socket's network namespace, if it is not Envoy's own."""
    found = address_pb2.SocketAddress(address=host, port_value=port, network_namespace_filepath=network_namespace)
    return address_pb2.Address(socket_address=found)


ANYWHERE = {"0.0.0.0": "::"}
"""All addresses of IPv4, and the same of IPv6"""


def also(found: listener_pb2.Listener, ipv6: bool) -> listener_pb2.Listener:
    """The listener with all IPv6 addresses, if it has all IPv4 ones and ``ipv6``."""
    own = found.address.socket_address
    if ipv6 and (host := ANYWHERE.get(own.address)):
        more = found.additional_addresses.add().address
        more.CopyFrom(found.address)
        more.socket_address.address = host
    return found


@cache
def ads(patience_s: float = 0) -> config_source_pb2.ConfigSource:
    """The config source of a resource delivered by ADS. Envoy continues without it after ``patience_s`` seconds; 0
    waits without limit."""
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(),
        initial_fetch_timeout=duration(patience_s),
        resource_api_version="V3",
    )


def percent(value: float) -> percent_pb2.FractionalPercent:
    """``value`` percent, exact to a ten-thousandth of a percent."""
    return percent_pb2.FractionalPercent(numerator=round(value * 10_000), denominator="MILLION")


def metadata(**namespaces: dict[str, str]) -> base_pb2.Metadata:
    out = base_pb2.Metadata()
    for name, values in namespaces.items():
        struct = struct_pb2.Struct()
        for key, value in values.items():
            struct.fields[key].string_value = value
        out.filter_metadata[name].CopyFrom(struct)
    return out


def resource(name: str, message: Message, origin: tuple[str, ...] = (), rank: int = 0) -> Resource:
    """The message wrapped for a delta response; the version is a hash of its content. ``rank``: see ``Resource``."""
    body = any_of(message)
    version = hashlib.blake2b(body.value, digest_size=8).hexdigest()
    wrapped = discovery_pb2.Resource(name=name, version=version, resource=body)
    return Resource(name, version, wrapped.SerializeToString(deterministic=True), origin, rank)
