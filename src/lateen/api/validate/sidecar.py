"""The rules of Sidecar between its fields.

Source: istio.io/istio ``pkg/config/validation/validation.go``, ValidateSidecar.
"""

from __future__ import annotations

from lateen.api import networking as n
from lateen.api.validate import scalars as s
from lateen.api.validate.common import UNIX, connection_pool, destination, label_selector, server_tls, unix_address
from lateen.api.validate.findings import Findings, no, warn
from lateen.kit.digits import digits
from lateen.kit.jsons import Json

LOCAL = ("", "127.0.0.1", "0.0.0.0", "::1", "::")
ENDPOINT = (
    "defaultEndpoint must be of form 127.0.0.1:<port>,0.0.0.0:<port>,[::1]:port,[::]:port,unix://filepath or unset"
)


def sidecar(sc: n.Sidecar, meta: Json) -> Findings:
    yield from label_selector(sc.workload_selector, "sidecar")
    yield from connection_pool(sc.inbound_connection_pool, "spec.inboundConnectionPool")
    if not (sc.egress or sc.ingress or sc.outbound_traffic_policy or sc.inbound_connection_pool):
        yield no("spec", "sidecar: empty configuration provided")
    ports: set[int] = set()
    for i, listener in enumerate(sc.ingress):
        yield from _ingress(listener, f"spec.ingress[{i}]", ports)
    yield from _egress(sc.egress, str(meta.get("namespace") or ""))
    if sc.outbound_traffic_policy:
        yield from _policy(sc.outbound_traffic_policy, "spec.outboundTrafficPolicy")


def _policy(policy: n.OutboundTrafficPolicy, at: str) -> Findings:
    proxy = policy.egress_proxy
    if proxy is None:
        return
    if policy.mode != "ALLOW_ANY":
        says = "egress_proxy must be set only with ALLOW_ANY outbound_traffic_policy mode"
        yield no(f"{at}.egressProxy", f"sidecar: {says}; write mode: ALLOW_ANY")
    if proxy.port is None:
        yield no(f"{at}.egressProxy.port", "sidecar: egress_proxy port must be non-nil")
    if s.is_wildcard(proxy.host):
        yield from s.fqdn(proxy.host, f"{at}.egressProxy.host")
    yield from destination(proxy, f"{at}.egressProxy")


# --- ingress ---------------------------------------------------------------------------------------------------------


def _port(port: n.SidecarPort, at: str) -> Findings:
    """What ports of both directions have besides a number."""
    if port.protocol:
        yield from s.protocol(port.protocol, f"{at}.protocol")
    if port.name:
        yield from s.port_name(port.name, f"{at}.name")
    if port.target_port:
        yield no(f"{at}.targetPort", "targetPort has no impact on Sidecars; use defaultEndpoint of an ingress listener")


def _ip(bind: str, at: str, why: str = "") -> Findings:
    if bind and not s.is_ip(bind):
        yield no(f"{at}.bind", f"{bind[:80]} is not a valid IP{why}")


def _ingress(listener: n.IstioIngressListener, at: str, seen: set[int]) -> Findings:
    port = listener.port
    if port is None:
        yield no(f"{at}.port", "sidecar: port is required for ingress listeners")
        return
    yield from s.port(port.number, f"{at}.port.number")
    yield from _port(port, f"{at}.port")
    yield from _ip(listener.bind, at)
    if port.number in seen:
        yield no(f"{at}.port", f"sidecar: ports on IP bound listeners must be unique, {port.number} is given twice")
    seen.add(port.number)
    yield from _endpoint(listener.default_endpoint, f"{at}.defaultEndpoint")
    yield from connection_pool(listener.connection_pool, f"{at}.connectionPool")
    pool = listener.connection_pool
    if pool and pool.http and port.protocol and port.protocol.lower() not in s.HTTP:
        says = (
            f'HTTP connection pool settings are configured for port {port.number} ("{port.name}") but its protocol is '
            f"not HTTP ({port.protocol}); only TCP settings will apply"
        )
        yield warn(f"{at}.connectionPool.http", f"sidecar: {says}")
    if listener.tls is not None:
        yield from _ingress_tls(port.protocol, listener.tls, f"{at}.tls")


def _ingress_tls(protocol: str, tls: n.ServerTLS, at: str) -> Findings:
    """https://istio.io/latest/docs/reference/config/networking/sidecar/#IstioIngressListener: SIMPLE or MUTUAL."""
    if tls.mode in ("ISTIO_MUTUAL", "AUTO_PASSTHROUGH", "PASSTHROUGH"):
        says = f"configuration is invalid: cannot set mode to {tls.mode} in sidecar ingress tls"
        yield no(f"{at}.mode", f"{says}; use SIMPLE or MUTUAL")
    if protocol.lower() not in s.TLS:
        yield no(at, "server cannot have TLS settings for non HTTPS/TLS ports")
    for field, what, given in (
        ("httpsRedirect", "httpsRedirect is not supported", tls.https_redirect),
        ("subjectAltNames", "subjectAltNames is not supported in ingress tls", tls.subject_alt_names),
        ("credentialName", "credentialName is not currently supported", tls.credential_name),
        ("credentialNames", "credentialNames is not currently supported", tls.credential_names),
        ("caCertCredentialName", "caCertCredentialName is not currently supported", tls.ca_cert_credential_name),
        ("tlsCertificates", "tls_certificates is not currently supported", tls.tls_certificates),
    ):
        if given:
            yield no(f"{at}.{field}", f"sidecar: {what}")
    yield from server_tls(tls, at)


def _endpoint(text: str, at: str) -> Findings:
    """Where the application listens: only addresses of the pod itself, since a sidecar serves no other."""
    if not text:
        return
    if text.startswith(UNIX):
        yield from unix_address(text.removeprefix(UNIX), at)
        return
    address, colon, port = text.rpartition(":")
    bracketed = address.startswith("[") and address.endswith("]")
    host = address[1:-1] if bracketed else address
    if not colon or (":" in address and not bracketed) or host not in LOCAL:
        yield no(at, f'sidecar: {ENDPOINT}, is "{text[:80]}"')
    elif not digits(port):
        yield no(at, f"sidecar: defaultEndpoint port ({port[:80]}) is not a number")
    else:
        yield from s.port(int(port), at)


# --- egress ----------------------------------------------------------------------------------------------------------


def _egress(listeners: tuple[n.IstioEgressListener, ...], namespace: str) -> Findings:
    ports: set[int] = set()
    sockets: set[str] = set()
    for i, listener in enumerate(listeners):
        at = f"spec.egress[{i}]"
        if listener.port is None:
            if i < len(listeners) - 1:
                says = "the egress listener with empty port should be the last listener in the list"
                yield no(f"{at}.port", f"sidecar: {says}, and the only one")
            yield from _ip(listener.bind, at)
        else:
            yield from _port(listener.port, f"{at}.port")
            yield from _place(listener, listener.port.number, at, ports, sockets)
        yield from _hosts(listener.hosts, f"{at}.hosts", namespace)


def _place(listener: n.IstioEgressListener, number: int, at: str, ports: set[int], sockets: set[str]) -> Findings:
    """A port, or a Unix socket with port 0; each only once."""
    if number:
        yield from s.port(number, f"{at}.port.number")
        yield from _ip(listener.bind, at, "; a unix domain socket needs port number 0" * listener.bind.startswith(UNIX))
        if number in ports:
            yield no(f"{at}.port", f"sidecar: ports on IP bound listeners must be unique, {number} is given twice")
        ports.add(number)
        return
    if not listener.bind.startswith(UNIX):
        says = "ports with 0 value must have a unix domain socket bind address, as in unix:///path"
        yield no(f"{at}.port.number", f"sidecar: {says}")
    else:
        yield from unix_address(listener.bind.removeprefix(UNIX), f"{at}.bind")
    if listener.capture_mode not in ("DEFAULT", "NONE"):
        yield no(f"{at}.captureMode", "sidecar: captureMode must be DEFAULT/NONE for unix domain socket listeners")
    if listener.bind in sockets:
        yield no(f"{at}.bind", "sidecar: unix domain socket values for listeners must be unique")
    sockets.add(listener.bind)


def _hosts(hosts: tuple[str, ...], at: str, namespace: str) -> Findings:
    """``~namespace/host`` takes away what other entries name; ``~/host`` in any namespace."""
    if not hosts:
        yield no(at, "sidecar: egress listener must contain at least one host")
    seen: dict[str, set[str]] = {}
    for i, host in enumerate(hosts):
        where = f"{at}[{i}]"
        space, slash, name = host.partition("/")
        if not slash:
            yield no(where, f'host must be of form namespace/dnsName, is "{host[:80]}"; write ./{host[:80]} or */…')
            continue
        if not space or not name:
            yield no(where, "config namespace and dnsName in host entry cannot be empty")
            continue
        excludes, inner = space.startswith("~"), space.removeprefix("~")
        if inner not in ("*", ".", "") and not s.is_label(inner):
            yield no(where, f'invalid namespace value "{space}" in sidecar; use "*", "." or the name of one, or ~name')
        yield from s.offered_host(name, where)
        if excludes:
            continue
        known = seen.setdefault(namespace if space == "." else space, set())
        if known if name == "*" else name in known or "*" in known:
            yield warn(where, f"duplicated egress host: {host}")
        known.add(name)
    if "*" in seen.get("*", ()) and len(seen) > 1:
        yield warn(at, "`*/*` host select all resources, no other hosts can be added")
