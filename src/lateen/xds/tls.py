"""TLS contexts: mutual TLS between proxies, with the workload's certificate; TLS that users configure, towards servers
outside and at gateways."""

from __future__ import annotations

from functools import cache, lru_cache
from itertools import starmap
from typing import Any

from envoy.config.core.v3 import base_pb2, proxy_protocol_pb2
from envoy.extensions.transport_sockets.proxy_protocol.v3 import upstream_proxy_protocol_pb2 as proxy_pb2
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2

from lateen.api.networking import ciphers
from lateen.api.networking.server_tls import ECDH_CURVES, ServerTLS
from lateen.api.networking.traffic_policy import ClientTLS
from lateen.mesh.routing import BackendTLS
from lateen.mesh.settings import Handshakes, Transport
from lateen.wire import names
from lateen.xds import pb, sds

# ALPN values of clients in the mesh; by these a server tells mesh TLS from the application's own TLS.
ALPN_H2 = ("istio-h2", "istio", "h2")
ALPN_UPGRADED = ("istio-h2", "istio")
"""HTTP/2 by the mesh's choice. Without h2, the server looks at the first bytes: connections of TCP routes have
whatever the client sends."""
ALPN_H1 = ("istio-http/1.1", "istio", "http/1.1")
ALPN_HTTP = ("istio-http/1.1", "istio")
"""HTTP of any version: the server detects it from the first bytes."""
ALPN_TCP = ("istio-peer-exchange", "istio")
MESH_HTTP = ("istio-http/1.0", "istio-http/1.1", "istio-h2")
MESH_TCP = ("istio-peer-exchange", "istio")
MESH_ALPN = ("istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2")

GRPC = "h2"
"""What gRPC's own clients announce. A port of HTTP has no TLS of the application's which that could be."""


CIPHER_LIST = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
)
"""Cipher suites that a server of the mesh accepts for TLS 1.2, in Istio's order; those of TLS 1.3 cannot be chosen.
Source: ``SupportedCiphers`` in pilot/pkg/security/authn/utils.go."""
CURVES = ("X25519", "P-256")


def _params(minimum: str = "TLSv1_2", **more: Any) -> common_pb2.TlsParameters:
    """Up to TLS 1.3: without a maximum, an Envoy that is the client stops at 1.2."""
    return common_pb2.TlsParameters(
        tls_minimum_protocol_version=minimum, tls_maximum_protocol_version="TLSv1_3", **more
    )


def _outside(chosen: Handshakes) -> common_pb2.TlsParameters:
    """Of connections to servers that are not of the mesh. The lowest version is for our own servers alone, as in Istio:
    what others offer is not ours to say."""
    return _params(cipher_suites=chosen.ciphers, ecdh_curves=chosen.curves)


def _certificate(account: str) -> secret_pb2.SdsSecretConfig:
    """A workload's own; ``account`` (``namespace/service account``) says whose, where a proxy has several workloads."""
    if not account:
        return sds.in_file("default", sds.CERTIFICATE)
    return sds.in_file(account, f"{sds.DIRECTORY}/sds-{account.replace('/', '~')}.json")


def _common(
    alpn: tuple[str, ...], domains: tuple[str, ...], sans: tuple[str, ...], params: Any, account: str = ""
) -> tls_pb2.CommonTlsContext:
    """``domains``: the trust domain and its aliases."""
    matchers = [
        common_pb2.SubjectAltNameMatcher(
            san_type="URI" if "://" in s else "DNS", matcher=string_pb2.StringMatcher(exact=s)
        )
        for s in in_all(domains, sans)
    ] or [
        common_pb2.SubjectAltNameMatcher(san_type="URI", matcher=string_pb2.StringMatcher(prefix=f"spiffe://{domain}/"))
        for domain in domains
    ]
    combined = tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
        default_validation_context=common_pb2.CertificateValidationContext(match_typed_subject_alt_names=matchers),
        validation_context_sds_secret_config=sds.in_file("ROOTCA", sds.ROOT),
    )
    return tls_pb2.CommonTlsContext(
        alpn_protocols=alpn,
        combined_validation_context=combined,
        tls_certificate_sds_secret_configs=[_certificate(account)],
        tls_params=params,
    )


def in_all(domains: tuple[str, ...], sans: tuple[str, ...]) -> tuple[str, ...]:
    """Identities of one of the trust domains, spelled in all of them; other names as they are. As in Istio
    (``ExpandWithTrustDomains`` in pkg/spiffe)."""
    out: list[str] = []
    for san in sans:
        domain, slash, rest = san.removeprefix("spiffe://").partition("/")
        mine = san.startswith("spiffe://") and slash and domain in domains
        out += [f"spiffe://{d}/{rest}" for d in (domain, *domains)] if mine else [san]
    return tuple(dict.fromkeys(out))


@lru_cache(maxsize=4096)
def upstream(
    alpn: tuple[str, ...], sni: str, transport: Transport, sans: tuple[str, ...] = ()
) -> base_pb2.TransportSocket:
    """Mutual TLS with a server of the mesh that has one of the identities ``sans``; none: any of the trust domain or
    its aliases. Servers decide about versions and ciphers."""
    common = _common(alpn, transport.trust_domains, sans, _params(ecdh_curves=CURVES))
    context = tls_pb2.UpstreamTlsContext(common_tls_context=common, sni=sni)
    return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=pb.any_of(context))


@lru_cache(maxsize=64)
def downstream(alpn: tuple[str, ...], transport: Transport, account: str = "") -> base_pb2.TransportSocket:
    """``account``: see ``mesh.workloads.Seat``."""
    chosen = transport.mutual_tls
    params = _params(chosen.minimum, ecdh_curves=CURVES, cipher_suites=chosen.ciphers or CIPHER_LIST)
    common = _common(alpn, transport.trust_domains, (), params, account)
    context = tls_pb2.DownstreamTlsContext(common_tls_context=common, require_client_certificate=pb.boolean(True))
    return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=pb.any_of(context))


@cache
def raw() -> base_pb2.TransportSocket:
    return base_pb2.TransportSocket(
        name="envoy.transport_sockets.raw_buffer", typed_config=pb.any_of(raw_buffer_pb2.RawBuffer())
    )


_VERSIONS = {"TLSV1_0": "TLSv1_0", "TLSV1_1": "TLSv1_1", "TLSV1_2": "TLSv1_2", "TLSV1_3": "TLSv1_3"}


def _sans(names_: tuple[str, ...]) -> list[Any]:
    """Matchers for a certificate that has one of the names as a DNS or URI SAN."""
    return [
        common_pb2.SubjectAltNameMatcher(san_type=kind, matcher=string_pb2.StringMatcher(exact=san))
        for san in names_
        for kind in ("DNS", "URI")
    ]


def originate(
    tls: ClientTLS, host: str, sans: tuple[str, ...], h2: bool, transport: Transport, verified: bool = False
) -> base_pb2.TransportSocket:
    """TLS origination (SIMPLE, MUTUAL), with certificates from Secrets or from files in the pod. Servers are verified
    with the rule's authorities, else with those that the system trusts, unless the mesh says otherwise and this
    connection does not (``verified``)."""
    common = tls_pb2.CommonTlsContext(alpn_protocols=["h2"] if h2 else [])
    common.tls_params.CopyFrom(_outside(transport.tls))
    if tls.mode == "MUTUAL" and tls.credential_name:
        common.tls_certificate_sds_secret_configs.add().CopyFrom(sds.by_ads(names.credential(tls.credential_name)))
    elif tls.mode == "MUTUAL" and tls.client_certificate:
        own = names.file_certificate(tls.client_certificate, tls.private_key)
        common.tls_certificate_sds_secret_configs.add().CopyFrom(sds.by_ads(own))
    known = verified or transport.verified or tls.credential_name or tls.ca_certificates
    if tls.insecure_skip_verify or not known:
        common.validation_context.trust_chain_verification = common_pb2.CertificateValidationContext.ACCEPT_UNTRUSTED
    else:
        combined = common.combined_validation_context
        combined.default_validation_context.match_typed_subject_alt_names.extend(_sans(tls.subject_alt_names or sans))
        combined.validation_context_sds_secret_config.CopyFrom(_authorities(tls))
    # Without an SNI in the rule, requests use their own host (auto_sni) and connections the service's host.
    sni = tls.sni or ("" if "*" in host else host)
    found = tls_pb2.UpstreamTlsContext(common_tls_context=common, sni=sni)
    return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=pb.any_of(found))


def _authorities(tls: ClientTLS) -> Any:
    if tls.credential_name:
        return sds.by_ads(names.client_ca(tls.credential_name))
    if tls.ca_certificates and tls.ca_certificates != "system":
        return sds.by_ads(names.file_authorities(tls.ca_certificates, tls.ca_crl))
    return sds.in_file("system", sds.SYSTEM)


def to_backend(tls: BackendTLS, certificate: str, h2: bool, chosen: Handshakes) -> base_pb2.TransportSocket:
    """TLS to a backend, as a BackendTLSPolicy asks for it. ``certificate``: see ``HostView``."""
    common = tls_pb2.CommonTlsContext(alpn_protocols=["h2"] if h2 else [], tls_params=_outside(chosen))
    if certificate:
        common.tls_certificate_sds_secret_configs.add().CopyFrom(sds.by_ads(names.credential(certificate)))
    combined = common.combined_validation_context
    combined.default_validation_context.match_typed_subject_alt_names.extend(starmap(_backend_san, tls.sans))
    if tls.broken:
        found = sds.by_ads(sds.NO_AUTHORITIES)
    else:
        found = sds.by_ads(names.client_ca(tls.authorities)) if tls.authorities else sds.in_file("system", sds.SYSTEM)
    combined.validation_context_sds_secret_config.CopyFrom(found)
    context = tls_pb2.UpstreamTlsContext(common_tls_context=common, sni=tls.name)
    return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=pb.any_of(context))


def _backend_san(kind: str, name: str) -> Any:
    """A SAN matcher; a wildcard matches every name below."""
    matcher = (
        string_pb2.StringMatcher(suffix=name[1:]) if name.startswith("*.") else string_pb2.StringMatcher(exact=name)
    )
    return common_pb2.SubjectAltNameMatcher(san_type=kind, matcher=matcher)


def tls_params(version: str) -> Any:
    return common_pb2.TlsParameters.TlsProtocol.Value(version)


def with_proxy_protocol(cluster: Any, version: str) -> None:
    """Send the client's address ahead of the connection's data (PROXY protocol)."""
    inner = base_pb2.TransportSocket()
    inner.CopyFrom(cluster.transport_socket if cluster.HasField("transport_socket") else raw())
    found = proxy_pb2.ProxyProtocolUpstreamTransport(
        config=proxy_protocol_pb2.ProxyProtocolConfig(version=version), transport_socket=inner
    )
    cluster.transport_socket.CopyFrom(
        base_pb2.TransportSocket(name="envoy.transport_sockets.upstream_proxy_protocol", typed_config=pb.any_of(found))
    )


def gateway(tls: ServerTLS, alpn: tuple[str, ...], transport: Transport) -> Any:
    """How a server terminates TLS. Certificates come from Secrets, over the proxy's own xDS stream, or from files in
    the pod."""
    if tls.mode == "ISTIO_MUTUAL":
        return downstream(alpn, transport)
    common = tls_pb2.CommonTlsContext(alpn_protocols=alpn)
    params = common.tls_params
    chosen = transport.tls
    params.tls_minimum_protocol_version = tls_params(_VERSIONS.get(tls.min_protocol_version, chosen.minimum))
    if tls.max_protocol_version in _VERSIONS:
        params.tls_maximum_protocol_version = tls_params(_VERSIONS[tls.max_protocol_version])
    # unknown ones are left out, as in Istio; validation warns about them
    suites, curves = tls.cipher_suites or chosen.ciphers, tls.ecdh_curves or chosen.curves
    params.cipher_suites.extend(ciphers.usable(suites))
    params.ecdh_curves.extend(c for c in dict.fromkeys(curves) if c in ECDH_CURVES)
    own = [names.credential(n) for n in tls.secrets] or [names.file_certificate(*pair) for pair in sds.file_pairs(tls)]
    common.tls_certificate_sds_secret_configs.extend(sds.by_ads(n) for n in own)
    wanted = tls.mode in ("MUTUAL", "OPTIONAL_MUTUAL")
    if wanted or tls.verify_certificate_spki or tls.verify_certificate_hash:
        context = common_pb2.CertificateValidationContext(
            verify_certificate_spki=tls.verify_certificate_spki, verify_certificate_hash=tls.verify_certificate_hash
        )
        if tls.insecure_skip_verify:
            context.trust_chain_verification = common_pb2.CertificateValidationContext.ACCEPT_UNTRUSTED
        authorities = ""
        if tls.secrets and wanted:
            authorities = names.client_ca(tls.authorities)
        elif not tls.secrets and tls.ca_certificates:
            authorities = names.file_authorities(tls.ca_certificates, tls.ca_crl)
        if authorities:
            context.match_typed_subject_alt_names.extend(_sans(tls.subject_alt_names))
            common.combined_validation_context.default_validation_context.CopyFrom(context)
            common.combined_validation_context.validation_context_sds_secret_config.CopyFrom(sds.by_ads(authorities))
        else:
            common.validation_context.CopyFrom(context)
    found = tls_pb2.DownstreamTlsContext(
        common_tls_context=common, require_client_certificate=pb.boolean(tls.mode == "MUTUAL")
    )
    return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=pb.any_of(found))
