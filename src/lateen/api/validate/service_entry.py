"""The rules of ServiceEntry, WorkloadEntry and WorkloadGroup between their fields."""

from __future__ import annotations

import ipaddress
from collections.abc import Generator

from lateen.api import networking as n
from lateen.api.validate import scalars as s
from lateen.api.validate.common import label_selector
from lateen.api.validate.findings import Finding, Findings, no, warn
from lateen.kit.jsons import Json

UNIX = "unix://"
DNS = {"DNS", "DNS_ROUND_ROBIN"}
ADDRESSES = (
    "addresses are required for ports serving TCP (or unset) protocol when ISTIO_META_DNS_AUTO_ALLOCATE is not set on "
    "a proxy: without one, all connections of the port go to the oldest such entry"
)
BY_HOST = {"http", "http2", "https", "grpc", "grpc-web", "tls"}
"""Protocols that carry the host's name, so that no address is needed to tell services apart."""


def service_entry(se: n.ServiceEntry, meta: Json) -> Findings:
    yield from label_selector(se.workload_selector, "service entry")
    if se.workload_selector and se.endpoints:
        yield no("spec", "only one of workloadSelector or endpoints is allowed in a service entry")
    if se.workload_selector and se.resolution != "STATIC":
        mode = se.resolution
        yield warn("spec.workloadSelector", f"workloadSelector should not be set when resolution mode is {mode}")
    yield from _hosts(se)
    cidrs = yield from _addresses(se)
    ports = yield from _ports(se)
    if cidrs and se.resolution not in ("NONE", "STATIC"):
        yield no(
            "spec.addresses", f"CIDR addresses are allowed only for NONE/STATIC resolution types, not {se.resolution}"
        )
    yield from _endpoints(se, ports)
    yield from _dynamic(se)
    if not se.addresses and any(p.protocol.lower() not in BY_HOST and p.protocol for p in se.ports):
        yield warn("spec.addresses", ADDRESSES)
    yield from s.export_to(str(meta.get("namespace") or ""), se.export_to, service_entry=True)


def _hosts(se: n.ServiceEntry) -> Findings:
    if not se.hosts:
        yield no("spec.hosts", "service entry must have at least one host")
    for i, host in enumerate(se.hosts):
        at = f"spec.hosts[{i}]"
        if host == "*":
            yield no(at, f'invalid host "{host}": a full wildcard is not allowed')
            continue
        yield from s.wildcard_domain(host, at)
        yield from s.partial_wildcard(host, at, refuse=False)
        if host.startswith("*") and se.resolution == "NONE" and not se.addresses:
            yield warn(at, f'"{host}": wildcard hosts with resolution NONE are matched by SNI or Host only')


def _addresses(se: n.ServiceEntry) -> Generator[Finding, None, bool]:
    cidrs = False
    for i, address in enumerate(se.addresses):
        cidrs = cidrs or "/" in address
        yield from s.cidr(address, f"spec.addresses[{i}]")
    return cidrs


def _ports(se: n.ServiceEntry) -> Generator[Finding, None, set[str]]:
    names: set[str] = set()
    numbers: set[int] = set()
    for i, port in enumerate(se.ports):
        at = f"spec.ports[{i}]"
        if port.name in names:
            yield no(f"{at}.name", f'service entry port name "{port.name}" already defined')
        if port.number in numbers:
            yield no(f"{at}.number", f"service entry port {port.number} already defined")
        names.add(port.name)
        numbers.add(port.number)
        yield from s.port_name(port.name, f"{at}.name")
        if port.protocol:
            yield from s.protocol(port.protocol, f"{at}.protocol")
        yield from s.port(port.number, f"{at}.number")
        if port.target_port:
            yield from s.port(port.target_port, f"{at}.targetPort")
            if se.resolution == "NONE" and not se.workload_selector:
                yield warn(f"{at}.targetPort", "targetPort has no effect with resolution NONE")
    return names


def _endpoints(se: n.ServiceEntry, ports: set[str]) -> Findings:
    match se.resolution:
        case "NONE":
            if se.endpoints:
                yield no("spec.endpoints", "no endpoints should be provided for resolution type none")
        case "STATIC":
            if not se.endpoints and not se.workload_selector:
                yield warn("spec.endpoints", "service entry with resolution STATIC has no endpoints")
            unix = False
            for i, e in enumerate(se.endpoints):
                at = f"spec.endpoints[{i}]"
                if e.address.startswith(UNIX):
                    unix = True
                    yield from _unix(e, at)
                elif e.address and not s.is_ip(e.address):
                    yield no(f"{at}.address", f'"{e.address}" is not a valid IP address')
                elif not e.address and not e.network:
                    yield no(f"{at}.address", "endpoint address or network is required")
                yield from _endpoint(e, at, ports)
            if unix and len(se.ports) != 1:
                yield no("spec.ports", "exactly 1 service port required for unix endpoints")
        case "DYNAMIC_DNS":
            if se.endpoints:
                yield no("spec.endpoints", "no endpoints should be provided for resolution type DYNAMIC_DNS")
        case _:
            yield from _dns_endpoints(se, ports)


def _dns_endpoints(se: n.ServiceEntry, ports: set[str]) -> Findings:
    if not se.endpoints:
        for i, host in enumerate(se.hosts):
            if "*" in host:
                yield no(
                    f"spec.hosts[{i}]",
                    f"hosts must be FQDN if no endpoints are provided for resolution mode {se.resolution}",
                )
            else:
                yield from s.fqdn(host, f"spec.hosts[{i}]")
    if se.resolution == "DNS_ROUND_ROBIN" and len(se.endpoints) > 1:
        yield no("spec.endpoints", "there must only be 0 or 1 endpoint for resolution mode DNS_ROUND_ROBIN")
    for i, e in enumerate(se.endpoints):
        at = f"spec.endpoints[{i}]"
        if e.address and not s.is_ip(e.address):
            yield from s.fqdn(e.address, f"{at}.address")
        elif not e.address and not e.network:
            yield no(f"{at}.address", "endpoint address or network is required")
        yield from _endpoint(e, at, ports)


def _endpoint(e: n.WorkloadEntry, at: str, ports: set[str]) -> Findings:
    yield from s.labels(e.labels, f"{at}.labels")
    for name, number in e.ports.items():
        if name not in ports:
            yield no(f"{at}.ports[{name}]", f"endpoint port {name} is not defined by the service entry")
        yield from s.port_name(name, f"{at}.ports[{name}]")
        yield from s.port(number, f"{at}.ports[{name}]")


def _unix(e: n.WorkloadEntry, at: str) -> Findings:
    path = e.address.removeprefix(UNIX)
    if not path or path[0] not in "/@" or path.endswith("/"):
        yield no(f"{at}.address", f'"{path}" is not the path of a socket')
    if e.ports:
        yield no(f"{at}.ports", "unix endpoint must not include ports")


def _dynamic(se: n.ServiceEntry) -> Findings:
    if se.resolution != "DYNAMIC_DNS":
        return
    for i, host in enumerate(se.hosts):
        if not host.startswith("*."):
            yield no(f"spec.hosts[{i}]", "resolution DYNAMIC_DNS needs a wildcard host")
    if se.addresses:
        yield no("spec.addresses", "addresses cannot be set with resolution DYNAMIC_DNS")
    for i, port in enumerate(se.ports):
        if port.protocol.lower() not in BY_HOST:
            yield no(
                f"spec.ports[{i}].protocol", f'DYNAMIC_DNS works with HTTP and TLS protocols, not "{port.protocol}"'
            )


def workload_entry(we: n.WorkloadEntry, _: Json) -> Findings:
    yield from _entry(we, "spec")


def _entry(we: n.WorkloadEntry, at: str, template: bool = False) -> Findings:
    if not we.address and not template:
        if not we.network:
            yield no(f"{at}.address", "address is required")
        else:
            yield warn(f"{at}.address", f'address is unset with network "{we.network}"')
    elif we.address.startswith(UNIX):
        yield from _unix(we, at)
    elif we.address:
        try:
            ipaddress.ip_address(we.address)
        except ValueError:
            if any(True for _ in s.fqdn(we.address, at)):
                yield no(f"{at}.address", f'endpoint address "{we.address[:80]}" is not a valid FQDN or an IP address')
    yield from s.labels(we.labels, f"{at}.labels")
    for name, number in we.ports.items():
        yield from s.port_name(name, f"{at}.ports[{name}]")
        yield from s.port(number, f"{at}.ports[{name}]")


def workload_group(wg: n.WorkloadGroup, _: Json) -> Findings:
    if wg.template is None:
        yield no("spec.template", "template is required")
    else:
        yield from _entry(wg.template, "spec.template", template=True)
    if wg.metadata:
        yield from s.labels(wg.metadata.labels, "spec.metadata.labels")
    if p := wg.probe:
        for field, value in (
            ("timeoutSeconds", p.timeout_seconds),
            ("initialDelaySeconds", p.initial_delay_seconds),
            ("periodSeconds", p.period_seconds),
            ("successThreshold", p.success_threshold),
            ("failureThreshold", p.failure_threshold),
        ):
            if (value or 0) < 0:
                yield no(f"spec.probe.{field}", "must be non-negative")
        yield from _probe(p)


def _probe(p: n.ReadinessProbe) -> Findings:
    given = sum(x is not None for x in (p.http_get, p.tcp_socket, p.exec, p.grpc))
    if given > 1:
        yield no("spec.probe", "give only one of httpGet, tcpSocket, exec, grpc")
    if not given:
        yield no("spec.probe", "unknown health check method: give one of httpGet, tcpSocket, exec, grpc")
    if h := p.http_get:
        yield from s.port(h.port, "spec.probe.httpGet.port")
        if h.scheme not in ("", "HTTP", "HTTPS"):
            yield no("spec.probe.httpGet.scheme", "must be HTTP or HTTPS")
        for i, header in enumerate(h.http_headers):
            yield from s.header_name(header.name, f"spec.probe.httpGet.httpHeaders[{i}].name")
    if p.tcp_socket:
        yield from s.port(p.tcp_socket.port, "spec.probe.tcpSocket.port")
    if p.grpc and p.grpc.port is not None:
        yield from s.port(p.grpc.port, "spec.probe.grpc.port")
    if p.exec is not None and (not p.exec.command or any(not c for c in p.exec.command)):
        yield no("spec.probe.exec.command", "must not be empty")
