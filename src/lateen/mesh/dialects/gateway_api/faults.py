"""Faults of a Gateway's listeners, as conditions of their status."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from lateen.api import objects as o
from lateen.api.gateway_api.common import ObjectReference, SecretObjectReference
from lateen.api.gateway_api.gateway import Listener as Written
from lateen.api.kinds import GroupKind
from lateen.mesh.dialects.gateway_api import listeners
from lateen.mesh.dialects.gateway_api.authorities import Find, Trouble
from lateen.mesh.dialects.gateway_api.listeners import PROTOCOLS, SECURE, Object, Placed
from lateen.mesh.outcomes import Condition

Allowed = Callable[[SecretObjectReference | ObjectReference, o.Ref], bool]
"""(a reference, the object that contains it) -> whether it is permitted, if need be by a ReferenceGrant"""
Known = Callable[[str, str], bool]
"""(namespace, name) -> whether there is a Secret with a certificate and its key"""


class Fault(NamedTuple):
    """Why a listener cannot be served as specified."""

    condition: str
    reason: str
    says: str
    closed: bool = True
    """Whether the listener is left out."""


def faults(
    gateway: Object, placed: Sequence[Placed], allowed: Allowed, known: Known, authorities: Find
) -> dict[str, tuple[Fault, ...]]:
    """Faults by the listeners' ids. ``placed``: the Gateway's own listeners, then those of ListenerSets, by
    precedence."""
    conflicts = _conflicts(placed)
    return {
        p.id: (
            *_unsupported(p.written),
            *_kinds(p.written),
            *_certificates(p, allowed, known),
            *_clients(gateway, p, authorities),
            *conflicts[p.id],
        )
        for p in placed
    }


def _unsupported(li: Written) -> Iterator[Fault]:
    if li.protocol not in PROTOCOLS:
        upper = li.protocol.upper()
        hint = f'; write "{upper}"' if upper in PROTOCOLS else f"; supported are {', '.join(PROTOCOLS)}"
        yield Fault("Accepted", "UnsupportedProtocol", f'protocol "{li.protocol}" is unsupported{hint}')


def _kinds(li: Written) -> Iterator[Fault]:
    wanted = [GroupKind(k.group, k.kind) for k in li.allowed_routes.kinds]
    bad = [str(k) for k in wanted if k not in PROTOCOLS.get(li.protocol, ())]
    if bad:
        says = f"routes of kind {', '.join(bad)} cannot attach to a listener of protocol {li.protocol}"
        yield Fault("ResolvedRefs", "InvalidRouteKinds", says, closed=len(bad) == len(wanted))


def _certificates(p: Placed, allowed: Allowed, known: Known) -> Iterator[Fault]:
    li, own = p.written, p.owner.namespace
    if not listeners.terminates(li):
        return
    refs = li.tls.certificate_refs if li.tls else ()
    if listeners.terminate_mode(li) == listeners.ISTIO_MUTUAL:
        return  # the listener uses the proxy's own certificate
    if not refs:
        says = f"protocol {li.protocol} needs tls.certificateRefs with a Secret"
        yield Fault("ResolvedRefs", "InvalidCertificateRef", says)
    for ref in refs:
        if bad := certificate(ref, p.owner, own, allowed, known, "InvalidCertificateRef"):
            yield bad


def certificate(
    ref: SecretObjectReference, owner: o.Ref, own: str, allowed: Allowed, known: Known, reason: str
) -> Fault | None:
    """The fault of a reference to a Secret with a certificate and its key; None if it is valid."""
    space = ref.namespace or own
    where = f"Secret {space}/{ref.name}"
    if (ref.group, ref.kind) not in (("", "Secret"), ("core", "Secret")):
        says = f"a certificate must be in a Secret, not in a {ref.kind} of group {ref.group or 'core'}"
        return Fault("ResolvedRefs", reason, says)
    if space != own and not allowed(ref, owner):
        says = f"{where} may not be used from namespace {own}: no ReferenceGrant there allows it"
        return Fault("ResolvedRefs", "RefNotPermitted", says)
    if not known(space, ref.name):
        says = f"there is no readable {where} with a certificate and its key (tls.crt, tls.key)"
        return Fault("ResolvedRefs", reason, says)
    return None


_REASONS = {
    Trouble.KIND: "InvalidCACertificateKind",
    Trouble.GRANT: "RefNotPermitted",
    Trouble.MISSING: "InvalidCACertificateRef",
}


def _clients(gateway: Object, p: Placed, authorities: Find) -> Iterator[Fault]:
    """Faults of the references to CA certificates: clients cannot be verified without any."""
    asked = listeners.frontend(gateway, p.written)
    if asked is None:
        return
    found = authorities(asked[1].ca_certificate_refs, gateway.ref)
    for trouble, says in found.problems:
        yield Fault("ResolvedRefs", _REASONS[trouble], says, closed=not found.certificates)
    if found.problems and not found.certificates:
        yield Fault("Accepted", "NoValidCACertificate", found.problems[0][1])


def _conflicts(placed: Sequence[Placed]) -> dict[str, tuple[Fault, ...]]:
    """Listeners of one port must have the same protocol and distinct hostnames. Between several objects, the first one
    has precedence; listeners of the same object exclude each other, because neither has precedence."""
    out: dict[str, tuple[Fault, ...]] = {}
    taken: list[Placed] = []
    for _, found in groupby(placed, lambda p: p.owner):
        own = list(found)
        for p in own:
            out[p.id] = tuple(_between(p.written, taken))
        left = [p for p in own if not out[p.id]]
        for p in left:
            out[p.id] = tuple(_between(p.written, [q for q in left if q is not p]))
        taken += [p for p in left if not out[p.id]]
    return out


def _between(li: Written, rivals: Sequence[Placed]) -> Iterator[Fault]:
    for rival in rivals:
        other = rival.written
        if other.port != li.port or (other.protocol == "UDP") != (li.protocol == "UDP"):
            continue
        name = f"listener {rival.id}"
        if other.protocol != li.protocol and not (other.protocol in SECURE and li.protocol in SECURE):
            says = f"{name} has port {li.port} with protocol {other.protocol}"
            yield Fault("Conflicted", "ProtocolConflict", says)
        elif (other.hostname or "*") == (li.hostname or "*"):
            yield Fault("Conflicted", "HostnameConflict", f"{name} has the same port and hostname")


def conditions(found: Sequence[Fault]) -> tuple[Condition, ...]:
    """The conditions that the mesh can determine; ``control.gateway_status`` adds whether the Gateway's proxies have
    it."""
    out = []
    first = {f.condition: f for f in reversed(found)}
    for name, good in (("Accepted", "Accepted"), ("Conflicted", "NoConflicts"), ("ResolvedRefs", "ResolvedRefs")):
        bad = first.get(name)
        if bad is None and name == "Accepted" and "Conflicted" in first:
            bad = first["Conflicted"]
        negative = name == "Conflicted"
        reason, says = (bad.reason, bad.says) if bad else (good, "No errors found")
        out.append(Condition(name, negative == (bad is not None), reason, says))
    closed = next((f for f in found if f.closed), None)
    if closed:
        reason = first["Conflicted"].reason if "Conflicted" in first else "Invalid"
        out.append(Condition("Programmed", False, reason, closed.says))
    else:
        out.append(Condition("Programmed", True, "Programmed", "No errors found"))
    return tuple(out)
