"""Services of ServiceEntries, and the workloads behind them.

A ServiceEntry defines one service for each of its hosts. Several entries in one namespace for the same host are one
service, with their ports and addresses merged. An entry's endpoints are either inline, or the pods and WorkloadEntries
that its selector selects; a Kubernetes service can select WorkloadEntries, too. Source:
https://istio.io/latest/docs/reference/config/networking/service-entry/ and workload-entry/.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

from lateen.api import objects as o
from lateen.api.domain import service_suffix
from lateen.api.networking import ServiceEntry, WorkloadEntry
from lateen.api.reading import DISTRIBUTION, allocates, near
from lateen.kit.derived import derived
from lateen.mesh.workloads import IPV4, Instance, instance

Entry = o.Resource[ServiceEntry]
AUTO = ipaddress.ip_network("240.240.0.0/16")
AUTO_V6 = ipaddress.ip_network("2001:2::/48")
"""Istio's ranges for hosts that have no address of their own. A host has the same place in both."""
KNOWN_BY_NAME = ("DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS", "ALIAS")


@derived
def services(entry: Entry, domain: str) -> tuple[o.Service, ...]:
    """The services of an entry, one for each host, in the entry's order. ``domain``: the DNS domain of the mesh's own
    cluster."""
    spec, suffix = entry.spec, service_suffix(domain)
    addresses = addresses_of(entry)
    ports = tuple(
        o.ServicePort(p.name, p.number, p.target_port or p.number, _transport(p.protocol), p.protocol.lower() or "auto")
        for p in spec.ports
    )
    external = spec.location == "MESH_EXTERNAL"
    return tuple(
        o.Service(
            entry.ref.namespace,
            host.split(".")[0] if host.endswith(suffix) else host,
            addresses[0] if addresses else "",
            ports,
            hostname=host,
            addresses=addresses[1:],
            resolution=spec.resolution,
            external=external,
            export_to=spec.export_to,
            created=entry.created,
            sans=spec.subject_alt_names,
            entries=(entry.ref,),
            domain=domain,
            literal_ports=o.LITERAL_PORTS in dict(entry.labels),
            near=preferred(entry),
        )
        for host in spec.hosts
    )


def addresses_of(entry: Entry) -> tuple[str, ...]:
    """Its addresses and ranges; a range of one address is that address."""
    return tuple(map(_address, entry.spec.addresses))


def _address(text: str) -> str:
    address, slash, length = text.partition("/")
    return address if slash and length == ("128" if ":" in address else "32") else text


def preferred(entry: Entry) -> str:
    """``Service.near``"""
    return near("", dict(entry.notes).get(DISTRIBUTION, ""))


def _transport(protocol: str) -> str:
    """The transport for an entry's protocol."""
    return "UDP" if protocol.upper() == "UDP" else "TCP"


def joined(first: o.Service, more: o.Service) -> o.Service:
    """Merge two entries of one namespace for the same host: the settings of the older one, the ports and addresses of
    both."""
    known = {p.port for p in first.ports}
    return replace(
        first,
        ports=(*first.ports, *(p for p in more.ports if p.port not in known)),
        addresses=tuple(dict.fromkeys((*first.addresses, *more.all_addresses))),
        sans=tuple(dict.fromkeys((*first.sans, *more.sans))),
        entries=(*first.entries, *more.entries),
    )


# --- workloads ---------------------------------------------------------------------------------------------------


def workload(namespace: str, name: str, we: WorkloadEntry, labels: Mapping[str, str]) -> o.Pod:
    """A WorkloadEntry, or an inline endpoint of a ServiceEntry, as a workload. It uses mutual TLS if a label says so,
    or if it has a service account."""
    merged = {**labels, **we.labels}
    if we.service_account:
        merged.setdefault("security.istio.io/tlsMode", "istio")
    return o.Pod(
        namespace,
        name,
        name,
        we.address,
        tuple(sorted(merged.items())),
        we.service_account or "default",
        name,
        tuple((n, port, "TCP") for n, port in sorted(we.ports.items())),
        True,
        locality=we.locality,
        weight=we.weight or 1,
        network=we.network,
    )


@derived
def of_workload_entry(found: o.Resource[WorkloadEntry]) -> o.Pod:
    made = workload(found.ref.namespace, found.ref.name, found.spec, dict(found.labels))
    return made if found.healthy else replace(made, ready=False)


@derived
def inline(entry: Entry) -> tuple[o.Pod, ...]:
    """In metrics they have the entry's name, as in Istio."""
    name = entry.ref.name
    made = (workload(entry.ref.namespace, f"{name}-{i}", e, {}) for i, e in enumerate(entry.spec.endpoints))
    return tuple(replace(w, owner=name) for w in made)


def _port(w: o.Pod, port: o.ServicePort, selected_pod: bool) -> int:
    named = next((number for name, number, _ in w.ports if name == port.name), 0) if not selected_pod else 0
    return named or (port.target if isinstance(port.target, int) else port.port) or port.port


@lru_cache(maxsize=65536)
def numeric(address: str) -> bool:
    """Whether it is an address that need not be resolved by DNS."""
    if address.startswith("unix://"):
        return True
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def of_entry(
    entry: Entry, host: str, port: o.ServicePort, pods: Iterable[o.Pod], workloads: Iterable[o.Pod]
) -> list[Instance]:
    """The instances of one port. ``pods`` and ``workloads`` are all those in the entry's namespace."""
    spec = entry.spec
    if spec.resolution in ("NONE", "DYNAMIC_DNS"):
        return []
    out: list[Instance] = []
    if spec.workload_selector is not None:
        wanted = spec.workload_selector.labels.items()
        for found, is_pod in ((pods, True), (workloads, False)):
            for w in found:
                labels = w.label_map
                if w.address and w.ready and all(labels.get(k) == v for k, v in wanted):
                    out.append(instance(w, _port(w, port, is_pod)))
    else:
        for w in inline(entry):
            address = w.address or host
            number = 0 if address.startswith("unix://") else _port(w, port, False)
            out.append(instance(w, number, address=address))
    if not out and spec.resolution in KNOWN_BY_NAME and "*" not in host and spec.workload_selector is None:
        number = port.target if isinstance(port.target, int) else port.port
        out.append(Instance(host, number or port.port))
    return out


# --- addresses for hosts that have none ------------------------------------------------------------------------


def automatic(entries: Iterable[Entry]) -> dict[tuple[str, str], str]:
    """(namespace, host) -> an automatic address, for entries without one whose host can be resolved.

    Addresses are assigned by the host's hash, and the older entry keeps its address, so that addresses are stable while
    other hosts come and go.
    """
    out: dict[tuple[str, str], str] = {}
    taken: set[int] = set()
    for entry in sorted(entries, key=lambda e: e.age_order):
        if entry.spec.addresses or entry.spec.resolution == "NONE" or not allocates(dict(entry.labels)):
            continue
        for host in entry.spec.hosts:
            key = (entry.ref.namespace, host)
            if key in out or "*" in host:
                continue
            digest = hashlib.blake2b("/".join(key).encode(), digest_size=4).digest()
            place = int.from_bytes(digest) % (AUTO.num_addresses - 2) + 1
            while place in taken:
                place = place % (AUTO.num_addresses - 2) + 1
            taken.add(place)
            out[key] = str(AUTO[place])
    return out


def in_families(automatic: str, families: str) -> tuple[str, ...]:
    """The automatic addresses of a host, of its IPv4 one."""
    place = int(ipaddress.ip_address(automatic)) - int(AUTO[0])
    return tuple(automatic if family == IPV4 else str(AUTO_V6[place]) for family in families)
