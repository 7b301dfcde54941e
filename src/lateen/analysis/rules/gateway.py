"""Gateways: ports, certificates and conflicts; and gateways of the Gateway API."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Path, Snapshot, Source, message, selector_text, selects
from lateen.api import kinds
from lateen.kit.jsons import Json

Validity = tuple[datetime, datetime]
Place = tuple[object, str]
CA = ("ca.crt", "cacert")
MUTUAL = ("MUTUAL", "OPTIONAL_MUTUAL")


@analyzer(
    "gateway.IngressGatewayPortAnalyzer", "Checks a gateway's ports against the gateway's Kubernetes service ports"
)
def ports(snapshot: Snapshot) -> Iterator[Message]:
    for gw in snapshot.all(kinds.GATEWAY):
        selector = gw.spec.get("selector") or {}
        pods = snapshot.gateway_pods(gw)
        if not pods and not selector:
            continue  # no gateway is there yet
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
    services = {s.full: s for p in pods for s in snapshot.services_of(p.namespace, p.labels)}
    return {
        n
        for s in services.values()
        for port in s.spec.get("ports") or []
        if port.get("protocol", "TCP") == "TCP"
        for n in (port.get("port"), port.get("targetPort"))
        if isinstance(n, int)
    }


@analyzer("gateway.SecretAnalyzer", "Checks a gateway's referenced secrets for correctness")
def secrets(snapshot: Snapshot) -> Iterator[Message]:
    for gw in snapshot.all(kinds.GATEWAY):
        pods = snapshot.gateway_pods(gw)
        if not pods and not gw.spec.get("selector"):
            continue
        if not pods:
            selector = selector_text(gw.spec["selector"])
            yield message("IST0101", gw, "selector", selector, path=("spec", "selector"))
            continue
        where = pods[0].namespace
        if snapshot.secrets is not None and where not in snapshot.secrets:
            continue
        for i, server in enumerate(gw.spec.get("servers") or []):
            tls = server.get("tls") or {}
            names = list(filter(None, [tls.get("credentialName"), *(tls.get("credentialNames") or [])]))
            path = ("spec", "servers", i, "tls", "credentialName")
            for name in names:
                found = snapshot.get(kinds.SECRET, where, str(name))
                if found is None:
                    yield message("IST0101", gw, "credentialName", name, path=path, each=True)
                elif not _is_certificate(found):
                    yield message("IST0161", gw, gw.name, gw.namespace or where, path=path, each=True)
                elif name == names[0] and tls.get("mode") in MUTUAL:
                    yield from _without_authority(snapshot, gw, found, tls, path)


def _without_authority(snapshot: Snapshot, gw: Source, secret: Source, tls: Json, path: Path) -> Iterator[Message]:
    """A server that verifies clients needs CA certificates, otherwise istiod leaves it out."""
    name = str(tls.get("caCertCredentialName") or f"{secret.name}-cacert")
    other = snapshot.get(kinds.SECRET, secret.namespace, name)
    if other is None and tls.get("caCertCredentialName"):
        yield message("IST0101", gw, "caCertCredentialName", name, path=(*path[:-1], "caCertCredentialName"))
    elif not _value(secret.obj, *CA) and not (other and _value(other.obj, *CA)):
        found = message("IST0161", gw, gw.name, gw.namespace or secret.namespace, path=path)
        says = f"Secret {secret.full} has no ca.crt, which {tls['mode']} needs, and there is no Secret {name} with one."
        yield replace(found, text=f"{found.text} {says}")


def _value(secret: Json, *names: str) -> bytes:
    """The first of these keys that a Secret has, decoded; in a file, it may be in ``stringData``."""
    data: Mapping[str, Any] = secret.get("data") or {}
    plain: Mapping[str, Any] = secret.get("stringData") or {}
    for name in names:
        if name in plain:
            return str(plain[name]).encode()
        if name in data:
            try:
                return base64.b64decode(str(data[name]), validate=False)
            except ValueError:
                return b""
    return b""


def _is_certificate(secret: Source) -> bool:
    """Whether it contains a certificate chain and its key, under either set of names."""
    if "certificate" not in secret.memo:
        certificate, key = _value(secret.obj, "tls.crt", "cert"), _value(secret.obj, "tls.key", "key")
        secret.memo["certificate"] = _validity(certificate, key)
    valid: Validity | None = secret.memo["certificate"]
    return valid is not None and valid[0] <= datetime.now(UTC) <= valid[1]


def _validity(certificate: bytes, key: bytes) -> Validity | None:
    """None if one of them cannot be parsed. Checks as much as Istio does, which includes the first certificate's
    dates; whether certificate and key belong together is left to Envoy."""
    from cryptography import x509

    from lateen.kit import certs

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = x509.load_pem_x509_certificates(certificate)
        certs.private_key(key.decode(errors="replace"))
    except ValueError:
        return None
    return (found[0].not_valid_before_utc, found[0].not_valid_after_utc) if found else None


@analyzer("gateway.ConflictingGatewayAnalyzer", "Checks a gateway's selector, port number and hosts")
def conflicts(snapshot: Snapshot) -> Iterator[Message]:
    chosen: dict[str, frozenset[str]] = {}
    places: dict[Place, dict[str, list[Source]]] = {}
    """(port, address) -> host as written -> gateways with it: the most specific host is served first, so a wildcard
    does not conflict with it"""
    for gw in snapshot.all(kinds.GATEWAY):
        chosen[gw.full] = frozenset(p.full for p in snapshot.gateway_pods(gw))
        for server in gw.spec.get("servers") or []:
            for host in dict.fromkeys(map(str, server.get("hosts") or [])):
                places.setdefault(_place(server), {}).setdefault(host, []).append(gw)
    for gw in snapshot.all(kinds.GATEWAY):
        selector = gw.spec.get("selector") or {}
        for i, server in enumerate(gw.spec.get("servers") or []):
            names = {
                g.full
                for host in map(str, server.get("hosts") or [])
                for g in places[_place(server)][host]
                if g is not gw
                and (g.spec.get("selector") == gw.spec.get("selector") or chosen[g.full] & chosen[gw.full])
            }
            if names:
                number = (server.get("port") or {}).get("number")
                hosts = ",".join(map(str, server.get("hosts") or []))
                shown = ",".join(sorted(names))
                path = ("spec", "servers", i)
                yield message("IST0145", gw, shown, selector_text(selector), number, hosts, path=path)


def _place(server: Json) -> Place:
    return (server.get("port") or {}).get("number"), str(server.get("bind") or "")


@analyzer("gateway.CertificateAnalyzer", "Checks a gateway certificate")
def certificates(snapshot: Snapshot) -> Iterator[Message]:
    users: dict[tuple[str, str], list[Source]] = {}
    for gw in snapshot.all(kinds.GATEWAY):
        for certificate in _certificates(gw):
            users.setdefault(certificate, []).append(gw)
    for gw in snapshot.all(kinds.GATEWAY):
        mine = gw.spec.get("selector") or {}
        others = {g.full: g for certificate in _certificates(gw) for g in users[certificate] if g is not gw}
        for full, other in sorted(others.items()):
            if selects(mine, other.spec.get("selector") or {}):  # reported once, on the one that selects more
                yield message("IST0138", gw, f"[{gw.full} {full}]", path=("spec", "servers"))


def _certificates(gw: Source) -> set[tuple[str, str]]:
    out: set[tuple[str, str]] = set()
    for server in gw.spec.get("servers") or []:
        tls = server.get("tls") or {}
        if tls.get("credentialName"):
            out.add(("secret", str(tls["credentialName"])))
        elif tls.get("serverCertificate") and tls.get("privateKey"):
            out.add((str(tls["serverCertificate"]), str(tls["privateKey"])))
    return out


@analyzer("k8sgateway.SelectorAnalyzer", "Check that selectors are effective for Kubernetes gateway")
def policy_selectors(snapshot: Snapshot) -> Iterator[Message]:
    label = "gateway.networking.k8s.io/gateway-name"
    for policy in snapshot.all(
        kinds.AUTHORIZATION_POLICY, kinds.REQUEST_AUTHENTICATION, kinds.TELEMETRY, kinds.WASM_PLUGIN
    ):
        labels = (policy.spec.get("selector") or {}).get("matchLabels")
        if not labels or policy.spec.get("targetRef") or policy.spec.get("targetRefs"):
            continue
        names = sorted({p.labels[label] for p in snapshot.pods(labels, policy.namespace) if label in p.labels})
        for name in names:
            yield message("IST0166", policy, name, path=("spec", "selector"))
