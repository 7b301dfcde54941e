"""Which parents take a route, and if none does, why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.gateway_api import ListenerSet
from lateen.api.gateway_api.common import ParentReference
from lateen.api.gateway_api.gateway import Listener
from lateen.api.kinds import GroupKind
from lateen.mesh.dialects.gateway_api import listeners
from lateen.mesh.protocols import HTTP, protocol

NO_PARENT, NOT_ALLOWED, NO_HOSTNAME = "NoMatchingParent", "NotAllowedByListeners", "NoMatchingListenerHostname"
UNSUPPORTED = "UnsupportedValue"
_SEVERITY = (NOT_ALLOWED, NO_HOSTNAME, NO_PARENT)
"""What is said where listeners refuse a route for different reasons: the first of these, as in Istio."""


class Attachment(NamedTuple):
    """What becomes of one reference to a parent."""

    reason: str = ""
    """Why the parent does not take the route; empty where it does."""
    says: str = ""
    at: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(listener, hosts) of a Gateway's listeners that take it"""
    ports: tuple[int, ...] = ()
    """Ports of a Service or ServiceEntry whose requests it takes."""


def to_listeners(
    kind: GroupKind,
    parent: ParentReference,
    placed: Sequence[listeners.Placed],
    hostnames: Sequence[str],
    namespace: str,
    labels: Mapping[str, str],
) -> Attachment:
    """``placed``: the listeners of the parent, a Gateway or a ListenerSet; ``namespace``: the route's; it has
    ``labels``."""
    taken: list[tuple[str, tuple[str, ...]]] = []
    refused: list[tuple[str, str]] = []
    for p in placed:
        reason, says, hosts = _judge(kind, parent, p.written, p.owner.namespace, hostnames, namespace, labels)
        if reason:
            refused.append((reason, says))
        else:
            taken.append((p.id, hosts))
    if taken:
        return Attachment(at=tuple(taken))
    if not placed:
        return Attachment(NOT_ALLOWED, f"the Gateway of {parent.kind} {parent.name} does not take its listeners")
    reason = next(r for r in _SEVERITY if any(r == found for found, _ in refused))
    return Attachment(reason, "; ".join(dict.fromkeys(says for found, says in refused if found == reason)))


def _judge(
    kind: GroupKind,
    parent: ParentReference,
    li: Listener,
    own: str,
    hostnames: Sequence[str],
    namespace: str,
    labels: Mapping[str, str],
) -> tuple[str, str, tuple[str, ...]]:
    """(why the listener does not take the route, in a sentence, the hosts where it does)"""
    if parent.section_name is not None and parent.section_name != li.name:
        return NO_PARENT, f'there is no listener "{parent.section_name}"', ()
    if parent.port is not None and parent.port != li.port:
        return NO_PARENT, f"there is no listener of port {parent.port} that the reference names", ()
    if kind not in listeners.supported(li):
        return NOT_ALLOWED, f"listener {li.name} does not take routes of kind {kind.kind}", ()
    if not listeners.admits(li, own, namespace, labels):
        return NOT_ALLOWED, f"listener {li.name} does not take routes of namespace {namespace}", ()
    hosts = listeners.shared_hosts(li, hostnames)
    if not hosts:
        return NO_HOSTNAME, f"no hostname of the route is one of listener {li.name} ({li.hostname})", ()
    return "", "", hosts


def to_service(kind: GroupKind, parent: ParentReference, services: Sequence[o.Service]) -> Attachment:
    """``services``: the parent, or what a ServiceEntry defines; none where there is no such object."""
    what = f"{parent.kind} {parent.name}"
    if not services:
        return Attachment(NO_PARENT, f"there is no {what}")
    ports = [p for s in services for p in s.ports]
    found = [p for p in ports if parent.port in (None, p.port) and parent.section_name in (None, p.name)]
    if not found:
        wanted = f"named {parent.section_name}" if parent.port is None else str(parent.port)
        return Attachment(NO_PARENT, f"{what} has no port {wanted}")
    taken = [p for p in found if kind in listeners.FOR_REQUESTS or protocol(p) not in HTTP]
    if not taken:
        says = f"{what} serves HTTP there, whose requests need an HTTPRoute or GRPCRoute, not a {kind.kind}"
        return Attachment(UNSUPPORTED, says)
    return Attachment(ports=tuple(dict.fromkeys(p.port for p in taken)))


def no_service(kind: GroupKind) -> Attachment:
    """Of a route of datagrams whose parent is a Service or a ServiceEntry. Datagrams are not captured: redirected ones
    have lost their destination when Envoy reads them (the kernel keeps it for connections alone), and an intercepted
    one has no certificate that could say whose it is."""
    says = "datagrams of pods are not captured: they go to the Service as without a mesh"
    return Attachment(UNSUPPORTED, f"a {kind.kind} can only have Gateways as parents; {says}")


def set_parent(found: o.Resource[ListenerSet]) -> tuple[str, str] | None:
    """(namespace, name) of the Gateway that a ListenerSet adds listeners to."""
    ref = found.spec.parent_ref
    if (ref.group, ref.kind) != kinds.KUBERNETES_GATEWAY.id:
        return None
    return ref.namespace or found.ref.namespace, ref.name


def parents(refs: Sequence[ParentReference], namespace: str) -> Iterator[tuple[str, str, str, str]]:
    """(group, kind, namespace, name) of what a route of a namespace refers to."""
    for p in refs:
        yield ("" if p.group == "core" else p.group, p.kind, p.namespace or namespace, p.name)
