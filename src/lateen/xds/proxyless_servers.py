"""Listeners of gRPC servers without a proxy, and the mutual TLS of these and of gRPC's clients: with the certificate
provider ``default`` of their bootstrap file.

Sources: https://github.com/grpc/proposal/blob/master/A29-xds-tls-security.md, A36 for servers, A41 for authorization;
what Istio sends is in pilot/pkg/networking/grpcgen.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.config.listener.v3 import listener_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.route.v3 import route_components_pb2 as rc
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2

from lateen.kit.derived import derived
from lateen.mesh.inbound_view import Checks, InboundView
from lateen.wire import names
from lateen.wire.resource import Resource, ResourceSet
from lateen.xds import pb, tls
from lateen.xds.authz import filters
from lateen.xds.authz.portable import portable
from lateen.xds.security_rules import called

PROVIDER = "default"
RBAC = "envoy.filters.http.rbac"
STRANGERS = "other-trust-domains"


def _socket(context: Any) -> base_pb2.TransportSocket:
    return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=pb.any_of(context))


def _common(matchers: tuple[string_pb2.StringMatcher, ...] = ()) -> tls_pb2.CommonTlsContext:
    """gRPC knows the older, untyped matchers of names alone."""
    provider = common_pb2.CertificateProviderPluginInstance
    authorities = common_pb2.CertificateValidationContext(
        ca_certificate_provider_instance=provider(instance_name=PROVIDER, certificate_name="ROOTCA"),
        match_subject_alt_names=matchers,
    )
    return tls_pb2.CommonTlsContext(
        tls_certificate_provider_instance=provider(instance_name=PROVIDER, certificate_name="default"),
        combined_validation_context=tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
            default_validation_context=authorities
        ),
    )


@lru_cache(maxsize=4096)
def upstream(domains: tuple[str, ...], sans: tuple[str, ...]) -> base_pb2.TransportSocket:
    """Mutual TLS with a server that has one of the identities; none: any of the trust domains. Clients without
    XdsCredentials ignore it."""
    exact = tuple(string_pb2.StringMatcher(exact=san) for san in tls.in_all(domains, sans))
    prefixes = tuple(string_pb2.StringMatcher(prefix=f"spiffe://{domain}/") for domain in domains)
    return _socket(tls_pb2.UpstreamTlsContext(common_tls_context=_common(exact or prefixes)))


def _downstream() -> base_pb2.TransportSocket:
    context = tls_pb2.DownstreamTlsContext(common_tls_context=_common(), require_client_certificate=pb.boolean(True))
    return _socket(context)


def _secure(view: InboundView, port: int) -> bool:
    """gRPC's servers take either mutual TLS or plain text, not both: a permissive one takes what its clients send it,
    which is mutual TLS if it is labelled as able to (``security.istio.io/tlsMode``), as in Istio."""
    mode = dict(view.mtls_ports).get(port, view.mtls)
    return mode == "STRICT" or (mode == "PERMISSIVE" and view.pod.meshed)


@derived
def _checked(checks: Checks, members: tuple[str, ...]) -> tuple[hcm.HttpFilter, ...]:
    """The filters of AuthorizationPolicies, for connections from members of these trust domains; from anybody if there
    are none. gRPC asks nobody, so a CUSTOM policy denies what it matches, like one with
    an unknown provider; audits and dry runs have no effect."""
    access = checks.authorization
    custom = filters.custom(access.policies, False, (), access.domains, spelled=True)
    found = [*custom, *filters.plain(access.policies, False, access.domains, spelled=True)]
    rules = [_strangers(members)] if members else []
    for one in found:
        made = http_rbac.RBAC()
        one.typed_config.Unpack(made)
        if made.HasField("rules") and made.rules.action != rbac_pb2.RBAC.LOG:
            rules.append(portable(made.rules))
    return tuple(
        hcm.HttpFilter(name=f"{RBAC}.{i}", typed_config=pb.any_of(http_rbac.RBAC(rules=r))) for i, r in enumerate(rules)
    )


def _strangers(members: tuple[str, ...]) -> rbac_pb2.RBAC:
    """Denies clients of trust domains that are not the mesh's: gRPC's servers do not compare names in TLS."""
    out = rbac_pb2.RBAC(action=rbac_pb2.RBAC.DENY)
    policy = out.policies[STRANGERS]
    policy.permissions.add(any=True)
    known = policy.principals.add().not_id.or_ids
    for domain in members:
        known.ids.add().authenticated.principal_name.prefix = f"spiffe://{domain}/"
    return out


def _guarded(view: InboundView, port: int) -> tuple[hcm.HttpFilter, ...]:
    """Denies everything where a SecurityPolicy guards a port: gRPC has none of the filters that could ask for keys,
    passwords, tokens or logins."""
    out = rbac_pb2.RBAC(action=rbac_pb2.RBAC.DENY)
    for one in (one for i in view.ports if i.port.number == port for one in i.secured if one.guards):
        policy = out.policies[f"{called(one.policy)}-no-proxy"]
        policy.permissions.add(any=True)
        policy.principals.add(any=True)
    if not out.policies:
        return ()
    return (hcm.HttpFilter(name=f"{RBAC}.guarded", typed_config=pb.any_of(http_rbac.RBAC(rules=out))),)


def _chain(view: InboundView, checks: Checks, secure: bool, port: int) -> lc.FilterChain:
    """gRPC takes routes of servers only with the listener; ``non_forwarding_action`` is: this server."""
    route = rc.Route(match=rc.RouteMatch(prefix="/"), non_forwarding_action=rc.NonForwardingAction())
    manager = hcm.HttpConnectionManager(
        route_config=route_pb2.RouteConfiguration(
            name="inbound", virtual_hosts=[rc.VirtualHost(name="inbound", domains=["*"], routes=[route])]
        ),
        http_filters=[
            *_guarded(view, port),
            *_checked(checks, view.transport.trust_domains if secure else ()),
            hcm.HttpFilter(name="envoy.filters.http.router", typed_config=pb.any_of(router_pb2.Router())),
        ],
    )
    name = "inbound-mtls" if secure else "inbound-plaintext"
    chain = lc.FilterChain(name=name, filters=[lc.Filter(name=f"{name}-hcm", typed_config=pb.any_of(manager))])
    if secure:
        chain.transport_socket.CopyFrom(_downstream())
    return chain


def _addresses(view: InboundView) -> tuple[str, ...]:
    """Where a server may listen, in the spellings by which the libraries ask for its listener."""
    return tuple(dict.fromkeys(("0.0.0.0", "::", "127.0.0.1", "::1", view.pod.address)))


def _numbers(view: InboundView) -> list[int]:
    """The ports that Services lead to, and those that the pod declares."""
    declared = (number for _, number, kind in view.pod.ports if kind != "UDP")
    return sorted({*(i.port.number for i in view.ports), *declared})


def _listeners(view: InboundView, checks: Checks) -> Iterator[Resource]:
    origins = (*((str(view.policy),) if view.policy else ()), *(str(p.ref) for p in checks.authorization.policies))
    origins = (*origins, *dict.fromkeys(str(one.policy.ref) for i in view.ports for one in i.secured))
    for number in _numbers(view):
        chain = _chain(view, checks, _secure(view, number), number)
        for host in _addresses(view):
            spelled = f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
            made = listener_pb2.Listener(
                name=f"{names.GRPC_SERVER}{spelled}", address=pb.address(host, number), filter_chains=[chain]
            )
            yield pb.resource(made.name, made, origins)


@derived
def listeners(view: InboundView, checks: Checks) -> ResourceSet:
    """What a gRPC server of this workload asks for, whatever its port and address."""
    return ResourceSet({r.name: r for r in _listeners(view, checks)})
