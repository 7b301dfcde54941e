"""Responses to ACME challenges at gateways, independent of user-defined routes.

HTTP-01 is a slot in front of all other filters, which answers pending tokens and ignores everything else.
TLS-ALPN-01 is a filter chain for its protocol alone, which ends each connection after the handshake.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from envoy.config.core.v3 import base_pb2, config_source_pb2, extension_pb2
from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.extensions.filters.http.lua.v3 import lua_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2

from lateen.mesh.challenges import Challenges, Shown
from lateen.wire import names
from lateen.wire.resource import Resource
from lateen.xds import pb
from lateen.xds.filters.chain import HttpFilter, Requests

SLOT = "lateen.acme"
PROTOCOL = "acme-tls/1"
_PREFIX = "type.googleapis.com/envoy.extensions.filters.http."
_CODE = """local answers = {
%s
}
local start = "/.well-known/acme-challenge/"
function envoy_on_request(handle)
  local path = handle:headers():get(":path")
  if not path or string.sub(path, 1, #start) ~= start then return end
  local found = answers[string.sub(path, #start + 1)]
  local host = string.lower(handle:headers():get(":authority") or "")
  if found and string.gsub(host, ":%%d+$", "") == found[1] then
    handle:respond({[":status"] = "200", ["content-type"] = "application/octet-stream"}, found[2])
  end
end
"""
_UNSAFE = re.compile(rb"[^A-Za-z0-9._:-]")

_END = tcp_proxy_pb2.TcpProxy(
    stat_prefix="acme",
    cluster=names.BLACK_HOLE,
    upstream_connect_mode="ON_DOWNSTREAM_TLS_HANDSHAKE",
    max_early_data_bytes=pb.u32(0),
)
"""Has no upstream, so the connection ends after the handshake, as RFC 8737 section 3 requires."""


def http(chain: Requests) -> list[HttpFilter]:
    return [_slot()] if chain.challenges else []


@cache
def _slot() -> hcm.HttpFilter:
    types = [f"{_PREFIX}lua.v3.Lua", f"{_PREFIX}rbac.v3.RBAC"]
    return hcm.HttpFilter(
        name=SLOT, config_discovery=config_source_pb2.ExtensionConfigSource(config_source=pb.ads(), type_urls=types)
    )


def extension(found: Challenges) -> Resource:
    """The content of the slot: nothing to do, unless something is pending."""
    answers = "\n".join(f"  [{_lua(a.token)}] = {{{_lua(a.host)}, {_lua(a.proof)}}}," for a in found.answers)
    config: Any = rbac_pb2.RBAC()
    if answers:
        config = lua_pb2.Lua(default_source_code=base_pb2.DataSource(inline_string=_CODE % answers))
    message = extension_pb2.TypedExtensionConfig(name=SLOT, typed_config=pb.any_of(config))
    return pb.resource(SLOT, message, (found.origin,))


def _lua(text: str) -> str:
    """A Lua string literal, escaped so that no text is executed as code."""
    escaped = _UNSAFE.sub(lambda m: b"\\%03d" % m[0][0], text.encode())
    return f'"{escaped.decode()}"'


def chains(found: Challenges | None, place: tuple[str, int], others: Iterable[Any]) -> list[lc.FilterChain]:
    """Those of a listener. Envoy decides by the name before it looks at the protocol, and does not come back: so a host
    gets a chain beside the one that has its other connections, for the same names."""
    if found is None or place not in found.places:
        return []
    spelled = {n for c in others for n in c.filter_chain_match.server_names}
    wildcards = sorted((n for n in spelled if n.startswith("*.")), key=lambda n: (-len(n), n))
    groups: dict[str, list[Shown]] = {}
    for one in found.shown:
        beside = one.host if one.host in spelled else _within(one.host, wildcards)
        groups.setdefault(beside, []).append(one)
    return [_chain(name, group) for name, group in sorted(groups.items())]


def _within(host: str, wildcards: Sequence[str]) -> str:
    """The first wildcard that covers a host; empty: the chain of all other names."""
    return next((n for n in wildcards if host.endswith(n[1:])), "")


def _chain(name: str, group: Iterable[Shown]) -> lc.FilterChain:
    """The certificates are inlined in the listener instead of in SDS resources: they are not secret."""
    common = tls_pb2.CommonTlsContext(
        alpn_protocols=[PROTOCOL],
        tls_certificates=[
            common_pb2.TlsCertificate(
                certificate_chain=base_pb2.DataSource(inline_string=one.chain),
                private_key=base_pb2.DataSource(inline_string=one.key),
            )
            for one in group
        ],
    )
    context = tls_pb2.DownstreamTlsContext(common_tls_context=common)
    return lc.FilterChain(
        name=f"acme-tls/{name or 'other'}",
        filter_chain_match=lc.FilterChainMatch(server_names=[name] if name else [], application_protocols=[PROTOCOL]),
        transport_socket=base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=pb.any_of(context)),
        filters=[lc.Filter(name="envoy.filters.network.tcp_proxy", typed_config=pb.any_of(_END))],
    )
