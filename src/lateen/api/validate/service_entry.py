"""The rules of ServiceEntry between its fields.

Source: istio.io/istio ``pkg/config/validation/validation.go``, ValidateServiceEntry.
"""

from __future__ import annotations

from lateen.api import networking as n
from lateen.api.reading import allocates
from lateen.api.validate import scalars as s
from lateen.api.validate.common import label_selector
from lateen.api.validate.findings import Findings, hint, no, warn
from lateen.api.validate.workload import endpoint
from lateen.kit.jsons import Json

ADDRESSES = (
    "addresses are required for ports serving TCP (or unset) protocol when IP Autoallocation is not enabled: without "
    "one, all connections of the port go to the oldest such entry"
)
DYNAMIC = {"http", "http2", "grpc", "tls"}
"""Protocols whose requests name the host, for DYNAMIC_DNS."""


def service_entry(se: n.ServiceEntry, meta: Json) -> Findings:
    yield from label_selector(se.workload_selector, "service entry")
    if se.workload_selector and se.endpoints:
        yield no("spec", "only one of WorkloadSelector or Endpoints is allowed in Service Entry")
    yield from _hosts(se)
    for i, address in enumerate(se.addresses):
        yield from s.cidr(address, f"spec.addresses[{i}]")
    if se.resolution not in ("NONE", "STATIC") and any("/" in a for a in se.addresses):
        says = f"CIDR addresses are allowed only for NONE/STATIC resolution types, not {se.resolution}"
        yield no("spec.addresses", says)
    yield from _ports(se, allocates(meta.get("labels") or {}))
    match se.resolution:
        case "NONE":
            yield from _none(se)
        case "STATIC":
            for i, e in enumerate(se.endpoints):
                yield from endpoint(e, f"spec.endpoints[{i}]", se.ports, names=False)
        case "DYNAMIC_DNS":
            yield from _dynamic(se)
        case _:
            yield from _by_name(se)
    yield from _told_apart(se)
    yield from s.export_to(str(meta.get("namespace") or ""), se.export_to, service_entry=True)


def _hosts(se: n.ServiceEntry) -> Findings:
    if not se.hosts:
        yield no("spec.hosts", "service entry must have at least one host")
    for i, host in enumerate(se.hosts):
        at = f"spec.hosts[{i}]"
        if host == "*":
            yield no(at, f"invalid host {host}: a full wildcard is not allowed")
            continue
        yield from s.wildcard_domain(host, at)
        if se.resolution != "DYNAMIC_DNS":
            yield from s.partial_wildcard(host, at, refuse=False)


def _ports(se: n.ServiceEntry, allocated: bool) -> Findings:
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
    has_own = bool(se.addresses) or (allocated and se.resolution != "NONE")
    if not has_own and any(p.protocol.upper() in ("", "TCP") for p in se.ports):
        yield warn("spec.addresses", ADDRESSES)
    secure = any(p.protocol.upper() in ("TLS", "HTTPS") for p in se.ports)
    for i, host in enumerate(se.hosts if secure else ()):
        if host.startswith("*") and host != "*" and not host.startswith("*."):
            says = "proxies cannot tell TLS connections apart by a part of a label; they are passed through"
            yield hint(f"spec.hosts[{i}]", f"{says}; write *{host[host.find('.') :]}, or the full names")


def _none(se: n.ServiceEntry) -> Findings:
    if se.endpoints:
        yield no("spec.endpoints", "no endpoints should be provided for resolution type none")
    if se.workload_selector:
        says = "workloadSelector should not be set when resolution mode is NONE; write resolution: STATIC"
        yield warn("spec.workloadSelector", says)


def _by_name(se: n.ServiceEntry) -> Findings:
    mode = se.resolution
    for i, host in enumerate(se.hosts if not se.endpoints else ()):
        for found in s.fqdn(host, ""):
            must = (
                "hosts must be FQDN or contain only prefix wildcards if no endpoints are provided for resolution mode"
            )
            yield no(f"spec.hosts[{i}]", f"{must} {mode}, {found.says}")
    if mode == "DNS_ROUND_ROBIN" and len(se.endpoints) > 1:
        yield no("spec.endpoints", f"there must only be 0 or 1 endpoint for resolution mode {mode}")
    for i, e in enumerate(se.endpoints):
        yield from endpoint(e, f"spec.endpoints[{i}]", se.ports, names=True)
    if se.addresses and len(se.hosts) > 1 and any(p.protocol.lower() in s.TCP for p in se.ports):
        says = "service entry can not have more than one host specified simultaneously with address and tcp port"
        yield warn("spec.hosts", f"{says}: connections to the address do not say which")


def _dynamic(se: n.ServiceEntry) -> Findings:
    mode = se.resolution
    for i, host in enumerate(se.hosts):
        if not s.is_wildcard(host):
            yield no(f"spec.hosts[{i}]", f"host must be wildcarded for resolution mode {mode}")
    for field, given in (("addresses", se.addresses), ("endpoints", se.endpoints)):
        if given:
            yield no(
                f"spec.{field}", f"{field} cannot be set for resolution type {mode}: the hosts' names are looked up"
            )
    for i, port in enumerate(se.ports):
        if port.protocol.lower() not in DYNAMIC:
            says = f"only HTTP, TLS, GRPC, and HTTP2 protocols are supported for resolution type {mode}"
            yield no(f"spec.ports[{i}].protocol", says)


def _told_apart(se: n.ServiceEntry) -> Findings:
    """Requests name their host, TLS has SNI; other connections do not say which of several hosts they are for."""
    plain = [p for p in se.ports if p.protocol.lower() not in s.HTTP | s.TLS]
    if se.resolution != "NONE" and len(se.hosts) > 1 and plain:
        says = f"multiple hosts provided with non-HTTP, non-TLS ports: {', '.join(p.name for p in plain)}"
        yield no("spec.ports", f"{says}; write one entry per host")
