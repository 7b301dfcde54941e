"""The rules of Gateway between its fields.

Source: istio.io/istio ``pkg/config/validation/validation.go``, ValidateGateway.
"""

from __future__ import annotations

from lateen.api import networking as n
from lateen.api.validate import scalars as s
from lateen.api.validate.common import PASSING, UNIX, server_tls, unix_address
from lateen.api.validate.findings import Findings, hint, no, warn
from lateen.kit.jsons import Json

SEMANTICS = "internal.istio.io/gateway-semantics"


def gateway(gw: n.Gateway, meta: Json) -> Findings:
    name = str(meta.get("name") or "")
    converted = (meta.get("annotations") or {}).get(SEMANTICS) == "gateway"
    if name and not converted and not s.is_label(name):
        yield no("metadata.name", f'invalid gateway name: "{name}"; use letters, digits and "-", at most 63')
    if not gw.servers:
        yield no("spec.servers", "gateway must have at least one server")
    names: set[str] = set()
    for i, server in enumerate(gw.servers):
        at = f"spec.servers[{i}]"
        yield from _server(server, at, converted)
        if server.port.name and server.port.name in names:
            yield no(f"{at}.port.name", f"port names in servers must be unique: duplicate name {server.port.name}")
        names.add(server.port.name)
    yield from _same_hosts(gw)


def _same_hosts(gw: n.Gateway) -> Findings:
    """A connection without TLS does not say which host it is for."""
    first: dict[tuple[int, str, str], int] = {}
    for i, server in enumerate(gw.servers):
        protocol = server.port.protocol.lower()
        if protocol in s.TLS or server.tls is not None:
            continue
        for host in server.hosts:
            key = (server.port.number, server.bind, host)
            if key in first and protocol not in s.HTTP:
                says = (
                    f'"{host}" is also a host of server {first[key]} on the same port; only that one gets connections'
                )
                yield hint(f"spec.servers[{i}].hosts", says)
            first.setdefault(key, i)


def _server(server: n.Server, at: str, converted: bool) -> Findings:
    if not server.hosts:
        yield no(f"{at}.hosts", "server config must contain at least one host")
    for i, host in enumerate(server.hosts):
        yield from _host(host, f"{at}.hosts[{i}]", converted)
    if not server.port.number and not server.port.name and not server.port.protocol:
        yield no(f"{at}.port", "port is required")
    yield from _port(server.port, f"{at}.port", server.bind)
    yield from _bind(server, at)
    yield from _tls(server, at)


def _tls(server: n.Server, at: str) -> Findings:
    protocol = server.port.protocol.lower()
    if server.tls is None:
        if protocol in s.TLS:
            yield no(f"{at}.tls", "server must have TLS settings for HTTPS/TLS protocols")
        return
    yield from server_tls(server.tls, f"{at}.tls")
    if protocol in s.HTTP:
        if not _redirect_only(server.tls):
            says = "server cannot have TLS settings for plain text HTTP ports"
            yield no(f"{at}.tls", f"{says}, but httpsRedirect; write protocol: HTTPS")
    elif protocol not in s.TLS:
        yield no(f"{at}.tls", "server cannot have TLS settings for non HTTPS/TLS ports; write protocol: TLS or HTTPS")
    if server.tls.https_redirect and protocol not in s.HTTP:
        says = f"tls.httpsRedirect should only be used with http servers; this one is {server.port.protocol}"
        yield warn(f"{at}.tls.httpsRedirect", says)


def _redirect_only(tls: n.ServerTLS) -> bool:
    return tls.mode in PASSING and not any((tls.ca_certificates, tls.private_key, tls.server_certificate))


def _bind(server: n.Server, at: str) -> Findings:
    if server.bind.startswith(UNIX):
        yield from unix_address(server.bind.removeprefix(UNIX), f"{at}.bind")
        if server.port.number:
            yield no(f"{at}.port.number", "port number must be 0 for unix domain socket")
    elif server.bind and not s.is_ip(server.bind):
        yield no(f"{at}.bind", f"{server.bind} is not a valid IP; write an address, or unix:///path")


def _port(port: n.ServerPort, at: str, bind: str) -> Findings:
    if port.protocol.lower() not in s.SUPPORTED:
        known = (
            "supported protocols are HTTP, HTTP2, GRPC, GRPC-WEB, MONGO, REDIS, MYSQL, TCP, and HTTPS and TLS with tls"
        )
        yield no(f"{at}.protocol", f'invalid protocol "{port.protocol}", {known}')
    if port.number or not bind.startswith(UNIX):
        yield from s.port(port.number, f"{at}.number")
    if not port.name:
        yield no(f"{at}.name", "port name must be set")
    if port.target_port:
        yield no(f"{at}.targetPort", "targetPort has no impact on Gateways; the gateway's Service maps ports")


def _host(text: str, at: str, converted: bool) -> Findings:
    """``converted``: from the Gateway API, where ``~`` stands for no namespace."""
    namespace, slash, name = text.partition("/")
    if not slash:
        name = namespace
    elif not namespace or not name:
        yield no(at, f'config namespace and dnsName in host entry cannot be empty, as in "{text}"')
        return
    elif namespace not in (".", "*", *("~" * converted)) and not s.is_label(namespace):
        yield no(at, f'invalid namespace value "{namespace}" in gateway; use ".", "*" or the name of one')
    if not s.is_ip(name):
        yield from s.offered_host(name, at)
