"""Secrets with which proxies terminate and originate TLS: those in the proxy's own namespace, and those that Gateways
of the Gateway API refer to (``namespace/name``).

Source: https://istio.io/latest/docs/reference/config/networking/gateway/#ServerTLSSettings and
https://istio.io/latest/docs/reference/config/networking/destination-rule/#ClientTLSSettings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from lateen.api import objects as o
from lateen.api.networking import DestinationRule, ServerTLS, TrafficPolicy
from lateen.api.networking.traffic_policy import CONFIG_MAP
from lateen.kit.derived import derived
from lateen.kit.digits import digits
from lateen.mesh import policy
from lateen.mesh.backend_policies import authorities_of
from lateen.mesh.model import Mesh

Rule = o.Resource[DestinationRule]


def of_server(mesh: Mesh, namespace: str, tls: ServerTLS | None) -> list[o.Credential] | None:
    """The Secrets of a listener that terminates TLS; None if one is missing: the listener must then be left out, so
    that the port's other listeners do not wait for it."""
    if tls is None or not tls.secrets:
        return []
    out = []
    for name in tls.secrets:
        space, slash, bare = name.partition("/")
        own = mesh.objects.credentials.get((space, bare) if slash else (namespace, name))
        if own is None or not own.chain:
            return None
        out.append(replace(own, name=name) if slash else own)
    if tls.mode in ("MUTUAL", "OPTIONAL_MUTUAL"):
        ca = _verifying(mesh, namespace, tls, out[0])
        if not ca.ca:
            return None
        out.append(o.Credential(ca.namespace, f"{tls.authorities}-cacert", ca=ca.ca, crl=ca.crl))
    return out


def _verifying(mesh: Mesh, namespace: str, tls: ServerTLS, own: o.Credential) -> o.Credential:
    """The CA certificates that verify clients; ``own``: the server's certificate."""
    gateway, colon, port = tls.ca_cert_credential_name.partition(":")
    if colon:
        space, _, name = gateway.partition("/")
        found = mesh.frontend_authorities(space, name, int(port) if digits(port) else 0)
        return o.Credential(space, name, ca=found.certificates)
    space, _, name = (tls.ca_cert_credential_name or f"{tls.secrets[0]}-cacert").rpartition("/")
    beside = mesh.objects.credentials.get((space or namespace, name))
    return beside if beside and beside.ca else own


def of_backends(mesh: Mesh, pod: o.Pod) -> list[o.Credential]:
    """The credentials that a gateway needs for BackendTLSPolicies, and its client certificate."""
    if not mesh.objects.backend_tls_policies:
        return []
    found = mesh.policy_authorities().items()
    out = [o.Credential(ref.namespace, f"{authorities_of(ref)}-cacert", ca=text) for ref, text in found]
    if shown := mesh.shown_certificate(pod):
        space, _, name = shown.partition("/")
        own = mesh.objects.credentials.get((space, name))
        out += [o.Credential(space, shown, own.chain, own.key)] if own and own.chain else []
    return out


def of_rules(mesh: Mesh, namespace: str, labels: Mapping[str, str], gateway: bool) -> list[o.Credential]:
    """The existing Secrets, and ConfigMaps with CA certificates, that DestinationRules name for TLS origination, at
    gateways, and at sidecars that a rule selects."""
    out = []
    for dr in mesh.secret_rules():
        mine = _chosen(dr, namespace, labels) if dr.spec.workload_selector else gateway
        for name in policy.secrets(qualified(dr).spec) if mine else ():
            if name.startswith(CONFIG_MAP):
                space, _, bare = name.removeprefix(CONFIG_MAP).partition("/")
                text = mesh.objects.authorities.get((space, bare))
                if text and space == dr.ref.namespace:
                    out.append(o.Credential(dr.ref.namespace, f"{name}-cacert", ca=text))
                continue
            own = mesh.objects.credentials.get((namespace, name))
            if own and own.chain:
                out.append(o.Credential(own.namespace, own.name, own.chain, own.key))
            beside = mesh.objects.credentials.get((namespace, f"{name}-cacert"))
            ca = beside if beside and beside.ca else own
            if ca and ca.ca:
                out.append(o.Credential(ca.namespace, f"{name}-cacert", ca=ca.ca, crl=ca.crl))
    return out


def namespaces(mesh: Mesh) -> set[str]:
    """The namespaces of Secrets that sidecars, policies, or Wasm plugins need; those of gateways are known from their
    connections."""
    of_rules = {
        dr.ref.namespace
        for dr in mesh.secret_rules()
        if dr.spec.workload_selector and not all(n.startswith(CONFIG_MAP) for n in policy.secrets(dr.spec))
    }
    of_modules = {place.secret[0] for place in mesh.module_sources() if place.secret[1]}
    return of_rules | of_modules | mesh.certificate_namespaces() | mesh.secret_namespaces()


def _chosen(dr: Rule, namespace: str, labels: Mapping[str, str]) -> bool:
    wanted = dr.spec.workload_selector.match_labels if dr.spec.workload_selector else {}
    return dr.ref.namespace == namespace and all(labels.get(k) == v for k, v in wanted.items())


@derived
def qualified(dr: Rule) -> Rule:
    """The rule with the namespace in the names of ConfigMaps, which may be without it: a proxy has the CA certificates
    of rules of all namespaces, each under one name. Rules without such a name are returned unchanged."""

    def full(name: str) -> str:
        own = name.startswith(CONFIG_MAP) and "/" not in name.removeprefix(CONFIG_MAP)
        return f"{CONFIG_MAP}{dr.ref.namespace}/{name.removeprefix(CONFIG_MAP)}" if own else name

    if all(full(name) == name for name in policy.secrets(dr.spec)):
        return dr
    return replace(dr, version=f"{dr.version}/qualified", spec=_renamed(dr.spec, full))


@derived
def for_sidecars(dr: Rule) -> Rule:
    """The rule without names of Secrets, unless it selects workloads; most rules are returned unchanged."""
    if dr.spec.workload_selector or not policy.secrets(dr.spec):
        return dr
    return replace(dr, version=f"{dr.version}/sidecar", spec=_renamed(dr.spec, lambda _: ""))


def _renamed(spec: DestinationRule, change: Callable[[str], str]) -> DestinationRule:
    """With other names of Secrets, at every level."""

    def level(given: Any) -> Any:
        if given is None or given.tls is None:
            return given
        name = change(given.tls.credential_name)
        return msgspec.structs.replace(given, tls=msgspec.structs.replace(given.tls, credential_name=name))

    def settings(given: TrafficPolicy | None) -> TrafficPolicy | None:
        if given is None:
            return None
        ports = tuple(level(p) for p in given.port_level_settings)
        out: TrafficPolicy = level(msgspec.structs.replace(given, port_level_settings=ports))
        return out

    subsets = tuple(msgspec.structs.replace(s, traffic_policy=settings(s.traffic_policy)) for s in spec.subsets)
    return msgspec.structs.replace(spec, traffic_policy=settings(spec.traffic_policy), subsets=subsets)
