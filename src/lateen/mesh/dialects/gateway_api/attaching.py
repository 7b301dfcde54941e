"""Which parents accept a route, and the reason where one does not."""

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
"""If listeners reject a route for different reasons, the first of these is reported, as in Istio."""


class Attachment(NamedTuple):
    """The result of one reference to a parent."""

    reason: str = ""
    """Why the parent does not accept the route; empty if it does."""
    says: str = ""
    at: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(listener, hosts) of the Gateway's listeners that accept it"""
    ports: tuple[int, ...] = ()
    """Ports of the Service or ServiceEntry to which the route applies."""


def to_listeners(
    kind: GroupKind,
    parent: ParentReference,
    placed: Sequence[listeners.Placed],
    hostnames: Sequence[str],
    namespace: str,
    labels: Mapping[str, str],
) -> Attachment:
    """Attach a route to a Gateway's or ListenerSet's listeners (``placed``). ``namespace``, ``labels``: the route's
    namespace and that namespace's labels."""
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
        return Attachment(NOT_ALLOWED, f"the Gateway of {parent.kind} {parent.name} does not accept its listeners")
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
    """(reason why the listener does not accept the route, that in a sentence, the hosts if it does)"""
    if parent.section_name is not None and parent.section_name != li.name:
        return NO_PARENT, f'there is no listener "{parent.section_name}"', ()
    if parent.port is not None and parent.port != li.port:
        return NO_PARENT, f"the reference matches no listener on port {parent.port}", ()
    if kind not in listeners.supported(li):
        return NOT_ALLOWED, f"listener {li.name} does not accept routes of kind {kind.kind}", ()
    if not listeners.admits(li, own, namespace, labels):
        return NOT_ALLOWED, f"listener {li.name} does not accept routes from namespace {namespace}", ()
    hosts = listeners.shared_hosts(li, hostnames)
    if not hosts:
        return NO_HOSTNAME, f"no hostname of the route matches that of listener {li.name} ({li.hostname})", ()
    return "", "", hosts


def to_service(kind: GroupKind, parent: ParentReference, services: Sequence[o.Service]) -> Attachment:
    """Attach a route to a Service, or to the services that a ServiceEntry defines; ``services`` is empty if there is no
    such object."""
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
        says = f"the port of {what} serves HTTP, which needs an HTTPRoute or GRPCRoute, not a {kind.kind}"
        return Attachment(UNSUPPORTED, says)
    return Attachment(ports=tuple(dict.fromkeys(p.port for p in taken)))


def no_service(kind: GroupKind) -> Attachment:
    """The result for a UDPRoute whose parent is a Service or a ServiceEntry. Datagrams are not captured: redirected
    ones have lost their destination when Envoy reads them (the kernel keeps it only for connections), and nothing
    authenticates the sender of a datagram."""
    says = "datagrams of pods are not captured: they go to the Service as without a mesh"
    return Attachment(UNSUPPORTED, f"a {kind.kind} can only have Gateways as parents; {says}")


def set_parent(found: o.Resource[ListenerSet]) -> tuple[str, str] | None:
    """(namespace, name) of the Gateway to which a ListenerSet adds listeners."""
    ref = found.spec.parent_ref
    if (ref.group, ref.kind) != kinds.KUBERNETES_GATEWAY.id:
        return None
    return ref.namespace or found.ref.namespace, ref.name


def parents(refs: Sequence[ParentReference], namespace: str) -> Iterator[tuple[str, str, str, str]]:
    """(group, kind, namespace, name) of the parents of a route in ``namespace``."""
    for p in refs:
        yield ("" if p.group == "core" else p.group, p.kind, p.namespace or namespace, p.name)
