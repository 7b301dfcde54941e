"""The rules of Gateway between its fields."""

from __future__ import annotations

from lateen.api import networking as n
from lateen.api.validate import scalars as s
from lateen.api.validate.common import server_tls
from lateen.api.validate.findings import Findings, no, warn
from lateen.kit.jsons import Json

TLS_PROTOCOLS = {"HTTPS", "TLS"}
SEMANTICS = "internal.istio.io/gateway-semantics"
HTTP_PROTOCOLS = {"HTTP", "HTTP2", "GRPC", "GRPC-WEB"}


def gateway(gw: n.Gateway, meta: Json) -> Findings:
    name = str(meta.get("name") or "")
    converted = (meta.get("annotations") or {}).get(SEMANTICS) == "gateway"
    if name and not converted and not s._LABEL.fullmatch(name):
        yield no("metadata.name", f'invalid gateway name: "{name}" is not a label of letters, digits and "-"')
    if not gw.servers:
        yield no("spec.servers", "gateway must have at least one server")
    names: set[str] = set()
    for i, server in enumerate(gw.servers):
        at = f"spec.servers[{i}]"
        yield from _server(server, at, converted)
        if server.port.name and server.port.name in names:
            yield no(f"{at}.port.name", f'port names in servers must be unique: duplicate name "{server.port.name}"')
        names.add(server.port.name)
    hosts: dict[tuple[int, str, str], int] = {}
    for i, server in enumerate(gw.servers):
        for host in server.hosts:
            if server.port.protocol.upper() in ("HTTPS", "TLS") or server.tls is not None:
                continue
            key = (server.port.number, server.bind, host)
            if key in hosts and server.port.protocol.upper() not in HTTP_PROTOCOLS:
                yield warn(f"spec.servers[{i}].hosts", f'"{host}" is also of server {hosts[key]} of the same port')
            hosts[key] = i


def _server(server: n.Server, at: str, converted: bool) -> Findings:
    if not server.hosts:
        yield no(f"{at}.hosts", "server config must contain at least one host")
    for i, host in enumerate(server.hosts):
        yield from _host(host, f"{at}.hosts[{i}]", converted)
    if not server.port.number and not server.port.name and not server.port.protocol:
        yield no(f"{at}.port", "port is required")
    yield from _port(server.port, f"{at}.port", server.bind)
    if server.bind.startswith(("/", "@", "unix://")):
        yield from _unix(server.bind, f"{at}.bind")
        if server.port.number:
            yield no(f"{at}.bind", "unix domain socket bind cannot be used with a port number")
    elif server.bind and not s.is_ip(server.bind):
        yield no(f"{at}.bind", f"{server.bind} is not a valid IP")
    protocol = server.port.protocol.upper()
    if server.default_endpoint:
        yield no(f"{at}.defaultEndpoint", "is not supported on a gateway")
    if server.tls is None:
        if protocol in TLS_PROTOCOLS:
            yield no(f"{at}.tls", f"server must have TLS settings for {protocol} protocols")
        return
    yield from server_tls(server.tls, f"{at}.tls")
    if protocol in HTTP_PROTOCOLS and not _redirect_only(server.tls):
        yield no(f"{at}.tls", "server cannot have TLS settings for plain text HTTP ports")
    elif protocol not in HTTP_PROTOCOLS and protocol not in TLS_PROTOCOLS:
        yield no(f"{at}.tls", "server cannot have TLS settings for non HTTPS/TLS ports")
    if server.tls.https_redirect and protocol not in HTTP_PROTOCOLS:
        yield warn(f"{at}.tls.httpsRedirect", f"tls.httpsRedirect should only be used with http servers, is {protocol}")


def _redirect_only(tls: n.ServerTLS) -> bool:
    return tls == n.ServerTLS(https_redirect=tls.https_redirect)


def _unix(path: str, at: str) -> Findings:
    path = path.removeprefix("unix://")
    if not path or path[0] not in "/@":
        yield no(at, f'"{path}" is not an absolute path or an abstract socket')
    elif path.endswith("/"):
        yield no(at, f'"{path}" is a folder')


def _port(port: n.ServerPort, at: str, bind: str) -> Findings:
    yield from s.protocol(port.protocol, f"{at}.protocol")
    if not bind.startswith(("/", "@", "unix://")):
        yield from s.port(port.number, f"{at}.number")
    if not port.name:
        yield no(f"{at}.name", "port name must be set")
    else:
        yield from s.port_name(port.name, f"{at}.name")
    if port.target_port is not None:
        yield warn(f"{at}.targetPort", "targetPort has no impact on Gateways")


def _host(text: str, at: str, converted: bool) -> Findings:
    """``converted``: from the Gateway API, where ``~`` stands for no namespace."""
    namespace, slash, name = text.partition("/")
    if not slash:
        name = namespace
    elif not namespace or not name:
        yield no(at, "config namespace and dnsName in host entry cannot be empty")
        return
    elif namespace not in (".", "*", *("~" * converted)) and not s._LABEL.fullmatch(namespace):
        yield no(at, f'invalid namespace value "{namespace}" in gateway; use ".", "*" or the name of one')
    if not s.is_ip(name):
        yield from s.offered_host(name, at)
