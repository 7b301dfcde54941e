"""Istio's labels from those that Envoy writes: joined ones are taken apart (``wire.labels``), and labels that depend on
others, which Envoy cannot express, are filled in."""

from __future__ import annotations

import re

from lateen.kit.digits import digits
from lateen.wire.labels import NAME, PART, PARTS, PIECE, PIECES

UNKNOWN = b"unknown"
_LABEL = re.compile(rb'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)",?')
_CALLER = re.compile(rb"spiffe://[^/]*/ns/([^/]+)/sa/")
_DESCRIBED = dict(
    zip(
        PARTS,
        (b"workload", b"workload_namespace", b"canonical_service", b"canonical_revision", b"app", b"version"),
        strict=True,
    )
)
"""The part of a description -> the end of the label that contains it."""
_EMPTY = (b"", b"-")
_KEPT = (b"response_flags", b"grpc_response_status")
"""Labels whose absent value has a meaning of its own, as in Istio."""

Labels = dict[bytes, bytes]


def istio(raw: bytes) -> bytes:
    """The labels of a sample, in Prometheus' text format without braces."""
    found: Labels = {}
    for name, value in _LABEL.findall(raw):
        if name == NAME.encode():
            found |= _apart(value)
        else:
            found[name] = value
    return b",".join(b'%s="%s"' % label for label in _completed(found).items())


def _apart(joined: bytes) -> Labels:
    separator = PIECE.encode()
    reporter, cluster, rest = [*joined.split(separator, 2), b"", b""][:3]
    # the other side's certificate may contain separators, so what it says is what remains
    if reporter == b"source":
        *own, rest = rest.split(separator, 3)
        pieces = [*own, *rest.rsplit(separator, 6)]
    else:
        certificate, *own = rest.rsplit(separator, 8)
        pair = certificate.split(separator)
        pieces = [*(pair if len(pair) == 2 else (b"", b"")), *own]
    if len(pieces) != PIECES - 2:
        return {b"reporter": reporter}
    source, caller, destination, server, service, protocol, code, grpc, flags, security = pieces
    if reporter != b"source" and not _belongs(source, caller):
        source = b""
    host, name, namespace = _parts(service, 3)
    out = {b"reporter": reporter, **_workload(b"source", source), b"source_principal": caller}
    out[b"source_cluster"] = _cluster(source, cluster)
    out |= _workload(b"destination", destination)
    out |= {b"destination_principal": server, b"destination_service": host, b"destination_service_name": name}
    out |= {b"destination_service_namespace": namespace, b"destination_cluster": _cluster(destination, cluster)}
    out[b"request_protocol"] = protocol
    if protocol != b"tcp":
        out |= {b"response_code": code, b"grpc_response_status": b"" if grpc == b"-" else grpc}
    return {**out, b"response_flags": flags, b"connection_security_policy": security}


def _belongs(said: bytes, principal: bytes) -> bool:
    """Whether a description is one of the identity in the same certificate: other authorities that are trusted, too,
    may write anything there."""
    caller = _CALLER.match(principal)
    return caller is not None and _described(said) and said.split(PART.encode())[1] == caller[1]


def _believed(said: bytes, found: Labels) -> bool:
    """Whether a single label's description is; without the identity, which a Telemetry may remove, nobody can tell."""
    principal = found.get(b"source_principal")
    return principal is None or _belongs(said, principal)


def _parts(text: bytes, count: int) -> list[bytes]:
    """The parts of a description; empty ones if there is none."""
    found = text.split(PART.encode())
    return found if len(found) == count else [b""] * count


def _described(text: bytes) -> bool:
    return len(PARTS) - 1 <= text.count(PART.encode()) <= len(PARTS)


def _workload(side: bytes, said: bytes) -> Labels:
    values = said.split(PART.encode()) if _described(said) else [b""] * len(PARTS)
    out = {side + b"_" + _DESCRIBED[key]: value for key, value in zip(PARTS, values[: len(PARTS)], strict=True)}
    if values[0] in _EMPTY:
        out[side + b"_canonical_revision"] = b"latest"  # as in Istio
    return out


def _cluster(said: bytes, own: bytes) -> bytes:
    if not _described(said):
        return b""
    parts = said.split(PART.encode())
    return parts[len(PARTS)] if len(parts) > len(PARTS) else own


def _completed(found: Labels) -> Labels:
    """A certificate in a label of its own is reduced to the label's part; a request with a gRPC status was gRPC; on the
    client's side, mutual TLS was used if the server has an identity; on the server's side the namespace of a caller is
    in its identity, which Istio prefers, too. What is absent is ``unknown``."""
    for side in (b"source", b"destination"):
        for end in _DESCRIBED.values():
            label = side + b"_" + end
            if _described(value := found.get(label, b"")):
                found[label] = _workload(side, value if side != b"source" or _believed(value, found) else b"")[label]
        where = side + b"_cluster"
        if PIECE.encode() in (value := found.get(where, b"")):
            said, _, own = value.rpartition(PIECE.encode())
            found[where] = _cluster(said if side != b"source" or _believed(said, found) else b"", own)
    out = {k: UNKNOWN if v in _EMPTY and k not in _KEPT else v for k, v in found.items()}
    status = out.get(b"grpc_response_status", b"")
    if digits(status) and out.get(b"request_protocol") == b"http":
        out[b"request_protocol"] = b"grpc"
    elif status == b"-":
        out[b"grpc_response_status"] = b""
    policy = out.get(b"connection_security_policy")
    if out.get(b"reporter") == b"source" and policy == UNKNOWN:
        out[b"connection_security_policy"] = _secured(out)
    if out.get(b"source_workload_namespace") == UNKNOWN:
        caller = _CALLER.match(out.get(b"source_principal", b""))
        out[b"source_workload_namespace"] = caller[1] if caller else UNKNOWN
    return out


def _secured(labels: Labels) -> bytes:
    """Plain text is only known if a workload of the mesh has answered, and no Telemetry has removed who it was."""
    if b"destination_principal" not in labels:
        return UNKNOWN
    if labels[b"destination_principal"].startswith(b"spiffe:"):
        return b"mutual_tls"
    failed = b"UF" in labels.get(b"response_flags", b"").split(b",")
    return UNKNOWN if failed or labels.get(b"destination_workload", UNKNOWN) == UNKNOWN else b"none"
