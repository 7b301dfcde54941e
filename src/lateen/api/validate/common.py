"""Validation rules of parts that several kinds share: selectors, target references, destinations, TLS of servers,
connection pools."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lateen.api import kinds
from lateen.api import networking as n
from lateen.api.networking import ciphers
from lateen.api.networking.traffic_policy import MOST_PROBES, MOST_S
from lateen.api.validate import scalars as s
from lateen.api.validate.findings import Findings, hint, no, warn

MAX_TARGETS = 16
TARGETS = (kinds.KUBERNETES_GATEWAY, kinds.GATEWAY_CLASS, kinds.SERVICE, kinds.SERVICE_ENTRY)
"""The kinds that a policy may be attached to."""


def selector(given: n.WorkloadSelector | None, path: str = "spec.selector") -> Findings:
    labels = given.match_labels if given else {}
    yield from _selected(labels, f"{path}.matchLabels")
    if given and not labels:
        yield warn(path, "workload selector specified without labels: it selects all workloads of the namespace")


def label_selector(given: n.LabelSelector | None, what: str) -> Findings:
    if given and not given.labels:
        says = f"{what}: workload selector specified without labels, will be applied to all services in namespace"
        yield warn("spec.workloadSelector", says)
    yield from _selected(given.labels if given else {}, "spec.workloadSelector.labels")


def _selected(labels: dict[str, str], path: str) -> Findings:
    for key, value in labels.items():
        if not key:
            yield no(path, f'empty key is not supported in selector: "{key}={value}"')
        if "*" in key or "*" in value:
            yield no(f"{path}[{key}]", f'wildcard is not supported in selector: "{key}={value}"')


def target_refs(
    one: n.PolicyTargetReference | None, many: tuple[n.PolicyTargetReference, ...], selected: bool
) -> Findings:
    if (one is not None) + bool(many) + selected > 1:
        yield no("spec", "only one of targetRefs or workloadSelector can be set (selector, targetRef and targetRefs)")
    if len(many) > MAX_TARGETS:
        yield no("spec.targetRefs", f"must have at most {MAX_TARGETS} items, has {len(many)}")
    refs = [("spec.targetRef", one)] if one else []
    for path, ref in [*refs, *((f"spec.targetRefs[{i}]", r) for i, r in enumerate(many))]:
        if not ref.name:
            yield no(f"{path}.name", "targetRef name must be set")
        if ref.namespace:
            says = "targetRef namespace must not be set; cross namespace referencing is not supported"
            yield no(f"{path}.namespace", says)
        if kinds.find("" if ref.group == "core" else ref.group, ref.kind) not in TARGETS:
            known = ", ".join(f"{k.group or 'core'}/{k.kind}" for k in TARGETS)
            yield no(path, f"targetRef must be to one of [{known}] but was {ref.group}/{ref.kind}")


def destination(d: n.Destination, path: str) -> Findings:
    if not d.host:
        yield no(f"{path}.host", "destination is required: give the host of a service")
    elif d.host == "*":
        yield no(f"{path}.host", "invalid destination host *")
    else:
        yield from s.wildcard_domain(d.host, f"{path}.host")
    if d.subset:
        yield from subset_name(d.subset, f"{path}.subset")
    if d.port is not None:
        yield from s.port(d.port.number, f"{path}.port.number")


def subset_name(name: str, path: str) -> Findings:
    if not name:
        yield no(path, "subset name cannot be empty")
    elif not s.is_label(name):
        yield no(path, f'subset name is invalid: {name[:80]}; use letters, digits and "-", at most 63')


def unix_address(path: str, at: str) -> Findings:
    """The path of a socket, after ``unix://``; a leading ``@`` means an abstract socket."""
    if not path:
        yield no(at, "unix address must not be empty")
    elif not path.startswith("@") and (not path.startswith("/") or path.endswith("/")):
        yield no(at, f"{path[:80]} is not an absolute path to a file")


UNIX = "unix://"
VERSIONS = ("TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3")
PROTECTED = {"SIMPLE": "SIMPLE TLS", "MUTUAL": "MUTUAL TLS", "OPTIONAL_MUTUAL": "MUTUAL TLS"}
"""Modes that terminate TLS with the user's certificates -> their names in messages."""
PASSING = ("PASSTHROUGH", "AUTO_PASSTHROUGH")


def server_tls(tls: n.ServerTLS, path: str) -> Findings:
    """The TLS settings of a Gateway's server or of a Sidecar's ingress."""
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
    else:
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
    lowest = minimum if minimum in VERSIONS[1:] else "TLSV1_2"
    if maximum in VERSIONS[1:] and VERSIONS.index(maximum) < VERSIONS.index(lowest):
        yield hint(f"{path}.maxProtocolVersion", f"is below the minimum ({lowest}), so that nobody can connect")


def _cipher_suites(tls: n.ServerTLS, path: str) -> Findings:
    known = [c for c in tls.cipher_suites if ciphers.suites(c) or ciphers.is_operator(c)]
    strange = sorted({c for c in tls.cipher_suites if c not in known})
    unread = sorted({c for c in known if c and not ciphers.suites(c)})
    twice = sorted({c for c in known if known.count(c) > 1})
    for what, found in (("invalid", strange), ("duplicate", twice)):
        if found:
            yield warn(f"{path}.cipherSuites", f"ignoring {what} cipher suites: [{' '.join(found)}]")
    if unread:
        says = f"{', '.join(unread)} is ignored: operators are about names of cipher suites, as in -AES128-SHA"
        yield hint(f"{path}.cipherSuites", says)
    elif known and not ciphers.usable(known):
        yield hint(f"{path}.cipherSuites", "they leave no cipher suite, so those of Envoy are used")


def _curves(tls: n.ServerTLS, path: str) -> Findings:
    for i, curve in enumerate(tls.ecdh_curves):
        if curve not in n.ECDH_CURVES:
            known = ", ".join(sorted(n.ECDH_CURVES))
            yield warn(f"{path}.ecdhCurves[{i}]", f"ignoring unknown curve {curve}; known are {known}")


def _certificates(tls: n.ServerTLS, path: str) -> Findings:
    secret = bool(tls.credential_name or tls.credential_names)
    files = any((tls.server_certificate, tls.private_key, tls.ca_certificates, tls.ca_crl, tls.tls_certificates))
    if tls.mode in PASSING and (secret or files):
        yield warn(path, f"{tls.mode} mode does not use certificates, they will be ignored")
    sources = (
        tls.server_certificate and tls.private_key,
        tls.credential_name,
        tls.credential_names,
        tls.tls_certificates,
    )
    if sum(map(bool, sources)) > 1:
        says = (
            "only one of credential_name, credential_names, server_certificate/private_key, tls_certificates should be "
            "specified"
        )
        yield no(path, says)
    for field, many in (("credentialNames", tls.credential_names), ("tlsCertificates", tls.tls_certificates)):
        if len(many) > 2:
            says = (
                f"{PROTECTED.get(tls.mode, tls.mode)} can support up to 2 server certificates: an RSA and an ECDSA one"
            )
            yield warn(f"{path}.{field}", says)
    if tls.mode in PROTECTED:
        yield from _beside_a_secret(tls, path) if secret else _own_files(tls, PROTECTED[tls.mode], path)
    elif tls.ca_crl and tls.credential_name:
        says = "CRL is not supported with credentialName. CRL has to be specified in the credential (ca.crl)"
        yield no(f"{path}.caCrl", says)


def _own_files(tls: n.ServerTLS, what: str, path: str) -> Findings:
    if what == "MUTUAL TLS" and not tls.ca_certificates and not tls.ca_cert_credential_name:
        yield no(path, f"{what} requires a client CA bundle: set caCertificates, or use a credentialName")
    one = n.ServerCertificate(server_certificate=tls.server_certificate, private_key=tls.private_key)
    for i, c in enumerate(tls.tls_certificates or (one,)):
        at = f"{path}.tlsCertificates[{i}]" if tls.tls_certificates else path
        if not c.server_certificate:
            yield no(at, f"{what} requires a server certificate: set serverCertificate, or use a credentialName")
        if not c.private_key:
            yield no(at, f"{what} requires a private key: set privateKey, or use a credentialName")
    if what == "SIMPLE TLS" and tls.ca_crl:
        yield no(f"{path}.caCrl", "CRL is not supported with SIMPLE TLS")


def _beside_a_secret(tls: n.ServerTLS, path: str) -> Findings:
    for field, file in (("caCertificates", tls.ca_certificates), ("caCrl", tls.ca_crl)):
        if file:
            says = "it has no effect beside credentialName: put it into the Secret (ca.crt, ca.crl)"
            yield hint(f"{path}.{field}", says)


def connection_pool(pool: n.ConnectionPool | None, path: str) -> Findings:
    if pool is None:
        return
    if pool.http is None and pool.tcp is None:
        yield no(path, "connection pool must have at least one field")
    if http := pool.http:
        yield from _http_pool(http, f"{path}.http")
    if tcp := pool.tcp:
        at = f"{path}.tcp"
        yield from s.duration(tcp.connect_timeout, f"{at}.connectTimeout")
        yield from s.duration(tcp.max_connection_duration, f"{at}.maxConnectionDuration")
        if keep := tcp.tcp_keepalive:
            yield from s.duration(keep.time, f"{at}.tcpKeepalive.time")
            yield from s.duration(keep.interval, f"{at}.tcpKeepalive.interval")
            for where, says in keepalive(keep, f"{at}.tcpKeepalive"):
                yield hint(where, f"{says}; this is what is used")
        if tcp.idle_timeout and tcp.idle_timeout.nanoseconds:  # 0s: connections may be idle for ever
            yield from s.duration(tcp.idle_timeout, f"{at}.idleTimeout")


def keepalive(given: n.TcpKeepalive | None, path: str) -> Iterator[tuple[str, str]]:
    """(path, what is too much for Linux)"""
    if given is None:
        return
    for name, time in (("time", given.time), ("interval", given.interval)):
        if time is not None and time.seconds > MOST_S:
            yield f"{path}.{name}", f"{time} is longer than {MOST_S}s, the most that Linux takes"
    if given.probes is not None and given.probes > MOST_PROBES:
        yield f"{path}.probes", f"{given.probes} is more than {MOST_PROBES}, the most that Linux takes"


def _http_pool(http: n.HttpPool, at: str) -> Findings:
    yield from s.duration(http.idle_timeout, f"{at}.idleTimeout")
    if http.h2_upgrade_policy == "UPGRADE" and http.use_client_protocol:
        yield no(f"{at}.useClientProtocol", "use client protocol must not be true when H2UpgradePolicy is UPGRADE")
    if keep := http.http2_keep_alive:
        for name, time in (("interval", keep.interval), ("timeout", keep.timeout)):
            if time is None:
                yield no(f"{at}.http2KeepAlive.{name}", f"http2 keepalive {name} is required")
            yield from s.duration(time, f"{at}.http2KeepAlive.{name}")
