"""Validation rules of VirtualService; those of its HTTP routes are in ``http_route``.

Source: istio.io/istio ``pkg/config/validation/validation.go``, ValidateVirtualService.
"""

from __future__ import annotations

from lateen.api import networking as n
from lateen.api.validate import scalars as s
from lateen.api.validate.common import destination
from lateen.api.validate.findings import Finding, Findings, hint, no, warn
from lateen.api.validate.http_route import http_route
from lateen.api.validate.names import gateways
from lateen.api.validate.unreachable import unreachable
from lateen.kit.jsons import Json

MESH = "mesh"


def virtual_service(vs: n.VirtualService, meta: Json) -> Findings:
    delegate = not vs.hosts
    if delegate:
        yield from _delegate(vs)
    mesh = not vs.gateways or MESH in vs.gateways
    yield from gateways(vs.gateways, "spec.gateways")
    yield from _hosts(vs, mesh)
    if not (vs.http or vs.tls or vs.tcp):
        yield no("spec", "http, tcp or tls must be provided in virtual service")
    for i, http in enumerate(vs.http):
        yield from http_route(http, f"spec.http[{i}]", delegate, vs.gateways if mesh else None)
    for i, tls in enumerate(vs.tls):
        yield from _tls(tls, f"spec.tls[{i}]", vs)
    for i, tcp in enumerate(vs.tcp):
        yield from _tcp(tcp, f"spec.tcp[{i}]")
    yield from s.export_to(str(meta.get("namespace") or ""), vs.export_to, service_entry=False)
    for rule, reason in unreachable(vs).unused:
        yield warn(rule, reason)
    if not delegate:
        yield from _elsewhere(vs, str(meta.get("namespace") or ""))


def _delegate(vs: n.VirtualService) -> Findings:
    """A VirtualService without hosts can only be a delegate of others."""
    for field, what, given in (
        ("gateways", "gateways", vs.gateways),
        ("tls", "tls route", vs.tls),
        ("tcp", "tcp route", vs.tcp),
    ):
        if given:
            says = f"delegate virtual service must have no {what} specified; a rule of its own needs hosts"
            yield no(f"spec.{field}", says)


def _elsewhere(vs: n.VirtualService, namespace: str) -> Findings:
    """A match names gateways among those of the VirtualService; it does not add any."""

    def full(name: str) -> str:
        return name if name == MESH or "/" in name or "." in name else f"{namespace}/{name}"

    bound = [full(g) for g in vs.gateways or (MESH,)]
    matches = [
        *((f"spec.http[{i}].match[{j}]", m.gateways) for i, r in enumerate(vs.http) for j, m in enumerate(r.match)),
        *((f"spec.tls[{i}].match[{j}]", m.gateways) for i, r in enumerate(vs.tls) for j, m in enumerate(r.match)),
        *((f"spec.tcp[{i}].match[{j}]", m.gateways) for i, r in enumerate(vs.tcp) for j, m in enumerate(r.match)),
    ]
    for at, named in matches:
        if named and not {full(g) for g in named} & set(bound):
            says = f"it matches nothing: spec.gateways has none of these, only {', '.join(bound)}"
            yield hint(f"{at}.gateways", says)


def _hosts(vs: n.VirtualService, mesh: bool) -> Findings:
    sni = any(m.sni_hosts for t in vs.tls for m in t.match)
    found: list[Finding] = []
    for i, host in enumerate(vs.hosts):
        at = f"spec.hosts[{i}]"
        if host == "*" and mesh:
            says = "wildcard host * is not allowed for virtual services bound to the mesh gateway"
            found.append(no(at, f"{says}; name gateways, or hosts"))
        elif not s.is_ip(host):
            found += s.wildcard_domain(host, at) if mesh else s.gateway_domain(host, at, sni)
    yield from found
    for i, host in enumerate(vs.hosts if not found else ()):
        for j, other in enumerate(vs.hosts[:i]):
            if s.overlap(host, other):
                says = f"duplicate hosts in virtual service: {other} & {host}: spec.hosts[{j}] has them too"
                yield no(f"spec.hosts[{i}]", says)


def _tls(tls: n.TLSRoute, at: str, vs: n.VirtualService) -> Findings:
    if not tls.match:
        yield no(f"{at}.match", "TLS route must have at least one match condition")
    for i, m in enumerate(tls.match):
        where = f"{at}.match[{i}]"
        if not m.sni_hosts:
            yield no(f"{where}.sniHosts", "TLS match must have at least one SNI host")
        for j, sni in enumerate(m.sni_hosts):
            yield from _sni(sni, f"{where}.sniHosts[{j}]", vs)
        yield from _l4(m, where)
    if not tls.route:
        yield no(f"{at}.route", "TLS route is required")
    yield from _weights(tls.route, f"{at}.route")


def _sni(sni: str, at: str, vs: n.VirtualService) -> Findings:
    if s.is_ip(sni):
        says = f'using an IP address ("{sni}") goes against SNI spec and most clients do not support this'
        yield warn(at, says)
        return
    found = list(s.gateway_domain(sni, at, sni=MESH not in vs.gateways))
    yield from found
    if not found and not any(s.within(sni, h) for h in vs.hosts):
        known = ", ".join(vs.hosts)
        says = f'SNI host "{sni}" is not a compatible subset of any of the virtual service hosts: [{known}]'
        yield no(at, says)


def _l4(m: n.TLSMatchAttributes | n.L4MatchAttributes, at: str) -> Findings:
    for i, subnet in enumerate(m.destination_subnets):
        yield from s.cidr(subnet, f"{at}.destinationSubnets[{i}]")
    if m.port:
        yield from s.port(m.port, f"{at}.port")
    yield from s.labels(m.source_labels, f"{at}.sourceLabels")
    yield from gateways(m.gateways, f"{at}.gateways")
    if isinstance(m, n.L4MatchAttributes) and m.source_subnet:
        yield from s.cidr(m.source_subnet, f"{at}.sourceSubnet")


def _tcp(tcp: n.TCPRoute, at: str) -> Findings:
    for i, m in enumerate(tcp.match):
        yield from _l4(m, f"{at}.match[{i}]")
    if not tcp.route:
        yield no(f"{at}.route", "TCP route is required")
    yield from _weights(tcp.route, f"{at}.route")


def _weights(routes: tuple[n.RouteDestination, ...], at: str) -> Findings:
    for i, r in enumerate(routes):
        yield from destination(r.destination, f"{at}[{i}].destination")
    if len(routes) > 1 and not sum(r.weight or 0 for r in routes):
        yield no(at, "total destination weight = 0")
