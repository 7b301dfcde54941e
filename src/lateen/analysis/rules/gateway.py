"""Gateways: ports, certificates and conflicts; gateways of Kubernetes' Gateway API."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import K8S_GATEWAY, Message, Snapshot, Source, message, selector_text, selects
from lateen.kit.jsons import Json

CRD_MINIMUM = {
    "gatewayclasses": "v1.0.0",
    "gateways": "v1.0.0",
    "httproutes": "v1.0.0",
    "grpcroutes": "v1.1.0",
    "referencegrants": "v1.0.0",
    "backendtlspolicies": "v1.4.0",
    "tlsroutes": "v1.5.0",
    "tcproutes": "v1.6.0",
}
"""From which release of the Gateway API on a kind is read; facts from Istio's notes on the kinds that it serves."""
BUNDLE = "gateway.networking.k8s.io/bundle-version"


def _pods(snapshot: Snapshot, gateway: Source) -> list[Source]:
    selector = gateway.spec.get("selector") or {}
    return [p for p in snapshot.all("Pod") if selects(selector, p.labels)]


@analyzer(
    "gateway.IngressGatewayPortAnalyzer", "Checks a gateway's ports against the gateway's Kubernetes service ports"
)
def ports(snapshot: Snapshot) -> Iterator[Message]:
    for gw in snapshot.all("Gateway"):
        selector = gw.spec.get("selector") or {}
        pods = _pods(snapshot, gw)
        if not pods:
            yield message("IST0101", gw, "selector", selector_text(selector), path=("spec", "selector"))
            continue
        offered = _offered(snapshot, pods)
        for i, server in enumerate(gw.spec.get("servers") or []):
            number = (server.get("port") or {}).get("number")
            if number is not None and number not in offered:
                yield message(
                    "IST0162", gw, number, selector_text(selector), path=("spec", "servers", i, "port", "number")
                )


def _offered(snapshot: Snapshot, pods: list[Source]) -> set[int]:
    out: set[int] = set()
    for service in snapshot.all("Service"):
        selector = service.spec.get("selector")
        if not selector or not any(p.namespace == service.namespace and selects(selector, p.labels) for p in pods):
            continue
        for port in service.spec.get("ports") or []:
            if port.get("protocol", "TCP") == "TCP":
                out |= {n for n in (port.get("port"), port.get("targetPort")) if isinstance(n, int)}
    return out


@analyzer("gateway.SecretAnalyzer", "Checks a gateway's referenced secrets for correctness")
def secrets(snapshot: Snapshot) -> Iterator[Message]:
    for gw in snapshot.all("Gateway"):
        pods = _pods(snapshot, gw)
        if not pods:
            selector = selector_text(gw.spec.get("selector") or {})
            yield message("IST0101", gw, "selector", selector, path=("spec", "selector"))
            continue
        for i, server in enumerate(gw.spec.get("servers") or []):
            tls = server.get("tls") or {}
            for name in filter(None, [tls.get("credentialName"), *(tls.get("credentialNames") or [])]):
                found = snapshot.get("Secret", pods[0].namespace, str(name))
                path = ("spec", "servers", i, "tls", "credentialName")
                if found is None:
                    yield message("IST0101", gw, "credentialName", name, path=path)
                elif not _is_certificate(found.obj):
                    yield message("IST0161", gw, gw.name, gw.namespace or pods[0].namespace, path=path)


def _is_certificate(secret: Json) -> bool:
    """A certificate chain and its key, in either of the two spellings, or only CA certificates."""
    data: Mapping[str, Any] = {**(secret.get("data") or {})}
    plain: Mapping[str, Any] = secret.get("stringData") or {}

    def value(*names: str) -> bytes:
        for name in names:
            if name in plain:
                return str(plain[name]).encode()
            if name in data:
                try:
                    return base64.b64decode(str(data[name]), validate=False)
                except ValueError:
                    return b""
        return b""

    certificate, key = value("tls.crt", "cert"), value("tls.key", "key")
    if not certificate and not key:
        return bool(value("ca.crt", "cacert"))
    return _readable(certificate, key)


def _readable(certificate: bytes, key: bytes) -> bool:
    """As far as Istio's own check goes; whether the two belong together is Envoy's to say."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = x509.load_pem_x509_certificates(certificate)
        serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError):
        return False
    return bool(found)


@analyzer("gateway.ConflictingGatewayAnalyzer", "Checks a gateway's selector, port number and hosts")
def conflicts(snapshot: Snapshot) -> Iterator[Message]:
    gateways = snapshot.all("Gateway")
    chosen = {id(g): frozenset(p.full for p in _pods(snapshot, g)) for g in gateways}
    for gw in gateways:
        selector = gw.spec.get("selector") or {}
        if selector and not chosen[id(gw)]:
            continue
        rivals = [
            g
            for g in gateways
            if g is not gw and (g.spec.get("selector") == gw.spec.get("selector") or chosen[id(g)] & chosen[id(gw)])
        ]
        for i, server in enumerate(gw.spec.get("servers") or []):
            number = (server.get("port") or {}).get("number")
            names = sorted({g.full for g in rivals if any(_same(server, s) for s in g.spec.get("servers") or [])})
            if names:
                hosts = ",".join(map(str, server.get("hosts") or []))
                yield message(
                    "IST0145",
                    gw,
                    ",".join(names),
                    selector_text(selector),
                    number,
                    hosts,
                    path=("spec", "servers", i),
                )


def _same(a: Json, b: Json) -> bool:
    return (
        (a.get("port") or {}).get("number") == (b.get("port") or {}).get("number")
        and a.get("bind", "") == b.get("bind", "")
        and bool(set(a.get("hosts") or []) & set(b.get("hosts") or []))
    )


@analyzer("gateway.CertificateAnalyzer", "Checks a gateway certificate")
def certificates(snapshot: Snapshot) -> Iterator[Message]:
    gateways = snapshot.all("Gateway")
    for gw in gateways:
        mine = gw.spec.get("selector") or {}
        names = sorted(
            g.full
            for g in gateways
            if g is not gw
            and (selects(mine, g.spec.get("selector") or {}) or selects(g.spec.get("selector"), mine))
            and _certificates(gw) & _certificates(g)
        )
        if names:
            shown = "[" + " ".join(sorted([gw.full, *names])) + "]"
            yield message("IST0138", gw, shown, path=("spec", "servers"))


def _certificates(gw: Source) -> set[tuple[str, str]]:
    out: set[tuple[str, str]] = set()
    for server in gw.spec.get("servers") or []:
        tls = server.get("tls") or {}
        if tls.get("credentialName"):
            out.add(("secret", str(tls["credentialName"])))
        elif tls.get("serverCertificate") and tls.get("privateKey"):
            out.add((str(tls["serverCertificate"]), str(tls["privateKey"])))
    return out


@analyzer(
    "k8sgateway.CRDVersionAnalyzer",
    "Checks Gateway API CRDs are at the minimum version required by this Istio version",
)
def crd_versions(snapshot: Snapshot) -> Iterator[Message]:
    for crd in snapshot.all("CustomResourceDefinition"):
        if crd.spec.get("group") != "gateway.networking.k8s.io":
            continue
        needed = CRD_MINIMUM.get(str((crd.spec.get("names") or {}).get("plural") or crd.name.partition(".")[0]))
        installed = crd.annotations.get(BUNDLE, "")
        if needed and installed and _version(installed) < _version(needed):
            yield message("IST0176", crd, crd.name, installed, needed, path=("metadata", "annotations", BUNDLE))


def _version(text: str) -> tuple[int, ...]:
    numbers = text.lstrip("v").partition("-")[0].split(".")
    return tuple(int(n) if n.isdigit() else 0 for n in numbers)


@analyzer("k8sgateway.SelectorAnalyzer", "Check that selectors are effective for Kubernetes gateway")
def policy_selectors(snapshot: Snapshot) -> Iterator[Message]:
    label = "gateway.networking.k8s.io/gateway-name"
    pods = [p for p in snapshot.all("Pod") if label in p.labels]
    for policy in snapshot.all("AuthorizationPolicy", "RequestAuthentication", "Telemetry", "WasmPlugin"):
        labels = (policy.spec.get("selector") or {}).get("matchLabels")
        if not labels or policy.spec.get("targetRef") or policy.spec.get("targetRefs"):
            continue
        names = sorted(
            {
                p.labels[label]
                for p in pods
                if policy.namespace in (p.namespace, snapshot.root)
                and selects(labels, p.labels)
                and (label not in labels or snapshot.get(K8S_GATEWAY, p.namespace, p.labels[label]) is not None)
            }
        )
        for name in names:
            yield message("IST0166", policy, name, path=("spec", "selector"))
