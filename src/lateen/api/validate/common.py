"""Parts that several kinds share: selectors, target references, TLS of servers, connection pools."""

from __future__ import annotations

import re

from lateen.api import networking as n
from lateen.api.validate import scalars as s
from lateen.api.validate.findings import Findings, no, warn

TARGETS = {
    "Gateway": "gateway.networking.k8s.io",
    "GatewayClass": "gateway.networking.k8s.io",
    "Service": "",
    "ServiceEntry": "networking.istio.io",
}


def selector(given: n.WorkloadSelector | None, path: str = "spec.selector") -> Findings:
    for key, value in (given.match_labels if given else {}).items():
        if not key:
            yield no(f"{path}.matchLabels", "empty key is not supported in selector")
        if "*" in key or "*" in value:
            yield no(f"{path}.matchLabels[{key}]", "wildcard is not supported in selector")
    if given and not given.match_labels:
        yield warn(path, "workload selector specified without labels: it selects all workloads of the namespace")


def label_selector(given: n.LabelSelector | None, what: str) -> Findings:
    if given and not given.labels:
        yield warn(
            "spec.workloadSelector",
            f"{what}: workload selector specified without labels, will be applied to all services in namespace",
        )
    for key, value in (given.labels if given else {}).items():
        if not key:
            yield no("spec.workloadSelector.labels", f"{what}: empty labels for workload selector")
        if "*" in key or "*" in value:
            yield no(f"spec.workloadSelector.labels[{key}]", f"{what}: wildcard is not supported in labels")


def target_refs(
    one: n.PolicyTargetReference | None, many: tuple[n.PolicyTargetReference, ...], selected: bool
) -> Findings:
    if (one is not None) + bool(many) + selected > 1:
        yield no("spec", "only one of selector, targetRef and targetRefs can be set")
    refs = [("spec.targetRef", one)] if one else []
    for path, ref in [*refs, *((f"spec.targetRefs[{i}]", r) for i, r in enumerate(many))]:
        if not ref.name:
            yield no(f"{path}.name", "targetRef name must be set")
        if ref.namespace:
            yield no(
                f"{path}.namespace", "targetRef namespace must not be set; cross namespace referencing is not supported"
            )
        if TARGETS.get(ref.kind) != ("" if ref.group == "core" else ref.group):
            known = ", ".join(f"{g + '/' if g else ''}{k}" for k, g in TARGETS.items())
            yield no(path, f"targetRef must be to one of {known}; is {ref.group}/{ref.kind}")


def host(name: str, path: str) -> Findings:
    """The host of a destination: never a bare wildcard."""
    if name == "*":
        yield no(path, "invalid destination host *")
    else:
        yield from s.wildcard_domain(name, path)


def destination(d: n.Destination, path: str) -> Findings:
    yield from host(d.host, f"{path}.host")
    if d.subset and not s._LABEL.fullmatch(d.subset):
        yield no(f"{path}.subset", f'subset name "{d.subset}" is not valid')
    if d.port is not None:
        yield from s.port(d.port.number, f"{path}.port.number")


VERSIONS = ("TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3")
PROTECTED = {
    "SIMPLE",
    "MUTUAL",
    "OPTIONAL_MUTUAL",
}


def server_tls(tls: n.ServerTLS, path: str) -> Findings:
    """The TLS of a Gateway's server or of a Sidecar's ingress."""
    yield from _cipher_suites(tls, path)
    yield from _curves(tls, path)
    if tls.mode == "ISTIO_MUTUAL":
        for field, what, value in (
            ("serverCertificate", "server certificate", tls.server_certificate),
            ("privateKey", "private key", tls.private_key),
            ("caCertificates", "CA bundle", tls.ca_certificates),
            ("credentialName", "credentialName", tls.credential_name),
            ("credentialNames", "credentialNames", tls.credential_names),
            ("tlsCertificates", "tlsCertificates", tls.tls_certificates),
        ):
            if value:
                says = f"ISTIO_MUTUAL TLS cannot have associated {what}: its certificates come from the mesh"
                yield no(f"{path}.{field}", says)
    given_files = any((tls.server_certificate, tls.private_key, tls.ca_certificates, tls.credential_name, tls.ca_crl))
    if tls.mode in ("PASSTHROUGH", "AUTO_PASSTHROUGH") and given_files:
        yield warn(path, f"{tls.mode} mode does not use certificates, they will be ignored")
    if tls.mode in PROTECTED:
        yield from _certificates(tls, path)
    for i, pin in enumerate(tls.verify_certificate_spki):
        if not re.fullmatch("[A-Za-z0-9+/]{43}=", pin):
            yield no(f"{path}.verifyCertificateSpki[{i}]", f'"{pin[:80]}" is not a SHA-256 in Base64 (44 characters)')
    for i, pin in enumerate(tls.verify_certificate_hash):
        if not re.fullmatch("[0-9A-Fa-f]{64}|[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){31}", pin):
            says = f'"{pin[:80]}" is not a SHA-256 in hexadecimal (64 characters, or 95 with colons)'
            yield no(f"{path}.verifyCertificateHash[{i}]", says)
    minimum, maximum = tls.min_protocol_version, tls.max_protocol_version
    if minimum in ("TLSV1_0", "TLSV1_1") and not tls.cipher_suites:
        yield warn(
            f"{path}.minProtocolVersion",
            "TLS version below TLSV1_2 require setting compatible ciphers as by default they no longer include "
            "compatible ciphers; set cipherSuites",
        )
    for field, value in (("minProtocolVersion", minimum), ("maxProtocolVersion", maximum)):
        if value and value not in VERSIONS:
            yield no(f"{path}.{field}", f'"{value}" is not one of {", ".join(VERSIONS)}')


def _cipher_suites(tls: n.ServerTLS, path: str) -> Findings:
    seen: set[str] = set()
    for i, suite in enumerate(tls.cipher_suites):
        at = f"{path}.cipherSuites[{i}]"
        if suite not in n.CIPHER_SUITES and suite != "ALL":
            yield warn(at, f"ignoring invalid cipher suite: {suite}")
        if suite in seen:
            yield warn(at, f"ignoring duplicate cipher suite: {suite}")
        seen.add(suite)


def _curves(tls: n.ServerTLS, path: str) -> Findings:
    for i, curve in enumerate(tls.ecdh_curves):
        if curve not in n.ECDH_CURVES:
            known = ", ".join(sorted(n.ECDH_CURVES))
            yield warn(f"{path}.ecdhCurves[{i}]", f"ignoring unknown curve {curve}; known are {known}")


def _certificates(tls: n.ServerTLS, path: str) -> Findings:
    sources = [bool(tls.credential_name), bool(tls.credential_names), bool(tls.tls_certificates)]
    plain = bool(tls.server_certificate and tls.private_key)
    if sum([*sources, plain]) > 1:
        yield no(
            path,
            "only one of credential_name, credential_names, server_certificate/private_key or tls_certificates "
            "should be specified",
        )
        return
    for field, many in (("credentialNames", tls.credential_names), ("tlsCertificates", tls.tls_certificates)):
        if len(many) > 2:
            yield warn(f"{path}.{field}", "at most 2 certificates are used: one RSA and one ECDSA")
    if tls.credential_name or tls.credential_names:
        yield from _beside_a_secret(tls, path)
        return
    if tls.mode == "SIMPLE" and tls.ca_crl:
        yield no(f"{path}.caCrl", "CRL is not supported with SIMPLE TLS")
    if tls.tls_certificates:
        for i, c in enumerate(tls.tls_certificates):
            if not c.server_certificate:
                yield no(f"{path}.tlsCertificates[{i}]", f"{tls.mode} TLS requires a server certificate")
            if not c.private_key:
                yield no(f"{path}.tlsCertificates[{i}]", f"{tls.mode} TLS requires a private key")
    else:
        if not tls.server_certificate:
            yield no(path, f"{tls.mode} TLS requires a server certificate")
        if not tls.private_key:
            yield no(path, f"{tls.mode} TLS requires a private key")
    if tls.mode != "SIMPLE" and not tls.ca_certificates and not tls.ca_cert_credential_name:
        yield no(path, f"{tls.mode} TLS requires a client CA bundle")


def _beside_a_secret(tls: n.ServerTLS, path: str) -> Findings:
    for field, file in (("caCertificates", tls.ca_certificates), ("caCrl", tls.ca_crl)):
        if file:
            says = "it has no effect beside credentialName: put it into the Secret (ca.crt, ca.crl)"
            yield warn(f"{path}.{field}", says)


def connection_pool(pool: n.ConnectionPool | None, path: str) -> Findings:
    if pool is None:
        return
    if pool.http is None and pool.tcp is None:
        yield no(path, "connection pool must have at least one field")
    if http := pool.http:
        yield from _http_pool(http, f"{path}.http")
    if tcp := pool.tcp:
        at = f"{path}.tcp"
        if (tcp.max_connections or 0) < 0:
            yield no(f"{at}.maxConnections", "max connections must be non-negative")
        yield from s.duration(tcp.connect_timeout, f"{at}.connectTimeout")
        yield from s.duration(tcp.max_connection_duration, f"{at}.maxConnectionDuration")
        if keep := tcp.tcp_keepalive:
            yield from s.duration(keep.time, f"{at}.tcpKeepalive.time")
            yield from s.duration(keep.interval, f"{at}.tcpKeepalive.interval")
        yield from s.duration(
            tcp.idle_timeout if tcp.idle_timeout and tcp.idle_timeout.nanoseconds else None, f"{at}.idleTimeout"
        )


def _http_pool(http: n.HttpPool, at: str) -> Findings:
    for field, value in (
        ("http1MaxPendingRequests", http.http1_max_pending_requests),
        ("http2MaxRequests", http.http2_max_requests),
        ("maxRequestsPerConnection", http.max_requests_per_connection),
        ("maxRetries", http.max_retries),
        ("maxConcurrentStreams", http.max_concurrent_streams),
    ):
        if (value or 0) < 0:
            yield no(f"{at}.{field}", f"must be non-negative, is {value}")
    yield from s.duration(http.idle_timeout, f"{at}.idleTimeout")
    if http.h2_upgrade_policy == "UPGRADE" and http.use_client_protocol:
        yield no(f"{at}.useClientProtocol", "use client protocol must not be true when H2UpgradePolicy is UPGRADE")
    if keep := http.http2_keep_alive:
        for name, time in (("interval", keep.interval), ("timeout", keep.timeout)):
            if time is None:
                yield no(f"{at}.http2KeepAlive.{name}", "must be set for HTTP/2 keepalive")
            yield from s.duration(time, f"{at}.http2KeepAlive.{name}")
