"""Validation rules of WorkloadEntry, WorkloadGroup and of a ServiceEntry's endpoints.

Source: istio.io/istio ``pkg/config/validation/validation.go``, ValidateWorkloadEntry and ValidateWorkloadGroup, and
the CEL rules of their CRDs.
"""

from __future__ import annotations

from lateen.api import networking as n
from lateen.api.validate import scalars as s
from lateen.api.validate.common import UNIX, unix_address
from lateen.api.validate.findings import Findings, no, warn
from lateen.kit.jsons import Json

MAX_ADDRESS = 256


def workload_entry(we: n.WorkloadEntry, _: Json) -> Findings:
    if not we.address and not we.network:
        yield no("spec.address", "address is required")
    elif not we.address:
        yield warn("spec.address", f'address is unset with network "{we.network}"')
    yield from _address(we, "spec", names=True)
    yield from _rest(we, "spec")


def endpoint(e: n.WorkloadEntry, at: str, ports: tuple[n.ServicePort, ...], names: bool) -> Findings:
    """An endpoint of a ServiceEntry. ``names``: whether its address is resolved by DNS, so that it may be a name and is
    required."""
    if not e.address and names:
        yield no(f"{at}.address", 'endpoint address "" is not a valid FQDN or an IP address')
    elif not e.address and not e.network:
        yield no(f"{at}.address", "address is required")
    elif not e.address:
        yield warn(f"{at}.address", f'address is unset with network "{e.network}"')
    if names and e.address.startswith(UNIX):
        says = f'endpoint address "{e.address[:80]}" is not a valid FQDN or an IP address'
        yield no(f"{at}.address", f"{says}; sockets need resolution: STATIC")
    else:
        yield from _address(e, at, names)
    known = {p.name for p in ports}
    for name, number in e.ports.items():
        if name not in known:
            says = f"endpoint port {number} is not defined by the service entry, which has no port named {name}"
            yield no(f"{at}.ports[{name}]", says)
    if e.address.startswith(UNIX) and len(ports) != 1:
        yield no(f"{at}.address", "exactly 1 service port required for unix endpoints")
    yield from _rest(e, at)


def _address(we: n.WorkloadEntry, at: str, names: bool) -> Findings:
    if we.address.startswith(UNIX):
        yield from unix_address(we.address.removeprefix(UNIX), f"{at}.address")
        if we.ports:
            yield no(f"{at}.ports", f"unix endpoint {we.address[:80]} must not include ports")
    elif we.address and not s.is_ip(we.address):
        if not names:
            yield no(f"{at}.address", f'endpoint address "{we.address[:80]}" is not a valid IP address')
        elif len(we.address) > MAX_ADDRESS or any(True for _ in s.fqdn(we.address, at)):
            yield no(f"{at}.address", f'endpoint address "{we.address[:80]}" is not a valid FQDN or an IP address')


def _rest(we: n.WorkloadEntry, at: str) -> Findings:
    yield from s.labels(we.labels, f"{at}.labels")
    for name, number in we.ports.items():
        yield from s.port_name(name, f"{at}.ports[{name}]")
        yield from s.port(number, f"{at}.ports[{name}]")


def workload_group(wg: n.WorkloadGroup, _: Json) -> Findings:
    if wg.template is None:
        yield no("spec.template", "template is required")
    else:
        yield from _address(wg.template, "spec.template", names=True)
        yield from _rest(wg.template, "spec.template")
    if wg.metadata:
        yield from s.labels(wg.metadata.labels, "spec.metadata.labels")
    if wg.probe:
        yield from _probe(wg.probe)


def _probe(p: n.ReadinessProbe) -> Findings:
    methods = (("httpGet", p.http_get), ("tcpSocket", p.tcp_socket), ("exec", p.exec), ("grpc", p.grpc))
    given = [name for name, method in methods if method is not None]
    if len(given) > 1:
        yield no("spec.probe", f"has {' and '.join(given)}; give only one")
    if not given:
        yield no("spec.probe", "unknown health check method: give one of httpGet, tcpSocket, exec, grpc")
    if h := p.http_get:
        yield from s.port(h.port, "spec.probe.httpGet.port")
        if h.scheme not in ("", "HTTP", "HTTPS"):
            yield no("spec.probe.httpGet.scheme", f'httpGet.scheme must be one of "HTTPS", "HTTP", is "{h.scheme}"')
        for i, header in enumerate(h.http_headers):
            yield from s.probe_header_name(header.name, f"spec.probe.httpGet.httpHeaders[{i}].name")
    if p.tcp_socket:
        yield from s.port(p.tcp_socket.port, "spec.probe.tcpSocket.port")
    if p.grpc and p.grpc.port is not None:
        yield from s.port(p.grpc.port, "spec.probe.grpc.port")
    if p.exec is not None and (not p.exec.command or any(not c for c in p.exec.command)):
        yield no("spec.probe.exec.command", "exec.command is required; none of its words can be empty")
