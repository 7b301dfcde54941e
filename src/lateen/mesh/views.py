"""The views of all proxies of one mesh: queries over it, so that a change recomputes only what it affects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import re2

from lateen.api import objects as o
from lateen.api.networking import EnvoyFilter, ProxyMatch
from lateen.kit.derived import Shared
from lateen.kit.queries import query
from lateen.mesh import credentials, gateways, workload_view
from lateen.mesh.clients import Client
from lateen.mesh.model import Mesh
from lateen.mesh.objects import Objects
from lateen.mesh.outbound import Outbound
from lateen.mesh.view import GatewayView, InboundView, OutboundView, Patch, View
from lateen.wire.node import ROUTER


class Views(Outbound):
    def __init__(self, mesh: Mesh) -> None:
        self.mesh, self.queries, self.shared = mesh, mesh.queries, Shared()

    def advance(self, objects: Objects, others: Mapping[str, Objects] | None = None) -> None:
        """See ``Mesh.advance``."""
        self.mesh.advance(objects, others)

    def of(self, pod: o.Pod, kind: str, metadata: Mapping[str, str] | None = None) -> View:
        """``metadata``: what the proxy reports about itself. An unchanged view is the same object."""
        dns = (metadata or {}).get("DNS_CAPTURE") == "true"
        gateway = kind == ROUTER
        out = self.outbound_view(self._client(pod, dns, gateway))
        named = self._rule_credentials(pod, gateway)
        found = self.mesh.envoy_filters(pod.namespace, pod.label_map)
        filters = patches(found, metadata or {}) if found else ()
        seen = self.mesh.observability()
        if gateway:
            served, used = self._served(pod)
            view = View(out, None, served, _by_name([*used, *named]), seen, filters)
        else:
            view = View(out, self._inbound(pod), None, _by_name(named), seen, filters)
        parts = (view.outbound, view.inbound, view.gateway, view.credentials, view.observability, view.patches)
        return self.shared(("view", parts), lambda: view)

    @query
    def _client(self, pod: o.Pod, dns: bool, gateway: bool) -> Client:
        labels = pod.label_map
        sidecar = None if gateway else self.mesh.sidecar(pod.namespace, labels)
        asked = self.mesh.asked_labels()
        chosen = tuple((k, labels[k]) for k in sorted(labels.keys() & asked))
        return Client(pod.namespace, chosen, sidecar.ref if sidecar else None, pod.locality, dns, gateway)

    def outbound(self, namespace: str) -> OutboundView:
        """What clients in a namespace see that have no other known properties."""
        sidecar = self.mesh.sidecar(namespace, {})
        return self.outbound_view(Client(namespace, sidecar=sidecar.ref if sidecar else None))

    @query
    def _rule_credentials(self, pod: o.Pod, gateway: bool) -> tuple[o.Credential, ...]:
        return tuple(credentials.of_rules(self.mesh, pod.namespace, pod.label_map, gateway))

    @query
    def _served(self, pod: o.Pod) -> tuple[GatewayView, tuple[o.Credential, ...]]:
        view, used = gateways.view(self.mesh, pod, self.shared)
        return view, tuple(used)

    @query
    def _inbound(self, pod: o.Pod) -> InboundView:
        return workload_view.inbound(self.mesh, pod, self.shared)

    def names(self, namespace: str) -> dict[str, list[str]]:
        """Hosts that ServiceEntries add for clients in a namespace, with their addresses: what their DNS answers."""
        return dict(self._names(namespace))

    @query
    def _names(self, namespace: str) -> dict[str, list[str]]:
        out = {}
        for s in self.mesh.visible(namespace):
            if s.resolution:
                found = [a for a in self.mesh.addresses(s, automatic=True) if "/" not in a]
                if found:
                    out[s.host.lower()] = found
        return out


def _by_name(found: Iterable[o.Credential]) -> tuple[o.Credential, ...]:
    """Without duplicates, in a fixed order; a server's come before a rule's."""
    named = {c.name: c for c in reversed(list(found))}
    return tuple(named[n] for n in sorted(named))


def patches(found: tuple[o.Resource[EnvoyFilter], ...], metadata: Mapping[str, str]) -> tuple[Patch, ...]:
    """The patches that apply to a proxy of this version and with this metadata."""
    return tuple(
        Patch(f.ref, f.version, i, spec)
        for f in found
        for i, spec in enumerate(f.spec.config_patches)
        if _for_proxy(spec.match.proxy if spec.match else None, metadata)
    )


def _for_proxy(wanted: ProxyMatch | None, metadata: Mapping[str, str]) -> bool:
    if wanted is None:
        return True
    if wanted.proxy_version and re2.search(wanted.proxy_version, metadata.get("ISTIO_VERSION", "")) is None:
        return False
    return all(metadata.get(k) == v for k, v in wanted.metadata.items())
