"""The configuration sent to a proxy in Envoy's formats: config dumps and client status. Private keys are left out.

Source: envoyproxy.io, ``envoy.admin.v3.ConfigDump`` and ``envoy.service.status.v3.ClientConfig``; istio.io/istio,
``pilot/pkg/xds/debug.go`` and ``statusgen.go``, for the parts that istioctl reads.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from envoy.admin.v3 import config_dump_pb2, config_dump_shared_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.status.v3 import csds_pb2
from google.protobuf import any_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from udpa.annotations import sensitive_pb2

from lateen.ads.peers import Connection
from lateen.wire import names
from lateen.wire.node import ISTIO_VERSION
from lateen.xds import pb

REDACTED = "[redacted]"
_STATUS = {"NOT SENT": "NOT_SENT", "SYNCED": "SYNCED", "STALE": "STALE", "ERROR": "ERROR"}


def proxy_name(c: Connection) -> str:
    return f"{c.node.pod}.{c.node.namespace}"


def cluster_name(c: Connection, ours: str) -> str:
    """The cluster that a proxy claims to run in; ``ours``, istiod's, if it names none."""
    return c.metadata.get("CLUSTER_ID") or ours


def types(c: Connection) -> dict[str, str]:
    """Short name of each subscribed type -> NOT SENT, SYNCED, STALE or ERROR; virtual hosts count as routes."""
    out = {names.SHORT[t]: c.session.synced(t) for t in names.ORDER}
    hosts = out.pop("VHDS")
    if hosts in ("ERROR", "STALE"):
        out["RDS"] = hosts
    return out


def client_config(c: Connection, ours: str) -> Any:
    """The ClientConfig of a connected proxy: which types it has subscribed to, and whether it has them. ``ours``: the
    name of istiod's cluster."""
    out = csds_pb2.ClientConfig()
    out.node.id = proxy_name(c)
    fields = out.node.metadata.fields
    fields["CLUSTER_ID"].string_value = cluster_name(c, ours)
    fields["NAMESPACE"].string_value = c.node.namespace
    fields["ISTIO_VERSION"].string_value = c.metadata.get("ISTIO_VERSION") or ISTIO_VERSION
    status, subscribed = types(c), c.session.subscribed()
    for type_url in sorted(t for t in subscribed if t in names.SHORT and t != names.VHDS):
        one = out.generic_xds_configs.add(type_url=type_url, config_status=_STATUS[status[names.SHORT[type_url]]])
        if type_url in c.sent_at:
            one.last_updated.FromNanoseconds(int(c.sent_at[type_url] * 1e9))
        rejection = c.session.rejections.get(type_url)
        if rejection is not None:
            one.error_state.details = rejection.message
            one.error_state.last_update_attempt.CopyFrom(one.last_updated)
    return out


def resources(c: Connection, type_url: str) -> list[Any]:
    """The packed messages of a type that the proxy should have, sorted by name, without keys and passwords."""
    found = {n: r for s in c.session.sets().get(type_url, ()) for n, r in s.resources.items()}
    if type_url not in (names.CDS, names.LDS):
        wanted = set(c.session.names(type_url))
        found = {n: r for n, r in found.items() if n in wanted}
    out = [discovery_pb2.Resource.FromString(found[n].wrapped).resource for n in sorted(found)]
    match type_url:
        case names.SDS:
            return [_redacted(r) for r in out]
        case names.ECDS:
            return [_without_keys(r) for r in out]
        case names.RDS:
            return [_with_hosts(c, r) for r in out]
        case _:
            return out


def _redacted(found: Any) -> Any:
    secret = secret_pb2.Secret.FromString(found.value)
    if secret.HasField("tls_certificate"):
        secret.tls_certificate.ClearField("private_key")
        secret.tls_certificate.private_key.inline_string = REDACTED
    if secret.HasField("generic_secret"):
        secret.generic_secret.secret.inline_string = REDACTED
    if secret.HasField("session_ticket_keys"):
        secret.ClearField("session_ticket_keys")
    return pb.any_of(secret)


def _without_keys(found: Any) -> Any:
    """A filter's configuration without the fields that Envoy's API marks as sensitive, as in Envoy's dumps."""
    filter_ = extension_pb2.TypedExtensionConfig.FromString(found.value)
    return pb.any_of(filter_) if _redact(filter_) else found


def _redact(message: Any, inside: bool = False) -> bool:
    """Redact sensitive fields. ``inside``: the message is in a sensitive field. Returns whether anything was
    redacted."""
    if isinstance(message, any_pb2.Any):
        return _redact_packed(message, inside)
    some = False
    for field, value in message.ListFields():
        secret = inside or field.GetOptions().Extensions[sensitive_pb2.sensitive]
        if field.message_type is not None:
            if not field.message_type.GetOptions().map_entry:
                each = [value] if isinstance(value, Message) else list(value)
                some = sum(_redact(one, secret) for one in each) > 0 or some
        elif secret:
            some = True
            if isinstance(value, str):
                setattr(message, field.name, REDACTED)
            else:
                message.ClearField(field.name)
    return some


def _redact_packed(message: any_pb2.Any, inside: bool) -> bool:
    held = _unpacked(message)
    some = _redact(held, inside)
    if some:
        message.Pack(held, deterministic=True)
    return some


def _unpacked(message: any_pb2.Any) -> Message:
    kind = descriptor_pool.Default().FindMessageTypeByName(message.TypeName())
    held = message_factory.GetMessageClass(kind)()
    message.Unpack(held)
    return held


def _with_hosts(c: Connection, found: Any) -> Any:
    """A route configuration including its virtual hosts, which are delivered separately (VHDS), as in Envoy's dumps."""
    route = route_pb2.RouteConfiguration.FromString(found.value)
    mine = {
        n: r
        for s in c.session.sets().get(names.VHDS, ())
        for n, r in s.resources.items()
        if n.partition("/")[0] == route.name
    }
    for name in sorted(mine):
        host = discovery_pb2.Resource.FromString(mine[name].wrapped).resource
        route.virtual_hosts.append(route_components_pb2.VirtualHost.FromString(host.value))
    return pb.any_of(route)


def config_dump(c: Connection, endpoints: bool = False) -> list[Any]:
    """The packed parts of an Envoy config dump, as far as they come from istiod."""
    clusters = config_dump_shared_pb2.ClustersConfigDump()
    for r in resources(c, names.CDS):
        clusters.dynamic_active_clusters.add().cluster.CopyFrom(r)
    listeners = config_dump_shared_pb2.ListenersConfigDump()
    for r in resources(c, names.LDS):
        listeners.dynamic_listeners.add().active_state.listener.CopyFrom(r)
    routes = config_dump_shared_pb2.RoutesConfigDump()
    for r in resources(c, names.RDS):
        routes.dynamic_route_configs.add().route_config.CopyFrom(r)
    secrets = config_dump_pb2.SecretsConfigDump()
    for r in resources(c, names.SDS):
        secrets.dynamic_active_secrets.add().secret.CopyFrom(r)
    extensions = config_dump_shared_pb2.EcdsConfigDump()
    for r in resources(c, names.ECDS):
        extensions.ecds_filters.add().ecds_filter.CopyFrom(r)
    parts: list[Any] = [config_dump_pb2.BootstrapConfigDump(), clusters]
    if endpoints:
        of_endpoints = config_dump_shared_pb2.EndpointsConfigDump()
        for r in resources(c, names.EDS):
            of_endpoints.dynamic_endpoint_configs.add().endpoint_config.CopyFrom(r)
        parts.append(of_endpoints)
    parts += [listeners, config_dump_shared_pb2.ScopedRoutesConfigDump(), routes, secrets, extensions]
    return [pb.any_of(p) for p in parts]


def raw(type_url: str, value: bytes) -> Any:
    """Bytes that are not protobuf, in the form in which istioctl expects debug pages."""
    return any_pb2.Any(type_url=type_url, value=value)


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
