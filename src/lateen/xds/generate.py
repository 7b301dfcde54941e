"""A view in, resource sets out. Pure; equal parts of views give the same set objects, with the same bytes."""

from __future__ import annotations

from functools import lru_cache

from lateen.api.networking import ServerTLS
from lateen.api.objects import Credential
from lateen.mesh import policy
from lateen.mesh.objects import MeshConfig
from lateen.mesh.view import GatewayView, InboundView, OutboundView, View
from lateen.wire import names
from lateen.wire.resource import EMPTY, Resource, ResourceSet
from lateen.xds import clusters, endpoints, tls
from lateen.xds.authz.filters import Policies
from lateen.xds.filters import authorization
from lateen.xds.listeners import gateway, inbound, outbound
from lateen.xds.routes import virtual_host

Sets = tuple[ResourceSet, ...]


def _set(found: tuple[Resource, ...]) -> ResourceSet:
    return ResourceSet({r.name: r for r in found})


@lru_cache(maxsize=64)
def _shared_clusters(view: OutboundView) -> ResourceSet:
    found = clusters.fixed(view.config.connect_timeout_s)
    return ResourceSet({r.name: r for r in found} | {r.name: r for h in view.hosts for r in clusters.of_host(h)})


@lru_cache(maxsize=64)
def _shared_endpoints(view: OutboundView) -> ResourceSet:
    return ResourceSet({e.cluster: endpoints.of_cluster(e) for e in view.endpoints})


@lru_cache(maxsize=16)
def _sni_clusters(view: OutboundView) -> ResourceSet:
    return _set(tuple(r for h in view.hosts for r in clusters.by_sni(h)))


@lru_cache(maxsize=16)
def _sni_endpoints(view: OutboundView) -> ResourceSet:
    return _set(tuple(endpoints.by_sni(e) for e in view.endpoints))


@lru_cache(maxsize=64)
def _shared_listeners(view: OutboundView) -> ResourceSet:
    return _set(outbound.of_view(view))


@lru_cache(maxsize=64)
def _shared_routes(view: OutboundView) -> ResourceSet:
    return _set(virtual_host.outbound(view))


@lru_cache(maxsize=64)
def _shared_hosts(view: OutboundView) -> ResourceSet:
    return _set(virtual_host.hosts(view))


@lru_cache(maxsize=4096)
def _own_clusters(view: InboundView) -> ResourceSet:
    return _set(clusters.of_workload(view))


@lru_cache(maxsize=4096)
def _own_listeners(view: InboundView) -> ResourceSet:
    return _set(inbound.of_view(view))


@lru_cache(maxsize=1024)
def _gateway_listeners(view: GatewayView) -> ResourceSet:
    return _set(gateway.of_view(view))


@lru_cache(maxsize=1024)
def _gateway_routes(view: GatewayView) -> ResourceSet:
    return _set(tuple(virtual_host.gateway(s) for s in view.servers if s.route))


@lru_cache(maxsize=64)
def _outbound_files(view: OutboundView) -> ResourceSet:
    rules = {dr: None for h in view.hosts for dr in h.rules}
    return _set(tuple(r for dr in rules for level in policy.tls(dr.spec) for r in tls.of_files(level)))


@lru_cache(maxsize=1024)
def _served_files(served: tuple[ServerTLS | None, ...]) -> ResourceSet:
    return _set(tuple(r for found in served if found for r in tls.of_files(found)))


@lru_cache(maxsize=1024)
def _secrets(credentials: tuple[Credential, ...]) -> ResourceSet:
    return _set(tuple(tls.secret(c) for c in credentials))


@lru_cache(maxsize=4096)
def _authorization(config: MeshConfig, policies: Policies) -> ResourceSet:
    return _set(authorization.extensions(config, policies))


def generate(view: View) -> dict[str, Sets]:
    """Type URL -> the sets whose union the proxy shall have."""
    shared_clusters, shared_endpoints = _shared_clusters(view.outbound), _shared_endpoints(view.outbound)
    from_files = _outbound_files(view.outbound)
    if view.gateway is not None:
        automatic = any(s.automatic for s in view.gateway.servers)
        return {
            names.CDS: (shared_clusters, _sni_clusters(view.outbound) if automatic else EMPTY),
            names.EDS: (shared_endpoints, _sni_endpoints(view.outbound) if automatic else EMPTY),
            names.SDS: (
                _secrets(view.credentials),
                from_files,
                _served_files(tuple(s.tls for s in view.gateway.servers)),
            ),
            names.ECDS: (
                _authorization(
                    view.gateway.config, view.gateway.servers[0].authorization if view.gateway.servers else ()
                ),
            ),
            names.LDS: (_gateway_listeners(view.gateway), EMPTY),
            names.RDS: (_gateway_routes(view.gateway),),
        }
    assert view.inbound is not None
    return {
        names.CDS: (shared_clusters, _own_clusters(view.inbound)),
        names.EDS: (shared_endpoints,),
        names.SDS: (_secrets(view.credentials), from_files, _served_files(tuple(i.tls for i in view.inbound.ports))),
        names.ECDS: (_authorization(view.inbound.config, view.inbound.authorization),),
        names.LDS: (_shared_listeners(view.outbound), _own_listeners(view.inbound)),
        names.RDS: (_shared_routes(view.outbound),),
        names.VHDS: (_shared_hosts(view.outbound),),
    }
