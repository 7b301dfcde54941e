"""The rules of Sidecar between its fields."""

from __future__ import annotations

import ipaddress

from lateen.api import networking as n
from lateen.api.validate import scalars as s
from lateen.api.validate.common import connection_pool, destination, label_selector, server_tls
from lateen.api.validate.findings import Findings, no, warn
from lateen.kit.jsons import Json

UNIX = "unix://"


def sidecar(sc: n.Sidecar, _: Json) -> Findings:
    yield from label_selector(sc.workload_selector, "sidecar")
    yield from connection_pool(sc.inbound_connection_pool, "spec.inboundConnectionPool")
    if not (sc.egress or sc.ingress or sc.outbound_traffic_policy or sc.inbound_connection_pool):
        yield no("spec", "sidecar: empty configuration provided")
    ports: set[int] = set()
    for i, listener in enumerate(sc.ingress):
        yield from _ingress(listener, f"spec.ingress[{i}]", ports)
    yield from _egress(sc.egress)
    if policy := sc.outbound_traffic_policy:
        at = "spec.outboundTrafficPolicy"
        if policy.egress_proxy is not None:
            if policy.mode != "ALLOW_ANY":
                yield no(at, "egress_proxy can only be set with ALLOW_ANY mode")
            if policy.egress_proxy.port is None:
                yield no(f"{at}.egressProxy.port", "must be specified")
            yield from s.fqdn(policy.egress_proxy.host, f"{at}.egressProxy.host")
            yield from destination(policy.egress_proxy, f"{at}.egressProxy")


def _port(port: n.SidecarPort, at: str, bind: str, egress: bool) -> Findings:
    if bind.startswith((UNIX, "@")):
        if port.number and egress and bind.startswith(UNIX):
            yield no(f"{at}.number", "must be 0 for a unix domain socket")
    elif egress and not port.number:
        yield no(f"{at}.number", "ports with 0 value must have a unix domain socket bind address")
    else:
        yield from s.port(port.number, f"{at}.number")
    if port.protocol:
        yield from s.protocol(port.protocol, f"{at}.protocol")
    if port.name:
        yield from s.port_name(port.name, f"{at}.name")
    if port.target_port is not None:
        yield warn(f"{at}.targetPort", "has no effect in a Sidecar")


def _bind(bind: str, mode: n.CaptureMode, at: str) -> Findings:
    if not bind:
        return
    if bind.startswith((UNIX, "@")):
        path = bind.removeprefix(UNIX)
        if not path or path[0] not in "/@":
            yield no(f"{at}.bind", f'"{path}" is not an absolute path or an abstract socket')
        elif path.endswith("/"):
            yield no(f"{at}.bind", f'"{path}" is a folder')
        if mode not in ("DEFAULT", "NONE"):
            yield no(f"{at}.captureMode", "must be DEFAULT or NONE for unix domain socket listeners")
    elif not s.is_ip(bind):
        yield no(f"{at}.bind", f"{bind} is not a valid IP")


def _ingress(listener: n.IstioIngressListener, at: str, seen: set[int]) -> Findings:
    if listener.port is None:
        yield no(f"{at}.port", "port is required for an ingress listener")
        return
    yield from _port(listener.port, f"{at}.port", "", egress=False)
    yield from _bind(listener.bind, listener.capture_mode, at)
    if listener.bind.startswith((UNIX, "@")):
        yield no(f"{at}.bind", "unix domain sockets are not supported for ingress listeners")
    if listener.port.number in seen:
        yield no(f"{at}.port", f"ports on ingress listeners must be unique, {listener.port.number} is given twice")
    seen.add(listener.port.number)
    yield from _endpoint(listener.default_endpoint, f"{at}.defaultEndpoint")
    yield from connection_pool(listener.connection_pool, f"{at}.connectionPool")
    pool, protocol = listener.connection_pool, listener.port.protocol.upper()
    if pool and pool.http and protocol and protocol not in ("HTTP", "HTTP2", "GRPC", "GRPC-WEB"):
        yield warn(
            f"{at}.connectionPool.http",
            f"HTTP connection pool settings are configured for port {listener.port.number} but its protocol is not "
            f"HTTP ({protocol}); only TCP settings will apply",
        )
    if listener.tls is not None:
        yield from _ingress_tls(listener, listener.tls, f"{at}.tls")


def _ingress_tls(listener: n.IstioIngressListener, tls: n.ServerTLS, at: str) -> Findings:
    protocol = listener.port.protocol.upper() if listener.port else ""
    if tls.mode in ("ISTIO_MUTUAL", "AUTO_PASSTHROUGH", "PASSTHROUGH"):
        yield no(f"{at}.mode", f"{tls.mode} is not supported for ingress listeners; use SIMPLE or MUTUAL")
    if protocol not in ("HTTPS", "TLS"):
        yield no(at, "server cannot have TLS settings for non HTTPS/TLS ports")
    for field, value in (
        ("httpsRedirect", tls.https_redirect),
        ("subjectAltNames", tls.subject_alt_names),
        ("credentialName", tls.credential_name),
        ("credentialNames", tls.credential_names),
        ("caCertCredentialName", tls.ca_cert_credential_name),
        ("tlsCertificates", tls.tls_certificates),
    ):
        if value:
            yield no(f"{at}.{field}", f"sidecar: {field} is not supported")
    if tls.mode in ("SIMPLE", "MUTUAL"):
        yield from server_tls(tls, at)


def _endpoint(text: str, at: str) -> Findings:
    """127.0.0.1:port, 0.0.0.0:port, [::1]:port, [::]:port or a unix domain socket; the address is not free."""
    if not text:
        return
    if text.startswith(UNIX):
        path = text.removeprefix(UNIX)
        if not path or path[0] not in "/@" or path.endswith("/"):
            yield no(at, f'"{path}" is not the path of a socket')
        return
    address, _, port = text.rpartition(":")
    try:
        ip = ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
        if ":" in address and not address.startswith("["):
            raise ValueError
    except ValueError:
        yield no(
            at, f'"{text}" must be of form 127.0.0.1:<port>, 0.0.0.0:<port>, [::1]:<port>, [::]:<port> or unix:///path'
        )
        return
    if not (ip.is_unspecified or str(ip) in ("127.0.0.1", "::1")):
        yield no(at, f'"{text}": the address must be 127.0.0.1, 0.0.0.0, ::1 or ::')
    if not port.isdigit():
        yield no(at, f'"{text}": invalid port')
    else:
        yield from s.port(int(port), at)


def _egress(listeners: tuple[n.IstioEgressListener, ...]) -> Findings:
    ports: set[int] = set()
    sockets: set[str] = set()
    catch_all = False
    for i, listener in enumerate(listeners):
        at = f"spec.egress[{i}]"
        port = listener.port
        if port is None:
            if i < len(listeners) - 1:
                yield no(f"{at}.port", "only the last egress listener can be without a port")
            if catch_all:
                yield no(at, "only one egress listener can be without a port")
            catch_all = True
            if listener.capture_mode == "NONE":
                yield no(f"{at}.captureMode", "NONE needs a port")
            if listener.bind and listener.bind.startswith(UNIX):
                yield from _bind(listener.bind, listener.capture_mode, at)
        else:
            yield from _port(port, f"{at}.port", listener.bind, egress=True)
            yield from _bind(listener.bind, listener.capture_mode, at)
            if listener.bind.startswith(UNIX):
                if listener.bind in sockets:
                    yield no(f"{at}.bind", "unix domain socket paths must be unique")
                sockets.add(listener.bind)
            elif port.number in ports:
                yield no(f"{at}.port", f"ports on the egress listener must be unique, {port.number} is given twice")
            ports.add(port.number)
        yield from _egress_hosts(listener.hosts, f"{at}.hosts")


def _egress_hosts(hosts: tuple[str, ...], at: str) -> Findings:
    if not hosts:
        yield no(at, "egress listener must contain at least one host")
    seen: set[str] = set()
    wild: set[str] = {h.partition("/")[0] for h in hosts if h.partition("/")[2] == "*"}
    for i, host in enumerate(hosts):
        where = f"{at}[{i}]"
        namespace, slash, name = host.partition("/")
        if not slash or "/" in name:
            yield no(where, f'"{host}" must be written as namespace/dnsName')
            continue
        if not namespace or not name:
            yield no(where, "config namespace and dnsName in host entry cannot be empty")
            continue
        if namespace not in ("*", ".", "~") and not s._LABEL.fullmatch(namespace):
            yield no(where, f'invalid namespace value "{namespace}" in sidecar; use "*", ".", "~" or the name of one')
        yield from s.offered_host(name, where)
        if host in seen:
            yield warn(where, f'duplicated egress host: "{host}"')
        elif name != "*" and (namespace in wild or "*" in wild):
            yield warn(where, f'duplicated egress host: "{host}" is already in a wildcard of its namespace')
        elif name == "*" and namespace != "*" and "*" in wild:
            says = f'duplicated egress host: "{host}"; `*/*` host select all resources, no other hosts can be added'
            yield warn(where, says)
        seen.add(host)
