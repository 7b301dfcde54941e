"""The certificates that an Envoy has loaded, by its ``/certs``: the workload's own, and those that its servers show."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from lateen.kit import times
from lateen.kit.jsons import Json

LEFT = 0.1
"""The share of its lifetime that is left when a certificate should have been replaced; cert-manager does with 1/3"""


class Loaded(NamedTuple):
    own: bool
    """Whether it has certificates, and none of a workload that has expired."""
    expired: tuple[str, ...]
    """The hosts of other certificates that have expired."""
    soon: tuple[str, ...]
    """The hosts of those that expire soon."""


def loaded(found: Json, now: datetime) -> Loaded:
    """``found``: Envoy's answer. Old roots may have expired, as long as others are trusted: they do not count here."""
    own: list[bool] = []
    late: dict[bool, dict[str, None]] = {True: {}, False: {}}
    leaves = list(_leaves(found))
    for leaf in leaves:
        start, end = (times.parse(leaf[k]) for k in ("valid_from", "expiration_time"))
        names = leaf.get("subject_alt_names") or []
        if any(str(n.get("uri", "")).startswith("spiffe://") for n in names):
            own.append(end > now)
        elif end - now < (end - start) * LEFT:
            hosts = [str(v) for n in names for v in n.values()]
            late[end <= now] |= dict.fromkeys(hosts[:1] or [f"serial number {leaf.get('serial_number')}"])
    return Loaded(bool(leaves) and all(own), tuple(late[True]), tuple(late[False]))


def _leaves(found: Json) -> Iterator[Json]:
    for certificate in found.get("certificates") or []:
        yield from (certificate.get("cert_chain") or [])[:1]
